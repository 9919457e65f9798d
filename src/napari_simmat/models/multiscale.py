"""An image at several scales, for `tiny`.

The network is trained on objects of some ten to a hundred pixels. The encoder therefore runs on
the image and on its reductions to a half, a quarter, ...: the *levels* of a pyramid. A prompt is
decoded on the levels at which its object has about the size that the network knows best
(`prompt_levels`), in a window around it (`LevelWindow`). The mask of a level (`LevelPrediction`) is
taken if the trust in it suffices; otherwise the next level is tried. So masks depend little on the
image's resolution, and a click costs the same in a large image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.models.dense_prior import MASK_STRIDE, MAX_PRIOR_LOGIT
from napari_simmat.models.network import DecodedMasks, Encoded

WINDOW = 256
"""Side in pixels of the window around a prompt, and of the largest crops in training."""
WINDOW_ALIGNMENT = 8
"""Windows begin at multiples of the embedding's stride."""
MIN_SCALE_SIDE = 128
"""The pyramid ends at the first level whose longest side is at most this many pixels."""
SIDE_MULTIPLE = 32
"""Sides of the encoder's input are multiples of this many pixels."""
MAX_UNTILED_SIDE = 2048
"""Levels with a longer side are encoded in tiles."""
TILE_CORE, TILE_HALO = 1024, 256
"""Pixels of a tile that are kept, and those around them that are encoded for context."""
MAX_WINDOW_SHARE = 0.85
"""A click's mask that covers more of its window, or of the image, is no object: nothing around it
sets it apart. Of real objects that were measured, a retina covers most of its image, 0.77."""
SAME_MASK_IOU = 0.8
"""Two masks of at least this IoU count as one."""


def pyramid_scales(height: int, width: int) -> list[float]:
    """Scales at which an image is encoded, finest first, each half of the one before."""
    longest = max(height, width)
    scale = 2.0 if 2 * longest <= 2 * WINDOW else 1.0
    found = [scale]
    while longest * scale > MIN_SCALE_SIDE:
        scale /= 2
        found.append(scale)
    return found


def scaled_images(image: Tensor) -> Iterator[tuple[float, Tensor]]:
    """The image (B, C, H, W) at all its scales, zero-padded to multiples of `SIDE_MULTIPLE`."""
    for scale in pyramid_scales(*image.shape[-2:]):
        if scale == 2:
            finer = interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
            yield scale, finer
        else:
            if scale < 1:
                image = avg_pool2d(image, 2)
            below, right = (-side % SIDE_MULTIPLE for side in image.shape[-2:])
            yield scale, pad(image, (0, right, 0, below))


class LevelTile(NamedTuple):
    """A part of a level, in its pixels, that is encoded at once; only the core is kept.

    The cores of all tiles cover the level.
    """

    rows: slice
    columns: slice
    core_rows: slice
    core_columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """The tile's part of an image (..., H, W)."""
        return image[..., self.rows, self.columns]


def level_tiles(height: int, width: int) -> list[LevelTile]:
    """Tiles that cover a level; a single one up to `MAX_UNTILED_SIDE`."""
    return [
        LevelTile(rows, columns, core_rows, core_columns)
        for rows, core_rows in _cuts(height)
        for columns, core_columns in _cuts(width)
    ]


def _cuts(side: int) -> list[tuple[slice, slice]]:
    """Tiles along a side: the encoded pixels and their core."""
    if side <= MAX_UNTILED_SIDE:
        return [(slice(0, side), slice(0, side))]
    cores = [slice(start, min(start + TILE_CORE, side)) for start in range(0, side, TILE_CORE)]
    return [
        (slice(max(core.start - TILE_HALO, 0), min(core.stop + TILE_HALO, side)), core)
        for core in cores
    ]


def place_tile(
    level: Encoded | None, tile: LevelTile, part: Encoded, size: tuple[int, int]
) -> Encoded:
    """Write the core of an encoded tile into its level of `size`, which the first tile makes.

    So only the level and one tile are in memory, not all tiles beside it.
    """
    if part.input_size == size:
        return part

    def placed(each: Tensor, joint: Tensor | None) -> Tensor:
        step = (tile.rows.stop - tile.rows.start) // each.shape[-2]
        if joint is None:
            joint = each.new_empty((*each.shape[:2], *(side // step for side in size)))
        source, target = [], []
        for cut, core in ((tile.rows, tile.core_rows), (tile.columns, tile.core_columns)):
            first, last = core.start - cut.start, core.stop - cut.start
            source.append(slice(first // step, last // step))
            target.append(slice(core.start // step, core.stop // step))
        joint[..., target[0], target[1]] = each[..., source[0], source[1]]
        return joint

    before: Mapping[str, Tensor] = {} if level is None else level.maps
    maps = {name: placed(each, before.get(name)) for name, each in part.maps.items()}
    embedding = placed(part.embedding, None if level is None else level.embedding)
    return Encoded(embedding, size, maps)


class LevelWindow(NamedTuple):
    """A part of a level, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def around(cls, level: Encoded, middle: tuple[float, float]) -> LevelWindow:
        """Up to `WINDOW` pixels around a point x, y of the network's input, within the level."""
        sides = [min(side, WINDOW) for side in level.input_size]
        starts = []
        for at, side, whole in zip(middle[::-1], sides, level.input_size, strict=True):
            start = ((at + 0.5) * level.scale - side / 2) / WINDOW_ALIGNMENT
            starts.append(int(min(max(round(start) * WINDOW_ALIGNMENT, 0), whole - side)))
        return cls(starts[0], starts[1], sides[0], sides[1])

    def crop(self, level: Encoded) -> Encoded:
        """The level's embedding and maps over the window."""

        def part(each: Tensor) -> Tensor:
            step = level.input_size[0] // each.shape[-2]
            rows = slice(self.top // step, (self.top + self.height) // step)
            columns = slice(self.left // step, (self.left + self.width) // step)
            return each[..., rows, columns]

        maps = {name: part(each) for name, each in level.maps.items()}
        return replace(
            level,
            embedding=part(level.embedding),
            input_size=(self.height, self.width),
            maps=maps,
            coarser=None,
        )

    def points(self, points: Tensor, scale: float) -> Tensor:
        """Points (..., 2) x, y of the network's input in the window's pixels."""
        origin = torch.tensor([self.left, self.top]).to(points)
        return (points + 0.5) * scale - 0.5 - origin

    def holds(self, points: Tensor) -> Tensor:
        """Whether points (K, 2) in the window's pixels lie within it, the edge included."""
        end = torch.tensor([self.width, self.height]).to(points) - 0.5
        return ((points >= -0.5) & (points <= end)).all(-1)

    def mask(self, mask: Tensor, scale: float) -> Tensor:
        """Logits (1, 1, H/2, W/2) over the input -> logits over the window at `MASK_STRIDE`."""
        rows, columns = self._cells(scale)
        part = mask[..., rows, columns]
        below = rows.stop - rows.start - part.shape[-2]
        right = columns.stop - columns.start - part.shape[-1]
        part = pad(part, (0, right, 0, below), value=-MAX_PRIOR_LOGIT)
        return _resize(part, (self.height // MASK_STRIDE, self.width // MASK_STRIDE))

    def paste(self, logits: Tensor, scale: float, shape: tuple[int, int]) -> Tensor:
        """Logits (N, h, w) over the window -> logits (N, *shape) over the input."""
        part, top, left = self.placed(logits, scale, shape)
        whole = logits.new_full((len(logits), *shape), -MAX_PRIOR_LOGIT)
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return whole

    def placed(
        self, logits: Tensor, scale: float, shape: tuple[int, int]
    ) -> tuple[Tensor, int, int]:
        """Logits (N, h, w) over the window on the input's mask grid, and their top and left."""
        rows, columns = self._cells(scale)
        size = rows.stop - rows.start, columns.stop - columns.start
        part = _resize(logits[None], size)[0]
        part = part[:, : shape[0] - rows.start, : shape[1] - columns.start]
        return part, rows.start, columns.start

    def is_left(self, logits: Tensor, level: Encoded) -> bool:
        """Whether a mask (h, w) continues beyond the window's edges within the level."""
        inside = logits > 0
        edges = [
            inside[0] if self.top > 0 else None,
            inside[-1] if self.top + self.height < level.input_size[0] else None,
            inside[:, 0] if self.left > 0 else None,
            inside[:, -1] if self.left + self.width < level.input_size[1] else None,
        ]
        crossing = sum(int(edge.sum()) for edge in edges if edge is not None)
        return crossing > 0.1 * math.sqrt(float(inside.sum()))

    def is_filled(self, logits: Tensor, scale: float, image: tuple[int, int]) -> bool:
        """Whether a mask (h, w) covers nearly all of the window within the image.

        `image` is height and width of the network's input; the level may be padded beyond.
        """
        height, width = (
            math.ceil((side * scale - start) / MASK_STRIDE)
            for side, start in zip(image, (self.top, self.left), strict=True)
        )
        inside = logits[:height, :width] > 0
        return int(inside.sum()) > MAX_WINDOW_SHARE * inside.numel()

    def _cells(self, scale: float) -> tuple[slice, slice]:
        """The part of the input's mask grid that the window covers."""
        step = MASK_STRIDE * scale
        top, left = int(self.top / step), int(self.left / step)
        height, width = int(self.height / step), int(self.width / step)
        return slice(top, top + height), slice(left, left + width)


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    smaller = size[0] < logits.shape[-2]
    if smaller and logits.device.type == "mps":  # which has no antialiased kernel
        return _resize(logits.cpu(), size).to(logits.device)
    return interpolate(logits, size, mode="bilinear", align_corners=False, antialias=smaller)


class LevelPrediction(NamedTuple):
    """The masks of a prompt on one level.

    Attributes
    ----------
    confidence
        Trust in its best mask, comparable between levels.
    window, scale
        The window of the level, and the level's scale.
    logits
        (4, h, w) over the window, the best mask first.
    predicted_iou
        (4,) float32.
    """

    confidence: float
    window: LevelWindow
    scale: float
    logits: Tensor
    predicted_iou: Tensor

    def whole(self, shape: tuple[int, int]) -> DecodedMasks:
        """All masks on the whole of the input's mask grid of `shape`."""
        return DecodedMasks(self.window.paste(self.logits, self.scale, shape), self.predicted_iou)

    def placed(self, shape: tuple[int, int]) -> DecodedMasks:
        """All masks on the part of the input's mask grid of `shape` that the window covers."""
        logits, top, left = self.window.placed(self.logits, self.scale, shape)
        return DecodedMasks(logits, self.predicted_iou, top, left)

    def part(self, number: int, shape: tuple[int, int]) -> _MaskPart:
        """One mask on the part of the input's mask grid of `shape` that the window covers."""
        [logits], top, left = self.window.placed(
            self.logits[number : number + 1], self.scale, shape
        )
        return _MaskPart(logits, logits > 0, top, left, self.predicted_iou[number])


def with_alternatives(
    predictions: Sequence[LevelPrediction], shape: tuple[int, int]
) -> DecodedMasks:
    """The most trusted mask on the input's mask grid of `shape`, then three alternatives.

    A click may mean a part or a whole. The alternatives are the best masks of the other levels, by
    confidence, then the other masks of its own level. Empty masks, and those equal to an earlier
    one (`SAME_MASK_IOU`), come last.
    """
    best, *others = sorted(predictions, key=lambda each: -each.confidence)
    if not others:
        return best.whole(shape)
    count = len(best.predicted_iou)
    parts = [each.part(0, shape) for each in (best, *others)]
    parts += [best.part(number, shape) for number in range(1, count)]
    kept = parts[:1]
    rest: list[_MaskPart] = []
    for part in parts[1:]:
        repeated = any(_iou(part, other) >= SAME_MASK_IOU for other in kept)
        (rest if repeated or not part.inside.any() else kept).append(part)
    ordered = (kept + rest)[:count]
    logits = best.logits.new_full((count, *shape), -MAX_PRIOR_LOGIT)
    for whole, part in zip(logits, ordered, strict=True):
        height, width = part.logits.shape
        whole[part.top : part.top + height, part.left : part.left + width] = part.logits
    return DecodedMasks(logits, torch.stack([part.predicted_iou for part in ordered]))


class _MaskPart(NamedTuple):
    """Logits (h, w) of one mask over a part of the grid that begins at `top`, `left`."""

    logits: Tensor
    inside: Tensor
    top: int
    left: int
    predicted_iou: Tensor

    def within(self, rows: slice, columns: slice) -> Tensor:
        """The mask in rows and columns of the grid, which it must cover."""
        return self.inside[
            rows.start - self.top : rows.stop - self.top,
            columns.start - self.left : columns.stop - self.left,
        ]


def _iou(one: _MaskPart, other: _MaskPart) -> float:
    """IoU of masks over different parts of the grid; 0 if both are empty.

    `engine.masks.iou` would need both on one grid.
    """
    rows, columns = (
        slice(max(starts), max(*starts, min(a + b for a, b in zip(starts, sides, strict=True))))
        for starts, sides in (
            ((one.top, other.top), (len(one.inside), len(other.inside))),
            ((one.left, other.left), (one.inside.shape[1], other.inside.shape[1])),
        )
    )
    shared = int((one.within(rows, columns) & other.within(rows, columns)).sum())
    return shared / max(int(one.inside.sum()) + int(other.inside.sum()) - shared, 1)
