"""From prompts to objects: what is open is asked, and the answer is shown and committed.

Values come from layers and go to layers on the main thread; the worker computes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from napari import Viewer
from qtpy.QtCore import QObject

from napari_simmat._text import pluralize
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import ImageValue
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.inference import Answer, Answering, ChosenModel, Question
from napari_simmat.widgets.segment.object_actions import ObjectActions, PromptActions
from napari_simmat.widgets.segment.prompt_state import Asked, Plane, prompts_of
from napari_simmat.widgets.segment.session import Session, Work

READY = "Ready: click on an object, or draw a box around it."
_FOLLOWED = "Followed to here: a click corrects it, Commit (C) writes it on all planes."
_COARSE = "Preview at half the resolution, the exact mask follows"
_MISSED = "Not committed, as the view changed before the answer: roll back and press C again."
_COARSE_COMMIT = "Preview at half the resolution, the exact mask is committed when it is there"


class Interaction(Session):
    """Prompts become masks become objects, on the plane that is shown.

    Attributes
    ----------
    actions
        What can be done to finished objects.
    asking
        What can be done to prompts beside drawing them.
    """

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self.answering = Answering(self)
        self.worker, self.segmenter = self.answering.worker, self.answering.segmenter
        self.actions = ObjectActions(self)
        self.asking = PromptActions(self)
        self._model = ChosenModel("")
        self._image: ImageValue | None = None
        self._seen_images: dict[AxisOrder, ImageValue] = {}
        self._asked = Asked()
        self._seen: Plane | None = None
        self._commit_next = False
        self._missed = ""
        self._glimpse: Plane | None = None
        self.answering.progressed.connect(self._on_progressed)
        self.answering.glimpsed.connect(self._on_glimpsed)
        self.answering.answered.connect(self._on_answered)
        self.answering.failed.connect(self._on_failed)
        self.stale.connect(self._on_stale)
        dims = viewer.dims.events
        self._views = (dims.current_step, dims.ndisplay, dims.order)
        for event in self._views:
            event.connect(self._on_plane)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited, or prompts were edited a moment ago."""
        return self.answering.busy or self.prompts.unsettled

    def release(self) -> None:
        """Stop working and let go of the viewer; its layers stay, but for the preview."""
        if self._released:
            return
        self.answering.close()
        for event in self._views:
            event.disconnect(self._on_plane)
        super().release()

    # --------------------------------------------------------- what is chosen

    def set_subject(
        self,
        model: ChosenModel,
        image: ImageValue | None,
        place: ImageGeometry | None,
        layers: frozenset[str],
    ) -> None:
        """Choose the model and the image; None for no image.

        Parameters
        ----------
        model
            One that can be loaded, where there is an image.
        image
            The channels as the model takes them.
        place
            Where the image lies.
        layers
            Keys of the image's layers: an image that shares one keeps its prompts and operations.
        """
        self.flush()
        if self._is_subject(model, image) and place is not None and self.work is not None:
            moved = not np.array_equal(place.matrix, self.work.place.matrix)
            self.work.place = place.seen(self.work.place.order)
            if moved:  # its pixels may have another shape now
                self._seen_images.clear()
                for view in self.work.views.values():
                    view.answers.clear()
            if moved or self.prompts.points is None:
                self.show_asked(self.work.asked)
                self.request(again=True)
            return
        self.drop()
        self._missed = ""
        self._model, self._image = model, image
        self._seen_images.clear()
        self.preview.clear_all()
        if image is None or place is None:
            self.work = None
            self.changed.emit()
            return
        self.work = self.works.on(place, layers, self.work)
        for view in self.work.views.values():
            view.answers.clear()
        self.work.place = place.seen(self.order_or_none() or ())
        self.preview.prepare(place)
        self.show_asked(self.work.asked)
        self.changed.emit()
        self.request()

    def _is_subject(self, model: ChosenModel, image: ImageValue | None) -> bool:
        return (
            image is not None
            and self._image is not None
            and self.work is not None
            and image.token == self._image.token
            and model == self._model
        )

    def image(self) -> ImageValue | None:
        """The image as it is seen; None where none is chosen."""
        if self.work is None or self._image is None:
            return None
        place = self.work.place
        if place.order not in self._seen_images:
            self._seen_images[place.order] = self._image.seen(place.order, place.spacing)
        return self._seen_images[place.order]

    @property
    def subject(self) -> tuple[object, ...]:
        """What answers follow from: model, image and where it lies; empty for no image."""
        if self.work is None or self._image is None:
            return ()
        return self._model, self._image.token, self.work.place.matrix.tobytes()

    def question(self) -> Question | None:
        """What work on the whole image is told; None where no image is chosen."""
        work, image = self.work, self.image()
        if work is None or image is None:
            return None
        first = (0,) * (len(work.place.shape) - 2)
        return Question(self._model, image, self.plane_or_none() or first)

    # ----------------------------------------------------------- what is done

    def request(self, *, again: bool = False) -> None:
        """Answer the prompts of the plane that is shown, or just get the image ready.

        Parameters
        ----------
        again
            Also if that was answered already.
        """
        work, image = self.work, self.image()
        if work is None or image is None or self._released or self._commits_elsewhere:
            return
        self._edited = False
        try:
            plane = self.plane()
            asked = work.asked.on(plane)
            prompts = prompts_of(asked, plane, work.place.shape[-2:])
        except ValueError as error:
            self._seen = None
            self.drop()
            self.fail(str(error))
            return
        if plane != self._glimpse or not prompts:
            self._clear_glimpse()
        if not prompts:
            work.answers.pop(plane, None)
            self.preview.clear(plane, work.place.order)
        elif not again and plane in work.answers and work.answers[plane][0] == asked:
            self.drop()
            self._show_answer(work, plane)
            return
        self._seen, self._asked = plane, asked
        self.answering.ask(Question(self._model, image, plane, prompts, asked.choices))
        self.changed.emit()

    def segment(self) -> None:
        """Answer the prompts (again)."""
        self.flush()
        if self.work is not None and not self.work.asked:
            self.say(READY, "ready")
            return
        self.request(again=True)

    def commit(self) -> None:
        """Write the previewed masks as objects and use up their prompts."""
        self.flush()
        work, plane = self.work, self.plane_or_fail()
        if work is None or plane is None:
            return
        asked = work.asked.on(plane)
        if not asked.is_asking:
            self.say("There is nothing to commit: click on an object first.", "ready")
            return
        if plane not in work.answers or work.answers[plane][0] != asked:
            self._commit_next = True  # as soon as the answer is there; a preview is none
            if not self.answering.busy or self._edited:
                self.request()
            return
        self.actions.commit(plane, work.answers[plane][1])

    def cancel(self) -> None:
        """Drop what is being computed; the window is free at once."""
        if self.answering.busy:
            self.drop()
            self.status.emit(Status("cancelled", "Cancelled. Segment (S) starts again."))
            self.changed.emit()

    def drop(self) -> None:
        """Want no answer any more."""
        self.answering.drop()
        self._commit_next = False
        self._clear_glimpse()

    # ------------------------------------------------------------------ answers

    def _on_progressed(self, status: Status) -> None:
        if self._glimpse is not None:
            coarse = _COARSE_COMMIT if self._commit_next else _COARSE
            status = replace(status, text=f"{coarse}. {status.text}")
        self.status.emit(status)

    def _on_glimpsed(self, question: Question, answer: Answer) -> None:
        """Show a coarse answer; it is not among the answers, so nothing takes it for one."""
        if self.work is not None:
            self._glimpse = question.plane
            self.preview.show(self.work.place, question.plane, answer.masks)
            self._on_progressed(Status("working", "Encoding"))

    def _clear_glimpse(self) -> None:
        """Take a coarse answer away that nothing will replace."""
        if self._glimpse is not None and self.work is not None:
            self.preview.clear(self._glimpse, self.work.place.order)
        self._glimpse = None

    @property
    def _commits_elsewhere(self) -> bool:
        """Whether another plane's answer is awaited to be committed, which comes first."""
        question = self.answering.question
        awaited = self._commit_next and self.answering.busy and question is not None
        return awaited and question.plane != self.plane_or_none()

    def _on_answered(self, question: Question, answer: Answer, seconds: float) -> None:
        work, plane = self.work, question.plane
        if work is None:
            return
        commit, self._commit_next = self._commit_next, False
        self._glimpse = None  # the answer replaces it
        if not question.prompts:
            self.say(
                " ".join(
                    filter(None, [self._missed, self._ready(), work.place.remark, answer.note])
                ),
                "ready",
            )
            self._missed = ""
        else:
            work.answers[plane] = (self._asked, answer)
            self._show_answer(work, plane, seconds)
            if commit and work.asked.on(plane) == self._asked:
                self.actions.commit(plane, answer)
        self.changed.emit()
        if commit and plane != self.plane_or_none():  # what is open here has waited for it
            self._seen = None
            self._on_plane()

    def _on_failed(self, reason: str) -> None:
        self._commit_next = False
        self._clear_glimpse()
        self.fail(reason)

    def _show_answer(self, work: Work, plane: Plane, seconds: float | None = None) -> None:
        asked, answer = work.answers[plane]
        self.preview.show(work.place, plane, answer.masks)
        opened = asked.opened_on(plane)
        text = _described(answer, None if opened is None else opened.label)
        text, self._missed = " ".join(filter(None, [self._missed, text])), ""
        self.status.emit(replace(Status("done", text), seconds=seconds))
        self.changed.emit()

    def _on_stale(self) -> None:
        """Answer what is open now; where nothing is, an answer that is awaited is of no use."""
        plane = self.plane_or_none()
        if self._commits_elsewhere:
            return
        is_open = self.work is not None and plane is not None and self.work.asked.on(plane)
        if self._edited or is_open:
            self.request()
        else:
            self.drop()

    def _on_plane(self) -> None:
        order = self.order_or_none()
        turned = self.work is not None and order is not None and order != self.work.place.order
        if turned:
            if self._commit_next:
                self._missed = _MISSED
            self.drop()
            self._seen = None
            self.turn(order)
        plane = self.plane_or_none()
        if self.work is None or plane == self._seen:
            return
        unseen, self._seen = self._seen is None, plane
        if plane is None:
            return
        self.flush()
        self.prompts.follow_plane(self.work.prompts.on(plane))
        if self.work.asked.on(plane):
            self.request()
        elif unseen and (question := self.question()) is not None:
            self.answering.ask(question)  # nothing is asked, but the first click is to be quick
        elif not self.answering.busy:
            self.say(self._ready(), "ready")

    def _ready(self) -> str:
        """What a click on the plane that is shown does."""
        plane = self.plane_or_none()
        followed = self.work is not None and plane is not None and self.work.found.get(plane)
        return _FOLLOWED if followed else READY


def _described(answer: Answer, opened: int | None) -> str:
    """What the status line says about an answer."""
    known = [score for score in answer.scores if not np.isnan(score)]
    scores = ", ".join(f"{score:.2f}" for score in known[:4]) + (" ..." if len(known) > 4 else "")
    count = pluralize(len(answer.scores), "object")
    parts = [f"{count}, score {scores}." if known else f"{count}."]
    if opened is not None:
        parts.insert(0, f"Object {opened} is open again:")
    if answer.choices and answer.choices[-1]:
        parts.append(f"Mask {answer.choices[-1] + 1} of {answer.counts[-1]} (Q for the next).")
    return " ".join([*parts, answer.note]).strip()
