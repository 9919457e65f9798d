"""Masks painted into a label image, and the table of its objects' measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import compact_labels
from napari_simmat.io.reference import ImageReference

SPATIAL = "ZYX"
PART_SIDE = 1024
"""Side in pixels of the parts that are read at once."""


@dataclass(frozen=True)
class MaskScore:
    """A painted mask: the object's label, the predicted IoU, and the plane's index."""

    label: int
    score: float
    plane: tuple[int, ...] = ()


class LabelVolume:
    """A label image (..., Y, X) into which masks are painted.

    Where masks overlap, the one with the higher score keeps the pixel; of equal scores the earlier.

    Attributes
    ----------
    labels
        uint32, numpy by default; or zarr if it does not fit into memory.
    masks
        The painted masks.
    """

    def __init__(self, shape: tuple[int, ...], labels: Any = None) -> None:
        self.labels: Any = np.zeros(shape, dtype=np.uint32) if labels is None else labels
        self.masks: list[MaskScore] = []
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
        self.masks.append(MaskScore(label, float(score), plane))

    def place(
        self,
        labels: NDArray[np.uint32],
        scores: NDArray[np.float32],
        plane: tuple[int, ...] = (),
    ) -> None:
        """Add the finished objects 1..N (Y, X) of an empty plane, numbered after the last one."""
        last = max((one.label for one in self.masks), default=0)
        self.labels[plane] = np.where(labels > 0, labels + np.uint32(last), 0)
        self.masks += [
            MaskScore(last + number, float(score), plane) for number, score in enumerate(scores, 1)
        ]

    def hidden(self) -> list[int]:
        """Labels without a pixel: their masks are empty or lie under better ones."""
        kept = set(np.unique(self.labels).tolist())
        return sorted({one.label for one in self.masks} - kept)


def table_columns(axes: str, channels: Sequence[str], size: ImageReference) -> list[str]:
    """The columns of the table of `measure_objects`, in order; each names its unit."""
    frames, spatial = _split(axes)
    letters = [letter.lower() for letter in spatial]
    physical = _physical_name(spatial, size)
    columns = ["label", "class", *(letter.lower() for letter in frames), _pixel_count(spatial)]
    columns += [name for name in (physical, surface_name(physical)) if name]
    columns += [f"centroid_{letter}_px" for letter in letters]
    for letter in spatial:
        step = size.of(letter)
        if step is not None:
            columns.append(f"centroid_{letter.lower()}_{step[1]}")
    columns += [f"bbox_{letter}0_px" for letter in letters]
    columns += [f"bbox_{letter}1_px" for letter in letters]
    columns += [f"mean_{channel}" for channel in channels]
    return [*columns, "score"]


def measure_objects(
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    channels: Sequence[str] = (),
    plane: Callable[[tuple[int, ...]], NDArray[Any]] | None = None,
    size: ImageReference | None = None,
    masks: Sequence[MaskScore] = (),
) -> list[dict[str, object]]:
    """Measure every object: one row each, with the columns of `table_columns`.

    An object is one region over (Z, Y, X); any other axis, such as time, makes one row per index.
    Centroids and half-open bounding boxes are in pixels; the physical centroid is that times the
    pixel size, of a part of a slide in the whole slide. NaN and infinity do not count towards a
    mean.

    Parameters
    ----------
    labels
        (..., Y, X), 0 is background.
    axes
        One letter per dimension of `labels`.
    channels, plane
        Names of the channels, and a function that gives the raw values (C, Y, X) of one plane,
        from the indices before (Y, X). Only planes between the first and last object are read.
    size
        The pixel size.
    masks
        The painted masks; the mean of an object's scores becomes its `score`.
    """
    from skimage.measure import regionprops_table

    size = size or ImageReference()
    frames, spatial = _split(axes)
    edges = size.edges(spatial) if len(spatial) == 3 else None
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
        scores = _mean_scores(masks, axes, at)
        for index in range(len(table["label"])):
            region = {name: column[index] for name, column in table.items()}
            if edges is not None:
                region["surface"] = _surface(block, region, tuple(map(tuple, edges.tolist())))
            region["label"] = numbers[region["label"]]
            rows.append(object_row(region, at, spatial, first, channels, size, scores))
    return rows


def _mean_scores(masks: Sequence[MaskScore], axes: str, at: Mapping[str, int]) -> dict[int, float]:
    """The mean score of each label's masks on the planes with these indices."""
    of_label: dict[int, list[float]] = {}
    for one in masks:
        where = dict(zip(axes[:-2], one.plane, strict=True))
        if all(where[letter] == index for letter, index in at.items()):
            of_label.setdefault(one.label, []).append(one.score)
    return {label: float(np.mean(scores)) for label, scores in of_label.items()}


def object_row(
    region: Mapping[str, Any],
    at: Mapping[str, int],
    spatial: str,
    first: int,
    channels: Sequence[str],
    size: ImageReference,
    scores: Mapping[int, float],
) -> dict[str, object]:
    """One row from scikit-image's measurements of an object on the occupied planes."""
    label = int(region["label"])
    row: dict[str, object] = {"label": label, "class": ""}
    row |= {letter.lower(): index for letter, index in at.items()}
    row[_pixel_count(spatial)] = int(region["area"])
    voxel = size.voxel(spatial)
    if voxel is not None:
        row[_physical_name(spatial, size)] = float(region["area"]) * voxel[0]
    if "surface" in region:
        row[surface_name(_physical_name(spatial, size))] = region["surface"]
    for position, letter in enumerate(spatial):
        offset = first if letter == "Z" else 0
        axis = letter.lower()
        centroid = float(region[f"centroid-{position}"]) + offset
        row[f"centroid_{axis}_px"] = centroid
        step = size.of(letter)
        if step is not None:
            begin = size.start(letter)
            row[f"centroid_{axis}_{step[1]}"] = centroid * step[0] + begin
        row[f"bbox_{axis}0_px"] = int(region[f"bbox-{position}"]) + offset
        row[f"bbox_{axis}1_px"] = int(region[f"bbox-{position + len(spatial)}"]) + offset
    for number, channel in enumerate(channels):
        mean = region.get(f"_mean_of_finite-{number}", region.get("_mean_of_finite"))
        row[f"mean_{channel}"] = float("nan") if mean is None else float(mean)
    row["score"] = scores.get(label, float("nan"))
    return row


def surface_name(volume: str) -> str:
    """The column of the surface from that of the physical volume; empty for an area."""
    is_volume = volume.startswith("volume_")
    return f"surface_{volume.removeprefix('volume_')[:-1]}2" if is_volume else ""


Edges = tuple[tuple[float, ...], ...]
"""(3, 3), the edges of a voxel along Z, Y, X as columns."""


def _surface(block: NDArray[Any], region: Mapping[str, Any], edges: Edges) -> float:
    """Area of an object's surface from its crossings by lines in 13 directions (Crofton).

    As MorphoLibJ: Legland et al., Bioinformatics 32, 3532 (2016). A mesh of voxels would be a
    tenth too large.
    """
    box = tuple(slice(region[f"bbox-{n}"], region[f"bbox-{n + 3}"]) for n in range(3))
    mask = np.pad(block[box] == region["label"], 1)
    surface = 0.0
    for step, weight in _directions(edges):
        crossings = np.count_nonzero(np.roll(mask, step, (0, 1, 2)) != mask)
        surface += 2 * weight * crossings
    return surface


@lru_cache
def _directions(edges: Edges) -> list[tuple[tuple[int, ...], float]]:
    """Steps to neighbors, with their part of all directions times the area for each line."""
    from scipy.spatial import SphericalVoronoi

    steps = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    ends = steps @ np.array(edges).T
    lengths = np.linalg.norm(ends, axis=1)
    ends = ends / lengths[:, np.newaxis]
    parts = SphericalVoronoi(np.concatenate([ends, -ends])).calculate_areas()[: len(steps)]
    weights = parts / (2 * np.pi) * abs(np.linalg.det(np.array(edges))) / lengths
    return list(zip(steps, weights.tolist(), strict=True))


def _split(axes: str) -> tuple[str, str]:
    """The axes that make rows, and those that objects extend over, in the image's order."""
    if not axes.endswith("YX"):
        raise ValueError(f"The axes of a label image end in YX, got {axes!r}.")
    frames = "".join(letter for letter in axes if letter not in SPATIAL)
    return frames, "".join(letter for letter in axes if letter in SPATIAL)


def _pixel_count(spatial: str) -> str:
    return "area_px" if len(spatial) == 2 else "volume_voxels"


def _physical_name(spatial: str, size: ImageReference) -> str:
    """Column of the physical area or volume; empty unless all axes share one known unit."""
    voxel = size.voxel(spatial)
    if voxel is None:
        return ""
    return f"{'area' if len(spatial) == 2 else 'volume'}_{voxel[1]}{len(spatial)}"


def _occupied(block: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """Index of the first plane with a label, and the planes from there to the last one."""
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
    """Raw values of the occupied planes of one frame, channels last for scikit-image."""
    leading = axes[:-2]
    if len(shape) == 2:
        return _channels_last(plane(tuple(at[letter] for letter in leading)))
    planes: Iterator[NDArray[Any]] = (
        plane(tuple(at.get(letter, z) for letter in leading))
        for z in range(first, first + shape[0])
    )
    return np.stack([_channels_last(values) for values in planes])


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """(C, Y, X) -> (Y, X, C), infinity as NaN: scikit-image multiplies it by a mask's 0."""
    last = np.moveaxis(values, 0, -1)
    return np.where(np.isinf(last), np.nan, last) if last.dtype.kind == "f" else last


def _mean_of_finite(region: NDArray[np.bool_], values: NDArray[Any]) -> float:
    inside = values[region].astype(np.float64)
    finite = inside[np.isfinite(inside)]
    return float(finite.mean()) if finite.size else float("nan")


def measure_in_parts(
    labels: Any,
    *,
    channels: Sequence[str],
    part: Callable[[slice, slice], NDArray[Any]],
    size: ImageReference,
    masks: Sequence[MaskScore],
) -> list[dict[str, object]]:
    """The rows of `measure_objects` for a plane that does not fit into memory.

    `labels` (Y, X) are 1..N and 0, zarr or anything that takes slices; `part` gives the raw values
    (C, h, w) of rows and columns.
    """
    sums = _RunningSums(1 + max((one.label for one in masks), default=0), len(channels))
    height, width = labels.shape
    for y, x in product(range(0, height, PART_SIDE), range(0, width, PART_SIDE)):
        rows = slice(y, min(y + PART_SIDE, height))
        columns = slice(x, min(x + PART_SIDE, width))
        block = np.asarray(labels[rows, columns])
        if block.any():
            sums.add(block, part(rows, columns), rows.start, columns.start)
    scores = {one.label: one.score for one in masks}
    return [
        object_row(region, {}, "YX", 0, channels, size, scores)
        for region in (sums.region(one.label) for one in masks if sums.area[one.label])
    ]


class _RunningSums:
    """Sums over the parts for each of `labels` labels, the background included."""

    def __init__(self, labels: int, channels: int) -> None:
        self.area = np.zeros(labels, np.int64)
        self.positions = np.zeros((2, labels))
        self.first = np.full((2, labels), np.iinfo(np.int64).max)
        self.last = np.full((2, labels), -1)
        self.values = np.zeros((channels, labels))
        self.finite = np.zeros((channels, labels), np.int64)

    def add(self, block: NDArray[Any], values: NDArray[Any], top: int, left: int) -> None:
        """Add a part (h, w) that begins at `top`, `left`, with its values (C, h, w)."""
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
        """A label's measurements under scikit-image's names."""
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
