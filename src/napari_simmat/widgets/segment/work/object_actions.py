"""Actions on committed objects and on prompts; each is one command of the undo history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from napari.layers import Labels

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.annotator import Annotator, RefusedError, counted
from napari_simmat.annotation.history import NewObject
from napari_simmat.annotation.label_editor import Overlap
from napari_simmat.annotation.object_changes import (
    Written,
    predicted_objects,
)
from napari_simmat.annotation.predictions import Prediction
from napari_simmat.annotation.prompt_state import Plane, PromptState, plane_names, plane_of
from napari_simmat.engine.coordinates import inverse_order, reordered, transposed_view
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.widgets.placement import shown_axes
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image, needs_plane
from napari_simmat.widgets.shortcuts import shortcut_text
from napari_simmat.widgets.status_line import Status

_NAMED_OBJECTS = 3
"""More objects than these are counted in a message, not listed."""
_DOUBLE_CLICK = 8.0
"""Largest distance of the two clicks of a double click in screen pixels."""

POINT_AT_OBJECT = (
    "Point at a committed object, or choose it in the table and press the button below it."
)
COMMIT_FIRST = "Commit (<key:commit>) or clear (<key:clear>) the open prompts first."
MASK_EMPTY = "The mask is empty: add a point on the object, or draw a larger box."
HOW_TO_MERGE = (
    "Click on one object and Ctrl+click on the others, or choose them in the table, then "
    "merge (<key:merge>)."
)
HOW_TO_SPLIT = "Shift+click on each part that one object should have, then split (<key:split>)."
SELECTED = (
    "Object {label} is selected: click it again or press <key:edit> to open it; Shift+click begins "
    "a new object there."
)
SELECTED_MANY = "Objects {labels} are selected: <key:merge> merges them."
COMMITTED = "Committed to {layer}: {objects}."
COMMITTED_AS = "Committed to {layer}: {objects} as {category}."
LEFT_OPEN = (
    "Prompts on {planes} stay open for another object; if it is the same one, undo and Propagate "
    "({key})."
)
LEFT_OUT = "{objects} {how} on {others} {are} left out."
OVERLAPS_ALMOST = "Every object found overlaps {others} almost entirely; nothing was added."
MOSTLY_OTHERS = (
    "Other objects keep most of {objects}: to give it all its pixels, undo and choose overwrite "
    "under Overlap."
)
HIDDEN_BY = "The new object lies wholly on {others}, which keep their pixels."
NOT_ON_PLANE = "Object {label} is not on this plane: click it in the table."
WHY_NOT = {"open prompts": COMMIT_FIRST, "not on plane": NOT_ON_PLANE, "no object": POINT_AT_OBJECT}
"""What is said where a verb is refused, by its reason."""
NOT_ON_IMAGE = "{name} does not lie on the image: choose labels of its size and place."
NO_OBJECT_ON_PLANE = "{name} holds no object on this plane: move the slider to one."
NEXT_OBJECT = "The next click begins a new object; <key:commit> commits them all."
FIRST_OBJECT = "Click on a first object; <key:next> then begins another one beside it."
OBJECTS_LAYER = "New objects go to that layer: edit one of them with <key:edit> instead."


class ObjectActions:
    """Commits predictions, and changes committed objects.

    Attributes
    ----------
    overlap
        Which object gets the pixels that a new object shares with others.
    category
        Class of new objects.
    chosen
        The objects chosen in the table. Actions mean them only while the mouse is off the image.
    choose
        Chooses objects in the table.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.overlap: Overlap = "keep"
        self.category = ""
        self.chosen: tuple[int, ...] = ()
        self.choose: Callable[[Sequence[int]], object] = lambda _: None
        workspace.prompt_layers.selects_with(self.select)

    # ------------------------------------------------------------------ writing

    @needs_image
    def commit(
        self,
        session: LayerSession,
        plane: Plane,
        prediction: Prediction,
        made_from: PromptState | None = None,
        remark: str = "",
    ) -> None:
        """Write the predicted masks of `plane`, and use up its prompts.

        Parameters
        ----------
        plane, prediction
            Where, and what.
        made_from
            The prompts of the prediction; those drawn since stay open. By default all.
        remark
            What else to say of it.
        """
        objects = predicted_objects(session, plane, prediction, self.category)
        if objects:
            self.write("commit", objects, closing=(plane,), remark=remark, made_from=made_from)
        else:
            self._workspace.fail(MASK_EMPTY)

    def write(
        self,
        name: str,
        objects: Sequence[NewObject],
        *,
        closing: Sequence[Plane] = (),
        said: str = "",
        done: Callable[[], object] = lambda: None,
        min_visible: float = 0.0,
        remark: str = "",
        made_from: PromptState | None = None,
    ) -> None:
        """Write objects into the image's labels layer as one command.

        Parameters
        ----------
        name
            Name of the command.
        objects
            Earlier ones lie on top.
        closing
            Planes, of the view of `objects`, whose prompts are used up.
        said
            What the status line says; by default which objects were written.
        done
            Called when it was done, which may be after the user has accepted an offer.
        min_visible
            See `LabelEditor.write`.
        remark, made_from
            See `commit`.
        """
        wish = _Wish(
            name,
            tuple(objects),
            self.overlap,
            tuple(closing),
            said,
            done,
            min_visible,
            remark,
            made_from,
        )
        self._write(wish)

    def _write(self, wish: _Wish) -> None:
        workspace = self._workspace
        if workspace.session is None:
            return
        try:
            written = workspace.annotator.write(
                wish.name,
                wish.objects,
                overlap=wish.overlap,
                closing=wish.closing,
                min_visible=wish.min_visible,
                made_from=wish.made_from,
            )
        except RefusedError as error:
            text = OVERLAPS_ALMOST if wish.min_visible else HIDDEN_BY
            reason = text.format(others=listed(error.labels))
            workspace.fail(reason, "Overwrite", partial(self._overwrite, wish))
            return
        except ValueError as error:
            reason = f"{error}; commit into a new layer instead."
            workspace.fail(reason, "New layer", partial(self._write_in_new_layer, wish))
            return
        if wish.closing:
            workspace.prompt_layers.set_positive(True)  # the next object begins with a click on it
        self._say_written(workspace.editor, wish, written)
        wish.done()

    def _write_in_new_layer(self, wish: _Wish) -> None:
        self._workspace.use_objects(None)
        self._write(wish)

    def _overwrite(self, wish: _Wish) -> None:
        self._write(replace(wish, overlap="overwrite"))

    def _say_written(self, editor: LayerEditor, wish: _Wish, written: Written) -> None:
        """Say which objects were written, and offer to overwrite others for those left out."""
        workspace = self._workspace
        text = wish.said or _text_of(editor, written)
        if written.hidden:
            rest = _Wish(wish.name, tuple(written.hidden), wish.overlap)
            status = Status("done", f"{text} {_left_out(editor, wish, written)}", offer="Overwrite")
            workspace.offer(status, partial(self._overwrite, rest))
        elif wish.said:
            workspace.say(text)
        else:
            workspace.say(f"{text} {wish.remark or _next_step(wish, written)}")

    # ------------------------------------------------------------------ editing

    @needs_image
    def edit(self, session: LayerSession, label: int | None = None) -> None:
        """Open a committed object for editing on the current plane, with its prompts.

        If it has none, or its pixels were changed since, the pixels themselves are refined.
        """
        if not self._workspace.has_pixels():
            return
        labels = self.target_labels() if label is None else [label]
        if session.editor is None or len(labels) != 1:
            self._workspace.say(POINT_AT_OBJECT)
        else:
            self._edit(labels[0])

    @needs_plane
    def _edit(self, _: LayerSession, plane: Plane, label: int) -> None:
        workspace = self._workspace
        try:
            workspace.annotator.edit(plane, label)
        except RefusedError as error:
            workspace.say(WHY_NOT[error.reason].format(label=label))
            return
        workspace.prediction_wanted.emit()

    def select(self, position: Sequence[float], beside: bool = False) -> bool:
        """Select the object at a world position, or open it if it is; whether there is one.

        While something is open on the plane, a click there corrects that.
        """
        workspace = self._workspace
        session, plane = workspace.session, workspace.plane_or_none()
        if session is None or plane is None or session.prompt_state.on(plane):
            return False
        label = self.label_at(position)
        if not label or session.propagated.get(plane) or not workspace.has_pixels():
            return False
        if beside:
            chosen = sorted({*self.chosen, label})
            self.choose(chosen)
            if len(chosen) > 1:
                workspace.say(SELECTED_MANY.format(labels=listed(chosen)))
                return True
        elif self.chosen == (label,):
            self.edit(label)
            return True
        self.choose([label])
        workspace.say(SELECTED.format(label=label))
        return True

    # ------------------------------------------------------------------ changing

    def delete(self) -> None:
        """Delete the target objects."""
        labels = self.target_labels()
        self._change("deletion", labels, lambda verbs: verbs.delete(labels))

    def merge(self) -> None:
        """Merge the objects under the points shown, or the chosen ones."""
        if not self._workspace.has_pixels():
            return
        pointed = self._under_points()
        # The mouse cannot name two objects, so the table does wherever the mouse is.
        labels = sorted(set(pointed.values())) or self._chosen()
        if len(labels) < 2:
            self._workspace.say(HOW_TO_MERGE)
            return
        used = [self._workspace.plane()] if pointed else []
        self._change("merging", labels, lambda verbs: verbs.merge(labels, used))

    @needs_image
    def split(self, session: LayerSession) -> None:
        """Split an object: around the points shown, or into its separate pieces."""
        if not self._workspace.has_pixels():
            return
        pointed = self._under_points()
        labels = sorted(set(pointed.values())) or self.target_labels()
        if len(labels) != 1:
            self._workspace.say(HOW_TO_SPLIT)
            return
        points = [list(point) for point in pointed]
        spacing = session.geometry.usual.spacing
        used = [self._workspace.plane()] if pointed else []
        self._change(
            "splitting", labels, lambda verbs: verbs.split(labels[0], points, spacing, used)
        )

    def classify(self, category: str) -> None:
        """Set the class of the chosen objects; that of new ones if none is chosen."""
        if not self._chosen():
            self.category = category
        # The list of classes reports a typed name more than once. The class that the program gave
        # is confirmed.
        labels = []
        for label in self._chosen():
            entry = self._workspace.editor.register.entry(label)
            if entry.category != category or entry.certainty is not None:
                labels.append(label)
        if labels:
            name = f"class {category or 'none'}"
            self._change(name, labels, lambda verbs: verbs.classify(labels, category))

    def target_labels(self) -> list[int]:
        """The objects that an action is for: that under the mouse, or those chosen in the table.

        The chosen ones while the mouse is off the image, and in 3D, where it is on no object.
        """
        viewer = self._workspace.viewer
        if not viewer.mouse_over_canvas or viewer.dims.ndisplay != 2:
            return self._chosen()
        label = self.label_at(viewer.cursor.position)
        return [label] if label else []

    def _chosen(self) -> list[int]:
        """The chosen objects that still exist."""
        editor = self._workspace.editor
        return [] if editor is None else [label for label in self.chosen if label in editor]

    def label_at(self, position: Sequence[float]) -> int:
        """The committed object at a world position; 0 for none."""
        layer = self._workspace.objects
        if layer is None or layer.multiscale:
            return 0
        return self._workspace.editor.label_at(layer.world_to_data(position[-layer.ndim :]))

    @needs_image
    def _change(
        self,
        session: LayerSession,
        name: str,
        labels: Sequence[int],
        act: Callable[[Annotator], object],
    ) -> None:
        """Change objects, and predict anew where prompts were used up."""
        workspace = self._workspace
        if not workspace.has_pixels():
            return
        if session.editor is None or not labels:
            workspace.say(POINT_AT_OBJECT)
            return
        before = session.prompt_state
        try:
            act(workspace.annotator)
        except ValueError as error:
            workspace.fail(f"{error}.".replace("..", "."))
            return
        # A prediction would replace the message, so only changed prompts are predicted again.
        plane, after = workspace.plane_or_none(), session.prompt_state
        if plane is not None and after.on(plane) != before.on(plane):
            if after.on(plane):
                workspace.prediction_wanted.emit()
            else:
                workspace.prediction_unwanted.emit()
        workspace.say(changed_text(name, labels))

    def _under_points(self) -> dict[tuple[int, ...], int]:
        """Voxels under the positive points of the current plane, and the objects there.

        Indices are those of the layer. Empty in 3D.
        """
        session = self._workspace.session
        plane = self._workspace.plane_or_none()
        if self._workspace.editor is None or plane is None:
            return {}
        here = session.prompts.on(plane)
        found = {}
        for point, label in zip(here.points, here.labels, strict=True):
            at = (*plane_of(point), *(int(np.floor(value + 0.5)) for value in point[-2:]))
            at = reordered(at, inverse_order(session.geometry.order))
            if label and (number := session.editor.label_at(at)):
                found[at] = number
        return found


class PromptActions:
    """Actions on the prompts of the current plane besides drawing them."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @needs_plane
    def clear(self, _: LayerSession, plane: Plane) -> None:
        """Remove the prompts of the plane, and close an edited object."""
        workspace = self._workspace
        workspace.prediction_unwanted.emit()
        workspace.annotator.clear(plane)
        workspace.prompt_layers.set_positive(True)
        workspace.prediction_wanted.emit()

    @needs_plane
    def choose_mask(self, session: LayerSession, plane: Plane, choice: int | None = None) -> None:
        """Choose one of the candidates for the last object; by default the next."""
        workspace = self._workspace
        if plane not in session.predictions:
            return
        try:
            is_other = workspace.annotator.choose_mask(plane, choice)
        except RefusedError as error:
            workspace.say(str(error))
            return
        if is_other:
            workspace.prediction_wanted.emit()

    @needs_plane
    def new_object(self, session: LayerSession, plane: Plane) -> None:
        """Let the next point begin another object besides the open ones."""
        workspace = self._workspace
        begun = workspace.prompt_layers.next_group(session.prompts.on(plane))
        workspace.prompt_layers.set_positive(True)
        workspace.say(NEXT_OBJECT if begun else FIRST_OBJECT, "ready")

    @needs_plane
    def take_masks(self, session: LayerSession, plane: Plane, layer: Labels) -> None:
        """Refine each object of another labels layer on the current plane.

        The layer must have the image's shape and place.
        """
        workspace = self._workspace
        geometry = session.geometry
        if layer is session.objects:
            workspace.fail(OBJECTS_LAYER)
            return
        if geometry.other_pixels(layer) or not geometry.lies_on(layer):
            workspace.fail(NOT_ON_IMAGE.format(name=layer.name))
            return
        values = np.asarray(transposed_view(layer.data, geometry.order)[plane])
        found = [number for number in np.unique(values).tolist() if number]
        if not found:
            workspace.fail(NO_OBJECT_ON_PLANE.format(name=layer.name))
            return
        masks = [ObjectMask.of(values == number, (*plane, 0, 0)) for number in found]
        workspace.annotator.take_masks(layer.name, masks)
        workspace.prediction_wanted.emit()

    @needs_image
    def take_back_click(self, session: LayerSession, position: Sequence[float]) -> None:
        """Remove the point just made at a world position: it began a double click."""
        workspace = self._workspace
        last = session.history.last
        if last is None or last.edit is not None:
            return
        points = last.after.prompts.points
        if last.after != session.prompt_state or not points:
            return
        if points[:-1] != last.before.prompts.points:
            return
        camera = getattr(workspace.viewer, "scene", workspace.viewer).camera  # scene: napari 0.9
        geometry = session.geometry
        away = np.subtract(geometry.to_world(points[-1]), position[-geometry.ndim :])
        shown = shown_axes(workspace.viewer.dims, geometry.ndim)
        if np.abs(away[shown]).max() * camera.zoom < _DOUBLE_CLICK:
            session.history.drop_last()
            workspace.prediction_unwanted.emit()
            workspace.show_prompts(last.before)


def changed_text(name: str, labels: Sequence[int]) -> str:
    """What was done to objects, by the name of the command."""
    done = {"deletion": "Deleted", "merging": "Merged", "splitting": "Split"}.get(name)
    objects = numbered(labels)
    return f"{done} {objects}." if done else f"{name[:1].upper()}{name[1:]}: {objects}."


@dataclass(frozen=True, eq=False)
class _Wish:
    """Objects that are to be written, as `ObjectActions.write` takes them."""

    name: str
    objects: tuple[NewObject, ...]
    overlap: Overlap
    closing: tuple[Plane, ...] = ()
    said: str = ""
    done: Callable[[], object] = lambda: None
    min_visible: float = 0.0
    remark: str = ""
    made_from: PromptState | None = None


def _text_of(editor: LayerEditor, written: Written) -> str:
    """Which objects were written, and of which of them others keep the larger part."""
    text = committed(editor.layer.name, written.labels, written.objects[0].category)
    size = editor.register.index.size
    pairs = zip(written.objects, written.labels, strict=True)
    parts = [label for new, label in pairs if 2 * size(label) < new.viewed.size]
    return f"{text} {MOSTLY_OTHERS.format(objects=numbered(parts))}" if parts else text


def _left_out(editor: LayerEditor, wish: _Wish, written: Written) -> str:
    """Which objects others hide, in words."""
    return LEFT_OUT.format(
        objects=pluralize(len(written.hidden), "object"),
        how="mostly" if wish.min_visible else "wholly",
        others=listed(editor.overlapped(written.hidden)),
        are=is_or_are(len(written.hidden)),
    )


def _next_step(wish: _Wish, written: Written) -> str:
    """Which planes are open still, in words, or that the next object may begin."""
    if not wish.closing or not written.after:
        return "Next object."
    planes = plane_names(written.after.planes())
    return LEFT_OPEN.format(planes=planes, key=shortcut_text("propagate"))


def committed(layer: str, labels: Sequence[int], category: str) -> str:
    """Which objects were written, and their class if they have one."""
    text = COMMITTED_AS if category else COMMITTED
    return text.format(layer=layer, objects=numbered(labels), category=category)


def numbered(labels: Sequence[int]) -> str:
    """``object 4``, ``objects 4, 5``, ``16 objects``: objects in words."""
    words = counted(labels)
    named = len(labels) <= _NAMED_OBJECTS
    return f"object{'' if len(labels) == 1 else 's'} {words}" if named else words


def listed(labels: Sequence[int], most: int = 6) -> str:
    """Object numbers in words, shortened."""
    names = ", ".join(map(str, labels[:most]))
    return f"{names} ..." if len(labels) > most else names
