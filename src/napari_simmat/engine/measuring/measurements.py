"""The table of what is measured of each object of a label image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.channels.indices import PlacedIndex
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.masks import label_windows
from napari_simmat.engine.measuring.object_shape import LENGTHS, RATIOS, ObjectShape
from napari_simmat.engine.measuring.object_statistics import (
    RING,
    known_share,
    ring,
    statistics_of_places,
    summarize,
)
from napari_simmat.engine.table_settings import DEFAULT_STATISTICS, OF_PLACES
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.sky import right_ascension

SPATIAL = "ZYX"


class ObjectPixels(NamedTuple):
    """The pixels of an object, and those around it.

    Attributes
    ----------
    values
        (R, N), their values in each row of the image.
    places
        (2 or 3, N), their indices along (Z,) Y, X of the image.
    around
        (R, M), the values in the ring around it; None if no column needs them.
    """

    values: NDArray[Any]
    places: NDArray[Any]
    around: NDArray[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ValueColumns:
    """What is measured of the pixels' values of an object.

    Parameters
    ----------
    channels
        Names of the channels, which are the first rows of the values.
    indices
        Spectral indices, from these rows and those after them.
    statistics
        As `engine.table_settings` names them. An index has no sum: it would have no meaning.
    """

    channels: Sequence[str] = ()
    indices: Sequence[PlacedIndex] = ()
    statistics: Sequence[str] = DEFAULT_STATISTICS

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns: each statistic of all channels, then each of the indices."""
        names = [f"{each}_{channel}" for each in self.statistics for channel in self.channels]
        names += [f"{each}_{one.index.name}" for each in self._of_indices for one in self.indices]
        return tuple(names)

    @property
    def shares(self) -> tuple[str, ...]:
        """Columns that a table has where a channel or index lacks data on pixels of an object."""
        return tuple(f"{VALID}{n}" for n in (*self.channels, *(i.index.name for i in self.indices)))

    @property
    def needs_ring(self) -> bool:
        """Whether the pixels around an object are measured, too."""
        return bool({"background", "net_sum"} & set(self.statistics)) and bool(self.channels)

    @cached_property
    def _of_indices(self) -> list[str]:
        return [each for each in self.statistics if each not in ("sum", *OF_PLACES)]

    def measure(self, pixels: ObjectPixels) -> dict[str, float]:
        """The columns, from the values of an object's pixels.

        Also the share of the pixels with data, of channels and indices where that is not all.
        """
        count = len(self.channels)
        values, around = pixels.values, pixels.around
        of_values = [each for each in self.statistics if each not in OF_PLACES]
        of_places = [each for each in self.statistics if each in OF_PLACES]
        known = summarize(values[:count], of_values) if count else {}
        if count and of_places:
            around = None if around is None else around[:count]
            known |= statistics_of_places(values[:count], around, pixels.places, of_places)
        found = [known[each] for each in self.statistics] if count else []
        shares = [known_share(values[:count])]
        if self.indices:
            of_pixels = np.stack([one.of(values) for one in self.indices])
            found += summarize(of_pixels, self._of_indices).values()
            shares.append(known_share(of_pixels))
        numbers = np.concatenate(found).tolist() if found else []
        # The names are those of all rows: their own would take more memory than the numbers.
        row = dict(zip(self.names, numbers, strict=True))
        each = zip(self.shares, np.concatenate(shares).tolist(), strict=True)
        return row | {name: share for name, share in each if share < 1}


def table_columns(
    axes: str,
    values: ValueColumns | Sequence[str],
    size: ImageReference,
    *,
    parents: bool = False,
    rows: Sequence[Mapping[str, object]] = (),
) -> list[str]:
    """The columns of the table of `measure_objects`, in order; each that has a unit names it.

    Parameters
    ----------
    axes, size
        As of `measure_objects`.
    values
        What is measured of the pixels' values; of names of channels, the usual statistics.
    parents
        Whether each object may be in one of another label image.
    rows
        The table; where an object lacks data, it has columns that say so.
    """
    if not isinstance(values, ValueColumns):
        values = ValueColumns(channels=tuple(values))
    frames, spatial = _split(axes)
    letters = [letter.lower() for letter in spatial]
    physical = _physical_name(spatial, size)
    columns = ["label", "class", *(letter.lower() for letter in frames)]
    columns += [_time_name(size)] * _is_timed(frames, size)
    columns += [_pixel_count(spatial)]
    columns += [name for name in (physical, surface_name(physical)) if name]
    columns += [name for name in _section_names(spatial, size) if name]
    columns += [f"centroid_{letter}_px" for letter in letters]
    for letter in spatial:
        step = size.of(letter)
        if step is not None:
            columns.append(f"centroid_{letter.lower()}_{step[1]}")
    columns += [*ON_SKY] * _is_on_sky(spatial, size)
    columns += [f"bbox_{letter}0_px" for letter in letters]
    columns += [f"bbox_{letter}1_px" for letter in letters]
    columns += values.names
    columns += [name for name in values.shares if rows and name in rows[0]]
    columns += [name for name in _shape_columns(spatial, size) if name not in columns]
    columns += [*PARENTS] * parents
    return [*columns, "score"]


VALID = "valid_fraction_"
"""How columns begin that say which share of an object's pixels has data in a channel."""
ON_SKY = ("ra_deg", "dec_deg")
"""Columns of the place of an object's centroid on the sky (ICRS)."""
PARENTS = ("parent", "parent_overlap")
"""Columns for the object of another label image that holds the most of an object."""


def _is_timed(frames: str, size: ImageReference) -> bool:
    """Whether rows are of time points whose distance is known."""
    return "T" in frames and size.of("T") is not None


def _is_on_sky(spatial: str, size: ImageReference) -> bool:
    """Whether the file says where a plane's pixels are on the sky."""
    return bool(size.sky) and spatial == "YX"


def _time_name(size: ImageReference) -> str:
    """``t_s``: the column of the time since the first time point."""
    return f"t_{size.units.get('T', '')}"


def _shape_columns(spatial: str, size: ImageReference) -> list[str]:
    """Lengths in pixels, then in the unit, then what has none."""
    units = ["px", *([size.units[spatial[0]]] if size.edges(spatial) is not None else [])]
    lengths = [_length_name(length, unit) for unit in units for length in LENGTHS[len(spatial)]]
    return [*lengths, *RATIOS[len(spatial)]]


@lru_cache
def _length_name(length: str, unit: str) -> str:
    return f"{length}_{unit}2" if length == "surface" else f"{length}_{unit}"


def measure_objects(
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    channels: ValueColumns | Sequence[str] = (),
    plane: Callable[[tuple[int, ...]], NDArray[Any]] | None = None,
    size: ImageReference | None = None,
    masks: Sequence[MaskScore] = (),
    parents: NDArray[np.integer[Any]] | None = None,
) -> list[dict[str, object]]:
    """Measure every object: one row each, with the columns of `table_columns`.

    An object is one region over (Z, Y, X); any other axis, such as time, makes one row per index.
    Centroids and half-open bounding boxes are in pixels; the physical centroid is that times the
    pixel size, of a part of a slide in the whole slide. NaN and infinity do not count towards
    statistics.

    Parameters
    ----------
    labels
        (..., Y, X), 0 is background.
    axes
        One letter per dimension of `labels`.
    channels, plane
        What is measured of the values, and a function that gives the raw values (R, Y, X) of one
        plane, from the indices before (Y, X). Only planes between the first and last object are
        read. Names of channels mean their usual statistics.
    size
        The pixel size.
    masks
        The painted masks; the mean of an object's scores becomes its `score`.
    parents
        Labels of other objects, of the same shape: each row then names the one that covers most of
        the object, 0 for none and the lowest of several, and its share.
    """
    known = TableRows.of(axes, channels, size)
    rows: list[dict[str, object]] = []
    for frame in product(*(range(labels.shape[axes.index(letter)]) for letter in known.frames)):
        at = dict(zip(known.frames, frame, strict=True))
        where = tuple(at.get(letter, slice(None)) for letter in axes)
        first, block = _occupied(labels[where])
        if block.size == 0:
            continue
        start = (first, 0, 0) if block.ndim == 3 else (0, 0)
        values = None
        if plane is not None and known.values.names:
            values = _values(plane, axes, at, first, block.shape)
        above = None if parents is None else _planes_of(parents[where], first, len(block))
        scores = mean_scores(masks, axes, at)
        for label, window in label_windows(block):
            mask = block[window] == label
            region = ObjectRegion(label, mask, tuple(map(_start, window, start)))
            pixels = None
            if values is not None:
                pixels = known.pixels(region, values[:, *window][:, mask])
                if known.values.needs_ring:
                    wide = widened(window, block.shape)
                    near = ring(block[wide], label)
                    pixels = pixels._replace(around=values[:, *wide][:, near])
            row = known.row(region, at, pixels, scores)
            if above is not None:
                row |= parent_columns(above[window][mask])
            rows.append(row)
    return with_all_shares(rows)


def with_all_shares(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The same rows; a share that one of them names is 1 in the others."""
    named = {name for row in rows for name in row if name.startswith(VALID)}
    for row in rows if named else ():
        row |= {name: row.get(name, 1.0) for name in named}
    return rows


def with_shares(row: Mapping[str, object], columns: Sequence[str]) -> dict[str, object]:
    """A row of a table that is joined with others, whose images lack data in other channels.

    `columns` are those of all. A share is 1 if the row has a statistic of that channel alone.
    """
    known = {name.partition("_")[2] for name in row if not name.startswith(VALID)}
    lacking = [name for name in columns if name.startswith(VALID) and name not in row]
    return {**row, **{name: 1.0 for name in lacking if name.removeprefix(VALID) in known}}


def widened(window: tuple[slice, ...], shape: Sequence[int]) -> tuple[slice, ...]:
    """A window with what the ring around an object needs in its plane, within an image."""
    sides = [
        slice(max(0, side.start - RING[1]), min(size, side.stop + RING[1]))
        for side, size in zip(window[-2:], shape[-2:], strict=True)
    ]
    return (*window[:-2], *sides)


def _start(window: slice, first: int) -> int:
    return int(window.start) + first


def _planes_of(block: NDArray[Any], first: int, count: int) -> NDArray[Any]:
    """The occupied planes, as `_occupied` chose them."""
    return block[first : first + count] if block.ndim == 3 else block


def parent_columns(labels: NDArray[Any]) -> dict[str, object]:
    """Which object covers most of the pixels whose `labels` (N,) are given, and its share."""
    found, counts = np.unique(labels[labels > 0], return_counts=True)
    if not found.size:
        return dict(zip(PARENTS, (0, 0.0), strict=True))
    most = int(counts.argmax())
    return dict(zip(PARENTS, (int(found[most]), int(counts[most]) / labels.size), strict=True))


class ObjectRegion(NamedTuple):
    """An object in its box, whose first pixel is at `start` of the image."""

    label: int
    mask: NDArray[np.bool_]
    start: tuple[int, ...]

    @classmethod
    def of(cls, label: int, mask: NDArray[np.bool_], box: tuple[slice, ...]) -> ObjectRegion:
        """An object whose box is a part of the image."""
        return cls(label, mask, tuple(int(side.start) for side in box))


@dataclass(frozen=True)
class TableRows:
    """What all rows of a table have in common."""

    frames: str
    spatial: str
    size: ImageReference
    values: ValueColumns

    @classmethod
    def of(
        cls, axes: str, channels: ValueColumns | Sequence[str], size: ImageReference | None
    ) -> TableRows:
        """What the rows have in common, from axes, channels and pixel size."""
        if not isinstance(channels, ValueColumns):
            channels = ValueColumns(channels=tuple(channels))
        return cls(*_split(axes), size or ImageReference(), channels)

    @cached_property
    def _voxel(self) -> float | None:
        """Area or volume of a pixel, where known."""
        known = self.size.voxel(self.spatial)
        return None if known is None else known[0]

    @cached_property
    def _edges(self) -> dict[str, NDArray[np.float64]]:
        """The edges of a pixel in each unit, pixels first."""
        edges = {"px": np.eye(len(self.spatial))}
        known = self.size.edges(self.spatial)
        return edges if known is None else edges | {self.size.units[self.spatial[0]]: known}

    @staticmethod
    def pixels(region: ObjectRegion, values: NDArray[Any]) -> ObjectPixels:
        """The pixels of an object whose values are (R, N)."""
        start = np.array(region.start)[:, np.newaxis]
        return ObjectPixels(values, np.array(np.nonzero(region.mask)) + start)

    def row(
        self,
        region: ObjectRegion,
        at: Mapping[str, int],
        pixels: ObjectPixels | None,
        scores: Mapping[int, float],
    ) -> dict[str, object]:
        """The row of an object."""
        spatial, size = self.spatial, self.size
        shape = ObjectShape(region.mask)
        row: dict[str, object] = {"label": region.label, "class": ""}
        row |= {letter.lower(): index for letter, index in at.items()}
        if _is_timed(self.frames, size):
            row[_time_name(size)] = at["T"] * size.scale["T"]
        row[_pixel_count(spatial)] = shape.area
        if self._voxel is not None:
            row[_physical_name(spatial, size)] = shape.area * self._voxel
        if len(spatial) == 3:
            row |= self._largest_section(region.mask)
        for axis, letter in enumerate(spatial):
            name, start = letter.lower(), region.start[axis]
            centroid = (shape.sums[axis] + shape.area * start) / shape.area
            row[f"centroid_{name}_px"] = centroid
            step = size.of(letter)
            if step is not None:
                row[f"centroid_{name}_{step[1]}"] = centroid * step[0] + size.start(letter)
            row[f"bbox_{name}0_px"] = start
            row[f"bbox_{name}1_px"] = start + region.mask.shape[axis]
        if _is_on_sky(spatial, size):
            row |= self._on_sky(row)
        if pixels is None:
            row |= dict.fromkeys(self.values.names, float("nan"))
        else:
            row |= self.values.measure(pixels)
        row |= self._shape(shape)
        row["score"] = scores.get(region.label, float("nan"))
        return row

    def _largest_section(self, mask: NDArray[np.bool_]) -> dict[str, object]:
        """The area of an object on the plane that holds most of it."""
        area = int(mask.sum(axis=(1, 2)).max())
        pixels, physical = _section_names(self.spatial, self.size)
        voxel = self.size.voxel(self.spatial[1:])
        known = {} if voxel is None else {physical: area * voxel[0]}
        return {pixels: area, **known}

    def _on_sky(self, row: Mapping[str, object]) -> dict[str, float]:
        """Where the centroid of a row is on the sky; of a part, in the whole image."""
        place = [float(str(row[f"centroid_{axis}_px"])) for axis in "yx"]
        if self.size.within is not None:
            first, factor = self.size.within.first_center, self.size.within.factor
            place = [
                one * step + start for one, step, start in zip(place, factor, first, strict=True)
            ]
        return dict(zip(ON_SKY, right_ascension(self.size.sky, *place), strict=True))

    def _shape(self, shape: ObjectShape) -> dict[str, float]:
        """Lengths in pixels and in the unit; what has none in real proportions where known."""
        found: dict[str, float] = {}
        for unit, edges in self._edges.items():
            for name, value in shape.measure(edges).items():
                is_length = name in LENGTHS[len(self.spatial)]
                found[_length_name(name, unit) if is_length else name] = value
        return found


def mean_scores(masks: Sequence[MaskScore], axes: str, at: Mapping[str, int]) -> dict[int, float]:
    """The mean score of each label's masks on the planes with these indices."""
    of_label: dict[int, list[float]] = {}
    for one in masks:
        where = dict(zip(axes[:-2], one.plane, strict=True))
        if all(where[letter] == index for letter, index in at.items()):
            of_label.setdefault(one.label, []).append(one.score)
    return {label: float(np.mean(scores)) for label, scores in of_label.items()}


def surface_name(volume: str) -> str:
    """The column of the surface from that of the physical volume; empty for an area."""
    is_volume = volume.startswith("volume_")
    return f"surface_{volume.removeprefix('volume_')[:-1]}2" if is_volume else ""


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


def _section_names(spatial: str, size: ImageReference) -> tuple[str, str]:
    """Columns of the area of an object's largest section, of a volume; the second may be empty."""
    if len(spatial) == 2:
        return "", ""
    return _pixel_count(spatial[1:]), _physical_name(spatial[1:], size)


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
    """Raw values (R, Y, X) or (R, Z, Y, X) of the occupied planes of one frame."""
    leading = axes[:-2]
    if len(shape) == 2:
        return np.asarray(plane(tuple(at[letter] for letter in leading)))
    planes: Iterator[NDArray[Any]] = (
        plane(tuple(at.get(letter, z) for letter in leading))
        for z in range(first, first + shape[0])
    )
    return np.stack(list(planes), axis=1)
