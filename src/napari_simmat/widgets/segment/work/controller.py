"""From prompts to objects: layer events become requests, predictions are shown and committed.

Layers are read and written on the main thread only; values cross over to the worker and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from napari import Viewer
from qtpy.QtCore import QObject, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.predictions import (
    ChosenModel,
    Prediction,
    PredictionRequest,
    described,
)
from napari_simmat.annotation.prompt_grouping import ObjectPrompt, objects_on
from napari_simmat.annotation.prompt_state import Plane, PromptState, plane_names
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.layers.images_in_view import center_of_view, image_before
from napari_simmat.widgets.segment.layers.linked_planes import LinkedPlanes
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.patient_view import Convention, PatientView
from napari_simmat.widgets.segment.work.all_frames import AllFrames
from napari_simmat.widgets.segment.work.arrangement import LayerArrangement
from napari_simmat.widgets.segment.work.automatic import AutomaticSegmentation
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.large_plane import LargePlane
from napari_simmat.widgets.segment.work.naming import ObjectNaming
from napari_simmat.widgets.segment.work.object_actions import ObjectActions, PromptActions
from napari_simmat.widgets.segment.work.pen import Pen
from napari_simmat.widgets.segment.work.plane_status import PlaneStatus, Said
from napari_simmat.widgets.segment.work.propagation import EmbeddingPrefetcher, Propagation
from napari_simmat.widgets.segment.work.review import DraftReview
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.status_line import Status

NOTHING_TO_COMMIT = "There is nothing to commit: click on an object first."
COMMITS_THEN = "All planes are committed once the objects are propagated."
COMMITS_NEXT = "{work}, then commits"
OPEN_THERE = "Nothing is open on this plane: go to {planes}, and press <key:commit> there."
STILL_OPEN = "{image} still has uncommitted prompts."
HAS_DRAFTS = "{image} still has {drafts}."
WAS_STOPPED = "Segmenting everything on {image} was stopped."
NOT_COMMITTED = (
    "Not committed: {image} was left before the mask was ready. Go back and press "
    "<key:commit> again."
)
MISSED_COMMIT = (
    "Not committed: the view changed before the mask was ready. Go back to that view and press "
    "<key:commit> again."
)
CANCELED = "Canceled. Segment (<key:segment>) starts again."
DROPPED = "What was propagated is discarded; its prompts are still open."
DRAFTS_DROPPED = "Discarded {drafts}."
BRING_BACK = "Bring back"
SEGMENT = "Segment"
REFINED = "Refined on the whole image."


class Waiting(NamedTuple):
    """What a commit waits for; it is done then."""

    plane: Plane | None = None
    """The prediction of this plane."""
    propagation: bool = False
    """All planes of a propagation."""
    then: tuple[tuple[Plane, PromptState], ...] = ()
    """What is to be committed after it: planes, and what was open there when the user said so."""


NOTHING = Waiting()


class SegmentController(QObject):
    """Keeps prediction, preview and commits in step with the prompts of the current plane.

    Attributes
    ----------
    workspace
        The image, its layers and the status line.
    inference
        The worker and the model in it.
    objects, prompts
        Actions on committed objects, and on prompts.
    propagation, automatic, frames, prefetcher
        Work in the background.
    review
        Going over the drafts that `automatic` proposes.
    pen
        Lines drawn by hand.
    naming
        Naming objects by those that are classed by hand.
    arrangement
        What layers need before they are used.
    patient_view
        How planes of patients are seen.
    linked_planes
        Rolled axes show the place that was pointed at.
    plane_status
        What the status line says of the current plane.
    actions
        The user's actions by name, but for those that need a value of the form.
    waiting
        What a commit waits for.
    way_out
        What is said where the model fails, since it is not there; None if it is.
    """

    model_unwanted = Signal()
    """The user wants another model than the one that is not there."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.workspace = self._workspace = workspace = Workspace(viewer, self)
        self.inference = inference = InferenceQueue(self)
        self.objects = ObjectActions(workspace)
        self.prompts = PromptActions(workspace)
        self.propagation = Propagation(workspace, inference, self.objects)
        self.automatic = AutomaticSegmentation(workspace, inference)
        self.frames = AllFrames(workspace, inference, self.objects, self.automatic)
        self.review = DraftReview(workspace, self.objects)
        self.pen = Pen(workspace, self.review)
        self.pen.clicked.connect(self.objects.select)
        self.pen.swept.connect(lambda *drafts: self.perform(partial(self.review.settle, *drafts)))
        self.pen.drawn.connect(lambda stroke: self.perform(lambda: self.pen.take(stroke)))
        self.naming = ObjectNaming(workspace, inference)
        self.prefetcher = EmbeddingPrefetcher(workspace, inference)
        self.arrangement = LayerArrangement(workspace, inference)
        self.patient_view = PatientView(viewer)
        for turned in (workspace.subject_changed, workspace.view_changed):
            turned.connect(self._turn_canvas)
        self.actions: dict[str, Callable[[], object]] = {
            **{tool: partial(workspace.draw, tool) for tool in ("point", "box", "pen")},
            "flip": workspace.prompt_layers.flip,
            "segment": self.segment,
            "commit": self.commit_all,
            "clear": self.discard,
            "undo": workspace.undo,
            "redo": workspace.redo,
            "cycle": self.prompts.choose_mask,
            "next": self.prompts.new_object,
            "edit": self.review.edit,
            "delete": self.objects.delete,
            "merge": self.objects.merge,
            "split": self.objects.split,
            "encode whole stack": self.prefetcher.encode_whole,
            "stop encoding": self.prefetcher.cancel,
            "clear embeddings": self.prefetcher.clear,
            "accept": self.review.accept,
            "reject": self.review.reject,
            "next doubtful": self.review.go_on,
        }
        self.waiting = NOTHING
        self.way_out: Status | None = None
        # The plane that was handled last; None makes the next event of the viewer handle its plane
        # again, as after a change of view, when the same indices mean another plane.
        self._plane: Plane | None = None
        self._missed = ""  # what the next status begins with
        self._progress = Status("working", "")
        self._large = large = LargePlane(inference, self)
        self.plane_status = PlaneStatus(workspace, inference, self.propagation, large)
        self.plane_status.encoding_declined.connect(large.decline)
        large.encoded.connect(self._on_encoded)
        large.failed.connect(self._on_failed)
        workspace.prompt_layers.edited.connect(self._settle)
        workspace.replayed.connect(self._on_replayed)
        workspace.prediction_wanted.connect(self.request)
        workspace.prediction_unwanted.connect(self.drop)
        inference.progressed.connect(self._on_progress)
        inference.predicted.connect(self._on_predicted)
        inference.failed.connect(self._on_failed)
        self.propagation.finished.connect(self._on_propagated)
        self.propagation.stopped.connect(self._on_propagation_stopped)
        dims = viewer.dims.events
        dims.ndisplay.connect(self._turn_canvas)
        self._view_events = (dims.current_step, dims.ndisplay, dims.order)
        for event in self._view_events:
            event.connect(self._on_plane)
        # Behind these: napari calls what was connected last first, so that one plane is handled.
        self.linked_planes = LinkedPlanes(viewer, self._geometry)

    @property
    def busy(self) -> bool:
        """Whether a prediction or other work is awaited, or prompts were just edited."""
        parts = (
            *(self.inference, self.propagation, self.automatic, self.frames),
            *(self.arrangement, self.naming),
        )
        return any(part.busy for part in parts) or self.workspace.prompt_layers.pending

    @property
    def proposing(self) -> bool:
        """Whether all objects are looked for, on this plane or on all frames."""
        return self.automatic.proposing or self.frames.busy

    @property
    def holds_image(self) -> bool:
        """Whether another image would end work in the background, or discard what it found."""
        propagation = self.propagation
        runs = propagation.busy or self.proposing
        return runs or propagation.result is not None or self.review.has_drafts

    @property
    def can_commit(self) -> bool:
        """Whether there are prompts, or objects that were found, on this or another plane."""
        return (
            self.workspace.prompted or self.propagation.result is not None or self.review.has_drafts
        )

    def _geometry(self) -> ImageGeometry | None:
        session = self.workspace.session
        return None if session is None else session.geometry

    def _turn_canvas(self, *_: object) -> None:
        self.patient_view.show(self._geometry())

    def see_planes(self, convention: Convention) -> None:
        """See the planes of patients by a convention."""
        self.patient_view.convention = convention
        self._turn_canvas()
        self.request()  # says what is on the left and at the top

    def release(self) -> None:
        """Stop working and stop following the viewer; its layers stay, except for the preview."""
        if self.workspace.released:
            return
        self.propagation.cancel()
        self._large.cancel()
        self.patient_view.release()
        self.linked_planes.release()
        self.workspace.viewer.dims.events.ndisplay.disconnect(self._turn_canvas)
        self.prefetcher.release()
        self.automatic.release()
        self.naming.release()
        self.pen.release()
        self.review.release()
        self.inference.close()
        for event in self._view_events:
            event.disconnect(self._on_plane)
        self.workspace.release()

    # ---------------------------------------------------------------- what is chosen

    def set_subject(
        self,
        model: ChosenModel,
        image: ImageValue | None,
        geometry: ImageGeometry | None,
        layers: frozenset[str],
    ) -> None:
        """Choose the model and the image; None for no image.

        Parameters
        ----------
        model
            One that can be loaded, if there is an image.
        image
            The channels as the model takes them.
        geometry
            Where the image lies.
        layers
            Keys of the image's layers: an image that shares one keeps its prompts and history.
        """
        workspace = self.workspace
        drawn = workspace.read_prompts()
        if image is None or geometry is None:
            self.drop()
            self._large.cancel()
            self._missed = ""
            workspace.choose_none(model)
            return
        known = workspace.subject
        if known is not None and (known.model, known.image) == (model, image.token):
            if workspace.move(geometry):
                self.request(again=True)
            elif drawn:
                self.request()
            return
        before = workspace.session
        left = "" if before is None else self._left_behind(before)
        self.drop()
        self._large.cancel()
        workspace.choose(model, image, geometry, layers)
        self._missed = "" if before is workspace.session else left
        self.request()

    def _left_behind(self, session: LayerSession) -> str:
        """What is unfinished on an image, in sentences for whoever goes over to another."""
        missed = self.waiting.plane is not None
        drafts = pluralize(len(session.drafts.open), "draft")
        sentences = (
            (session.prompt_state, NOT_COMMITTED if missed else STILL_OPEN),
            (session.drafts.open, HAS_DRAFTS),
            (self.proposing, WAS_STOPPED),
        )
        image = session.geometry.name
        return " ".join(each.format(image=image, drafts=drafts) for on, each in sentences if on)

    def choose(self, choice: FormChoice) -> None:
        """Segment what is chosen; on another image the last-used tool is activated."""
        workspace = self.workspace
        before = workspace.session, workspace.model
        front = image_before(workspace.viewer, choice.layers)
        hidden_by = workspace.in_front
        workspace.in_front = "" if front is None else front.name
        self.set_subject(choice.model, choice.image, choice.geometry, choice.layers)
        is_new = (workspace.session, workspace.model) != before
        if is_new and workspace.plane_or_none() is not None:
            workspace.prompt_layers.restore_tool()
        if not is_new and workspace.in_front != hidden_by:
            self.request()  # says what is in sight now

    # ------------------------------------------------------------------ user actions

    def perform(self, action: Callable[[], object]) -> None:
        """Carry out a user action on the prompts as they are drawn now.

        A drawn prompt is read in the turn of the event loop after napari's event. An action may
        come before that, so this is the one place that reads the prompts first.
        """
        self._settle()
        action()

    @needs_image
    def segment(self, session: LayerSession) -> None:
        """Predict for the prompts of the current plane, again if need be."""
        self._large.want()
        if session.prompt_state:
            self.request(again=True)
        else:
            self.plane_status.say_ready()

    @needs_image
    def commit_all(self, session: LayerSession) -> None:
        """Commit what was propagated to all planes; else what is shown on the current plane.

        While objects are propagated, the commit waits for all their planes. In another view than
        that of the propagation, what is open there goes first. Clicks go before objects found by
        segmenting everything, which they hide.
        """
        plane, result = self.workspace.plane_or_none(), self.propagation.result
        open_here = plane is not None and bool(session.prompt_state.on(plane))
        if self.propagation.is_under_way(session):
            self.waiting = Waiting(propagation=True)
            self.workspace.say(COMMITS_THEN, "working")
        elif result is not None and (result.is_shown or not open_here):
            self.commit_propagation()
        elif self.review.is_shown and not open_here:
            self.review.commit()
        else:
            self.commit()

    @needs_image
    def discard(self, session: LayerSession) -> None:
        """Take away what `commit_all` would write: a propagation, open prompts, or drafts.

        Drafts are nothing that is undone, so the status line offers to bring them back.
        """
        plane, result = self.workspace.plane_or_none(), self.propagation.result
        open_here = plane is not None and bool(session.prompt_state.on(plane))
        if result is not None and (result.is_shown or not open_here):
            self.propagation.drop()
            self.workspace.say(DROPPED)
        elif self.review.is_shown and not open_here:
            found = session.drafts.found._replace(drafts=session.drafts.open)
            self.automatic.drop()
            text = DRAFTS_DROPPED.format(drafts=pluralize(len(found.drafts), "draft"))
            back = partial(self.workspace.propose, session, found)
            self.workspace.offer(Status("done", text, offer=BRING_BACK), back)
        else:
            self.prompts.clear()

    @needs_plane
    def commit(self, session: LayerSession, plane: Plane) -> None:
        """Commit the masks of the current plane, now or as soon as they are predicted."""
        state = session.prompt_state.on(plane)
        if not state.has_prompts:
            elsewhere = set(session.prompt_state.planes())
            if self.review.plane is not None:
                elsewhere.add(self.review.plane)
            there = OPEN_THERE.format(planes=plane_names(sorted(elsewhere)))
            self.workspace.say(there if elsewhere else NOTHING_TO_COMMIT, "ready")
            return
        prediction = session.prediction(plane)
        if prediction is not None:
            self.objects.commit(plane, prediction, remark=self._large.text_of_cut(prediction))
            return
        if self._awaits_commit:
            self._commit_later(plane, state)
            return
        self.waiting = Waiting(plane)
        self.workspace.prompt_layers.next_group(state.prompts)  # clicks from here on
        awaited = self.inference.request if self.inference.busy else None
        if awaited is None or awaited.plane != plane or awaited.state != state:
            self.request()
        else:
            self._on_progress(self._progress)

    def _commit_later(self, plane: Plane, state: PromptState) -> None:
        """Commit what was drawn since an earlier commit, which waits and goes first."""
        known = [here for at, here in self.waiting.then if at == plane]
        if self.waiting.plane == plane and self.inference.request is not None:
            known.insert(0, self.inference.request.state)
        if not known or state.prompts.without(known[-1].prompts):
            self.waiting = self.waiting._replace(then=(*self.waiting.then, (plane, state)))
            self.workspace.prompt_layers.next_group(state.prompts)

    def commit_propagation(self) -> None:
        """Commit what was propagated; clicks made since then are propagated first."""
        if not self.propagation.needs_update:
            self.propagation.commit()
        elif self.propagation.restart():
            self.waiting = Waiting(propagation=True)

    def cancel(self) -> None:
        """Drop everything that is computed for the user; the window is free at once."""
        if self.inference.busy:
            self.drop()
            status = Status("canceled", CANCELED, offer=SEGMENT)
            self.workspace.offer(status, lambda: self.perform(self.segment))
            self.workspace.prediction_changed.emit()
        self.propagation.cancel()
        self.automatic.cancel()
        self.frames.cancel()
        self.naming.cancel()
        self.arrangement.cancel()

    def edit_at(self, position: Sequence[float]) -> None:
        """Edit the object or the draft at a world position, where a double click was begun."""
        if label := self.objects.label_at(position):

            def edit() -> None:
                self.prompts.take_back_click(position)
                self.objects.edit(label)

            self.perform(edit)
        elif (draft := self.review.draft_at(position)) is not None:

            def open_draft() -> None:
                self.prompts.take_back_click(position)
                self.review.open(draft)

            self.perform(open_draft)

    # -------------------------------------------------------------------- prediction

    def request(self, *, again: bool = False, whole: bool = False) -> None:
        """Predict for the prompts of the current plane, or only encode it if there are none.

        Parameters
        ----------
        again
            Also if the prediction is there already.
        whole
            Not on a part of the plane, as before the whole of a large one is encoded.
        """
        workspace = self.workspace
        session, image = workspace.session, workspace.viewed_image()
        if session is None or image is None or workspace.released or self._awaits_commit:
            return
        try:
            plane = workspace.plane()
            state = session.prompt_state.on(plane)
            objects = objects_on(state, plane, session.geometry.shape[-2:])
        except ValueError as error:
            self._plane = None
            self.drop()
            self._say_unusable(str(error))
            workspace.prediction_changed.emit()
            return
        if objects and not again and session.prediction(plane) is not None:
            self.drop()
            self._show_prediction(session, plane)
        else:
            if not objects:
                session.predictions.pop(plane, None)
                workspace.preview.clear([plane], session.geometry.order)
            self._plane = plane
            self._submit(plane, image, objects, state, whole=whole)
        workspace.prediction_changed.emit()

    def _submit(
        self,
        plane: Plane,
        image: ImageValue,
        objects: tuple[ObjectPrompt, ...],
        state: PromptState,
        *,
        whole: bool = False,
    ) -> None:
        workspace = self.workspace
        made = PredictionRequest(workspace.model, image, plane, objects, state.choices, state)
        center = center_of_view(workspace.viewer, workspace.session.geometry)
        self.inference.submit(replace(made, center=center, whole=whole))

    def _say_unusable(self, reason: str) -> None:
        """Say why prompts cannot be used; on another image, offer to segment that one instead."""
        workspace, other = self.workspace, self.workspace.other_under_mouse()
        if other is None:
            workspace.fail(reason)
            return

        def segment_other() -> None:
            workspace.undo()
            workspace.image_wanted.emit(other)

        workspace.fail(reason, f"Segment {other.name}", segment_other)

    def drop(self) -> None:
        """Discard the awaited prediction, and the commit that waits for it."""
        self.inference.drop()
        self._stop_waiting()

    @property
    def _awaits_commit(self) -> bool:
        """Whether a prediction is awaited for a commit, which goes before what is open else.

        That is what was drawn since, or on another plane. Where the user has taken back what the
        prediction is of, another one is needed.
        """
        session, request, plane = self.workspace.session, self.inference.request, self.waiting.plane
        if plane is None or session is None or request is None or not self.inference.busy:
            return False
        here = session.prompt_state.on(plane)
        return plane != self.workspace.plane_or_none() or (
            request.plane == plane and not request.state.prompts.without(here.prompts)
        )

    def _commit_next(self, session: LayerSession) -> bool:
        """Predict what is to be committed next, for its commit; whether anything is."""
        image = self.workspace.viewed_image()
        while self.waiting.then and image is not None:
            (plane, said), *rest = self.waiting.then
            self.waiting = Waiting(plane, then=tuple(rest))
            state = session.prompt_state.on(plane)
            state = replace(state, prompts=state.prompts.within(said.prompts))
            with suppress(ValueError):  # negative marks alone are left
                if objects := objects_on(state, plane, session.geometry.shape[-2:]):
                    self._submit(plane, image, objects, state)
                    return True
        self._stop_waiting()
        return False

    def _stop_waiting(self) -> None:
        """No commit waits for a prediction any more; one may wait for a propagation."""
        self.waiting = self.waiting._replace(plane=None, then=())

    @needs_image
    def _on_predicted(
        self,
        session: LayerSession,
        request: PredictionRequest,
        prediction: Prediction,
        seconds: float,
    ) -> None:
        workspace, plane = self.workspace, request.plane
        commits, then = self.waiting.plane == plane, self.waiting.then
        self._stop_waiting()
        if not request.objects:
            missed, self._missed = self._missed, ""
            after = (self.patient_view.words(session.geometry.remark), prediction.note)
            self.plane_status.say(Said(Status("ready", ""), missed, after, prediction))
            self._offer_channels(session)
        elif commits:
            self.objects.commit(plane, prediction, request.state)
        elif not request.whole or request.state == session.prompt_state.on(plane):
            before = session.prediction(plane)
            session.predictions[plane] = (request.state, prediction)
            self._show_prediction(session, plane, seconds, _refined(before, prediction))
        if prediction.part:
            self._large.encode(request)
        self.propagation.say_progress()
        workspace.prediction_changed.emit()
        self.waiting = self.waiting._replace(then=then if commits else ())
        if commits and self._commit_next(session):
            return
        if commits and plane != workspace.plane_or_none():
            self._plane = None  # what is open on the current plane has waited for the commit
            self._on_plane()
        elif commits and session.prompt_state.on(plane):
            self.request()  # for what was drawn since

    def _on_progress(self, status: Status) -> None:
        """Say what is under way, and that a commit follows if one waits."""
        self._progress = status
        if self.waiting.plane is not None:
            status = replace(status, text=COMMITS_NEXT.format(work=status.text))
        self.workspace.status.emit(status)

    def _on_failed(self, reason: str) -> None:
        self._stop_waiting()
        if self.way_out is None:
            self.workspace.fail(reason)
        else:
            self.workspace.offer(self.way_out, self.model_unwanted.emit)
        self.workspace.prediction_changed.emit()

    def _show_prediction(
        self,
        session: LayerSession,
        plane: Plane,
        seconds: float | None = None,
        remark: str = "",
    ) -> None:
        state, prediction = session.predictions[plane]
        self.workspace.preview.show(session.geometry, plane, prediction.masks)
        edited = state.edited_on(plane)
        text = described(prediction, None if edited is None else edited.label)
        text = " ".join(filter(None, [self.pen.said(state), text]))
        before, self._missed = self._missed, ""
        status = replace(Status("done", text), seconds=seconds)
        after = (self.plane_status.join_hint(session, plane), remark)
        self.plane_status.say(Said(status, before, after, prediction))

    @needs_image
    def _on_encoded(self, session: LayerSession) -> None:
        """Refine what was predicted on a part of the plane."""
        large = self._large.request
        if large is None or self.workspace.plane_or_none() != large.plane:
            return
        prediction = session.prediction(large.plane)
        if prediction is not None and prediction.part:
            self.request(again=True, whole=True)
        else:
            self.plane_status.say_of_the_whole()

    def _on_propagated(self) -> None:
        waits, self.waiting = self.waiting.propagation, NOTHING
        if waits:
            self.commit_propagation()

    def _on_propagation_stopped(self) -> None:
        self.waiting = self.waiting._replace(propagation=False)

    # ------------------------------------------------------------- what has changed

    def _settle(self) -> None:
        """Read the prompts, and predict for what is new."""
        if self.workspace.read_prompts():
            self.request()

    def _on_replayed(self) -> None:
        """Predict for what is open now; if nothing is, an awaited prediction is of no use."""
        session, plane = self.workspace.session, self.workspace.plane_or_none()
        if self._awaits_commit:
            return
        if session is not None and plane is not None and session.prompt_state.on(plane):
            self.request()
        else:
            self.drop()

    @needs_image
    def _on_plane(self, session: LayerSession, *_: object) -> None:
        """The viewer shows another plane, or the same image along other axes."""
        workspace, order = self.workspace, self.workspace.order_or_none()
        if order is not None and order != session.geometry.order:
            if self.waiting.plane is not None:
                self._missed = MISSED_COMMIT
            self.drop()
            self._plane = None
            workspace.read_prompts()  # in the view in which they were drawn
            workspace.turn(order)
        plane = workspace.plane_or_none()
        if plane == self._plane:
            return
        first, self._plane = self._plane is None, plane
        if plane is None:
            return
        if first:
            workspace.prompt_layers.restore_tool()  # napari takes it away in 3D
        # Prompts in layers of fewer axes go along with the slider, and no layer event says so.
        drawn = workspace.read_prompts()
        workspace.prompt_layers.continue_last_group(session.prompts.on(plane))
        if drawn or session.prompt_state.on(plane):
            self.request()
        elif first and (request := workspace.request()) is not None:
            self.inference.submit(request)  # nothing to predict, but the first click is to be fast
        elif not self.inference.busy:
            self.plane_status.say_ready()
        workspace.prediction_changed.emit()

    def _offer_channels(self, session: LayerSession) -> None:
        """Offer to move channels that are not the first axis, if nothing was done yet.

        napari aligns layers of fewer axes with the last axes of others, so the objects of such an
        image would lie on the wrong planes; with the channels in front they lie where they belong.
        """
        if not len(session.history):
            used = [layer for layer in self.workspace.images if self.workspace.is_used(layer)]
            proposed = self.arrangement.proposed(used)
            if proposed is not None:
                status = Status("ready", proposed.text, offer=proposed.offer)
                self.workspace.offer(status, proposed.act)


def _refined(before: Prediction | None, after: Prediction) -> str:
    """What the whole plane has changed, if the masks before are of a part of it."""
    if before is None or not before.part or after.part:
        return ""
    pairs = zip(before.masks, after.masks, strict=True)
    return "" if all(np.array_equal(*pair) for pair in pairs) else REFINED
