"""Training of a modality checkpoint: labelled planes and a foundation in, the best network out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_simmat.engine.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset, Sample
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.batches import Batch, Batches, parts
from napari_simmat.learn.training.describing import Student, description, student
from napari_simmat.learn.training.devices import Devices, is_first_process
from napari_simmat.learn.training.folder import BEST, RunFolder, read_state, settings_in
from napari_simmat.learn.training.learner import Learner
from napari_simmat.learn.training.planes import Planes
from napari_simmat.learn.training.run import Task, Trainer
from napari_simmat.learn.training.validating import validating
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ROWS = 200
"""Approximate number of training rows in a run's log."""


@dataclass(frozen=True)
class Trained:
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

    student: Student
    spec: ModelSpec
    validation: tuple[Sample, ...]
    fabric: Fabric


def training(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    name: str,
    folder: Path,
    devices: Devices | None = None,
) -> Job[Trained]:
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
    learner = student(base, dataset, config, name)
    # The heads of the predicted quality and of the other masks are not part of every loss.
    heads = learner.network.mask_decoder.iou_prediction_head.parameters()
    fabric = devices.fabric(config.precision, partly=any(p.requires_grad for p in heads))
    side = config.side_for(base.spec)
    train = Planes(dataset, dataset.train, learner.spec, side)
    validation = Planes(dataset, dataset.validation, learner.spec, side)
    yield from train.finding("train on")
    yield from validation.finding("validate on")
    # Planes without an object that is large enough are not trained on.
    words = description(base.spec, dataset, config, len(train))
    learner = learner._replace(spec=replace(learner.spec, description=words))
    run_folder = RunFolder(folder) if is_first_process() else None
    try:
        settings = {**asdict(config), "base": learner.spec.base.sha256}
        settings["data"] = _identity(dataset, train, validation)
        state = read_state(folder, settings, needs=BEST)
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
        return Trained(learner, _load_best(learner, folder), validation.samples, fabric)
    finally:
        if run_folder is not None:
            run_folder.close()


class FineTuning(Task):
    """Trains a `Student` on planes of one modality and keeps the best checkpoint.

    Parameters
    ----------
    learner
        The network and its description.
    config
        Settings.
    train, validation
        Planes, after `Planes.finding`.
    fabric
        Launched.
    folder
        Gets the best checkpoint and the log; None in processes that write nothing.
    """

    def __init__(
        self,
        learner: Student,
        config: TrainConfig,
        train: Planes,
        validation: Planes,
        fabric: Fabric,
        folder: RunFolder | None,
    ) -> None:
        trained = [p for p in learner.network.parameters() if p.requires_grad]
        self.module = Learner(learner.network, config.auxiliary)
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
        return parts(self.config.batch, processes * self.config.accumulate)[rank::processes]

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
            measured = yield from validating(
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


def _load_best(learner: Student, folder: Path) -> ModelSpec:
    """Load the best checkpoint's weights into the network; returns its description."""
    network, path = learner.network, folder / BEST
    network.load_state_dict({**network.state_dict(), **read_tensors(path)})
    network.eval()
    return replace(learner.spec, metrics=read_spec(path).metrics)


def _identity(dataset: Dataset, train: Planes, validation: Planes) -> dict[str, Any]:
    """Tells data sets apart, so that no training resumes on other data."""
    return {
        "channels": [asdict(channel) for channel in dataset.channels],
        "train": [sample.name for sample in dataset.train],
        "validation": [sample.name for sample in dataset.validation],
        "smallest": dataset.smallest,
        "content": [train.digest, validation.digest],
    }
