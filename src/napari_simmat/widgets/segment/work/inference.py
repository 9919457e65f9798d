"""The queue of the worker thread that holds the model: the newest request counts."""

from __future__ import annotations

import time

from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.annotation.predictions import Prediction, PredictionRequest
from napari_simmat.progress import Progress
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.torch_import import import_torch_job
from napari_simmat.widgets.worker import Worker, WorkerTask

SEGMENTING, GETTING_READY = "Segmenting", "Getting ready"


class InferenceQueue(QObject):
    """Requests to the worker: the newest one counts, its result arrives on the main thread.

    Attributes
    ----------
    worker, service
        The thread and the model in it; background jobs share both.
    request
        The newest request.
    """

    progressed = Signal(object)
    """A `Status` of the work in progress."""
    predicted = Signal(object, object, float)
    """The request, its `Prediction`, and the seconds it took."""
    failed = Signal(str)
    """Why there is no prediction, in one sentence."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.worker = Worker()
        self.service = InferenceService(prepare=import_torch_job)
        self.request: PredictionRequest | None = None
        self._task: WorkerTask | None = None
        self._older: list[WorkerTask] = []  # under way still, on what the newest goes on with
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.worker.stopped.connect(self._forget, queued)

    @property
    def busy(self) -> bool:
        """Whether a prediction is awaited."""
        return self._task is not None

    def submit(self, request: PredictionRequest) -> None:
        """Predict, in place of the request before.

        One that has begun to encode the same plane is not canceled: it gives way at its next step,
        and the newer request continues its encoding.
        """
        before, task = self.request, self._task
        if task is not None and before is not None:
            same = before.encoding == request.encoding
            if same and not request.prompts and not before.prompts:
                return  # the plane is being encoded already
            if not same or task.job is None:
                task.cancel()
            self._older.append(task)
        self.request = request
        name = SEGMENTING if request.prompts else GETTING_READY
        self._task = self.worker.submit(
            name,
            lambda: self.service.predict_job(
                request,
                is_current=lambda: self.request is request,
            ),
        )
        self.progressed.emit(Status("working", name))

    def drop(self) -> None:
        """Discard the awaited prediction; the window is free at once."""
        for task in (*self._older, self._task):
            if task is not None:
                task.cancel()
        self._task = None

    def close(self) -> None:
        """Cancel everything and let the thread end."""
        self.drop()
        self.worker.close()

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        # An earlier click on the same image may still be encoding what this one waits for.
        if self._task is not None and not task.canceled and task in (self._task, *self._older):
            fraction = progress.done / progress.total if progress.total else None
            text = progress.message[:1].upper() + progress.message[1:]
            self.progressed.emit(Status("working", text or task.name, fraction))

    def _forget(self, task: WorkerTask) -> None:
        self._older = [older for older in self._older if older is not task]

    def _on_returned(self, task: WorkerTask, prediction: Prediction) -> None:
        self._forget(task)
        if task is self._task:
            self._task = None
            self.predicted.emit(self.request, prediction, time.monotonic() - task.since)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        self._forget(task)
        if task is self._task:
            self._task = None
            self.failed.emit(reason)
