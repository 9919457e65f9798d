"""Pretrain the embedded foundation on drawn scenes, and export it.

Muon is the optimizer of the inner matrices, AdamW that of the rest.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import split_decoder
from napari_simmat.evaluation.drawn_prompts import PROMPT_KIND_WEIGHTS, PromptBatch, draw_prompts
from napari_simmat.models.dense_prior import MASK_STRIDE, DensePixels
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.models.symmetric_views import ALL_VIEWS
from napari_simmat.models.tiny import TinyNetwork, build_tiny
from napari_simmat.models.tiny_encoder import LiteEncoder, efficientnet_tensors
from napari_simmat.models.tuning import architecture_of, build_network
from napari_simmat.progress import Job, Progress
from napari_simmat.training.devices import Devices
from napari_simmat.training.losses import dense_loss, dense_targets, mask_loss, trained_results
from napari_simmat.training.run_folder import STATE_FILE, RunFolder, read_state
from napari_simmat.training.trainer import Trainer
from simmat_research.experiments import PretrainOptions
from simmat_research.real_scenes import RealSource, real_drawer
from simmat_research.renderers import FAMILIES
from simmat_research.scene_pool import (
    MEAN,
    STD,
    CropBatch,
    DrawnScene,
    ScenePool,
    augment_scene,
    known_cells,
    repeated,
    scene_drawer,
    validate_on_scenes,
    with_glare,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CORRECTION_ROUNDS = (0.38, 0.22, 0.14, 0.09, 0.06, 0.05, 0.03, 0.03)
"""Probabilities of 1 to 8 rounds of correcting clicks in steps with any."""
RESUMABLE_SETTINGS = {"steps", "validate_every", "save_every"}
"""Settings that may differ when a run resumes."""
LOG_EVERY = 50
"""Steps over which the logged figures are averaged."""
MIN_MUON_SIDE = 16
"""Smallest number of rows and columns for which a matrix is given to Muon."""
PRETRAINED_RATE = 0.3
"""Learning rate of pretrained parameters, relative to that of the others."""
LOG = "log.jsonl"
DESCRIPTION = (
    "Small network with SAM's prompts, for any kind of image: {stem}, attention at stride 16, "
    "SAM's prompt encoder and mask decoder. Trained on {data}."
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(PretrainOptions):
    """Training settings of the embedded foundation.

    Parameters
    ----------
    sources
        Of real images (`real_scenes.read_sources`).
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
    """

    sources: tuple[RealSource, ...] = ()
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
    validate_every: int = 2000
    save_every: int = 250

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.families) - set(FAMILIES)):
            raise ValueError(
                f"No family of scenes is called {' or '.join(unknown)}; "
                f"use some of {', '.join(FAMILIES)}."
            )
        if self.steps < 1:
            raise ValueError(f"Training takes at least one step, got {self.steps}.")
        if not 0 <= self.real_share <= 1:
            raise ValueError(f"The share of real scenes is 0 to 1, got {self.real_share}.")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that must not change when a run resumes."""
        own = {n: value for n, value in asdict(self).items() if n not in RESUMABLE_SETTINGS}
        for path in ("imagenet", "teacher"):
            own[path] = own[path].name if own[path] else ""
        sources = {each.name: each.recipe for each in self.sources}
        return {**own, "sources": sources, "optimizer": "muon+adamw"}

    def scene_drawer(self) -> Callable[[Generator], DrawnScene]:
        """A function that draws the scenes to train on."""
        drawn = scene_drawer(self.families)
        if not self.sources:
            return with_glare(drawn)
        real = real_drawer(self.sources)
        return with_glare(lambda rng: (real if rng.random() < self.real_share else drawn)(rng))

    @property
    def data(self) -> str:
        """What it trains on, in words."""
        return "drawn scenes and real images" if self.sources else "drawn scenes only"

    def rate(self, step: int, begun: int = 0) -> float:
        """The learning rate of a step of a run that began at step `begun`."""
        rising = min(1.0, (step - begun + 1) / self.warmup)
        left = (self.steps - step) / max(1.0, self.decay * (self.steps - begun))
        return self.learning_rate * rising * min(1.0, max(left, 0.0))


class PretrainedFoundation(NamedTuple):
    """A trained foundation, its number of steps, and its IoU in percent by prompt.

    On drawn scenes, and on the validation images of each real source.
    """

    network: TinyNetwork
    step: int
    metrics: dict[str, float]
    by_source: Mapping[str, dict[str, float]] = MappingProxyType({})


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
    task = Pretraining(config)
    if base is not None and not (folder / STATE_FILE).exists():
        task.begin(base)
    with closing(RunFolder(folder)) as run_folder:
        state = read_state(folder, config.identity)
        trainer = task.trainer(fabric, run_folder)
        if state is not None:
            trainer.restore(state)
        yield from trainer.run_job()
        return PretrainedFoundation(task.averaged, trainer.step, task.metrics, task.by_source)


def export_base(path: Path, pretrained: PretrainedFoundation, config: PretrainConfig) -> None:
    """Write a trained network as an embedded base, float16; the file's stem is its name."""
    training: dict[str, Any] = {
        "command": "simmat pretrain",
        "data": config.data,
        "families": list(config.families) or "all",
        "steps": pretrained.step,
        "seed": config.seed,
    }
    metrics = {"drawn scenes, mean IoU %": pretrained.metrics}
    if config.sources:
        training["real_share"] = config.real_share
        training["sources"] = {each.name: each.card for each in config.sources}
    for source, figures in pretrained.by_source.items():
        metrics[f"{source}, validation images, mean IoU %"] = figures
    tensors = pretrained.network.state_dict()
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    architecture = architecture_of(tensors)
    spec = tiny_spec(path.stem, training, metrics, architecture=architecture, data=config.data)
    save_checkpoint(path, spec, half)


def tiny_spec(
    name: str,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    *,
    architecture: str = "tiny_deep",
    data: str = "drawn scenes only",
) -> ModelSpec:
    """The description of an embedded base called `name`, trained on `data`, in words."""
    stem = "EfficientNet-Lite0's stages" if architecture == "tiny_lite" else "a convolutional stem"
    return ModelSpec(
        name=name,
        modality="RGB or gray",
        channels=tuple(Channel(name=c, mean=MEAN, std=STD) for c in ("red", "green", "blue")),
        normalization=Normalization(low=0.5, high=99.9, clip_glare=True),
        input_size=InputSize(method="native", size=4096, minimum=128, multiple=32),
        base=Base(name=name, architecture=architecture, sha256=""),
        mask_choice="single",
        description=DESCRIPTION.format(stem=stem, data=data),
        training=dict(training or {}),
        metrics=dict(metrics or {}),
        license="BSD-3-Clause",
        author="The napari-simmat developers",
    )


class Pretraining:
    """A new `tiny` network, its running average, and the scenes it is trained on.

    Attributes
    ----------
    averaged
        Exponential moving average of the network: the result.
    begun
        First step of this training; above 0 if it continues an earlier foundation.
    metrics, by_source
        Mean IoU in percent at the last validation, by prompt: on drawn scenes, and on the
        validation images of each real source.
    """

    def __init__(self, config: PretrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        network = build_tiny("tiny_lite" if config.encoder == "lite" else "tiny_deep")
        teacher = _load_teacher(config.teacher)
        pretrained: list[nn.Parameter] = []
        if isinstance(network.image_encoder, LiteEncoder):
            pretrained = _start_lite(network, teacher, config.imagenet)
        self.network: TinyNetwork = network.train().to(memory_format=torch.channels_last)
        self.averaged: TinyNetwork = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.module = PretrainModule(self.network, self.averaged, config, teacher)
        encoder = self.network.image_encoder
        ends = encoder.patch_embed.proj, encoder.dense
        self.optimizer = MuonAdamW(
            self.network, config.learning_rate, config.weight_decay, ends, pretrained
        )
        draw = config.scene_drawer()
        self.pool = ScenePool(config.seed, draw, augment_scene, off_scale=config.off_scale)
        self.begun = 0
        self.metrics: dict[str, float] = {}
        self.by_source: dict[str, dict[str, float]] = {}
        self._mark: tuple[float, int] | None = None  # when the last row was written, at which step

    def trainer(self, fabric: Fabric, folder: RunFolder | None) -> Trainer:
        """A trainer on a launched `fabric`; the folder gets the state and ``log.jsonl``."""
        config = self.config
        trainer = Trainer(
            module=self.module,
            optimizer=self.optimizer,
            fabric=fabric,
            folder=folder,
            settings=config.identity,
            total=config.steps,
            seed=config.seed,
            max_norm=config.clip,
            rate=lambda step: config.rate(step, self.begun),
            batch=lambda step, _: self.batch(step),
            after_step=self.average,
            state=self.state,
            load=self.load,
            log=self.log,
            log_every=LOG_EVERY,
            validate_job=self.validate_job,
            due={*range(0, config.steps, config.validate_every), config.steps},
            save_every=config.save_every,
        )
        trainer.step = self.begun
        return trainer

    def batch(self, step: int) -> PretrainBatch:
        """The whole batch of a step."""
        config = self.config
        self._mark = self._mark or (time.monotonic(), step)
        crops = self.pool.crops(step, max(config.affinity_objects, config.objects))
        rng = np.random.default_rng([config.seed, 2, step])
        return PretrainBatch(crops, step / config.steps, rng)

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Update the averaged network."""
        decay = min(self.config.average, (1 + step) / (10 + step))
        ours = list(self.averaged.parameters())
        torch._foreach_lerp_(ours, list(self.network.parameters()), 1 - decay)

    def validate_job(self, trainer: Trainer) -> Job[tuple[str, dict[str, float]]]:
        """Measure the averaged network on scenes that training never draws."""
        step, total = trainer.step, trainer.total
        yield Progress(step, total, "measuring on scenes that training never draws")
        self.metrics = validate_on_scenes(self.averaged, scene_drawer(self.config.families))
        row: dict[str, Any] = {"step": step, "validation": self.metrics}
        self.by_source = {}
        for source in self.config.sources:
            if source.validation:
                yield Progress(step, total, f"measuring on {source.name}")
                draw = real_drawer([source], validation=True)
                self.by_source[source.name] = validate_on_scenes(self.averaged, draw, 8)
        if self.by_source:
            row["by_source"] = self.by_source
        _write(trainer.folder, row)
        return f"validation IoU {self.metrics['click']:.1f} %", {}

    def log(self, trainer: Trainer, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write the mean losses and IoUs."""
        step = trainer.step
        row = {"step": step, "learning_rate": rate}
        if self._mark is not None:
            since, before = self._mark
            speed = (step - before) / (time.monotonic() - since)
            row["steps_per_second"] = round(speed, 2)
        self._mark = time.monotonic(), step
        row |= {name: round(mean, 4) for name, mean in means.items()}
        _write(trainer.folder, row)
        return row

    def state(self) -> dict[str, Any]:
        """Both networks, and where this training began."""
        networks = {"network": self.network.state_dict(), "averaged": self.averaged.state_dict()}
        measured = {"metrics": self.metrics, "by_source": self.by_source}
        return {**networks, "begun": self.begun, **measured}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.begun, self.metrics = state["begun"], state["metrics"]
        self.by_source = state.get("by_source", {})

    def begin(self, base: Path) -> None:
        """Start from a foundation's file, at its step, with a new optimizer state."""
        spec = read_spec(base)
        if not spec.base.embedded or spec.transfer != "zeroshot":
            raise ValueError(
                f"{base.name} is not an embedded foundation, so no pretraining can start from it. "
                "Choose one that `simmat pretrain` wrote."
            )
        tensors, _ = split_decoder(read_tensors(base))
        own, there = architecture_of(self.network.state_dict()), architecture_of(tensors)
        if own != there:
            raise ValueError(
                f"{base.name} is a network {there}, but this training makes a {own}. Choose a base "
                "of the same kind."
            )
        step = int(spec.training["steps"])
        if step >= self.config.steps:
            raise ValueError(
                f"{base.name} was trained for {step} steps; {self.config.steps} in all are not "
                "more. Give a larger number of steps."
            )
        weights = {name: tensor.float() for name, tensor in tensors.items()}
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)
        self.begun = step


def _write(folder: RunFolder | None, entry: dict[str, Any]) -> None:
    if folder is not None:
        with (folder.path / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")


class PretrainBatch(NamedTuple):
    """Crops of drawn scenes; `done` is the fraction of all steps, `rng` draws the prompts."""

    crops: CropBatch
    done: float
    rng: Generator


class PretrainModule(nn.Module):
    """The foundation as a function from a batch to its loss.

    Parameters
    ----------
    network
        In training mode.
    averaged
        Its running average, the teacher of `PretrainConfig.consistency`.
    config
        Settings.
    """

    def __init__(
        self,
        network: TinyNetwork,
        averaged: TinyNetwork,
        config: PretrainConfig,
        distilled: TinyNetwork | None = None,
    ) -> None:
        super().__init__()
        self.network, self.config = network, config
        self._teacher = (averaged,)  # no submodule: it is not trained
        self._distilled = (distilled,)

    def forward(self, batch: PretrainBatch) -> tuple[Tensor, dict[str, float]]:
        """The loss, and losses and mean IoUs of its parts by name."""
        crops, done, rng = batch
        config, network = self.config, self.network
        balance = 0.4 * max(0.0, 1 - done / 0.6)
        images, _, height, width = crops.images.shape
        with self._autocast():
            encoded = network.encode((crops.images - MEAN) / STD)
        dense = encoded.maps["dense"]
        known = known_cells(crops.labels)
        loss = dense_loss(dense, dense_targets(crops.labels), known)
        figures = {"dense": loss.item()}
        if done < config.distillation and self._distilled[0] is not None:
            with torch.no_grad(), self._autocast():
                example = self._distilled[0].features((crops.images - MEAN) / STD)
                example = self._distilled[0].with_decoder_maps(example)
            # Squared differences of the embedding and the decoder's maps, relative to the example.
            pairs = [(encoded.embedding, example.embedding)]
            pairs += [(encoded.maps[name], example.maps[name]) for name in ("skip4", "skip2")]
            imitation = torch.zeros(())
            for own, imitated in pairs:
                imitated = imitated.float()
                imitation = imitation + (own.float() - imitated).square().mean() / imitated.var()
            loss = loss + (1 - done / config.distillation) * imitation
            figures["imitation"] = imitation.item()

        # The clicks of the dense prior reach the encoder by the shortest path.
        count = config.affinity_objects
        flat = crops.masks[:, :count].reshape(-1, height, width)
        clicks = draw_prompts("click", flat, rng).points[:, 0].reshape(images, count, 2)
        target = functional.avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
        affinity = DensePixels(dense).affinity(clicks).reshape(images * count, 1, *dense.shape[-2:])
        prior = mask_loss(affinity, target, balance, repeated(known, count))
        outlined = torch.tensor(~crops.off_scale).float()
        loss = loss + _mean_of(prior.loss[:, 0], outlined)
        figures["prior"] = _mean_of(prior.iou[:, 0], outlined).item()
        if done < config.dense_only:
            return loss, figures

        count = config.objects
        flat = crops.masks[:, :count].reshape(-1, height, width)
        target = target.reshape(images, -1, *target.shape[1:])[:, :count].flatten(0, 1)
        kind = str(rng.choice(list(PROMPT_KIND_WEIGHTS), p=list(PROMPT_KIND_WEIGHTS.values())))
        prompts = draw_prompts(kind, flat, rng)
        y, x = (float(v) for v in rng.integers(0, 128, 2) * 8)
        rounds = 0
        if rng.random() < config.corrections:
            rounds = 1 + int(rng.choice(len(CORRECTION_ROUNDS), p=CORRECTION_ROUNDS))

        def decode(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
            with self._autocast():
                return network.decode_batch(encoded, *prompts, (y, x))

        known = repeated(known, count)
        answers = trained_results(decode, prompts, target, rounds, MASK_STRIDE, known)
        for turn, _, logits, quality in answers:
            masks = mask_loss(logits, target, balance, known)
            loss = loss + _mean_of(masks.loss[:, 0], outlined)
            loss = loss + (quality - masks.iou).square().mean()
            # The other masks are alternatives, most of all for a lone click, which is ambiguous.
            weight = 0.5 if kind == "click" and not turn else 0.25
            loss = loss + weight * _mean_of(masks.loss[:, 1:].min(1).values, outlined)
            figures["corrected" if turn else kind] = _mean_of(masks.iou[:, 0], outlined).item()
            if not turn and prompts.mask is None and rng.random() < config.consistency:
                with self._autocast():
                    wanted = mean_over_views(self._teacher[0], crops.images, prompts, rng)
                agreement = functional.binary_cross_entropy_with_logits(
                    logits[:, :1], wanted, reduction="none"
                )
                agreement = _mean_of(agreement.mean((1, 2, 3)), outlined)
                loss = loss + agreement
                figures["consistency"] = agreement.item()
        return loss, figures

    def _autocast(self) -> torch.autocast:
        half = self.config.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=half)


def _load_teacher(path: Path | None) -> TinyNetwork | None:
    if path is None:
        return None
    network = build_network(read_spec(path).base.architecture)
    tensors, _ = split_decoder(read_tensors(path))
    network.load_state_dict({name: each.float() for name, each in tensors.items()})
    network.eval().requires_grad_(False)
    assert isinstance(network, TinyNetwork)
    return network


def _start_lite(
    network: TinyNetwork, teacher: TinyNetwork | None, imagenet: Path | None
) -> list[nn.Parameter]:
    """Published weights for the stages, a teacher's for all else that fits; the former."""
    encoder = network.image_encoder
    assert isinstance(encoder, LiteEncoder)
    if teacher is not None:
        own = network.state_dict()
        first = "image_encoder.patch_embed.", "image_encoder.local."
        fitting = {
            name: tensor
            for name, tensor in teacher.state_dict().items()
            if name in own and own[name].shape == tensor.shape and not name.startswith(first)
        }
        network.load_state_dict(own | fitting)
    if not imagenet:
        return []
    published = torch.load(imagenet, map_location="cpu", weights_only=True)
    encoder.load_state_dict(efficientnet_tensors(published, MEAN, STD), strict=False)
    return encoder.pretrained()


@torch.no_grad()
def mean_over_views(
    network: TinyNetwork, images: Tensor, prompts: PromptBatch, rng: Generator
) -> Tensor:
    """Probabilities (N, 1, h, w) of the mean logits over images and two of their other views.

    A view is one of the eight reflections and rotations of the square `images` (B, C, S, S);
    `prompts` have no masks.
    """
    total = torch.zeros(())
    for number in (0, *(int(other) for other in rng.permutation(7)[:2] + 1)):
        view = ALL_VIEWS[number]
        seen = view.apply(images)
        points = view.points(prompts.points, prompts.labels, (seen.shape[-2], seen.shape[-1]))
        encoded = network.encode((seen - MEAN) / STD)
        logits = network.decode_batch(encoded, points, prompts.labels)[0][:, :1].float()
        total = total + view.undo(logits)
    return (total / 3).sigmoid()


def _mean_of(values: Tensor, images: Tensor) -> Tensor:
    """Mean of values (B * P,) over the objects of the images (B,) that are 1; 0 without any."""
    weight = images.repeat_interleave(len(values) // len(images))
    return (values * weight).sum() / weight.sum().clamp(min=1)


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` on the parameters of a network, as one optimizer.

    Parameters
    ----------
    network
        In memory format channels last, in which a convolution's kernel is a matrix: one row for
        each output, with all its inputs.
    rate, decay
        Learning rate and weight decay (of matrices and kernels).
    ends
        Its first and last layers, which are AdamW's, as is usual.
    pretrained
        Parameters that AdamW trains at `PRETRAINED_RATE` times the rate, without decay.
    """

    def __init__(
        self,
        network: nn.Module,
        rate: float,
        decay: float,
        ends: Sequence[nn.Module],
        pretrained: Sequence[nn.Parameter] = (),
    ) -> None:
        super().__init__(list(network.parameters()), {"lr": rate})
        slow = {id(parameter) for parameter in pretrained}
        inner = [
            module.weight
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and min(module.weight.shape[:2]) >= MIN_MUON_SIDE
            and module not in ends
            and id(module.weight) not in slow
        ]
        known = {id(weight) for weight in inner} | slow
        others = [p for p in network.parameters() if id(p) not in known]
        # Views of the same memory as matrices, whose gradients are set before each step.
        self._views = [(weight, nn.Parameter(_matrix(weight.data))) for weight in inner]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if pretrained:
            groups.append({"params": list(pretrained), "weight_decay": 0.0, "slow": True})
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
            "muon": torch.optim.Muon(
                [view for _, view in self._views],
                lr=rate,
                weight_decay=decay,
                adjust_lr_fn="match_rms_adamw",
            ),
        }

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes no closure
        """Move the parameters by their gradients, at the rate of `param_groups`."""
        assert closure is None
        for weight, view in self._views:
            view.grad = None if weight.grad is None else _matrix(weight.grad)
        for part in self._parts.values():
            for group in part.param_groups:
                factor = PRETRAINED_RATE if group.get("slow") else 1.0
                group["lr"] = factor * self.param_groups[0]["lr"]
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
