"""A napari Points or Shapes layer read and written as prompts.

The feature ``label`` of a point or scribble is 1 (positive, green) or 0 (negative, red); its
feature ``object`` is the number of the uncommitted object it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, Signal

from napari_simmat.widgets.placement import ImageGeometry, shown_axes
from napari_simmat.widgets.segment.prompt_state import Outline, Position, Prompts, ShapeKind

POSITIVE, NEGATIVE = "#2ecc40", "#ff3b30"
OUTLINE = "#ffdc00"
"""Edge of a shape that encloses an object; a scribble has the color of its sign."""
GROUP_COLORS = ("white", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")
"""Border of the points of the first uncommitted object, of the second, ..."""
_DEFAULTS = {"label": 1, "object": 0}
_KINDS: dict[str, ShapeKind] = {
    "rectangle": "rectangle",
    "ellipse": "ellipse",
    "polygon": "polygon",
    "path": "path",
    "line": "path",
}
_SCRIBBLES = ("add_path", "add_polyline", "add_line")
_DRAWING = (*_SCRIBBLES, "add_rectangle", "add_ellipse", "add_polygon", "add_polygon_lasso")
_CLICK = 6.0
"""A rectangle smaller than this many screen pixels was a click, not a box."""


class LayerAdapter(QObject):
    """The layer in use of one type; None for none."""

    edited = Signal()
    """The prompts in the layer may have changed."""
    mode_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: Any = None

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        for event, callback in self._events():
            event.disconnect(callback)
        self.layer = layer
        for event, callback in self._events():
            event.connect(callback)

    def _events(self) -> list[tuple[Any, Any]]:
        """The events of the layer that are followed, with their callbacks."""
        return [] if self.layer is None else [(self.layer.events.mode, self._on_mode)]

    def _on_mode(self) -> None:
        self.mode_changed.emit()


class PointsAdapter(LayerAdapter):
    """The points layer in use.

    Attributes
    ----------
    positive, group
        The label and the group of new points.
    """

    sign_changed = Signal(bool)
    """Whether new points are positive."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.positive = True
        self.group = 0

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        super().use(layer)
        self._write_defaults()

    def read(self, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """The points in image coordinates; `point` is the viewer's."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        at = place.from_layer(layer, layer.data, point)
        return Prompts(_positions(at), _labels(layer), _groups(layer))

    def write(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> None:
        """Replace the points by those of `prompts`."""
        layer = self.layer
        assert layer is not None
        shown = self.read(place, point)
        wanted = prompts.points, prompts.labels, prompts.groups
        if (shown.points, shown.labels, shown.groups) == wanted:
            return
        layer.selected_data = set()
        layer.data = place.to_layer(layer, np.array(prompts.points), point)
        _set_columns(layer, label=prompts.labels, object=prompts.groups)
        self.group = min(self.group, max(prompts.groups, default=-1) + 1)
        self._paint()
        self._write_defaults()

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
        if self.layer is None:
            return []
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

    def _write_defaults(self) -> None:
        layer = self.layer
        if layer is None:
            return
        with layer.block_update_properties():
            layer.current_face_color = POSITIVE if self.positive else NEGATIVE
            layer.current_border_color = _group_color(self.group)
        _set_defaults(layer, {"label": int(self.positive), "object": self.group})

    def _paint(self) -> None:
        layer = self.layer
        if layer is not None and len(layer.data):
            layer.face_color = [POSITIVE if label else NEGATIVE for label in _labels(layer)]
            layer.border_color = [_group_color(group) for group in _groups(layer)]


class ShapesAdapter(LayerAdapter):
    """The shapes layer in use."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._before_drawing: int | None = None
        self._drawn = False

    def use(self, layer: Layer | None) -> None:
        """Follow this layer in place of the one before."""
        super().use(layer)
        self._before_drawing, self._drawn = None, False

    def read(self, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """The shapes in image coordinates, without the one that is being drawn."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        whole = len(layer.data) if self._before_drawing is None else self._before_drawing
        # napari leaves a row of features behind where a line was too short to be one.
        labels, groups = (_column(layer, name)[:whole] for name in ("label", "object"))
        kinds = [_KINDS.get(kind, "path") for kind in layer.shape_type[:whole]]
        outlines = tuple(
            Outline(
                kind,
                _positions(place.from_layer(layer, vertices, point)),
                int(label != 0) if kind == "path" else 1,
                max(0, int(group)) if kind == "path" else 0,
            )
            for vertices, kind, label, group in zip(
                layer.data[:whole], kinds, labels, groups, strict=True
            )
        )
        return Prompts(outlines=outlines)

    def write(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> None:
        """Replace the shapes by those of `prompts`."""
        outlines = prompts.outlines
        layer = self.layer
        assert layer is not None
        if self._before_drawing is not None:
            mode, layer.mode = layer.mode, "pan_zoom"  # ends what is being drawn
            layer.mode = mode
            self._before_drawing = None
        if self.read(place, point).outlines == outlines and len(layer.data) == len(outlines):
            return
        layer.selected_data = set()
        # Removed and added: not all versions of napari accept an empty list as data of Shapes.
        if len(layer.data):
            layer.remove(list(range(len(layer.data))))
        for each in outlines:
            layer.add(
                place.to_layer(layer, np.array(each.vertices), point),
                shape_type=each.kind,
                edge_color=_edge_color(each),
                face_color="transparent",
            )
        _set_columns(
            layer,
            label=[each.label for each in outlines],
            object=[each.group for each in outlines],
        )
        self._drawn = False

    def split(self, prompts: Prompts) -> tuple[Prompts, Prompts]:
        """The prompts that this layer holds, and all others."""
        return Prompts(outlines=prompts.outlines), replace(prompts, outlines=())

    def set_defaults(self, positive: bool, group: int) -> None:
        """Set the label and the group of new scribbles."""
        layer = self.layer
        if layer is None:
            return
        _set_defaults(layer, {"label": int(positive), "object": group})
        if layer.mode not in _DRAWING:
            return  # the selected shapes would get the color
        scribbling = layer.mode in _SCRIBBLES
        color = (POSITIVE if positive else NEGATIVE) if scribbling else OUTLINE
        with layer.block_update_properties():
            layer.current_edge_color, layer.current_face_color = color, "transparent"

    def remove_click(self) -> bool:
        """Remove the tiny shape that a click with the box tool leaves; whether there was one."""
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

    def _events(self) -> list[tuple[Any, Any]]:
        if self.layer is None:
            return []
        return [*super()._events(), (self.layer.events.data, self._on_data)]

    def _on_data(self, event: Any) -> None:
        """Remember when a shape is begun, and report when something has changed."""
        layer = self.layer
        assert layer is not None
        if event.action == ActionType.ADDING:
            self._before_drawing = len(layer.data)
        elif event.action == ActionType.ADDED:
            before, self._before_drawing = self._before_drawing, None
            self._drawn = before is not None and len(layer.data) > before
        if event.action in (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED):
            self.edited.emit()


def unreadable(layer: Any) -> str | None:
    """Why the features of a points or shapes layer cannot be read as prompts, or None."""
    for name in _DEFAULTS:
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
    features = layer.features.copy()
    for name, values in columns.items():
        features[name] = np.array(values, dtype=int)
    layer.features = features


def _set_defaults(layer: Any, values: dict[str, int]) -> None:
    """Set the features of what is added next; missing columns are added."""
    if absent := [name for name in values if name not in layer.features]:
        _set_columns(layer, **{name: [_DEFAULTS[name]] * len(layer.data) for name in absent})
    defaults = layer.feature_defaults.copy()
    for name, value in values.items():
        defaults[name] = value
    layer.feature_defaults = defaults


def _column(layer: Any, name: str) -> np.ndarray:
    """A feature as whole numbers; its default where a foreign layer has none."""
    if name not in layer.features:
        return np.full(len(layer.data), _DEFAULTS[name])
    values = np.asarray(layer.features[name], dtype=float)
    return np.where(np.isnan(values), _DEFAULTS[name], values).astype(int)


def _labels(layer: Points) -> tuple[int, ...]:
    return tuple(int(value != 0) for value in _column(layer, "label"))


def _groups(layer: Points) -> tuple[int, ...]:
    return tuple(max(0, int(value)) for value in _column(layer, "object"))


def _positions(array: np.ndarray) -> tuple[Position, ...]:
    return tuple(tuple(float(value) for value in row) for row in array)


def _group_color(group: int) -> str:
    return GROUP_COLORS[group % len(GROUP_COLORS)]


def _edge_color(outline: Outline) -> str:
    if outline.kind != "path":
        return OUTLINE
    return POSITIVE if outline.label else NEGATIVE
