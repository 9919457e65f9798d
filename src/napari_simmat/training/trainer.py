"""`Trainer`: the training loop.

`simmat train`, `simmat pretrain` and learning from a few objects share the loop.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from napari_simmat._text import pluralize
from napari_simmat.engine.device import is_out_of_memory, release, within_free_memory
from napari_simmat.progress import Job, Progress, with_progress
from napari_simmat.training.run_folder import STOP_FILE, RunFolder

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 60.0
"""Seconds between two saved states, apart from those at validations."""
MAX_NONFINITE_STEPS = 25
"""Training stops after so many consecutive steps without a finite gradient."""
HALVED = (
    "Memory ran out; each step is computed in {} parts from now on, which gives the same gradient "
    "and takes somewhat longer."
)
NO_MEMORY = (
    "Memory ran out with {} at once. Train with --recompute, a smaller batch or side, or a smaller "
    "foundation, or compute on the CPU (--device cpu); the same command resumes."
)


@dataclass(frozen=True)
class TrainProgress(Progress):
    """One training step, with the row it added to the log (empty if none; `LOG_COLUMNS`)."""

    figures: Mapping[str, float] = field(default_factory=dict)


def forward_job(module: nn.Module, batch: Any) -> Job[tuple[Tensor, dict[str, Any]]]:
    """The loss of a batch and further scalar figures by name, without a break."""
    yield from ()
    loss, figures = module(batch)
    return loss, figures


@dataclass(kw_only=True, eq=False)
class Trainer:
    """Trains a module step by step, so that a resumed run continues with the same bits.

    Parameters
    ----------
    module, optimizer
        The module maps a batch to its loss and further scalar figures by name.
    fabric
        Launched; computes the steps. None for one device in float32, without Lightning Fabric.
    folder
        Holds the state and the log; None in processes that write nothing.
    settings
        Saved with the state, which is refused if they differ later.
    total
        Optimizer steps in all.
    rate
        The learning rate of a step (0, 1, ...).
    batch
        A part of a step's batch; depends on nothing but its arguments.
    state, load
        Tensors and plain values, without the optimizer's, with which a run continues.
    parts
        The parts of each batch that this process computes, one after the other.
    loss_job
        Computes the loss; may yield where a step may be left.
    max_norm
        Gradients with a larger norm are scaled down to it.
    seed
        Seeds torch's random numbers in each step; None leaves torch's global state alone.
    after_step
        Called with the number of each step that was done.
    log, log_every
        Writes a row with the figures' means over so many steps and returns it; gets the trainer
        and the learning rate, too.
    validate_job, due
        Validates and logs it, returns a message and the row; the numbers of steps after which to.
    is_finished
        Whether to end before `total` steps.
    save_every, save_interval
        Steps and seconds between two saved states, apart from those at validations.
    """

    module: nn.Module
    optimizer: Optimizer
    fabric: Any
    folder: RunFolder | None
    settings: Mapping[str, Any]
    total: int
    rate: Callable[[int], float]
    batch: Callable[[int, slice], Any]
    state: Callable[[], dict[str, Any]]
    load: Callable[[Mapping[str, Any]], None]
    parts: Sequence[slice] = (slice(None),)
    loss_job: Callable[[nn.Module, Any], Job[tuple[Tensor, dict[str, Any]]]] = forward_job
    max_norm: float = math.inf
    seed: int | None = None
    after_step: Callable[[int], object] = lambda _: None
    log: Callable[[Trainer, float, Mapping[str, float]], dict[str, float]] = lambda *_: {}
    log_every: int = 1
    validate_job: Callable[[Trainer], Job[tuple[str, dict[str, float]]]] | None = None
    due: Collection[int] = ()
    is_finished: Callable[[], bool] = lambda: False
    save_every: int = 0
    save_interval: float = field(default_factory=lambda: SAVE_INTERVAL)

    def __post_init__(self) -> None:
        self.fabric = self.fabric or _OneDevice()
        self.module, self.optimizer = self.fabric.setup(self.module, self.optimizer)
        self.module.train()
        self.step = 0
        self._stopped = False
        self._fits = False
        self._lost = 0
        self._figures: dict[str, list[float]] = {}
        self._saved = time.monotonic()

    def run_job(self) -> Job[None]:
        """Train to the end: all steps done, finished, or a file `stop` in the folder."""
        while not (self.step >= self.total or self._stopped or self.is_finished()):
            yield from self.advance_job()
            if self.step in self.due or self._stopped:
                yield from self.measure_job()

    def advance_job(self) -> Job[None]:
        """One optimizer step."""
        fabric, rate = self.fabric, self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        while True:
            try:
                reached = yield from self._gradient_job()
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, where the failed step's tensors are already freed.
            self._halve_parts()
        gradient = self._follow_gradient()
        self.after_step(self.step)
        self.step += 1
        if fabric.world_size > 1:  # each process has seen a part of the batch
            values = torch.tensor(list(reached.values()), device=fabric.device)
            fabric.all_reduce(values)  # the mean, in place
            reached = dict(zip(reached, values.tolist(), strict=True))
        row = self._log(rate, {**reached, "gradient": gradient})
        self._stopped = self._stop_requested()
        is_old = time.monotonic() - self._saved > self.save_interval
        counted = bool(self.save_every) and self.step % self.save_every == 0
        if (is_old or counted) and self.step not in self.due:
            self.save()
        message = f"training, loss {reached['loss']:.2f}"
        yield TrainProgress(self.step, self.total, message, figures=row)

    def _gradient_job(self) -> Job[dict[str, float]]:
        """The gradient of a step, part by part; returns the mean loss and figures."""
        fabric = self.fabric
        if self.seed is not None:
            torch.manual_seed((self.seed * 1_000_003 + self.step) * 64 + fabric.global_rank)
        self.optimizer.zero_grad(set_to_none=True)
        reached: dict[str, float] = {}
        here = Progress(self.step, self.total, "training")
        for number, part in enumerate(self.parts, start=1):
            batch = self.batch(self.step, part)
            with fabric.no_backward_sync(self.module, enabled=number < len(self.parts)):
                with nullcontext() if self._fits else within_free_memory(self.module):
                    job = self.loss_job(self.module, batch)
                    loss, figures = yield from with_progress(job, here)
                fabric.backward(loss / len(self.parts))
            for name, value in {"loss": loss.detach(), **figures}.items():
                reached[name] = reached.get(name, 0.0) + float(value) / len(self.parts)
        self._fits = True
        return reached

    def _halve_parts(self) -> None:
        """Compute a step in twice as many parts, as memory ran out; MemoryError if it cannot be."""
        self.optimizer.zero_grad(set_to_none=True)
        for kind in {each.device for each in self.module.parameters()}:
            release(kind)
        halves = []
        for part in self.parts:
            start, count = part.start or 0, (part.stop or 1) - (part.start or 0)
            if count % 2 or self.fabric.world_size > 1:
                raise MemoryError(NO_MEMORY.format(pluralize(count, "image")))
            middle = start + count // 2
            halves += [slice(start, middle), slice(middle, start + count)]
        self.parts = halves
        logger.warning(HALVED.format(len(halves)))

    def measure_job(self) -> Job[None]:
        """Validate and save the state."""
        if self.validate_job is None:
            return
        message, row = yield from self.validate_job(self)
        # Before saving: a request to stop during the validation needs no further step or measure.
        self._stopped = self._stop_requested()
        self.save()
        yield TrainProgress(self.step, self.total, message, figures=row)

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
            **self.state(),
        }
        self.folder.save(state, self.settings)
        # Counted from the end: a large state on a slow disk would be written after every step.
        self._saved = time.monotonic()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `save` wrote."""
        self.load(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self._lost, self._figures = state["step"], state["lost"], state["figures"]

    def _follow_gradient(self) -> float:
        """One optimizer step, unless the gradient is NaN or infinite; returns its norm."""
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.max_norm, error_if_nonfinite=False
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
        if self.step % self.log_every:
            return {}
        means = {name: sum(values) / len(values) for name, values in self._figures.items()}
        self._figures = {}
        return self.log(self, rate, means)

    def _stop_requested(self) -> bool:
        """Whether the first process found the file `stop`; all processes get the same result."""
        found = self.folder is not None and (self.folder.path / STOP_FILE).exists()
        return bool(self.fabric.broadcast(found))


class _OneDevice:
    """What a `Trainer` needs of Lightning Fabric, on one device in float32, without Lightning."""

    global_rank, world_size = 0, 1
    strategy = SimpleNamespace(
        precision=SimpleNamespace(state_dict=dict, load_state_dict=lambda _: None)
    )

    def setup(self, *both: Any) -> Any:
        return both

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> Any:
        del module, enabled
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward([loss])

    def clip_gradients(self, module: nn.Module, optimizer: Optimizer, **how: Any) -> Tensor:
        del module
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, **how)

    def broadcast(self, value: Any) -> Any:
        return value
