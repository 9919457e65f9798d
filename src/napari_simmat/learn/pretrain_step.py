"""One optimiser step of the embedded foundation on drawn scenes, and the state it changes."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from napari_simmat.engine.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.learn.hybrid import Hybrid
from napari_simmat.learn.losses import dense_loss, dense_targets, mask_loss
from napari_simmat.learn.pool import Crops, ScenePool, drawing_looks, vary_look
from napari_simmat.learn.prompting import KINDS, correct, draw_prompts
from napari_simmat.learn.scenes.looks import FAMILIES
from napari_simmat.model.prior import Pixels
from napari_simmat.model.tiny import TinyNetwork, build_tiny

MEAN, STD = 127.5, 64.0
"""Standardisation of the input, the same for every channel."""
ROUNDS = (0.38, 0.22, 0.14, 0.09, 0.06, 0.05, 0.03, 0.03)
"""How often a step has 1 to 8 rounds of correcting clicks, where it has any."""
MAY_CHANGE = {"steps", "validate_every", "save_every"}
"""Settings that may differ when a training goes on."""


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

    def rate(self, step: int, begun: int = 0) -> float:
        """The learning rate of a step of a training that began at step `begun`."""
        rising = min(1.0, (step - begun + 1) / self.warmup)
        left = (self.steps - step) / max(1.0, self.decay * (self.steps - begun))
        return self.learning_rate * rising * min(1.0, max(left, 0.0))


class Pretraining:
    """The state of a training: network, averaged network, optimiser, step, first step."""

    def __init__(self, config: PretrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        network = build_tiny(local=config.local_contrast)
        self.network: TinyNetwork = network.train().to(memory_format=torch.channels_last)
        self.averaged: TinyNetwork = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = Hybrid(self.network, config.learning_rate, config.weight_decay)
        self.pool = ScenePool(config.seed, drawing_looks(config.families), vary_look)
        self.step = self.begun = 0

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns its losses and IoUs."""
        config, step = self.config, self.step
        rng = np.random.default_rng([config.seed, 2, step])
        torch.manual_seed(config.seed * 1_000_003 + step)
        self.optimizer.set_rate(config.rate(step, self.begun))
        done = step / config.steps
        crops = self.pool.crops(step, max(config.affinity_objects, config.objects))
        self.optimizer.zero_grad()
        loss, figures = self._loss(crops, done, rng)
        torch.autograd.backward(loss)
        norm = clip_grad_norm_(self.network.parameters(), config.clip)
        if torch.isfinite(norm):  # a step that overflowed in bfloat16 is left out
            self.optimizer.step()
        self._average()
        self.step += 1
        return {"loss": loss.item(), "gradient": float(norm), **figures}

    def _loss(
        self, crops: Crops, done: float, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        config, network = self.config, self.network
        balance = 0.4 * max(0.0, 1 - done / 0.6)
        images, _, height, width = crops.images.shape
        half = config.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            encoded = network.encode((crops.images - MEAN) / STD)
        dense = encoded.maps["dense"]
        loss = dense_loss(dense, dense_targets(crops.labels))
        figures = {"dense": loss.item()}

        # The clicks of the prior reach the encoder on the shortest way.
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
        origin = tuple(float(v) for v in rng.integers(0, 128, 2) * 8)
        corrected = rng.random() < config.corrections
        rounds = 1 + int(rng.choice(len(ROUNDS), p=ROUNDS)) if corrected else 0
        for turn in range(rounds + 1):
            trained = turn in (0, rounds)  # what lies between only leads to the last answer
            half_here = torch.autocast("cpu", torch.bfloat16, enabled=half)
            with half_here, torch.set_grad_enabled(trained):
                logits, quality = network.decode_batch(encoded, *prompts, (origin[0], origin[1]))
            if trained:
                masks = mask_loss(logits, target, balance)
                loss = loss + masks.loss[:, 0].mean() + (quality - masks.iou).square().mean()
                if kind == "click" and not turn:  # only a lone click is ambiguous
                    loss = loss + 0.5 * masks.loss[:, 1:].min(1).values.mean()
                figures["corrected" if turn else kind] = masks.iou[:, 0].mean().item()
            if turn < rounds:
                prompts = correct(prompts, logits[:, :1], target, 2)
        return loss, figures

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        ours = list(self.averaged.parameters())
        torch._foreach_lerp_(ours, list(self.network.parameters()), 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, at once or not at all."""
        temporary = path.with_suffix(".tmp")
        torch.save(
            {
                "step": self.step,
                "begun": self.begun,
                "config": json.dumps(asdict(self.config)),
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            temporary,
        )
        os.replace(temporary, path)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote (tensors and plain numbers only)."""
        state = torch.load(path, weights_only=True)
        before, now = json.loads(state["config"]), json.loads(json.dumps(asdict(self.config)))
        for name in sorted({each.name for each in fields(PretrainConfig)} - MAY_CHANGE):
            if before[name] != now[name]:
                raise ValueError(
                    f"{path.parent} holds a training with {name} {before[name]}, not {now[name]}. "
                    "Go on with its settings, or choose an empty folder."
                )
        self.step, self.begun = state["step"], state["begun"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])

    def begin(self, base: Path) -> None:
        """Go on from a base's file, at its step; the optimiser has to find its pace anew."""
        spec = read_spec(base)
        if not spec.base.embedded or spec.transfer != "zeroshot":
            raise ValueError(
                f"{base.name} is not an embedded foundation, so no pretraining can go on from it. "
                "Choose one that `simmat pretrain` wrote."
            )
        if spec.base.architecture == "tiny_local" and not self.config.local_contrast:
            raise ValueError(f"{base.name} has local contrast; no training without it goes on.")
        step = int(spec.training["steps"])
        if step >= self.config.steps:
            raise ValueError(
                f"{base.name} was trained for {step} steps already, {self.config.steps} in all are "
                "asked for. Ask for more."
            )
        weights = {name: tensor.float() for name, tensor in read_tensors(base).items()}
        # An earlier one has no local contrast: it is then mixed by the zeros it begins with.
        weights = {**self.network.state_dict(), **weights}
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)
        self.step = self.begun = step
