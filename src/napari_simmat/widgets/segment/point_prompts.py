"""Clicks: a points layer whose features say what each point means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Points
from qtpy.QtCore import QObject, Signal

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.asked import Position, Prompts

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

    def read(self, place: Place, point: Sequence[float]) -> Prompts:
        """The points in the image's coordinates; `point` is the viewer's."""
        layer = self.layer
        if layer is None or not len(layer.data):
            return Prompts()
        at = place.from_layer(layer, layer.data, point)
        return Prompts(positions(at), _labels(layer), _groups(layer))

    def write(self, prompts: Prompts, place: Place, point: Sequence[float]) -> None:
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
