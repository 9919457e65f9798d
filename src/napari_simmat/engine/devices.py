"""Where and how precisely a network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "exact", "fast")
NO_MEMORY = "The computer's memory ran out; close other programs, or use a smaller image or model."


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
    """``"exact"`` (float32) or ``"fast"`` (autocast); ``"auto"``: exact on CPU, fast on a GPU."""
    if name not in PRECISIONS:
        raise ValueError(f"Precision {name!r} is unknown; use {', '.join(PRECISIONS)}.")
    if name == "auto":
        return "exact" if device.type == "cpu" else "fast"
    return name


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
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
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words
    )


def release(device: torch.device) -> None:
    """Give unused memory of a GPU back to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
