"""Train a modality checkpoint: labeled planes and a foundation in, the best network out.

The network is validated while it trains, and compared with its base afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_simmat._text import pluralize
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.engine.device import choose_device, tf32_job
from napari_simmat.models.spec import Model, ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import Batch, Batches, equal_parts
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.decoder_along import train_decoder_job
from napari_simmat.training.devices import Devices, is_first_process
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.losses import TrainingModule
from napari_simmat.training.prefetch import Prefetch
from napari_simmat.training.run_folder import BEST_FILE, RunFolder, read_state, settings_in
from napari_simmat.training.trainable import TrainableNetwork, make_trainable
from napari_simmat.training.trainer import Trainer
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
    click and a box, ``before`` with the base alone and ``after``; of a base with `tiny`'s decoder
    of all objects also F1 in percent of ``everything`` by the base's decoder and by that which was
    trained along (`train_decoder_job`).

    Raises
    ------
    ValueError, OSError
        See `train_job`. The best checkpoint so far stays in `folder`.
    """
    trained = yield from train_job(base, dataset, config, output.stem, folder, devices)
    spec, student, fabric = trained.spec, trained.student, trained.fabric
    if fabric.is_global_zero:
        compared, calibration = yield from compare_with_base_job(
            base, spec, student.network, dataset, trained.validation, str(fabric.device)
        )
        if config.auxiliary:  # the prediction was trained along, and is no worse as it is
            calibration = None
        decoder, found = yield from train_decoder_job(base, student, dataset, config, fabric.device)
        compared |= found
        metrics = {**spec.metrics, **compared}
        spec = replace(spec, metrics=metrics, iou_calibration=calibration)
        student._replace(spec=spec).save(output, metrics, decoder)
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
        checkpoint so far; ``log.csv``. A file called ``stop`` in it ends the training early. All
        nodes have to see it.
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
    job = _train_job(base, dataset, config, name, folder, devices)
    return (yield from tf32_job(job, choose_device(devices.device), config.tf32))


def _train_job(
    base: Model, dataset: Dataset, config: TrainConfig, name: str, folder: Path, devices: Devices
) -> Job[TrainedModel]:
    config = _resolved(config, folder, devices)
    learner = make_trainable(base, dataset, config, name)
    # The heads of the predicted quality and of the other masks are not part of every loss.
    heads = learner.network.mask_decoder.iou_prediction_head.parameters()
    fabric = devices.fabric(config.precision, partly=any(p.requires_grad for p in heads))
    side = config.side_for(base.spec)
    seen = (learner.spec, side, config.as_published)
    train = LabeledPlanes(dataset, dataset.train, *seen)
    validation = LabeledPlanes(dataset, dataset.validation, *seen)
    yield from train.scan_job("train on")
    yield from validation.scan_job("validate on")
    words = (
        f"{dataset.modality}: transfer layer {config.transfer}, {config.strategy} on "
        f"{base.spec.name}, trained on {pluralize(len(train), 'labeled plane')} of {dataset.name}."
    )
    learner = learner._replace(spec=replace(learner.spec, description=words))
    run_folder = RunFolder(folder) if is_first_process() else None
    total = config.total(len(train))
    batches = Prefetch(Batches(train, config).batch, total, devices.readers)
    try:
        settings = {**asdict(config), "base": learner.spec.base.sha256}
        del settings["complete"]  # concerns what is trained afterwards
        settings["data"] = {  # tells data sets apart
            "channels": [asdict(channel) for channel in dataset.channels],
            "train": [sample.name for sample in dataset.train],
            "validation": [sample.name for sample in dataset.validation],
            "min_size": dataset.min_size,
            "content": [train.digest, validation.digest],
        }
        state = read_state(folder, settings, needs=BEST_FILE)
        fabric.launch()
        tuning = FineTuning(learner, config, total, validation)
        trainer = tuning.trainer(batches, fabric, run_folder, settings)
        if state is not None:
            trainer.restore(state)
        if run_folder is not None:
            run_folder.resume_from(-1 if state is None else trainer.step)
        if state is None:
            yield from trainer.measure_job()
        else:
            yield Progress(trainer.step, trainer.total, f"resuming at step {trainer.step}")
        yield from trainer.run_job()
        fabric.barrier()
        learner.load(read_tensors(folder / BEST_FILE))
        learner.network.eval()
        spec = replace(learner.spec, metrics=read_spec(folder / BEST_FILE).metrics)
        return TrainedModel(learner, spec, validation.samples, fabric)
    finally:
        batches.close()
        if run_folder is not None:
            run_folder.close()


class FineTuning:
    """What fine-tuning keeps beside the weights: how good the best validation was.

    Parameters
    ----------
    student
        Its best state is written to the run's folder.
    config, total
        Settings; optimizer steps in all.
    validation
        Planes, after `LabeledPlanes.scan_job`.
    """

    def __init__(
        self, student: TrainableNetwork, config: TrainConfig, total: int, validation: LabeledPlanes
    ) -> None:
        self.student, self.config, self.total, self.validation = student, config, total, validation
        self.best_iou = -1.0
        self.stale = 0

    def trainer(
        self,
        batches: Callable[[int, slice], Batch],
        fabric: Fabric,
        folder: RunFolder | None,
        settings: Mapping[str, Any],
    ) -> Trainer:
        """A trainer on a launched `fabric`; the folder is None in processes that write nothing."""
        config, total = self.config, self.total
        trained = [p for p in self.student.network.parameters() if p.requires_grad]
        count = fabric.world_size * config.accumulate
        return Trainer(
            module=TrainingModule(
                self.student.network, config.auxiliary, config.smoothing, self.validation.cell_pixel
            ),
            optimizer=torch.optim.Adam(trained, lr=config.learning_rate),
            fabric=fabric,
            folder=folder,
            settings=settings,
            total=total,
            seed=config.seed,
            rate=lambda step: config.rate(step, total),
            batch=lambda step, part: batches(step, part).to(fabric.device),
            parts=equal_parts(config.batch, count)[fabric.global_rank :: fabric.world_size],
            state=self.state,
            load=self.load,
            log=self.log,
            log_every=max(1, total // ROWS),
            validate_job=self.validate_job,
            due=config.validations(total),
            # The last validations brought no improvement.
            is_finished=lambda: bool(config.patience) and self.stale >= config.patience,
        )

    def validate_job(self, trainer: Trainer) -> Job[tuple[str, dict[str, float]]]:
        """Validate; write the checkpoint if it is the best so far."""
        value, folder = 0.0, trainer.folder
        if folder is not None:
            planes = self.validation
            count = self.config.validation_objects
            measured = yield from validate_network_job(
                self.student.network, planes, planes.side, count
            )
            value = measured.iou
        value = trainer.fabric.broadcast(value)
        if value > self.best_iou:
            self.best_iou = value
            self.stale = 0
            if folder is not None:
                reached = {"validation": {"click": round(100 * value, 2)}, "step": trainer.step}
                self.student.save(folder.path / BEST_FILE, reached)
        else:
            self.stale += 1
        return f"validation IoU {100 * value:.1f} %", self._row(trainer, validation_iou=100 * value)

    def log(self, trainer: Trainer, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write a row; the mean IoU of the single mask, 0..1, is logged in percent."""
        figures = {"learning_rate": rate, "loss": means["loss"], "train_iou": 100 * means["iou"]}
        return self._row(trainer, **figures)

    def state(self) -> dict[str, Any]:
        """The trained tensors, and how good the best validation was."""
        tensors = self.student.tensors()
        return {"tensors": tensors, "best_iou": self.best_iou, "stale": self.stale}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.student.load(state["tensors"])
        self.best_iou, self.stale = state["best_iou"], state["stale"]

    def _row(self, trainer: Trainer, **figures: float) -> dict[str, float]:
        epoch = round(trainer.step * self.config.epochs / self.total, 3)
        row: dict[str, float] = {"step": trainer.step, "epoch": epoch}
        # NaN and infinity, as in a run that diverges, stay empty.
        row |= {n: float(f"{v:.6g}") for n, v in figures.items() if math.isfinite(v)}
        if trainer.folder is not None:
            trainer.folder.log(row)
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
