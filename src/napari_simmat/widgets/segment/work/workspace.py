"""What the parts of the Segment tab share: the chosen image, its layers, and the status line.

Parts read it and act through it; none of them holds the controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.annotator import AnnotationHost, Annotator
from napari_simmat.annotation.drafts import DraftSet
from napari_simmat.annotation.history import Command, LayerEdit
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.predictions import ChosenModel, PredictionRequest, Subject
from napari_simmat.annotation.prompt_state import Plane, Prompts, PromptState
from napari_simmat.annotation.session_file import identity_of
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.widgets.garbage import CLOSED
from napari_simmat.widgets.layer_data import PROVENANCE
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layers import outputs
from napari_simmat.widgets.segment.layers.images_in_view import (
    area_in_view,
    bring_to_front,
    image_under_mouse,
    images_of,
)
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession, RemovedObjects, Sessions
from napari_simmat.widgets.segment.layers.outputs import PREVIEW, ClassLayers, Preview
from napari_simmat.widgets.segment.layers.prompt_adapters import (
    BOXES,
    POINTS,
    is_drawing,
    unreadable,
)
from napari_simmat.widgets.segment.layers.prompt_layers import PromptLayers
from napari_simmat.widgets.segment.layers.prompt_tools import Tool
from napari_simmat.widgets.shortcuts import shortcut_text
from napari_simmat.widgets.status_line import Status, StatusKind
from napari_simmat.widgets.worker import later

LAYER_GONE = "The layer is gone"
LOADING = "loading"
"""How the commands begin that add the objects of a file."""
UNDO = "Undo"

REMOVED = "{name} was removed with {objects}."
UNDONE = "Undone: {name}. Redo ({key}) brings it back."
REDONE = "Redone: {name}. Undo ({key}) takes it back."


def needs_image(action: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method run only while an image is chosen, and hand it the `LayerSession`.

    It is a method of a part that has the workspace as ``_workspace``; without an image it does
    nothing and returns None. This is the one guard of all actions.
    """

    @wraps(action)
    def act(part: Any, *args: Any, **options: Any) -> Any:
        session = part._workspace.session
        return None if session is None else action(part, session, *args, **options)

    return act


def needs_plane(action: Callable[..., Any]) -> Callable[..., Any]:
    """As `needs_image`, with the current plane; if none is shown, the status line says why."""

    @wraps(action)
    def act(part: Any, session: LayerSession, *args: Any, **options: Any) -> Any:
        try:
            plane = part._workspace.plane()
        except ValueError as error:
            part._workspace.fail(str(error))
            return None
        return action(part, session, plane, *args, **options)

    return needs_image(act)


class Workspace(QObject):
    """The image that is worked on. Every change of its prompts and objects goes through here.

    The prompt layers are a view of the session: they are written when it changes, and read back
    when napari reports an edit.

    Attributes
    ----------
    session
        The state of the chosen image; None if none is chosen.
    sessions
        The states of all open images.
    model, image
        What predictions are made with; the image in its usual view.
    in_front
        Name of an image that hides the chosen one; empty if that is in sight.
    released
        Whether the viewer is not followed any more.
    """

    status = Signal(object)
    """A `Status`."""
    subject_changed = Signal()
    """The model or the image."""
    view_changed = Signal()
    """The axes along which the image is viewed; the preview is empty."""
    prompts_changed = Signal()
    """Uncommitted prompts, the prompt layers, or what can be undone."""
    objects_changed = Signal()
    """Committed objects or the layer that takes them."""
    drafts_changed = Signal()
    """Which drafts are open."""
    prediction_changed = Signal()
    """Whether a prediction is awaited, or the preview."""
    replayed = Signal()
    """Prompts were changed by undo or redo."""
    prediction_wanted = Signal()
    """An action asks for a prediction of the current plane."""
    prediction_unwanted = Signal()
    """An action discards the awaited prediction."""
    command_changed = Signal(object, str, object)
    """A session, and what changed in its history, as `UndoStack` reports it."""
    image_wanted = Signal(object)
    """An `Image` layer that the user wants to segment instead."""
    layer_replaced = Signal(object)
    """The `LayerEditor` of a layer whose array was replaced."""
    model_changed = Signal()
    """What was learned on the image is to be used, or not to be used any more."""
    models_changed = Signal()
    """There are other models in the list."""
    session_closed = Signal(object)
    """The `LayerSession` of an image whose last layer was removed."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.prompt_layers = PromptLayers(viewer, self)
        self.preview = Preview(viewer)
        self.classes = ClassLayers(viewer)
        self.sessions = Sessions(
            self.command_changed.emit, self._on_painted, self._on_replaced, self.session_closed.emit
        )
        self.sessions.take_over(viewer.layers)
        self.session: LayerSession | None = None
        self.model = ChosenModel("")
        self.image: ImageValue | None = None
        self.in_front = ""
        self._views: dict[AxisOrder, ImageValue] = {}
        self._strokes: list[tuple[LayerEditor, LayerEdit]] = []
        self._orphans: list[Labels] = []
        self._later = later(self, self._update_classes)
        self._offer: Callable[[], object] | None = None
        self._other: Callable[[], object] | None = None
        self.released = self._replaying = self._lost_tool = False
        self._restore_later = later(self, self._restore)
        self.prompt_layers.replaced.connect(self.prompts_changed)
        viewer.layers.events.removed.connect(self._on_removed)

    def release(self) -> None:
        """Stop following the viewer; its layers stay, except for the preview.

        That one goes a little later, so that napari can take the dock apart and draw before.
        """
        self.released = True
        self._later.stop()
        self._restore_later.stop()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.sessions.release(self.viewer.layers)
        self.prompt_layers.release()
        preview = self.preview
        QTimer.singleShot(CLOSED, lambda: preview.remove())  # a bound method is held weakly

    # -------------------------------------------------------------------- subject

    @property
    def _workspace(self) -> Workspace:
        """Itself, for `needs_image`."""
        return self

    @property
    def editor(self) -> LayerEditor | None:
        """The image's objects; None without an image, or if they have no layer yet."""
        return None if self.session is None else self.session.editor

    @property
    def prompted(self) -> bool:
        """Whether prompts are open in the current view of the image."""
        return self.session is not None and bool(self.session.prompt_state)

    @property
    def subject(self) -> Subject | None:
        """The model and the image that predictions are made with; None for no image."""
        if self.session is None or self.image is None:
            return None
        return Subject(self.model, self.image.token, self.session.geometry.matrix.tobytes())

    def choose(
        self, model: ChosenModel, image: ImageValue, geometry: ImageGeometry, layers: frozenset[str]
    ) -> None:
        """Work on an image with a model; an image that shares a layer keeps its session."""
        self.model, self.image = model, image
        self._views.clear()
        self.preview.clear_all()
        before = self.session
        self.session = self.sessions.open(
            geometry, layers, before, lambda: identity_of(image, geometry.name)
        )
        if self.session is not before:
            self.prompt_layers.set_positive(True)  # an object begins with a click on it
        self.session.clear_predictions()
        self.session.geometry = geometry.seen(self.order_or_none() or ())
        self.preview.prepare(geometry)
        self.show_prompts(self.session.prompt_state)
        for other in self.sessions.others(self.session):
            if other.editor is not None and other.editor is not self.session.editor:
                # The other image may be hidden now.
                both = [other.editor.layer, self.classes.layer(other.editor)]
                outputs.lower_onto_image(self.viewer, both, other.layers)
        self.raise_layers()
        self.subject_changed.emit()
        if (objects := self.objects) is not None and objects not in self.viewer.layers:
            self._remove(objects, len(self.viewer.layers))  # while no tab was open

    def make_layer(self, geometry: ImageGeometry) -> bool:
        """Make the next layer that an image needs, if any is missing; whether one was.

        napari takes a moment for its first layer of each kind, better now than at a click, and
        better with a turn of the event loop after each.
        """
        if self.preview.layer is None:
            self.preview.prepare(geometry)
            return True
        return self.prompt_layers.make_layer(geometry)

    @needs_image
    def put_aside(self, session: LayerSession) -> None:
        """Close what was done to the chosen image; its file holds it, and none is chosen."""
        editor = session.editor
        self.sessions.close(session)
        gone = [] if editor is None else [editor.layer, self.classes.layer(editor)]
        self.choose_none(self.model)
        for layer in gone:
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def choose_none(self, model: ChosenModel) -> None:
        """Work on no image."""
        self.model, self.image = model, None
        self._views.clear()
        self.preview.clear_all()
        self.session = None
        self.subject_changed.emit()

    def move(self, geometry: ImageGeometry) -> bool:
        """Take up where the chosen image lies now; whether its transform has changed."""
        session = self.session
        renamed = geometry.axis_names != session.geometry.usual.axis_names
        moved = not np.array_equal(geometry.matrix, session.geometry.matrix)
        before = session.geometry.usual
        session.geometry = geometry.seen(session.geometry.order)
        if moved:  # its pixels may have another shape now
            self._views.clear()
            session.clear_predictions()
        if before.name != geometry.name and session.editor is not None:
            classes = self.classes.layer(session.editor)
            outputs.follow_name(session.editor.layer, classes, before.name, geometry.name)
        self._carry(before, geometry)  # at once: napari warns if it draws layers of unlike units
        if moved or self.prompt_layers.points is None:
            self.show_prompts(session.prompt_state)
        if moved:
            self.subject_changed.emit()
        elif renamed:
            self.view_changed.emit()
        if before.layer_options()["units"] != geometry.layer_options()["units"]:
            self.objects_changed.emit()  # the sizes of all
        return moved

    def _carry(self, before: ImageGeometry, geometry: ImageGeometry) -> None:
        """Let the layers that the tab made for an image follow it."""
        editor, prompts = self.session.editor, self.prompt_layers
        layers = [self.preview.layer, prompts.points, prompts.boxes]
        if editor is not None:
            layers += [editor.layer, self.classes.layer(editor)]
        for layer in layers:
            if layer is not None and PROVENANCE in layer.metadata:
                geometry.carry(layer, before)

    def viewed_image(self) -> ImageValue | None:
        """The image in its current view; None if none is chosen."""
        if self.session is None or self.image is None:
            return None
        geometry = self.session.geometry
        if geometry.order not in self._views:
            self._views[geometry.order] = self.image.seen(geometry.order, geometry.spacing)
        return self._views[geometry.order]

    def request(self) -> PredictionRequest | None:
        """A request for the current plane without prompts; None if no image is chosen."""
        session = self.session
        image = self.viewed_image()
        if session is None or image is None:
            return None
        first = (0,) * (len(session.geometry.shape) - 2)
        return PredictionRequest(self.model, image, self.plane_or_none() or first)

    # -------------------------------------------------------------------- objects

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes the image's objects; None if it is still to be made."""
        return None if self.session is None else self.session.objects

    @needs_image
    def use_objects(self, session: LayerSession, layer: Labels | None) -> None:
        """Commit into this labels layer; None for a new one."""
        if layer is not session.objects:
            session.editor = None if layer is None else self.sessions.editor(layer)
            self.objects_changed.emit()

    def has_pixels(self) -> bool:
        """Whether the objects, if any, have the image's pixels; the status line says if not."""
        if self.editor is None:
            return True
        others = self.session.geometry.other_pixels(self.editor.layer)
        if others:
            self.fail(f"{others}: choose another layer, or a new one, under Objects.")
        return not others

    def target(self) -> LayerEditor:
        """The editor of the image's objects, with a new layer if there is none.

        Raises
        ------
        ValueError
            If the layer cannot be written; the sentence says why, without a full stop.
        """
        session = self.session
        if session.objects is None or session.objects not in self.viewer.layers:
            layer = outputs.new_objects(self.viewer, session.geometry)
            session.editor = self.sessions.editor(layer, LabelIndex())
            self.name_objects()
            self.objects_changed.emit()
        elif misfit := session.geometry.misfit(session.objects):
            raise ValueError(misfit)
        return session.editor

    # ---------------------------------------------------------------------- plane

    def plane(self) -> Plane:
        """The current plane.

        Raises
        ------
        ValueError
            If no plane of the image is shown; the sentence says what to do.
        """
        return self.session.geometry.plane(self.viewer.dims)

    def plane_or_none(self) -> Plane | None:
        """The current plane; None if none is shown."""
        try:
            return None if self.session is None else self.plane()
        except ValueError:
            return None

    def order_or_none(self) -> AxisOrder | None:
        """The view that the viewer shows; None if it shows no plane of the image."""
        session = self.session
        try:
            return None if session is None else session.geometry.order_shown(self.viewer.dims)
        except ValueError:
            return None

    def turn(self, order: AxisOrder) -> None:
        """Change to another view, with its own prompts and masks."""
        session = self.session
        self.preview.clear_all()
        session.geometry = session.geometry.seen(order)
        self.show_prompts(session.prompt_state)
        self.view_changed.emit()
        self.show_predictions()

    # --------------------------------------------------------------- several images

    @property
    def images(self) -> list[Image]:
        """All open images, the lowest first."""
        return images_of(self.viewer)

    def is_used(self, layer: Layer) -> bool:
        """Whether a layer belongs to the chosen image."""
        return self.session is not None and str(layer.unique_id) in self.session.layers

    def other_under_mouse(self) -> Image | None:
        """The topmost image under the mouse, if it is not the chosen one."""
        layer = image_under_mouse(self.viewer)
        return None if layer is None or self.is_used(layer) else layer

    def raise_layers(self) -> None:
        """Bring the layers in use above all images."""
        layers = self.prompt_layers
        editor = self.editor
        classes = None if editor is None else self.classes.layer(editor)
        used = [classes, self.objects, self.preview.layer, layers.boxes, layers.points]
        outputs.raise_above_images(self.viewer, used)

    def show_image(self) -> None:
        """Bring the chosen image in front of the others."""
        bring_to_front(self.viewer, [layer for layer in self.images if self.is_used(layer)])
        self.raise_layers()

    def name_objects(self) -> None:
        """Name objects and classes after their images if several images have objects."""
        others = [each for each in self.sessions.others(self.session) if each.editor is not None]
        for each in (*others, self.session) if others else ():
            classes = self.classes.layer(each.editor)
            outputs.name_after_image(each.editor.layer, classes, each.geometry.name)

    # -------------------------------------------------------------------- prompts

    def use_prompt_layer(self, name: str, layer: Layer | None) -> None:
        """Take prompts from this layer in place of that called `name`, if they can be read."""
        if layer is not None and (reason := unreadable(layer)) is not None:
            self.fail(reason)
            self.prompts_changed.emit()  # the one before is in use
            return
        self.prompt_layers.use(layer, name)
        if self.session is not None:
            self.prompt_layers.ensure(self.session.geometry)

    @needs_image
    def draw(self, session: LayerSession, tool: Tool) -> None:
        """Activate a tool, and the layer in which it draws."""
        self.prompt_layers.ensure(session.geometry)
        self.prompt_layers.draw(tool)

    def read_prompts(self) -> bool:
        """Take over what the user drew; whether anything was new."""
        session = self.session
        if session is None or self.released or self._restore_later.isActive():
            return False
        drawn = self.prompt_layers.read(session.geometry, self.viewer.dims.point)
        drawn = replace(drawn, masks=session.prompts.masks)
        if drawn == session.prompts:
            return False
        if self._drawn_in_3d(session, drawn):
            return False
        # Prompts in a layer of fewer axes go along with the slider, which is nothing to undo.
        only_plane = drawn.flat == session.prompts.flat
        traveled = only_plane and self.prompt_layers.follows_slider(session.geometry)
        session.set_prompts(
            drawn, undoable=not traveled, area_in_view=area_in_view(self.viewer, session.geometry)
        )
        self._drop_closed(session)
        self._offer = None
        self.prompts_changed.emit()
        return True

    def _drawn_in_3d(self, session: LayerSession, drawn: Prompts) -> bool:
        """Take back points that were clicked in 3D, where they would lie on some other plane.

        A layer of the user's own keeps them.
        """
        layer = self.prompt_layers.points
        own = layer is not None and layer.name == POINTS
        added = len(drawn.points) > len(session.prompts.points)
        if self.viewer.dims.ndisplay == 2 or not (own and added):
            return False
        self.show_prompts(session.prompt_state)
        try:
            self.plane()
        except ValueError as error:
            self.fail(str(error))
        return True

    @needs_image
    def show_prompts(self, session: LayerSession, state: PromptState) -> None:
        """Set the prompts of a view and show them; predictions of closed planes are forgotten.

        Prompts of another view are shown when that view is.
        """
        if state.order != session.geometry.order:
            session.prompt_state = state
            view = session.view(state.order)
            view.predictions = {at: each for at, each in view.predictions.items() if state.on(at)}
            return
        shown = self.prompt_layers.write(state.prompts, session.geometry, self.viewer.dims.point)
        session.prompt_state = replace(state, prompts=replace(shown, masks=state.prompts.masks))
        self._drop_closed(session)

    @needs_image
    def show_predictions(self, session: LayerSession) -> None:
        """Show the masks of all predictions in the current view."""
        if session.predictions:
            masks = {plane: each.masks for plane, (_, each) in session.predictions.items()}
            self.preview.show_all(session.geometry, masks)

    def _drop_closed(self, session: LayerSession) -> None:
        """Remove predictions and masks of planes that have no prompts any more."""
        shown = self.plane_or_none()
        for plane in {*session.predictions, *(() if shown is None else (shown,))}:
            if not session.prompt_state.on(plane):
                session.predictions.pop(plane, None)
                self.preview.clear([plane], session.geometry.order)

    # -------------------------------------------------------------------- history

    def propose(self, session: LayerSession, found: DraftSet | None) -> None:
        """Take drafts in place of those before, or none; logged, but nothing to undo."""
        session.drafts.propose(found)
        self.command_changed.emit(session, "drafts", found)
        if session is self.session:
            self.drafts_changed.emit()

    @property
    def annotator(self) -> Annotator:
        """The verbs of the image that is worked on; there must be one."""
        host = AnnotationHost(self.target, self._editor_of, self.show_prompts, self._done)
        return Annotator(self.session, host)

    def _editor_of(self, layer: str) -> LayerEditor:
        editor = self.sessions.editor_of(layer)
        if editor is None:
            raise ValueError(LAYER_GONE)
        if misfit := self.session.geometry.misfit(editor.layer):
            raise ValueError(misfit)
        return editor

    def _done(self, command: Command) -> None:
        """Show what a step changed, and tell the parts."""
        session, edit = self.session, command.edit
        editor = None if edit is None else self.sessions.editor_of(edit.layer)
        if edit is not None and editor is not None:
            self.classes.update(session.geometry, editor, edit)
            self._note_provenance(session, editor, command.name)
        self.prompts_changed.emit()
        if edit is not None:
            self.objects_changed.emit()
        if command.drafts is not None:
            self.drafts_changed.emit()

    def show_known(self, session: LayerSession, editor: LayerEditor) -> None:
        """Show the classes and the doubtful planes of objects that were just taken over."""
        self.classes.update(session.geometry, editor, LayerEdit(editor.key))
        outputs.note_doubtful(editor.layer, editor.register.entries)

    def _note_provenance(self, session: LayerSession, editor: LayerEditor, command: str) -> None:
        """Say in the metadata of the objects' layer what made them, and what is doubtful."""
        # What was loaded from a file was not made by the model that is chosen.
        model = "" if command.startswith(LOADING) else Path(self.model.reference).name
        entries = editor.register.entries.values()
        prompts = sum(each.prompts.count for entry in entries for each in entry.provenance)
        outputs.note_provenance(editor.layer, session.geometry.name, model, prompts)
        outputs.note_doubtful(editor.layer, editor.register.entries)

    @needs_image
    def undo(self, session: LayerSession) -> None:
        """Undo the last command on this image."""
        last = session.history.last
        removed = None if last is None else session.removed.get(last)
        if removed is not None:
            session.removed[last] = replace(removed, successor=session.editor)
            self._put_back(session, removed)
        self._replay(session, self.annotator.undo, UNDONE, "redo")

    @needs_image
    def redo(self, session: LayerSession) -> None:
        """Redo the command that was undone last."""
        following = session.history.next
        removed = None if following is None else session.removed.get(following)
        if removed is not None:
            self._take_out(session, removed)
        self._replay(session, self.annotator.redo, REDONE, "undo")

    def _replay(
        self,
        session: LayerSession,
        step: Callable[[], Command | None],
        text: str,
        other: str,
    ) -> None:
        """Undo or redo a command, and say so; `other` takes that back."""
        try:
            command = step()
        except ValueError as error:
            self.fail(f"{error}; nothing was changed.")
            return
        if command is None:
            return
        where = "" if command.after.order == session.geometry.order else " in another view"
        self.say(text.format(name=f"{command.name}{where}", key=shortcut_text(other)))
        if command in session.removed:
            self.objects_changed.emit()
        if command.before != command.after:
            self.replayed.emit()

    # --------------------------------------------------------------------- status

    def say(self, text: str, kind: StatusKind = "done") -> None:
        """Show a sentence in the status line."""
        self.status.emit(Status(kind, text))

    def fail(
        self, reason: str, offer: str = "", accept: Callable[[], object] | None = None
    ) -> None:
        """Show what went wrong, and perhaps a button that helps."""
        self._offer = accept
        self.status.emit(Status("failed", reason, offer=offer))

    def offer(
        self,
        status: Status,
        accept: Callable[[], object],
        other: Callable[[], object] | None = None,
    ) -> None:
        """Show a status with a button or two, and what these call."""
        self._offer, self._other = accept, other
        self.status.emit(status)

    def accept(self) -> None:
        """Do what the status line offered."""
        offer, self._offer, self._other = self._offer, None, None
        if offer is not None:
            offer()

    def accept_other(self) -> None:
        """Do what the second button of the status line offered."""
        other, self._offer, self._other = self._other, None, None
        if other is not None:
            other()

    # --------------------------------------------------------------------- layers

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        if isinstance(gone, Layer):
            self._remove(gone, getattr(event, "index", 0))

    def _remove(self, gone: Layer, index: int) -> None:
        """Follow the removal of a layer; objects that went with it come back on undo."""
        if gone.name in (POINTS, BOXES, PREVIEW):
            # Nothing is lost with a layer that only shows what the session holds.
            self._lost_tool |= gone.name != PREVIEW and is_drawing(gone)
            self._restore_later.start()
        editor = self.sessions.editor_of(str(gone.unique_id))
        affected = self.sessions.remove(gone, index, self.viewer.layers)
        if editor is not None and (classes := self.classes.layer(editor)) is not None:
            self._orphans.append(classes)
            self._later.start(0)  # napari may be about to remove it as well
        for session, command in () if self._replaying else affected:
            session.history.add(command)
        count = 0 if editor is None or self._replaying else len(editor.labels)
        if count and self.session in [session for session, _ in affected]:
            text = REMOVED.format(name=gone.name, objects=pluralize(count, "object"))
            self.offer(Status("done", text, offer=UNDO), self.undo)
        self.prompts_changed.emit()
        self.objects_changed.emit()

    @needs_image
    def _restore(self, session: LayerSession) -> None:
        """Make layers again that showed prompts and masks, unless the image went with them."""
        if self.released or not any(map(self.is_used, self.images)):
            return
        lost_preview = self.preview.layer not in self.viewer.layers
        self.preview.prepare(session.geometry)
        self.show_prompts(session.prompt_state)
        if lost_preview:
            self.view_changed.emit()
            self.show_predictions()
        if self._lost_tool:
            self._lost_tool = False
            self.prompt_layers.take_up_tool()
        self.prompts_changed.emit()

    def _put_back(self, session: LayerSession, removed: RemovedObjects) -> None:
        """Show an objects layer again that was removed; the active layer stays active."""
        editor = removed.editor
        layers = self.viewer.layers
        active = layers.selection.active or editor.layer
        self.classes.update(session.geometry, editor, LayerEdit(editor.key))
        if editor.layer not in layers:
            layers.insert(min(removed.index, len(layers)), editor.layer)
            self.sessions.follow(editor)
        layers.selection.active = active
        if removed.was_target:
            session.editor = editor

    def _take_out(self, session: LayerSession, removed: RemovedObjects) -> None:
        """Remove an objects layer again; commits go where they went before it came back."""
        layer = removed.editor.layer
        successor = removed.successor
        if layer in self.viewer.layers:
            self._replaying = True
            try:
                self.viewer.layers.remove(layer)
            finally:
                self._replaying = False
        if session.editor is None and successor and successor.layer in self.viewer.layers:
            session.editor = successor

    def _on_replaced(self, editor: LayerEditor) -> None:
        self.layer_replaced.emit(editor)
        self.objects_changed.emit()

    def _on_painted(self, editor: LayerEditor, edit: LayerEdit) -> None:
        self._strokes.append((editor, edit))
        self._later.start(0)  # some of napari's tools report a stroke before they paint it
        self.prompts_changed.emit()
        self.objects_changed.emit()

    def _update_classes(self) -> None:
        orphans, self._orphans = self._orphans, []
        for layer in orphans:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        strokes, self._strokes = self._strokes, []
        for editor, edit in strokes:
            if self.editor is editor:
                self.classes.update(self.session.geometry, editor, edit)
