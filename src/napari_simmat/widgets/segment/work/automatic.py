"""All objects of a plane proposed as drafts, and filtered as sliders move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer, Shapes
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.image_session import KindTaught
from napari_simmat.annotation.lesson import (
    Lesson,
    examples,
    ground_marked,
    labeled_ground,
    lesson_of,
)
from napari_simmat.annotation.predictions import PredictionRequest, Proposed, Subject
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.proposals import (
    ChosenDrafts,
    KnownObjects,
    Proposals,
    Sift,
    choose_drafts_job,
    expected,
    looked_for,
)
from napari_simmat.checkpoints.advice import BY_WINDOW, better_model, download_sentence
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.everything.seeds import prompts_at, prompts_from_labels
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Progress
from napari_simmat.widgets.readers import PATH
from napari_simmat.widgets.segment.layers.labeled_region import within_shapes
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.object_actions import NOT_ON_IMAGE
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, later

if TYPE_CHECKING:
    from napari_simmat.engine.everything.candidates import MaskCandidates
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.settings import AutomaticSettings


_RANK = 1
"""Behind clicks."""
_AHEAD_RANK = 4
"""Behind encoding ahead, on which it builds."""
RESTS = 600
"""Milliseconds that a plane is shown before it is drafted by itself."""
FILTER_DELAY = 60
"""Milliseconds that a slider rests before the masks are filtered."""
SEGMENTING = "Segmenting everything"
CANCELED = "Segmenting everything canceled."
LOOKING = "Looking once more, closely"
STOP_LOOKING = "Stop looking"
STOPPED = "The second look was stopped; what the first one found stays."
EXPECTED_BY_MODEL = "Expected: objects like those that the model was taught."
NO_POINT = "{} has no point on this plane of the image; add some, or use a grid."
NO_EXAMPLES = "Three committed objects on one plane are needed to tell which are like them."
NOT_KEPT = "What these drafts were chosen from is gone: segment everything again to filter."


_Place = tuple[Path, int]


class _Taught(NamedTuple):
    """The kind that was last expected, in words, too, and the folder and channels of its image."""

    text: str
    place: _Place | None
    kind: KindTaught


class AutomaticSegmentation(QObject):
    """Proposes all objects of the current plane as drafts.

    `proposals` are what the filters choose from; None without any. `like_mine` keeps only
    objects that are like the committed ones. With `expects_mine` objects are looked for that have
    the size of the committed ones, and that look like them rather than like marked ground. With
    `drafts_next` the next plane, and the next image of a folder, are expected to show the same
    kind, and drafted as soon as they are shown, with the settings of the last time; what can be is
    computed ahead. `labeled_within` says where all objects are labeled: within a layer's shapes,
    everywhere (True), or nowhere for sure (False).
    """

    changed = Signal()
    """`proposing` or `proposals` may have changed."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._inference = inference
        self.proposals: Proposals | None = None
        self._requested: Proposals | None = None
        self._subjects: WeakKeyDictionary[LayerSession, Subject] = WeakKeyDictionary()
        self._settings: AutomaticSettings | None = None
        self.like_mine = False
        self.expects_mine = True
        self.drafts_next = False
        self.labeled_within: Callable[[], Shapes | bool] = lambda: False
        self._taught: _Taught | None = None
        self._drafted: WeakKeyDictionary[LayerSession, set[tuple[AxisOrder, Plane]]] = (
            WeakKeyDictionary()
        )
        self._next_image: tuple[PredictionRequest, _Place] | None = None
        self._said = Status("nothing", "")  # what the status line shows, whoever said it
        self._says_found = True  # whether the next drafts are told in it
        workspace.status.connect(partial(setattr, self, "_said"))
        self._proposing = BackgroundJob(inference.worker, _RANK, self)
        self._looking = BackgroundJob(inference.worker, _RANK, self)
        self._filtering = BackgroundJob(inference.worker, _RANK, self)
        self._ahead = BackgroundJob(inference.worker, _AHEAD_RANK, self)
        self._filter_later = later(self, self._filter, FILTER_DELAY)
        self._draft_later = later(self, self._draft_shown, RESTS)
        self._proposing.progressed.connect(self._on_progress)
        self._proposing.returned.connect(self._on_proposed)
        self._looking.progressed.connect(self._on_look)
        self._looking.returned.connect(self._on_looked)
        self._filtering.returned.connect(self._on_filtered)
        for job in (self._proposing, self._looking, self._filtering):
            job.failed.connect(self._on_failed)
        workspace.subject_changed.connect(self._on_subject)
        workspace.session_closed.connect(self._on_closed)
        workspace.viewer.dims.events.current_step.connect(self._on_plane)

    @property
    def busy(self) -> bool:
        """Whether masks are being proposed or filtered, or are about to be."""
        at_work = self.proposing or self._filtering.busy
        return at_work or self._filter_later.isActive() or self._draft_later.isActive()

    @property
    def proposing(self) -> bool:
        """Whether masks are being proposed, at first or by a second look."""
        return self._proposing.busy or self._looking.busy

    @property
    def proposing_ahead(self) -> bool:
        """Whether masks are being proposed where the user has not gone yet."""
        return self._ahead.busy

    def release(self) -> None:
        """Stop working."""
        self._workspace.viewer.dims.events.current_step.disconnect(self._on_plane)
        self._filter_later.stop()
        self._draft_later.stop()
        self._ahead.cancel()
        self.cancel()

    @needs_plane
    def start(
        self,
        session: LayerSession,
        plane: Plane,
        settings: AutomaticSettings,
        layer: Layer | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Propose masks all over the current plane.

        Parameters
        ----------
        settings
            Where the model is prompted, and which masks are kept.
        layer
            Points or labels at which the model is prompted instead.
        again
            Whether the kind that was taught last is expected, rather than taught anew.
        """
        workspace = self._workspace
        try:  # what is refused takes no drafts away
            prompts = self._seeds(session, plane, layer)
            requested, kind = self.sought(session, plane, settings, again=again)
        except ValueError as error:
            workspace.fail(str(error))
            return
        self.cancel()
        self._ahead.cancel()
        self.drop()
        self._settings = settings
        self._requested, request, lesson = requested, requested.request, requested.lesson
        service = self._inference.service
        self._proposing.start(
            SEGMENTING, lambda: service.propose_job(request, settings, prompts, lesson, kind)
        )
        workspace.status.emit(Status("working", SEGMENTING))
        self.changed.emit()

    def sought(
        self,
        session: LayerSession,
        plane: Plane,
        settings: AutomaticSettings,
        *,
        again: bool = False,
    ) -> tuple[Proposals, ObjectKind | None]:
        """What is looked for on a plane, without masks yet, and the kind that was taught before.

        With `again` none is taught anew. Raises ValueError as `start` says.
        """
        request = self._workspace.request()
        assert request is not None, "a plane is shown"
        order = session.geometry.order
        lesson: Lesson | None = None
        if self.expects_mine and not again:
            lesson = self._lesson(session, plane, order)
        text = ""
        kind: ObjectKind | None = None
        if settings.words:
            text = looked_for(settings.words, lesson, plane)
        elif lesson is not None:
            text = expected(lesson)
        elif self._goes_on():
            assert self._taught is not None, "it goes on with it"
            text = self._taught.text
            kind = self._taught.kind.kind
        subject = self._workspace.subject
        return Proposals(session, request, subject, order, plane, text, lesson), kind

    def filter(self, settings: AutomaticSettings) -> None:
        """Filter the proposed masks with other settings, as soon as the sliders rest."""
        self._settings = settings
        self._filter_later.start()

    def set_like_mine(self, like_mine: bool) -> None:
        """Keep only objects that are like the committed ones, or all."""
        self.like_mine = like_mine
        self._filter_later.start()

    def set_expects_mine(self, expects_mine: bool) -> None:
        """Look for objects like the committed ones the next time, or for any."""
        self.expects_mine = expects_mine

    def set_drafts_next(self, drafts_next: bool) -> None:
        """Draft the next plane or image by itself as the same kind, or wait to be told."""
        self.drafts_next = drafts_next
        if drafts_next:
            self._propose_ahead()
        else:
            self._ahead.cancel()

    def expect_image(self, request: PredictionRequest, folder: Path) -> None:
        """Know the image of a folder that will be chosen next; it is encoded already."""
        self._next_image = request, (folder, 1)
        self._propose_ahead()

    def cancel(self) -> None:
        """Stop proposing; what a first look has found stays."""
        looked = self._looking.cancel()
        proposed = self._proposing.cancel()
        if looked or proposed:
            self._workspace.status.emit(Status("canceled", STOPPED if looked else CANCELED))
            self.changed.emit()

    @needs_image
    def drop(self, session: LayerSession) -> None:
        """Discard the open drafts, and what they were chosen from."""
        self._looking.cancel()
        self.proposals = None
        if session.drafts.found.drafts:
            self._workspace.propose(session, None)
        self.changed.emit()

    def _lesson(self, session: LayerSession, plane: Plane, order: AxisOrder) -> Lesson | None:
        """What the committed objects teach; takes up negative marks alone as ground.

        Raises ValueError if all objects are labeled in a region that has no shape there.
        """
        lesson = self._marked_lesson(session, plane, order)
        if lesson is None or order:
            return lesson
        where = self.labeled_within()
        if isinstance(where, Shapes):
            point = self._workspace.viewer.dims.point
            [complete] = within_shapes(where, session.geometry, [lesson.plane], point)
            return labeled_ground(lesson, complete)
        return labeled_ground(lesson, np.ones(lesson.labels.shape, bool)) if where else lesson

    def _marked_lesson(
        self, session: LayerSession, plane: Plane, order: AxisOrder
    ) -> Lesson | None:
        editor = _editor(session)
        drafts = session.drafts
        lesson = lesson_of(editor, drafts.ground, order, plane)
        if lesson is None:
            return None
        state = session.prompt_state
        shape = session.geometry.shape[-2:]
        ground = ground_marked(state.prompts.on(plane), plane, order, shape, lesson.side)
        if ground is None or state.edited_on(plane) is not None:
            return lesson
        self._workspace.prediction_unwanted.emit()
        self._workspace.annotator.mark_ground(ground, [plane])
        self._workspace.prompt_layers.set_positive(True)  # what follows is an object again
        return lesson_of(editor, drafts.ground, order, plane)

    def _goes_on(self) -> bool:
        """Whether this image, or one of the same folder and channels, taught the same model.

        And whether the user says so: another magnification shows objects of another size.
        """
        taught = self._taught
        request = self._workspace.request()
        if not self.expects_mine or not self.drafts_next:
            return False
        if taught is None or request is None or taught.kind.model != request.model:
            return False
        session = self._workspace.session
        if session is not None and session.taught is taught.kind:
            return True
        return taught.place is not None and taught.place == self._place()

    def _place(self) -> _Place | None:
        """The folder of the image's file, and how many channels are read; None without a file."""
        layers = [layer for layer in self._workspace.images if self._workspace.is_used(layer)]
        paths = [layer.source.path or layer.metadata.get(PATH) for layer in layers]
        folders = {Path(path).absolute().parent for path in paths if path}
        return (folders.pop(), len(layers)) if len(folders) == 1 else None

    def _seeds(
        self, session: LayerSession, plane: Plane, layer: Layer | None
    ) -> list[Prompt] | None:
        """The prompts that a layer gives on the plane; None if the settings say where."""
        if layer is None:
            return None
        if isinstance(layer, Labels):
            geometry = session.geometry  # the layer need not be writable; a lazy one is not
            if geometry.other_pixels(layer) or not geometry.lies_on(layer):
                raise ValueError(NOT_ON_IMAGE.format(name=layer.name))
            seen = transposed_view(layer.data, geometry.order)
            return prompts_from_labels(np.asarray(seen[plane]))
        return _points_on(layer, session, plane, self._workspace.viewer.dims.point)

    # ------------------------------------------------------------------ the worker

    def _filter(self) -> None:
        proposals = self.proposals
        settings = self._settings
        workspace = self._workspace
        session = workspace.session
        if proposals is None or settings is None or not self._is_current(proposals):
            if session is not None and session.drafts.open:
                workspace.say(NOT_KEPT)
            return
        sift = self._sift(proposals) if self.like_mine else None
        note = NO_EXAMPLES if self.like_mine and sift is None else ""
        other_model = self._other_model(session, proposals)
        settled = proposals.session.drafts.settled
        known = KnownObjects(self._committed(proposals), settled)
        self._filtering.start(
            "Filtering",
            lambda: choose_drafts_job(proposals, settings, known, sift, note, other_model),
        )

    def _other_model(self, session: LayerSession, proposals: Proposals) -> str:
        """A sentence on a model that is made for such images and not here; empty without one."""
        reference = session.geometry.kept_reference()
        used = find_model(proposals.request.model.reference).spec
        if used is None or proposals.seen is None:
            return ""
        rgb = any(layer.rgb and layer.dtype == np.uint8 for layer in self._workspace.images)
        bright = rgb and proposals.seen.is_bright_field
        name = better_model(reference, used, rgb=rgb, bright=bright)
        return download_sentence(name, BY_WINDOW) if name else ""

    def _committed(self, proposals: Proposals) -> np.ndarray | None:
        """The committed objects on the plane; None if they have other pixels."""
        editor = _editor(proposals.session)
        if editor is None:
            return None
        return np.array(transposed_view(editor.layer.data, proposals.order)[proposals.plane])

    def _sift(self, proposals: Proposals) -> Sift | None:
        """What keeps the objects like those committed on the plane, or on that with the most.

        None if there are too few.
        """
        request = proposals.request
        editor = _editor(proposals.session)
        if editor is None:
            return None
        similar = examples(editor, proposals.order, proposals.plane)
        if similar is None:
            return None
        return lambda instances: self._inference.service.sift_job(
            request, instances, similar.plane, similar.labels
        )

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            self._workspace.status.emit(Status("working", SEGMENTING, progress.fraction))

    def _on_proposed(self, proposed: Proposed) -> None:
        requested = self._requested
        if requested is not None and self._is_current(requested):
            self._remember(requested, proposed.kind)
            said = self._expected(requested, proposed.kind)
            self.proposals = replace(
                requested, candidates=proposed.candidates, expected=said, seen=proposed.seen
            )
            self._filter()
            if proposed.looks_again:
                self._look_again(requested.request, proposed.candidates)
        self.changed.emit()

    def _expected(self, requested: Proposals, kind: ObjectKind | None) -> str:
        """What was looked for, in words."""
        settings, lesson = self._settings, requested.lesson
        if settings is not None and settings.words:
            return requested.expected
        if kind is None:  # micro-sam's decoder heeds no lesson
            return ""
        if lesson is not None:
            return expected(lesson, kind=kind)
        sized = settings is not None and settings.object_side > 0
        return requested.expected or ("" if sized else EXPECTED_BY_MODEL)

    def _look_again(self, request: PredictionRequest, first: MaskCandidates) -> None:
        """Propose once more behind the drafts of the first look, which can be judged meanwhile."""
        service, settings = self._inference.service, self._settings
        assert settings is not None, "something was proposed with it"
        job = partial(service.look_again_job, request, settings, first)
        self._looking.start(LOOKING, job)

    def _on_look(self, progress: Progress) -> None:
        """Say that it goes on, as long as the user does nothing else."""
        at_rest = not self._inference.busy and not self._workspace.prompted
        if at_rest and self._said.kind != "failed":
            status = Status("working", LOOKING, progress.fraction, way_out=STOP_LOOKING)
            self._workspace.status.emit(status)

    def _on_looked(self, proposed: Proposed) -> None:
        """Choose the drafts from the second look; what was settled meanwhile stays so.

        A refusal that the user has not read yet stays in the status line.
        """
        if self.proposals is not None and self._is_current(self.proposals):
            self._says_found = self._said.kind != "failed"
            found = proposed.candidates
            self.proposals = replace(self.proposals, candidates=found, seen=proposed.seen)
            self._filter()
            if proposed.looks_again:
                self._look_again(self.proposals.request, found)
        self.changed.emit()

    def _remember(self, requested: Proposals, kind: ObjectKind | None) -> None:
        """Keep what a lesson taught, for the next image and for *Keep as model*."""
        session = requested.session
        lesson = requested.lesson
        if lesson is None or kind is None:
            return
        text = expected(lesson, kind=kind)
        session.taught = KindTaught(requested.request.model, kind, text)
        text = expected(lesson, session.geometry.name, kind)
        self._taught = _Taught(text, self._place(), session.taught)

    def _on_filtered(self, chosen: ChosenDrafts) -> None:
        proposals = chosen.proposals
        if proposals is self.proposals and self._is_current(proposals):
            session = proposals.session
            self._subjects[session] = proposals.subject
            self._drafted.setdefault(session, set()).add((proposals.order, proposals.plane))
            self._workspace.propose(session, chosen.drafts)
            if self._says_found:
                self._workspace.say(chosen.text)
            self._says_found = True
            self._propose_ahead()
        self.changed.emit()

    def _on_failed(self, reason: str) -> None:
        self._proposing.cancel()
        self._looking.cancel()
        self._filtering.cancel()
        self._workspace.fail(reason)
        self.changed.emit()

    # ------------------------------------------------------------------ the subject

    def _on_subject(self) -> None:
        """Forget what another model proposed, or what was proposed on another image.

        The drafts of an image that was left wait for it to be chosen again.
        """
        if self._requested is not None and not self._is_current(self._requested):
            self.cancel()
        session = self._workspace.session
        subject = self._workspace.subject
        if session is None or subject is None:
            return
        if not session.drafts.found.drafts:
            self._draft_shown()
            return
        before = self._subjects.setdefault(session, subject)  # of drafts that were restored
        if before[:2] != subject[:2]:  # only moved it is the same image
            self.drop()

    def _on_plane(self, *_: object) -> None:
        """Draft a plane by itself when it rests; those that are only passed are not."""
        if self.drafts_next:
            self._draft_later.start()

    @needs_plane
    def _draft_shown(self, session: LayerSession, plane: Plane) -> None:
        """Begin with a plane on which nothing was done yet, if what was taught goes on there."""
        settings = self._settings
        is_free = self.drafts_next and not self.proposing and not session.geometry.order
        if not is_free or settings is None or not self._goes_on():
            return
        if session.drafts.open or session.prompt_state.prompts.on(plane):
            return
        if session.editor is not None and session.editor.masks_on_planes().get(plane, 0):
            return
        shown = (session.geometry.order, plane)
        drafted = self._drafted.setdefault(session, set())
        if shown not in drafted:
            drafted.add(shown)  # only once, also if discarded
            self.start(settings, again=True)

    def _propose_ahead(self) -> None:
        """Propose masks where the user will probably go next: the next plane, or image."""
        settings = self._settings
        if not self._goes_on() or settings is None or self._workspace.session is None:
            return
        kind = self._taught.kind
        request = self._request_ahead()
        if request is not None and request.model == kind.model and not self._ahead.busy:
            service = self._inference.service
            job = partial(service.propose_ahead_job, request, settings, kind.kind)
            self._ahead.start("Segmenting ahead", job)

    def _request_ahead(self) -> PredictionRequest | None:
        """The next plane, or else the next image if it is of the same folder and channels."""
        request = self._workspace.request()
        after = None
        if request is not None:
            after = self._plane_after(self._workspace.session, request.plane)
        if after:
            return replace(request, plane=after)
        if self._next_image is None:
            return None
        next_request, place = self._next_image
        return next_request if place == self._taught.place else None

    def _plane_after(self, session: LayerSession, plane: Plane) -> Plane | None:
        """The next plane along the last axis of a stack, if it was not drafted; else None."""
        if not plane or plane[-1] + 1 >= session.geometry.shape[-3]:
            return None
        after = (*plane[:-1], plane[-1] + 1)
        drafted = self._drafted.get(session, ())
        return None if (session.geometry.order, after) in drafted else after

    def _on_closed(self, session: LayerSession) -> None:
        """Hold nothing of an image that is gone."""
        if self.proposals is not None and self.proposals.session is session:
            self.proposals = None
        if self._requested is not None and self._requested.session is session:
            self.cancel()
            self._requested = None

    def _is_current(self, proposals: Proposals) -> bool:
        """Whether model and image are still those that were segmented."""
        return self._workspace.subject == proposals.subject


def _editor(session: LayerSession) -> LayerEditor | None:
    """The editor of the committed objects, if these have the pixels of the image."""
    editor = session.editor
    return None if editor is None or session.geometry.other_pixels(editor.layer) else editor


def _points_on(
    layer: Layer, session: LayerSession, plane: Plane, shown: Sequence[float]
) -> list[Prompt]:
    """A click for each point of a layer on a plane of the image."""
    points = session.geometry.from_layer(layer, np.asarray(layer.data), shown)
    here = (np.round(points[:, :-2]) == np.array(plane)).all(axis=1)
    size = np.array(session.geometry.shape[-2:])
    inside = ((points[:, -2:] >= -0.5) & (points[:, -2:] <= size - 0.5)).all(axis=1)
    if not (here & inside).any():
        raise ValueError(NO_POINT.format(layer.name))
    return prompts_at(points[here & inside][:, -2:])
