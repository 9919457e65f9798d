"""How the C library hands out memory to a command that trains."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates next.

    Each step of a training allocates the large arrays of the step before. glibc would map every
    one anew, so that the system has to clear all its pages. A command's process ends with it, so
    nothing is kept for longer; a window's does not. Without glibc nothing changes.

    Source: mallopt(3), ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
