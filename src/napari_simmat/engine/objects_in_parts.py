"""Objects of a label image that does not fit into memory, measured part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.objects import Found, PixelSize, row_of

STEP = 1024
"""Side in pixels of the parts that are read at once."""


def measure_in_parts(
    labels: Any,
    *,
    channels: Sequence[str],
    part: Callable[[slice, slice], NDArray[Any]],
    size: PixelSize,
    found: Sequence[Found],
) -> list[dict[str, object]]:
    """Measure every object of a plane; the rows are those of `engine.objects.measure`.

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
    sums = _Sums(1 + max((one.label for one in found), default=0), len(channels))
    for rows, columns in _parts(labels.shape):
        block = np.asarray(labels[rows, columns])
        if block.any():
            sums.add(block, part(rows, columns), rows.start, columns.start)
    scores = {one.label: one.score for one in found}
    return [
        row_of(region, {}, "YX", 0, channels, size, scores)
        for region in (sums.region(one.label) for one in found if sums.area[one.label])
    ]


class _Sums:
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
    for y in range(0, shape[0], STEP):
        for x in range(0, shape[1], STEP):
            yield slice(y, min(y + STEP, shape[0])), slice(x, min(x + STEP, shape[1]))
