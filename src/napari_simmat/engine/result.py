"""`Result`: the masks for one prompt, enlarged from the network's mask grid to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.masks import Window, iou
from napari_simmat.models.dense_prior import MAX_PRIOR_LOGIT
from napari_simmat.models.network import DecodedMasks

T = TypeVar("T", bound=np.generic)
SAME_LOOK_IOU = 0.9
"""Masks of at least this IoU look the same to a person who chooses."""
MASK_LOGIT = 12.0
"""A mask of 0..1 as logits: -6 outside, 6 inside, linear where a cell is covered in part."""
STRIP = 32
"""Rows of the mask grid that are enlarged at once."""
LARGE = 2**26
"""Pixels of an image whose masks are never in memory as logits."""
BLOCK = 128
"""Pixels along an axis that are enlarged at once."""


class LogitPatch(NamedTuple):
    """Mask logits over a part of an image; elsewhere they are below the requested bound.

    Attributes
    ----------
    logits
        (h, w) float32, at the image's resolution.
    top, left
        Row and column of the image where the part begins.
    """

    logits: NDArray[np.float32]
    top: int
    left: int


class Result:
    """The masks for one prompt. Each is enlarged to the image when it is first read.

    Attributes
    ----------
    mask
        (Y, X) bool.
    score
        The model's own estimate of the mask's IoU; NaN if the mask is the user's own.
    logits
        (h, w) float32 on the model's mask grid; hand it to ``predict(mask=...)`` to refine.
    masks, scores
        (3, Y, X) bool and (3,): the candidates for an ambiguous prompt.
    choice, count
        Which of `count` different masks this is; 0 is the model's own choice.
    predicted_iou
        (4,) float32, the estimates of the single mask and of the three candidates.
    left_out
        How many small pieces of the model's mask were left out.

    Parameters
    ----------
    decoded
        The network's masks; all in main memory, unless only `patch` is used.
    transform, stride
        How the image lies in the network's input, and the grid's step in it.
    order
        Numbers of the masks, the model's own choice first, then the likeliest.
    bounds
        Rows and columns of the image that a box admits. The model's own choice ends there; the
        other candidates do not.
    place
        Where the masks lie in a larger image, rows and columns, and its size; by default they
        cover the image.
    """

    def __init__(
        self,
        decoded: DecodedMasks,
        transform: InputTransform,
        stride: float,
        order: Sequence[int] = (0, 1, 2, 3),
        choice: int = 0,
        bounds: Window | None = None,
        place: tuple[Window, tuple[int, int]] | None = None,
    ) -> None:
        self._decoded, self._transform, self._stride = decoded, transform, stride
        self._order, self.choice = order, choice
        self._bounds, self._place = bounds, place
        self.left_out = 0
        self.predicted_iou: NDArray[np.float32] = decoded.predicted_iou.cpu().numpy()

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Result:
        """The user's own mask (Y, X), for which no model was run."""
        height, width = mask.shape
        logits = (torch.tensor(mask, dtype=torch.float32)[None] - 0.5) * MASK_LOGIT
        decoded = DecodedMasks(logits, torch.tensor([float("nan")]))
        size = (height, width)
        return cls(decoded, InputTransform(size, size, size, half_pixel=False), 1, (0,)).with_mask(
            mask
        )

    def with_mask(self, mask: NDArray[np.bool_], left_out: int = 0) -> Result:
        """The same result with a corrected mask; logits and candidates stay the model's."""
        result = self.original(self.choice)
        result.mask, result.left_out = mask, left_out
        return result

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The mask (Y, X)."""
        [mask] = self._enlarge(self._whole[self._number][None])
        if self._bounds is not None and not self.choice:
            mask = only_within(mask, self._bounds)
        return np.asarray(self._placed(mask[None])[0], bool)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """The three candidates (3, Y, X)."""
        return self._placed(self._enlarge(self._whole[1:]))

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The mask's logits (h, w) on the whole mask grid."""
        logits: NDArray[np.float32] = self._whole[self._number].numpy()
        if self._bounds is None or self.choice:
            return logits
        cells = self._transform.cells_within(*self._bounds, self._stride)
        return only_within(logits, cells, -MASK_LOGIT / 2)

    @property
    def score(self) -> float:
        """The model's own estimate of the mask's IoU."""
        return float(self.predicted_iou[self._number])

    @property
    def scores(self) -> NDArray[np.float32]:
        """The estimates (3,) of the candidates."""
        return self.predicted_iou[1:]

    @property
    def count(self) -> int:
        """How many different masks there are."""
        return len(self._different)

    def alternative(self, choice: int) -> Result:
        """Another of the `count` masks: 0 is the model's own choice, then the likeliest first."""
        if choice == self.choice:
            return self
        return self.original(choice)

    def original(self, choice: int) -> Result:
        """One of the `count` masks as the model predicted it, without corrections."""
        return Result(
            self._decoded,
            self._transform,
            self._stride,
            self._order,
            choice,
            self._bounds,
            self._place,
        )

    def placed(self, window: Window, size: tuple[int, int]) -> Result:
        """The result of a window, rows and columns, of an image of `size` (Y, X)."""
        result = self.original(self.choice)
        result._place = window, size
        return result

    def _placed(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self._place is None:
            return masks
        window, size = self._place
        whole = np.zeros((len(masks), *size), bool)
        whole[:, *window] = masks
        return whole

    @property
    def distinct(self) -> list[int]:
        """The choices that look different: not empty, and not nearly equal to one before them."""
        inside = [(self._whole[number] > 0).numpy() for number in self._different]
        areas = [int(np.count_nonzero(mask)) for mask in inside]

        def alike(one: int, other: int) -> bool:
            smaller, larger = sorted((areas[one], areas[other]))
            if smaller < SAME_LOOK_IOU * larger:  # no IoU is above the ratio of the areas
                return False
            return iou(inside[one], inside[other]) >= SAME_LOOK_IOU

        kept = [0]
        for choice in range(1, self.count):
            if areas[choice] and not any(alike(choice, other) for other in kept):
                kept.append(choice)
        return kept

    def patch(self, number: int, above: float = 0.0) -> LogitPatch | None:
        """One of the four masks at the image's resolution, around where its logits exceed `above`.

        Faster than `masks` where many prompts yield small masks. The logits are those of
        `enlarge` up to rounding. None if the mask is empty.
        """
        cells = self._decoded.logits[number].cpu()
        top, left = self._decoded.top, self._decoded.left
        inside = cells > above
        rows, columns = (torch.nonzero(inside.any(axis))[:, 0] for axis in (1, 0))
        if not len(rows):
            return None
        vertical, horizontal = _axis_enlargements(self._transform, self._stride)
        down = vertical.around(top + int(rows[0]), top + int(rows[-1]) + 1)
        across = horizontal.around(left + int(columns[0]), left + int(columns[-1]) + 1)
        if down is None or across is None:  # in the input's padding
            return None
        part = _cut(cells, down.cells, across.cells, (top, left))
        logits = down.enlarged(across.enlarged(part.T).T)
        return LogitPatch(logits.numpy(), down.pixels.start, across.pixels.start)

    @cached_property
    def _whole(self) -> Tensor:
        """The masks' logits (4, h, w) on the whole mask grid."""
        logits, _, top, left = self._decoded
        rows, columns = self._transform.grid(self._stride)
        if logits.shape[-2:] == (rows, columns):
            return logits
        cut = [_cut(each, slice(0, rows), slice(0, columns), (top, left)) for each in logits]
        return torch.stack(cut)

    @cached_property
    def _different(self) -> list[int]:
        """Numbers of the masks, the model's own choice first, without those equal to it."""
        own, *others = self._order
        whole = self._whole
        return [own, *(n for n in others if not torch.equal(whole[n], whole[own]))]

    @property
    def _number(self) -> int:
        return self._different[self.choice] if self.choice else self._order[0]

    def _enlarge(self, logits: Tensor) -> NDArray[np.bool_]:
        transform = self._transform
        if transform.resized == transform.image and self._stride == int(self._stride):
            stride = int(self._stride)
            return np.stack([_inside(each, stride, transform.image) for each in logits])
        if math.prod(transform.image) > LARGE:
            return np.stack([_inside_reduced(each, transform, self._stride) for each in logits])
        masks: NDArray[np.bool_] = (enlarge(logits, transform, self._stride) > 0).numpy()
        return masks


def enlarge(logits: Tensor, transform: InputTransform, stride: float) -> Tensor:
    """Logits (N, h, w) of the mask grid at the image's resolution (N, Y, X).

    In two steps, to the padded input and from its part with the image to the image, as SAM's
    ``postprocess_masks`` does: one step is not equal.
    """
    height, width = logits.shape[-2:]
    fine = _bilinear(logits[None], (_pixels(height, stride), _pixels(width, stride)))
    part = fine[..., : transform.resized[0], : transform.resized[1]]
    return _bilinear(part, transform.image)[0]


def only_within(values: NDArray[T], part: Window, outside: float = 0) -> NDArray[T]:
    """Values (h, w) in some rows and columns; elsewhere at most `outside`."""
    kept: NDArray[T] = np.minimum(values, values.dtype.type(outside))
    kept[part] = values[part]
    return kept


def shrink(mask: NDArray[Any], transform: InputTransform, stride: float) -> Tensor:
    """A mask (Y, X) bool as logits (1, 1, h, w) of the mask grid."""
    fine = input_mask(mask, transform)
    if stride == int(stride):
        cells = avg_pool2d(fine, int(stride))
    else:
        cells = interpolate(fine, transform.grid(stride), mode="bilinear", antialias=True)
    return (cells - 0.5) * MASK_LOGIT


def input_mask(mask: NDArray[Any], transform: InputTransform) -> Tensor:
    """A mask (Y, X) bool in the network's input, (1, 1, H, W) float in 0..1."""
    values = torch.tensor(mask, dtype=torch.float32)[None, None]
    if transform.resized != transform.image:
        values = interpolate(values, transform.resized, mode="bilinear", antialias=True)
    below, right = transform.pad
    return pad(values, (0, right, 0, below))


def _inside(cells: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where logits (h, w), enlarged `stride` times and cut to `size`, are above zero.

    Only around the cells that are, and a few rows at a time, so that they stay in the processor's
    cache. The numbers are those of `enlarge`.
    """
    mask = np.zeros(size, bool)
    above = cells > 0
    rows, columns = (torch.nonzero(above.any(axis))[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return mask
    height, width = cells.shape
    top = max(rows[0] - 1, 0)
    bottom = min(rows[-1] + 2, height)
    left = max(columns[0] - 1, 0)
    right = min(columns[-1] + 2, width)
    for start in range(top, bottom, STRIP):
        end = min(start + STRIP, bottom)
        first, last = max(start - 1, 0), min(end + 1, height)  # neighbors take part
        strip = cells[first:last, left:right]
        size_of_strip = (stride * strip.shape[0], stride * strip.shape[1])
        fine = _bilinear(strip[None, None], size_of_strip)[0, 0]
        fine = fine[stride * (start - first) : stride * (end - first)]
        window = mask[stride * start : stride * end, stride * left : stride * right]
        window[...] = (fine[: window.shape[0], : window.shape[1]] > 0).numpy()
    return mask


def _inside_reduced(cells: Tensor, transform: InputTransform, stride: float) -> NDArray[np.bool_]:
    """`enlarge` > 0 for logits (h, w) of an image that was reduced, `BLOCK` rows at a time.

    Equal up to rounding: a logit of 0 may fall on either side.
    """
    mask = np.zeros(transform.image, bool)
    rows, columns = (torch.nonzero((cells > 0).any(axis))[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return mask
    vertical, horizontal = _axis_enlargements(transform, stride)
    down = vertical.around(rows[0], rows[-1] + 1)
    across = horizontal.around(columns[0], columns[-1] + 1)
    if down is None or across is None:  # in the input's padding
        return mask
    wide = across.enlarged(cells[down.cells, across.cells].T).T
    window = mask[down.pixels, across.pixels]
    for pixels, reaching, matrix in down.blocks:
        window[pixels] = (torch.mm(matrix, wide[reaching]) > 0).numpy()
    return mask


class _EnlargedSpan(NamedTuple):
    """Pixels that some cells reach, all cells that reach those pixels, and the matrix between.

    A pixel depends on neighboring cells only, so the matrix is cut into `blocks`: some pixels,
    the cells that reach them (both counted from the first), and what is not zero.
    """

    pixels: slice
    cells: slice
    blocks: list[tuple[slice, slice, Tensor]]

    def enlarged(self, cells: Tensor) -> Tensor:
        """(cells, n) -> (pixels, n)."""
        fine = cells.new_empty(self.pixels.stop - self.pixels.start, cells.shape[1])
        for pixels, reaching, matrix in self.blocks:
            torch.mm(matrix, cells[reaching], out=fine[pixels])
        return fine


class _AxisEnlargement:
    """Enlarging along one axis, from cells of the mask grid to pixels of the image, as a matrix.

    The product of the two linear interpolations of `enlarge`.
    """

    def __init__(self, cells: int, stride: float, resized: int, image: int) -> None:
        fine = _linear(torch.eye(cells), _pixels(cells, stride))[:, :resized]
        self.matrix = _linear(fine, image).T.contiguous()  # (pixels, cells)
        reaches = self.matrix != 0
        index = torch.arange(cells)
        # Both rise from pixel to pixel.
        self._first_cell = torch.where(reaches, index, cells).amin(1).numpy()
        self._last_cell = torch.where(reaches, index, -1).amax(1).numpy()

    def around(self, start: int, end: int) -> _EnlargedSpan | None:
        """The pixels that cells ``start .. end - 1`` reach; None if there are none."""
        first = int(np.searchsorted(self._last_cell, start))
        last = int(np.searchsorted(self._first_cell, end))
        if first >= last:
            return None
        cells = self._reaching(first, last)
        blocks = []
        for at in range(first, last, BLOCK):
            pixels = slice(at, min(at + BLOCK, last))
            own = self._reaching(pixels.start, pixels.stop)
            here = slice(own.start - cells.start, own.stop - cells.start)
            there = slice(pixels.start - first, pixels.stop - first)
            blocks.append((there, here, self.matrix[pixels, own]))
        return _EnlargedSpan(slice(first, last), cells, blocks)

    def _reaching(self, first: int, last: int) -> slice:
        """The cells that reach pixels ``first .. last - 1``."""
        return slice(int(self._first_cell[first]), int(self._last_cell[last - 1]) + 1)


@lru_cache(maxsize=8)
def _axis_enlargements(
    transform: InputTransform, stride: float
) -> tuple[_AxisEnlargement, _AxisEnlargement]:
    rows, columns = transform.grid(stride)
    return (
        _AxisEnlargement(rows, stride, transform.resized[0], transform.image[0]),
        _AxisEnlargement(columns, stride, transform.resized[1], transform.image[1]),
    )


def _pixels(cells: int, stride: float) -> int:
    """Pixels of the input that so many cells cover."""
    return round(cells * stride)


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return interpolate(maps, size, mode="bilinear", align_corners=False)


def _linear(rows: Tensor, size: int) -> Tensor:
    """Rows (N, length) interpolated to (N, size) with half-pixel centers."""
    if rows.shape[1] == size:
        return rows
    return interpolate(rows[None], size, mode="linear", align_corners=False)[0]


def _cut(cells: Tensor, rows: slice, columns: slice, origin: tuple[int, int]) -> Tensor:
    """Rows and columns of the grid out of a part (h, w) of it at `origin`; elsewhere no object."""
    cut = cells.new_full((rows.stop - rows.start, columns.stop - columns.start), -MAX_PRIOR_LOGIT)
    top, left = origin
    height, width = cells.shape
    r0 = max(rows.start, top)
    r1 = min(rows.stop, top + height)
    c0 = max(columns.start, left)
    c1 = min(columns.stop, left + width)
    cut[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = cells[
        r0 - top : r1 - top, c0 - left : c1 - left
    ]
    return cut
