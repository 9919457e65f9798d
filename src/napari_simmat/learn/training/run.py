"""The state of a training and its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from napari_simmat.engine.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.batches import Batches, parts
from napari_simmat.learn.training.describing import Student, description, student
from napari_simmat.learn.training.devices import Devices, is_first_process
from napari_simmat.learn.training.folder import BEST, RunFolder, read_state, settings_in
from napari_simmat.learn.training.journal import Journal
from napari_simmat.learn.training.learner import Learner
from napari_simmat.learn.training.planes import Planes
from napari_simmat.learn.training.validating import validating
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress

SAVED_EVERY = 60.0
"""Seconds between two savings, beside those at validations."""
DIVERGED = 25
"""Steps in a row without a finite gradient after which the training gives up."""


@dataclass(frozen=True)
class TrainProgress(Progress):
    """A step of a training, with the figures that were logged, if any (`folder.COLUMNS`)."""

    figures: Mapping[str, float] = field(default_factory=dict)


class Run:
    """One training, step by step; its arguments are those of `training`.

    Attributes
    ----------
    fabric
        With which it computes; launched by `starting`.
    validation
        Its planes to validate on.
    """

    def __init__(
        self,
        base: Model,
        dataset: Dataset,
        config: TrainConfig,
        name: str,
        folder: Path,
        devices: Devices,
    ) -> None:
        if config.batch % (devices.processes * config.accumulate):
            raise ValueError(
                f"A batch of {config.batch} cannot be divided among {devices.processes} devices in "
                f"{config.accumulate} parts each; choose a multiple of "
                f"{devices.processes * config.accumulate}."
            )
        if config.precision == "auto":  # one that goes on computes as it began
            begun = settings_in(folder).get("precision")
            config = replace(config, precision=begun or devices.precision("auto"))
        self._base, self._config, self._dataset = base.spec, config, dataset
        self._student: Student = student(base, dataset, config, name)
        # The heads of the predicted quality and of the other masks are not part of every loss.
        heads = self._student.network.mask_decoder.iou_prediction_head.parameters()
        partly = any(parameter.requires_grad for parameter in heads)
        self.fabric = devices.fabric(config.precision, partly=partly)
        self._side = config.side_for(base.spec)
        spec = self._student.spec
        self._train = Planes(dataset, dataset.train, spec, self._side)
        self.validation = Planes(dataset, dataset.validation, spec, self._side)
        self._batches = Batches(self._train, config, self._side, self._train.native)
        self._path = folder
        self._folder: RunFolder | None = None
        self._step, self._best_iou, self._stale = 0, -1.0, 0
        self._stopped, self._lost = False, 0
        self._saved = time.monotonic()

    def reading(self) -> Job[None]:
        """Look at the data, and at what the folder holds; before other processes are launched."""
        yield from self._train.finding("train on")
        yield from self.validation.finding("validate on")
        # Planes without an object that is large enough are not trained on.
        told = description(self._base, self._dataset, self._config, len(self._train))
        spec = replace(self._student.spec, description=told)
        self._student = self._student._replace(spec=spec)
        if is_first_process():
            self._folder = RunFolder(self._path)
        self._settings = {**asdict(self._config), "base": self._student.spec.base.sha256}
        self._settings["data"] = _named(self._dataset, self._train, self.validation)
        self._state = read_state(self._path, self._settings)
        self._total = self._config.total(len(self._train))
        self._due = self._config.validations(self._total)
        self._journal = Journal(self._folder, self._total, self._config.epochs)

    def starting(self) -> Job[None]:
        """Launch all processes, put the network in place, and go on from what the folder held."""
        self.fabric.launch()
        network = self._student.network
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self._config.learning_rate)
        learner = Learner(network, self._config.auxiliary)
        self._learner, self._optimizer = self.fabric.setup(learner, optimizer)
        self._learner.train()
        state, self._state = self._state, None
        if state is not None:
            self._restore(state)
        if self._folder is not None:
            self._folder.go_on_from(-1 if state is None else self._step)
        if state is None:
            yield from self.validating()
        else:
            yield Progress(self._step, self._total, f"going on at step {self._step}")

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or someone asked to stop, or it gets no better."""
        patience = self._config.patience
        tired = bool(patience) and self._stale >= patience
        return self._step >= self._total or self._stopped or tired

    @property
    def is_due(self) -> bool:
        """Whether the network is to be validated at this step."""
        return self._step in self._due or self._stopped

    def advance(self) -> TrainProgress:
        """One step of the optimiser."""
        config, fabric = self._config, self.fabric
        rate = config.rate(self._step, self._total)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((config.seed * 1_000_003 + self._step) * 64 + fabric.global_rank)
        self._optimizer.zero_grad(set_to_none=True)
        own = parts(config.batch, fabric.world_size * config.accumulate)
        own = own[fabric.global_rank :: fabric.world_size]
        loss, reached = 0.0, 0.0
        for number, part in enumerate(own):
            batch = self._batches.batch(self._step, part).to(fabric.device)
            with fabric.no_backward_sync(self._learner, enabled=number < len(own) - 1):
                part_loss, part_iou = self._learner(batch)
                fabric.backward(part_loss / len(own))
            loss += part_loss.item() / len(own)
            reached += part_iou.item() / len(own)
        self._follow_gradient()
        self._step += 1
        if fabric.world_size > 1:  # each has seen a part of the step
            figures = torch.tensor([loss, reached], device=fabric.device)
            fabric.all_reduce(figures)  # the mean, in place
            loss, reached = figures.tolist()
        row = self._journal.trained(self._step, rate, loss, reached)
        self._stopped = self._asked_to_stop()
        if time.monotonic() - self._saved > SAVED_EVERY and self._step not in self._due:
            self._save()
        return TrainProgress(self._step, self._total, f"training, loss {loss:.2f}", figures=row)

    def validating(self) -> Job[None]:
        """Measure; keep the network where it is the best so far; save the state."""
        value = 0.0
        if self._folder is not None:
            measured = yield from validating(self._student.network, self.validation, self._side)
            value = measured.iou
        value = self.fabric.broadcast(value)
        if value > self._best_iou:
            self._best_iou, self._stale = value, 0
            if self._folder is not None:
                reached = {"validation": {"click": round(100 * value, 2)}, "step": self._step}
                save_checkpoint(
                    self._folder.best,
                    replace(self._student.spec, metrics=reached),
                    self._student.tensors(),
                    bundled=self._student.whole,
                )
        else:
            self._stale += 1
        row = self._journal.validated(self._step, value)
        self._stopped = self._asked_to_stop()  # meanwhile: what is kept has been measured already
        self._save()
        said = f"validation IoU {100 * value:.1f} %"
        yield TrainProgress(self._step, self._total, said, figures=row)

    def best(self) -> tuple[Student, ModelSpec]:
        """The network as it was when validation was best, and its description."""
        self.fabric.barrier()
        network, path = self._student.network, self._path / BEST
        network.load_state_dict({**network.state_dict(), **read_tensors(path)})
        network.eval()
        return self._student, replace(self._student.spec, metrics=read_spec(path).metrics)

    def close(self) -> None:
        """Give back what is open."""
        if self._folder is not None:
            self._folder.close()

    def _asked_to_stop(self) -> bool:
        """Whether somebody asked the first process to; all get its answer."""
        asked = self._folder is not None and self._folder.asked_to_stop
        return bool(self.fabric.broadcast(asked))

    def _follow_gradient(self) -> None:
        """A step of the optimiser, unless the gradient is NaN or infinite."""
        scaled = self._config.precision == "16-mixed"  # its scaler leaves such steps out itself
        size = self.fabric.clip_gradients(
            self._learner, self._optimizer, max_norm=math.inf, error_if_nonfinite=False
        )
        assert size is not None
        finite = bool(torch.isfinite(size))
        if finite or scaled:
            self._optimizer.step()
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= DIVERGED:
            raise ValueError(
                f"The training diverged at step {self._step}: for {DIVERGED} steps there was no "
                "finite gradient. Lower the learning rate."
            )

    def _save(self) -> None:
        if self._folder is None:
            return
        state = {
            "step": self._step,
            "stale": self._stale,
            "lost": self._lost,
            "best_iou": self._best_iou,
            "losses": self._journal.losses,
            "ious": self._journal.ious,
            "tensors": self._student.tensors(),
            "optimizer": self._optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        self._folder.save(state, self._settings)
        # From its end on: a large state on a slow disk would otherwise be written after each step.
        self._saved = time.monotonic()

    def _restore(self, state: Mapping[str, Any]) -> None:
        network = self._student.network
        network.load_state_dict({**network.state_dict(), **state["tensors"]})
        self._optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self._step, self._stale, self._lost = state["step"], state["stale"], state["lost"]
        self._best_iou = state["best_iou"]
        self._journal.losses, self._journal.ious = state["losses"], state["ious"]


def _named(dataset: Dataset, train: Planes, validation: Planes) -> dict[str, Any]:
    """What tells a data set apart, so that no training goes on with another."""
    return {
        "channels": [asdict(channel) for channel in dataset.channels],
        "train": [sample.name for sample in dataset.train],
        "validation": [sample.name for sample in dataset.validation],
        "smallest": dataset.smallest,
        "content": [train.digest, validation.digest],
    }
