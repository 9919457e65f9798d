"""An answer to a prompt: masks at the image's resolution, scores, logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.engine.frames import Frame

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
        frame: Frame,
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


def enlarge(logits: Tensor, frame: Frame, stride: int) -> Tensor:
    """Logits (N, h, w) of the mask grid at the image's resolution (N, Y, X).

    In two steps, to the padded input and from its part with the image to the image, as SAM's
    ``postprocess_masks`` does: one step is not equal.
    """
    height, width = logits.shape[-2:]
    fine = _bilinear(logits[None], (height * stride, width * stride))
    part = fine[..., : frame.resized[0], : frame.resized[1]]
    return _bilinear(part, frame.image)[0]


def shrink(mask: NDArray[Any], frame: Frame, stride: int) -> Tensor:
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
