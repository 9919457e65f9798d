"""The shape of pixels, for files that do not say it."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QWidget

from napari_simmat.widgets.controls import Fold

_TITLE = "Pixel shape"


class PixelShape(Fold):
    """A view of one number: the height of a pixel over its width; closed, its title tells it."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        self.ratio = QDoubleSpinBox()
        self.ratio.setDecimals(3)
        self.ratio.setRange(0.01, 100.0)
        self.ratio.setSingleStep(0.1)
        self.ratio.setValue(1.0)
        self.ratio.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.ratio.setToolTip(
            "Height of a pixel over its width, where a file does not say; 1 for squares"
        )
        content = QWidget()
        rows = QFormLayout(content)
        rows.setContentsMargins(14, 0, 0, 0)
        rows.addRow("Height / width", self.ratio)
        super().__init__(_TITLE, content, parent)
        self.ratio.valueChanged.connect(self._on_ratio)

    def value(self) -> float:
        """Height over width."""
        return round(self.ratio.value(), 3)

    def set_value(self, ratio: float) -> None:
        """Show a ratio."""
        self.ratio.setValue(ratio)

    def _on_ratio(self) -> None:
        ratio = self.value()
        self.set_title(_TITLE if ratio == 1 else f"{_TITLE}: {ratio:g} times as high as wide")
        self.changed.emit()
