"""From prompts to objects: what happens between the layers, the worker and the list of operations.

Values come from layers and go to layers here, on the main thread; the worker computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from napari import Viewer
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.progress import Progress
from napari_simmat.widgets import label_layers
from napari_simmat.widgets.label_layers import Preview
from napari_simmat.widgets.operations import (
    Commit,
    Operation,
    Painting,
    PromptChange,
    Prompts,
)
from napari_simmat.widgets.place import Place
from napari_simmat.widgets.prompt_layers import PromptLayers
from napari_simmat.widgets.segmenting import (
    Answer,
    ImageValue,
    Plane,
    Question,
    Segmenter,
    prompts_of,
)
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task, Worker
from napari_simmat.widgets.works import Work, Works

_READY = "Ready: click on an object, or draw a box around it."


class Interaction(QObject):
    """Prompts become masks become objects, on the plane that is shown."""

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """What can be undone, redone or committed, or a layer in use, may have changed."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.worker = Worker()
        self.segmenter = Segmenter()
        self.prompts = PromptLayers(viewer, self)
        self.preview = Preview(viewer)
        self.work: Work | None = None
        self._works = Works()
        self._model = ""
        self._image: ImageValue | None = None
        self._task: Task | None = None
        self._question: Question | None = None
        self._asked = Prompts()
        self._unasked = False
        self._seen: Plane | None = None
        self._commit_next = False
        self._offer: Callable[[], None] | None = None
        self._painted: Labels | None = None
        self._released = False

        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.prompts.edited.connect(self._on_edited)
        self.prompts.replaced.connect(self.changed)
        for event in (viewer.dims.events.current_step, viewer.dims.events.ndisplay):
            event.connect(self._on_plane)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited, or prompts were edited a moment ago."""
        return self._task is not None or self.prompts.unsettled

    # --------------------------------------------------------- what is chosen

    def set_subject(
        self, model: str, image: ImageValue | None, place: Place | None, layers: frozenset[str]
    ) -> None:
        """Choose the model and the image; None for no image.

        Parameters
        ----------
        model
            Its name or file.
        image
            The channels as the model takes them.
        place
            Where the image lies.
        layers
            Keys of the image's layers: an image that shares one keeps its prompts and operations.
        """
        self._flush()
        same = (
            image is not None
            and self._image is not None
            and self.work is not None
            and image.token == self._image.token
            and model == self._model
        )
        if same and place is not None and self.work is not None:
            moved = not np.array_equal(place.matrix, self.work.place.matrix)
            self.work.place = place
            if moved or self.prompts.points is None:
                self._show_prompts(self.work.prompts)
                self.request(again=True)
            return
        self._drop_task()
        self._model, self._image = model, image
        if image is None or place is None:
            self.work = None
            self.preview.clear()
            self.changed.emit()
            return
        self.work = self._works.on(place, layers, self.work)
        self.work.answers.clear()
        self.preview.clear()
        self._watch(self.work.objects)
        self._show_prompts(self.work.prompts)
        self.changed.emit()
        self.request()

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes the image's objects; None for one still to be made."""
        return None if self.work is None else self.work.objects

    def use_objects(self, layer: Labels | None) -> None:
        """Commit into this labels layer; None for a new one."""
        if self.work is not None and layer is not self.work.objects:
            self.work.objects = layer
            self._watch(layer)
            self.changed.emit()

    # ----------------------------------------------------------- what is done

    def request(self, *, again: bool = False) -> None:
        """Answer the prompts of the plane that is shown, or just get the image ready.

        Parameters
        ----------
        again
            Also if that was answered already.
        """
        work, image = self.work, self._image
        if work is None or image is None or self._released:
            return
        self._unasked = False
        try:
            plane = work.place.plane(self.viewer.dims)
            asked = work.prompts.on(plane)
            questions = prompts_of(asked, plane, work.place.shape[-2:])
        except ValueError as error:
            self._drop_task()
            self._fail(str(error))
            return
        if not asked:
            work.answers.pop(plane, None)
            self.preview.clear(plane)
        elif not again and plane in work.answers and work.answers[plane][0] == asked:
            self._drop_task()
            self._show_answer(work, plane)
            return
        question = Question(self._model, image, plane, questions)
        if self._task is not None and self._question is not None:
            if self._question.subject != question.subject:
                self._task.cancel()
            elif not asked and not self._asked:
                return  # it is being made ready already
        self._question, self._asked, self._seen = question, asked, plane
        name = "Segmenting" if asked else "Getting ready"
        self._task = self.worker.submit(name, lambda: self.segmenter.answering(question))
        self.status.emit(Status("working", name))
        self.changed.emit()

    def segment(self) -> None:
        """Answer the prompts (again)."""
        self._flush()
        if self.work is not None and not self.work.prompts:
            self.status.emit(Status("ready", _READY))
            return
        self.request(again=True)

    def commit(self) -> None:
        """Write the previewed masks as objects and use up their prompts."""
        self._flush()
        work = self.work
        if work is None:
            return
        try:
            plane = work.place.plane(self.viewer.dims)
        except ValueError as error:
            self._fail(str(error))
            return
        asked = work.prompts.on(plane)
        if not asked:
            self.status.emit(
                Status("ready", "There is nothing to commit: click on an object first.")
            )
            return
        if plane not in work.answers or work.answers[plane][0] != asked:
            self._commit_next = True  # as soon as the answer is there
            if self._task is None or self._unasked:
                self.request()
            return
        self._commit(work, plane)

    def clear(self) -> None:
        """Remove the prompts of the plane that is shown."""
        self._flush()
        work = self.work
        if work is None:
            return
        try:
            kept = work.prompts.off(work.place.plane(self.viewer.dims))
        except ValueError as error:
            self._fail(str(error))
            return
        self._commit_next = False
        if kept != work.prompts:
            before = work.prompts
            self._show_prompts(kept)
            work.operations.add(PromptChange(before, work.prompts))
        self.changed.emit()
        self.request()

    def undo(self) -> None:
        """Take back the last operation on this image."""
        self._flush()
        if self.work is not None and (operation := self.work.operations.undo()) is not None:
            self._play(operation, back=True)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._flush()
        if self.work is not None and (operation := self.work.operations.redo()) is not None:
            self._play(operation, back=False)

    def cancel(self) -> None:
        """Drop what is being computed; the window is free at once."""
        if self._task is not None:
            self._drop_task()
            self.status.emit(Status("cancelled", "Cancelled. Segment (S) starts again."))
            self.changed.emit()

    def accept_offer(self) -> None:
        """Do what the status line offered."""
        offer, self._offer = self._offer, None
        if offer is not None:
            offer()

    def release(self) -> None:
        """Stop working and let go of the viewer; its layers stay, but for the preview."""
        if self._released:
            return
        self._released = True
        self._drop_task()
        self.worker.close()
        for event in (self.viewer.dims.events.current_step, self.viewer.dims.events.ndisplay):
            event.disconnect(self._on_plane)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self._watch(None)
        self.prompts.release()
        self.preview.remove()

    # ------------------------------------------------------------- the worker

    def _on_progress(self, task: Task, progress: Progress) -> None:
        # An earlier click of the same image may still be encoding it: that is what is waited for.
        if self._task is not None and not task.cancelled:
            fraction = progress.done / progress.total if progress.total else None
            text = progress.message[:1].upper() + progress.message[1:]
            self.status.emit(Status("working", text or task.name, fraction))

    def _on_returned(self, task: Task, answer: Answer) -> None:
        if task is not self._task or self.work is None or self._question is None:
            return
        seconds = time.monotonic() - task.since
        work, plane, asked = self.work, self._question.plane, self._asked
        self._task = None
        if not asked:
            self.status.emit(Status("ready", " ".join(filter(None, [_READY, answer.note]))))
        else:
            work.answers[plane] = (asked, answer)
            self._show_answer(work, plane, seconds)
            if self._commit_next:
                self._commit(work, plane)
        self._commit_next = False
        self.changed.emit()

    def _on_failed(self, task: Task, reason: str) -> None:
        if task is self._task:
            self._task, self._commit_next = None, False
            self._fail(reason)

    def _drop_task(self) -> None:
        self.worker.cancel_all()
        self._task, self._commit_next = None, False

    def _show_answer(self, work: Work, plane: Plane, seconds: float | None = None) -> None:
        _, answer = work.answers[plane]
        self.preview.show(work.place, plane, answer.masks)
        scores = ", ".join(f"{score:.2f}" for score in answer.scores[:4])
        more = " ..." if len(answer.scores) > 4 else ""
        count = "1 object" if len(answer.scores) == 1 else f"{len(answer.scores)} objects"
        text = f"{count}, score {scores}{more}. {answer.note}".strip()
        self.status.emit(Status("done", text, seconds=seconds))
        self.changed.emit()

    def _fail(self, reason: str, offer: str = "", accept: Callable[[], None] | None = None) -> None:
        self._offer = accept
        self.status.emit(Status("failed", reason, offer=offer))
        self.changed.emit()

    # ----------------------------------------------------------------- layers

    def _flush(self) -> None:
        """Take up edits of the prompts that were made a moment ago."""
        work = self.work
        if work is None or self._released:
            return
        now = self.prompts.read(work.place, self.viewer.dims.point)
        if now == work.prompts:
            return
        work.operations.add(PromptChange(work.prompts, now))
        work.prompts = now
        self._unasked = True
        self._offer = None
        self.changed.emit()

    def _on_edited(self) -> None:
        self._flush()
        if self._unasked:  # since a moment ago, whoever noticed
            self.request()

    def _on_plane(self) -> None:
        work = self.work
        if work is None:
            return
        try:
            plane = work.place.plane(self.viewer.dims)
        except ValueError:
            self._seen = None
            return
        if plane == self._seen:
            return
        self._seen = plane
        if work.prompts.on(plane):
            self.request()
        elif self._task is None:
            self.status.emit(Status("ready", _READY))

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        if not isinstance(gone, Layer):
            return
        if gone is self._painted:
            self._watch(None)
        self._works.forget(gone, self.viewer.layers)
        self.changed.emit()

    def _show_prompts(self, prompts: Prompts) -> None:
        if self.work is not None:
            point = self.viewer.dims.point
            self.work.prompts = self.prompts.write(prompts, self.work.place, point)

    # ---------------------------------------------------------------- objects

    def _commit(self, work: Work, plane: Plane) -> None:
        _, answer = work.answers[plane]
        masks = [mask for mask in answer.masks if mask.any()]
        if not masks:
            self._fail("The mask is empty: add a point on the object, or draw a larger box.")
            return
        try:
            labels = self._target(work)
            patches = label_layers.write(labels, plane, masks)
        except ValueError as error:
            self._fail(
                f"{error}; commit into a new layer instead.",
                "New layer",
                self._commit_into_new_layer,
            )
            return
        before = work.prompts
        self._show_prompts(before.off(plane))
        work.answers.pop(plane, None)
        self.preview.clear(plane)
        work.operations.add(
            Commit(str(labels.unique_id), patches, before=before, after=work.prompts)
        )
        ids = ", ".join(str(patch.label) for patch in patches[:6])
        self.status.emit(Status("done", f"Committed to {labels.name}: {ids}. Next object."))
        self.changed.emit()

    def _commit_into_new_layer(self) -> None:
        self.use_objects(None)
        self.commit()

    def _target(self, work: Work) -> Labels:
        """The labels layer to write into; raises a sentence without its end if it cannot be."""
        if work.objects is None or work.objects not in self.viewer.layers:
            work.objects = label_layers.new_objects(self.viewer, work.place)
            self._watch(work.objects)
        elif misfit := work.place.misfit(work.objects):
            raise ValueError(misfit)
        return work.objects

    def _play(self, operation: Operation, *, back: bool) -> None:
        """Revert an operation, or do it again."""
        work = self.work
        assert work is not None
        verb = "Undone" if back else "Redone"
        self._commit_next = False
        if isinstance(operation, PromptChange):
            self._show_prompts(operation.before if back else operation.after)
            text = f"{verb}: prompts."
        else:
            labels = self._layer(operation.layer)
            if labels is None or (misfit := work.place.misfit(labels)):
                self._fail(f"{misfit if labels else 'The layer is gone'}; nothing was changed.")
                return
            if isinstance(operation, Painting):
                (labels.undo if back else labels.redo)()
                text = f"{verb}: painting in {labels.name}."
            else:
                for patch in reversed(operation.patches) if back else operation.patches:
                    (patch.revert if back else patch.apply)(labels.data)
                labels.refresh()
                self._show_prompts(operation.before if back else operation.after)
                ids = ", ".join(str(patch.label) for patch in operation.patches[:6])
                text = f"{verb}: commit of {ids}."
        self.status.emit(Status("done", text))
        self.changed.emit()
        if not isinstance(operation, Painting):
            self.request()

    def _layer(self, key: str) -> Labels | None:
        found = [layer for layer in self.viewer.layers if str(layer.unique_id) == key]
        return found[0] if found and isinstance(found[0], Labels) else None

    def _watch(self, layer: Labels | None) -> None:
        """Note what is painted by hand into the objects."""
        if self._painted is not None:
            self._painted.events.paint.disconnect(self._on_painted)
        self._painted = layer
        if layer is not None:
            layer.events.paint.connect(self._on_painted)

    def _on_painted(self) -> None:
        if self.work is not None and self._painted is not None:
            self.work.operations.add(Painting(str(self._painted.unique_id)))
            self.changed.emit()
