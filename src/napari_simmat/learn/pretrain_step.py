"""Pretraining of the embedded foundation on drawn scenes: settings, losses and state."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_simmat.engine.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.learn.hybrid import Hybrid, muon_is_available
from napari_simmat.learn.losses import dense_loss, dense_targets, mask_loss
from napari_simmat.learn.pool import MEAN, STD, Crops, ScenePool, drawing_looks, vary_look
from napari_simmat.learn.prompting import KINDS, PromptBatch, draw_prompts
from napari_simmat.learn.scenes.looks import FAMILIES
from napari_simmat.learn.training.learner import trained_answers
from napari_simmat.learn.training.run import Task
from napari_simmat.learn.validation import validate
from napari_simmat.model.prior import Pixels
from napari_simmat.model.tiny import TinyNetwork, build_tiny
from napari_simmat.progress import Job, Progress

ROUNDS = (0.38, 0.22, 0.14, 0.09, 0.06, 0.05, 0.03, 0.03)
"""How often a step has 1 to 8 rounds of correcting clicks, where it has any."""
MAY_CHANGE = {"steps", "validate_every", "save_every"}
"""Settings that may differ when a training resumes."""
LOG_EVERY = 50
"""Steps over which the logged figures are averaged."""
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How the embedded foundation is trained.

    Parameters
    ----------
    steps
        Optimiser steps in all. The learning rate stays level, then falls over the last part
        (``decay``), so that a training can be prolonged from before the fall.
    families
        Scene families to draw; empty for all.
    learning_rate, weight_decay, clip, average
        Of Muon and AdamW (`learn.hybrid`), gradient clipping, and the decay of the averaged
        weights that are the result.
    warmup, dense_only, decay
        Steps of rising rate; share of the steps that train the encoder alone at first; share of
        the steps (of those since the training began) at the end over which the rate falls to zero.
    objects, affinity_objects
        Objects prompted per crop, and clicks of the dense prior trained per crop.
    corrections
        Share of the steps with 1 to 8 rounds of correcting clicks; the last one is trained.
    local_contrast
        Whether the network gets local contrast beside its first projection.
    precision
        ``"float32"`` or ``"bfloat16"`` (autocast): which is faster depends on the processor.
    seed
        Fixes everything that is random.
    """

    steps: int = 20_000
    families: tuple[str, ...] = ()
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    average: float = 0.998
    warmup: int = 200
    dense_only: float = 0.04
    decay: float = 0.3
    objects: int = 4
    affinity_objects: int = 8
    corrections: float = 0.6
    local_contrast: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    validate_every: int = 500
    save_every: int = 250

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.families) - set(FAMILIES)):
            raise ValueError(
                f"No family of scenes is called {' or '.join(unknown)}; "
                f"use some of {', '.join(FAMILIES)}."
            )
        if self.steps < 1:
            raise ValueError(f"Training takes at least one step, got {self.steps}.")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that must not change when a training resumes."""
        rule = "muon+adamw" if muon_is_available() else "adamw"
        own = {name: value for name, value in asdict(self).items() if name not in MAY_CHANGE}
        return {**own, "optimizer": rule}

    def rate(self, step: int, begun: int = 0) -> float:
        """The learning rate of a step of a training that began at step `begun`."""
        rising = min(1.0, (step - begun + 1) / self.warmup)
        left = (self.steps - step) / max(1.0, self.decay * (self.steps - begun))
        return self.learning_rate * rising * min(1.0, max(left, 0.0))


class PretrainBatch(NamedTuple):
    """Crops of drawn scenes; `done` is the fraction of all steps, `rng` draws the prompts."""

    crops: Crops
    done: float
    rng: np.random.Generator


class PretrainModule(nn.Module):
    """The foundation as a function from a batch to its loss.

    Parameters
    ----------
    network
        In training mode.
    config
        Settings.
    """

    def __init__(self, network: TinyNetwork, config: PretrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, batch: PretrainBatch) -> tuple[Tensor, dict[str, float]]:
        """The loss, and losses and mean IoUs of its parts by name."""
        crops, done, rng = batch
        config, network = self.config, self.network
        balance = 0.4 * max(0.0, 1 - done / 0.6)
        images, _, height, width = crops.images.shape
        with self._autocast():
            encoded = network.encode((crops.images - MEAN) / STD)
        dense = encoded.maps["dense"]
        loss = dense_loss(dense, dense_targets(crops.labels))
        figures = {"dense": loss.item()}

        # The clicks of the dense prior reach the encoder by the shortest path.
        count = config.affinity_objects
        flat = crops.masks[:, :count].reshape(-1, height, width)
        clicks = draw_prompts("click", flat, rng).points[:, 0].reshape(images, count, 2)
        target = torch.nn.functional.avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
        affinity = Pixels(dense).affinity(clicks).reshape(images * count, 1, *dense.shape[-2:])
        prior = mask_loss(affinity, target, balance)
        loss = loss + prior.loss.mean()
        figures["prior"] = prior.iou.mean().item()
        if done < config.dense_only:
            return loss, figures

        count = config.objects
        flat = crops.masks[:, :count].reshape(-1, height, width)
        target = target.reshape(images, -1, *target.shape[1:])[:, :count].flatten(0, 1)
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        prompts = draw_prompts(kind, flat, rng)
        y, x = (float(v) for v in rng.integers(0, 128, 2) * 8)
        corrected = rng.random() < config.corrections
        rounds = 1 + int(rng.choice(len(ROUNDS), p=ROUNDS)) if corrected else 0

        def decode(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
            with self._autocast():
                return network.decode_batch(encoded, *prompts, (y, x))

        for turn, _, logits, quality in trained_answers(decode, prompts, target, rounds, 2):
            masks = mask_loss(logits, target, balance)
            loss = loss + masks.loss[:, 0].mean() + (quality - masks.iou).square().mean()
            if kind == "click" and not turn:  # a lone click is ambiguous
                loss = loss + 0.5 * masks.loss[:, 1:].min(1).values.mean()
            figures["corrected" if turn else kind] = masks.iou[:, 0].mean().item()
        return loss, figures

    def _autocast(self) -> torch.autocast:
        half = self.config.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=half)


class Pretraining(Task):
    """Trains a new `tiny` network on drawn scenes.

    Parameters
    ----------
    config
        Settings.
    folder
        Gets ``log.jsonl``.

    Attributes
    ----------
    averaged
        Exponential moving average of the network: the result.
    begun
        First step of this training; above 0 if it continues an earlier foundation.
    metrics
        Mean IoU in percent at the last validation, by prompt.
    """

    log_every = LOG_EVERY

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder
        self.total, self.seed, self.max_norm = config.steps, config.seed, config.clip
        network = build_tiny(local=config.local_contrast)
        self.network: TinyNetwork = network.train().to(memory_format=torch.channels_last)
        self.averaged: TinyNetwork = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.module = PretrainModule(self.network, config)
        self.optimizer = Hybrid(self.network, config.learning_rate, config.weight_decay)
        self.pool = ScenePool(config.seed, drawing_looks(config.families), vary_look)
        self.begun = 0
        self.metrics: dict[str, float] = {}
        self._mark: tuple[float, int] | None = None  # when the last row was written, at which step

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.config.rate(step, self.begun)

    def batch(self, step: int, part: slice) -> PretrainBatch:
        """The whole batch of a step."""
        del part
        config = self.config
        self._mark = self._mark or (time.monotonic(), step)
        crops = self.pool.crops(step, max(config.affinity_objects, config.objects))
        rng = np.random.default_rng([config.seed, 2, step])
        return PretrainBatch(crops, step / config.steps, rng)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Update the averaged network."""
        decay = min(self.config.average, (1 + step) / (10 + step))
        ours = list(self.averaged.parameters())
        torch._foreach_lerp_(ours, list(self.network.parameters()), 1 - decay)

    def is_due(self, step: int) -> bool:
        """Whether to validate after so many steps."""
        return step % self.config.validate_every == 0 or step == self.total

    def is_saved(self, step: int) -> bool:
        """Whether to save the state after so many steps."""
        return step % self.config.save_every == 0

    def validate_job(self, step: int) -> Job[tuple[str, dict[str, float]]]:
        """Measure the averaged network on scenes that training never draws."""
        yield Progress(step, self.total, "measuring on scenes that training never draws")
        self.metrics = validate(self.averaged, self.config.families)
        self._write({"step": step, "validation": self.metrics})
        return f"validation IoU {self.metrics['click']:.1f} %", {}

    def log(self, step: int, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write the mean losses and IoUs."""
        row = {"step": step, "learning_rate": rate}
        if self._mark is not None:
            since, before = self._mark
            speed = (step - before) / (time.monotonic() - since)
            row["steps_per_second"] = round(speed, 2)
        self._mark = time.monotonic(), step
        row |= {name: round(mean, 4) for name, mean in means.items()}
        self._write(row)
        return row

    def state(self) -> dict[str, Any]:
        """Both networks, and where this training began."""
        networks = {"network": self.network.state_dict(), "averaged": self.averaged.state_dict()}
        return {**networks, "begun": self.begun, "metrics": self.metrics}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.begun, self.metrics = state["begun"], state["metrics"]

    def begin(self, base: Path) -> None:
        """Start from a foundation's file, at its step, with a new optimizer state."""
        spec = read_spec(base)
        if not spec.base.embedded or spec.transfer != "zeroshot":
            raise ValueError(
                f"{base.name} is not an embedded foundation, so no pretraining can go on from it. "
                "Choose one that `simmat pretrain` wrote."
            )
        if spec.base.architecture == "tiny_local" and not self.config.local_contrast:
            raise ValueError(f"{base.name} has local contrast; no training without it goes on.")
        step = int(spec.training["steps"])
        if step >= self.total:
            raise ValueError(
                f"{base.name} was trained for {step} steps already, {self.total} in all are "
                "asked for. Ask for more."
            )
        weights = {name: tensor.float() for name, tensor in read_tensors(base).items()}
        # A base without local contrast: it is then mixed in by zeros at first.
        weights = {**self.network.state_dict(), **weights}
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)
        self.begun = step

    def _write(self, entry: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")
