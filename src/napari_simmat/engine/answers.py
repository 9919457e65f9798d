"""Answers to many prompts: their masks are formed where they lie, and only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from napari_simmat.engine.frames import Frame
from napari_simmat.model.prior import LIMIT

BLOCK = 128
"""Pixels along an axis that are enlarged at once."""


class Patch(NamedTuple):
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
class Answer:
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
    quality: NDArray[np.float32]
    top: int
    left: int
    frame: Frame
    stride: int

    def patch(self, index: int, above: float = 0.0) -> Patch | None:
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
        return Patch(logits.numpy(), down.pixels.start, across.pixels.start)


class _Around(NamedTuple):
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


class _Enlargement:
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

    def around(self, start: int, end: int) -> _Around | None:
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
        return _Around(slice(first, last), cells, blocks)

    def _reaching(self, first: int, last: int) -> slice:
        """The cells that reach pixels ``first .. last - 1``."""
        return slice(int(self._first_cell[first]), int(self._last_cell[last - 1]) + 1)


@lru_cache(maxsize=8)
def _enlargements(frame: Frame, stride: int) -> tuple[_Enlargement, _Enlargement]:
    rows, columns = frame.grid(stride)
    return (
        _Enlargement(rows, stride, frame.resized[0], frame.image[0]),
        _Enlargement(columns, stride, frame.resized[1], frame.image[1]),
    )


def _linear(rows: Tensor, size: int) -> Tensor:
    """Rows (N, length) interpolated to (N, size) with half-pixel centres."""
    if rows.shape[1] == size:
        return rows
    return interpolate(rows[None], size, mode="linear", align_corners=False)[0]


def _cut(cells: Tensor, rows: slice, columns: slice, origin: tuple[int, int]) -> Tensor:
    """Rows and columns of the grid out of a part (h, w) of it at `origin`; no object beside it."""
    cut = cells.new_full((rows.stop - rows.start, columns.stop - columns.start), -LIMIT)
    top, left = origin
    height, width = cells.shape
    r0, r1 = max(rows.start, top), min(rows.stop, top + height)
    c0, c1 = max(columns.start, left), min(columns.stop, left + width)
    cut[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = cells[
        r0 - top : r1 - top, c0 - left : c1 - left
    ]
    return cut
