"""Which level of a multiscale image is segmented."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout

from napari_simmat.widgets.controls import Choice
from napari_simmat.widgets.levels import choose_level, image_shape, level_of


class LevelChoice(Choice):
    """A row of a form that is there for multiscale images alone."""

    changed = Signal()
    """The user chose another level."""

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        form.addRow("Level", self)
        self._label = form.labelForField(self)
        self._layers: tuple[Image, ...] = ()
        self.setToolTip("Finer levels take more memory; prompts and objects lie in its pixels")
        self.activated.connect(self._on_activated)
        self.show_layers(())

    def show_layers(self, layers: Iterable[Image]) -> None:
        """Offer the levels of the layers in use; nothing where they have one."""
        self._layers = tuple(layer for layer in layers if layer.multiscale)
        for part in (self, self._label):
            part.setVisible(bool(self._layers))
        self.clear()
        if self._layers:
            first = self._layers[0]
            for level in range(len(first.data)):
                height, width = image_shape(first, level)[-2:]
                self.addItem(f"{level}: {height} x {width} pixels")
            self.setCurrentIndex(level_of(first))

    def _on_activated(self, level: int) -> None:
        for layer in self._layers:
            choose_level(layer, level)
        self.changed.emit()
