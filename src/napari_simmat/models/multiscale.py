"""An image at several scales and in several views, for `tiny`.

The network is trained on objects of some ten to a hundred pixels. The encoder therefore runs on
the image and on its reductions to a half, a quarter, ...: the *levels* of a pyramid. A prompt is
decoded on the levels at which its object (`PromptExtent`) has about the size that the network knows
best, in a window around it (`LevelWindow`). The mask of a level (`LevelPrediction`) is taken if
`trust` in it suffices; otherwise the next level is tried. So masks depend little on the image's
resolution, and a click costs the same in a large image.

The mean over several views of an image (`Symmetry`: reflections, rotations) errs less than the mask
of one (test-time augmentation). Maps of a view are kept in the image's own geometry, next to those
of the image itself, so they are cropped, cached and moved as these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.network import DecodedMasks, Encoded
from napari_simmat.models.tiny_encoder import MASK_STRIDE, MAX_PRIOR_LOGIT, SIZE, SIZE_UNIT

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
BEST_OBJECT_SIDE = 48.0
"""Levels are chosen for this square root of an object's area, in pixels of the level."""
MAX_LEVELS_TRIED = 2
"""Levels that are tried if the object's extent is known."""
MAX_WINDOW_OBJECT = 200.0
"""Longest side in pixels of a box or mask that fits into a window."""
TYPICAL_MASK_SIDE = 30.0
"""A click's mask is trusted most at this square root of its area, in pixels of its level."""
SIZE_PENALTY = 0.1
"""Predicted IoU lost for each factor of e between a mask's side and `TYPICAL_MASK_SIDE`."""
UNEXPECTED_SIZE_PENALTY = 0.3
"""Trust lost for each factor of e by which a mask's side lies out of those that are expected."""
SUFFICIENT_TRUST = 0.75
"""A click's mask of at least this trust is accepted without trying other levels."""
MAX_WINDOW_SHARE = 0.85
"""A click's mask that covers more of its window, or of the image, is no object: nothing around it
sets it apart. Of real objects that were measured, a retina covers most of its image, 0.77."""
WINDOW_FILLED_PENALTY = 3.0
"""Trust that such a mask loses: more than all else, so that any other mask precedes it."""
SAME_MASK_IOU = 0.8
"""Two masks of at least this IoU count as one."""
OUTLINE_UNCERTAINTY = 1.0
"""Error of an outline in pixels of its level; divided by the mask's thickness, the IoU it costs."""


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


class PromptExtent(NamedTuple):
    """Where a prompt's object is, in pixels of the network's input.

    Attributes
    ----------
    low, high
        Corners as x, y.
    whole
        Whether this is the object's bounding box, or only contains some points of it.
    thickness
        `mask_thickness` of its mask, if known.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    whole: bool
    thickness: float | None = None

    @property
    def size(self) -> float:
        """Its thickness, or about the square root of the area of an object of this box."""
        if self.thickness is not None:
            return self.thickness
        return 0.85 * math.sqrt(
            math.prod(max(b - a, 1.0) for a, b in zip(self.low, self.high, strict=True))
        )

    @property
    def longest(self) -> float:
        """The longer side."""
        return max(b - a for a, b in zip(self.low, self.high, strict=True))

    @property
    def middle(self) -> tuple[float, float]:
        """Its center as x, y."""
        (x0, y0), (x1, y1) = self.low, self.high
        return (x0 + x1) / 2, (y0 + y1) / 2


def prompt_extent(points: Tensor, box: Tensor | None, mask: Tensor | None) -> PromptExtent | None:
    """The object's extent as far as known: from a box, or from a mask and positive points.

    Parameters
    ----------
    points
        Positive ones (K, 2) as x, y.
    box
        (4,) as x0, y0, x1, y1.
    mask
        Logits (1, 1, h, w) at `MASK_STRIDE`.
    """
    if box is not None:
        x0, y0, x1, y1 = box.tolist()
        return PromptExtent((x0, y0), (x1, y1), whole=True)
    if mask is not None:  # once, as each number read from a GPU waits for it
        points, mask = points.cpu(), mask.cpu()
    whole = mask is not None and bool((mask > 0).any())
    if mask is not None and whole:
        inside = mask[0, 0] > 0
        rows, columns = (torch.nonzero(inside.any(axis))[:, 0] for axis in (1, 0))
        ends = torch.stack([columns[[0, -1]], rows[[0, -1]]], dim=-1).to(points)
        ends[1] += 1
        points = torch.cat([points, MASK_STRIDE * ends - 0.5])
    if not len(points):
        return None
    low, high = points.amin(0).tolist(), points.amax(0).tolist()
    thickness = float(mask_thickness(mask[0, 0])) if mask is not None and whole else None
    return PromptExtent((low[0], low[1]), (high[0], high[1]), whole, thickness)


def mask_thickness(logits: Tensor) -> Tensor:
    """Thickness of masks (..., h, w) at `MASK_STRIDE`: square root of the area of a disk as thick.

    Computed from area and perimeter (the Cauchy-Crofton formula on crossings of grid lines), so
    that folded or branched objects count as thin although they reach far.
    """
    inside = logits > 0
    area = inside.sum((-2, -1))
    crossings = (inside[..., 1:, :] != inside[..., :-1, :]).sum((-2, -1))
    crossings = crossings + (inside[..., 1:] != inside[..., :-1]).sum((-2, -1))
    perimeter = math.pi / 4 * crossings.clamp(min=1)
    return MASK_STRIDE * 2 * math.sqrt(math.pi) * area / perimeter


def candidate_levels(
    levels: list[Encoded], extent: PromptExtent | None, clicks: Tensor
) -> list[Encoded]:
    """Levels on which a prompt is decoded, in the order in which they are tried.

    If the object's extent is known: the `MAX_LEVELS_TRIED` levels on which its size is closest to
    `BEST_OBJECT_SIDE`, finest first. For clicks alone: all levels on which they lie in one window,
    by `levels_by_likelihood`.
    """
    if extent is None:
        return levels_by_likelihood(levels, clicks)
    fitting = [
        each for each in levels if extent.longest * each.scale <= MAX_WINDOW_OBJECT
    ] or levels[-1:]
    if not extent.whole:
        return levels_by_likelihood(fitting, clicks)
    misfits = [abs(math.log(extent.size * each.scale / BEST_OBJECT_SIDE)) for each in fitting]
    near = sorted(range(len(fitting)), key=lambda i: misfits[i])[:MAX_LEVELS_TRIED]
    return [fitting[i] for i in sorted(near)]


def levels_by_likelihood(levels: list[Encoded], clicks: Tensor) -> list[Encoded]:
    """Levels in the order in which points (K, 2) are tried on them.

    First comes the level that predicts a size under the points closest to `BEST_OBJECT_SIDE`. The
    order depends on sizes alone, so that it is the same at another resolution of the image.
    """
    if not len(clicks):
        return levels
    return sorted(
        levels, key=lambda level: abs(math.log(clicked_size(level, clicks) / BEST_OBJECT_SIDE))
    )


def clicked_size(level: Encoded, points: Tensor) -> float:
    """Size that the dense head predicts for the object under points (K, 2), in level pixels."""
    return float(SIZE_UNIT * dense_at(level, points)[:, SIZE].mean().exp())


def dense_at(level: Encoded, points: Tensor) -> Tensor:
    """The dense head's vectors (K, 15) under points (K, 2) x, y of the network's input."""
    dense = level.maps["dense"].detach()
    height, width = dense.shape[-2:]
    at = ((points + 0.5) * level.scale / MASK_STRIDE).long()
    column, row = at[:, 0].clamp(0, width - 1), at[:, 1].clamp(0, height - 1)
    return dense[0, :, row, column].T


def trust(
    predicted_iou: float,
    logits: Tensor,
    left: bool,
    filled: bool = False,
    expected: ExpectedSize | None = None,
    scale: float = 1.0,
) -> float:
    """Trust in a click's mask: its predicted IoU, less for an unusual size.

    A level that is too coarse or too fine finds some structure at the click as well; its size
    gives it away. The coarsest level of a large image of small things often finds all of it.

    Parameters
    ----------
    predicted_iou
        The network's own estimate.
    logits
        The mask (h, w) at `MASK_STRIDE` on its level.
    left
        Whether the mask continues beyond the window, which costs all trust.
    filled
        Whether it covers nearly all of the window (`LevelWindow.is_filled`).
    expected
        Size of the objects that are meant, if known.
    scale
        The level's.
    """
    area = max(float((logits > 0).sum()) * MASK_STRIDE**2, 1.0)
    misfit = abs(math.log(math.sqrt(area) / TYPICAL_MASK_SIDE))
    lost = float(left) + WINDOW_FILLED_PENALTY * float(filled)
    if expected is not None:
        lost += UNEXPECTED_SIZE_PENALTY * expected.misfit(area / scale**2)
    return predicted_iou - lost - SIZE_PENALTY * misfit


def coarseness_penalty(logits: Tensor) -> Tensor:
    """IoU (N,) that masks (N, h, w) lose to the inaccuracy of their outlines on their level."""
    return (OUTLINE_UNCERTAINTY / mask_thickness(logits).clamp(min=1)).clamp(max=0.5)


def box_iou(logits: Tensor, corners: Tensor) -> Tensor:
    """IoU of the bounding boxes of masks with a box, (N,).

    Parameters
    ----------
    logits
        Masks (N, h, w) over a window, at `MASK_STRIDE`.
    corners
        The box's, (2, 2) as x, y in the window's pixels; clipped to the window.
    """
    ends = MASK_STRIDE * torch.tensor(logits.shape[:0:-1]).to(corners)  # x, y
    (x0, y0), (x1, y1) = (corners + 0.5).clamp(min=0).minimum(ends).tolist()
    profiles = logits.amax(1).cpu(), logits.amax(2).cpu()  # once for all that is read of them
    ious = []
    for across, down in zip(*(map(_span, each) for each in profiles), strict=True):
        width = max(min(across[1], x1) - max(across[0], x0), 0.0)
        height = max(min(down[1], y1) - max(down[0], y0), 0.0)
        area = (across[1] - across[0]) * (down[1] - down[0]) + (x1 - x0) * (y1 - y0)
        ious.append(width * height / max(area - width * height, 1e-6))
    return corners.new_tensor(ious)


def _span(profile: Tensor) -> tuple[float, float]:
    """Where logits (n,) along an axis rise above zero and fall below it, in pixels."""
    above = torch.nonzero(profile > 0)[:, 0]
    if not len(above):
        return 0.0, 0.0
    first = int(above[0])
    last = int(above[-1])
    low, high = first - 0.5, last + 0.5  # at the window's border there is no neighbor
    if first > 0:
        low = first - float(profile[first] / (profile[first] - profile[first - 1]))
    if last < len(profile) - 1:
        high = last + float(profile[last] / (profile[last] - profile[last + 1]))
    return (low + 0.5) * MASK_STRIDE, (high + 0.5) * MASK_STRIDE


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


class Symmetry(NamedTuple):
    """One of the eight reflections and rotations of an image.

    Attributes
    ----------
    transposed
        Whether rows and columns are exchanged, before any flip.
    axes
        Axes that are flipped: -2 rows, -1 columns.
    """

    transposed: bool
    axes: tuple[int, ...]

    def apply(self, image: Tensor) -> Tensor:
        """The view of an image (..., H, W)."""
        image = image.mT if self.transposed else image
        return image.flip(self.axes) if self.axes else image

    def undo(self, seen: Tensor) -> Tensor:
        """The image (..., H, W) of a view."""
        image = seen.flip(self.axes) if self.axes else seen
        return image.mT if self.transposed else image

    def points(self, points: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Points (N, K, 2) x, y in the view; `size` is height and width of the view.

        `labels` (N, K) as for `Network.decode_batch`: a box's first corner stays its lower one.
        """
        if self.transposed:
            points = points.flip(-1)
        if self.axes:
            flipped = torch.tensor([axis in self.axes for axis in (-1, -2)], device=points.device)
            last = torch.tensor(size[::-1]).to(points) - 1
            points = torch.where(flipped, last - points, points)
        first, second = (labels == 2)[..., None], (labels == 3)[..., None]
        if bool(first.any()):
            a, b = ((points * corner).sum(1, keepdim=True) for corner in (first, second))
            points = torch.where(first, torch.minimum(a, b), points)
            points = torch.where(second, torch.maximum(a, b), points)
        return points


ALL_VIEWS = tuple(
    Symmetry(transposed, axes)
    for transposed in (False, True)
    for axes in ((), (-1,), (-2,), (-2, -1))
)
"""The eight views; the first is the image itself."""
AVERAGED_VIEWS = ALL_VIEWS[:3] + ALL_VIEWS[4:5]
"""Views that are averaged for the best quality: the image, its two reflections, its transpose."""


def joined_views(encoded: Mapping[Symmetry, Encoded]) -> Encoded:
    """The encoded image together with the other views of it, as maps in its own geometry."""
    image, *others = encoded
    maps = dict(encoded[image].maps)
    for view in others:
        prefix = f"view{ALL_VIEWS.index(view)}."
        seen = encoded[view]
        for name, each in {"embedding": seen.embedding, **seen.maps}.items():
            # In the layout of `each`, as it is stored: the decoder rounds differently in others.
            last = each.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            maps[prefix + name] = view.undo(each).contiguous(memory_format=layout)
    return replace(encoded[image], maps=maps)


def encoded_views(encoded: Encoded) -> Iterator[tuple[Symmetry, Encoded]]:
    """The encoded image itself, then its other views if `joined_views` holds some."""
    yield ALL_VIEWS[0], encoded
    height, width = encoded.input_size
    for number, view in enumerate(ALL_VIEWS):
        prefix = f"view{number}."
        if f"{prefix}embedding" in encoded.maps:
            maps = {
                name.removeprefix(prefix): view.apply(each)
                for name, each in encoded.maps.items()
                if name.startswith(prefix)
            }
            size = (width, height) if view.transposed else (height, width)
            yield (
                view,
                replace(encoded, embedding=maps.pop("embedding"), input_size=size, maps=maps),
            )
