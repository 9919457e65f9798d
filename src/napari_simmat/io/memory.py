"""How much memory this process can still have."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from napari_simmat.io.files import format_size


def available_memory() -> int:
    """Bytes of memory that can be had without swapping, within `memory_limit`."""
    psutil: Any = import_module("psutil")
    available, limit = int(psutil.virtual_memory().available), memory_limit()
    if limit is None:
        return available
    return min(available, max(0, limit - int(psutil.Process().memory_info().vms)))


def memory_limit() -> int | None:
    """Bytes of addresses that this process may use (``ulimit -v``); None if all."""
    try:
        resource: Any = import_module("resource")
    except ImportError:  # Windows
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def free_memory() -> str:
    """`available_memory` for a sentence, with the limit that holds."""
    limit = memory_limit()
    allowed = "" if limit is None else f" of the {format_size(limit)} that ulimit -v allows"
    return f"{format_size(available_memory())}{allowed}"
