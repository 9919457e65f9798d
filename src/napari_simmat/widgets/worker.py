"""The one worker thread, and the import of torch in it.

Importing torch in a thread without stopping the window.

A plain ``import torch`` in a thread stops the main thread for 100 to 400 ms at a time, for
two reasons: Python loads an extension's shared libraries while it holds the interpreter's
lock, and the hundreds of thousands of new objects set off garbage collections over all of
them. Both are avoided here; ``scripts/stall.py`` measures it.

One lasting thread that steps jobs and reports to the window by queued signals.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_simmat.progress import Job, Progress

MODULES = ("torch", "segment_anything", "napari_simmat.engine.predictor")
"""What the first click needs, in the order of import."""

_LIBRARIES = ("torch_global_deps", "c10", "torch_cpu", "c10_cuda", "torch_cuda", "torch")


def import_torch_job() -> Job[None]:
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


log = logging.getLogger(__name__)

_REPORT_EVERY = 0.05
"""Seconds between two reports of one task: more often nobody sees."""
_EXIT_TIMEOUT = 10.0
"""Seconds that the interpreter's end waits for a step that is still computing."""


@dataclass(eq=False)
class WorkerTask:
    """One submitted job; compare by identity.

    Parameters
    ----------
    name
        What it does, in words for the status line.
    start
        Makes the generator; called in the thread.
    rank
        0 for what the user waits for; a task of a lower rank goes before one of a higher.
    done
        Whether its job has returned, also where nobody is told any more.
    """

    name: str
    start: Callable[[], Job[Any]]
    rank: int = 0
    since: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    done: bool = False
    job: Job[Any] | None = None

    def cancel(self) -> None:
        """Drop the result; the computation stops at the job's next yield."""
        self.cancelled = True


class Worker(QObject):
    """Steps jobs one after the other in one thread that lasts until `close`.

    The thread starts with the first job. Of waiting jobs of rank 0 only the newest is kept: a new
    click replaces one that has not begun. A task of a higher rank is left in the middle as soon as
    one of a lower rank waits, and gone on with after it. A cancelled task is reported as `stopped`
    when its computation has ended, and nothing else is heard from it.

    Connect with queued connections to methods of objects that live in the main thread.
    """

    progressed = Signal(object, object)
    """The task and its `Progress`."""
    returned = Signal(object, object)
    """The task and what its job returned."""
    failed = Signal(object, str)
    """The task and the reason in one sentence."""
    stopped = Signal(object)
    """A cancelled task whose computation has ended."""

    def __init__(self, name: str = "simmat-worker") -> None:
        super().__init__()
        self._name = name
        self._waiting: deque[WorkerTask] = deque()
        self._running: WorkerTask | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._finishing = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> WorkerTask | None:
        """The task whose job is being stepped now, cancelled or not."""
        return self._running

    @property
    def idle(self) -> bool:
        """Whether nothing is computed, and nothing waits to be."""
        with self._wake:
            return self._running is None and not self._waiting

    @property
    def closed(self) -> bool:
        """Whether it takes no more jobs."""
        return self._closed or self._finishing

    @property
    def alive(self) -> bool:
        """Whether the thread exists."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, name: str, start: Callable[[], Job[Any]], rank: int = 0) -> WorkerTask:
        """Queue a job, at rank 0 in place of any that waits; returns its task."""
        task = WorkerTask(name, start, rank)
        with self._wake:
            if self.closed:
                raise RuntimeError("The worker is closed; make a new one.")
            if rank == 0:
                self._cancel_waiting(0)
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                _open_workers.add(self)
                self._thread.start()
            self._wake.notify()
        return task

    def cancel_all(self, most: int | None = None) -> None:
        """Cancel what runs and what waits; only tasks up to the rank `most` if that is given."""
        with self._wake:
            running = self._running
            if running is not None and (most is None or running.rank <= most):
                running.cancel()
            self._cancel_waiting(most)

    def _cancel_waiting(self, most: int | None) -> None:
        for task in list(self._waiting):
            if most is None or task.rank <= most:
                task.cancel()
                if task.job is None:  # one that was begun is to be closed in its thread
                    self._waiting.remove(task)

    def close(self) -> None:
        """Cancel everything and let the thread end; does not wait for it.

        After `finish` nothing is cancelled.
        """
        if self._finishing:
            return
        self.cancel_all()
        with self._wake:
            self._closed = True
            self._wake.notify()

    def finish(self) -> None:
        """Let the thread end when all that waits is done; does not wait for it."""
        with self._wake:
            self._finishing = True
            self._wake.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end, at most `timeout` seconds; whether it did."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.alive

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self.closed)
                if self._closed or not self._waiting:
                    self._close_left()
                    return
                # A cancelled one first: it only has to be closed.
                task = min(self._waiting, key=lambda task: (not task.cancelled, task.rank))
                self._waiting.remove(task)
                self._running = task
            left = self._step(task)
            with self._wake:
                self._running = None
                if left:
                    self._waiting.appendleft(task)

    def _step(self, task: WorkerTask) -> bool:
        """Step a task to its end, or until one of a lower rank waits: then true is returned."""
        reported = 0.0
        try:
            job = task.job = task.start() if task.job is None else task.job
            while not task.cancelled:
                progress: Progress = next(job)
                if time.monotonic() - reported >= _REPORT_EVERY and not task.cancelled:
                    reported = time.monotonic()
                    self._tell(self.progressed, task, progress)
                if not task.cancelled and self._outranks(task):
                    return True
            job.close()
        except StopIteration as end:
            task.done = True
            if not task.cancelled:
                self._tell(self.returned, task, end.value)
        except Exception as error:  # whatever a job meets is told, never lost
            if not task.cancelled:
                log.debug("%s failed", task.name, exc_info=True)
                self._tell(self.failed, task, sentence(error))
        if task.cancelled:
            self._tell(self.stopped, task)
        return False

    def _outranks(self, task: WorkerTask) -> bool:
        """Whether a task waits that goes before this one."""
        if task.rank == 0:
            return False
        with self._wake:
            return any(other.rank < task.rank for other in self._waiting)

    def _close_left(self) -> None:
        """Close the jobs that were left in the middle, here where they ran."""
        for task in self._waiting:
            if task.job is not None:
                task.job.close()

    def _tell(self, signal: Any, *values: object) -> None:
        if not self._closed:
            signal.emit(*values)


def sentence(error: BaseException) -> str:
    """What went wrong, as one line for the window."""
    lines = str(error).strip().splitlines()
    if isinstance(error, (ValueError, RuntimeError, OSError, MemoryError)) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason was given'}"


_open_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads before the interpreter tears torch down under them."""
    for worker in list(_open_workers):
        worker.close()
    deadline = time.monotonic() + _EXIT_TIMEOUT
    for worker in list(_open_workers):
        worker.join(max(0.0, deadline - time.monotonic()))
