"""The loss of a batch, through encoder, prompts and decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from napari_simmat.learn.losses import (
    dense_targets,
    dice_and_entropy,
    mask_loss,
    on_grid,
    size_loss,
)
from napari_simmat.learn.prompting import PromptBatch, correct
from napari_simmat.learn.training.batches import Batch, Key
from napari_simmat.model.network import Encoded, Network
from napari_simmat.model.prior import Pixels

KEPT = 512
"""Images of which a frozen encoder's features are kept, in the computer's memory, not a GPU's;
SAM's take 4 MB each."""
SIZES = 0.1
"""Weight of the loss of sizes. Without it they go adrift where the encoder is tuned for masks
alone, and with them the level on which a click is answered. Three times as much, and centres as
well, was at the expense of the masks of folded objects."""


def trained_answers(
    decode: Callable[[PromptBatch], tuple[Tensor, Tensor]],
    prompts: PromptBatch,
    target: Tensor,
    rounds: int,
    stride: int,
) -> Iterator[tuple[int, PromptBatch, Tensor, Tensor]]:
    """Decode, add `rounds` correcting clicks, and yield the first and the last answer.

    Those between only lead to the last and get no gradient.

    Parameters
    ----------
    decode
        Maps prompts to logits (N, M, h, w) and predicted qualities (N, M).
    prompts
        The first ones.
    target
        (N, 1, h, w) in 0..1.
    rounds
        Number of corrections.
    stride
        Pixels per cell of the masks' grid.

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
            prompts = correct(prompts, logits[:, :1].detach(), target, stride)


class Learner(nn.Module):
    """A network as a function from a batch to its loss, which Lightning Fabric can wrap.

    Parameters
    ----------
    network
        With what is trained requiring a gradient.
    auxiliary
        See `TrainConfig`.
    """

    def __init__(self, network: Network, auxiliary: bool) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = auxiliary
        self.frozen = not any(p.requires_grad for p in network.image_encoder.parameters())
        self._features: dict[Key, Encoded] = {}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean IoU of the single mask as ``"iou"``, both scalar.

        The first mask and the one after the batch's correcting clicks are trained; those between
        only lead to the last.
        """
        network = self.network
        device = batch.images.device
        encoded = self._encoded(batch.images, batch.keys)
        masks = torch.from_numpy(batch.masks).to(device)
        target = on_grid(masks, network.mask_stride)
        prompts = PromptBatch(batch.prompts.points.to(device), batch.prompts.labels.to(device))
        loss = encoded.embedding.new_zeros((), dtype=torch.float32)
        if self.auxiliary and "dense" in encoded.maps:
            dense = encoded.maps["dense"]
            targets = dense_targets(batch.labels).to(device)
            loss = loss + SIZES * size_loss(dense, targets).mean()
            if bool((prompts.labels[:, 0] == 1).all()):
                loss = loss + 0.5 * self._prior_loss(dense, prompts, target)
        reached = loss

        def decode(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
            return network.decode_batch(encoded, *prompts)

        answers = trained_answers(decode, prompts, target, batch.rounds, network.mask_stride)
        for turn, asked, logits, quality in answers:
            loss = loss + dice_and_entropy(logits[:, :1], target).mean()
            all_masks = mask_loss(logits, target)
            if self.auxiliary:
                loss = loss + (quality - all_masks.iou).square().mean()
                if not turn and asked.labels.tolist() == [[1, -1]] * len(target):
                    # A lone click is ambiguous: one of the other masks may be meant.
                    loss = loss + 0.5 * all_masks.loss[:, 1:].min(1).values.mean()
            reached = all_masks.iou[:, 0].mean()
        return loss, {"iou": reached.detach()}

    def _prior_loss(self, dense: Tensor, prompts: PromptBatch, target: Tensor) -> Tensor:
        """Of the dense prior of each first click, which reaches the encoder on a short way."""
        clicks = prompts.points[:, 0].reshape(len(dense), -1, 2)
        prior = Pixels(dense).affinity(clicks).flatten(0, 1)[:, None]
        return mask_loss(prior, target).loss.mean()

    def _encoded(self, images: Tensor, keys: Sequence[Key | None]) -> Encoded:
        """Encode; what a frozen encoder made of a whole plane is kept."""
        if not self.frozen or None in keys:
            return self.network.encode(images)
        found = []
        for image, key in zip(images, keys, strict=True):
            assert key is not None
            features = self._features.get(key)
            if features is None:
                with torch.no_grad():  # one at a time: a resumed training gets the same bits
                    features = self.network.features(image[None])
                if len(self._features) < KEPT:
                    self._features[key] = features.to(torch.device("cpu"))
            found.append(features.to(images.device))
        joined = replace(
            found[0],
            embedding=torch.cat([each.embedding for each in found]),
            maps={name: torch.cat([each.maps[name] for each in found]) for name in found[0].maps},
        )
        return self.network.finished(joined)
