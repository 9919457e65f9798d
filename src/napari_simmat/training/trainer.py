"""Train a checkpoint: loop, step, log, save.

The network that is trained, and the description that its checkpoint gets.

The loss of a batch, through encoder, prompts and decoder.

Training of a modality checkpoint: labelled planes and a foundation in, the best network out.

From a data set to a modality checkpoint's file, with the figures before and after.

The training loop that `simmat train` and `simmat pretrain` share: step, log, save, resume.
"""

from __future__ import annotations

import datetime
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_simmat._text import pluralize
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.evaluation.simulated_prompts import PromptBatch, add_correction
from napari_simmat.models.model import Model
from napari_simmat.models.network import Encoded, Network
from napari_simmat.models.spec import Channel, InputSize, ModelSpec
from napari_simmat.models.tiny_encoder import DensePixels
from napari_simmat.models.transfer import MAT
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import (
    Batch,
    Batches,
    LabelledPlanes,
    PlaneKey,
    as_rgb,
    equal_parts,
)
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.devices import Devices, is_first_process
from napari_simmat.training.losses import (
    dense_targets,
    dice_and_entropy,
    mask_loss,
    size_loss,
    to_mask_grid,
)
from napari_simmat.training.run_folder import BEST_FILE, RunFolder, read_state, settings_in
from napari_simmat.training.validation import compare_with_base_job, validate_network_job

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainableNetwork(NamedTuple):
    """A network to be trained, and what its checkpoint will hold.

    Attributes
    ----------
    spec
        Without metrics.
    network
        What is trained requires a gradient.
    names
        State-dict names of the checkpoint's tensors.
    """

    spec: ModelSpec
    network: Network
    names: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the checkpoint holds all of the network and needs no base."""
        return STRATEGIES[self.spec.strategy].whole

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the checkpoint's tensors as they are now."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    def save(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Write the checkpoint as the network is now."""
        spec = replace(self.spec, metrics=metrics)
        save_checkpoint(path, spec, self.tensors(), bundled=self.whole)


def make_trainable(
    base: Model, dataset: Dataset, config: TrainConfig, name: str
) -> TrainableNetwork:
    """The base with its new transfer layer and strategy, initialised by the seed.

    Raises
    ------
    ValueError
        If the base is not a foundation, or the channels do not suit the transfer layer.
    """
    below = base.spec
    if below.transfer != "zeroshot" or below.strategy != "frozen":
        raise ValueError(
            f"{below.name} is a modality checkpoint, not a foundation; train on its base, "
            f"{below.base.name}."
        )
    channels = 3 if config.transfer == "zeroshot" else len(dataset.channels)
    torch.manual_seed(config.seed)
    network = build_network(below.base.architecture, channels=channels, transfer=config.transfer)
    if not STRATEGIES[config.strategy].whole:
        # Only what the base has: the transfer layer stays new, with what it keeps of the slot.
        own = network.transfer_names()
        weights = base.network.state_dict()
        fits = {n: w for n, w in weights.items() if n not in own or config.transfer == "baseline_b"}
        network.load_state_dict({**network.state_dict(), **fits})
    layer = network.projection
    if config.start == "zeroshot" and isinstance(layer, MAT):
        layer.pass_on(as_rgb(channels), *_as_base_expects(below, dataset))
    tuned = tune(network, config.strategy, config.size)
    network.recompute = config.recompute
    network.to(memory_format=torch.channels_last)
    spec = replace(
        below,
        name=name,
        modality=dataset.modality,
        channels=_channels(below, dataset, config),
        normalization=dataset.normalization,
        input_size=_input_size(below),
        transfer=config.transfer,
        strategy=config.strategy,
        strategy_size=tuned.size,
        mask_choice="single",
        description=describe_training(below, dataset, config, len(dataset.train)),
        training=_json_values(asdict(config)),
        metrics={},
        license="",
        author="",
        date=datetime.date.today().isoformat(),
    )
    return TrainableNetwork(spec, network, tuned.names)


def describe_training(below: ModelSpec, dataset: Dataset, config: TrainConfig, planes: int) -> str:
    """What was trained on how many planes, in a sentence."""
    return (
        f"{dataset.modality}: transfer layer {config.transfer}, {config.strategy} on "
        f"{below.name}, trained on {pluralize(planes, 'labelled plane')} of {dataset.name}."
    )


def _as_base_expects(below: ModelSpec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Scale and shift (3,) from values standardised for the data set to those for the base."""
    taken = as_rgb(len(dataset.channels))
    range_ = below.normalization.scale / dataset.normalization.scale
    ours = [dataset.channels[index] for index in taken]
    pairs = list(zip(ours, below.channels, strict=True))
    scale = torch.tensor([range_ * our.std / base.std for our, base in pairs])
    shift = torch.tensor([(range_ * our.mean - base.mean) / base.std for our, base in pairs])
    return scale, shift


def _channels(below: ModelSpec, dataset: Dataset, config: TrainConfig) -> tuple[Channel, ...]:
    """The data set's; without a transfer layer the base's own, as its weights expect."""
    return below.channels if config.transfer == "zeroshot" else dataset.channels


def _input_size(below: ModelSpec) -> InputSize:
    """SAM's input is stretched, as in the paper; an embedded base sees images as they are."""
    if below.input_size.method == "native":
        return below.input_size
    return InputSize(method="stretch", size=below.input_size.size)


def _json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


MAX_CACHED_FEATURES = 512
"""Images of which a frozen encoder's features are kept, in the computer's memory, not a GPU's;
SAM's take 4 MB each."""
SIZE_LOSS_WEIGHT = 0.1
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
            prompts = add_correction(prompts, logits[:, :1].detach(), target, stride)


class TrainingModule(nn.Module):
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
        self._features: dict[PlaneKey, Encoded] = {}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean IoU of the single mask as ``"iou"``, both scalar.

        The first mask and the one after the batch's correcting clicks are trained; those between
        only lead to the last.
        """
        network = self.network
        device = batch.images.device
        encoded = self._encoded(batch.images, batch.keys)
        masks = torch.from_numpy(batch.masks).to(device)
        target = to_mask_grid(masks, network.mask_stride)
        prompts = PromptBatch(batch.prompts.points.to(device), batch.prompts.labels.to(device))
        loss = encoded.embedding.new_zeros((), dtype=torch.float32)
        if self.auxiliary and "dense" in encoded.maps:
            dense = encoded.maps["dense"]
            targets = dense_targets(batch.labels).to(device)
            loss = loss + SIZE_LOSS_WEIGHT * size_loss(dense, targets).mean()
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
        prior = DensePixels(dense).affinity(clicks).flatten(0, 1)[:, None]
        return mask_loss(prior, target).loss.mean()

    def _encoded(self, images: Tensor, keys: Sequence[PlaneKey | None]) -> Encoded:
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
                if len(self._features) < MAX_CACHED_FEATURES:
                    self._features[key] = features.to(torch.device("cpu"))
            found.append(features.to(images.device))
        joined = replace(
            found[0],
            embedding=torch.cat([each.embedding for each in found]),
            maps={name: torch.cat([each.maps[name] for each in found]) for name in found[0].maps},
        )
        return self.network.with_decoder_maps(joined)


SAVE_INTERVAL = 60.0
"""Seconds between two saved states, apart from those at validations."""
MAX_NONFINITE_STEPS = 25
"""Training stops after so many consecutive steps without a finite gradient."""


@dataclass(frozen=True)
class TrainProgress(Progress):
    """One training step, with the row it added to the log (empty if none; `folder.LOG_COLUMNS`)."""

    figures: Mapping[str, float] = field(default_factory=dict)


class TrainingTask(ABC):
    """What a `Trainer` trains: network and loss, data, schedule, and validation.

    Attributes
    ----------
    module
        Maps a batch to its loss and further scalar figures by name.
    optimizer
        Of the module's trained parameters.
    total
        Optimizer steps in all.
    log_every
        Steps over which the logged figures are averaged.
    max_norm
        Gradients with a larger norm are scaled down to it.
    seed
        Seeds torch's random numbers in each step.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    total: int
    log_every: int
    max_norm: float = math.inf
    seed: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether to end before `total` steps."""
        return False

    @abstractmethod
    def rate(self, step: int) -> float:
        """The learning rate of a step (0, 1, ...)."""

    def parts(self, rank: int, processes: int) -> Sequence[slice]:
        """The parts of each batch that one of several processes computes, one after the other."""
        del rank, processes
        return [slice(None)]

    @abstractmethod
    def batch(self, step: int, part: slice) -> Any:
        """A part of a step's batch, as `module` takes it; depends on nothing but the arguments."""

    def after_step(self, step: int) -> None:
        """Called after each optimizer step."""
        del step

    @abstractmethod
    def log(self, step: int, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write a row with the figures' means over the last `log_every` steps; returns the row."""

    @abstractmethod
    def is_due(self, step: int) -> bool:
        """Whether to validate after so many steps."""

    def is_saved(self, step: int) -> bool:
        """Whether to save the state after so many steps, besides validations and `SAVE_INTERVAL`."""
        del step
        return False

    @abstractmethod
    def validate_job(self, step: int) -> Job[tuple[str, dict[str, float]]]:
        """Validate, and log it; returns a message and the row."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and plain values that `restore` needs, without the optimizer's."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""


class Trainer:
    """Trains a `TrainingTask` step by step, so that a resumed run continues with the same bits.

    Parameters
    ----------
    task
        What is trained.
    fabric
        Launched; computes the steps.
    folder
        Holds the state and the log; None in processes that write nothing.
    settings
        Saved with the state, which is refused if they differ later.

    Attributes
    ----------
    step
        Steps done.
    """

    def __init__(
        self,
        task: TrainingTask,
        fabric: Fabric,
        folder: RunFolder | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.task, self.fabric, self.folder, self.settings = task, fabric, folder, settings
        self.module, self.optimizer = fabric.setup(task.module, task.optimizer)
        self.module.train()
        self.step = 0
        self._stopped, self._lost = False, 0
        self._figures: dict[str, list[float]] = {}
        self._saved = time.monotonic()

    def run_job(self) -> Job[None]:
        """Train to the end: all steps done, the task finished, or a file `stop` in the folder."""
        while not self._has_ended:
            yield self.advance()
            if self.task.is_due(self.step) or self._stopped:
                yield from self.validate_job()

    def advance(self) -> TrainProgress:
        """One optimizer step."""
        task, fabric = self.task, self.fabric
        rate = task.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((task.seed * 1_000_003 + self.step) * 64 + fabric.global_rank)
        self.optimizer.zero_grad(set_to_none=True)
        parts = task.parts(fabric.global_rank, fabric.world_size)
        reached: dict[str, float] = {}
        for number, part in enumerate(parts):
            batch = task.batch(self.step, part)
            with fabric.no_backward_sync(self.module, enabled=number < len(parts) - 1):
                loss, figures = self.module(batch)
                fabric.backward(loss / len(parts))
            for name, value in {"loss": loss.detach(), **figures}.items():
                reached[name] = reached.get(name, 0.0) + float(value) / len(parts)
        gradient = self._follow_gradient()
        task.after_step(self.step)
        self.step += 1
        if fabric.world_size > 1:  # each process has seen a part of the batch
            values = torch.tensor(list(reached.values()), device=fabric.device)
            fabric.all_reduce(values)  # the mean, in place
            reached = dict(zip(reached, values.tolist(), strict=True))
        row = self._log(rate, {**reached, "gradient": gradient})
        self._stopped = self._stop_requested()
        is_old = time.monotonic() - self._saved > SAVE_INTERVAL
        if (is_old or task.is_saved(self.step)) and not task.is_due(self.step):
            self.save()
        message = f"training, loss {reached['loss']:.2f}"
        return TrainProgress(self.step, task.total, message, figures=row)

    def validate_job(self) -> Job[None]:
        """Validate and save the state."""
        message, row = yield from self.task.validate_job(self.step)
        # Before saving: a request to stop during the validation needs no further step or measure.
        self._stopped = self._stop_requested()
        self.save()
        yield TrainProgress(self.step, self.task.total, message, figures=row)

    def save(self) -> None:
        """Write everything that `restore` needs."""
        if self.folder is None:
            return
        state = {
            "step": self.step,
            "lost": self._lost,
            "figures": self._figures,
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            **self.task.state(),
        }
        self.folder.save(state, self.settings)
        # Counted from the end: a large state on a slow disk would be written after every step.
        self._saved = time.monotonic()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `save` wrote."""
        self.task.restore(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self._lost, self._figures = state["step"], state["lost"], state["figures"]

    @property
    def _has_ended(self) -> bool:
        return self.step >= self.task.total or self._stopped or self.task.is_finished

    def _follow_gradient(self) -> float:
        """One optimizer step, unless the gradient is NaN or infinite; returns its norm."""
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.task.max_norm, error_if_nonfinite=False
        )
        assert norm is not None
        is_finite = bool(torch.isfinite(norm))
        # The scaler of 16-mixed leaves such steps out itself, and must see them.
        if is_finite or getattr(self.fabric.strategy.precision, "scaler", None) is not None:
            self.optimizer.step()
        self._lost = 0 if is_finite else self._lost + 1
        if self._lost >= MAX_NONFINITE_STEPS:
            raise ValueError(
                f"The training diverged at step {self.step}: for {MAX_NONFINITE_STEPS} steps there was no "
                "finite gradient. Lower the learning rate."
            )
        return float(norm)

    def _log(self, rate: float, reached: Mapping[str, float]) -> dict[str, float]:
        """Collect a step's figures; write their means every `log_every` steps."""
        for name, value in reached.items():
            self._figures.setdefault(name, []).append(value)
        if self.step % self.task.log_every:
            return {}
        means = {name: sum(values) / len(values) for name, values in self._figures.items()}
        self._figures = {}
        return self.task.log(self.step, rate, means)

    def _stop_requested(self) -> bool:
        """Whether the first process found the file `stop`; all processes get the same answer."""
        found = self.folder is not None and self.folder.asked_to_stop
        return bool(self.fabric.broadcast(found))


ROWS = 200
"""Approximate number of training rows in a run's log."""


@dataclass(frozen=True)
class TrainedModel:
    """The best network of a training.

    Parameters
    ----------
    student
        The network with the best weights, in evaluation mode, and its description.
    spec
        The description; its metrics are the best validation, mean IoU in percent, and its step.
    validation
        The validation samples that hold an object.
    fabric
        Lightning Fabric that trained it.
    """

    student: TrainableNetwork
    spec: ModelSpec
    validation: tuple[Sample, ...]
    fabric: Fabric


def train_job(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    name: str,
    folder: Path,
    devices: Devices | None = None,
) -> Job[TrainedModel]:
    """Train a network for a data set's modality on `base`; returns it at its best validation.

    Parameters
    ----------
    base
        A foundation.
    dataset
        Provides training and validation planes.
    config
        Settings.
    name
        The model's name.
    folder
        Holds the state, from which an interrupted training resumes with the same bits; the best
        checkpoint so far; ``log.csv``; TensorBoard's files. A file called ``stop`` in it ends the
        training early. All nodes have to see it.
    devices
        Where to compute; by default on one device, a GPU if there is one.

    Raises
    ------
    ValueError
        If data, base and settings do not fit together, the folder holds another training, or the
        training diverges.
    OSError
        If the disk is full; what was saved before is kept.
    """
    devices = devices or Devices()
    config = _resolved(config, folder, devices)
    learner = make_trainable(base, dataset, config, name)
    # The heads of the predicted quality and of the other masks are not part of every loss.
    heads = learner.network.mask_decoder.iou_prediction_head.parameters()
    fabric = devices.fabric(config.precision, partly=any(p.requires_grad for p in heads))
    side = config.side_for(base.spec)
    train = LabelledPlanes(dataset, dataset.train, learner.spec, side)
    validation = LabelledPlanes(dataset, dataset.validation, learner.spec, side)
    yield from train.scan_job("train on")
    yield from validation.scan_job("validate on")
    # Planes without an object that is large enough are not trained on.
    words = describe_training(base.spec, dataset, config, len(train))
    learner = learner._replace(spec=replace(learner.spec, description=words))
    run_folder = RunFolder(folder) if is_first_process() else None
    try:
        settings = {**asdict(config), "base": learner.spec.base.sha256}
        settings["data"] = _identity(dataset, train, validation)
        state = read_state(folder, settings, needs=BEST_FILE)
        fabric.launch()
        task = FineTuning(learner, config, train, validation, fabric, run_folder)
        trainer = Trainer(task, fabric, run_folder, settings)
        if state is not None:
            trainer.restore(state)
        if run_folder is not None:
            run_folder.go_on_from(-1 if state is None else trainer.step)
        if state is None:
            yield from trainer.validate_job()
        else:
            yield Progress(trainer.step, task.total, f"going on at step {trainer.step}")
        yield from trainer.run_job()
        fabric.barrier()
        return TrainedModel(learner, _load_best(learner, folder), validation.samples, fabric)
    finally:
        if run_folder is not None:
            run_folder.close()


class FineTuning(TrainingTask):
    """Trains a `TrainableNetwork` on planes of one modality and keeps the best checkpoint.

    Parameters
    ----------
    learner
        The network and its description.
    config
        Settings.
    train, validation
        Planes, after `Planes.scan_job`.
    fabric
        Launched.
    folder
        Gets the best checkpoint and the log; None in processes that write nothing.
    """

    def __init__(
        self,
        learner: TrainableNetwork,
        config: TrainConfig,
        train: LabelledPlanes,
        validation: LabelledPlanes,
        fabric: Fabric,
        folder: RunFolder | None,
    ) -> None:
        trained = [p for p in learner.network.parameters() if p.requires_grad]
        self.module = TrainingModule(learner.network, config.auxiliary)
        self.optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
        self.total, self.seed = config.total(len(train)), config.seed
        self.log_every = max(1, self.total // ROWS)
        self.student, self.config, self.validation = learner, config, validation
        self.fabric, self.folder = fabric, folder
        self.batches = Batches(train, config)
        self.due = config.validations(self.total)
        self.best_iou, self.stale = -1.0, 0

    @property
    def is_finished(self) -> bool:
        """Whether the last validations (`TrainConfig.patience`) brought no improvement."""
        return bool(self.config.patience) and self.stale >= self.config.patience

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.config.rate(step, self.total)

    def parts(self, rank: int, processes: int) -> Sequence[slice]:
        """Each process computes `TrainConfig.accumulate` parts of the batch."""
        return equal_parts(self.config.batch, processes * self.config.accumulate)[rank::processes]

    def batch(self, step: int, part: slice) -> Batch:
        """Images with their prompts, on the device."""
        return self.batches.batch(step, part).to(self.fabric.device)

    def is_due(self, step: int) -> bool:
        """Whether to validate after so many steps."""
        return step in self.due

    def validate_job(self, step: int) -> Job[tuple[str, dict[str, float]]]:
        """Validate; write the checkpoint if it is the best so far."""
        value = 0.0
        if self.folder is not None:
            measured = yield from validate_network_job(
                self.student.network, self.validation, self.batches.side
            )
            value = measured.iou
        value = self.fabric.broadcast(value)
        if value > self.best_iou:
            self.best_iou, self.stale = value, 0
            if self.folder is not None:
                reached = {"validation": {"click": round(100 * value, 2)}, "step": step}
                self.student.save(self.folder.best, reached)
        else:
            self.stale += 1
        return f"validation IoU {100 * value:.1f} %", self._row(step, validation_iou=100 * value)

    def log(self, step: int, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write a row; the mean IoU of the single mask, 0..1, is logged in percent."""
        loss, iou = means["loss"], means["iou"]
        return self._row(step, learning_rate=rate, loss=loss, train_iou=100 * iou)

    def state(self) -> dict[str, Any]:
        """The trained tensors, and how good the best validation was."""
        tensors = self.student.tensors()
        return {"tensors": tensors, "best_iou": self.best_iou, "stale": self.stale}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        network = self.student.network
        network.load_state_dict({**network.state_dict(), **state["tensors"]})
        self.best_iou, self.stale = state["best_iou"], state["stale"]

    def _row(self, step: int, **figures: float) -> dict[str, float]:
        row: dict[str, float] = {
            "step": step,
            "epoch": round(step * self.config.epochs / self.total, 3),
        }
        # NaN and infinity, as in a training that diverges, stay empty.
        row |= {n: float(f"{v:.6g}") for n, v in figures.items() if math.isfinite(v)}
        if self.folder is not None:
            self.folder.log(row)
        return row


def _resolved(config: TrainConfig, folder: Path, devices: Devices) -> TrainConfig:
    """The settings with a definite precision: a resumed training keeps the one it began with."""
    multiple = devices.processes * config.accumulate
    if config.batch % multiple:
        raise ValueError(
            f"A batch of {config.batch} cannot be divided among {devices.processes} devices in "
            f"{config.accumulate} parts each; choose a multiple of {multiple}."
        )
    if config.precision != "auto":
        return config
    begun = settings_in(folder).get("precision")
    return replace(config, precision=begun or devices.precision("auto"))


def _load_best(learner: TrainableNetwork, folder: Path) -> ModelSpec:
    """Load the best checkpoint's weights into the network; returns its description."""
    network, path = learner.network, folder / BEST_FILE
    network.load_state_dict({**network.state_dict(), **read_tensors(path)})
    network.eval()
    return replace(learner.spec, metrics=read_spec(path).metrics)


def _identity(
    dataset: Dataset, train: LabelledPlanes, validation: LabelledPlanes
) -> dict[str, Any]:
    """Tells data sets apart, so that no training resumes on other data."""
    return {
        "channels": [asdict(channel) for channel in dataset.channels],
        "train": [sample.name for sample in dataset.train],
        "validation": [sample.name for sample in dataset.validation],
        "smallest": dataset.smallest,
        "content": [train.digest, validation.digest],
    }


def train_checkpoint_job(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    output: Path,
    folder: Path,
    devices: Devices | None = None,
) -> Job[ModelSpec]:
    """Train a checkpoint (`train_job`) and write the best one to `output`; returns its description.

    Its metrics are mean IoU in percent on the validation planes: the best validation, and a click
    and a box, ``before`` with the base alone and ``after``.

    Raises
    ------
    ValueError, OSError
        See `train_job`. The best checkpoint so far stays in `folder`.
    """
    trained = yield from train_job(base, dataset, config, output.stem, folder, devices)
    spec, student, fabric = trained.spec, trained.student, trained.fabric
    if fabric.is_global_zero:
        compared = yield from compare_with_base_job(
            base, spec, student.network, dataset, trained.validation, str(fabric.device)
        )
        spec = replace(spec, metrics={**spec.metrics, **compared})
        student.save(output, spec.metrics)
    fabric.barrier()
    return spec
