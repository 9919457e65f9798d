"""Which level of a pyramid is segmented."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget

from napari_simmat.widgets.controls import ComboBox, vbox
from napari_simmat.widgets.placement import choose_level, image_shape, level_of


class LevelChoice(ComboBox):
    """The level of a multiscale image that is segmented; hidden for other images.

    Attributes
    ----------
    stated
        Names the level where it cannot be chosen.
    """

    changed = Signal()
    """The user chose another level."""

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        self.stated = QLabel()
        self._row = QWidget()
        vbox(self, self.stated, parent=self._row)
        form.addRow("Level", self._row)
        self._label = form.labelForField(self._row)
        self._label.setBuddy(self)
        self._layers: tuple[Image, ...] = ()
        self._is_stated = False
        self.setToolTip("Finer levels take more memory; prompts and objects lie in its pixels")
        self.activated.connect(self._on_activated)
        self.show_layers(())

    def set_stated(self, stated: bool) -> None:
        """Say which level is segmented, without a choice, as while work on it is under way."""
        self._is_stated = stated
        self._show()

    def _show(self) -> None:
        for part in (self._row, self._label):
            part.setVisible(bool(self._layers))
        self.setVisible(bool(self._layers) and not self._is_stated)
        self.stated.setVisible(self._is_stated)
        self.stated.setText(self.currentText())

    def show_layers(self, layers: Iterable[Image]) -> None:
        """Offer the levels of the layers in use."""
        self._layers = tuple(layer for layer in layers if layer.multiscale)
        self.clear()
        if self._layers:
            first = self._layers[0]
            for level in range(len(first.data)):
                height, width = image_shape(first, level)[-2:]
                self.addItem(f"{level}: {height} x {width} pixels")
            self.setCurrentIndex(level_of(first))
        self._show()

    def _on_activated(self, level: int) -> None:
        for layer in self._layers:
            choose_level(layer, level)
        self.changed.emit()
