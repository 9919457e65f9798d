"""What is known about each image: prompts, operations, answers, and where its objects go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from napari import Viewer
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import LabelIndex
from napari_simmat.widgets.controls import Status, StatusKind
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment import outputs
from napari_simmat.widgets.segment.history import Edit, Operation, Operations
from napari_simmat.widgets.segment.inference import Answer
from napari_simmat.widgets.segment.label_editor import Finished
from napari_simmat.widgets.segment.outputs import Classes, Preview
from napari_simmat.widgets.segment.prompt_layers import PromptLayers
from napari_simmat.widgets.segment.prompt_state import Asked, Followed, Plane, Prompts, corrected_by


@dataclass(eq=False)
class View:
    """What is open in one view of an image, answered there, and found on other planes of it."""

    asked: Asked
    answers: dict[Plane, tuple[Asked, Answer]] = field(default_factory=dict)
    found: dict[Plane, tuple[Followed, ...]] = field(default_factory=dict)


@dataclass(eq=False)
class Work:
    """Everything about one image.

    Its objects and the list of what was done are one, however it is seen; what is open belongs to
    the view in which it was asked for.

    Parameters
    ----------
    place
        As the image is seen now.
    layers
        Keys of its layers.
    operations, finished
        What was done, and what came of it.
    views
        By their order.
    """

    place: ImageGeometry
    layers: frozenset[str]
    operations: Operations = field(default_factory=Operations)
    finished: Finished | None = None
    views: dict[AxisOrder, View] = field(default_factory=dict)

    def view(self, order: AxisOrder) -> View:
        """What is open in a view."""
        return self.views.setdefault(order, View(Asked(order=order)))

    @property
    def shown(self) -> View:
        """What is open in the view that is seen now."""
        return self.view(self.place.order)

    @property
    def asked(self) -> Asked:
        """What is open now."""
        return self.shown.asked

    @asked.setter
    def asked(self, asked: Asked) -> None:
        self.view(asked.order).asked = asked

    @property
    def answers(self) -> dict[Plane, tuple[Asked, Answer]]:
        """What was answered, with what was open then."""
        return self.shown.answers

    @property
    def found(self) -> dict[Plane, tuple[Followed, ...]]:
        """What was found on planes to which objects were followed."""
        return self.shown.found

    @property
    def prompts(self) -> Prompts:
        """What is asked for now."""
        return self.asked.prompts

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes its objects; None for one still to be made."""
        return None if self.finished is None else self.finished.layer


class Works(QObject):
    """One `Work` for each image that was chosen, for as long as one of its layers is open.

    A labels layer is counted once and followed until it is removed, also while another image is
    chosen: what is painted into it belongs to the image whose objects it holds.
    """

    painted = Signal(object, object)
    """The `Finished` that was painted into by hand, and its `Edit`."""
    replaced = Signal(object)
    """The `Finished` whose layer has got another array: its objects are counted anew."""
    closed = Signal(object)
    """The `Work` of an image none of whose layers is open any more."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._works: list[Work] = []
        self._finished: dict[str, Finished] = {}

    def on(self, place: ImageGeometry, layers: frozenset[str], current: Work | None) -> Work:
        """The work on the image that shares a layer, the current one first; else a new one."""
        known = [] if current is None else [current]
        for work in (*known, *self._works):
            if work.layers & layers and work.place.usual.shape == place.usual.shape:
                work.place, work.layers = place, layers
                break
        else:
            work = Work(place, layers)
        self._works = [work, *(other for other in self._works if other is not work)]
        return work

    def finished(self, layer: Labels, census: LabelIndex | None = None) -> Finished:
        """What `layer` holds.

        Parameters
        ----------
        layer
            A labels layer of the viewer.
        census
            Its objects, if they are known, so that they need not be counted.
        """
        key = str(layer.unique_id)
        if key not in self._finished:
            self._finished[key] = Finished(layer, self._on_painted, self.replaced.emit, census)
        return self._finished[key]

    def by_key(self, key: str) -> Finished | None:
        """What the layer of this key holds; None if it is gone."""
        return self._finished.get(key)

    def forget(self, gone: Layer, left: Iterable[Layer]) -> None:
        """Drop what was done to a layer that was removed; `left` are those still open."""
        for work in self._works:
            work.operations.forget_layer(str(gone.unique_id))
            if work.objects is gone:
                work.finished = None
        if (finished := self._finished.pop(str(gone.unique_id), None)) is not None:
            finished.release()
        open_layers = {str(layer.unique_id) for layer in left}
        closed = [work for work in self._works if not work.layers & open_layers]
        self._works = [work for work in self._works if work.layers & open_layers]
        for work in closed:
            self.closed.emit(work)

    def release(self) -> None:
        """Stop following all layers."""
        for finished in self._finished.values():
            finished.release()
        self._finished.clear()

    def _on_painted(self, finished: Finished, edit: Edit) -> None:
        # Of several images whose objects are in one layer it is the one that was chosen last.
        work = next((work for work in self._works if work.finished is finished), None)
        if work is not None:
            name = f"painting in {finished.layer.name}"
            work.operations.add(Operation(name, work.asked, work.asked, edit))
        self.painted.emit(finished, edit)


# The state of the image that is worked on: what is open, what is finished, and how to go back.


class Session(QObject):
    """Every change goes through `do`: it is shown in the layers and noted in the image's list."""

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """What can be undone, redone or committed, an object, or a layer in use, may have changed."""
    stale = Signal()
    """What is open on the plane that is shown has changed, and is to be answered again."""
    turned = Signal()
    """The image is seen in another view, and the preview is empty: what is known is to be shown."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.prompts = PromptLayers(viewer, self)
        self.preview = Preview(viewer)
        self.classes = Classes(viewer)
        self.work: Work | None = None
        self.works = Works(self)
        self._edited = False
        self._strokes: list[tuple[Finished, Edit]] = []
        self._painted = QTimer(self)
        self._painted.setSingleShot(True)
        self._painted.timeout.connect(self._follow_strokes)
        self._offers: tuple[Callable[[], object], ...] = ()
        self._released = False
        self.prompts.edited.connect(self._on_edited)
        self.prompts.replaced.connect(self.changed)
        self.works.painted.connect(self._on_painted)
        self.works.replaced.connect(lambda _: self.changed.emit())
        viewer.layers.events.removed.connect(self._on_removed)

    def release(self) -> None:
        """Let go of the viewer; its layers stay, but for the preview."""
        self._released = True
        self._painted.stop()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.works.release()
        self.prompts.release()
        self.preview.remove()

    # -------------------------------------------------------------------- objects

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes the image's objects; None for one still to be made."""
        return None if self.work is None else self.work.objects

    def use_objects(self, layer: Labels | None) -> None:
        """Commit into this labels layer; None for a new one."""
        if self.work is not None and layer is not self.work.objects:
            self.work.finished = None if layer is None else self.works.finished(layer)
            self.changed.emit()

    def has_pixels(self) -> bool:
        """Whether the objects, if there are any, have the image's pixels; if not it is said."""
        work = self.work
        if work is None or work.finished is None:
            return True
        others = work.place.other_pixels(work.finished.layer)
        if others:
            self.fail(f"{others}: choose another layer, or a new one, under Objects.")
        return not others

    def target(self) -> Finished:
        """The objects of the image, in a new layer if there is none.

        Raises
        ------
        ValueError
            If the layer cannot be written; the sentence says why, but has no end.
        """
        work = self.work
        assert work is not None
        if work.objects is None or work.objects not in self.viewer.layers:
            layer = outputs.new_objects(self.viewer, work.place)
            work.finished = self.works.finished(layer, LabelIndex())
        elif misfit := work.place.misfit(work.objects):
            raise ValueError(misfit)
        assert work.finished is not None
        return work.finished

    # ---------------------------------------------------------------------- plane

    def plane(self) -> Plane:
        """The plane that is shown.

        Raises
        ------
        ValueError
            If no plane of the image is shown; the sentence says what to do.
        """
        assert self.work is not None
        return self.work.place.plane(self.viewer.dims)

    def plane_or_none(self) -> Plane | None:
        """The plane that is shown; None where none is."""
        try:
            return None if self.work is None else self.plane()
        except ValueError:
            return None

    def plane_or_fail(self) -> Plane | None:
        """The plane that is shown; None where none is, and the status line says why."""
        try:
            return None if self.work is None else self.plane()
        except ValueError as error:
            self.fail(str(error))
            return None

    # ----------------------------------------------------------------------- view

    def order_or_none(self) -> AxisOrder | None:
        """The view that the viewer shows; None where it shows no plane of the image."""
        try:
            return None if self.work is None else self.work.place.order_shown(self.viewer.dims)
        except ValueError:
            return None

    def turn(self, order: AxisOrder) -> None:
        """See the image in another view: with the prompts, and the masks, that belong there."""
        work = self.work
        assert work is not None
        self.flush()
        self.preview.clear_all()
        work.place = work.place.seen(order)
        self.show_asked(work.asked)
        self.turned.emit()
        self.show_answers()
        self.changed.emit()

    def show_answers(self) -> None:
        """Show the masks of all that is open in this view."""
        work = self.work
        assert work is not None
        if work.answers:
            masks = {plane: answer.masks for plane, (_, answer) in work.answers.items()}
            self.preview.show_all(work.place, masks)

    # ----------------------------------------------------------------- operations

    def do(self, name: str, after: Asked, edit: Edit | None = None) -> None:
        """Note an operation that was just done, and show what is open after it.

        Parameters
        ----------
        name
            In words, as in "Undone: commit of 3."
        after
            What is open after it.
        edit
            What it changed in a labels layer, if it did.
        """
        work = self.work
        assert work is not None
        view = work.view(after.order)
        before = view.asked
        self.show_asked(after)
        work.operations.add(Operation(name, before, view.asked, edit))
        if edit is not None and work.finished is not None:
            self.classes.follow(work.place, work.finished, edit)
        self.changed.emit()

    def undo(self) -> None:
        """Take back the last operation on this image."""
        self.flush()
        if self.work is not None and (operation := self.work.operations.undo()) is not None:
            self._play(self.work, operation, back=True)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self.flush()
        if self.work is not None and (operation := self.work.operations.redo()) is not None:
            self._play(self.work, operation, back=False)

    def flush(self) -> None:
        """Take up edits of the prompts that were made a moment ago."""
        work = self.work
        if work is None or self._released:
            return
        now = self.prompts.read(work.place, self.viewer.dims.point)
        now = replace(now, masks=work.prompts.masks)
        if now == work.prompts:
            return
        after = replace(work.asked, prompts=now, followed=corrected_by(now, work.asked, work.found))
        if not (self.prompts.travel(work.place) and now.flat == work.prompts.flat):
            work.operations.add(Operation("prompts", work.asked, after))
        work.asked = after
        self._forget_closed(work)
        self._edited = True
        self._offers = ()
        self.changed.emit()

    def show_asked(self, asked: Asked) -> None:
        """Show what is open in the layers; answers to what is closed are forgotten.

        In another view than the one that is seen it is shown when that one is.
        """
        work = self.work
        if work is None:
            return
        if asked.order != work.place.order:
            work.asked = asked
            view = work.view(asked.order)
            view.answers = {at: each for at, each in view.answers.items() if asked.on(at)}
            return
        shown = self.prompts.write(asked.prompts, work.place, self.viewer.dims.point)
        work.asked = replace(asked, prompts=replace(shown, masks=asked.prompts.masks))
        self._forget_closed(work)

    def _forget_closed(self, work: Work) -> None:
        """Take away answers and masks of all planes on which nothing is open any more."""
        shown = self.plane_or_none()
        for plane in {*work.answers, *(() if shown is None else (shown,))}:
            if not work.asked.on(plane):
                work.answers.pop(plane, None)
                self.preview.clear(plane, work.place.order)

    def _play(self, work: Work, operation: Operation, *, back: bool) -> None:
        """Revert an operation, or do it again."""
        if (edit := operation.edit) is not None:
            finished = self.works.by_key(edit.layer)
            misfit = "The layer is gone" if finished is None else work.place.misfit(finished.layer)
            if finished is None or misfit:
                step_again = work.operations.redo if back else work.operations.undo
                step_again()
                self.fail(f"{misfit}; nothing was changed.")
                return
            finished.play(edit, back=back)
            self.classes.follow(work.place, finished, edit)
        self.show_asked(operation.before if back else operation.after)
        where = "" if operation.after.order == work.place.order else " in another view"
        self.say(f"{'Undone' if back else 'Redone'}: {operation.name}{where}.")
        self.changed.emit()
        if operation.before != operation.after:
            self.stale.emit()

    # --------------------------------------------------------------------- status

    def say(self, text: str, kind: StatusKind = "done") -> None:
        """Show a sentence in the status line."""
        self.status.emit(Status(kind, text))

    def fail(
        self, reason: str, offer: str = "", accept: Callable[[], object] | None = None
    ) -> None:
        """Show what went wrong, and perhaps a button that helps."""
        self._offers = () if accept is None else (accept,)
        self.status.emit(Status("failed", reason, offer=offer))
        self.changed.emit()

    def offer(self, status: Status, *accept: Callable[[], object]) -> None:
        """Ask by a status with buttons; each has something to call."""
        self._offers = accept
        self.status.emit(status)

    def accept(self, number: int = 0) -> None:
        """Do what the status line offered."""
        offers, self._offers = self._offers, ()
        if number < len(offers):
            offers[number]()

    # --------------------------------------------------------------------- layers

    def _on_edited(self) -> None:
        self.flush()
        if self._edited:  # since a moment ago, whoever noticed
            self.stale.emit()

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        if isinstance(gone, Layer):
            self.works.forget(gone, self.viewer.layers)
            self.changed.emit()

    def _on_painted(self, finished: Finished, edit: Edit) -> None:
        self._strokes.append((finished, edit))
        self._painted.start(0)  # some of napari's tools tell of a stroke before they paint it
        self.changed.emit()

    def _follow_strokes(self) -> None:
        strokes, self._strokes = self._strokes, []
        for finished, edit in strokes:
            if self.work is not None and self.work.finished is finished:
                self.classes.follow(self.work.place, finished, edit)
