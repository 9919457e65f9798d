"""Where a slide holds tissue: the rest, mostly glass, is neither segmented nor measured."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.files.objects import OUTLINE_ENDINGS, read_objects
from napari_simmat.engine.normalization import MAX_VOXELS_MEASURED, SampleBlock
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.pyramid import ReducedArray, level_shapes
from napari_simmat.io.readers import open_image, read_labels
from napari_simmat.io.reference import ImageReference, Within

AUTO = "auto"
MASK_SIDE = 2048
"""Longest side of the mask that is computed, in pixels."""
LEAST, MOST = 0.05, 0.12
"""Saturation that separates tissue from glass: Otsu's threshold within these bounds, as a slide
may hold nothing but tissue, or nothing but glass."""
SMALLEST = 2e-4
"""Part of the slide that a piece of tissue has at least, and a hole in it, which else is filled."""
_SAME_SIDES = 0.02
"""By how much the ratio of a mask's sides may differ from that of the slide's."""
NOT_COLORED = (
    "{} is no RGB image, of which tissue is told by its color; give --tissue FILE, a label image "
    "or GeoJSON."
)
BLOCK_SIDE = 64
"""Side in pixels of the blocks in which intensities of tissue are measured."""
_AREA = 512
"""Side in pixels of the areas in which such blocks are looked for."""
_MOST_AREAS = 1000
"""How many areas are looked through at most."""
NOT_MARKED = (
    "{} marks nothing on what is read of {}; give one that does, another region, or leave --tissue "
    "out."
)
NO_TISSUE = (
    "No tissue was found on {}: no part of it is colored; give --tissue FILE, a label image or "
    "GeoJSON, or leave --tissue out."
)
OTHER_SIDES = (
    "{} has {} pixels, which are not the sides of {} ({}) at any size; make it of the whole slide."
)
SHARE = "Tissue is {} of the slide{}; nothing else was looked at."
OF_PART = ", and {} of the part that was read"


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where an image that may be a part of a slide holds tissue.

    Parameters
    ----------
    mask
        (h, w), over the whole slide at any size.
    shape
        Height and width of the image.
    within
        Where it lies in the slide; None if it is the whole.
    """

    mask: NDArray[np.bool_]
    shape: tuple[int, int]
    within: Within | None = None

    @property
    def _place(self) -> Within:
        whole = Within(offset=(0.0, 0.0), factor=(1.0, 1.0), shape=self.shape)
        return self.within or whole

    def holds(self, points: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Whether the places (N, 2), y and x in pixels of the image, are on tissue."""
        whole = self._place
        edges = whole.to_whole(np.asarray(points, np.float64).reshape(-1, 2) + 0.5)
        cells = edges * self.mask.shape / np.array(whole.shape)
        rows, columns = np.clip(cells.astype(int), 0, np.array(self.mask.shape) - 1).T
        return np.asarray(self.mask[rows, columns], np.bool_)

    def part(self, box: PixelBox) -> NDArray[np.bool_]:
        """The cells of the mask that a part of the image touches."""
        whole = self._place
        corners = whole.to_whole(np.array([[box.y0, box.x0], [box.y1, box.x1]], float))
        cells = corners * self.mask.shape / np.array(whole.shape)
        low, high = np.floor(cells[0] + 1e-6).astype(int), np.ceil(cells[1] - 1e-6).astype(int)
        low = np.minimum(low, np.array(self.mask.shape) - 1)
        return self.mask[low[0] : max(high[0], low[0] + 1), low[1] : max(high[1], low[1] + 1)]

    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last row and column (y, x; half-open) of the image with tissue; all if none."""
        whole, shape = self._place, np.array(self.shape)
        cells = [np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0)]
        if not all(len(each) for each in cells):
            return np.zeros(2, np.int64), shape
        edges = np.array([[each[0] for each in cells], [each[-1] + 1 for each in cells]], float)
        low, high = whole.from_whole(edges * whole.shape / np.array(self.mask.shape))
        first, last = np.floor(low).astype(np.int64), np.ceil(high).astype(np.int64)
        first, last = np.clip(first, 0, shape), np.clip(last, 0, shape)
        return (first, last) if (first < last).all() else (np.zeros(2, np.int64), shape)

    @property
    def share(self) -> float:
        """The part of the slide that is tissue, 0..1."""
        return float(self.mask.mean())

    def sha256(self) -> str:
        """Hash of the mask."""
        digest = hashlib.sha256(str(self.mask.shape).encode())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()

    def sentence(self) -> str:
        """How much of the slide is tissue, for the user."""
        part = ""
        if self.within is not None:
            part = OF_PART.format(_percent(float(self.part(PixelBox(0, 0, *self.shape)).mean())))
        return SHARE.format(_percent(self.share), part)

    def blocks(self, budget: int = MAX_VOXELS_MEASURED // 8) -> list[SampleBlock]:
        """Blocks of the image that are mostly tissue, at even distances, to measure intensities.

        If none is, those with any. They are small, so that there are many, also of a small area
        that was drawn. The same mask gives the same blocks; `budget` is in pixels.
        """
        whole = PixelBox(0, 0, *self.shape)
        areas = [area for area in _grid(whole, _AREA) if self.part(area).any()]
        every = max(1, len(areas) // _MOST_AREAS)
        tiles = [tile for area in areas[::every] for tile in _grid(area, BLOCK_SIDE)]
        shares = np.array([self.part(tile).mean() for tile in tiles])
        found = np.flatnonzero(shares >= 0.5)
        if not len(found):
            found = np.flatnonzero(shares > 0)
        count = min(len(found), max(1, budget // BLOCK_SIDE**2))
        seeded = random.Random(0)
        chosen = [int((n + seeded.random()) * len(found) / count) for n in range(count)]
        return [((), *tiles[found[number]].slices) for number in chosen]


def _grid(box: PixelBox, side: int) -> list[PixelBox]:
    """Parts of a box of at most `side` pixels a side."""
    return [
        PixelBox(y, x, min(y + side, box.y1), min(x + side, box.x1))
        for y in range(box.y0, box.y1, side)
        for x in range(box.x0, box.x1, side)
    ]


def _percent(share: float) -> str:
    """With two digits where there is little."""
    return f"{share:.2%}" if share < 0.01 else f"{share:.0%}"


def find_tissue(tissue: str, path: Path, image: ImageFile) -> TissueMask:
    """Where an image, or the slide that it is a part of, holds tissue.

    Parameters
    ----------
    tissue
        ``"auto"``; or a label image of the whole slide at any size, or outlines such as QuPath's
        GeoJSON, in pixels of level 0.
    path, image
        The slide's file, and what was read of it, (Y, X) and colors.

    Raises
    ------
    ValueError
        If there is none, the slide has no colors, or the file does not fit the slide.
    """
    shape = image.shape[-2], image.shape[-1]
    whole = shape if image.within is None else image.within.shape
    mask = _by_color(path) if tissue == AUTO else _from_file(Path(tissue), whole, path.name)
    found = TissueMask(mask, shape, image.within)
    if not found.part(PixelBox(0, 0, *shape)).any():
        if tissue != AUTO:
            raise ValueError(NOT_MARKED.format(Path(tissue).name, path.name))
        raise ValueError(NO_TISSUE.format(path.name))
    return found


def _by_color(path: Path) -> NDArray[np.bool_]:
    """Tissue by its saturation: Otsu's threshold on a coarse level, as is usual for slides."""
    file = open_image(path, lazy_above=0, in_parts=True)
    axis = file.channel_axis
    colors = 0 if axis is None else int(file.data.shape[axis])
    if colors not in (3, 4) or file.data.dtype != np.uint8:
        raise ValueError(NOT_COLORED.format(path.name))
    return tissue_by_color(_overview(file))


def tissue_by_color(colors: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a picture (Y, X, 3 or 4) of a stained slide holds tissue."""
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    values = gaussian_filter(colors[..., :3].astype(np.float32), (1, 1, 0))
    highest = values.max(-1)
    saturation = (highest - values.min(-1)) / np.maximum(highest, 1)
    saturation[highest < 0.1 * np.float32(255)] = 0  # black where nothing was scanned
    threshold = LEAST
    if saturation.min() < saturation.max():
        threshold = float(np.clip(threshold_otsu(saturation), LEAST, MOST))
    mask = saturation > threshold
    least = max(1, int(SMALLEST * mask.size))
    return ~_without_small(~_without_small(mask, least), least)


def _without_small(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """The connected parts of a mask with more than `least` pixels."""
    from scipy.ndimage import label

    numbers, _ = label(mask)
    kept = np.bincount(numbers.ravel()) > least
    kept[0] = False
    return np.asarray(kept[numbers], np.bool_)


def _overview(file: ImageFile) -> NDArray[Any]:
    """The colors of the whole image (Y, X, S), with at most `MASK_SIDE` pixels a side."""
    shapes = level_shapes(file)
    fine = [number for number, shape in enumerate(shapes) if max(shape) >= MASK_SIDE // 2]
    level = max(fine, default=0)
    array = (file.data, *file.levels)[level]
    step = max(1.0, max(shapes[level]) / MASK_SIDE)
    reduced: Any = ReducedArray(array, file.axes, (step, step)) if step > 1 else array
    rows = file.axes.index("Y")
    strips = []
    for top in range(0, int(reduced.shape[rows]), 128):  # a strip of a level without coarser ones
        where = [slice(None)] * len(file.axes)
        where[rows] = slice(top, min(top + 128, int(reduced.shape[rows])))
        strips.append(np.asarray(reduced[tuple(where)]))
    whole = np.concatenate(strips, rows)
    return np.moveaxis(whole, file.axes.index("S" if "S" in file.axes else "C"), -1)


def _from_file(path: Path, whole: tuple[int, int], image: str) -> NDArray[np.bool_]:
    if path.suffix.lower() in OUTLINE_ENDINGS:
        step = max(1.0, max(whole) / MASK_SIDE)
        height, width = (max(1, math.ceil(size / step)) for size in whole)
        factor = whole[0] / height, whole[1] / width
        placed = Within(offset=(0.0, 0.0), factor=factor, shape=whole)
        reference = ImageReference(within=placed)
        outlines = read_objects(path, (height, width), "YX", reference=reference)
        return np.asarray(outlines.labels() > 0, np.bool_)
    labels = np.asarray(read_labels(path).data)
    if labels.size == math.prod(labels.shape[-2:]):
        labels = labels.reshape(labels.shape[-2:])
    ratio = labels.shape[-2] / whole[0] * whole[1] / labels.shape[-1]
    if labels.ndim != 2 or abs(math.log(ratio)) > _SAME_SIDES + 1 / min(labels.shape):
        sizes = format_shape(labels.shape), image, format_shape(whole)
        raise ValueError(OTHER_SIDES.format(path.name, *sizes))
    return np.asarray(labels > 0, np.bool_)
