"""All objects of a plane segmented: proposed, filtered as sliders move, previewed, committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Signal
from scipy.ndimage import find_objects

from napari_simmat._text import pluralize
from napari_simmat.engine import automatic_generator
from napari_simmat.engine.automatic_postprocessing import (
    MIN_EXAMPLES,
    Instances,
    Sifted,
    masks_to_instances,
)
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.segment.history import Command, NewObject
from napari_simmat.widgets.segment.inference import InferenceQueue, PredictionRequest, Subject
from napari_simmat.widgets.segment.object_actions import NOT_ON_IMAGE, ObjectActions
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.segment.session import ImageSession
from napari_simmat.widgets.segment.workspace import Workspace, needs_plane
from napari_simmat.widgets.worker import BackgroundJob, later

if TYPE_CHECKING:
    from napari_simmat.engine.automatic_postprocessing import MaskCandidates
    from napari_simmat.engine.settings import AutomaticSettings


Sift = Callable[[Instances], Job[Sifted]]

_RANK = 1
"""Behind clicks."""
FILTER_DELAY = 60
"""Milliseconds that a slider rests before the masks are filtered."""
MIN_VISIBLE = 0.5
"""Share of an object that must not be committed already. Of one that is, the rim would remain."""
SEGMENTING = "Segmenting everything"
CANCELED = "Segmenting everything canceled."
FOUND = "{} found."
COMMIT_FOUND = "Commit (C) writes them; More settings filters them."
LOOSEN = "Loosen the thresholds under More settings."
NO_POINT = "{} has no point on this plane of the image; add some, or use a grid."
NO_EXAMPLES = "Three committed objects on one plane are needed to tell which are like them."
NOTHING_TO_COMMIT = "There is nothing to commit: loosen the thresholds."


@dataclass(frozen=True, eq=False)
class Proposals:
    """Masks proposed on a plane of a view, and the objects that remain after filtering.

    They are valid for `subject` alone. `candidates` is None until they are there.
    """

    session: ImageSession
    request: PredictionRequest
    subject: Subject | None
    order: AxisOrder
    plane: Plane
    candidates: MaskCandidates | None = None
    instances: Instances | None = None


class AutomaticSegmentation(QObject):
    """Segments all objects of the current plane, to the preview first.

    `proposals` are not committed yet; None without any. `like_mine` keeps only
    objects that are like the committed ones.
    """

    changed = Signal()
    """`proposing` or `proposals` may have changed."""

    def __init__(
        self, workspace: Workspace, inference: InferenceQueue, objects: ObjectActions
    ) -> None:
        super().__init__(workspace)
        self._workspace, self._inference, self._objects = workspace, inference, objects
        self.proposals: Proposals | None = None
        self._requested: Proposals | None = None
        self._committed: tuple[Command, Proposals] | None = None
        self._settings: AutomaticSettings | None = None
        self.like_mine = False
        self._proposing = BackgroundJob(inference.worker, _RANK, self)
        self._filtering = BackgroundJob(inference.worker, _RANK, self)
        self._filter_later = later(self, self._filter, FILTER_DELAY)
        self._proposing.progressed.connect(self._on_progress)
        self._proposing.returned.connect(self._on_proposed)
        self._filtering.returned.connect(self._on_filtered)
        for job in (self._proposing, self._filtering):
            job.failed.connect(self._on_failed)
        workspace.subject_changed.connect(self._on_subject)
        workspace.view_changed.connect(self._show)
        workspace.command_changed.connect(self._on_command)

    @property
    def busy(self) -> bool:
        """Whether masks are being proposed or filtered, or are about to be."""
        at_work = self._proposing.busy or self._filtering.busy
        return at_work or self._filter_later.isActive()

    @property
    def proposing(self) -> bool:
        """Whether masks are being proposed."""
        return self._proposing.busy

    @property
    def has_objects(self) -> bool:
        """Whether masks were proposed and filtered."""
        return self.proposals is not None and self.proposals.instances is not None

    @property
    def is_shown(self) -> bool:
        """Whether the proposals lie on the plane that is shown now."""
        proposals, session = self.proposals, self._workspace.session
        if not self.has_objects or proposals is None or session is not proposals.session:
            return False
        here = session.geometry.order, self._workspace.plane_or_none()
        return (proposals.order, proposals.plane) == here

    def release(self) -> None:
        """Stop working."""
        self._filter_later.stop()
        self.cancel()

    @needs_plane
    def start(
        self,
        session: ImageSession,
        plane: Plane,
        settings: AutomaticSettings,
        layer: Layer | None = None,
    ) -> None:
        """Propose masks all over the current plane.

        Parameters
        ----------
        settings
            Where the model is prompted, and which masks are kept.
        layer
            Points or labels at which the model is prompted instead.
        """
        workspace, request = self._workspace, self._workspace.request()
        self.cancel()
        self.drop()
        self._committed = None
        try:
            prompts = self._seeds(session, plane, layer)
        except ValueError as error:
            workspace.fail(str(error))
            return
        self._settings = settings
        order = session.geometry.order
        self._requested = Proposals(session, request, workspace.subject, order, plane)
        service = self._inference.service
        self._proposing.start(SEGMENTING, lambda: service.propose_job(request, settings, prompts))
        workspace.status.emit(Status("working", SEGMENTING))
        self.changed.emit()

    def filter(self, settings: AutomaticSettings) -> None:
        """Filter the proposed masks with other settings, as soon as the sliders rest."""
        self._settings = settings
        self._filter_later.start()

    def set_like_mine(self, like_mine: bool) -> None:
        """Keep only objects that are like the committed ones, or all."""
        self.like_mine = like_mine
        self._filter_later.start()

    def cancel(self) -> None:
        """Stop proposing."""
        if self._proposing.cancel():
            self._workspace.status.emit(Status("canceled", CANCELED))
            self.changed.emit()

    def commit(self) -> None:
        """Write the remaining objects as one command."""
        proposals, workspace = self.proposals, self._workspace
        if (
            proposals is None
            or proposals.instances is None
            or workspace.session is not proposals.session
        ):
            return
        labels, scores = proposals.instances.labels, proposals.instances.scores
        objects = [
            NewObject(
                ObjectMask.of(labels[at] == number, (*proposals.plane, at[0].start, at[1].start)),
                float(scores[number - 1]),
                category=self._objects.category,
                order=proposals.order,
            )
            for number, at in enumerate(find_objects(labels), start=1)
        ]
        if not objects:
            workspace.say(NOTHING_TO_COMMIT, "ready")
        else:
            name = "segmenting everything"
            self._objects.write(name, objects, done=self._on_committed, min_visible=MIN_VISIBLE)

    def drop(self) -> None:
        """Discard the proposals, also from the preview."""
        proposals, self.proposals = self.proposals, None
        if proposals is not None:
            self._workspace.preview.withdraw(proposals.plane, proposals.order)
            self.changed.emit()

    def _seeds(
        self, session: ImageSession, plane: Plane, layer: Layer | None
    ) -> list[Prompt] | None:
        """The prompts that a layer gives on the plane; None if the settings say where."""
        if layer is None:
            return None
        if isinstance(layer, Labels):
            geometry = session.geometry  # the layer need not be writable; a lazy one is not
            if geometry.other_pixels(layer) or not geometry.lies_on(layer):
                raise ValueError(NOT_ON_IMAGE.format(name=layer.name))
            seen = transposed_view(layer.data, geometry.order)
            return automatic_generator.prompts_from_labels(np.asarray(seen[plane]))
        return _points_on(layer, session, plane, self._workspace.viewer.dims.point)

    # ------------------------------------------------------------------ the worker

    def _filter(self) -> None:
        proposals, settings = self.proposals, self._settings
        if proposals is None or settings is None:
            return
        candidates, sift = proposals.candidates, self._sift(proposals) if self.like_mine else None
        note = NO_EXAMPLES if self.like_mine and sift is None else ""
        self._filtering.start("Filtering", lambda: _filter_job(candidates, settings, sift, note))

    def _sift(self, proposals: Proposals) -> Sift | None:
        """What keeps the objects like those committed on the plane, or on that with the most.

        None if there are too few.
        """
        editor, request = proposals.session.editor, proposals.request
        if editor is None or proposals.session.geometry.other_pixels(editor.layer):
            return None
        labels, at = transposed_view(editor.layer.data, proposals.order), proposals.plane
        if len(np.unique(labels[at])) <= MIN_EXAMPLES and not proposals.order:
            counts = editor.masks_on_planes()
            at = max(counts, key=lambda plane: counts[plane], default=at)
        committed = np.array(labels[at])
        if len(np.unique(committed[committed > 0])) < MIN_EXAMPLES:
            return None
        return lambda each: self._inference.service.sift_job(request, each, at, committed)

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            self._workspace.status.emit(Status("working", SEGMENTING, progress.fraction))

    def _on_proposed(self, candidates: MaskCandidates) -> None:
        requested = self._requested
        if requested is not None and self._is_current(requested):
            self.proposals = replace(requested, candidates=candidates)
            self._filter()
        self.changed.emit()

    def _on_filtered(self, outcome: tuple[Instances, str]) -> None:
        proposals, (instances, text) = self.proposals, outcome
        if proposals is not None and proposals.candidates is not None:
            self.proposals = replace(proposals, instances=instances)
            self._show()
            self._workspace.say(text)
        self.changed.emit()

    def _on_failed(self, reason: str) -> None:
        self._proposing.cancel()
        self._filtering.cancel()
        self._workspace.fail(reason)
        self.changed.emit()

    # ------------------------------------------------------------------ shown

    def _show(self) -> None:
        """Show the proposals, if its view is shown."""
        proposals = self.proposals
        if proposals is None or proposals.instances is None:
            return
        if proposals.order == proposals.session.geometry.order:
            labels = proposals.instances.labels
            self._workspace.preview.propose(proposals.session.geometry, proposals.plane, labels)

    def _on_committed(self) -> None:
        """Keep the proposals for undo: proposing them again could take minutes."""
        proposals = self.proposals
        self.drop()
        command = None if proposals is None else proposals.session.history.last
        self._committed = None if command is None else (command, proposals)

    def _on_command(self, session: ImageSession, change: str, _: Command | None) -> None:
        """Undoing the commit brings the proposals back, and redoing it takes them away."""
        if self._committed is None or self._committed[1].session is not session:
            return
        command, proposals = self._committed
        if change == "undo" and session.history.next is command:
            if self.proposals is None and self._is_current(proposals):
                self.proposals = proposals
                self._show()
                self.changed.emit()
        elif change == "redo" and session.history.last is command:
            self._committed = command, self.proposals or proposals
            self.drop()

    def _on_subject(self) -> None:
        """Forget the proposals if the model or the image has changed."""
        if self.proposals is not None and not self._is_current(self.proposals):
            self.drop()
        if self._requested is not None and not self._is_current(self._requested):
            self.cancel()

    def _is_current(self, proposals: Proposals) -> bool:
        """Whether model and image are still those that were segmented."""
        return self._workspace.subject == proposals.subject


def _filter_job(
    candidates: MaskCandidates, settings: AutomaticSettings, sift: Sift | None, note: str
) -> Job[tuple[Instances, str]]:
    """The objects that remain, and the outcome in words."""
    yield Progress(0, 1, "filtering")
    instances = masks_to_instances(candidates, settings)
    sentence = FOUND.format(pluralize(len(instances), "object"))
    if sift is not None and len(instances):
        sifted = yield from sift(instances)
        instances, sentence = sifted.instances, sifted.sentence
    next_step = COMMIT_FOUND if len(instances) else LOOSEN
    return instances, " ".join(filter(None, [sentence, next_step, note]))


def _points_on(
    layer: Layer, session: ImageSession, plane: Plane, shown: Sequence[float]
) -> list[Prompt]:
    """A click for each point of a layer on a plane of the image."""
    points = session.geometry.from_layer(layer, np.asarray(layer.data), shown)
    here = (np.round(points[:, :-2]) == np.array(plane)).all(axis=1)
    size = np.array(session.geometry.shape[-2:])
    inside = ((points[:, -2:] >= -0.5) & (points[:, -2:] <= size - 0.5)).all(axis=1)
    if not (here & inside).any():
        raise ValueError(NO_POINT.format(layer.name))
    return automatic_generator.prompts_at(points[here & inside][:, -2:])
