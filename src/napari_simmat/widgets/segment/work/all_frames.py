"""All objects of all frames of a time series, found and linked by one press."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QObject, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.all_planes import PlanesProgress, find_on_planes_job
from napari_simmat.annotation.drafts import Draft
from napari_simmat.annotation.history import Command
from napari_simmat.annotation.object_changes import MIN_VISIBLE, objects_of_drafts
from napari_simmat.annotation.predictions import Subject
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.proposals import LOOSEN
from napari_simmat.engine.tracking.linking import require_laptrack
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.automatic import AutomaticSegmentation
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.object_actions import ObjectActions
from napari_simmat.widgets.segment.work.tracks import WHICH_AXIS
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_plane
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob

if TYPE_CHECKING:
    from napari_simmat.engine.settings import AutomaticSettings

_RANK = 1
"""Behind clicks."""
FINDING = "finding"
SEGMENTING = "Segmenting all frames"
FOUND = "{} found on {}."
STOPPED = "Stopped: {} written on {} of {}; Link over time links them."
CANCELED = "Segmenting all frames canceled."
TURNED = "Frames are segmented as they were taken: roll the axes back."
NO_LAYER = "Prompts of a layer are for one plane: choose none under More settings."


class _Request(NamedTuple):
    """What is segmented."""

    session: LayerSession
    subject: Subject | None
    frames: int
    axis: int


class FoundFrames(NamedTuple):
    """What was found on all frames, and is to be linked."""

    axis: int
    """The time axis."""
    command: Command | None
    """What has written the objects, which linking becomes a part of."""
    said: str
    """What is to be said of them."""


class AllFrames(QObject):
    """Finds all objects of all frames, writes them as one step, and asks for their links."""

    changed = Signal()
    """`busy` may have changed."""
    found = Signal(object)
    """Objects of all frames were written, and are to be linked: `FoundFrames`."""

    def __init__(
        self,
        workspace: Workspace,
        inference: InferenceQueue,
        objects: ObjectActions,
        automatic: AutomaticSegmentation,
    ) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._inference = inference
        self._objects = objects
        self._automatic = automatic
        self._request: _Request | None = None
        self._so_far: PlanesProgress | None = None
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        workspace.subject_changed.connect(self._on_subject)

    @property
    def busy(self) -> bool:
        """Whether frames are being segmented."""
        return self._job.busy

    @needs_plane
    def start(
        self,
        session: LayerSession,
        plane: Plane,
        settings: AutomaticSettings,
        axis: int | None,
        layer: Layer | None = None,
    ) -> None:
        """Find all objects on all planes of the image.

        Parameters
        ----------
        settings
            As of `AutomaticSegmentation.start`.
        axis
            The time axis along which they are linked.
        layer
            Prompts of a layer are refused: they are for one plane.
        """
        workspace = self._workspace
        try:
            require_laptrack()  # before minutes are spent
            if axis is None:
                raise ValueError(WHICH_AXIS)
            if session.geometry.order:
                raise ValueError(TURNED)
            if layer is not None:
                raise ValueError(NO_LAYER)
            sought, kind = self._automatic.sought(session, plane, settings)
        except ValueError as error:
            workspace.fail(str(error))
            return
        if not workspace.has_pixels():
            return
        self._automatic.cancel()
        self.cancel()
        self._automatic.drop()
        planes = list(np.ndindex(*session.geometry.shape[:-2]))
        frames = session.geometry.shape[axis]
        self._request = _Request(session, workspace.subject, frames, axis)
        self._so_far = None
        service, settled = self._inference.service, session.drafts.settled
        committed = _committed_on(session)
        self._job.start(
            SEGMENTING,
            lambda: find_on_planes_job(service, sought, planes, settings, kind, committed, settled),
        )
        workspace.status.emit(Status("working", SEGMENTING))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop; what was found so far is written, as one step."""
        if not self._job.cancel():
            return
        request, so_far = self._request, self._so_far
        self._forget()
        if so_far is None or request is None or not so_far.drafts:
            self._workspace.status.emit(Status("canceled", CANCELED))
        elif request.session is self._workspace.session:
            count = pluralize(len(so_far.drafts), "object")
            places = {each.plane[request.axis] for each in so_far.drafts}
            said = STOPPED.format(count, len(places), pluralize(request.frames, "frame"))
            self._write(so_far.drafts, said)
        self.changed.emit()

    def _write(
        self, drafts: tuple[Draft, ...], said: str, done: Callable[[], object] = lambda: None
    ) -> None:
        objects = objects_of_drafts(drafts, self._objects.category)
        self._objects.write(FINDING, objects, said=said, done=done, min_visible=MIN_VISIBLE)

    def _emit_found(self, axis: int, said: str) -> None:
        session = self._workspace.session
        command = None if session is None else session.history.last
        self.found.emit(FoundFrames(axis, command, said))

    def _on_progress(self, progress: Progress) -> None:
        if isinstance(progress, PlanesProgress):
            self._so_far = progress
        if not self._inference.busy:
            text = f"{SEGMENTING}: {progress.message or 'getting ready'}"
            self._workspace.status.emit(Status("working", text, progress.fraction))

    def _on_returned(self, drafts: tuple[Draft, ...]) -> None:
        request = self._request
        self._forget()
        if request is not None and request.session is self._workspace.session:
            count, frames = pluralize(len(drafts), "object"), pluralize(request.frames, "frame")
            said = FOUND.format(count, frames)
            if drafts:
                self._write(drafts, said, partial(self._emit_found, request.axis, said))
            else:
                self._workspace.say(f"{said} {LOOSEN}")
        self.changed.emit()

    def _on_failed(self, reason: str) -> None:
        self._forget()
        self._workspace.fail(reason)
        self.changed.emit()

    def _on_subject(self) -> None:
        """Stop if the model or the image has changed; the image that is left is told of."""
        if self._request is not None and self._request.subject != self._workspace.subject:
            self._job.cancel()
            self._forget()
            self.changed.emit()

    def _forget(self) -> None:
        """Hold no image that is closed."""
        self._request = self._so_far = None


def _committed_on(session: LayerSession) -> Callable[[Plane], np.ndarray | None]:
    """Gives the committed objects (Y, X) of a plane, also of those that are written meanwhile."""

    def committed(plane: Plane) -> np.ndarray | None:
        editor = session.editor
        return None if editor is None else np.array(editor.layer.data[plane])

    return committed
