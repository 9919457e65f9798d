"""Noticing that an image's data or place was replaced."""

from __future__ import annotations

from collections.abc import Sequence

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_simmat.widgets.inputs import key_of

_PLACES = ("scale", "translate", "rotate", "shear", "affine")


class ImageWatch(QObject):
    """Follows image layers.

    Attributes
    ----------
    versions
        How often each layer's data was replaced, by its key.
    """

    changed = Signal()
    """The data or the transform of a layer was replaced."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.versions: dict[str, int] = {}
        self._followed: list[Image] = []

    def follow(self, images: Sequence[Image]) -> None:
        """Follow exactly these layers."""
        for layer in self._followed:
            layer.events.data.disconnect(self._on_data)
            for name in _PLACES:
                getattr(layer.events, name).disconnect(self._on_place)
        self._followed = list(images)
        for layer in images:
            layer.events.data.connect(self._on_data)
            for name in _PLACES:
                getattr(layer.events, name).connect(self._on_place)

    def _on_place(self) -> None:
        self.changed.emit()

    def _on_data(self, event: object) -> None:
        layer = getattr(event, "source", None)
        if isinstance(layer, Image):
            self.versions[key_of(layer)] = self.versions.get(key_of(layer), 0) + 1
        self.changed.emit()
