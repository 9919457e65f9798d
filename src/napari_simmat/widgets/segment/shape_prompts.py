"""Drawn shapes: rectangles, ellipses and polygons around objects, scribbles over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Shapes
from napari.layers.base import ActionType
from qtpy.QtCore import QObject, Signal

from napari_simmat.widgets.place import Place, shown_axes
from napari_simmat.widgets.segment.asked import Kind, Outline
from napari_simmat.widgets.segment.point_prompts import (
    NEGATIVE,
    POSITIVE,
    column,
    positions,
    set_features,
)

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

    def read(self, place: Place, point: Sequence[float]) -> tuple[Outline, ...]:
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

    def write(self, outlines: tuple[Outline, ...], place: Place, point: Sequence[float]) -> None:
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
                edge_color=_colour(each),
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


def _colour(outline: Outline) -> str:
    if outline.kind != "path":
        return AROUND
    return POSITIVE if outline.label else NEGATIVE
