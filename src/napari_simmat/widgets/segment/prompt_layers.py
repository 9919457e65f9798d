"""The layers on which the user points: `SimMAT points` and `SimMAT boxes`, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.asked import Prompts
from napari_simmat.widgets.segment.point_prompts import PointPrompts
from napari_simmat.widgets.segment.shape_prompts import AROUND, ShapePrompts

POINTS, BOXES = "SimMAT points", "SimMAT boxes"

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


class PromptLayers(QObject):
    """The points layer and the shapes layer in use; own ones are made where none is chosen.

    Layers are read and written in the coordinates of an image's `Place`.
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

    def ensure(self, place: Place) -> None:
        """Have both layers; own ones lie on the image, others are taken as they are.

        An own layer that lies elsewhere gives way to a new one, which takes over its tool.
        """
        active = self._viewer.layers.selection.active
        if self.boxes is None or (self.boxes.name == BOXES and not place.lies_on(self.boxes)):
            was = self.boxes
            self._remove(was)
            self.use_boxes(self._found(BOXES, Shapes, place) or self._add_boxes(place))
            if was is not None and was is active:
                self._activate(self.boxes, was.mode)
        if self.points is None or (self.points.name == POINTS and not place.lies_on(self.points)):
            was = self.points
            self._remove(was)
            self.use_points(self._found(POINTS, Points, place) or self._add_points(place))
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
        """Show exactly these prompts; returns how they read back."""
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

    # ------------------------------------------------------------------ layers

    def _found(self, name: str, kind: type[Layer], place: Place) -> Any:
        """A layer of that name that an earlier session left on the image."""
        for layer in self._viewer.layers:
            if layer.name == name and isinstance(layer, kind) and place.lies_on(layer):
                return layer
        return None

    def _add_points(self, place: Place) -> Points:
        layer = Points(
            ndim=place.ndim,
            name=POINTS,
            features={"label": np.zeros(0, dtype=int), "object": np.zeros(0, dtype=int)},
            feature_defaults={"label": 1, "object": 0},
            size=max(1.0, max(place.shape[-2:]) / 50),
            border_color="white",
            border_width=0.15,
            **place.layer_options(),
        )
        layer.canvas_size_limits = (9, 16)
        self._add(layer)
        return layer

    def _add_boxes(self, place: Place) -> Shapes:
        layer = Shapes(
            ndim=place.ndim,
            name=BOXES,
            features={"label": np.zeros(0, dtype=int), "object": np.zeros(0, dtype=int)},
            feature_defaults={"label": 1, "object": 0},
            edge_color=AROUND,
            face_color="transparent",
            edge_width=max(0.5, max(place.shape[-2:]) / 250),
            **place.layer_options(),
        )
        layer.current_edge_color, layer.current_face_color = AROUND, "transparent"
        self._add(layer)
        return layer

    def _add(self, layer: Layer) -> None:
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active

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
