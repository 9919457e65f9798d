"""The layers on which the user points: `SimMAT points` and `SimMAT boxes`, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.widgets.operations import Position, Prompts
from napari_simmat.widgets.place import Place

POINTS, BOXES = "SimMAT points", "SimMAT boxes"
POSITIVE, NEGATIVE = "#2ecc40", "#ff3b30"

_CLICK = 6.0
"""A rectangle of less than so many screen pixels was a click, not a box."""


class PromptLayers(QObject):
    """The points layer and the boxes layer in use; own ones are made where none is chosen.

    A point's feature ``label`` is 1 (inside the object, green) or 0 (outside, red). Layers are
    read and written in the coordinates of an image's `Place`.
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
        self._positive = True
        self._drawn = False
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self._on_settled)
        self.points: Points | None = None
        self.boxes: Shapes | None = None
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_tool)

    @property
    def tool(self) -> Literal["point", "box", ""]:
        """What a press on the image adds now."""
        active = self._viewer.layers.selection.active
        if active is not None and active is self.points and self.points.mode == "add":
            return "point"
        if active is not None and active is self.boxes and self.boxes.mode == "add_rectangle":
            return "box"
        return ""

    @property
    def positive(self) -> bool:
        """Whether new points mean the object."""
        return self._positive

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
        if layer is self.points:
            return
        self._disconnect(self.points)
        self.points = layer
        if layer is not None:
            layer.events.mode.connect(self._on_tool)
            layer.events.data.connect(self._on_edit)
            layer.events.features.connect(self._on_edit)
            layer.events.feature_defaults.connect(self._on_defaults)
            layer.events.current_properties.connect(self._on_defaults)
            self._sign_to_layer()
        self.replaced.emit()
        self._settled.start(0)

    def use_boxes(self, layer: Shapes | None) -> None:
        """Take boxes from this shapes layer."""
        if layer is self.boxes:
            return
        self._disconnect(self.boxes)
        self.boxes = layer
        if layer is not None:
            layer.events.mode.connect(self._on_tool)
            layer.events.data.connect(self._on_edit)
            layer.events.data.connect(self._on_drawn)
        self.replaced.emit()
        self._settled.start(0)

    def read(self, place: Place, point: Sequence[float]) -> Prompts:
        """All prompts in the image's coordinates; `point` is the viewer's."""
        points, labels, boxes = (), (), ()
        if self.points is not None and len(self.points.data):
            points = _positions(place.from_layer(self.points, self.points.data, point))
            labels = _labels(self.points)
        if self.boxes is not None:
            boxes = tuple(
                _positions(place.from_layer(self.boxes, vertices, point))
                for vertices in self.boxes.data
            )
        return Prompts(points, labels, boxes)

    def write(self, prompts: Prompts, place: Place, point: Sequence[float]) -> Prompts:
        """Show exactly these prompts; returns how they read back."""
        self.ensure(place)
        assert self.points is not None
        assert self.boxes is not None
        shown = self.read(place, point)
        if (shown.points, shown.labels) != (prompts.points, prompts.labels):
            layer = self.points
            layer.selected_data = set()
            layer.data = place.to_layer(layer, np.array(prompts.points), point)
            features = layer.features.copy()
            features["label"] = np.array(prompts.labels, dtype=int)
            layer.features = features
            self._paint()
            self._sign_to_layer()
        if shown.boxes != prompts.boxes:
            self.boxes.selected_data = set()
            # Removed and added: Shapes cannot be given an empty list in all versions of napari.
            if len(self.boxes.data):
                self.boxes.remove(list(range(len(self.boxes.data))))
            for corners in prompts.boxes:
                vertices = place.to_layer(self.boxes, np.array(corners), point)
                self.boxes.add(vertices, shape_type="rectangle")
        self._settled.stop()
        self._drawn = False
        return self.read(place, point)

    def set_positive(self, positive: bool) -> None:
        """Say what new points mean; selected ones are flipped only by `flip`."""
        changed, self._positive = positive != self._positive, positive
        self._sign_to_layer()
        if changed:
            self.sign_changed.emit(positive)

    def flip(self) -> None:
        """Flip the points that were selected with the select tool, else what new ones mean."""
        layer = self.points
        if layer is not None and layer.mode == "select" and len(layer.selected_data):
            chosen = sorted(layer.selected_data)
            labels = np.array(_labels(layer))
            labels[chosen] = 1 - labels[chosen]
            features = layer.features.copy()
            features["label"] = labels
            layer.features = features
            self._paint()
            self._sign_to_layer()
        else:
            self.set_positive(not self._positive)

    def draw_points(self) -> None:
        """Make the points layer active, with its tool for adding."""
        self._activate(self.points, "add")

    def draw_boxes(self) -> None:
        """Make the boxes layer active, with its tool for rectangles."""
        self._activate(self.boxes, "add_rectangle")

    def release(self) -> None:
        """Let go of the layers; they stay in the viewer."""
        self._settled.stop()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_tool)
        self._disconnect(self.points)
        self._disconnect(self.boxes)
        self.points = self.boxes = None

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
            features={"label": np.zeros(0, dtype=int)},
            feature_defaults={"label": 1},
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
            edge_color="#ffdc00",
            face_color="transparent",
            edge_width=max(0.5, max(place.shape[-2:]) / 250),
            **place.layer_options(),
        )
        layer.current_edge_color, layer.current_face_color = "#ffdc00", "transparent"
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

    def _disconnect(self, layer: Layer | None) -> None:
        if layer is None:
            return
        layer.events.mode.disconnect(self._on_tool)
        layer.events.data.disconnect(self._on_edit)
        if isinstance(layer, Shapes):
            layer.events.data.disconnect(self._on_drawn)
        if isinstance(layer, Points):
            layer.events.features.disconnect(self._on_edit)
            layer.events.feature_defaults.disconnect(self._on_defaults)
            layer.events.current_properties.disconnect(self._on_defaults)

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        if gone is self.points:
            self.use_points(None)
        elif gone is self.boxes:
            self.use_boxes(None)

    def _on_tool(self) -> None:
        self.tool_changed.emit()

    def _on_drawn(self, event: Any) -> None:
        self._drawn = self._drawn or event.action == ActionType.ADDED

    def _on_settled(self) -> None:
        """Take away what a click with the rectangle tool leaves, then tell of the edits."""
        layer, drawn = self.boxes, self._drawn
        self._drawn = False
        if drawn and layer is not None and len(layer.data):
            corners = np.array([layer.data_to_world(corner) for corner in layer.data[-1]])
            camera = getattr(self._viewer, "scene", self._viewer).camera  # scene: from napari 0.9
            on_screen = np.ptp(corners[:, -2:], axis=0) * camera.zoom
            if (on_screen < _CLICK).all():
                layer.selected_data = set()
                layer.remove([len(layer.data) - 1])
                self._settled.stop()
        self.edited.emit()

    # ------------------------------------------------------------------ points

    def _on_edit(self) -> None:
        self._settled.start(0)

    def _on_defaults(self) -> None:
        """Selecting a point makes its label that of the next one; show it."""
        layer = self.points
        if layer is None or "label" not in layer.feature_defaults:
            return
        value = layer.feature_defaults["label"].iloc[0]
        positive = value != 0
        if positive != self._positive:
            self._positive = positive
            self.sign_changed.emit(positive)

    def _sign_to_layer(self) -> None:
        layer = self.points
        if layer is None:
            return
        with layer.block_update_properties():
            layer.current_face_color = POSITIVE if self._positive else NEGATIVE
        if "label" not in layer.features:
            features = layer.features.copy()
            features["label"] = np.ones(len(layer.data), dtype=int)
            layer.features = features
        defaults = layer.feature_defaults.copy()
        defaults["label"] = int(self._positive)
        layer.feature_defaults = defaults

    def _paint(self) -> None:
        layer = self.points
        if layer is not None and len(layer.data):
            layer.face_color = [POSITIVE if label else NEGATIVE for label in _labels(layer)]


def _labels(layer: Points) -> tuple[int, ...]:
    """1 or 0 for each point; points of a foreign layer without labels are positive."""
    if "label" not in layer.features:
        return (1,) * len(layer.data)
    return tuple(0 if value == 0 else 1 for value in layer.features["label"])


def _positions(array: np.ndarray) -> tuple[Position, ...]:
    return tuple(tuple(float(value) for value in row) for row in array)
