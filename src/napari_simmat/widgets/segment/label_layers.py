"""The layers that hold masks: `SimMAT preview`, `SimMAT objects` and `SimMAT classes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from napari import Viewer
from napari.layers import Labels, Layer
from napari.utils.colormaps import CyclicLabelColormap

from napari_simmat.widgets.place import Place

PREVIEW, OBJECTS, CLASSES = "SimMAT preview", "SimMAT objects", "SimMAT classes"

_PREVIEW_COLOURS = ("#00000000", "#ffd60a", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")


class Preview:
    """The masks that a commit would write, each plane its own."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.layer: Labels | None = None

    def prepare(self, place: Place) -> None:
        """Have the layer: napari takes a moment for its first one, better now than at a click."""
        self._ensure(place)

    def show(self, place: Place, plane: tuple[int, ...], masks: Sequence[np.ndarray]) -> None:
        """Show `masks` (Y, X) on `plane`, the first on top."""
        self.show_all(place, {plane: masks})

    def show_all(self, place: Place, masks: Mapping[tuple[int, ...], Sequence[np.ndarray]]) -> None:
        """Show masks (Y, X) on several planes, the first of each on top."""
        layer = self._ensure(place)
        for plane, there in masks.items():
            labels = np.zeros(place.shape[-2:], dtype=np.uint8)
            for number, mask in reversed(list(enumerate(there))):
                labels[mask] = 1 + number % 255
            layer.data[plane] = labels
        layer.refresh()

    def show_labels(self, place: Place, plane: tuple[int, ...], labels: np.ndarray) -> None:
        """Show objects 1, 2, ... (Y, X) on `plane`; neighbours in number differ in colour."""
        layer = self._ensure(place)
        layer.data[plane] = np.where(labels > 0, 1 + (labels.astype(np.int64) - 1) % 255, 0)
        layer.refresh()

    def clear(self, plane: tuple[int, ...] | None = None) -> None:
        """Show nothing on `plane`, or on all planes."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            return
        if plane is None:
            layer.data[...] = 0
        elif len(plane) == layer.ndim - 2 and layer.data[plane].any():
            layer.data[plane] = 0
        else:
            return
        layer.refresh()

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _ensure(self, place: Place) -> Labels:
        layer = self.layer
        if layer is not None and layer in self._viewer.layers:
            if place.misfit(layer) is None:
                return layer
            self._viewer.layers.remove(layer)
        for other in self._viewer.layers:
            if other.name == PREVIEW and isinstance(other, Labels) and not place.misfit(other):
                other.data[...] = 0  # left by an earlier session
                self.layer = other
                return other
        self.layer = Labels(
            np.zeros(place.shape, dtype=np.uint8),
            name=PREVIEW,
            opacity=0.5,
            colormap=CyclicLabelColormap(colors=list(_PREVIEW_COLOURS)),
            **place.layer_options(),
        )
        add_below_prompts(self._viewer, self.layer)
        return self.layer


def new_objects(viewer: Viewer, place: Place, labels: np.ndarray | None = None) -> Labels:
    """Add an int32 layer for the image's objects: `labels` (..., Y, X) itself, or an empty one."""
    data = np.zeros(place.shape, dtype=np.int32) if labels is None else labels
    layer = Labels(data, name=OBJECTS, opacity=0.6, **place.layer_options())
    add_below_prompts(viewer, layer)
    return layer


def add_below_prompts(viewer: Viewer, layer: Layer) -> None:
    """Add a layer below the prompts (objects below the preview), leaving the active one active."""
    active = viewer.layers.selection.active
    above = [
        index
        for index, other in enumerate(viewer.layers)
        if other.name.startswith("SimMAT ") and _rank(other) > _rank(layer)
    ]
    # At its place at once: a layer that is added and then moved is drawn twice.
    viewer.layers.insert(min(above, default=len(viewer.layers)), layer)
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active


def _rank(layer: Layer) -> int:
    """Classes lie below objects, these below the preview, all below prompts."""
    below = (CLASSES, OBJECTS, PREVIEW)
    return next((n for n, name in enumerate(below) if layer.name.startswith(name)), len(below))
