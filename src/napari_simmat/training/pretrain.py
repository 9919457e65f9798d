"""Pretrain the embedded foundation on drawn scenes, and export it."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.evaluation.simulated_prompts import (
    PROMPT_KIND_WEIGHTS,
    PromptBatch,
    add_correction,
    draw_prompts,
)
from napari_simmat.models.network import Encoded
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.models.tiny import TinyNetwork, build_tiny
from napari_simmat.models.tiny_encoder import DensePixels
from napari_simmat.models.tuning import architecture_of
from napari_simmat.progress import Job, Progress
from napari_simmat.scenes.renderers import FAMILIES
from napari_simmat.training.devices import Devices
from napari_simmat.training.losses import dense_loss, dense_targets, mask_loss, trained_answers
from napari_simmat.training.run_folder import STATE_FILE, RunFolder, read_state
from napari_simmat.training.scene_pool import (
    MEAN,
    STD,
    CropBatch,
    ScenePool,
    augment_scene,
    scene_drawer,
)
from napari_simmat.training.trainer import Trainer, TrainingTask

logger = logging.getLogger(__name__)
CORRECTION_ROUNDS = (0.38, 0.22, 0.14, 0.09, 0.06, 0.05, 0.03, 0.03)
"""Probabilities of 1 to 8 rounds of correcting clicks in steps with any."""
RESUMABLE_SETTINGS = {"steps", "validate_every", "save_every"}
"""Settings that may differ when a run resumes."""
LOG_EVERY = 50
"""Steps over which the logged figures are averaged."""
LOG = "log.jsonl"
VALIDATION_SEED = 987_654_321
DESCRIPTION = (
    "Small network with SAM's prompts, for any kind of image: a convolutional stem, attention at "
    "stride 16, SAM's prompt encoder and mask decoder. Trained on drawn scenes only."
)
MIN_MUON_SIDE = 16
"""Smallest number of rows and columns for which a matrix is given to Muon."""
NO_MUON = (
    "torch %s has no Muon, which is part of torch from 2.9 on; AdamW trains all parameters "
    "instead. Update torch for the published recipe."
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Training settings of the embedded foundation.

    Parameters
    ----------
    steps
        Optimizer steps in all. The learning rate is constant, then falls over the last part
        (``decay``), so that a training can be prolonged from before the fall.
    families
        Scene families to draw; empty for all.
    learning_rate, weight_decay, clip, average
        Of Muon and AdamW (`MuonAdamW`), gradient clipping, and the decay of the averaged
        weights that are the result.
    warmup, dense_only, decay
        Steps of rising rate; share of the steps that train the encoder alone at first; share of
        the steps since this training began over which the rate finally falls to zero.
    objects, affinity_objects
        Objects prompted per crop, and clicks of the dense prior trained per crop.
    corrections
        Share of the steps with 1 to 8 rounds of correcting clicks, the last of which is trained.
    local_contrast
        Whether the network gets local contrast in addition to its first projection.
    precision
        ``"float32"`` or ``"bfloat16"`` (autocast): which is faster depends on the processor.
    seed
        Fixes all random numbers.
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
        """The settings that must not change when a run resumes."""
        rule = "muon+adamw" if muon_is_available() else "adamw"
        own = {
            name: value for name, value in asdict(self).items() if name not in RESUMABLE_SETTINGS
        }
        return {**own, "optimizer": rule}

    def rate(self, step: int, begun: int = 0) -> float:
        """The learning rate of a step of a run that began at step `begun`."""
        rising = min(1.0, (step - begun + 1) / self.warmup)
        left = (self.steps - step) / max(1.0, self.decay * (self.steps - begun))
        return self.learning_rate * rising * min(1.0, max(left, 0.0))


class PretrainedFoundation(NamedTuple):
    """A trained foundation, its number of steps, and its IoU in percent on drawn scenes."""

    network: TinyNetwork
    step: int
    metrics: dict[str, float]


def pretrain_job(
    config: PretrainConfig, folder: Path, base: Path | None = None
) -> Job[PretrainedFoundation]:
    """Train in `folder`, resuming what it holds; returns the averaged network.

    If it holds nothing, training continues from the file of a `base`, or starts new. The folder
    gets ``state.pt`` (to resume) and ``log.jsonl`` (losses, and IoU on scenes that training never
    draws). A file called ``stop`` in it ends the training early.

    Raises
    ------
    ValueError
        If the folder holds a training with other settings, another process trains in it, or
        `base` is no embedded foundation.
    """
    fabric = Devices(device="cpu").fabric("32-true")
    fabric.launch()
    task = PretrainingTask(config, folder)
    if base is not None and not (folder / STATE_FILE).exists():
        task.begin(base)
    run_folder = RunFolder(folder)
    try:
        state = read_state(folder, config.identity)
        trainer = Trainer(task, fabric, run_folder, config.identity)
        trainer.step = task.begun
        if state is not None:
            trainer.restore(state)
        yield from trainer.run_job()
        return PretrainedFoundation(task.averaged, trainer.step, task.metrics)
    finally:
        run_folder.close()


def export_base(path: Path, pretrained: PretrainedFoundation, config: PretrainConfig) -> None:
    """Write a trained network as an embedded base, float16; the file's stem is its name."""
    training = {
        "command": "simmat pretrain",
        "data": "drawn scenes",
        "families": list(config.families) or "all",
        "steps": pretrained.step,
        "seed": config.seed,
    }
    metrics = {"drawn scenes, mean IoU %": pretrained.metrics}
    tensors = pretrained.network.state_dict()
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    spec = tiny_spec(path.stem, training, metrics, architecture=architecture_of(tensors))
    save_checkpoint(path, spec, half)


def tiny_spec(
    name: str,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    *,
    architecture: str = "tiny_local",
) -> ModelSpec:
    """The description of an embedded base called `name`."""
    return ModelSpec(
        name=name,
        modality="RGB or grey",
        channels=tuple(Channel(name=c, mean=MEAN, std=STD) for c in ("red", "green", "blue")),
        normalization=Normalization(method="percentile", low=0.5, high=99.9),
        input_size=InputSize(method="native", size=4096, minimum=128, multiple=32),
        base=Base(name=name, architecture=architecture, sha256=""),
        mask_choice="single",
        description=DESCRIPTION,
        training=dict(training or {}),
        metrics=dict(metrics or {}),
        license="BSD-3-Clause",
        author="The napari-simmat developers",
    )


class PretrainingTask(TrainingTask):
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
        self.optimizer = MuonAdamW(self.network, config.learning_rate, config.weight_decay)
        self.pool = ScenePool(config.seed, scene_drawer(config.families), augment_scene)
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
        self.metrics = validate_on_scenes(self.averaged, self.config.families)
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
                f"{base.name} is not an embedded foundation, so no pretraining can start from it. "
                "Choose one that `simmat pretrain` wrote."
            )
        if spec.base.architecture == "tiny_local" and not self.config.local_contrast:
            raise ValueError(f"{base.name} has local contrast, which cannot be left out.")
        step = int(spec.training["steps"])
        if step >= self.total:
            raise ValueError(
                f"{base.name} was trained for {step} steps; {self.total} in all are not more. "
                "Give a larger number of steps."
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


class PretrainBatch(NamedTuple):
    """Crops of drawn scenes; `done` is the fraction of all steps, `rng` draws the prompts."""

    crops: CropBatch
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
        affinity = DensePixels(dense).affinity(clicks).reshape(images * count, 1, *dense.shape[-2:])
        prior = mask_loss(affinity, target, balance)
        loss = loss + prior.loss.mean()
        figures["prior"] = prior.iou.mean().item()
        if done < config.dense_only:
            return loss, figures

        count = config.objects
        flat = crops.masks[:, :count].reshape(-1, height, width)
        target = target.reshape(images, -1, *target.shape[1:])[:, :count].flatten(0, 1)
        kind = str(rng.choice(list(PROMPT_KIND_WEIGHTS), p=list(PROMPT_KIND_WEIGHTS.values())))
        prompts = draw_prompts(kind, flat, rng)
        y, x = (float(v) for v in rng.integers(0, 128, 2) * 8)
        corrected = rng.random() < config.corrections
        rounds = (
            1 + int(rng.choice(len(CORRECTION_ROUNDS), p=CORRECTION_ROUNDS)) if corrected else 0
        )

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


@torch.no_grad()
def validate_on_scenes(
    network: TinyNetwork, families: tuple[str, ...] = (), steps: int = 40
) -> dict[str, float]:
    """Mean IoU in percent on scenes that training never draws: click, box, click and 3 more."""
    pool = ScenePool(VALIDATION_SEED, scene_drawer(families), augment_scene, size=160, fresh=0)
    reached: dict[str, list[float]] = {"prior": [], "click": [], "box": [], "click+3": []}
    for step in range(steps):
        crops = pool.crops(step, 4, sizes=(192,))
        encoded = network.encode((crops.images - MEAN) / STD)
        flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
        target = torch.nn.functional.avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
        for name, scores in _predictions(network, encoded, flat, target, step):
            reached[name] += scores[:, 0].tolist()
    return {name: round(100 * float(np.mean(values)), 2) for name, values in reached.items()}


def _predictions(
    network: TinyNetwork, encoded: Encoded, masks: Any, target: Tensor, seed: int
) -> Iterator[tuple[str, Tensor]]:
    rng = np.random.default_rng([VALIDATION_SEED, seed])
    box = draw_prompts("box", masks, rng)
    click = draw_prompts("click", masks, rng)
    clicks = click.points[:, 0].reshape(len(encoded.embedding), -1, 2)
    prior = DensePixels(encoded.maps["dense"]).affinity(clicks).flatten(0, 1)[:, None]
    yield "prior", mask_loss(prior, target).iou

    def answer(prompts: PromptBatch) -> Tensor:
        return network.decode_batch(encoded, *prompts)[0]

    yield "box", mask_loss(answer(box)[:, :1], target).iou
    logits = answer(click)[:, :1]
    yield "click", mask_loss(logits, target).iou
    for _ in range(3):
        click = add_correction(click, logits, target, 2)
        logits = answer(click)[:, :1]
    yield "click+3", mask_loss(logits, target).iou


def muon_is_available() -> bool:
    """Whether this torch has Muon (2.9 or later)."""
    return hasattr(torch.optim, "Muon")


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` on the parameters of a network, as one optimizer.

    Without Muon, in torch before 2.9, AdamW trains all parameters; a warning says so.

    Parameters
    ----------
    network
        In memory format channels last, in which a convolution's kernel is a matrix: one row for
        each output, with all its inputs. Its first and last layers are AdamW's, as is usual.
    rate, decay
        Learning rate and weight decay (of matrices and kernels).
    """

    def __init__(self, network: TinyNetwork, rate: float, decay: float) -> None:
        super().__init__(list(network.parameters()), {"lr": rate})
        ends = (network.image_encoder.patch_embed.proj, network.image_encoder.dense)
        inner = [
            module.weight
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and min(module.weight.shape[:2]) >= MIN_MUON_SIDE
            and module not in ends
        ]
        if not muon_is_available():
            logger.warning(NO_MUON, torch.__version__)
            inner = []
        known = {id(weight) for weight in inner}
        others = [p for p in network.parameters() if id(p) not in known]
        # Views of the same memory as matrices, whose gradients are set before each step.
        self._views = [(weight, nn.Parameter(_matrix(weight.data))) for weight in inner]
        views = [view for _, view in self._views]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
        }
        if views:
            self._parts["muon"] = torch.optim.Muon(
                views, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes no closure
        """Move the parameters by their gradients, at the rate of `param_groups`."""
        assert closure is None
        for weight, view in self._views:
            view.grad = None if weight.grad is None else _matrix(weight.grad)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor:
    """(out, in[, kh, kw]) -> (out, kh * kw * in); a view if that is the order in memory."""
    return kernel if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
