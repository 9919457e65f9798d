"""Which samples train and which validate; what belongs together is never on both sides."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.datasets.dataset import Loaded, Sample, areas
from napari_simmat.learn.datasets.stack import LabelledStack, Plane, as_ids
from napari_simmat.words import are

logger = logging.getLogger(__name__)

Sides = tuple[tuple[Sample, ...], tuple[Sample, ...]]
"""Training and validation."""

PIECE = 0.25
"""The least share of an object by which a piece of it is one, where a cut goes through it."""
BALANCE = 0.25
"""The least share of the regions that each half should have."""

_NUMBERED = re.compile(r"([_\-. ][tz]\d+)+$", re.IGNORECASE)


def series_of(stem: str) -> str:
    """What the planes or times of a series have in common: ``"cell"`` for ``"cell_t01_z003"``."""
    return _NUMBERED.sub("", stem)


def all_samples(stacks: Sequence[LabelledStack]) -> tuple[Sample, ...]:
    """Every plane that holds an object, in order."""
    return tuple(sample for stack in stacks for sample in _samples(stack))


def split(stacks: Sequence[LabelledStack], share: float, seed: int) -> Sides:
    """Keep some groups for validation, at least one; a lone group is cut in halves.

    Parameters
    ----------
    stacks
        Images that hold objects.
    share
        Of the groups, for validation.
    seed
        Decides which.

    Raises
    ------
    ValueError
        If a lone group holds nothing that could be divided.
    """
    groups = sorted({stack.group for stack in stacks})
    if len(groups) == 1:
        return _halves(stacks)
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    order = np.random.default_rng(seed).permutation(len(groups))
    kept = {groups[index] for index in order[:count]}
    train = all_samples([stack for stack in stacks if stack.group not in kept])
    validation = all_samples([stack for stack in stacks if stack.group in kept])
    logger.info(
        "Of %d images or series %d %s kept for validation: %s.",
        len(groups),
        count,
        are(count),
        ", ".join(sorted(kept)),
    )
    return train, validation


@dataclass(frozen=True)
class Cut:
    """Where an image is divided.

    Parameters
    ----------
    axis
        0: into an upper and a lower half; 1: into a left and a right one.
    at
        As a share of the image's length.
    """

    axis: int
    at: float

    @property
    def names(self) -> tuple[str, str]:
        """What the halves are called."""
        return ("upper half", "lower half") if self.axis == 0 else ("left half", "right half")

    def windows(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns of both halves of a plane of `shape` (Y, X)."""
        size = shape[self.axis]
        place = min(max(1, round(self.at * size)), max(1, size - 1))
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[self.axis], second[self.axis] = slice(0, place), slice(place, None)
        return (first[0], first[1]), (second[0], second[1])

    def labels(self, labels: NDArray[Any], half: int) -> NDArray[Any]:
        """The labels (Y, X) in a half; of an object that is cut a small piece is left out."""
        windows = self.windows(labels.shape)
        ours, whole = labels[windows[half]], areas(labels)
        small = [label for label, area in areas(ours).items() if area < PIECE * whole[label]]
        return np.where(np.isin(ours, small), 0, ours)


def _halves(stacks: Sequence[LabelledStack]) -> Sides:
    """The halves of the planes of one image or series; every plane is cut at the same place."""
    what = stacks[0].group if len(stacks) > 1 else stacks[0].name
    cut = _find_cut(stacks, what)
    sides = []
    for half, name in enumerate(cut.names):
        sides.append(
            tuple(
                Sample(
                    name=f"{sample} {name}",
                    group=f"{stack.group} {name}",
                    load=partial(_load_half, stack, plane, cut, half),
                )
                for stack in stacks
                for plane, labels in stack.planes()
                for sample in [_sample_name(stack, plane)]
                if (cut.labels(labels, half) > 0).any()
            )
        )
    logger.warning(
        "All labels are in one %s, %s: its %s trains and its %s validates. Figures on it say "
        "little about other images; label a second one to learn more.",
        "image" if len(stacks) == 1 else "series",
        what,
        *cut.names,
    )
    return sides[0], sides[1]


def _find_cut(stacks: Sequence[LabelledStack], what: str) -> Cut:
    """In the middle of the longer side, or elsewhere if that leaves a half nearly empty."""
    centres, shape = _centres(stacks)
    if len(centres) < 2:
        raise ValueError(
            f"There is a single labelled object, in {what}, so that none is left to validate on; "
            "label a second one. If the labels are a mask of many objects, number them first, "
            "e.g. with skimage.measure.label."
        )
    longer = int(shape[1] >= shape[0])
    cuts = [Cut(longer, 0.5), Cut(1 - longer, 0.5)]
    for axis in (longer, 1 - longer):  # between the two middle ones
        along = np.sort(centres[:, axis])
        cuts.append(Cut(axis, float(along[len(along) // 2 - 1] + along[len(along) // 2]) / 2))
    best, most = None, 0.0
    for cut in cuts:
        regions = [_regions(stacks, cut, half) for half in (0, 1)]
        balance = min(regions) / max(1, sum(regions))
        if balance >= BALANCE:
            return cut
        if balance > most:
            best, most = cut, balance
    if best is not None:
        return best
    raise ValueError(
        f"All labels are in {what}, and its objects lie in one place, so that the image cannot be "
        "divided into a half to train and a half to validate on; label an object elsewhere, or a "
        "second image."
    )


def _regions(stacks: Sequence[LabelledStack], cut: Cut, half: int) -> int:
    """How many regions a half has over all planes."""
    return sum(
        len(areas(cut.labels(labels, half))) for stack in stacks for _, labels in stack.planes()
    )


def _centres(stacks: Sequence[LabelledStack]) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Centre (y, x) of each region as shares of its plane's size, and the first plane's size."""
    centres, shapes = [], []
    for stack in stacks:
        for _, labels in stack.planes():
            shapes.append(labels.shape)
            rows, columns = np.nonzero(labels > 0)
            _, inverse, counts = np.unique(
                labels[rows, columns], return_inverse=True, return_counts=True
            )
            y = np.bincount(inverse, weights=(rows + 0.5) / labels.shape[0]) / counts
            x = np.bincount(inverse, weights=(columns + 0.5) / labels.shape[1]) / counts
            centres.append(np.stack([y, x], axis=1))
    return np.concatenate(centres), shapes[0]


def _samples(stack: LabelledStack) -> list[Sample]:
    return [
        Sample(_sample_name(stack, plane), stack.group, _loader(stack, plane))
        for plane, _ in stack.planes()
    ]


def _loader(stack: LabelledStack, plane: Plane) -> Callable[[], Loaded]:
    return partial(stack.load, plane)


def _sample_name(stack: LabelledStack, plane: Plane) -> str:
    return f"{stack.name} plane {','.join(map(str, plane))}" if plane else stack.name


def _load_half(stack: LabelledStack, plane: Plane, cut: Cut, half: int) -> Loaded:
    values, labels = stack.load(plane)
    rows, columns = cut.windows(labels.shape)[half]
    return np.ascontiguousarray(values[:, rows, columns]), as_ids(cut.labels(labels, half))
