"""napari's Points and Shapes layers, read and written as prompts.

The feature ``label`` of a point or scribble is 1 (positive, green) or 0 (negative, red); its
feature ``object`` is the number of the uncommitted object it belongs to, and ``after`` how many
points were there before a scribble. A path whose ``outline`` is 1 outlines an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.prompt_state import Outline, Position, Prompts, ShapeKind
from napari_simmat.widgets.placement import ImageGeometry, shown_axes
from napari_simmat.widgets.segment.layers.prompt_tools import (
    TOOL_OF_MODE,
    TOOLS,
    PenTool,
    Select,
    add_without_selecting,
    draw_on_planes,
    follow_with_pen,
    let_go_of_pen,
    select_before_adding,
)
from napari_simmat.widgets.shortcuts import guard_shift

POINTS, BOXES = "SimMAT points", "SimMAT boxes"
OUTLINE_WIDTH, BROAD = 2.0, 3.0
"""Width of the edges of shapes in screen pixels; a positive scribble is so many times as broad, so
that it differs from a negative one without color.
"""
POSITIVE, NEGATIVE = "#20c070", "#e00020"
SYMBOLS = ("x", "disc")  # of a negative and of a positive point, which differ without color
OUTLINE = "#ffdc00"
"""Edge of a shape that encloses an object; a scribble has the color of its sign."""
GROUP_COLORS = ("white", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")
"""Border of the points of the first uncommitted object, of the second, ..."""
_DEFAULTS = {"label": 1, "object": 0}
_SHAPE_DEFAULTS = {**_DEFAULTS, "after": 0, "outline": 0}
_SHAPES = {tool.shape for tool in TOOLS.values()}
_CLICK = 6.0
"""A rectangle smaller than this many screen pixels was a click, not a box."""


class LayerAdapter(QObject):
    """The layer in use of one type; None for none.

    Attributes
    ----------
    name, kind
        Name and type of the own layer, which is used if the user chooses none.
    """

    name: str
    kind: type[Layer]
    edited = Signal()
    """The prompts in the layer may have changed."""
    mode_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: Any = None

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        for event, callback in () if self.layer is None else self._events():
            event.disconnect(callback)
        self.layer = layer
        for event, callback in () if layer is None else self._events():
            event.connect(callback)

    def _events(self) -> list[tuple[Any, Any]]:
        """The events of the layer that are followed, with their callbacks."""
        return [(self.layer.events.mode, self._on_mode)]

    def _on_mode(self) -> None:
        self.mode_changed.emit()


class PointsAdapter(LayerAdapter):
    """The points layer in use.

    Attributes
    ----------
    positive, group
        The label and the group of new points.
    """

    name, kind = POINTS, Points
    sign_changed = Signal(bool)
    """Whether new points are positive."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.select: Select | None = None
        self.positive = True
        self.group = 0

    def new_layer(self, geometry: ImageGeometry) -> Points:
        """An empty layer in the image's own axes."""
        layer = Points(
            ndim=geometry.ndim,
            name=POINTS,
            size=max(1.0, max(geometry.usual.shape[-2:]) / 50),
            border_color="white",
            border_width=0.15,
            **_features(_DEFAULTS),
            **geometry.layer_options(),
        )
        layer.canvas_size_limits = (9, 16)
        return layer

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        if self.layer is not None:
            add_without_selecting(self.layer)
        super().use(layer)
        if layer is not None and self.select is not None:
            select_before_adding(layer, self.select)
        self._write_defaults()

    def read(self, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """The points in image coordinates; `point` is the viewer's."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        at = geometry.from_layer(layer, layer.data, point)
        return Prompts(_positions(at), _labels(layer), _groups(layer))

    def write(self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """Replace the points by those of `prompts`; returns how they read back."""
        layer = self.layer
        if (shown := self.read(geometry, point)) == self.split(prompts)[0]:
            return shown
        layer.selected_data = set()
        layer.data = geometry.to_layer(layer, np.array(prompts.points), point)
        _set_columns(layer, label=prompts.labels, object=prompts.groups)
        self.group = min(self.group, max(prompts.groups, default=-1) + 1)
        self._paint()
        self._write_defaults()
        return self.read(geometry, point)

    def split(self, prompts: Prompts) -> tuple[Prompts, Prompts]:
        """The prompts that this layer holds, and all others."""
        rest = Prompts(outlines=prompts.outlines, masks=prompts.masks)
        return replace(prompts, outlines=(), masks=()), rest

    def set_positive(self, positive: bool) -> None:
        """Set the label of new points; selected points are changed by `flip` alone."""
        changed, self.positive = positive != self.positive, positive
        self._write_defaults()
        if changed:
            self.sign_changed.emit(positive)

    def set_group(self, group: int) -> None:
        """Set the group of new points."""
        self.group = group
        self._write_defaults()

    def flip(self) -> None:
        """Flip the points chosen with the select tool, else the label of new points."""
        layer = self.layer
        if layer is None or layer.mode != "select" or not layer.selected_data:
            self.set_positive(not self.positive)
            return
        chosen = sorted(layer.selected_data)
        labels = np.array(_labels(layer))
        labels[chosen] = 1 - labels[chosen]
        _set_columns(layer, label=labels)
        self._paint()
        self._write_defaults()

    def _events(self) -> list[tuple[Any, Any]]:
        events = self.layer.events
        return [
            *super()._events(),
            (events.data, self._on_edit),
            (events.features, self._on_edit),
            (events.feature_defaults, self._on_defaults),
            (events.current_properties, self._on_defaults),
        ]

    def _on_edit(self) -> None:
        self.edited.emit()

    def _on_defaults(self) -> None:
        """Napari makes a selected point's features the defaults of the next one; follow it."""
        defaults = self.layer.feature_defaults
        if "label" not in defaults:
            return
        if "object" in defaults:
            value = defaults["object"].iloc[0]
            self.group = 0 if np.isnan(value) else int(value)
        positive = bool(defaults["label"].iloc[0] != 0)
        if positive != self.positive:
            self.positive = positive
            self.sign_changed.emit(positive)

    def _write_defaults(self) -> None:
        layer = self.layer
        if layer is None:
            return
        with layer.block_update_properties():
            layer.current_face_color = POSITIVE if self.positive else NEGATIVE
            layer.current_symbol = SYMBOLS[self.positive]
            layer.current_border_color = _group_color(self.group)
        _set_defaults(layer, {"label": int(self.positive), "object": self.group})

    def _paint(self) -> None:
        layer = self.layer
        if layer is not None and len(layer.data):
            layer.face_color = [POSITIVE if label else NEGATIVE for label in _labels(layer)]
            layer.symbol = [SYMBOLS[label] for label in _labels(layer)]
            layer.border_color = [_group_color(group) for group in _groups(layer)]


class ShapesAdapter(LayerAdapter):
    """The shapes layer in use."""

    name, kind = BOXES, Shapes

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.pen: PenTool | None = None
        self._width = 0.0
        self._before_drawing: int | None = None
        self._drawn = False

    def new_layer(self, geometry: ImageGeometry) -> Shapes:
        """An empty layer in the image's own axes."""
        layer = Shapes(
            ndim=geometry.ndim,
            name=BOXES,
            edge_color=OUTLINE,
            face_color="transparent",
            **_features(_SHAPE_DEFAULTS),
            **geometry.layer_options(),
        )
        layer.current_edge_color = OUTLINE
        layer.current_face_color = "transparent"
        guard_shift(layer)
        draw_on_planes(layer, self._viewer)
        return layer

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        if self.layer is not None:
            let_go_of_pen(self.layer)
        super().use(layer)
        if layer is not None and self.pen is not None:
            follow_with_pen(layer, self.pen)
        self._before_drawing = None
        self._drawn = False
        self._width = 0.0

    def read(self, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """The shapes in image coordinates, without the one that is being drawn."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        whole = len(layer.data) if self._before_drawing is None else self._before_drawing
        # napari leaves a row of features behind where a line was too short to be one.
        labels, groups, after, outlined = (_column(layer, name)[:whole] for name in _SHAPE_DEFAULTS)
        kinds = [kind if kind in _SHAPES else "path" for kind in layer.shape_type[:whole]]
        outlines = []
        for number, (vertices, kind) in enumerate(zip(layer.data[:whole], kinds, strict=True)):
            at = _positions(geometry.from_layer(layer, vertices, point))
            if kind != "path":
                outlines.append(Outline(kind, at))
                continue
            label, group = int(labels[number] != 0), max(0, int(groups[number]))
            count = max(0, int(after[number]))
            if outlined[number]:
                outlines.append(Outline("polygon", at[:-1], 1, group, count))
            else:
                outlines.append(Outline("path", at, label, group, count))
        return Prompts(outlines=tuple(outlines))

    def write(self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """Replace the shapes by those of `prompts`; returns how they read back."""
        layer, outlines = self.layer, prompts.outlines
        if self._before_drawing is not None:
            mode, layer.mode = layer.mode, "pan_zoom"  # ends what is being drawn
            layer.mode = mode
            self._before_drawing = None
        shown = self.read(geometry, point)
        if shown.outlines == outlines and len(layer.data) == len(outlines):
            return shown
        layer.selected_data = set()
        kept = len(shown.outlines)
        if outlines[:kept] != shown.outlines or len(layer.data) != kept:
            kept = 0
            # Removed and added: not all versions of napari accept an empty list of Shapes.
            if len(layer.data):
                layer.remove(list(range(len(layer.data))))
        for each in outlines[kept:]:
            # napari cannot fill an outline that crosses itself, as one of a hand does.
            by_pen = _is_by_pen(each)
            vertices = (*each.vertices, each.vertices[0]) if by_pen else each.vertices
            layer.add(
                geometry.to_layer(layer, np.array(vertices), point),
                shape_type="path" if by_pen else each.kind,
                edge_color=_edge_color(each.kind, each.label),
                face_color="transparent",
                edge_width=self._edge_width(each.kind, each.label),
            )
        columns = {"label": "label", "object": "group", "after": "after"}
        found = {name: [getattr(e, field) for e in outlines] for name, field in columns.items()}
        _set_columns(layer, **found, outline=[int(_is_by_pen(each)) for each in outlines])
        self._drawn = False
        return self.read(geometry, point)

    def split(self, prompts: Prompts) -> tuple[Prompts, Prompts]:
        """The prompts that this layer holds, and all others."""
        return Prompts(outlines=prompts.outlines), replace(prompts, outlines=())

    def set_defaults(self, positive: bool) -> None:
        """Set the look of what napari draws next; what it draws belongs to no group."""
        layer = self.layer
        if layer is None:
            return
        _set_defaults(layer, _SHAPE_DEFAULTS)
        tool = TOOL_OF_MODE.get(str(layer.mode))
        if tool is None:
            return  # the selected shapes would get the color
        shape = TOOLS[tool].shape
        with layer.block_update_properties():
            layer.current_edge_color = _edge_color(shape, positive)
            layer.current_face_color = "transparent"
            layer.current_edge_width = self._edge_width(shape, positive)

    def set_width(self, width: float) -> None:
        """Draw the edges of an own layer this wide, in its pixels."""
        if (layer := self.layer).name == BOXES:
            self._width = width
            pairs = zip(layer.shape_type, _column(layer, "label"), strict=False)
            layer.edge_width = [self._edge_width(*pair) for pair in pairs] or width

    def _edge_width(self, shape: ShapeKind | None, positive: bool | int) -> float:
        width = self._width or self.layer.current_edge_width
        return width * BROAD if self._width and shape == "path" and positive else width

    def remove_click(self) -> bool:
        """Remove the tiny shape that a click with the box tool leaves; whether there was one."""
        layer, drawn = self.layer, self._drawn
        self._drawn = False
        kinds = layer.shape_type[-1:] if drawn and layer is not None else []
        if kinds not in (["rectangle"], ["ellipse"]):
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

    def _events(self) -> list[tuple[Any, Any]]:
        return [*super()._events(), (self.layer.events.data, self._on_data)]

    def _on_data(self, event: Any) -> None:
        """Remember when a shape is begun, and report when something has changed."""
        count = len(self.layer.data)
        if event.action == ActionType.ADDING:
            self._before_drawing = count
        elif event.action == ActionType.ADDED:
            before, self._before_drawing = self._before_drawing, None
            self._drawn = before is not None and count > before
        if event.action in (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED):
            self.edited.emit()


def _is_by_pen(outline: Outline) -> bool:
    """Whether the pen outlined an object, which has a group of its own then."""
    return outline.kind == "polygon" and outline.group > 0


def is_drawing(layer: Any) -> bool:
    """Whether the mode of a layer is one of the tools."""
    return str(layer.mode) in TOOL_OF_MODE


def unreadable(layer: Any) -> str | None:
    """Why the features of a points or shapes layer cannot be read as prompts, or None."""
    for name in _SHAPE_DEFAULTS:
        try:
            _column(layer, name)
        except (ValueError, TypeError):
            return (
                f"The feature {name} of {layer.name} is not numeric, but is needed to read the "
                "prompts: rename it, or choose another layer."
            )
    return None


def _set_columns(layer: Any, **columns: Any) -> None:
    """Replace features by whole numbers."""
    whole = {name: np.array(values, dtype=int) for name, values in columns.items()}
    layer.features = layer.features.assign(**whole)


def _set_defaults(layer: Any, values: dict[str, int]) -> None:
    """Set the features of what is added next; missing columns are added."""
    if absent := [name for name in values if name not in layer.features]:
        none = {name: [_SHAPE_DEFAULTS[name]] * len(layer.data) for name in absent}
        _set_columns(layer, **none)
    before = layer.feature_defaults
    if any(name not in before or before[name].iloc[0] != value for name, value in values.items()):
        layer.feature_defaults = before.assign(**values)


def _column(layer: Any, name: str) -> np.ndarray:
    """A feature as whole numbers; its default where a foreign layer has none."""
    if name not in layer.features:
        return np.full(len(layer.data), _SHAPE_DEFAULTS[name])
    values = np.asarray(layer.features[name], dtype=float)
    return np.where(np.isnan(values), _SHAPE_DEFAULTS[name], values).astype(int)


def _labels(layer: Points) -> tuple[int, ...]:
    return tuple(int(value != 0) for value in _column(layer, "label"))


def _groups(layer: Points) -> tuple[int, ...]:
    return tuple(max(0, int(value)) for value in _column(layer, "object"))


def _positions(array: np.ndarray) -> tuple[Position, ...]:
    return tuple(tuple(float(value) for value in row) for row in array)


def _group_color(group: int) -> str:
    return GROUP_COLORS[group % len(GROUP_COLORS)]


def _edge_color(shape: ShapeKind | None, positive: bool | int) -> str:
    if shape != "path":
        return OUTLINE
    return POSITIVE if positive else NEGATIVE


def _features(defaults: dict[str, int]) -> dict[str, Any]:
    none = {name: np.zeros(0, dtype=int) for name in defaults}
    return {"features": none, "feature_defaults": defaults}
