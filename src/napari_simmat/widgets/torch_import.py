"""Imports the window's tabs, and torch, in a thread without a stall of the window or a crash.

A plain ``import torch`` in a thread stalls the main thread for up to 0.8 s at a time and for 3 s in
all, for two reasons: Python holds the interpreter lock while it loads an extension's shared
libraries, and the hundreds of thousands of new objects trigger full garbage collections. Without
both, the longest gap is 0.06 s.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader, PathFinder
from pathlib import Path
from typing import Any

from napari_simmat._text import NO_SEGMENT_ANYTHING
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.garbage import no_garbage_collection

MODULES = ("torch", "segment_anything", "napari_simmat.engine.predictor")
"""Modules of the first prediction, in the order of import."""
TABS = tuple(f"napari_simmat.widgets.{name}.tab" for name in ("segment", "train", "batch"))

_PIECE = 1 << 22
_LIBRARIES = ("torch_global_deps", "c10", "torch_cpu", "c10_cuda", "torch_cuda", "torch")


def import_torch_job() -> Job[None]:
    """Import the modules that prediction needs; returns at once if they are imported."""
    if all(name in sys.modules for name in MODULES):
        return
    if "torch" not in sys.modules:
        yield Progress(0, len(MODULES), "Loading torch")
        _load_libraries()
    for done, name in enumerate(MODULES):
        yield Progress(done, len(MODULES), "Loading torch")
        with no_garbage_collection(), _without_triton():
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("segment_anything"):
                    raise ImportError(NO_SEGMENT_ANYTHING) from error
                raise


def import_window_job() -> Job[None]:
    """Import what the tabs and the first prediction need, and what napari loads for first layers.

    Its tables of features are pandas', and its first shapes load compiled functions of numba.
    torch comes along before there is anything to draw: each call of OpenGL gives the interpreter's
    lock away, and a thread that imports is slow to give it back.
    """
    import napari.layers
    import numpy as np

    modules = ("pandas", *TABS)
    with _reading_ahead():
        for done, name in enumerate(modules):
            yield Progress(done, len(modules), "Loading")
            with no_garbage_collection():
                importlib.import_module(name)
        yield Progress(len(modules), len(modules), "Loading")
        with no_garbage_collection():
            napari.layers.Labels(np.zeros((1, 1), int))
            napari.layers.Points()
            napari.layers.Shapes()
    yield from import_torch_job()


@contextmanager
def _reading_ahead() -> Iterator[None]:
    """Read extensions from the disk before this thread imports them.

    An import holds the interpreter's lock while it loads an extension, reading a file does not.
    """
    reading = _ReadAhead(threading.get_ident())
    sys.meta_path.insert(0, reading)
    try:
        yield
    finally:
        sys.meta_path.remove(reading)


class _ReadAhead:
    """Finds no module; reads the file of an extension that one thread is about to import."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if threading.get_ident() != self._thread:
            return
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            with suppress(OSError), open(spec.loader.path, "rb") as file:
                while file.read(_PIECE):
                    pass


@contextmanager
def _without_triton() -> Iterator[None]:
    """Hide triton from the imports of this thread if loading it would crash the process.

    Without a graphics card Mesa renders with LLVM; triton brings its own LLVM and crashes if it is
    loaded afterwards. torchvision imports triton, if torch came with it, through torch's compiler,
    which prediction does not need. Other plugins that use triton find it as before.
    """
    if "triton" in sys.modules or not _is_mapped("libLLVM"):
        yield
        return
    hiding = _HideTriton(threading.get_ident())
    sys.meta_path.insert(0, hiding)
    try:
        yield
    finally:
        sys.meta_path.remove(hiding)
        # torch remembers what it found; the next to ask shall look again.
        check = getattr(sys.modules.get("torch.utils._triton"), "has_triton_package", None)
        getattr(check, "cache_clear", lambda: None)()


class _HideTriton:
    """Reports triton as not installed to one thread."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if fullname == "triton" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("No module named 'triton'", name="triton")


def _is_mapped(library: str) -> bool:
    """Whether this process has loaded a library with this prefix (Linux only)."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return f"/{library}" in maps


def _load_libraries() -> None:
    """Load torch's shared libraries without the interpreter lock.

    `ctypes` releases the lock, an import does not; the import that follows finds the libraries
    loaded. On Windows torch does the same itself. Errors are left to the import, which reports
    them.
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
    dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    dlopen.restype = ctypes.c_void_p
    for name in _LIBRARIES:
        path = Path(spec.origin).parent / "lib" / f"lib{name}{suffix}"
        if path.exists():
            # As torch does: the symbols of the first one are visible to the others.
            scope = os.RTLD_GLOBAL if name == "torch_global_deps" else os.RTLD_LOCAL
            dlopen(os.fsencode(path), os.RTLD_NOW | scope)
