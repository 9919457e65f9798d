"""Device, precision, and the fallback to the CPU when a GPU's memory runs out."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.settings import Precision
from napari_simmat.io.memory import available_memory
from napari_simmat.models.network import Encoded, Network
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job

# The threads of OpenMP do not survive a fork, and a child that asks for them waits forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

T = TypeVar("T")
logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "exact", "fast")
MIN_SPEEDUP = 1.3
"""Half precision is used on a CPU if it is at least so many times faster."""
MAX_RETURNS = 2
"""After so many returns to a GPU whose memory ran out each time, the CPU is kept."""
EMULATION_SLOWDOWN = 4.0
"""A CPU without instructions for half precision is at least so many times slower with it."""
BROKEN_MODEL = (
    "{} computes NaN or infinity for this image, so there is no mask; its weights are damaged or "
    "too large. Take another copy or an earlier checkpoint{}."
)
OR_EXACT = ", or choose exact precision"
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",  # on Windows
    "alloc_failed",  # cuBLAS and cuDNN
)
OUT_OF_MEMORY_MESSAGE = (
    "The computer's memory ran out; close other programs, or use a smaller image or model."
)


class BrokenModelError(ValueError):
    """A model computed NaN or infinity; the message is a complete sentence for the user."""


class ComputeContext:
    """A network on its device, in its precision.

    Parameters
    ----------
    network
        Moved to the device.
    device, precision
        As for `Predictor`.

    Attributes
    ----------
    device, precision
        Those in use; both change when memory runs out, until `try_again`.
    note
        The last remark, e.g. that memory ran out and what was done; otherwise empty.
    """

    def __init__(self, network: Network, device: str, precision: str) -> None:
        self.device = choose_device(device)
        self.precision: Precision = choose_precision(precision, self.device)
        self.network = network
        self.note = ""
        self._left: list[tuple[torch.device, Precision]] = []
        self._parameters = tuple(network.parameters())  # to walk its modules takes milliseconds
        self.with_oom_fallback(lambda: network.to(self.device))

    @contextmanager
    def inference(self, precision: str = "") -> Iterator[None]:
        """Context without gradients, in the chosen precision."""
        there = self.device
        if any(
            each.device.type != there.type or there.index not in (None, each.device.index)
            for each in self._parameters
        ):
            self.network.to(there)  # another user may have moved it, or a part of it
        with torch.no_grad(), precision_context(self.device, precision or self.precision):
            yield

    def run_job(self, job: Job[T], precision: str = "") -> Job[T]:
        """Run a job with each of its steps, but no code between them, within `inference`."""
        while True:
            with self.inference(precision):
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield progress

    def encode_job(
        self, spec: ModelSpec, image: NDArray[Any], transform: InputTransform, average: bool
    ) -> Job[Encoded]:
        """Run the network's encoder on normalized values (C, Y, X), as they are or resized.

        With `average`, on several views of them.
        """
        values = network_input(spec, image, transform).to(self.device)
        encode = self.network.encode_job
        return (
            yield from self.run_job(encode(values, averaged=True) if average else encode(values))
        )

    def with_oom_fallback(self, compute: Callable[[], T]) -> T:
        """Call `compute`; if a GPU's memory runs out, move to the CPU and call it again."""
        while True:
            try:
                return compute()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, where the failed run's tensors are already freed.
            self.release()
            self.to_cpu()

    def to_cpu(self) -> None:
        """Compute on the CPU from now on; MemoryError if it does already."""
        if self.device.type == "cpu":
            raise MemoryError(OUT_OF_MEMORY_MESSAGE)
        before, self.device = self.device, torch.device("cpu")
        self._left.append((before, self.precision))
        self.precision = "exact"
        self.network.to(self.device)
        release(before)
        self.remark(f"The memory of {before.type} ran out; computing on the CPU instead.")

    def try_again(self) -> None:
        """Return to the device that was left when memory ran out, for another image.

        At most `MAX_RETURNS` times, since a failure costs the time of encoding an image.
        """
        if self.device.type == "cpu" and 0 < len(self._left) <= MAX_RETURNS:
            self.device, self.precision = self._left[-1]
            self.note = ""

    def release(self) -> None:
        """Return the device's unused memory to the system."""
        release(self.device)

    def check_finite(self, name: str, *outputs: Tensor) -> None:
        """Raise BrokenModelError if outputs of the model `name` hold NaN or infinity."""
        for output in outputs:
            # The sum is finite only if all elements are; it may overflow, so they decide.
            if not math.isfinite(output.sum(dtype=torch.float32)) and not output.isfinite().all():
                advice = OR_EXACT if self.precision == "fast" else ""
                raise BrokenModelError(BROKEN_MODEL.format(name, advice))

    def remark(self, note: str) -> None:
        """Set `note` and log it."""
        self.note = note
        logger.warning(note)


def network_input(spec: ModelSpec, image: NDArray[Any], transform: InputTransform) -> Tensor:
    """Normalized values (C, Y, X), as they are or resized, as the network's input (1, C, H, W)."""
    values = torch.zeros(1, len(spec.channels), *transform.padded)
    height, width = transform.resized
    is_resized = image.shape[1:] == transform.resized
    for index, channel in enumerate(spec.channels):  # one at a time: there may be hundreds
        part = image[index : index + 1]
        resized = torch.tensor((part if is_resized else transform.resize(part))[0])  # a copy
        values[0, index, :height, :width] = (resized - channel.mean) / channel.std
    return values


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``"auto"`` takes a GPU if there is one.

    Raises ValueError if there is no such device.
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


def choose_precision(name: str, device: torch.device) -> Precision:
    """``"exact"`` (float32) or ``"fast"`` (autocast); ``"auto"``: exact on CPU, fast on a GPU.

    On a CPU that is no faster in half precision, fast becomes exact.
    """
    if name not in PRECISIONS:
        raise ValueError(f"Precision {name!r} is unknown; use {', '.join(PRECISIONS)}.")
    if name == "auto":
        return "exact" if device.type == "cpu" else "fast"
    if name == "fast" and device.type == "cpu" and not half_precision_is_faster():
        logger.info("This processor is no faster in half precision; computing exactly.")
        return "exact"
    return "exact" if name == "exact" else "fast"


@lru_cache(maxsize=1)
def half_precision_is_faster() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 clearly faster; measured once.

    Measured on products as large as the encoder's, since a small one ends before all threads have
    started. A small one first rules out CPUs that emulate bfloat16: a large one would take seconds.
    """
    small, large = (64, 768, 768), (1024, 768, 3072)
    if _best_time(torch.bfloat16, *small) > EMULATION_SLOWDOWN * _best_time(torch.float32, *small):
        return False
    return _best_time(torch.float32, *large) > MIN_SPEEDUP * _best_time(torch.bfloat16, *large)


def _best_time(dtype: torch.dtype, rows: int, width: int, columns: int) -> float:
    left, weight = torch.ones(rows, width, dtype=dtype), torch.ones(columns, width, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(4):
            started = time.perf_counter()
            torch.nn.functional.linear(left, weight)
            times.append(time.perf_counter() - started)
    return min(times)


def precision_context(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which networks compute in that precision."""
    if precision == "exact":
        return nullcontext()
    half = device.type == "mps" or (
        device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.autocast(device.type, torch.float16 if half else torch.bfloat16)


@contextmanager
def tf32_allowed(device: torch.device, allowed: bool = True) -> Iterator[None]:
    """Context in which a CUDA GPU may multiply matrices of float32, and convolve, in TF32.

    PyTorch's default for matrices until 1.11, and still that for convolutions. Nothing changes on
    other devices, or if it is not `allowed`; what was set before returns afterwards.

    Source: https://pytorch.org/docs/stable/notes/cuda.html, TensorFloat-32.
    """
    if not allowed or device.type != "cuda":
        yield
        return
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = True
        yield
    finally:
        for kind, was in zip(kinds, before, strict=True):
            kind.allow_tf32 = was


def tf32_job(job: Job[T], device: torch.device, allowed: bool) -> Job[T]:
    """Run a job with each of its steps, but no code between them, within `tf32_allowed`."""
    with closing(job):
        while True:
            with tf32_allowed(device, allowed):
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield progress


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or the system means that memory ran out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in words for each in _OUT_OF_MEMORY)


@contextmanager
def within_free_memory(module: nn.Module) -> Iterator[None]:
    """Context in which `module` raises MemoryError before it fills the computer's memory.

    A forward pass on the CPU may take half of what is free, and leaves as much to the backward
    pass. A system promises more memory than it has: it stalls, or ends a program, where a GPU
    reports an error.
    """
    if any(each.device.type != "cpu" for each in module.parameters()):
        yield
        return
    least = available_memory() // 2

    def check(*_: object) -> None:
        if available_memory() < least:
            raise MemoryError(OUT_OF_MEMORY_MESSAGE)

    hooks = [each.register_forward_pre_hook(check) for each in module.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def release(device: torch.device) -> None:
    """Return unused memory to the system: of a GPU, or with glibc of this process."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif sys.platform.startswith("linux"):
        with suppress(AttributeError):  # musl
            ctypes.CDLL(None).malloc_trim(0)


class DeviceInfo(NamedTuple):
    """A device that torch can compute on here.

    Attributes
    ----------
    name
        For `choose_device`.
    title
        What people call it.
    memory
        Bytes of memory of its own; None if it shares the computer's.
    """

    name: str
    title: str
    memory: int | None = None


def available_devices() -> list[DeviceInfo]:
    """The CPU and all GPUs that this build of torch can use."""
    devices = [DeviceInfo("cpu", "CPU")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            devices.append(DeviceInfo(f"cuda:{index}", found.name, found.total_memory))
    if torch.backends.mps.is_available():
        devices.append(DeviceInfo("mps", "Apple GPU"))
    return devices
