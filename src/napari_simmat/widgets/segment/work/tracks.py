"""Objects of a time series: linked, corrected by hand, and shown as napari's tracks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from napari.layers import Tracks
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.annotator import RefusedError
from napari_simmat.annotation.history import Command
from napari_simmat.annotation.links import (
    LINK_OVER_TIME,
    NO_OBJECTS,
    FoundLinks,
    LinkRequest,
    described_tracks,
    find_links_job,
)
from napari_simmat.annotation.prompt_state import Plane, plane_of
from napari_simmat.engine.coordinates import inverse_order, reordered
from napari_simmat.engine.settings import LinkSettings
from napari_simmat.engine.tracking.linking import Lineage, Node, require_laptrack
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.garbage import no_garbage_collection
from napari_simmat.widgets.placement import time_axis_of
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, Worker, later

TRACKS = "SimMAT tracks"
_LATER = 300
"""Milliseconds without a change of the objects before their tracks are drawn again."""
WHICH_AXIS = "Choose which axis is time."
PICK_TWO = "Shift+click once on each of the two objects, on two frames, and press it again."
OBJECTS_CHANGED = "The objects were changed meanwhile; nothing was linked. Do it again."


class _Linking(NamedTuple):
    """Of which image objects are being linked, and what becomes of it."""

    session: LayerSession
    picked: tuple[Plane, ...]
    """Planes whose prompts said which objects, and are used up."""
    part_of: Command | None
    """The command that this is a part of; None if it is one of its own."""
    said: str
    """What is said before how many tracks there are."""


class ObjectTracks(QObject):
    """Links the committed objects of the image over time, and draws their tracks."""

    changed = Signal()
    """The tracks, or whether objects are being linked."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self.worker = Worker("simmat-tracks")
        self._job = BackgroundJob(self.worker, parent=self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_linked)
        self._job.failed.connect(self._on_failed)
        self._drawing = BackgroundJob(self.worker, 1, self)
        self._drawing.returned.connect(self._draw)
        self._linking: _Linking | None = None
        """What is being linked; None while nothing is."""
        self._drawn: tuple[object, ...] = ()
        self._layer: Tracks | None = None
        self.text = ""
        self._later = later(self, self._draw_again, _LATER)
        workspace.objects_changed.connect(self._on_changed)
        workspace.subject_changed.connect(self._on_changed)

    @property
    def linking(self) -> bool:
        """Whether objects are being linked."""
        return self._job.busy

    @property
    def busy(self) -> bool:
        """Whether objects are being linked or their tracks drawn."""
        return self._job.busy or self._drawing.busy or self._later.isActive()

    def release(self) -> None:
        """Stop linking; the tracks layer stays."""
        self._later.stop()
        self.worker.close()

    # --------------------------------------------------------------------- linking

    def link_all(
        self,
        axis: int | None,
        settings: LinkSettings = LINK_OVER_TIME,
        *,
        found: Command | None = None,
        said: str = "",
    ) -> None:
        """Link all objects along a time axis, or along depth, as the settings say.

        Parameters
        ----------
        axis, settings
            The axis; None if it is still to be chosen.
        found
            The command that has just written them, if this is a part of it.
        said
            What is to be said of them, before how many tracks there are.
        """
        try:
            require_laptrack()  # what is missing is said before what is to be chosen
        except ValueError as error:
            self._workspace.fail(str(error))
            return

        def request(session: LayerSession, along: int) -> LinkRequest:
            spacing = session.geometry.usual.spacing
            return LinkRequest.of_all(session.editor, along, settings, spacing)

        self._start(axis, request, part_of=found, said=said)

    def link(self, axis: int | None) -> None:
        """Link the two objects under the points."""
        self._change_two(axis, cut=False)

    def cut(self, axis: int | None) -> None:
        """Cut the link of the two objects under the points."""
        self._change_two(axis, cut=True)

    def _change_two(self, axis: int | None, *, cut: bool) -> None:
        picked = {} if axis is None else self._picked(axis)
        if axis is not None and len(picked) != 2:
            self._workspace.say(PICK_TWO)
            return

        def request(session: LayerSession, along: int) -> LinkRequest:
            return LinkRequest.of_two(session.editor, along, tuple(picked), cut=cut)

        self._start(axis, request, tuple(picked.values()))

    def _picked(self, axis: int) -> dict[Node, Plane]:
        """The objects under the positive points of all planes, and the planes of the view."""
        session, editor = self._workspace.session, self._workspace.editor
        if editor is None:
            return {}
        prompts, picked = session.prompts, {}
        for point, label in zip(prompts.points, prompts.labels, strict=True):
            plane = plane_of(point)
            at = (*plane, *(int(np.floor(value + 0.5)) for value in point[-2:]))
            at = reordered(at, inverse_order(session.geometry.order))
            if label and (number := editor.label_at(at)):
                picked[Node(int(at[axis]), number)] = plane
        return picked

    def _start(
        self,
        axis: int | None,
        requested: Callable[[LayerSession, int], LinkRequest],
        picked: tuple[Plane, ...] = (),
        part_of: Command | None = None,
        said: str = "",
    ) -> None:
        """Change the links; the prompts on the planes `picked` are used up."""
        workspace, session = self._workspace, self._workspace.session
        if axis is None:
            workspace.fail(WHICH_AXIS)
            return
        if session is None:
            workspace.fail(NO_OBJECTS)
            return
        try:
            request = requested(session, axis)
        except ValueError as error:
            workspace.fail(str(error))
            return
        if not workspace.has_pixels() or self._job.busy:
            return

        def job() -> Job[FoundLinks]:
            yield Progress(0, 1, "measuring objects")
            with no_garbage_collection():
                import laptrack  # noqa: F401 - slow, and the window must not wait for it
            return (yield from find_links_job(request))

        self._linking = _Linking(session, picked, part_of, said)
        self._job.start("Linking", job)
        self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        text = progress.message[:1].upper() + progress.message[1:]
        self._workspace.status.emit(Status("working", text, progress.fraction, way_out=""))

    def _on_failed(self, reason: str) -> None:
        self._workspace.fail(reason)
        self.changed.emit()

    def _on_linked(self, found: FoundLinks) -> None:
        workspace, linking = self._workspace, self._linking
        assert linking is not None
        self._linking = None  # holds no image that is closed
        try:
            if workspace.session is not linking.session:
                raise RefusedError("changed meanwhile", OBJECTS_CHANGED)
            workspace.annotator.link(found, linking.picked, linking.part_of)
        except RefusedError:
            workspace.fail(OBJECTS_CHANGED)
            self.changed.emit()
            return
        if found.request.in_depth:
            text = found.described()
            self.changed.emit()
        else:
            self._draw(found.lineage.relabeled())
            text = self.text
        workspace.say(f"{linking.said} {text}".lstrip())

    # --------------------------------------------------------------------- showing

    def _on_changed(self) -> None:
        """Draw the tracks of the chosen image again, or take away those of another."""
        session, editor = self._workspace.session, self._workspace.editor
        linked = editor is not None and (session.time_axis is not None or editor.parents)
        if not linked or session.geometry.ndim < 3:
            self._remove()
            return
        if session.time_axis is None:
            session.time_axis = time_axis_of(session.geometry) or 0  # restored
        if (editor.key, editor.version) != self._drawn:
            self._later.start()

    def _remove(self) -> None:
        layer, self._layer, self._drawn, self.text = self._layer, None, (), ""
        if layer is not None and layer in self._workspace.viewer.layers:
            self._workspace.viewer.layers.remove(layer)

    def _draw_again(self) -> None:
        session, editor = self._workspace.session, self._workspace.editor
        if editor is None or session.time_axis is None:
            return
        axis = session.time_axis
        labels, parents = editor.layer.data, editor.parents

        def job() -> Job[Lineage]:
            yield Progress(0, 1, "drawing tracks")
            return Lineage.of_labels(labels, axis, parents)

        self._drawing.start("Drawing tracks", job)

    def _draw(self, lineage: Lineage) -> None:
        """Show the tracks; napari takes time as the first axis, and space of 2 or 3."""
        session, layers = self._workspace.session, self._workspace.viewer.layers
        editor = self._workspace.editor
        if editor is None or session.time_axis is None:
            return
        self._later.stop()
        self._drawn = editor.key, editor.version
        self.text = described_tracks(lineage.tracks())
        data, graph = lineage.points()
        if session.time_axis or not len(data) or data.shape[1] not in (4, 5):
            self.changed.emit()
            return
        if self._layer is None or self._layer not in layers:
            active = layers.selection.active
            options = session.geometry.usual.layer_options()
            self._layer = Tracks(data, graph=graph, name=TRACKS, **options)
            self._workspace.viewer.add_layer(self._layer)
            if active is not None:
                layers.selection.active = active
        else:
            self._layer.graph = {}
            self._layer.data = data
            self._layer.graph = graph
        self.changed.emit()
