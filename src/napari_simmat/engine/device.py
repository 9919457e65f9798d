"""Device, precision, and the fallback when memory runs out.

A network at work on a device, which goes on with the CPU where a GPU's memory runs out.

Where and how precisely a network computes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import TypeVar

import torch

from napari_simmat.models.network import Network
from napari_simmat.progress import Job

T = TypeVar("T")
logger = logging.getLogger(__name__)


class ComputeContext:
    """Where and how precisely a network computes.

    Parameters
    ----------
    network
        Is moved to the device.
    device, precision
        As for `Predictor`.

    Attributes
    ----------
    device, precision
        What is in use; both change where memory runs out.
    note
        The last remark in words, e.g. that memory ran out and what was done; else empty.
    """

    def __init__(self, network: Network, device: str, precision: str) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.network = network
        self.note = ""
        self.with_oom_fallback(lambda: network.to(self.device))

    @contextmanager
    def inference(self, precision: str = "") -> Iterator[None]:
        """Within the block nothing has gradients, in the chosen precision."""
        self._move()
        with torch.no_grad(), precision_context(self.device, precision or self.precision):
            yield

    def run_job(self, job: Job[T], precision: str = "") -> Job[T]:
        """Run a job's steps, and only its steps, as `inference`."""
        while True:
            with self.inference(precision):
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield progress

    def with_oom_fallback(self, compute: Callable[[], T]) -> T:
        """Compute; where a GPU's memory runs out, go on with the CPU and say so."""
        while True:
            try:
                return compute()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, so that the failed run's tensors are gone by now.
            self.release()
            self.to_cpu()

    def to_cpu(self) -> None:
        """Compute on the CPU from now on.

        Raises
        ------
        MemoryError
            If it does so already.
        """
        if self.device.type == "cpu":
            raise MemoryError(OUT_OF_MEMORY_MESSAGE)
        before, self.device = self.device, torch.device("cpu")
        self.precision = "exact"
        self.network.to(self.device)
        release(before)
        self.remark(f"The memory of {before.type} ran out; computing on the CPU instead.")

    def release(self) -> None:
        """Give the device's unused memory back to the system."""
        release(self.device)

    def _move(self) -> None:
        """See the network on the device: whoever has the same one may have moved it elsewhere."""
        first = next(self.network.parameters(), None)
        if first is None:
            return
        here, there = first.device, self.device
        if here.type != there.type or there.index not in (None, here.index):
            self.network.to(there)

    def remark(self, note: str) -> None:
        """Say something to whoever reads `note` or the log."""
        self.note = note
        logger.warning(note)


PRECISIONS = ("auto", "exact", "fast")
MIN_SPEEDUP = 1.3
"""Times as fast that half precision has to be on a processor to be worth its errors."""
EMULATION_SLOWDOWN = 4.0
"""Times as slow that only half precision is for which a processor has no instructions."""
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",  # on Windows
    "alloc_failed",  # cuBLAS and cuDNN
)
OUT_OF_MEMORY_MESSAGE = (
    "The computer's memory ran out; close other programs, or use a smaller image or model."
)


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``"auto"`` takes a GPU where there is one.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"Device {name!r} is unknown; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from None
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"There is no {device.type} device here; use 'auto' or 'cpu'.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"There is no device {name}; this machine has {torch.cuda.device_count()}, counted "
            "from 0."
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"Device {name!r} is not supported; use 'auto', 'cpu', 'cuda' or 'mps'.")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """``"exact"`` (float32) or ``"fast"`` (autocast); ``"auto"``: exact on CPU, fast on a GPU.

    On a processor that has no half precision, or is no faster with it, fast becomes exact.
    """
    if name not in PRECISIONS:
        raise ValueError(f"Precision {name!r} is unknown; use {', '.join(PRECISIONS)}.")
    if name == "auto":
        return "exact" if device.type == "cpu" else "fast"
    if name == "fast" and device.type == "cpu" and not half_precision_is_faster():
        logger.info("This processor is no faster in half precision; computing exactly.")
        return "exact"
    return name


@lru_cache(maxsize=1)
def half_precision_is_faster() -> bool:
    """Whether this processor multiplies matrices of bfloat16 clearly faster, measured once.

    On products as large as the encoder's: with several threads a small one is over before all
    have begun. A small one tells first which processors only imitate bfloat16, and would take
    seconds for a large one.
    """
    small, large = (64, 768, 768), (1024, 768, 3072)
    if _best_time(torch.bfloat16, *small) > EMULATION_SLOWDOWN * _best_time(torch.float32, *small):
        return False
    return _best_time(torch.float32, *large) > MIN_SPEEDUP * _best_time(torch.bfloat16, *large)


def _best_time(dtype: torch.dtype, rows: int, width: int, columns: int) -> float:
    """Seconds of a product, the least of four."""
    left, weight = torch.ones(rows, width, dtype=dtype), torch.ones(columns, width, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(4):
            started = time.perf_counter()
            torch.nn.functional.linear(left, weight)
            times.append(time.perf_counter() - started)
    return min(times)


def precision_context(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network computes in that precision."""
    if precision == "exact":
        return nullcontext()
    half = device.type == "mps" or (
        device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.autocast(device.type, torch.float16 if half else torch.bfloat16)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or the system says that memory ran out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in words for each in _OUT_OF_MEMORY)


def release(device: torch.device) -> None:
    """Give unused memory of a GPU back to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
