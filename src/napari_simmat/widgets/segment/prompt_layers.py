"""The layers on which the user points: `SimMAT points` and `SimMAT boxes`, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from napari import Viewer
from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.engine.views import Order
from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.asked import Prompts
from napari_simmat.widgets.segment.own_layers import (
    BOXES,
    POINTS,
    added,
    left_on,
    new_boxes,
    new_points,
)
from napari_simmat.widgets.segment.point_prompts import PointPrompts
from napari_simmat.widgets.segment.shape_prompts import ShapePrompts

Tool = Literal["point", "box", "ellipse", "polygon", "scribble", ""]
_MODES: dict[str, Tool] = {
    "add_rectangle": "box",
    "add_ellipse": "ellipse",
    "add_polygon": "polygon",
    "add_polygon_lasso": "polygon",
    "add_path": "scribble",
    "add_polyline": "scribble",
    "add_line": "scribble",
}


@dataclass(frozen=True, eq=False)
class _Left:
    """Layers that the user chose, left alone while another view is seen, and what they held."""

    points: Points | None
    boxes: Shapes | None
    prompts: Prompts


class PromptLayers(QObject):
    """The points layer and the shapes layer in use; own ones are made where none is chosen.

    Layers are read and written in the coordinates of an image's `Place`. Own ones show the prompts
    of the view that is seen; one that the user chose belongs to the view in which it was chosen.
    """

    edited = Signal()
    """Something about the prompts may have changed; sent once after all has settled."""
    replaced = Signal()
    """Another layer is in use, or one is gone."""
    sign_changed = Signal(bool)
    """Whether new points are positive."""
    tool_changed = Signal()
    """`tool` may be another one."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._points = PointPrompts(self)
        self._shapes = ShapePrompts(viewer, self)
        self._order: Order = ()
        self._left: dict[Order, _Left] = {}
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self._on_settled)
        for kind in (self._points, self._shapes):
            kind.edited.connect(self._on_edit)
            kind.mode_changed.connect(self._on_tool)
        self._points.sign_changed.connect(self._on_sign)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_tool)

    @property
    def points(self) -> Points | None:
        """The points layer in use."""
        return self._points.layer

    @property
    def boxes(self) -> Shapes | None:
        """The shapes layer in use."""
        return self._shapes.layer

    @property
    def tool(self) -> Tool:
        """What a press on the image adds now."""
        active = self._viewer.layers.selection.active
        if active is not None and active is self.points and active.mode == "add":
            return "point"
        if active is not None and active is self.boxes:
            return _MODES.get(str(active.mode), "")
        return ""

    @property
    def positive(self) -> bool:
        """Whether new points mean the object."""
        return self._points.positive

    @property
    def group(self) -> int:
        """Which open object new points mean."""
        return self._points.group

    @property
    def unsettled(self) -> bool:
        """Whether `edited` is about to be sent."""
        return self._settled.isActive()

    def travel(self, place: Place) -> bool:
        """Whether a layer in use has fewer axes than the image: what it holds goes along.

        It lies on whichever plane is shown.
        """
        layers = self.points, self.boxes
        return any(layer is not None and layer.ndim < place.ndim for layer in layers)

    def ensure(self, place: Place) -> None:
        """Have both layers; own ones lie on the image, others are taken as they are.

        An own layer that lies elsewhere gives way to a new one, which takes over its tool.
        """
        active = self._viewer.layers.selection.active
        if self.boxes is None or (self.boxes.name == BOXES and not place.lies_on(self.boxes)):
            was = self.boxes
            self._remove(was)
            self.use_boxes(self._own_boxes(place))
            if was is not None and was is active:
                self._activate(self.boxes, was.mode)
        if self.points is None or (self.points.name == POINTS and not place.lies_on(self.points)):
            was = self.points
            self._remove(was)
            self.use_points(self._own_points(place))
            if was is not None and was is active:
                self._activate(self.points, was.mode)

    def use_points(self, layer: Points | None) -> None:
        """Take prompts from this points layer."""
        if layer is not self.points:
            self._points.use(layer)
            self.replaced.emit()
            self._settled.start(0)

    def use_boxes(self, layer: Shapes | None) -> None:
        """Take shapes from this layer."""
        if layer is not self.boxes:
            self._shapes.use(layer)
            self._tell_shapes()
            self.replaced.emit()
            self._settled.start(0)

    def read(self, place: Place, point: Sequence[float]) -> Prompts:
        """All prompts in the image's coordinates; `point` is the viewer's."""
        clicks = self._points.read(place, point)
        return replace(clicks, outlines=self._shapes.read(place, point))

    def write(self, prompts: Prompts, place: Place, point: Sequence[float]) -> Prompts:
        """Show exactly these prompts; returns how they read back.

        What the user changed in a chosen layer while another view was seen is kept.
        """
        if place.order != self._order:
            prompts = self._turn(prompts, place, point)
        self.ensure(place)
        self._points.write(prompts, place, point)
        self._shapes.write(prompts.outlines, place, point)
        self._tell_shapes()
        self._settled.stop()
        return self.read(place, point)

    def set_positive(self, positive: bool) -> None:
        """Say what new points mean; selected ones are flipped only by `flip`."""
        self._points.set_positive(positive)

    def flip(self) -> None:
        """Flip the points that were selected with the select tool, else what new ones mean."""
        self._points.flip()

    def next_group(self, prompts: Prompts) -> bool:
        """Let new points mean another object beside those of `prompts`; whether there are any."""
        taken = [*prompts.groups, *(each.group for each in prompts.outlines)]
        if not taken:
            return False
        self._points.set_group(max(taken) + 1)
        self._tell_shapes()
        return True

    def follow_plane(self, prompts: Prompts) -> None:
        """Let new points mean the last open object of `prompts`, those of the plane shown."""
        last = max((*prompts.groups, *(each.group for each in prompts.outlines)), default=0)
        if last != self.group:
            self._points.set_group(last)
            self._tell_shapes()

    def draw_points(self) -> None:
        """Make the points layer active, with its tool for adding."""
        self._activate(self.points, "add")

    def draw_boxes(self) -> None:
        """Make the shapes layer active, with its tool for rectangles."""
        self._activate(self.boxes, "add_rectangle")

    def scribble(self) -> None:
        """Make the shapes layer active, with its tool for paths."""
        self._activate(self.boxes, "add_path")

    def release(self) -> None:
        """Let go of the layers; they stay in the viewer."""
        self._settled.stop()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_tool)
        self._points.use(None)
        self._shapes.use(None)

    # -------------------------------------------------------------------- view

    def _turn(self, prompts: Prompts, place: Place, point: Sequence[float]) -> Prompts:
        """Leave layers that were chosen in the view before, take up those of this one."""
        before, self._order = self._order, place.order
        points, boxes = _chosen(self.points, POINTS), _chosen(self.boxes, BOXES)
        if points is not None or boxes is not None:
            known = len(before) in (0, place.ndim)  # else they were on an image of other axes
            held = self.read(place.seen(before), point) if known else Prompts()
            self._left[before] = _Left(points, boxes, held)
        left = self._left.pop(place.order, _Left(None, None, Prompts()))
        active = self._viewer.layers.selection.active
        was: Points | Shapes | None = self.points
        if left.points in self._viewer.layers:
            if points is None and was is not None:
                self._points.write(Prompts(), place, point)
            self.use_points(left.points)
            now = self._points.read(place, point)
            if now != replace(left.prompts, outlines=()):
                prompts = replace(now, outlines=prompts.outlines, masks=prompts.masks)
        elif points is not None:
            self.use_points(self._own_points(place))
        if was is not None and was is active and was is not self.points:
            self._activate(self.points, was.mode)
        was = self.boxes
        if left.boxes in self._viewer.layers:
            if boxes is None and was is not None:
                self._shapes.write((), place, point)
            self.use_boxes(left.boxes)
            outlines = self._shapes.read(place, point)
            if outlines != left.prompts.outlines:
                prompts = replace(prompts, outlines=outlines)
        elif boxes is not None:
            self.use_boxes(self._own_boxes(place))
        if was is not None and was is active and was is not self.boxes:
            self._activate(self.boxes, was.mode)
        return prompts

    # ------------------------------------------------------------------ layers

    def _own_points(self, place: Place) -> Points:
        """The own points layer on the image; a new one if there is none."""
        layer: Points | None = left_on(self._viewer, POINTS, Points, place)
        return layer if layer is not None else added(self._viewer, new_points(place))

    def _own_boxes(self, place: Place) -> Shapes:
        layer: Shapes | None = left_on(self._viewer, BOXES, Shapes, place)
        return layer if layer is not None else added(self._viewer, new_boxes(place))

    def _remove(self, layer: Layer | None) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _activate(self, layer: Points | Shapes | None, mode: str) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer
            layer.visible = True
            layer.mode = mode

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        if gone is self.points:
            self.use_points(None)
        elif gone is self.boxes:
            self.use_boxes(None)

    # ------------------------------------------------------------------- edits

    def _on_edit(self) -> None:
        self._settled.start(0)

    def _on_settled(self) -> None:
        if self._shapes.tidy():
            self._settled.stop()
        self.edited.emit()

    def _on_tool(self) -> None:
        self._tell_shapes()
        self.tool_changed.emit()

    def _on_sign(self, positive: bool) -> None:
        self._tell_shapes()
        self.sign_changed.emit(positive)

    def _tell_shapes(self) -> None:
        self._shapes.mean(self.positive, self.group)


def _chosen(layer: Any, own: str) -> Any:
    """A layer in use, unless it is an own one."""
    return None if layer is None or layer.name == own else layer
