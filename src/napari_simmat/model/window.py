"""The part of a level in which a prompt is answered."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from napari_simmat.model.network import Encoded
from napari_simmat.model.prior import LIMIT
from napari_simmat.model.pyramid import MASK_STRIDE, WINDOW

ALIGNED = 8
"""Windows begin at multiples of the embedding's stride."""


class Window(NamedTuple):
    """A part of a level, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def around(cls, level: Encoded, middle: tuple[float, float]) -> Window:
        """Up to `WINDOW` pixels around a point x, y of the network's input, within the level."""
        sides = [min(side, WINDOW) for side in level.input_size]
        starts = []
        for at, side, whole in zip(middle[::-1], sides, level.input_size, strict=True):
            start = (at + 0.5) * level.scale - side / 2
            starts.append(int(min(max(round(start / ALIGNED) * ALIGNED, 0), whole - side)))
        return cls(starts[0], starts[1], sides[0], sides[1])

    def crop(self, level: Encoded) -> Encoded:
        """What the level knows of the window."""

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
        """Points (..., 2) x, y of the network's input as points of the window."""
        origin = torch.tensor([self.left, self.top]).to(points)
        return (points + 0.5) * scale - 0.5 - origin

    def holds(self, points: Tensor) -> Tensor:
        """Which points (K, 2) of the window lie within it, or on its outermost edge."""
        end = torch.tensor([self.width, self.height]).to(points) - 0.5
        return ((points >= -0.5) & (points <= end)).all(-1)

    def mask(self, mask: Tensor, scale: float) -> Tensor:
        """Logits (1, 1, H/2, W/2) over the input as logits over the window, half its size."""
        rows, columns = self._cells(scale)
        part = mask[..., rows, columns]
        (high, wide), size = (
            part.shape[-2:],
            (self.height // MASK_STRIDE, self.width // MASK_STRIDE),
        )
        missing = rows.stop - rows.start - high, columns.stop - columns.start - wide
        part = pad(part, (0, missing[1], 0, missing[0]), value=-LIMIT)
        return _resized(part, size)

    def paste(self, logits: Tensor, scale: float, shape: tuple[int, int]) -> Tensor:
        """Logits (N, h, w) over the window as logits (N, *shape) over the input."""
        part, top, left = self.placed(logits, scale, shape)
        whole = logits.new_full((len(logits), *shape), -LIMIT)
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return whole

    def placed(
        self, logits: Tensor, scale: float, shape: tuple[int, int]
    ) -> tuple[Tensor, int, int]:
        """Logits (N, h, w) over the window on the input's mask grid of `shape`, and where."""
        rows, columns = self._cells(scale)
        size = rows.stop - rows.start, columns.stop - columns.start
        part = _resized(logits[None], size)[0]
        part = part[:, : shape[0] - rows.start, : shape[1] - columns.start]
        return part, rows.start, columns.start

    def is_left(self, logits: Tensor, level: Encoded) -> bool:
        """Whether a mask's logits (h, w) go on beyond the window's edges within the level."""
        inside = logits > 0
        edges = [
            inside[0] if self.top > 0 else None,
            inside[-1] if self.top + self.height < level.input_size[0] else None,
            inside[:, 0] if self.left > 0 else None,
            inside[:, -1] if self.left + self.width < level.input_size[1] else None,
        ]
        crossing = sum(int(edge.sum()) for edge in edges if edge is not None)
        return crossing > 0.1 * math.sqrt(float(inside.sum()))

    def _cells(self, scale: float) -> tuple[slice, slice]:
        """The part of the input's mask grid that the window covers."""
        step = MASK_STRIDE * scale
        top, left = int(self.top / step), int(self.left / step)
        height, width = int(self.height / step), int(self.width / step)
        return slice(top, top + height), slice(left, left + width)


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    smaller = size[0] < logits.shape[-2]
    return interpolate(logits, size, mode="bilinear", align_corners=False, antialias=smaller)
