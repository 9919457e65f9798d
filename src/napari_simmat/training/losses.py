"""Losses of masks and of the dense head, and the module that computes them for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.evaluation.drawn_prompts import PromptBatch, add_correction
from napari_simmat.models.dense_prior import (
    BOUNDARY,
    MASK_STRIDE,
    MAX_PRIOR_LOGIT,
    OFFSET,
    SIZE,
    SIZE_UNIT,
    DensePixels,
)
from napari_simmat.models.network import Encoded, Network
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.training.batches import UNKNOWN, Batch, PlaneKey

MAX_CACHED_BYTES = 2**31
"""Memory for a frozen encoder's features of whole planes; SAM's take 4 MB each."""
SIZE_LOSS_WEIGHT = 0.1
"""Weight of the size loss. Without it, predicted sizes drift when the encoder is tuned for masks
alone, and with them the level at which a click is decoded. Three times the weight, and a loss of
centers, made the masks of folded objects worse."""


class TrainingModule(nn.Module):
    """Maps a batch to its loss; the network's trained parameters require a gradient.

    Parameters
    ----------
    network
        To train.
    auxiliary
        See `TrainConfig`.
    smoothing
        That of SimMAT's loss for masks (`dice_and_entropy`); None for the loss of `mask_loss`.
    cell_pixel
        See `to_mask_grid`.
    """

    def __init__(
        self,
        network: Network,
        auxiliary: bool,
        smoothing: float | None = 1e-5,
        cell_pixel: int | None = None,
    ) -> None:
        super().__init__()
        self.cell_pixel = cell_pixel
        self.network = network
        self.auxiliary, self.smoothing = auxiliary, smoothing
        self.frozen = not any(p.requires_grad for p in network.image_encoder.parameters())
        self.features: dict[PlaneKey, Encoded] = {}
        self._cached = 0  # bytes of them

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean IoU of the single mask as ``"iou"``, both scalar."""
        return finish(self.loss_job(batch))

    def loss_job(self, batch: Batch) -> Job[tuple[Tensor, dict[str, Tensor]]]:
        """As `forward`, with a break after each mask that is trained.

        The first mask and the one after the batch's correcting clicks are trained; those between
        only lead to the last. `UNKNOWN` pixels do not count.
        """
        yield Progress(0, 0)
        network = self.network
        device = batch.images.device
        encoded = self._encoded(batch.images, batch.keys)
        masks = torch.from_numpy(batch.masks).to(device)
        target = to_mask_grid(masks, network.mask_stride, self.cell_pixel)
        known = self._known(batch, len(target))
        prompts = PromptBatch(batch.prompts.points.to(device), batch.prompts.labels.to(device))
        loss = encoded.embedding.new_zeros((), dtype=torch.float32)
        if self.auxiliary and "dense" in encoded.maps:
            dense = encoded.maps["dense"]
            targets = dense_targets(batch.labels).to(device)
            loss = loss + SIZE_LOSS_WEIGHT * size_loss(dense, targets).mean()
            if bool((prompts.labels[:, 0] == 1).all()):
                # The dense prior at each first click is a short path to the encoder.
                clicks = prompts.points[:, 0].reshape(len(dense), -1, 2)
                prior = DensePixels(dense).affinity(clicks).flatten(0, 1)[:, None]
                loss = loss + 0.5 * mask_loss(prior, target, known=known).loss.mean()
        reached = loss

        def decode(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
            return network.decode_batch(encoded, *prompts)

        results = trained_results(decode, prompts, target, batch.rounds, network.mask_stride, known)
        for turn, given, logits, quality in results:
            every = mask_loss(logits, target, known=known)
            if self.smoothing is None:
                loss = loss + every.loss[:, 0].mean()
            else:
                loss = loss + dice_and_entropy(logits[:, :1], target, self.smoothing).mean()
            if self.auxiliary:
                loss = loss + (quality - every.iou).square().mean()
                if not turn and given.labels.tolist() == [[1, -1]] * len(target):
                    # A lone click is ambiguous: one of the other masks may be meant.
                    loss = loss + 0.5 * every.loss[:, 1:].min(1).values.mean()
            reached = every.iou[:, 0].mean()
            yield Progress(turn + 1, batch.rounds + 1)
        return loss, {"iou": reached.detach()}

    def _known(self, batch: Batch, objects: int) -> Tensor | None:
        """Cells of the mask grid with known truth, for each of the objects; None if all are."""
        stride = self.network.mask_stride
        known = on_grid(batch.labels[:, None], stride, self.cell_pixel) != UNKNOWN
        if bool(known.all()):
            return None
        repeated = known.float().repeat_interleave(objects // len(known), 0)
        return repeated.to(batch.images.device)

    def _encoded(self, images: Tensor, keys: Sequence[PlaneKey | None]) -> Encoded:
        """Encode; a frozen encoder's features of whole planes are cached."""
        if not self.frozen or None in keys:
            return self.network.encode(images)
        found = []
        for image, key in zip(images, keys, strict=True):
            assert key is not None
            features = self.features.get(key)
            if features is None:
                with torch.no_grad():  # one at a time: a resumed training gets the same bits
                    features = self.network.features(image[None])
                if self._cached + features.nbytes <= MAX_CACHED_BYTES:
                    self.features[key] = features.to(torch.device("cpu"))
                    self._cached += features.nbytes
            found.append(features.to(images.device))
        joined = replace(
            found[0],
            embedding=torch.cat([each.embedding for each in found]),
            maps={name: torch.cat([each.maps[name] for each in found]) for name in found[0].maps},
        )
        return self.network.with_decoder_maps(joined)


def trained_results(
    decode: Callable[[PromptBatch], tuple[Tensor, Tensor]],
    prompts: PromptBatch,
    target: Tensor,
    rounds: int,
    stride: float,
    known: Tensor | None = None,
) -> Iterator[tuple[int, PromptBatch, Tensor, Tensor]]:
    """Decode, add `rounds` correcting clicks, and yield the first and the last result.

    Those between only lead to the last and get no gradient. `decode` maps prompts to logits
    (N, M, h, w) and predicted qualities (N, M); `target` is (N, 1, h, w) in 0..1, with `stride`
    pixels per cell. No click corrects where `known` (N, 1, h, w) is 0.

    Yields
    ------
    tuple
        The number of corrections so far, the prompts, logits and qualities.
    """
    for turn in range(rounds + 1):
        is_trained = turn in (0, rounds)
        with torch.set_grad_enabled(is_trained and torch.is_grad_enabled()):
            logits, quality = decode(prompts)
        if is_trained:
            yield turn, prompts, logits, quality
        if turn < rounds:
            prompts = add_correction(prompts, logits[:, :1].detach(), target, stride, known)


class MaskLoss(NamedTuple):
    """Per prompt and mask: the loss to minimize and the IoU reached, both (N, M)."""

    loss: Tensor
    iou: Tensor


def mask_loss(
    logits: Tensor, target: Tensor, balance: float = 0.0, known: Tensor | None = None
) -> MaskLoss:
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
    known
        (N, 1, h, w), 0 in cells that do not count, as their truth is unknown; by default all count.
    """
    logits = logits.float()
    if known is not None:
        logits = torch.where(known > 0, logits, -MAX_PRIOR_LOGIT)
    truth = target.expand_as(logits)
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    overlap = (probability * truth).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
    loss = entropy.mean((-2, -1)) + dice
    if balance:
        share = truth.mean((-2, -1), keepdim=True)
        weight = 0.5 * truth / share.clamp(min=1e-3)
        weight = weight + 0.5 * (1 - truth) / (1 - share).clamp(min=1e-3)
        loss = loss + balance * (entropy * weight).mean((-2, -1))
    with torch.no_grad():
        ours = logits > 0
        theirs = truth > 0.5
        union = (ours | theirs).sum((-2, -1)).clamp(min=1)
        iou = (ours & theirs).sum((-2, -1)) / union
    return MaskLoss(loss, iou)


def to_mask_grid(masks: Tensor, stride: float, cell_pixel: int | None = None) -> Tensor:
    """Masks (N, H, W) on a network's mask grid, (N, 1, H / stride, W / stride) of 0 and 1.

    A cell takes the value of one of its pixels along each axis, `cell_pixel`, by default the middle
    one. A thin object that contains no such pixel gets the cells that it touches, as an empty
    target would be wrong for a click on it.
    """
    grid = on_grid(masks[:, None], stride, cell_pixel).float()
    missed = ~grid.flatten(1).any(1)
    if missed.any():
        alone = masks[missed, None].float()
        if stride == int(stride):
            touched = functional.max_pool2d(alone, int(stride), ceil_mode=True)
        else:
            touched = functional.adaptive_max_pool2d(alone, grid.shape[-2:])
        grid[missed] = touched[..., : grid.shape[-2], : grid.shape[-1]]
    return grid


def on_grid(values: Tensor, stride: float, cell_pixel: int | None = None) -> Tensor:
    """Values (..., H, W) at one pixel of each cell of a mask grid, (..., h, w); `to_mask_grid`."""
    if stride == int(stride):
        step = int(stride)
        taken = step // 2 if cell_pixel is None else cell_pixel
        return values[..., taken::step, taken::step]
    inside = stride / 2 if cell_pixel is None else cell_pixel
    rows, columns = (
        (torch.arange(round(length / stride)) * stride + inside).long()
        for length in values.shape[-2:]
    )
    return values[..., rows[:, None], columns]


def dice_and_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """SimMAT's loss: Dice with squared denominators plus cross-entropy.

    Source: ``DiceCELoss(sigmoid=True, squared_pred=True)`` of MONAI, which smooths by 1e-5, in
    ``train_sam`` of ``function.py``, https://github.com/mt-cly/SimMAT at a3f7d70.

    Parameters
    ----------
    logits, target
        (N, M, h, w), the target 0 or 1.
    smoothing
        Added to numerator and denominator of Dice.

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
    return entropy.mean((-2, -1)) + 1 - (2 * overlap + smoothing) / (squares + smoothing)


def dense_targets(labels: Tensor) -> Tensor:
    """Targets of the dense head: (B, H, W) ids -> (B, 5, H/2, W/2); negative ids count as 0.

    Boundary, foreground, offset to the object's center (y, x, in units of its size), logarithm of
    its size (square root of its area, in `SIZE_UNIT` pixels).
    """
    labels = labels[:, ::MASK_STRIDE, ::MASK_STRIDE].long().clamp(min=0)
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
    y = (torch.arange(height) * MASK_STRIDE + 0.5)[:, None].expand(batch, height, width).flatten()
    x = (torch.arange(width) * MASK_STRIDE + 0.5).expand(batch, height, width).flatten()
    area = torch.bincount(flat, minlength=count * batch).clamp(min=1).float()
    center_y = torch.bincount(flat, y, minlength=count * batch) / area
    center_x = torch.bincount(flat, x, minlength=count * batch) / area
    size = area.sqrt() * MASK_STRIDE
    offset_y = (center_y[flat] - y) / size[flat]
    offset_x = (center_x[flat] - x) / size[flat]
    maps = [offset_y, offset_x, torch.log(size[flat] / SIZE_UNIT)]
    shaped = [each.reshape(batch, height, width) for each in maps]
    return torch.stack([boundary.float(), (labels > 0).float(), *shaped], dim=1)


def dense_loss(dense: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Loss of the dense head (B, 15, h, w) against `dense_targets`; offsets count in objects.

    Boundary and foreground do not count where `known` (B, 1, h, w) is 0.
    """
    inside = targets[:, 1:2]
    predicted = dense[:, BOUNDARY : BOUNDARY + 2]
    weight = None if known is None else known.expand_as(predicted)
    binary = functional.binary_cross_entropy_with_logits(predicted, targets[:, :2], weight)
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
