"""Importing torch in a thread without stopping the window.

A plain ``import torch`` in a thread stops the main thread for 100 to 400 ms at a time, for
two reasons: Python loads an extension's shared libraries while it holds the interpreter's
lock, and the hundreds of thousands of new objects set off garbage collections over all of
them. Both are avoided here; ``scripts/stall.py`` measures it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_simmat.progress import Job, Progress

MODULES = ("torch", "segment_anything", "napari_simmat.engine.predictor")
"""What the first click needs, in the order of import."""

_LIBRARIES = ("torch_global_deps", "c10", "torch_cpu", "c10_cuda", "torch_cuda", "torch")


def importing() -> Job[None]:
    """Import what predicting needs, quietly; returns at once when it is there already."""
    if all(name in sys.modules for name in MODULES):
        return
    _keep_triton_out()
    if "torch" not in sys.modules:
        yield Progress(0, len(MODULES), "Loading torch")
        _load_libraries()
    for done, name in enumerate(MODULES):
        yield Progress(done, len(MODULES), "Loading torch")
        with _no_garbage_collection():
            importlib.import_module(name)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from walking what is just being made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            # Into the oldest generation and back: no collection has to walk them soon.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _keep_triton_out() -> None:
    """Let triton count as not installed where loading it would end the process.

    Where Mesa draws with LLVM, as without a graphics card, triton, which has an LLVM of its own,
    crashes while it is loaded after it. torchvision imports triton, where torch came with it, by
    way of torch's compiler, which predicting does not need.
    """
    if "triton" not in sys.modules and _is_mapped("libLLVM"):
        sys.modules["triton"] = None  # type: ignore[assignment]


def _is_mapped(library: str) -> bool:
    """Whether this process has loaded a library whose file's name begins so; known on Linux."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return f"/{library}" in maps


def _load_libraries() -> None:
    """Map torch's shared libraries while other threads may run.

    `ctypes` calls foreign functions without the interpreter's lock, an import does not. The
    import that follows finds them loaded. Windows needs no help: torch does the same there.
    A library that cannot be loaded is left to the import, which says why.
    """
    if sys.platform == "win32":
        return
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    try:
        dlopen = ctypes.CDLL(None).dlopen
    except (OSError, AttributeError):
        return
    dlopen.argtypes, dlopen.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    for name in _LIBRARIES:
        path = Path(spec.origin).parent / "lib" / f"lib{name}{suffix}"
        if path.exists():
            # As torch itself does: the first one is visible to all that follow.
            scope = os.RTLD_GLOBAL if name == "torch_global_deps" else os.RTLD_LOCAL
            dlopen(os.fsencode(path), os.RTLD_NOW | scope)
