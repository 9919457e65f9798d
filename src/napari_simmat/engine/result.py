"""`Result`: mask, score, box.

Answers to many prompts: their masks are formed where they lie, and only when asked for.

An answer to a prompt: masks at the image's resolution, scores, logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.models.tiny_encoder import MAX_PRIOR_LOGIT

BLOCK = 128
"""Pixels along an axis that are enlarged at once."""


class LogitPatch(NamedTuple):
    """Mask logits over a part of an image; beside it all are below what was asked for.

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


@dataclass(frozen=True)
class LowResMasks:
    """What the model answers to one prompt, on its mask grid.

    Parameters
    ----------
    logits
        (4, h, w) float32: the answer and its three alternatives, over a part of the grid.
    quality
        (4,), the model's own estimates of their IoU.
    top, left
        Row and column of the grid where the part begins; beside it there is nothing.
    frame, stride
        How the image lies in the network's input, and the grid's step in it.
    """

    logits: Tensor
    predicted_iou: NDArray[np.float32]
    top: int
    left: int
    frame: InputTransform
    stride: int

    def patch(self, index: int, above: float = 0.0) -> LogitPatch | None:
        """Mask `index` at the image's resolution, around where its logits exceed `above`.

        Within the patch the logits are those of `engine.results.enlarge` up to rounding. None if
        the mask is empty.
        """
        cells = self.logits[index].cpu()
        inside = cells > above
        rows, columns = (torch.nonzero(inside.any(axis))[:, 0] for axis in (1, 0))
        if not len(rows):
            return None
        vertical, horizontal = _enlargements(self.frame, self.stride)
        down = vertical.around(self.top + int(rows[0]), self.top + int(rows[-1]) + 1)
        across = horizontal.around(self.left + int(columns[0]), self.left + int(columns[-1]) + 1)
        if down is None or across is None:  # in the input's padding
            return None
        part = _cut(cells, down.cells, across.cells, (self.top, self.left))
        logits = down.enlarged(across.enlarged(part.T).T)
        return LogitPatch(logits.numpy(), down.pixels.start, across.pixels.start)


class _EnlargedSpan(NamedTuple):
    """Pixels that some cells reach, all cells that reach those pixels, and the matrix between.

    A pixel is reached by its neighbours only, so the matrix is cut into `blocks`: some pixels, the
    cells that reach them (both counted from the first), and what is not zero.
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

    Two linear interpolations, to the padded input and from its part with the image to the image,
    as SAM's ``postprocess_masks`` does; their product is the same map.
    """

    def __init__(self, cells: int, stride: int, resized: int, image: int) -> None:
        fine = _linear(torch.eye(cells), cells * stride)[:, :resized]
        self.matrix = _linear(fine, image).T.contiguous()  # (pixels, cells)
        reaches = self.matrix != 0
        index = torch.arange(cells)
        self._first_cell = torch.where(reaches, index, cells).amin(1)
        self._last_cell = torch.where(reaches, index, -1).amax(1)

    def around(self, start: int, end: int) -> _EnlargedSpan | None:
        """The pixels that cells ``start .. end - 1`` reach; None if there are none."""
        reached = torch.nonzero((self._last_cell >= start) & (self._first_cell < end))[:, 0]
        if not len(reached):
            return None
        first, last = int(reached[0]), int(reached[-1]) + 1
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
def _enlargements(frame: InputTransform, stride: int) -> tuple[_AxisEnlargement, _AxisEnlargement]:
    rows, columns = frame.grid(stride)
    return (
        _AxisEnlargement(rows, stride, frame.resized[0], frame.image[0]),
        _AxisEnlargement(columns, stride, frame.resized[1], frame.image[1]),
    )


def _linear(rows: Tensor, size: int) -> Tensor:
    """Rows (N, length) interpolated to (N, size) with half-pixel centres."""
    if rows.shape[1] == size:
        return rows
    return interpolate(rows[None], size, mode="linear", align_corners=False)[0]


def _cut(cells: Tensor, rows: slice, columns: slice, origin: tuple[int, int]) -> Tensor:
    """Rows and columns of the grid out of a part (h, w) of it at `origin`; no object beside it."""
    cut = cells.new_full((rows.stop - rows.start, columns.stop - columns.start), -MAX_PRIOR_LOGIT)
    top, left = origin
    height, width = cells.shape
    r0, r1 = max(rows.start, top), min(rows.stop, top + height)
    c0, c1 = max(columns.start, left), min(columns.stop, left + width)
    cut[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = cells[
        r0 - top : r1 - top, c0 - left : c1 - left
    ]
    return cut


MASK_LOGIT = 12.0
"""A mask of 0..1 as logits: -6 outside, 6 inside, linear where a cell is covered in part."""
STRIP = 32
"""Rows of the mask grid that are enlarged at once."""


class Result:
    """What the model answers to one prompt.

    Attributes
    ----------
    mask
        (Y, X) bool, the answer.
    score
        The model's own estimate of the answer's IoU.
    logits
        (h, w) float32 on the model's mask grid; hand it to ``predict(mask=...)`` to refine.
    masks, scores
        (3, Y, X) bool and (3,): the candidates for an ambiguous prompt.
    """

    def __init__(
        self,
        logits: Tensor,
        quality: Tensor,
        chosen: int,
        frame: InputTransform,
        stride: int,
        others: Sequence[int] = (1, 2, 3),
    ) -> None:
        self._logits, self._frame, self._stride = logits, frame, stride
        self._quality, self._chosen, self._others = quality, chosen, others
        self.score = float(quality[chosen])
        self.scores: NDArray[np.float32] = quality[1:].numpy()
        self.logits: NDArray[np.float32] = logits[chosen].numpy()
        self.mask: NDArray[np.bool_] = self._enlarge(logits[chosen : chosen + 1])[0]

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """The three candidates (3, Y, X); enlarged when first asked for."""
        return self._enlarge(self._logits[1:])

    @cached_property
    def _different(self) -> list[int]:
        """Which of the network's masks this answer is, then the others that differ from it."""
        mine = self._logits[self._chosen]
        return [self._chosen, *(n for n in self._others if not torch.equal(self._logits[n], mine))]

    @property
    def count(self) -> int:
        """How many different answers there are, this one included."""
        return len(self._different)

    def alternative(self, number: int) -> Result:
        """Give this answer (0), or another candidate (1 .. `count` - 1, the likeliest first)."""
        chosen = self._different[number]
        if chosen == self._chosen:
            return self
        return Result(self._logits, self._quality, chosen, self._frame, self._stride, self._others)

    def _enlarge(self, logits: Tensor) -> NDArray[np.bool_]:
        frame = self._frame
        if frame.resized == frame.image:
            return np.stack([_inside(each, self._stride, frame.image) for each in logits])
        masks: NDArray[np.bool_] = (enlarge(logits, frame, self._stride) > 0).numpy()
        return masks


def _inside(cells: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where logits (h, w), enlarged `stride` times and cut to `size`, are above zero.

    Only around cells that are, and a few rows at a time, so that they stay in the processor's
    cache: the numbers are those of `enlarge`.
    """
    mask = np.zeros(size, bool)
    above = cells > 0
    rows, columns = (torch.nonzero(above.any(axis))[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return mask
    height, width = cells.shape
    top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, height)
    left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, width)
    for start in range(top, bottom, STRIP):
        end = min(start + STRIP, bottom)
        first, last = max(start - 1, 0), min(end + 1, height)  # what a pixel's neighbours reach
        strip = cells[first:last, left:right]
        fine = _bilinear(strip[None, None], (stride * strip.shape[0], stride * strip.shape[1]))[
            0, 0
        ]
        fine = fine[stride * (start - first) : stride * (end - first)]
        window = mask[stride * start : stride * end, stride * left : stride * right]
        window[...] = (fine[: window.shape[0], : window.shape[1]] > 0).numpy()
    return mask


def enlarge(logits: Tensor, frame: InputTransform, stride: int) -> Tensor:
    """Logits (N, h, w) of the mask grid at the image's resolution (N, Y, X).

    In two steps, to the padded input and from its part with the image to the image, as SAM's
    ``postprocess_masks`` does: one step is not equal.
    """
    height, width = logits.shape[-2:]
    fine = _bilinear(logits[None], (height * stride, width * stride))
    part = fine[..., : frame.resized[0], : frame.resized[1]]
    return _bilinear(part, frame.image)[0]


def shrink(mask: NDArray[Any], frame: InputTransform, stride: int) -> Tensor:
    """A mask (Y, X) bool as logits (1, 1, h, w) of the mask grid."""
    values = torch.tensor(mask, dtype=torch.float32)[None, None]
    if frame.resized != frame.image:
        values = interpolate(values, frame.resized, mode="bilinear", antialias=True)
    below, right = frame.pad
    return (avg_pool2d(pad(values, (0, right, 0, below)), stride) - 0.5) * MASK_LOGIT


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return interpolate(maps, size, mode="bilinear", align_corners=False)
