"""The training loop that `simmat train` and `simmat pretrain` share: step, log, save, resume."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_simmat.progress import Job, Progress
from napari_simmat.training.run_folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

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
        """Whether to save after so many steps, besides validations and `SAVE_INTERVAL`."""
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
                f"The training diverged at step {self.step}: for {MAX_NONFINITE_STEPS} steps there "
                "was no finite gradient. Lower the learning rate."
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
        """Whether the first process found the file `stop`; all processes get the same result."""
        found = self.folder is not None and self.folder.stop_requested
        return bool(self.fabric.broadcast(found))
