"""Levels of a pyramid, and a part of an image at one of them: only what is asked for is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape
from napari_simmat.io.image_file import LAZY_ABOVE, ImageFile
from napari_simmat.io.missing_values import without_missing
from napari_simmat.io.part import LENGTHS, WHOLE, ImagePart
from napari_simmat.io.reference import Within
from napari_simmat.io.refusals import RefusedFileError, check_memory

NO_LEVEL = "{} has no level {}; {}."
NO_PIXEL_SIZE = (
    "{} does not say how large its pixels are, so {} cannot be found; give it in pixels, and a "
    "level ({})."
)
TOO_FINE = (
    "The pixels of {} are {:.4g} um at the finest level, larger than the {:.4g} um of --mpp; give "
    "--mpp {:.4g} or more."
)
BEYOND = (
    "The region {} reaches beyond {}, whose level 0 has {} pixels{}; give one within 0,0,{},{}."
)
PART_READ = "Read {}: {} pixels{}, from y {:g}, x {:g} to y {:g}, x {:g} of level 0."
LEVEL_BY_DEFAULT = ", unless --level or --mpp says another"
USUAL_SIDE = 4096
"""Longest side of a level that is segmented as one plane, where nobody chooses another."""
SAME_SIZE = 0.02
"""Part by which a level's pixels may differ from those of --mpp and be taken as they are."""
_ROUNDING = 1e-6
"""Part of a pixel by which a region may miss the edge of one, as factors are rounded."""
_WHOLE_STEPS = 1.0
"""Pixels of a level by which its size may be cut off, as scanners do."""


def level_factor(whole: int, reduced: int) -> float:
    """How many pixels of the finest level one of a coarser level has along an axis.

    Scanners cut off the rest of a division, so a size that fits a whole number means that.
    """
    ratio = whole / reduced
    nearest = round(ratio)
    return float(nearest) if abs(whole - nearest * reduced) <= nearest * _WHOLE_STEPS else ratio


def level_shapes(file: ImageFile) -> list[tuple[int, int]]:
    """Height and width of each level, the finest first."""
    rows, columns = (file.axes.index(letter) for letter in "YX")
    arrays = (file.data, *file.levels)
    return [(int(each.shape[rows]), int(each.shape[columns])) for each in arrays]


def usual_level(shapes: Sequence[Sequence[int]]) -> int:
    """The finest of levels (Y, X) without a side above `USUAL_SIDE`, else the coarsest."""
    fitting = (number for number, shape in enumerate(shapes) if max(shape) <= USUAL_SIDE)
    return next(fitting, len(shapes) - 1)


def describe_levels(file: ImageFile) -> str:
    """The levels for the user: ``"its levels are 0 (800 x 600, 0.5 um), 1 (200 x 150, 2 um)"``.

    Rows before columns; the width of a pixel is given where the file says it.
    """
    shapes = level_shapes(file)
    finest = micrometers(file)
    told = []
    for number, (height, width) in enumerate(shapes):
        size = finest and f", {finest[1] * level_factor(shapes[0][1], width):.4g} um"
        told.append(f"{number} ({format_shape((height, width))}{size or ''})")
    if len(told) == 1:
        return f"it has level {told[0]} alone, no pyramid"
    return f"its levels are {format_list(told)}"


def levels_note(file: ImageFile, part: ImagePart = WHOLE) -> str:
    """Which levels a pyramid has, and which of them is read; empty for an image of one level.

    Parameters
    ----------
    file
        The whole of the image, as `open_image` gives it without a part.
    part
        What is read of it.

    Raises
    ------
    RefusedFileError
        If it has no such level.
    """
    if not file.levels:
        return ""
    level, _, shrink = _chosen_level(file, part)
    chosen = LEVEL_BY_DEFAULT
    if part.mpp is not None:
        chosen = "" if shrink == (1.0, 1.0) else f", reduced to {part.mpp:g} um"
    elif part.level is not None:
        chosen = ""
    told = describe_levels(file)
    return f"{told[0].upper()}{told[1:]}; level {level} is read{chosen}."


_PART_SIDE = 2048
"""Side of the region that a refusal proposes."""


def smaller_part(shapes: Sequence[Sequence[int]]) -> str:
    """What to read of an image whose levels have these shapes (Y, X), the finest first.

    Words for a refusal, with options that work.
    """
    height, width = (int(size) for size in shapes[0])
    y, x = (max(0, (size - _PART_SIDE) // 2) for size in (height, width))
    region = f"{y},{x},{min(y + _PART_SIDE, height)},{min(x + _PART_SIDE, width)}"
    ways = [f"a region of its {format_shape((height, width))} pixels (--region {region})"]
    if len(shapes) > 1:
        ways.append(f"a coarser level (--level {len(shapes) - 1}, {format_shape(shapes[-1])})")
    return f"read {' or '.join(ways)}"


def read_part(file: ImageFile, part: ImagePart, lazy_above: int = LAZY_ABOVE) -> ImageFile:
    """The part of an image, with the size and the place of its pixels; missing pixels as NaN.

    Parameters
    ----------
    file
        As a reader gives it, its `data` and `levels` lazy if they are large.
    part
        What is read.
    lazy_above
        A part of fewer bytes is read into memory.

    Raises
    ------
    RefusedFileError
        If there is no such level or region, or its pixels are larger than asked for.
    """
    if not part:
        return without_missing(file, lazy_above)
    level, factor, shrink = _chosen_level(file, part)
    rows, columns = _spans(file, part, level, factor)
    within = Within(
        offset=(rows.start * factor[0], columns.start * factor[1]),
        factor=(factor[0] * shrink[0], factor[1] * shrink[1]),
        shape=level_shapes(file)[0],
        level=level,
    )
    cut = _cut(file, level, rows, columns, factor)
    data: Any = cut.data if shrink == (1.0, 1.0) else ReducedArray(cut.data, file.axes, shrink)
    nbytes = math.prod(data.shape) * data.dtype.itemsize
    if nbytes <= lazy_above:
        check_memory(nbytes, file.path.name)
        data = np.asarray(data[...])
    placed = _placed(replace(cut, data=data, valid=None, missing=None), within)
    return replace(placed, notes=(*file.notes, _said(placed, within)))


def _spans(
    file: ImageFile, part: ImagePart, level: int, factor: tuple[float, float]
) -> tuple[slice, slice]:
    """Rows and columns of a level that hold a region, at least one of each."""
    y0, x0, y1, x1 = _region_in_pixels(file, part)
    spans = []
    shape = level_shapes(file)[level]
    for start, stop, step, size in zip((y0, x0), (y1, x1), factor, shape, strict=True):
        first = min(math.floor(start / step + _ROUNDING), size - 1)
        spans.append(slice(first, max(first + 1, min(math.ceil(stop / step - _ROUNDING), size))))
    return spans[0], spans[1]


def _cut(
    file: ImageFile, level: int, rows: slice, columns: slice, factor: tuple[float, float]
) -> ImageFile:
    """Rows and columns of a level, lazy, with missing pixels as NaN."""
    data = CutArray((file.data, *file.levels)[level], file.axes, rows, columns)
    valid = None
    if file.valid is not None:
        nearest = [
            np.minimum(((np.arange(span.start, span.stop) + 0.5) * step).astype(int), size - 1)
            for span, step, size in zip((rows, columns), factor, file.valid.shape, strict=True)
        ]
        valid = file.valid[np.ix_(*nearest)]
    return without_missing(replace(file, data=data, valid=valid, levels=()), 0)


def _chosen_level(
    file: ImageFile, part: ImagePart
) -> tuple[int, tuple[float, float], tuple[float, float]]:
    """A level, its factors along Y and X to the finest, and how much its pixels are reduced."""
    shapes = level_shapes(file)
    factors = [
        (level_factor(shapes[0][0], height), level_factor(shapes[0][1], width))
        for height, width in shapes
    ]
    name = file.path.name
    if part.mpp is None:
        level = part.level or 0
        if level >= len(shapes):
            raise RefusedFileError(NO_LEVEL.format(name, level, describe_levels(file)))
        return level, factors[level], (1.0, 1.0)
    finest = micrometers(file)
    if finest is None:
        raise RefusedFileError(NO_PIXEL_SIZE.format(name, "--mpp", describe_levels(file)))
    if max(finest) > part.mpp * (1 + SAME_SIZE):
        raise RefusedFileError(TOO_FINE.format(name, max(finest), part.mpp, max(finest)))
    sizes = [
        (finest[0] * down, finest[1] * across) for down, across in factors
    ]  # of a pixel of each level
    level = max(
        number for number, size in enumerate(sizes) if max(size) <= part.mpp * (1 + SAME_SIZE)
    )
    shrink = (part.mpp / sizes[level][0], part.mpp / sizes[level][1])
    is_same = all(abs(each - 1) <= SAME_SIZE for each in shrink)
    return level, factors[level], (1.0, 1.0) if is_same else shrink


def micrometers(file: ImageFile) -> tuple[float, float] | None:
    """Height and width of a pixel in micrometers, where the file says them."""
    known = []
    for letter in "YX":
        factor = LENGTHS.get(file.units.get(letter, ""))
        if letter not in file.scale or factor is None:
            return None
        known.append(file.scale[letter] * factor)
    return known[0], known[1]


def _region_in_pixels(file: ImageFile, part: ImagePart) -> tuple[float, float, float, float]:
    """The region in pixels of level 0; refuses one that reaches beyond it."""
    height, width = level_shapes(file)[0]
    if not part.region:
        return 0.0, 0.0, float(height), float(width)
    (y0, x0, y1, x1), unit = part.bounds
    lengths = ""
    if unit:
        size = micrometers(file)
        if size is None:
            words = NO_PIXEL_SIZE.format(file.path.name, part.region, describe_levels(file))
            raise RefusedFileError(words)
        down, across = size[0] / LENGTHS[unit], size[1] / LENGTHS[unit]
        lengths = f" ({height * down:.6g} x {width * across:.6g} {unit})"
        y0, y1, x0, x1 = y0 / down, y1 / down, x0 / across, x1 / across
    inside = y0 >= 0 and x0 >= 0 and y1 <= height + 0.5 and x1 <= width + 0.5
    if not inside:
        shape = format_shape((height, width))
        words = BEYOND.format(part.region, file.path.name, shape, lengths, height, width)
        raise RefusedFileError(words)
    return y0, x0, min(y1, height), min(x1, width)


def _placed(file: ImageFile, within: Within) -> ImageFile:
    """The same image with size and place of its pixels, from those of the finest level."""
    factor, start = dict(zip("YX", within.factor, strict=True)), within.first_center
    begin = dict(zip("YX", start, strict=True))
    scale = {letter: size * factor.get(letter, 1.0) for letter, size in file.scale.items()}
    origin = dict(file.origin)
    stage = dict(file.stage)
    for letter in "YX":
        if letter not in file.scale or not begin[letter]:
            continue
        moved = begin[letter] * file.scale[letter]
        origin[letter] = origin.get(letter, 0.0) + moved
        unit = file.units.get(letter, "")
        at, its_unit = stage.get(letter, (0.0, unit))
        if unit and its_unit == unit:
            stage[letter] = at + moved, unit
        else:
            stage.pop(letter, None)
    world = file.world
    if world is not None:
        matrix = np.eye(4)
        matrix[0, 0], matrix[1, 1] = within.factor[1], within.factor[0]
        matrix[0, 3], matrix[1, 3] = start[1], start[0]
        world = world.at_level(matrix)
    return replace(file, scale=scale, origin=origin, stage=stage, world=world, within=within)


def _said(file: ImageFile, within: Within) -> str:
    """A sentence about what was read."""
    size = micrometers(file)
    known = "" if size is None else f" of {size[1]:.4g} um"
    shape = file.shape[-2:]
    end = within.to_whole(np.array([shape], float))[0]
    return PART_READ.format(
        f"level {within.level}", format_shape(shape), known, *within.offset, *end
    )


class CutArray:
    """Rows and columns of an array, read when they are asked for.

    Parameters
    ----------
    array
        Anything that takes slices.
    axes
        A letter for each axis of it.
    rows, columns
        What is seen of Y and X.
    """

    def __init__(self, array: Any, axes: str, rows: slice, columns: slice) -> None:
        self._array, self.at = array, (axes.index("Y"), axes.index("X"))
        self._starts = rows.start, columns.start
        shape = list(map(int, array.shape))
        for axis, span in zip(self.at, (rows, columns), strict=True):
            shape[axis] = span.stop - span.start
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        inner = getattr(array, "chunks", None) or array.shape
        chunks = [side if isinstance(side, int) else side[0] for side in inner]
        self.chunks = tuple(min(c, size) for c, size in zip(chunks, self.shape, strict=True))

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        return read_spans(self, self._span, where)

    def _span(self, index: Sequence[Any], rows: slice, columns: slice) -> NDArray[Any]:
        moved = list(index)
        for axis, span, start in zip(self.at, (rows, columns), self._starts, strict=True):
            moved[axis] = slice(span.start + start, span.stop + start)
        return np.asarray(self._array[tuple(moved)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole."""
        return np.asarray(self[...], dtype)


class ReducedArray:
    """An array with fewer rows and columns, each value a weighted mean, computed when asked for.

    The filter is Pillow's bilinear one, which covers all pixels that a new one reduces. A part is
    the same as in the whole but for rounding.

    Parameters
    ----------
    array
        Anything that takes slices.
    axes
        A letter for each axis of it.
    factor
        How many pixels one has along Y and X, 1 or more.
    """

    def __init__(self, array: Any, axes: str, factor: tuple[float, float]) -> None:
        self._array, self._factor = array, factor
        self.at = axes.index("Y"), axes.index("X")
        shape = list(map(int, array.shape))
        for axis, step in zip(self.at, factor, strict=True):
            shape[axis] = max(1, math.floor(shape[axis] / step + 1e-6))
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        chunks = list(getattr(array, "chunks", None) or array.shape)
        for axis in self.at:
            chunks[axis] = min(1024, self.shape[axis])
        self.chunks = tuple(chunks)

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        return read_spans(self, self._span, where)

    def _span(self, index: Sequence[Any], rows: slice, columns: slice) -> NDArray[Any]:
        from PIL import Image

        moved, box = list(index), []
        for axis, span, step in zip(self.at, (rows, columns), self._factor, strict=True):
            size = int(self._array.shape[axis])
            margin = math.ceil(step) + 1
            first = max(0, math.floor(span.start * step) - margin)
            last = min(size, math.ceil(span.stop * step) + margin)
            moved[axis] = slice(first, last)
            box.append((span.start * step - first, min(span.stop * step, size) - first))
        values = np.asarray(self._array[tuple(moved)])
        dropped = [sum(isinstance(i, int) for i in moved[:axis]) for axis in self.at]
        places = [axis - gone for axis, gone in zip(self.at, dropped, strict=True)]
        planes = np.moveaxis(values, places, (-2, -1))
        shape = rows.stop - rows.start, columns.stop - columns.start
        exact = np.uint8 if self.dtype == np.uint8 else np.float32
        reduced = np.empty((*planes.shape[:-2], *shape), self.dtype)
        edges = (box[1][0], box[0][0], box[1][1], box[0][1])
        for at in np.ndindex(*planes.shape[:-2]):
            picture = Image.fromarray(np.ascontiguousarray(planes[at], exact))
            small = picture.resize(shape[::-1], Image.Resampling.BILINEAR, box=edges)
            found = np.asarray(small)
            reduced[at] = np.rint(found) if self.dtype.kind in "iu" else found
        return np.moveaxis(reduced, (-2, -1), places)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole."""
        return np.asarray(self[...], dtype)


def read_spans(
    array: Any, read: Callable[[Sequence[Any], slice, slice], NDArray[Any]], where: Any
) -> NDArray[Any]:
    """Index with integers and slices: the spans of Y and X are read, then steps are taken.

    Parameters
    ----------
    array
        Has ``shape``, ``ndim`` and ``at``, which says which axes are Y and X.
    read
        Gives what an index (a number or slice for each axis), rows and columns without steps hold.
    where
        As numpy takes it.
    """
    given = where if isinstance(where, tuple) else (where,)
    if Ellipsis in given:
        at = given.index(Ellipsis)
        missing = array.ndim - (len(given) - 1)
        given = (*given[:at], *[slice(None)] * missing, *given[at + 1 :])
    given = (*given, *[slice(None)] * (array.ndim - len(given)))
    index: list[Any] = []
    spans: dict[int, slice] = {}
    after: dict[int, int | slice] = {}
    for axis, (one, size) in enumerate(zip(given, array.shape, strict=True)):
        is_number = isinstance(one, (int, np.integer))
        if is_number:
            one = int(one) + (size if one < 0 else 0)
            if not 0 <= one < size:
                raise IndexError(f"There is no index {one} along an axis of {size}.")
        if axis not in array.at:
            index.append(one)
            continue
        steps = range(one, one + 1) if is_number else range(*one.indices(size))
        if not len(steps):
            spans[axis], after[axis] = slice(0, 1), slice(0, 0)
        else:
            low, high = min(steps[0], steps[-1]), max(steps[0], steps[-1]) + 1
            spans[axis] = slice(low, high)
            after[axis] = 0 if is_number else slice(None, None, steps.step)
        index.append(spans[axis])
    rows, columns = (spans[axis] for axis in array.at)
    values = read(index, rows, columns)
    kept: list[Any] = []
    for axis, one in enumerate(index):
        if axis in after:
            kept.append(after[axis])
        elif not isinstance(one, int):
            kept.append(slice(None))
    return np.asarray(values[tuple(kept)])
