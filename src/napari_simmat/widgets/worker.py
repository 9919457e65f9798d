"""A permanent thread that steps through jobs in the background."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_simmat.progress import Job, Progress

log = logging.getLogger(__name__)
_REPORT_EVERY = 0.05
"""Seconds between two progress reports of a task."""
_EXIT_TIMEOUT = 10.0
"""Seconds to wait at exit for a step that is still computing."""


@dataclass(eq=False)
class WorkerTask:
    """One submitted job; compare by identity.

    Parameters
    ----------
    name
        For the status line.
    start
        Makes the generator; called in the thread.
    rank
        Lower ranks run first; 0 is for what the user waits for.
    canceled
        Whether its result is discarded.
    done
        Whether the job has returned, even if that is no longer reported.
    """

    name: str
    start: Callable[[], Job[Any]]
    rank: int = 0
    since: float = field(default_factory=time.monotonic)
    canceled: bool = False
    done: bool = False
    job: Job[Any] | None = None

    def cancel(self) -> None:
        """Discard the result; the computation stops at the job's next yield."""
        self.canceled = True


class Worker(QObject):
    """Steps through jobs, one at a time, in a thread that lives until `close`.

    The thread starts with the first job. A task is suspended as soon as one of a lower rank waits,
    and resumed after it. Tasks of one rank run one after the other: only whoever submitted a task
    cancels it. A canceled task only emits `stopped`, when its computation has ended.

    Use queued connections to methods of objects that live in the main thread.
    """

    progressed = Signal(object, object)
    """The task and its `Progress`."""
    returned = Signal(object, object)
    """The task and the job's result."""
    failed = Signal(object, str)
    """The task and the reason, one sentence."""
    stopped = Signal(object)
    """A canceled task whose computation has ended."""

    def __init__(self, name: str = "simmat-worker") -> None:
        super().__init__()
        self._name = name
        self._waiting: deque[WorkerTask] = deque()
        self.running: WorkerTask | None = None
        """The task that is computing, canceled or not."""
        self._wake = threading.Condition()
        self._closed = False
        self._finishing = False
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether no task is computing or waiting."""
        with self._wake:
            return self.running is None and not self._waiting

    @property
    def closed(self) -> bool:
        """Whether it accepts no more jobs."""
        return self._closed or self._finishing

    @property
    def alive(self) -> bool:
        """Whether the thread exists."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, name: str, start: Callable[[], Job[Any]], rank: int = 0) -> WorkerTask:
        """Queue a job behind those of its rank; returns its task."""
        task = WorkerTask(name, start, rank)
        with self._wake:
            if self.closed:
                raise RuntimeError("The worker is closed; make a new one.")
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                _open_workers.add(self)
                self._thread.start()
            self._wake.notify()
        return task

    def close(self) -> None:
        """Cancel all tasks and let the thread end, without waiting; does nothing after `finish`."""
        if self._finishing:
            return
        with self._wake:
            self._closed = True
            if self.running is not None:
                self.running.cancel()
            for task in self._waiting:
                task.cancel()
            self._wake.notify()

    def finish(self) -> None:
        """Let the thread end after all waiting tasks, without waiting for it."""
        with self._wake:
            self._finishing = True
            self._wake.notify()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; whether it did."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.alive

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self.closed)
                if self._closed or not self._waiting:
                    for suspended in self._waiting:  # closed in the thread that ran them
                        if suspended.job is not None:
                            suspended.job.close()
                    return
                # Canceled ones first: they only have to be closed.
                task = min(self._waiting, key=lambda task: (not task.canceled, task.rank))
                self._waiting.remove(task)
                self.running = task
            left = self._step(task)
            with self._wake:
                self.running = None
                if left:
                    self._waiting.appendleft(task)

    def _step(self, task: WorkerTask) -> bool:
        """Run a task; True if it was suspended because one of a lower rank waits."""
        reported = 0.0
        if task.canceled and task.job is None:
            self._tell(self.stopped, task)
            return False
        try:
            job = task.job = task.start() if task.job is None else task.job
            while not task.canceled:
                progress: Progress = next(job)
                if time.monotonic() - reported >= _REPORT_EVERY and not task.canceled:
                    reported = time.monotonic()
                    self._tell(self.progressed, task, progress)
                with self._wake:
                    is_outranked = any(other.rank < task.rank for other in self._waiting)
                if is_outranked and not task.canceled:
                    return True
            job.close()
        except StopIteration as end:
            task.done = True
            if not task.canceled:
                self._tell(self.returned, task, end.value)
        except Exception as error:  # every error of a job is reported
            if not task.canceled:
                log.debug("%s failed", task.name, exc_info=True)
                self._tell(self.failed, task, sentence(error))
        if task.canceled:
            self._tell(self.stopped, task)
        return False

    def _tell(self, signal: Any, *values: object) -> None:
        if not self._closed:
            signal.emit(*values)


class BackgroundJob(QObject):
    """One job at a time in a worker that is shared with others.

    Jobs of a lower `rank` go first in the worker.
    """

    progressed = Signal(object)
    """A `Progress` of the job."""
    returned = Signal(object)
    """The job's result. The job is over before the signal is emitted."""
    failed = Signal(str)
    """Why there is no result, in one sentence."""
    stopped = Signal()
    """The computation has ended after `stop`."""

    def __init__(self, worker: Worker, rank: int = 0, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._worker, self._rank = worker, rank
        self._task: WorkerTask | None = None
        queued = Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        worker.stopped.connect(self._on_stopped, queued)

    @property
    def busy(self) -> bool:
        """Whether the job is under way."""
        return self._task is not None

    def start(self, name: str, make: Callable[[], Job[Any]]) -> None:
        """Start a job in place of the one before; `make` is called in the thread."""
        self.cancel()
        self._task = self._worker.submit(name, make, self._rank)

    def cancel(self) -> bool:
        """Stop the job and discard its result; whether there was one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task is not None

    def stop(self) -> None:
        """Like `cancel`, but the job stays busy until its computation has ended."""
        if self._task is not None:
            self._task.cancel()

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._task:
            self.progressed.emit(progress)

    def _on_returned(self, task: WorkerTask, result: object) -> None:
        if task is self._task:
            self._task = None
            self.returned.emit(result)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._task = None
            self.failed.emit(reason)

    def _on_stopped(self, task: WorkerTask) -> None:
        if task is self._task:
            self._task = None
            self.stopped.emit()


def later(parent: QObject, slot: Callable[[], object], pause: int = 0) -> QTimer:
    """A timer that calls `slot` once, so many ms after each start; by default in the next turn."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(pause)
    timer.timeout.connect(slot)
    return timer


def sentence(error: BaseException) -> str:
    """An error as one line for the window."""
    lines = str(error).strip().splitlines()
    if isinstance(error, (ValueError, RuntimeError, OSError, MemoryError)) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


_open_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads before the interpreter unloads torch."""
    for worker in list(_open_workers):
        worker.close()
    deadline = time.monotonic() + _EXIT_TIMEOUT
    for worker in list(_open_workers):
        worker.join(max(0.0, deadline - time.monotonic()))
