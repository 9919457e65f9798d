"""What else a click may mean: what other scales answer, beside the answer that is trusted most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.model.network import Decoded
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

    def whole(self, shape: tuple[int, int], count: int | None = None) -> Decoded:
        """The answer, or its first `count` masks, on the input's mask grid of `shape`."""
        logits = self.window.paste(self.logits[:count], self.scale, shape)
        return Decoded(logits, self.quality[:count])


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
    own = best.whole(shape)
    if not others:
        return own
    found = [Decoded(own.logits[:1], own.quality[:1]), *(each.whole(shape, 1) for each in others)]
    logits = torch.cat([*(each.logits for each in found), own.logits[1:]])
    quality = torch.cat([*(each.quality for each in found), own.quality[1:]])
    order = _unlike_first(logits > 0)[: len(own.quality)]
    return Decoded(logits[order], quality[order])


def _unlike_first(masks: Tensor) -> list[int]:
    """Indices of masks (N, H, W): the first, those that say something else, then the rest."""
    kept = [0]
    for at, mask in enumerate(masks[1:], start=1):
        shared = (masks[kept] & mask).sum((1, 2))
        either = (masks[kept] | mask).sum((1, 2)).clamp(min=1)
        if bool(mask.any()) and not bool((shared / either >= SAME).any()):
            kept.append(at)
    return kept + [at for at in range(len(masks)) if at not in kept]
