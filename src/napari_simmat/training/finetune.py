"""Train a modality checkpoint: labeled planes and a foundation in, the best network out."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from napari_simmat._text import pluralize
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Channel, InputSize, Model, ModelSpec
from napari_simmat.models.transfer import MAT
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import (
    Batch,
    Batches,
    LabeledPlanes,
    as_rgb,
    equal_parts,
)
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.devices import Devices, is_first_process
from napari_simmat.training.losses import TrainingModule
from napari_simmat.training.run_folder import BEST_FILE, RunFolder, read_state, settings_in
from napari_simmat.training.trainer import Trainer, TrainingTask
from napari_simmat.training.validation import compare_with_base_job, validate_network_job

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ROWS = 200
"""Approximate number of training rows in a run's log."""


@dataclass(frozen=True)
class TrainedModel:
    """The best network of a training run, in evaluation mode.

    The metrics of `spec` are the best validation, mean IoU in percent, and its step; `validation`
    are the validation samples that hold an object.
    """

    student: TrainableNetwork
    spec: ModelSpec
    validation: tuple[Sample, ...]
    fabric: Fabric


def train_checkpoint_job(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    output: Path,
    folder: Path,
    devices: Devices | None = None,
) -> Job[ModelSpec]:
    """Train a checkpoint (`train_job`) and write the best one to `output`; returns its description.

    The metrics are mean IoU in percent on the validation planes: of the best validation, and of a
    click and a box, ``before`` with the base alone and ``after``.

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
    train = LabeledPlanes(dataset, dataset.train, learner.spec, side)
    validation = LabeledPlanes(dataset, dataset.validation, learner.spec, side)
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
        task = FineTuningTask(learner, config, train, validation, fabric, run_folder)
        trainer = Trainer(task, fabric, run_folder, settings)
        if state is not None:
            trainer.restore(state)
        if run_folder is not None:
            run_folder.resume_from(-1 if state is None else trainer.step)
        if state is None:
            yield from trainer.validate_job()
        else:
            yield Progress(trainer.step, task.total, f"resuming at step {trainer.step}")
        yield from trainer.run_job()
        fabric.barrier()
        return TrainedModel(learner, _load_best(learner, folder), validation.samples, fabric)
    finally:
        if run_folder is not None:
            run_folder.close()


class FineTuningTask(TrainingTask):
    """Trains a network on planes of one modality, after `LabeledPlanes.scan_job`.

    The `folder` gets the best checkpoint and the log; it is None in processes that write nothing.
    """

    def __init__(
        self,
        learner: TrainableNetwork,
        config: TrainConfig,
        train: LabeledPlanes,
        validation: LabeledPlanes,
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
        # NaN and infinity, as in a run that diverges, stay empty.
        row |= {n: float(f"{v:.6g}") for n, v in figures.items() if math.isfinite(v)}
        if self.folder is not None:
            self.folder.log(row)
        return row


class TrainableNetwork(NamedTuple):
    """A network, whose trained parameters require a gradient, and the content of its checkpoint.

    Attributes
    ----------
    spec
        Description without metrics.
    network
        The network.
    names
        State-dict names of the checkpoint's tensors.
    """

    spec: ModelSpec
    network: Network
    names: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the checkpoint holds the whole network and needs no base."""
        return STRATEGIES[self.spec.strategy].whole

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the checkpoint's current tensors."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    def save(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Write the network's current state as a checkpoint."""
        spec = replace(self.spec, metrics=metrics)
        save_checkpoint(path, spec, self.tensors(), bundled=self.whole)


def make_trainable(
    base: Model, dataset: Dataset, config: TrainConfig, name: str
) -> TrainableNetwork:
    """The base with a new transfer layer and strategy, initialized by the seed.

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
        # The transfer layer stays new, except for what baseline B copies from the base.
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
    """A sentence about what was trained on how many planes."""
    return (
        f"{dataset.modality}: transfer layer {config.transfer}, {config.strategy} on "
        f"{below.name}, trained on {pluralize(planes, 'labeled plane')} of {dataset.name}."
    )


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


def _identity(dataset: Dataset, train: LabeledPlanes, validation: LabeledPlanes) -> dict[str, Any]:
    """Tells data sets apart, so that no training resumes on other data."""
    return {
        "channels": [asdict(channel) for channel in dataset.channels],
        "train": [sample.name for sample in dataset.train],
        "validation": [sample.name for sample in dataset.validation],
        "smallest": dataset.smallest,
        "content": [train.digest, validation.digest],
    }


def _as_base_expects(below: ModelSpec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Scale and shift (3,) from values standardized for the data set to those for the base."""
    taken = as_rgb(len(dataset.channels))
    range_ = below.normalization.scale / dataset.normalization.scale
    ours = [dataset.channels[index] for index in taken]
    pairs = list(zip(ours, below.channels, strict=True))
    scale = torch.tensor([range_ * our.std / base.std for our, base in pairs])
    shift = torch.tensor([(range_ * our.mean - base.mean) / base.std for our, base in pairs])
    return scale, shift


def _channels(below: ModelSpec, dataset: Dataset, config: TrainConfig) -> tuple[Channel, ...]:
    """The data set's; without a transfer layer the base's, as its weights expect."""
    return below.channels if config.transfer == "zeroshot" else dataset.channels


def _input_size(below: ModelSpec) -> InputSize:
    """SAM's input is stretched, as in the paper; an embedded base takes images at their size."""
    if below.input_size.method == "native":
        return below.input_size
    return InputSize(method="stretch", size=below.input_size.size)


def _json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
