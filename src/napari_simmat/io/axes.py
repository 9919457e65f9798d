"""The axes of an image: their letters, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.refusals import RefusedFileError

UNKNOWN_AXES = "QRPAHE"
"""Letters for axes of unknown meaning, in the order in which they are used; all valid in OME."""


def as_array(data: Any) -> Any:
    """An array with methods such as `astype`; a `LazyArray`, which has none, as lazy dask."""
    if hasattr(data, "astype"):
        return data
    dask_array: Any = import_module("dask.array")  # it has no types
    return dask_array.from_array(data, chunks=data.chunks, name=False)


def same_except_singletons(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether shapes (..., Y, X) are equal apart from leading axes of length 1."""
    ours, theirs = ([size for size in shape[:-2] if size > 1] for shape in (one, other))
    return ours == theirs and tuple(one[-2:]) == tuple(other[-2:])


def distinct_axes(axes: str) -> str:
    """Make axis letters unique: a repeated letter becomes the next free one of `UNKNOWN_AXES`."""
    apart = ""
    for letter in axes:
        free = (other for other in UNKNOWN_AXES if other not in axes + apart)
        apart += next(free, letter) if letter in apart else letter
    return apart


def unnamed_axes(path: Path, n_axes: int) -> str:
    """``QQYX``: letters for an array whose file does not name its axes; refuses 1 or over 5."""
    if not 2 <= n_axes <= 5:
        raise RefusedFileError(
            f"{path.name} has {n_axes} axes; an image has 2 (Y, X) to 5; save it with those."
        )
    return "Q" * (n_axes - 2) + "YX"


def planes_last(data: Any, axes: str) -> tuple[Any, str]:
    """Move Y and X behind all other axes but the channels, where they are not."""
    others = [letter for letter in axes if letter not in "CSYX"]
    if [letter for letter in axes if letter not in "CS"] == [*others, "Y", "X"]:
        return data, axes
    if not isinstance(data, np.ndarray):
        data = as_array(data)
    target = [*(letter for letter in axes if letter in "CS"), *others, "Y", "X"]
    remaining = list(enumerate(axes))  # letters may repeat: equal ones are taken in their order
    order = []
    for letter in target:
        found = next(pair for pair in remaining if pair[1] == letter)
        remaining.remove(found)
        order.append(found[0])
    return data.transpose(order), "".join(target)


def names_of_channels(names: Sequence[str | None], count: int) -> tuple[str, ...] | None:
    """The names that a file gives its channels; one without a name has its number.

    None if no channel has a name, if there is one channel, or if the names are not so many.
    """
    known = [(name or "").strip() for name in names]
    if count < 2 or len(known) != count or not any(known):
        return None
    return tuple(name or f"channel{number}" for number, name in enumerate(known))


def label_dtype(highest: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds `highest`."""
    return np.dtype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32)


def labels_in_file_order(labels: NDArray[Any], axes: str) -> tuple[NDArray[Any], list[str]]:
    """Labels in the type of `label_dtype` with the axes T, Z, Y, X behind all others, and these."""
    known = [letter for letter in "TZYX" if letter in axes]
    order = [letter for letter in axes if letter not in known] + known
    data = np.asarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    return data.transpose([axes.index(letter) for letter in order]), order
