"""The training loop; the folder of a run, to resume from; its devices.

`simmat train`, `simmat pretrain` and learning from a few objects share the loop.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim import Optimizer

from napari_simmat._text import pluralize
from napari_simmat.engine.device import (
    choose_device,
    half_precision_is_faster,
    is_out_of_memory,
    release,
    within_free_memory,
)
from napari_simmat.io.files import atomic_write, disk_errors_explained
from napari_simmat.progress import Job, Progress, with_progress
from napari_simmat.training.config import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 60.0
"""Seconds between two saved states, apart from those at validations."""
MAX_NONFINITE_STEPS = 25
"""Training stops after so many consecutive steps without a finite gradient."""
STATE_FILE, BEST_FILE, LOG_FILE, STOP_FILE, LOCK_FILE = (
    "state.pt",
    "best.safetensors",
    "log.csv",
    "stop",
    ".lock",
)
IS_RUNNING = "Another training is running in {}; wait for it, or choose another folder."
IS_DAMAGED = (
    "{} is damaged, so no training can resume from it ({}). Delete it, or choose another folder."
)
LACKS_FILE = (
    "{} holds a training without its best checkpoint, {}; put that back, or choose another folder."
)
HAS_OTHER_DATA = (
    "{} holds a training on other data: images, labels or channels have changed. Choose another "
    "folder, or delete it to start again."
)
HAS_OTHER_SETTING = (
    "{} holds a training with {} {}, not {}. Use its settings, choose another folder, or delete it "
    "to start again."
)
NOT_WRITTEN = (
    "{} could not be written; is the disk full? The training can be resumed from the state saved "
    "before. ({})"
)
LOG_COLUMNS = ("step", "epoch", "learning_rate", "loss", "train_iou", "validation_iou")
SLOW_HALF_PRECISION = (
    "This CPU is no faster in bf16-mixed and may be ten times slower; use auto or 32-true."
)
HALVED = (
    "Memory ran out; each step is computed in {} parts from now on, which gives the same gradient "
    "and takes somewhat longer."
)
NO_MEMORY = (
    "Memory ran out with {} at once. Train with --recompute, a smaller batch or side, or a smaller "
    "foundation, or compute on the CPU (--device cpu); the same command resumes."
)
MAX_WORKERS = 64
NO_16_MIXED = "A CPU cannot train in 16-mixed; use bf16-mixed or 32-true."
NO_FABRIC = "Training needs Lightning Fabric; run `pip install lightning-fabric`."


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


class RunFolder:
    """The folder of one training run, locked until it is closed; created if needed.

    Raises
    ------
    ValueError
        If another training is running in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors_explained(path / LOG_FILE):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / LOCK_FILE, blocking=False, thread_local=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise ValueError(IS_RUNNING.format(path)) from None
            except NotImplementedError:  # some clusters' file systems know no locks
                logger.info("%s cannot be locked; start no second training in it.", path)
            (path / STOP_FILE).unlink(missing_ok=True)
            for unfinished in path.glob(".*.part"):  # of a process that was killed while it wrote
                unfinished.unlink()

    def save(self, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Write tensors and plain values, completely or not at all; a full disk is reported."""
        with atomic_write(self.path / STATE_FILE) as temporary:
            try:
                torch.save({**state, "settings": json.dumps(settings)}, temporary)
            except RuntimeError as error:  # torch's writer of archives hides the system's error
                reason = str(error).splitlines()[0]
                raise OSError(NOT_WRITTEN.format(self.path / STATE_FILE, reason)) from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to the table; missing columns stay empty."""
        path = self.path / LOG_FILE
        with disk_errors_explained(path):
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(dict(row))

    def resume_from(self, step: int) -> None:
        """Remove rows beyond `step` from the table: they will be written again."""
        path = self.path / LOG_FILE
        if not path.exists():
            return
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # cut when the disk was full
            del lines[-1]
        rows = [row for row in csv.DictReader(lines) if int(row["step"]) <= step]
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings of the training that a folder holds; empty if that cannot be read."""
    try:  # mapped: the tensors, which may be large, are not read
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
        return dict(json.loads(state["settings"]))
    except Exception:  # `read_state` reports the reason
        return {}


def read_state(
    folder: Path, settings: Mapping[str, Any], needs: str = STATE_FILE
) -> dict[str, Any] | None:
    """The state that `RunFolder.save` wrote last into a folder; None if there is none.

    Without the file called `needs`, no training can resume.

    Raises
    ------
    ValueError
        If the state belongs to a run with other settings or data, is damaged, or was written by an
        earlier version.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        before = json.loads(state["settings"])
    except Exception as error:
        raise ValueError(IS_DAMAGED.format(path, type(error).__name__)) from None
    now = json.loads(json.dumps(settings))
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        if name == "data":
            raise ValueError(HAS_OTHER_DATA.format(folder))
        values = [json.dumps(each.get(name)) for each in (before, now)]
        short = [text if len(text) <= 80 else text[:77] + "..." for text in values]
        raise ValueError(HAS_OTHER_SETTING.format(folder, name, *short))
    if not (folder / needs).exists():
        raise ValueError(LACKS_FILE.format(folder, needs))
    return state


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Devices of a training run.

    Parameters
    ----------
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    count, nodes
        Processes per node, each with a GPU if there are any, and number of nodes.
    workers
        Threads of each process that read the images of the next steps; by default 4 beside a GPU,
        and none on a CPU, whose cores compute. The result is the same to the bit.
    """

    device: str = "auto"
    count: int = 1
    nodes: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not 0 <= self.workers <= MAX_WORKERS:
            raise ValueError(
                f"{self.workers} threads cannot read images; choose 0 to {MAX_WORKERS}."
            )
        if min(self.count, self.nodes) < 1:
            raise ValueError(
                f"A training needs at least one device on one node, not {self.count} on "
                f"{self.nodes}."
            )

    @property
    def processes(self) -> int:
        """Number of processes on all nodes."""
        return self.count * self.nodes

    @property
    def readers(self) -> int:
        """Number of threads that read images."""
        if self.workers is not None:
            return self.workers
        return 0 if choose_device(self.device).type == "cpu" else 4

    def precision(self, given: Precision) -> Precision:
        """Resolve auto: half precision if that is safe and faster on this device.

        Several CPU processes compute exactly, as each would measure the speed for itself.
        """
        if given != "auto":
            return given
        found = choose_device(self.device)
        if found.type == "cuda":
            half = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            half = found.type == "cpu" and self.processes == 1 and half_precision_is_faster()
        return "bf16-mixed" if half else "32-true"

    def fabric(self, precision: str, *, partly: bool = False) -> Fabric:
        """Lightning Fabric for these devices, not launched yet.

        Parameters
        ----------
        precision
            Fabric's name of it, not auto.
        partly
            Whether a step may leave out some of the trained parameters.

        Raises
        ------
        ValueError
            If there are no such devices, or they cannot compute in that precision.
        ImportError
            If Fabric is not installed; the message says how to install it.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError:
            raise ImportError(NO_FABRIC) from None
        # Silences announcements of the chosen devices; warnings remain.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        found = choose_device(self.device)
        devices: Any = self.count
        available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(found.type, self.count)
        if found.index is not None:
            devices = [found.index]
            available = 1
        if self.count > available:
            raise ValueError(
                f"{self.count} devices are requested, but {self.device} is {available}; request "
                f"{available}, or compute on cpu."
            )
        if precision == "16-mixed" and found.type == "cpu":
            raise ValueError(NO_16_MIXED)
        half_on_a_processor = (precision, found.type, self.processes) == ("bf16-mixed", "cpu", 1)
        if half_on_a_processor and not half_precision_is_faster():
            logger.warning(SLOW_HALF_PRECISION)
        several = self.processes > 1
        strategy = DDPStrategy(find_unused_parameters=partly) if several else "auto"
        try:
            return Fabric(
                accelerator=found.type,
                devices=devices,
                num_nodes=self.nodes,
                strategy=strategy,
                precision=precision,  # type: ignore[arg-type]
            )
        except RuntimeError as error:
            if (tasks := os.environ.get("SLURM_NTASKS")) and "ntasks" in str(error):
                raise ValueError(
                    f"SLURM was started with --ntasks={tasks}; use --ntasks-per-node instead, one "
                    "for each device."
                ) from error
            raise


def is_first_process() -> bool:
    """Whether this is the one process of a run that logs and writes.

    Known from the environment of Fabric, torchrun and SLURM before Fabric launches the others.
    """
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)
