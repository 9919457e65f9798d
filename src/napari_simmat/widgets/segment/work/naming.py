"""The button *Name the others*: objects get classes by those that were classed by hand."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import QObject

from napari_simmat.annotation.annotator import RefusedError
from napari_simmat.annotation.naming import (
    ALL_BY_HAND,
    FoundNames,
    NamingRequest,
    name_others_job,
)
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob

_RANK = 1
"""Behind clicks."""
NAMING = "Naming objects"
CANCELED = "Naming objects canceled."
OTHER_IMAGE = "Nothing was named, because another image was chosen: go back and press it again."
GONE = "Nothing was named: the objects are in another layer now; press it again."


class ObjectNaming(QObject):
    """Names all objects that were not classed by hand, on all planes, as one command."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace, self._inference = workspace, inference
        self._session: LayerSession | None = None
        """Whose objects are being named; None while none are."""
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_named)
        self._job.failed.connect(self._on_failed)
        workspace.session_closed.connect(self._on_closed)

    @property
    def busy(self) -> bool:
        """Whether objects are being named."""
        return self._job.busy

    def release(self) -> None:
        """Stop working."""
        self._job.cancel()
        self._session = None

    def cancel(self) -> None:
        """Stop naming; nothing was named."""
        if self._job.cancel():
            self._session = None
            self._workspace.status.emit(Status("canceled", CANCELED))

    @needs_image
    def start(self, session: LayerSession, choice: FormChoice) -> None:
        """Name the others; all channels of the chosen image are measured."""
        workspace = self._workspace
        request = workspace.request()
        if not workspace.has_pixels() or request is None:
            return
        try:
            naming = NamingRequest.of(session.editor)
        except ValueError as error:
            workspace.fail(str(error))
            return
        if naming.names_none:
            workspace.say(ALL_BY_HAND)
            return
        service = self._inference.service
        usual = replace(request, image=request.image.usual)
        self._session = session
        self._job.start(NAMING, lambda: name_others_job(service, usual, naming, choice.all_arrays))
        workspace.status.emit(Status("working", NAMING))

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            self._workspace.status.emit(Status("working", NAMING, progress.fraction))

    def _on_failed(self, reason: str) -> None:
        self._session = None
        self._workspace.fail(reason)

    def _on_closed(self, session: LayerSession) -> None:
        """Hold nothing of an image that is gone."""
        if self._session is session:
            self.release()

    def _on_named(self, found: FoundNames) -> None:
        workspace, session = self._workspace, self._session
        self._session = None
        if workspace.session is not session:
            workspace.fail(OTHER_IMAGE)
            return
        if not workspace.has_pixels():
            workspace.fail(GONE)
            return
        try:
            workspace.say(workspace.annotator.name_others(found))
        except RefusedError:
            workspace.fail(GONE)
