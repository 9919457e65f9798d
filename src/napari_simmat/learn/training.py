"""Training of a modality checkpoint: the transfer layer on a frozen foundation.

Data are scenes drawn through one of the sensors of `learn.scenes.sensors`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.nn.utils import clip_grad_norm_

from napari_simmat.learn.losses import mask_loss
from napari_simmat.learn.pool import Crops, ScenePool, drawing_sensor
from napari_simmat.learn.prompting import draw_prompts
from napari_simmat.learn.scenes.sensors import SENSORS
from napari_simmat.model.foundation import build_network
from napari_simmat.model.prior import Pixels
from napari_simmat.model.spec import Channel, ModelSpec, Normalization
from napari_simmat.model.tiny import TinyNetwork
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.loading import Model

VALIDATION_SEED = 123_456_789
VALIDATION_STEPS = 16
MEASURED_SCENES = 48
"""Scenes from which the channels' mean and spread are taken."""
KINDS = {"click": 0.5, "box": 0.25, "click+box": 0.1, "points": 0.15}
RULE = Normalization(method="percentile", low=0.5, high=99.9, joint=True)
"""One pair of percentiles for all channels: what a sensor says lies in their ratios."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a transfer layer is trained.

    Parameters
    ----------
    sensor
        A name in `SENSORS`.
    steps, learning_rate
        Adam's steps, and its rate, which falls along a cosine (the rate is the paper's default
        for parameter-efficient tuning times ten: there is little to train).
    objects
        Objects prompted per crop.
    seed
        Fixes everything that is random.
    """

    sensor: str
    steps: int = 1500
    learning_rate: float = 3e-3
    objects: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sensor not in SENSORS:
            raise ValueError(f"Sensor {self.sensor!r} is unknown; use one of {', '.join(SENSORS)}.")
        if self.steps < 1:
            raise ValueError(f"Training takes at least one step, got {self.steps}.")


@dataclass(frozen=True)
class Trained:
    """A modality checkpoint: its description and its trained tensors by state-dict name."""

    spec: ModelSpec
    tensors: dict[str, Tensor]


def training(base: Model, config: TrainConfig, name: str) -> Job[Trained]:
    """Train SimMAT's transfer layer for a sensor on `base`, whose network stays frozen.

    The metrics of the result are mean IoU in percent on scenes that training never draws, for the
    base given the sensor's first three channels and for the checkpoint.

    Raises
    ------
    ValueError
        If the base is not an embedded one.
    """
    if not isinstance(base.network, TinyNetwork):
        raise ValueError(
            f"{base.spec.name} cannot be trained here; the base is one of the embedded models."
        )
    spec = _spec(base.spec, config, name)
    network = build_network("tiny", channels=len(spec.channels), transfer="simmat")
    assert isinstance(network, TinyNetwork)
    torch.manual_seed(config.seed)
    for layer in network.projection.mat:  # type: ignore[union-attr]
        if isinstance(layer, torch.nn.Conv2d):
            layer.reset_parameters()
    network.load_state_dict(base.network.state_dict(), strict=False)
    network.requires_grad_(False).to(memory_format=torch.channels_last)
    own = network.transfer_names()
    trained = {n: p.requires_grad_() for n, p in network.named_parameters() if n in own}

    pool = ScenePool(config.seed, drawing_sensor(config.sensor, RULE), size=160, fresh=0.5)
    optimizer = torch.optim.Adam(trained.values(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for step in range(config.steps):
        rng = np.random.default_rng([config.seed, 2, step])
        crops = pool.crops(step, config.objects, sizes=(128, 160, 192))
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(network, _standardised(crops.images, spec), crops, rng)
        torch.autograd.backward(loss)
        if torch.isfinite(clip_grad_norm_(trained.values(), 1.0)):
            optimizer.step()
        schedule.step()
        yield Progress(step + 1, config.steps, f"training, loss {loss.item():.2f}")

    metrics = {
        "data": "drawn scenes, mean IoU %",
        "zero-shot": _validate(base.network, config.sensor, spec, channels=3),
        "simmat": _validate(network, config.sensor, spec),
    }
    tensors = {name: tensor.detach() for name, tensor in trained.items()}
    return Trained(replace(spec, metrics=metrics), tensors)


def _spec(base: ModelSpec, config: TrainConfig, name: str) -> ModelSpec:
    """The description of what will be trained, with the channels' statistics measured."""
    draw = drawing_sensor(config.sensor, RULE)
    scenes = [draw(np.random.default_rng([config.seed, 3, n]))[0] for n in range(MEASURED_SCENES)]
    values = np.concatenate([scene.reshape(len(scene), -1) for scene in scenes], axis=1)
    channels = tuple(
        Channel(name=channel, mean=round(float(row.mean()), 3), std=round(float(row.std()), 3))
        for channel, row in zip(SENSORS[config.sensor].channels, values, strict=True)
    )
    return replace(
        base,
        name=name,
        modality=config.sensor,
        channels=channels,
        normalization=RULE,
        transfer="simmat",
        strategy="frozen",
        description=f"SimMAT's transfer layer for {config.sensor}, trained on drawn scenes only.",
        training=asdict(config),
    )


def _standardised(images: Tensor, spec: ModelSpec) -> Tensor:
    mean = torch.tensor([channel.mean for channel in spec.channels])[:, None, None]
    std = torch.tensor([channel.std for channel in spec.channels])[:, None, None]
    return (images - mean) / std


def _loss(network: TinyNetwork, image: Tensor, crops: Crops, rng: np.random.Generator) -> Tensor:
    """Masks and dense prior of one kind of prompt; both reach the transfer layer."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
    target = avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
    prompts = draw_prompts(kind, flat, rng)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = network.encode(image)
        logits, _ = network.decode_batch(encoded, *prompts)
    loss = mask_loss(logits[:, :1], target, 0.2).loss.mean()
    if "box" not in kind:
        clicks = prompts.points[:, 0].reshape(len(image), -1, 2)
        prior = Pixels(encoded.maps["dense"]).affinity(clicks).flatten(0, 1)[:, None]
        loss = loss + 0.5 * mask_loss(prior, target, 0.2).loss.mean()
    return loss


@torch.no_grad()
def _validate(
    network: TinyNetwork, sensor: str, spec: ModelSpec, channels: int | None = None
) -> dict[str, float]:
    """Mean IoU in percent of a click and of a box; the first `channels` alone for a base."""
    pool = ScenePool(VALIDATION_SEED, drawing_sensor(sensor, RULE), size=48, fresh=0)
    reached: dict[str, list[float]] = {"click": [], "box": []}
    for step in range(VALIDATION_STEPS):
        crops = pool.crops(step, 4, sizes=(192,))
        flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
        target = avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
        image = _standardised(crops.images, spec)
        encoded = network.encode(image[:, :channels])
        for kind, scores in reached.items():
            prompts = draw_prompts(kind, flat, np.random.default_rng([VALIDATION_SEED, step]))
            logits, _ = network.decode_batch(encoded, *prompts)
            scores += mask_loss(logits[:, :1], target).iou[:, 0].tolist()
    return {kind: round(100 * float(np.mean(scores)), 2) for kind, scores in reached.items()}
