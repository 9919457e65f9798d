"""What the Train and the Batch tab have in common: a command that runs, and what it says."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal

from napari_simmat.progress import JobEvent
from napari_simmat.widgets.child_process import ChildProcess, Ending
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import Worker


class JobController(QObject):
    """Runs one job of a tab at a time: a command in a child process, and work around it.

    It has no parent: Qt may delete the widget that shows it, and it must be closed even then.

    Parameters
    ----------
    thread
        Name of the thread for work that needs no process of its own.

    Attributes
    ----------
    state
        Current phase of the job; ``idle`` without one.
    worker, process
        The thread and the process.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """`state` changed, or what the user may do next."""

    def __init__(self, thread: str) -> None:
        super().__init__()
        self.state = "idle"
        self.worker = Worker(thread)
        self.process = ChildProcess()
        self.process.received.connect(self._on_event)
        self.process.ended.connect(self._on_ended)
        self._begun = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is a job."""
        return self.state != "idle"

    def close(self) -> None:
        """End thread and process without a signal."""
        self.worker.close()
        self.process.close()

    def _on_event(self, event: JobEvent) -> None:
        raise NotImplementedError

    def _on_ended(self, ending: Ending) -> None:
        raise NotImplementedError

    def _enter(self, state: str, text: str = "") -> None:
        """Begin another phase, and say what happens in it."""
        self.state = state
        if text:
            self._say(text)
        self.changed.emit()

    def _say(self, text: str, fraction: float | None = None, left: str = "") -> None:
        way_out = "Cancel" if self.state == "preparing" else ""
        self.status.emit(Status("working", text, fraction, way_out=way_out, left=left))

    def _kill(self) -> None:
        self._enter("killing")
        self.process.kill()

    def _fail(self, text: str) -> None:
        self._rest(Status("failed", text))

    def _rest(self, status: Status) -> None:
        """The job is over, with this outcome."""
        self.state = "idle"
        self.status.emit(status)
        self.changed.emit()
