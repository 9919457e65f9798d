"""Training of a modality checkpoint: one loop, seeded, resumable, on Lightning Fabric."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_

from napari_simmat.engine.checkpoint import read_tensors, save_checkpoint
from napari_simmat.engine.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.batches import Batches, parts
from napari_simmat.learn.training.describing import Student, student
from napari_simmat.learn.training.devices import Devices
from napari_simmat.learn.training.folder import RunFolder
from napari_simmat.learn.training.learner import Learner
from napari_simmat.learn.training.planes import Planes
from napari_simmat.learn.training.validating import validating
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

SAVED_EVERY = 60.0
"""Seconds between two savings, beside those at validations."""
LOGGED = 200
"""Rows of the log in all, about."""
DIVERGED = 25
"""Steps in a row without a finite gradient after which the training gives up."""


@dataclass(frozen=True)
class TrainProgress(Progress):
    """A step of a training, with the figures that were logged, if any (`folder.COLUMNS`)."""

    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The best network of a training.

    Parameters
    ----------
    student
        The network with the best weights, in evaluation mode, and what its checkpoint holds.
    spec
        The description; its metrics are the best validation, mean IoU in percent.
    step
        After which it was best.
    fabric
        What it was trained with.
    """

    student: Student
    spec: ModelSpec
    step: int
    fabric: Fabric


def training(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    name: str,
    folder: Path,
    devices: Devices | None = None,
) -> Job[Trained]:
    """Train a network for a data set's modality on `base`; returns it as it was best.

    Parameters
    ----------
    base
        A foundation.
    dataset
        To train and validate on.
    config
        How.
    name
        The model's.
    folder
        Holds the state, from which a training that was interrupted goes on with the same bits;
        the best checkpoint so far; ``log.csv``; TensorBoard's files. A file called ``stop`` in it
        ends the training early.
    devices
        Where; by default on one device, a GPU where there is one.

    Raises
    ------
    ValueError
        If data, base and settings do not fit together, or the training diverges.
    OSError
        If the disk is full; what was saved before is kept.
    """
    fabric = (devices or Devices()).fabric(config.precision)
    fabric.launch()
    run = _Run(fabric, base, dataset, config, name, folder)
    try:
        yield from run.preparing()
        while not run.ended:
            yield run.advance()
            if run.is_due:
                yield from run.validating()
        return run.best()
    finally:
        run.close()


class _Run:
    """The state of a training and its steps."""

    def __init__(
        self,
        fabric: Fabric,
        base: Model,
        dataset: Dataset,
        config: TrainConfig,
        name: str,
        folder: Path,
    ) -> None:
        if config.batch % (fabric.world_size * config.accumulate):
            raise ValueError(
                f"A batch of {config.batch} cannot be divided among {fabric.world_size} devices in "
                f"{config.accumulate} parts each; choose a multiple of "
                f"{fabric.world_size * config.accumulate}."
            )
        self.fabric, self.config = fabric, config
        self.student: Student = student(base, dataset, config, name)
        self.side = config.side_for(base.spec)
        spec = self.student.spec
        self.train = Planes(dataset, dataset.train, spec, self.side)
        self.validation = Planes(dataset, dataset.validation, spec, self.side)
        self.batches = Batches(self.train, config, self.side, self.train.native)
        settings = {**asdict(config), "base": base.spec.base.sha256, "data": _said(dataset)}
        self.folder = RunFolder(folder, settings)
        self.step = self.total = 0
        self.best_iou, self.best_step, self.stale = -1.0, 0, 0
        self._losses: list[float] = []
        self._ious: list[float] = []
        self._stopped, self._lost = False, 0
        self._saved = time.monotonic()

    def preparing(self) -> Job[None]:
        """Look at the data, put the network in place, and go on from what the folder holds."""
        yield from self.train.finding("train on")
        yield from self.validation.finding("validate on")
        self.total = self.config.total(len(self.train))
        self._due = self.config.validations(self.total)
        network = self.student.network
        self._trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(self._trained, lr=self.config.learning_rate)
        learner = Learner(network, self.config.auxiliary)
        self.learner, self.optimizer = self.fabric.setup(learner, optimizer)
        self.learner.train()
        state = self.folder.restore()
        if state is None:
            yield from self.validating()
            return
        network.load_state_dict({**network.state_dict(), **state["tensors"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.stale = state["step"], state["stale"]
        self.best_iou, self.best_step = state["best_iou"], state["best_step"]
        self._losses, self._ious = list(state["losses"]), list(state["ious"])
        if self.fabric.is_global_zero:
            self.folder.forget_after(self.step)
        yield Progress(self.step, self.total, f"going on at step {self.step}")

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or someone asked to stop, or it gets no better."""
        patience = self.config.patience
        return self.step >= self.total or self._stopped or bool(patience and self.stale >= patience)

    @property
    def is_due(self) -> bool:
        """Whether the network is to be validated at this step."""
        return self.step in self._due or self._stopped

    def advance(self) -> TrainProgress:
        """One step of the optimiser."""
        config, fabric = self.config, self.fabric
        rate = config.rate(self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((config.seed * 1_000_003 + self.step) * 64 + fabric.global_rank)
        self.optimizer.zero_grad(set_to_none=True)
        own = parts(config.batch, fabric.world_size * config.accumulate)
        own = own[fabric.global_rank :: fabric.world_size]
        loss, reached = 0.0, 0.0
        for number, part in enumerate(own):
            batch = self.batches.batch(self.step, part)
            images = batch.images.to(fabric.device)
            with fabric.no_backward_sync(self.learner, enabled=number < len(own) - 1):
                part_loss, part_iou = self.learner(batch._replace(images=images))
                fabric.backward(part_loss / len(own))
            loss += part_loss.item() / len(own)
            reached += part_iou.item() / len(own)
        if config.precision == "16-mixed":  # its scaler leaves out what overflows
            self.optimizer.step()
        elif torch.isfinite(clip_grad_norm_(self._trained, math.inf)):
            self.optimizer.step()
            self._lost = 0
        else:
            self._lost += 1
            if self._lost >= DIVERGED:
                raise ValueError(
                    f"The training diverged at step {self.step}: for {DIVERGED} steps there was no "
                    "finite gradient. Lower the learning rate."
                )
        self.step += 1
        self._stopped = fabric.broadcast(self.folder.asked_to_stop)
        return self._said(loss, reached, rate)

    def validating(self) -> Job[None]:
        """Measure; keep the network where it is the best so far; save the state."""
        fabric, network = self.fabric, self.student.network
        value = 0.0
        if fabric.is_global_zero:
            reached = yield from validating(network, self.validation, self.side)
            value = reached.iou
        value = fabric.broadcast(value)
        if value > self.best_iou:
            self.best_iou, self.best_step, self.stale = value, self.step, 0
            if fabric.is_global_zero:
                tensors, whole = self.student.tensors(), self.student.whole
                save_checkpoint(self.folder.best, self._described(), tensors, bundled=whole)
        else:
            self.stale += 1
        row = self._row(validation_iou=100 * value)
        self._save()
        yield TrainProgress(
            self.step, self.total, f"validation IoU {100 * value:.1f} %", figures=row
        )

    def best(self) -> Trained:
        """The network as it was when validation was best."""
        self.fabric.barrier()
        network = self.student.network
        tensors = read_tensors(self.folder.best)
        network.load_state_dict({**network.state_dict(), **tensors})
        network.eval()
        return Trained(self.student, self._described(), self.best_step, self.fabric)

    def close(self) -> None:
        """Give back what is open."""
        self.folder.close()

    def _described(self) -> ModelSpec:
        best = {"click": round(100 * self.best_iou, 2), "step": self.best_step}
        return replace(self.student.spec, metrics={"validation": best})

    def _said(self, loss: float, reached: float, rate: float) -> TrainProgress:
        """Log once in a while, save once in a while."""
        self._losses.append(loss)
        self._ious.append(reached)
        row: Mapping[str, float] = {}
        if self.step % max(1, self.total // LOGGED) == 0:
            count = len(self._losses)
            row = self._row(
                learning_rate=rate,
                loss=sum(self._losses) / count,
                train_iou=100 * sum(self._ious) / count,
            )
            self._losses, self._ious = [], []
        if time.monotonic() - self._saved > SAVED_EVERY and self.step not in self._due:
            self._save()
        return TrainProgress(self.step, self.total, f"training, loss {loss:.2f}", figures=row)

    def _row(self, **figures: float) -> dict[str, float]:
        epoch = self.step * self.config.epochs / self.total
        row = {"step": self.step, "epoch": round(epoch, 3)}
        row |= {name: float(f"{value:.6g}") for name, value in figures.items()}
        if self.fabric.is_global_zero:
            self.folder.log(row)
        return row

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        self.folder.save(
            {
                "step": self.step,
                "stale": self.stale,
                "best_iou": self.best_iou,
                "best_step": self.best_step,
                "losses": self._losses,
                "ious": self._ious,
                "tensors": self.student.tensors(),
                "optimizer": self.optimizer.state_dict(),
            }
        )


def _said(dataset: Dataset) -> dict[str, Any]:
    """What names a data set in the state, so that no training goes on with another."""
    return {
        "name": dataset.name,
        "channels": [asdict(channel) for channel in dataset.channels],
        "train": [sample.name for sample in dataset.train],
        "validation": [sample.name for sample in dataset.validation],
        "smallest": dataset.smallest,
    }
