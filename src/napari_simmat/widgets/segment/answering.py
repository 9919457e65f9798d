"""Questions to the worker: the newest counts, what it says comes back on the main thread."""

from __future__ import annotations

import time

from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.segmenting import Answer, Question, Segmenter
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task, Worker


class Answering(QObject):
    """Owns the worker and the model in it."""

    progressed = Signal(object)
    """A `Status` of the work that goes on."""
    glimpsed = Signal(object, object)
    """The `Question`, and a first `Answer` from a coarse encoding: to look at, not to keep."""
    answered = Signal(object, object, float)
    """The `Question`, its `Answer`, and the seconds it took."""
    failed = Signal(str)
    """Why there is no answer, in one sentence."""

    _seen_coarsely = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.worker = Worker()
        self.segmenter = Segmenter()
        self.question: Question | None = None
        self._task: Task | None = None
        queued = Qt.ConnectionType.QueuedConnection
        self._seen_coarsely.connect(self._on_seen_coarsely, queued)
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._task is not None

    def ask(self, question: Question) -> None:
        """Ask, in place of what was asked before."""
        before = self.question
        if self._task is not None and before is not None:
            if before.subject != question.subject:
                self._task.cancel()
            elif not question.prompts and not before.prompts:
                return  # it is being made ready already
        self.question = question
        name = "Segmenting" if question.prompts else "Getting ready"
        self._task = self.worker.submit(
            name,
            lambda: self.segmenter.answering(
                question,
                glimpsed=lambda answer: self._seen_coarsely.emit(question, answer),
                # Where the newest question is about the same plane, it goes on with its encoding.
                wanted=lambda: self.question is question,
            ),
        )
        self.progressed.emit(Status("working", name))

    def drop(self) -> None:
        """Want no answer any more; the window is free at once."""
        self.worker.cancel_all(most=0)
        self._task = None

    def close(self) -> None:
        """Cancel everything and let the thread end."""
        self.drop()
        self.worker.close()

    def _on_progress(self, task: Task, progress: Progress) -> None:
        # An earlier click of the same image may still be encoding it: that is what is waited for.
        if self._task is not None and not task.cancelled and task.rank == 0:
            fraction = progress.done / progress.total if progress.total else None
            text = progress.message[:1].upper() + progress.message[1:]
            self.progressed.emit(Status("working", text or task.name, fraction))

    def _on_seen_coarsely(self, question: Question, answer: Answer) -> None:
        if self._task is not None and question is self.question:
            self.glimpsed.emit(question, answer)

    def _on_returned(self, task: Task, answer: Answer) -> None:
        if task is self._task:
            self._task = None
            self.answered.emit(self.question, answer, time.monotonic() - task.since)

    def _on_failed(self, task: Task, reason: str) -> None:
        if task is self._task:
            self._task = None
            self.failed.emit(reason)
