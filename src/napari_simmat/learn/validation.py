"""How good the embedded foundation is on drawn scenes that its training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_simmat.learn.losses import mask_loss
from napari_simmat.learn.pool import MEAN, STD, ScenePool, drawing_looks, vary_look
from napari_simmat.learn.prompting import PromptBatch, correct, draw_prompts
from napari_simmat.model.network import Encoded
from napari_simmat.model.prior import Pixels
from napari_simmat.model.tiny import TinyNetwork

VALIDATION_SEED = 987_654_321


@torch.no_grad()
def validate(
    network: TinyNetwork, families: tuple[str, ...] = (), steps: int = 40
) -> dict[str, float]:
    """Mean IoU in percent on scenes that training never draws: click, box, click and 3 more."""
    pool = ScenePool(VALIDATION_SEED, drawing_looks(families), vary_look, size=160, fresh=0)
    reached: dict[str, list[float]] = {"prior": [], "click": [], "box": [], "click+3": []}
    for step in range(steps):
        crops = pool.crops(step, 4, sizes=(192,))
        encoded = network.encode((crops.images - MEAN) / STD)
        flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
        target = torch.nn.functional.avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
        for name, scores in _answers(network, encoded, flat, target, step):
            reached[name] += scores[:, 0].tolist()
    return {name: round(100 * float(np.mean(values)), 2) for name, values in reached.items()}


def _answers(
    network: TinyNetwork, encoded: Encoded, masks: Any, target: Tensor, seed: int
) -> Iterator[tuple[str, Tensor]]:
    rng = np.random.default_rng([VALIDATION_SEED, seed])
    box = draw_prompts("box", masks, rng)
    click = draw_prompts("click", masks, rng)
    clicks = click.points[:, 0].reshape(len(encoded.embedding), -1, 2)
    prior = Pixels(encoded.maps["dense"]).affinity(clicks).flatten(0, 1)[:, None]
    yield "prior", mask_loss(prior, target).iou

    def answer(prompts: PromptBatch) -> Tensor:
        return network.decode_batch(encoded, *prompts)[0]

    yield "box", mask_loss(answer(box)[:, :1], target).iou
    logits = answer(click)[:, :1]
    yield "click", mask_loss(logits, target).iou
    for _ in range(3):
        click = correct(click, logits, target, 2)
        logits = answer(click)[:, :1]
    yield "click+3", mask_loss(logits, target).iou
