"""The layers `SimMAT points` and `SimMAT boxes`: made where the user chose none."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.shape_prompts import AROUND

POINTS, BOXES = "SimMAT points", "SimMAT boxes"


def left_on(viewer: Viewer, name: str, kind: type[Layer], place: Place) -> Any:
    """A layer of that name that an earlier session, or another view, left on the image."""
    for layer in viewer.layers:
        if layer.name == name and isinstance(layer, kind) and place.lies_on(layer):
            return layer
    return None


def new_points(place: Place) -> Points:
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


def new_boxes(place: Place) -> Shapes:
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
