"""Losses of mask prediction and of the dense head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_simmat.models.tiny_encoder import BOUNDARY, OFFSET, SIZE, SIZE_UNIT, STRIDE


class MaskLoss(NamedTuple):
    """Per prompt and mask: the loss to minimise and the IoU reached, both (N, M)."""

    loss: Tensor
    iou: Tensor


def mask_loss(logits: Tensor, target: Tensor, balance: float = 0.0) -> MaskLoss:
    """Binary cross-entropy plus Dice, with an optional class-balanced term.

    Parameters
    ----------
    logits
        (N, M, h, w).
    target
        (N, 1, h, w) in 0..1; soft where a cell of the grid is covered in part.
    balance
        Weight of a cross-entropy in which object and background count equally. A small network
        otherwise settles on predicting background only.
    """
    logits = logits.float()
    wanted = target.expand_as(logits)
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    overlap = (probability * wanted).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    loss = entropy.mean((-2, -1)) + dice
    if balance:
        share = wanted.mean((-2, -1), keepdim=True)
        weight = 0.5 * wanted / share.clamp(min=1e-3)
        weight = weight + 0.5 * (1 - wanted) / (1 - share).clamp(min=1e-3)
        loss = loss + balance * (entropy * weight).mean((-2, -1))
    with torch.no_grad():
        ours, theirs = logits > 0, wanted > 0.5
        union = (ours | theirs).sum((-2, -1)).clamp(min=1)
        iou = (ours & theirs).sum((-2, -1)) / union
    return MaskLoss(loss, iou)


def to_mask_grid(masks: Tensor, stride: int) -> Tensor:
    """Masks (N, H, W) on a network's mask grid, (N, 1, H / stride, W / stride) of 0 and 1.

    A cell is what its middle pixel is. An object without such a pixel, which a thin one may be, has
    the cells that it touches: nothing would be the wrong answer to a click into it.
    """
    middle = stride // 2
    grid = masks[:, None, middle::stride, middle::stride].float()
    missed = ~grid.flatten(1).any(1)
    if missed.any():
        touched = functional.max_pool2d(masks[missed, None].float(), stride, ceil_mode=True)
        grid[missed] = touched[..., : grid.shape[-2], : grid.shape[-1]]
    return grid


def dice_and_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """SimMAT's loss (arXiv 2409.08083): Dice with squared denominators plus cross-entropy.

    Parameters
    ----------
    logits, target
        (N, M, h, w), the target 0 or 1.

    Returns
    -------
    Tensor
        (N, M).
    """
    logits, target = logits.float(), target.expand_as(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-2, -1))
    squares = probability.square().sum((-2, -1)) + target.square().sum((-2, -1))
    return entropy.mean((-2, -1)) + 1 - (2 * overlap + 1) / (squares + 1)


def dense_targets(labels: Tensor) -> Tensor:
    """What the dense head should say: (B, H, W) ids -> (B, 5, H/2, W/2).

    Boundary, foreground, offset to the object's centre (y, x, in units of its size), logarithm of
    its size (square root of its area, in `SIZE_UNIT` pixels).
    """
    labels = labels[:, ::STRIDE, ::STRIDE].long()
    batch, height, width = labels.shape
    boundary = torch.zeros(batch, height, width, dtype=torch.bool)
    vertical = labels[:, 1:] != labels[:, :-1]
    horizontal = labels[:, :, 1:] != labels[:, :, :-1]
    boundary[:, 1:] |= vertical
    boundary[:, :-1] |= vertical
    boundary[:, :, 1:] |= horizontal
    boundary[:, :, :-1] |= horizontal

    count = int(labels.max()) + 1
    flat = (labels + count * torch.arange(batch)[:, None, None]).flatten()
    y = (torch.arange(height) * STRIDE + 0.5)[:, None].expand(batch, height, width).flatten()
    x = (torch.arange(width) * STRIDE + 0.5).expand(batch, height, width).flatten()
    area = torch.bincount(flat, minlength=count * batch).clamp(min=1).float()
    centre_y = torch.bincount(flat, y, minlength=count * batch) / area
    centre_x = torch.bincount(flat, x, minlength=count * batch) / area
    size = area.sqrt() * STRIDE
    offset_y = (centre_y[flat] - y) / size[flat]
    offset_x = (centre_x[flat] - x) / size[flat]
    maps = [offset_y, offset_x, torch.log(size[flat] / SIZE_UNIT)]
    shaped = [each.reshape(batch, height, width) for each in maps]
    return torch.stack([boundary.float(), (labels > 0).float(), *shaped], dim=1)


def dense_loss(dense: Tensor, targets: Tensor) -> Tensor:
    """Loss of the dense head (B, 15, h, w) against `dense_targets`; offsets count in objects."""
    inside = targets[:, 1:2]
    binary = functional.binary_cross_entropy_with_logits(
        dense[:, BOUNDARY : BOUNDARY + 2], targets[:, :2]
    )
    offset = functional.smooth_l1_loss(
        dense[:, OFFSET], targets[:, OFFSET], reduction="none", beta=0.1
    )
    shape = ((2 * offset).sum(1, keepdim=True) + _size_misfit(dense, targets)) * inside
    return 2 * binary + shape.sum() / (3 * inside.sum() + 1)


def size_loss(dense: Tensor, targets: Tensor) -> Tensor:
    """Loss of the sizes alone, the mean over the objects' pixels of each image, (B,)."""
    inside = targets[:, 1:2]
    misfit = _size_misfit(dense, targets) * inside
    return misfit.sum((1, 2, 3)) / (inside.sum((1, 2, 3)) + 1)


def _size_misfit(dense: Tensor, targets: Tensor) -> Tensor:
    size = slice(SIZE, SIZE + 1)
    return functional.smooth_l1_loss(dense[:, size], targets[:, size], reduction="none", beta=0.25)
