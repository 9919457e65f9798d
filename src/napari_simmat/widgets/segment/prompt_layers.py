"""The tools that draw prompts, and the layers they draw in: `SimMAT points` and `SimMAT boxes`.

An adapter reads and writes a napari Points or Shapes layer as prompts. The feature ``label`` of a
point or scribble is 1 (positive, green) or 0 (negative, red); its feature ``object`` is the number
of the uncommitted object it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.prompt_state import Outline, Position, Prompts, ShapeKind
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.widgets.placement import ImageGeometry, shown_axes
from napari_simmat.widgets.segment.outputs import note_provenance
from napari_simmat.widgets.shortcuts import guard_shift
from napari_simmat.widgets.worker import later

POINTS, BOXES = "SimMAT points", "SimMAT boxes"
OUTLINE_WIDTH, BROAD = 2.0, 3.0
"""Width of the edges of shapes in screen pixels; a positive scribble is so many times as broad, so
that it differs from a negative one without color.
"""
_ZOOM_DELAY = 50
"""Milliseconds that the zoom rests before the edges are drawn again."""
POSITIVE, NEGATIVE = "#20c070", "#e00020"
SYMBOLS = ("x", "disc")  # of a negative and of a positive point, which differ without color
OUTLINE = "#ffdc00"
"""Edge of a shape that encloses an object; a scribble has the color of its sign."""
GROUP_COLORS = ("white", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")
"""Border of the points of the first uncommitted object, of the second, ..."""
_DEFAULTS = {"label": 1, "object": 0}
_SHAPE_DEFAULTS = {**_DEFAULTS, "after": 0}
Tool = Literal["point", "box", "ellipse", "polygon", "scribble", ""]


class PromptTool(NamedTuple):
    """A way to draw prompts."""

    modes: tuple[str, ...]
    """napari's modes that draw with it; its button takes the first."""
    shape: ShapeKind | None
    """What is drawn; None for points."""
    title: str
    tip: str
    """Text and tool tip, of its button or of its entry in the list of shapes."""


TOOLS: dict[Tool, PromptTool] = {
    "point": PromptTool(("add",), None, "● Point", "Click on the object"),
    "box": PromptTool(("add_rectangle",), "rectangle", "▭ Box", "Draw a box around each object"),
    "ellipse": PromptTool(("add_ellipse",), "ellipse", "◯ Ellipse", "Draw an ellipse around it"),
    "polygon": PromptTool(
        ("add_polygon", "add_polygon_lasso"), "polygon", "⬠ Polygon", "Click around the object"
    ),
    "scribble": PromptTool(
        ("add_path", "add_polyline", "add_line"),
        "path",
        "∿ Scribble",
        "Scribble over the object, or around it",
    ),
}
_TOOL_OF_MODE = {mode: name for name, tool in TOOLS.items() for mode in tool.modes}
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
        super().use(layer)
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
        return layer

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        super().use(layer)
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
        labels, groups, after = (_column(layer, name)[:whole] for name in _SHAPE_DEFAULTS)
        kinds = [kind if kind in _SHAPES else "path" for kind in layer.shape_type[:whole]]
        outlines = tuple(
            Outline(
                kind,
                _positions(geometry.from_layer(layer, vertices, point)),
                int(label != 0) if kind == "path" else 1,
                max(0, int(group)) if kind == "path" else 0,
                max(0, int(count)) if kind == "path" else 0,
            )
            for vertices, kind, label, group, count in zip(
                layer.data[:whole], kinds, labels, groups, after, strict=True
            )
        )
        return Prompts(outlines=outlines)

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
        # Removed and added: not all versions of napari accept an empty list as data of Shapes.
        if len(layer.data):
            layer.remove(list(range(len(layer.data))))
        for each in outlines:
            layer.add(
                geometry.to_layer(layer, np.array(each.vertices), point),
                shape_type=each.kind,
                edge_color=_edge_color(each.kind, each.label),
                face_color="transparent",
                edge_width=self._edge_width(each.kind, each.label),
            )
        columns = {"label": "label", "object": "group", "after": "after"}
        found = {name: [getattr(e, field) for e in outlines] for name, field in columns.items()}
        _set_columns(layer, **found)
        self._drawn = False
        return self.read(geometry, point)

    def split(self, prompts: Prompts) -> tuple[Prompts, Prompts]:
        """The prompts that this layer holds, and all others."""
        return Prompts(outlines=prompts.outlines), replace(prompts, outlines=())

    def set_defaults(self, positive: bool, group: int, after: int) -> None:
        """Set the label and the group of new scribbles, and how many points are there."""
        layer = self.layer
        if layer is None:
            return
        _set_defaults(layer, {"label": int(positive), "object": group, "after": after})
        tool = _TOOL_OF_MODE.get(str(layer.mode))
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


def is_drawing(layer: Any) -> bool:
    """Whether the mode of a layer is one of the tools."""
    return str(layer.mode) in _TOOL_OF_MODE


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


class PromptLayers(QObject):
    """The points layer and the shapes layer in use; own ones are made if none is chosen.

    Layers are read and written in the coordinates of an image's `ImageGeometry`. Own layers show
    the prompts of the current view; one that the user chose belongs to the view it was chosen in.

    Attributes
    ----------
    set_positive, flip
        Those of the `PointsAdapter`.
    """

    edited = Signal()
    """The prompts may have changed; emitted once per turn of the event loop."""
    replaced = Signal()
    """Another layer is in use, or one is gone."""
    sign_changed = Signal(bool)
    """Whether new points are positive."""
    tool_changed = Signal()
    """`tool` may have changed."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._points = PointsAdapter(self)
        self._shapes = ShapesAdapter(viewer, self)
        # In this order new points lie on top.
        self._adapters: tuple[Any, ...] = self._shapes, self._points
        self._last_mode = "add"
        self._order: AxisOrder = ()
        # Chosen layers that are unused while another view is shown, and the prompts they held.
        self._parked: dict[AxisOrder, tuple[list[Layer | None], Prompts]] = {}
        # napari emits several events for one edit, so the layers are read when all have passed.
        self._settled = later(self, self._on_settled)
        for adapter in self._adapters:
            adapter.edited.connect(self._settled.start)
            adapter.mode_changed.connect(self._on_tool)
        self._points.sign_changed.connect(self._set_shape_defaults)
        self._points.sign_changed.connect(self.sign_changed)
        self.set_positive, self.flip = self._points.set_positive, self._points.flip
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_tool)
        self._zoomed = later(self, self._fit_outlines, _ZOOM_DELAY)
        self._camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        self._camera.events.zoom.connect(self._on_zoom)

    @property
    def points(self) -> Points | None:
        """The points layer in use."""
        return self._points.layer  # type: ignore[no-any-return]

    @property
    def boxes(self) -> Shapes | None:
        """The shapes layer in use."""
        return self._shapes.layer  # type: ignore[no-any-return]

    @property
    def tool(self) -> Tool:
        """What a press on the image adds now."""
        active = self._viewer.layers.selection.active
        is_ours = active is not None and active in (self.points, self.boxes)
        return _TOOL_OF_MODE.get(str(active.mode), "") if is_ours else ""

    @property
    def positive(self) -> bool:
        """Whether new points are positive."""
        return self._points.positive

    @property
    def pending(self) -> bool:
        """Whether `edited` is about to be emitted."""
        return self._settled.isActive()

    def follows_slider(self, geometry: ImageGeometry) -> bool:
        """Whether a layer in use has fewer axes than the image.

        Its prompts lie on whichever plane is shown, so they move with the slider.
        """
        layers = self.points, self.boxes
        return any(layer is not None and layer.ndim < geometry.ndim for layer in layers)

    def ensure(self, geometry: ImageGeometry) -> None:
        """Make sure that both layers exist and own ones lie on the image."""
        while self.make_layer(geometry):
            pass

    def make_layer(self, geometry: ImageGeometry) -> bool:
        """Make one layer that is missing; whether one was.

        An own layer that lies elsewhere is replaced by a new one, which takes over its tool.
        """
        for adapter in self._adapters:
            old = adapter.layer
            if old is None or (old.name == adapter.name and not geometry.lies_on(old)):
                active = self._viewer.layers.selection.active
                if old is not None and old in self._viewer.layers:
                    self._viewer.layers.remove(old)
                self._use(adapter, self._own_layer(adapter, geometry))
                self._hand_over(old, adapter.layer, active)
                return True
        return False

    def use(self, layer: Points | Shapes | None, name: str) -> None:
        """Take prompts from this layer in place of that called `POINTS` or `BOXES`."""
        [adapter] = [each for each in self._adapters if each.name == name]
        self._use(adapter, layer)

    def read(self, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """All drawn prompts in image coordinates; `point` is the viewer's."""
        return self._points.read(geometry, point) + self._shapes.read(geometry, point)

    def write(self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """Replace the drawn prompts by these; returns how they read back.

        What the user changed in a chosen layer while another view was shown is kept.
        """
        if geometry.order != self._order:
            prompts = self._change_view(prompts, geometry, point)
        self.ensure(geometry)
        boxes, points = (each.write(prompts, geometry, point) for each in self._adapters)
        self._set_shape_defaults()
        self._settled.stop()
        return points + boxes

    def next_group(self, prompts: Prompts) -> bool:
        """Let new points begin another object besides those of `prompts`; whether there are any."""
        taken = [*prompts.groups, *(each.group for each in prompts.outlines)]
        if not taken:
            return False
        self._points.set_group(max(taken) + 1)
        self._set_shape_defaults()
        return True

    def continue_last_group(self, prompts: Prompts) -> None:
        """Let new points belong to the last object of `prompts`, those of the current plane."""
        last = max((*prompts.groups, *(each.group for each in prompts.outlines)), default=0)
        if last != self._points.group:
            self._points.set_group(last)
            self._set_shape_defaults()

    def draw(self, tool: Tool) -> None:
        """Activate a tool, and the layer in which it draws."""
        layer = self.points if TOOLS[tool].shape is None else self.boxes
        self._activate(layer, TOOLS[tool].modes[0])

    def restore_tool(self) -> None:
        """Activate the last-used tool, at first points; one in hand stays, also napari's."""
        active = self._viewer.layers.selection.active
        if active is None or str(active.mode) == "pan_zoom":
            self.take_up_tool()

    def take_up_tool(self) -> None:
        """Activate the last-used tool, whatever is in hand."""
        on_points = self._last_mode in TOOLS["point"].modes
        self._activate(self.points if on_points else self.boxes, self._last_mode)

    def release(self) -> None:
        """Stop following the layers; they stay in the viewer."""
        self._settled.stop()
        self._zoomed.stop()
        self._camera.events.zoom.disconnect(self._on_zoom)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_tool)
        for adapter in self._adapters:
            if adapter.layer is not None and adapter.layer.name == BOXES:
                guard_shift(adapter.layer, guarded=False)
            adapter.use(None)

    def _change_view(
        self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]
    ) -> Prompts:
        """Park the layers chosen in the view before, and take up those of this view."""
        before, self._order = self._order, geometry.order
        used = [adapter.layer for adapter in self._adapters]
        chosen = [None if each is None or each.name in (POINTS, BOXES) else each for each in used]
        if any(layer is not None for layer in chosen):
            known = len(before) in (0, geometry.ndim)  # else they were on an image of other axes
            held = self.read(geometry.seen(before), point) if known else Prompts()
            self._parked[before] = chosen, held
        parked, held = self._parked.pop(geometry.order, ([None, None], Prompts()))
        active = self._viewer.layers.selection.active
        for adapter, was_chosen, back in zip(self._adapters, chosen, parked, strict=True):
            old = adapter.layer
            if back is not None and back in self._viewer.layers:
                if was_chosen is None and old is not None:
                    adapter.write(Prompts(), geometry, point)
                self._use(adapter, back)
                now = adapter.read(geometry, point)
                if now != adapter.split(held)[0]:
                    prompts = now + adapter.split(prompts)[1]
            elif was_chosen is not None:
                self._use(adapter, self._own_layer(adapter, geometry))
            self._hand_over(old, adapter.layer, active)
        return prompts

    def _use(self, adapter: PointsAdapter | ShapesAdapter, layer: Layer | None) -> None:
        if layer is not adapter.layer:
            adapter.use(layer)
            self._set_shape_defaults()
            self._fit_outlines()
            self.replaced.emit()
            self._settled.start(0)

    def _own_layer(self, adapter: PointsAdapter | ShapesAdapter, geometry: ImageGeometry) -> Layer:
        """The own layer on the image, perhaps left by an earlier session or view; else a new one.

        A new one is added on top; the active layer stays active.
        """
        for layer in self._viewer.layers:
            is_own = layer.name == adapter.name and isinstance(layer, adapter.kind)
            if is_own and geometry.lies_on(layer):
                return layer
        active = self._viewer.layers.selection.active
        layer = adapter.new_layer(geometry)
        note_provenance(layer, geometry.name)
        self._viewer.add_layer(layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _activate(self, layer: Points | Shapes | None, mode: str) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer
            layer.visible = True
            layer.mode = mode

    def _hand_over(self, old: Layer | None, new: Any, active: Layer | None) -> None:
        """Give the new layer the tool of the old one if that was active."""
        if old is not None and old is active and new is not old:
            self._activate(new, old.mode)

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        for adapter in self._adapters:
            if gone is not None and gone is adapter.layer:
                self._use(adapter, None)

    def _on_settled(self) -> None:
        if self._shapes.remove_click():
            self._settled.stop()
        self.edited.emit()

    def _on_tool(self) -> None:
        if self.tool:
            self._last_mode = str(self._viewer.layers.selection.active.mode)
        self._set_shape_defaults()
        self.tool_changed.emit()

    def _on_zoom(self) -> None:
        self._zoomed.start()

    def _fit_outlines(self) -> None:
        """Draw the own shapes equally thin on the screen at any zoom, so that they hide nothing."""
        if self.boxes is not None:
            pixel = self._camera.zoom * abs(float(self.boxes.scale[-1]))
            self._shapes.set_width(OUTLINE_WIDTH / pixel)
            self._set_shape_defaults()

    def _set_shape_defaults(self, *_: object) -> None:
        clicks = 0 if self.points is None else len(self.points.data)
        self._shapes.set_defaults(self._points.positive, self._points.group, clicks)


def _features(defaults: dict[str, int]) -> dict[str, Any]:
    none = {name: np.zeros(0, dtype=int) for name in defaults}
    return {"features": none, "feature_defaults": defaults}
