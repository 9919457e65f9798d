"""Measure labelled objects.

Objects: masks painted into one label image, and what is measured on them.

Objects of a label image that does not fit into memory, measured part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPATIAL = "ZYX"
_TABLE = 1 << 16
"""Numbers up to this, or to as many as there are pixels, may index a table."""


@dataclass(frozen=True)
class MaskScore:
    """Where an object was found, and how good the model thinks its mask is.

    Parameters
    ----------
    label
        The object's number in the label image, at least 1.
    score
        The model's own estimate of the mask's IoU.
    plane
        Indices of the axes before (Y, X).
    """

    label: int
    score: float
    plane: tuple[int, ...] = ()


class LabelVolume:
    """A label image that masks are painted into, one after the other.

    Where masks overlap, the one with the higher score keeps the pixel; of equal scores, the one
    that was painted earlier.

    Parameters
    ----------
    shape
        (..., Y, X).
    labels
        What is painted into: numpy, or zarr for what does not fit into memory; made where left
        out.

    Attributes
    ----------
    labels
        The label image so far, uint32.
    found
        What was painted.
    """

    def __init__(self, shape: tuple[int, ...], labels: Any = None) -> None:
        self.labels: Any = np.zeros(shape, dtype=np.uint32) if labels is None else labels
        self.found: list[MaskScore] = []
        self._best: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def add(
        self, label: int, mask: NDArray[np.bool_], score: float, plane: tuple[int, ...] = ()
    ) -> None:
        """Paint `mask` (Y, X) with `label` into `plane`."""
        best = self._best.get(plane)
        if best is None:
            best = np.full(self.labels.shape[-2:], -np.inf, dtype=np.float32)
            self._best[plane] = best
        wins = mask & (np.float32(score) > best)
        best[wins] = score
        self.labels[plane][wins] = label
        self.found.append(MaskScore(label, float(score), plane))

    def place(
        self,
        labels: NDArray[np.uint32],
        scores: NDArray[np.float32],
        plane: tuple[int, ...] = (),
    ) -> None:
        """Take over finished objects 1..N (Y, X) of an empty plane, numbered on from the last."""
        last = max((one.label for one in self.found), default=0)
        self.labels[plane] = np.where(labels > 0, labels + np.uint32(last), 0)
        self.found += [
            MaskScore(last + number, float(score), plane) for number, score in enumerate(scores, 1)
        ]

    def hidden(self) -> list[int]:
        """Labels that keep no pixel: their masks are empty or lie wholly under better ones."""
        kept = set(np.unique(self.labels).tolist())
        return sorted({one.label for one in self.found} - kept)


@dataclass(frozen=True, kw_only=True)
class PixelSize:
    """Size of a pixel per axis letter, with a unit where it is known."""

    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def of(self, axis: str) -> tuple[float, str] | None:
        """Size and unit along `axis`; None unless both are known."""
        unit = self.units.get(axis, "")
        return (self.scale[axis], unit) if axis in self.scale and unit else None


def table_columns(axes: str, channels: Sequence[str], size: PixelSize) -> list[str]:
    """The columns of the table that `measure_objects` fills, in order; each names its unit."""
    frames, spatial = _split(axes)
    return [
        "label",
        "class",
        *(letter.lower() for letter in frames),
        _pixel_count(spatial),
        *([name] if (name := _physical_name(spatial, size)) else []),
        *(f"centroid_{letter.lower()}_px" for letter in spatial),
        *(
            f"centroid_{letter.lower()}_{known[1]}"
            for letter in spatial
            if (known := size.of(letter)) is not None
        ),
        *(f"bbox_{letter.lower()}0_px" for letter in spatial),
        *(f"bbox_{letter.lower()}1_px" for letter in spatial),
        *(f"mean_{channel}" for channel in channels),
        "score",
    ]


def measure_objects(
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    channels: Sequence[str] = (),
    plane: Callable[[tuple[int, ...]], NDArray[Any]] | None = None,
    size: PixelSize | None = None,
    found: Sequence[MaskScore] = (),
) -> list[dict[str, object]]:
    """Measure every labelled object; one row each, with the columns of `table_columns`.

    An object is one region over (Z, Y, X). Any other axis, such as time, makes one row per
    index. Centroids and bounding boxes are in pixels over the image's axes, boxes half-open,
    and the physical centroid is the pixel's times the pixel size. Missing values (NaN and
    infinity) do not count towards a mean.

    Parameters
    ----------
    labels
        (..., Y, X), 0 is background.
    axes
        One letter per dimension of `labels`.
    channels, plane
        Names of the channels, and a function that gives the raw values (C, Y, X) of one plane,
        from the indices before (Y, X). Only planes between an object's first and last are read.
    size
        The pixel size.
    found
        The masks that were painted; the mean of an object's scores becomes its `score`.
    """
    from skimage.measure import regionprops_table

    size = size or PixelSize()
    frames, spatial = _split(axes)
    rows: list[dict[str, object]] = []
    for frame in product(*(range(labels.shape[axes.index(letter)]) for letter in frames)):
        at = dict(zip(frames, frame, strict=True))
        block = labels[tuple(at.get(letter, slice(None)) for letter in axes)]
        first, block = _occupied(block)
        if block.size == 0:
            continue
        values = _values(plane, axes, at, first, block.shape) if plane and channels else None
        block, numbers = compact_labels(block)
        table = regionprops_table(
            block,
            values,
            properties=("label", "area", "centroid", "bbox"),
            extra_properties=() if values is None else (_mean_of_finite,),
        )
        scores = _scores(found, axes, at)
        for index in range(len(table["label"])):
            region = {name: column[index] for name, column in table.items()}
            region["label"] = numbers[region["label"]]
            rows.append(object_row(region, at, spatial, first, channels, size, scores))
    return rows


def compact_labels(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.integer[Any]], Sequence[int]]:
    """Labels whose numbers are not far beyond their count, and the label that each number is.

    What looks for objects makes tables as long as the largest number: of a billion, 30 GB.
    """
    largest = int(labels.max(initial=0))
    if largest <= max(_TABLE, labels.size):
        return labels, range(largest + 1)
    present = np.unique(labels[labels > 0])
    return np.searchsorted(present, labels, side="right"), [0, *present.tolist()]


def object_row(
    region: Mapping[str, Any],
    at: Mapping[str, int],
    spatial: str,
    first: int,
    channels: Sequence[str],
    size: PixelSize,
    scores: Mapping[int, float],
) -> dict[str, object]:
    """One object's row from what scikit-image measured on the occupied planes."""
    label = int(region["label"])
    row: dict[str, object] = {"label": label, "class": ""}
    row |= {letter.lower(): index for letter, index in at.items()}
    row[_pixel_count(spatial)] = int(region["area"])
    if name := _physical_name(spatial, size):
        row[name] = float(region["area"]) * np.prod([size.scale[letter] for letter in spatial])
    for position, letter in enumerate(spatial):
        offset = first if letter == "Z" else 0
        axis = letter.lower()
        centroid = float(region[f"centroid-{position}"]) + offset
        row[f"centroid_{axis}_px"] = centroid
        if (known := size.of(letter)) is not None:
            row[f"centroid_{axis}_{known[1]}"] = centroid * known[0]
        row[f"bbox_{axis}0_px"] = int(region[f"bbox-{position}"]) + offset
        row[f"bbox_{axis}1_px"] = int(region[f"bbox-{position + len(spatial)}"]) + offset
    for number, channel in enumerate(channels):
        mean = region.get(f"_mean_of_finite-{number}", region.get("_mean_of_finite"))
        row[f"mean_{channel}"] = float("nan") if mean is None else float(mean)
    row["score"] = scores.get(label, float("nan"))
    return row


def _split(axes: str) -> tuple[str, str]:
    """The axes that make rows, and those an object extends over, both in the image's order."""
    if not axes.endswith("YX"):
        raise ValueError(f"The axes of a label image end in YX, got {axes!r}.")
    frames = "".join(letter for letter in axes if letter not in SPATIAL)
    return frames, "".join(letter for letter in axes if letter in SPATIAL)


def _pixel_count(spatial: str) -> str:
    return "area_px" if len(spatial) == 2 else "volume_voxels"


def _physical_name(spatial: str, size: PixelSize) -> str:
    """Column of the physical area or volume; empty unless all axes share one known unit."""
    units = {known[1] if (known := size.of(letter)) else "" for letter in spatial}
    if len(units) > 1 or "" in units:
        return ""
    return f"{'area' if len(spatial) == 2 else 'volume'}_{units.pop()}{len(spatial)}"


def _occupied(block: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """The planes between the first and the last that holds a label, and the first's index."""
    if block.ndim == 2:
        return 0, block if block.any() else block[:0]
    planes = np.flatnonzero(block.any(axis=(1, 2)))
    if planes.size == 0:
        return 0, block[:0]
    return int(planes[0]), block[planes[0] : planes[-1] + 1]


def _values(
    plane: Callable[[tuple[int, ...]], NDArray[Any]],
    axes: str,
    at: Mapping[str, int],
    first: int,
    shape: tuple[int, ...],
) -> NDArray[Any]:
    """Raw values of the occupied planes of one frame, channels last as scikit-image has them."""
    leading = axes[:-2]
    if len(shape) == 2:
        return _channels_last(plane(tuple(at[letter] for letter in leading)))
    planes: Iterator[NDArray[Any]] = (
        plane(tuple(at.get(letter, z) for letter in leading))
        for z in range(first, first + shape[0])
    )
    return np.stack([_channels_last(values) for values in planes])


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """(C, Y, X) -> (Y, X, C); infinity becomes NaN, as scikit-image takes it times a mask's 0."""
    last = np.moveaxis(values, 0, -1)
    return np.where(np.isinf(last), np.nan, last) if last.dtype.kind == "f" else last


def _mean_of_finite(region: NDArray[np.bool_], values: NDArray[Any]) -> float:
    """Mean over a region's values that are not missing; NaN if all are."""
    inside = values[region].astype(np.float64)
    finite = inside[np.isfinite(inside)]
    return float(finite.mean()) if finite.size else float("nan")


def _scores(found: Sequence[MaskScore], axes: str, at: Mapping[str, int]) -> dict[int, float]:
    """Mean score per label over the masks of one frame."""
    gathered: dict[int, list[float]] = {}
    for one in found:
        where = dict(zip(axes[:-2], one.plane, strict=True))
        if all(where[letter] == index for letter, index in at.items()):
            gathered.setdefault(one.label, []).append(one.score)
    return {label: float(np.mean(scores)) for label, scores in gathered.items()}


PART_SIDE = 1024
"""Side in pixels of the parts that are read at once."""


def measure_in_parts(
    labels: Any,
    *,
    channels: Sequence[str],
    part: Callable[[slice, slice], NDArray[Any]],
    size: PixelSize,
    found: Sequence[MaskScore],
) -> list[dict[str, object]]:
    """Measure every object of a plane; the rows are those of `engine.objects.measure_objects`.

    Parameters
    ----------
    labels
        (Y, X), 1..N and 0 for the background; zarr, or what else takes slices.
    channels, part
        Names of the channels, and a function that gives the raw values (C, h, w) of a part.
    size
        The pixel size.
    found
        The objects and their scores.
    """
    sums = _RunningSums(1 + max((one.label for one in found), default=0), len(channels))
    for rows, columns in _parts(labels.shape):
        block = np.asarray(labels[rows, columns])
        if block.any():
            sums.add(block, part(rows, columns), rows.start, columns.start)
    scores = {one.label: one.score for one in found}
    return [
        object_row(region, {}, "YX", 0, channels, size, scores)
        for region in (sums.region(one.label) for one in found if sums.area[one.label])
    ]


class _RunningSums:
    """What is added up of each label over the parts; `labels` counts the background too."""

    def __init__(self, labels: int, channels: int) -> None:
        self.area = np.zeros(labels, np.int64)
        self.positions = np.zeros((2, labels))
        self.first = np.full((2, labels), np.iinfo(np.int64).max)
        self.last = np.full((2, labels), -1)
        self.values = np.zeros((channels, labels))
        self.finite = np.zeros((channels, labels), np.int64)

    def add(self, block: NDArray[Any], values: NDArray[Any], top: int, left: int) -> None:
        """Take in a part (h, w) that begins at `top`, `left`, with its values (C, h, w)."""
        count = len(self.area)
        inside = np.nonzero(block)
        ids = block[inside]
        self.area += np.bincount(ids, minlength=count)
        for axis, (at, start) in enumerate(zip(inside, (top, left), strict=True)):
            self.positions[axis] += np.bincount(ids, at + start, count)
            np.minimum.at(self.first[axis], ids, at + start)
            np.maximum.at(self.last[axis], ids, at + start)
        for channel, plane in enumerate(values):
            of_objects = plane[inside].astype(np.float64)
            known = np.isfinite(of_objects)
            self.values[channel] += np.bincount(ids[known], of_objects[known], count)
            self.finite[channel] += np.bincount(ids[known], minlength=count)

    def region(self, label: int) -> dict[str, Any]:
        """A label's measurements under the names that scikit-image gives them."""
        area = int(self.area[label])
        region: dict[str, Any] = {"label": label, "area": area}
        for axis in (0, 1):
            region[f"centroid-{axis}"] = self.positions[axis, label] / area
            region[f"bbox-{axis}"] = self.first[axis, label]
            region[f"bbox-{axis + 2}"] = self.last[axis, label] + 1
        for channel, finite in enumerate(self.finite[:, label]):
            if finite:
                region[f"_mean_of_finite-{channel}"] = self.values[channel, label] / finite
        return region


def _parts(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for y in range(0, shape[0], PART_SIDE):
        for x in range(0, shape[1], PART_SIDE):
            yield slice(y, min(y + PART_SIDE, shape[0])), slice(x, min(x + PART_SIDE, shape[1]))
