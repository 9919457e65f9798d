"""Clicks: a points layer whose features say what each point means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.widgets.placement import ImageGeometry, shown_axes
from napari_simmat.widgets.segment.prompt_state import Kind, Outline, Position, Prompts

POSITIVE, NEGATIVE = "#2ecc40", "#ff3b30"
GROUP_COLOURS = ("white", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")
"""Border of the points of the first open object, of the second, ..."""


class PointPrompts(QObject):
    """The points layer in use, as values.

    A point's feature ``label`` is 1 (inside the object, green) or 0 (outside, red), its feature
    ``object`` the number of the open object that it means.
    """

    edited = Signal()
    sign_changed = Signal(bool)
    """Whether new points are positive."""
    mode_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: Points | None = None
        self.positive = True
        self.group = 0

    def use(self, layer: Points | None) -> None:
        """Take points from this layer."""
        if self.layer is not None:
            for event, follow in self._events(self.layer):
                event.disconnect(follow)
        self.layer = layer
        if layer is not None:
            for event, follow in self._events(layer):
                event.connect(follow)
            self._sign_to_layer()

    def read(self, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """The points in the image's coordinates; `point` is the viewer's."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        at = place.from_layer(layer, layer.data, point)
        return Prompts(positions(at), _labels(layer), _groups(layer))

    def write(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> None:
        """Show exactly these points."""
        layer = self.layer
        assert layer is not None
        shown = self.read(place, point)
        wanted = prompts.points, prompts.labels, prompts.groups
        if (shown.points, shown.labels, shown.groups) == wanted:
            return
        layer.selected_data = set()
        layer.data = place.to_layer(layer, np.array(prompts.points), point)
        features = layer.features.copy()
        features["label"] = np.array(prompts.labels, dtype=int)
        features["object"] = np.array(prompts.groups, dtype=int)
        layer.features = features
        self.group = min(self.group, max(prompts.groups, default=-1) + 1)
        self._paint()
        self._sign_to_layer()

    def set_positive(self, positive: bool) -> None:
        """Say what new points mean; selected ones are flipped only by `flip`."""
        changed, self.positive = positive != self.positive, positive
        self._sign_to_layer()
        if changed:
            self.sign_changed.emit(positive)

    def set_group(self, group: int) -> None:
        """Say which open object new points mean."""
        self.group = group
        self._sign_to_layer()

    def flip(self) -> None:
        """Flip the points that were selected with the select tool, else what new ones mean."""
        layer = self.layer
        if layer is None or layer.mode != "select" or not layer.selected_data:
            self.set_positive(not self.positive)
            return
        chosen = sorted(layer.selected_data)
        labels = np.array(_labels(layer))
        labels[chosen] = 1 - labels[chosen]
        features = layer.features.copy()
        features["label"] = labels
        layer.features = features
        self._paint()
        self._sign_to_layer()

    def _events(self, layer: Points) -> list[tuple[object, object]]:
        events = layer.events
        return [
            (events.mode, self._on_mode),
            (events.data, self._on_edit),
            (events.features, self._on_edit),
            (events.feature_defaults, self._on_defaults),
            (events.current_properties, self._on_defaults),
        ]

    def _on_mode(self) -> None:
        self.mode_changed.emit()

    def _on_edit(self) -> None:
        self.edited.emit()

    def _on_defaults(self) -> None:
        """Selecting a point makes its label that of the next one; show it."""
        layer = self.layer
        if layer is None or "label" not in layer.feature_defaults:
            return
        if "object" in layer.feature_defaults:
            value = layer.feature_defaults["object"].iloc[0]
            self.group = 0 if np.isnan(value) else int(value)
        positive = bool(layer.feature_defaults["label"].iloc[0] != 0)
        if positive != self.positive:
            self.positive = positive
            self.sign_changed.emit(positive)

    def _sign_to_layer(self) -> None:
        layer = self.layer
        if layer is None:
            return
        with layer.block_update_properties():
            layer.current_face_color = POSITIVE if self.positive else NEGATIVE
            layer.current_border_color = _colour(self.group)
        set_features(layer, {"label": int(self.positive), "object": self.group})

    def _paint(self) -> None:
        layer = self.layer
        if layer is not None and len(layer.data):
            layer.face_color = [POSITIVE if label else NEGATIVE for label in _labels(layer)]
            layer.border_color = [_colour(group) for group in _groups(layer)]


def set_features(layer: Points, values: dict[str, int]) -> None:
    """Make these the features of what is added next; columns that are missing are filled."""
    missing = {"label": 1, "object": 0}
    if absent := [name for name in values if name not in layer.features]:
        features = layer.features.copy()
        for name in absent:
            features[name] = np.full(len(layer.data), missing[name], dtype=int)
        layer.features = features
    defaults = layer.feature_defaults.copy()
    for name, value in values.items():
        defaults[name] = value
    layer.feature_defaults = defaults


def column(layer: Points, name: str, missing: int) -> np.ndarray:
    """A feature as whole numbers; `missing` where a foreign layer has none."""
    if name not in layer.features:
        return np.full(len(layer.data), missing)
    values = np.asarray(layer.features[name], dtype=float)
    return np.where(np.isnan(values), missing, values).astype(int)


def unreadable(layer: Any) -> str | None:
    """Why a points or shapes layer cannot say what its prompts mean, in one sentence, or None."""
    for name in ("label", "object"):
        try:
            column(layer, name, 0)
        except (ValueError, TypeError):
            return (
                f"The feature {name} of {layer.name} holds no numbers, but would say what each "
                "prompt means: rename it, or choose another layer."
            )
    return None


def positions(array: np.ndarray) -> tuple[Position, ...]:
    """Rows of an array as plain numbers."""
    return tuple(tuple(float(value) for value in row) for row in array)


def _labels(layer: Points) -> tuple[int, ...]:
    return tuple(int(value != 0) for value in column(layer, "label", 1))


def _groups(layer: Points) -> tuple[int, ...]:
    return tuple(max(0, int(value)) for value in column(layer, "object", 0))


def _colour(group: int) -> str:
    return GROUP_COLOURS[group % len(GROUP_COLOURS)]


# Drawn shapes: rectangles, ellipses and polygons around objects, scribbles over them.


AROUND = "#ffdc00"
"""Edge of what encloses an object; a scribble has the colour of its sign."""
_KINDS: dict[str, Kind] = {
    "rectangle": "rectangle",
    "ellipse": "ellipse",
    "polygon": "polygon",
    "path": "path",
    "line": "path",
}
_SCRIBBLES = ("add_path", "add_polyline", "add_line")
_DRAWING = (*_SCRIBBLES, "add_rectangle", "add_ellipse", "add_polygon", "add_polygon_lasso")
_CLICK = 6.0
"""A rectangle of less than so many screen pixels was a click, not a box."""


class ShapePrompts(QObject):
    """The shapes layer in use, as values. Features are those of `PointPrompts`."""

    edited = Signal()
    mode_changed = Signal()

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Shapes | None = None
        self._before_drawing: int | None = None
        self._drawn = False

    def use(self, layer: Shapes | None) -> None:
        """Take shapes from this layer."""
        if self.layer is not None:
            self.layer.events.mode.disconnect(self._on_mode)
            self.layer.events.data.disconnect(self._on_data)
        self.layer = layer
        self._before_drawing, self._drawn = None, False
        if layer is not None:
            layer.events.mode.connect(self._on_mode)
            layer.events.data.connect(self._on_data)

    def read(self, place: ImageGeometry, point: Sequence[float]) -> tuple[Outline, ...]:
        """The shapes in the image's coordinates, without the one that is being drawn."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return ()
        whole = len(layer.data) if self._before_drawing is None else self._before_drawing
        # napari leaves a row of features behind where a line was too short to be one.
        labels, groups = column(layer, "label", 1)[:whole], column(layer, "object", 0)[:whole]
        kinds = [_KINDS.get(kind, "path") for kind in layer.shape_type[:whole]]
        return tuple(
            Outline(
                kind,
                positions(place.from_layer(layer, vertices, point)),
                int(label != 0) if kind == "path" else 1,
                max(0, int(group)) if kind == "path" else 0,
            )
            for vertices, kind, label, group in zip(
                layer.data[:whole], kinds, labels, groups, strict=True
            )
        )

    def write(
        self, outlines: tuple[Outline, ...], place: ImageGeometry, point: Sequence[float]
    ) -> None:
        """Show exactly these shapes."""
        layer = self.layer
        assert layer is not None
        if self._before_drawing is not None:
            mode, layer.mode = layer.mode, "pan_zoom"  # ends what is being drawn
            layer.mode = mode
            self._before_drawing = None
        if self.read(place, point) == outlines and len(layer.data) == len(outlines):
            return
        layer.selected_data = set()
        # Removed and added: Shapes cannot be given an empty list in all versions of napari.
        if len(layer.data):
            layer.remove(list(range(len(layer.data))))
        for each in outlines:
            layer.add(
                place.to_layer(layer, np.array(each.vertices), point),
                shape_type=each.kind,
                edge_color=_edge_colour(each),
                face_color="transparent",
            )
        features = layer.features.copy()
        features["label"] = np.array([each.label for each in outlines], dtype=int)
        features["object"] = np.array([each.group for each in outlines], dtype=int)
        layer.features = features
        self._drawn = False

    def mean(self, positive: bool, group: int) -> None:
        """Say what new scribbles mean."""
        layer = self.layer
        if layer is None:
            return
        set_features(layer, {"label": int(positive), "object": group})
        if layer.mode not in _DRAWING:
            return  # what is selected would get the colour
        scribbling = layer.mode in _SCRIBBLES
        colour = (POSITIVE if positive else NEGATIVE) if scribbling else AROUND
        with layer.block_update_properties():
            layer.current_edge_color, layer.current_face_color = colour, "transparent"

    def tidy(self) -> bool:
        """Take away what a click with the tool for boxes leaves; whether there was something."""
        layer, drawn = self.layer, self._drawn
        self._drawn = False
        if not drawn or layer is None or not len(layer.data):
            return False
        if layer.shape_type[-1] not in ("rectangle", "ellipse"):
            return False
        corners = np.array([layer.data_to_world(corner) for corner in layer.data[-1]])
        camera = getattr(self._viewer, "scene", self._viewer).camera  # scene: from napari 0.9
        shown = shown_axes(self._viewer.dims, layer.ndim)
        on_screen = np.ptp(corners[:, shown], axis=0) * camera.zoom
        if not (on_screen < _CLICK).all():
            return False
        layer.selected_data = set()
        layer.remove([len(layer.data) - 1])
        return True

    def _on_mode(self) -> None:
        self.mode_changed.emit()

    def _on_data(self, event: Any) -> None:
        """Note when a shape is begun, and tell when something has changed."""
        layer = self.layer
        assert layer is not None
        if event.action == ActionType.ADDING:
            self._before_drawing = len(layer.data)
        elif event.action == ActionType.ADDED:
            before, self._before_drawing = self._before_drawing, None
            self._drawn = before is not None and len(layer.data) > before
        if event.action in (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED):
            self.edited.emit()


def _edge_colour(outline: Outline) -> str:
    if outline.kind != "path":
        return AROUND
    return POSITIVE if outline.label else NEGATIVE


# The layers `SimMAT points` and `SimMAT boxes`: made where the user chose none.


POINTS, BOXES = "SimMAT points", "SimMAT boxes"


def left_on(viewer: Viewer, name: str, kind: type[Layer], place: ImageGeometry) -> Any:
    """A layer of that name that an earlier session, or another view, left on the image."""
    for layer in viewer.layers:
        if layer.name == name and isinstance(layer, kind) and place.lies_on(layer):
            return layer
    return None


def new_points(place: ImageGeometry) -> Points:
    """An empty layer for clicks, in the image's own axes."""
    layer = Points(
        ndim=place.ndim,
        name=POINTS,
        features={"label": np.zeros(0, dtype=int), "object": np.zeros(0, dtype=int)},
        feature_defaults={"label": 1, "object": 0},
        size=max(1.0, max(place.usual.shape[-2:]) / 50),
        border_color="white",
        border_width=0.15,
        **place.layer_options(),
    )
    layer.canvas_size_limits = (9, 16)
    return layer


def new_boxes(place: ImageGeometry) -> Shapes:
    """An empty layer for drawn shapes, in the image's own axes."""
    layer = Shapes(
        ndim=place.ndim,
        name=BOXES,
        features={"label": np.zeros(0, dtype=int), "object": np.zeros(0, dtype=int)},
        feature_defaults={"label": 1, "object": 0},
        edge_color=AROUND,
        face_color="transparent",
        edge_width=max(0.5, max(place.usual.shape[-2:]) / 250),
        **place.layer_options(),
    )
    layer.current_edge_color, layer.current_face_color = AROUND, "transparent"
    return layer


def added(viewer: Viewer, layer: Any) -> Any:
    """Put a new layer on top, leaving the active one active."""
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active
    return layer


# The layers on which the user points: `SimMAT points` and `SimMAT boxes`, as values.


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

    Layers are read and written in the coordinates of an image's `ImageGeometry`. Own ones show the prompts
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
        self._order: AxisOrder = ()
        self._left: dict[AxisOrder, _Left] = {}
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

    def travel(self, place: ImageGeometry) -> bool:
        """Whether a layer in use has fewer axes than the image: what it holds goes along.

        It lies on whichever plane is shown.
        """
        layers = self.points, self.boxes
        return any(layer is not None and layer.ndim < place.ndim for layer in layers)

    def ensure(self, place: ImageGeometry) -> None:
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

    def read(self, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """All prompts in the image's coordinates; `point` is the viewer's."""
        clicks = self._points.read(place, point)
        return replace(clicks, outlines=self._shapes.read(place, point))

    def write(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> Prompts:
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

    def _turn(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> Prompts:
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

    def _own_points(self, place: ImageGeometry) -> Points:
        """The own points layer on the image; a new one if there is none."""
        layer: Points | None = left_on(self._viewer, POINTS, Points, place)
        return layer if layer is not None else added(self._viewer, new_points(place))

    def _own_boxes(self, place: ImageGeometry) -> Shapes:
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
