"""What else a click may mean: what other scales answer, beside the answer that is trusted most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.model.network import Decoded
from napari_simmat.model.prior import LIMIT
from napari_simmat.model.window import Window

SAME = 0.8
"""IoU from which on two masks count as one."""


class Tried(NamedTuple):
    """What one level answered.

    Attributes
    ----------
    worth
        How far its best mask is believed.
    window, scale
        Where on the level it was asked, and the level's scale.
    logits
        (4, h, w) over the window, the best mask first.
    quality
        (4,), predicted IoU.
    """

    worth: float
    window: Window
    scale: float
    logits: Tensor
    quality: Tensor

    def whole(self, shape: tuple[int, int]) -> Decoded:
        """All masks on the input's mask grid of `shape`."""
        return Decoded(self.window.paste(self.logits, self.scale, shape), self.quality)

    def part(self, number: int, shape: tuple[int, int]) -> _Part:
        """One mask where it lies on the input's mask grid of `shape`."""
        [logits], top, left = self.window.placed(
            self.logits[number : number + 1], self.scale, shape
        )
        return _Part(logits, logits > 0, top, left, self.quality[number])


class _Part(NamedTuple):
    """Logits (h, w) of a mask over a part of the grid that begins at `top`, `left`."""

    logits: Tensor
    inside: Tensor
    top: int
    left: int
    quality: Tensor

    def within(self, rows: slice, columns: slice) -> Tensor:
        """Its pixels in rows and columns of the grid that it covers."""
        return self.inside[
            rows.start - self.top : rows.stop - self.top,
            columns.start - self.left : columns.stop - self.left,
        ]


def with_alternatives(tried: Sequence[Tried], shape: tuple[int, int]) -> Decoded:
    """The answer that is worth most, then three others that it may have meant.

    Those are the first masks of the other levels, in the order of their worth, and then the other
    masks of its own level. What is empty or the `SAME` as one before it comes last.

    Parameters
    ----------
    tried
        What the levels answered; at least one.
    shape
        Of the input's mask grid.
    """
    best, *others = sorted(tried, key=lambda each: -each.worth)
    if not others:
        return best.whole(shape)
    count = len(best.quality)
    parts = [each.part(0, shape) for each in (best, *others)]
    parts += [best.part(number, shape) for number in range(1, count)]
    ordered = _unlike_first(parts)[:count]
    logits = best.logits.new_full((count, *shape), -LIMIT)
    for whole, part in zip(logits, ordered, strict=True):
        height, width = part.logits.shape
        whole[part.top : part.top + height, part.left : part.left + width] = part.logits
    return Decoded(logits, torch.stack([part.quality for part in ordered]))


def _unlike_first(parts: Sequence[_Part]) -> list[_Part]:
    """The first mask, those that say something else than all before, then the rest."""
    kept: list[_Part] = [parts[0]]
    rest: list[_Part] = []
    for part in parts[1:]:
        said = not part.inside.any() or any(_iou(part, other) >= SAME for other in kept)
        (rest if said else kept).append(part)
    return kept + rest


def _iou(one: _Part, other: _Part) -> float:
    """IoU of two tensors' masks over different parts of the grid; 0 where both are empty.

    Unlike `engine.mask_geometry.iou` it does not bring the parts onto one grid first.
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
