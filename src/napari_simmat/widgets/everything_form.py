"""How everything is segmented, as a form: where to ask, and what to keep of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QSpinBox, QWidget
from superqt import QLabeledDoubleSlider

from napari_simmat.engine.automatic.settings import LEAST_QUALITY, AutomaticSettings
from napari_simmat.widgets.controls import Choice

_SEEDS = {"grid": "a grid", "maxima": "bright spots"}


class EverythingForm(QWidget):
    """A view of one value: `AutomaticSettings`."""

    sifted = Signal()
    """Which of the proposed masks are kept has changed."""
    asked = Signal()
    """Where the model is asked has changed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._base = AutomaticSettings()
        self.seeds = Choice()
        for text in _SEEDS.values():
            self.seeds.addItem(text)
        self.points = _Number(512, "as fits", "Seeds along the longer side; 0 for as many as fit")
        self.crops = _Number(2, "none", "Ask again in smaller parts, for small crowded objects")
        self.quality = _Share(LEAST_QUALITY, "The model's own estimate of a mask's IoU")
        self.stability = _Share(0, "How little a mask depends on its cutoff")
        self.agreement = _Share(0, "Share of the seeds on a mask that are answered with it")
        self.area = _Number(1_000_000, "", "Smaller objects go, smaller holes are filled")
        self.border = QCheckBox("Keep objects at the border")
        self._lay_out()
        self._connect()
        self.set_value(self._base)

    def value(self) -> AutomaticSettings:
        """The settings that are shown; thresholds that were not moved stay the model's own."""
        base = self._base
        shown = (round(self.quality.value(), 2), round(self.stability.value(), 2))
        quality, stability = (
            own if moved == round(default, 2) else moved
            for own, moved, default in zip(
                (base.quality, base.stability), shown, base.thresholds, strict=True
            )
        )
        return replace(
            base,
            seeds=list(_SEEDS)[self.seeds.currentIndex()],
            points_per_side=self.points.value(),
            crop_layers=self.crops.value(),
            quality=quality,
            stability=stability,
            agreement=round(self.agreement.value(), 2),
            min_area=self.area.value(),
            keep_border=self.border.isChecked(),
        )

    def set_value(self, settings: AutomaticSettings) -> None:
        """Show settings without telling; those without a control are kept."""
        self._base = settings
        quality, stability = settings.thresholds
        shown: list[tuple[Any, Any]] = [
            (self.points, settings.points_per_side),
            (self.crops, settings.crop_layers),
            (self.quality, quality),
            (self.stability, stability),
            (self.agreement, settings.agreement),
            (self.area, settings.min_area),
        ]
        for control, value in shown:
            control.blockSignals(True)
            control.setValue(value)
            control.blockSignals(False)
        self.seeds.setCurrentIndex(list(_SEEDS).index(settings.seeds))
        self.border.blockSignals(True)
        self.border.setChecked(settings.keep_border)
        self.border.blockSignals(False)

    def _lay_out(self) -> None:
        self.rows = QFormLayout(self)
        self.rows.setContentsMargins(14, 0, 0, 0)
        self.rows.setVerticalSpacing(4)
        self.rows.addRow("Ask on", self.seeds)
        self.rows.addRow("Seeds per side", self.points)
        self.rows.addRow("Layers of crops", self.crops)
        self.rows.addRow("Quality", self.quality)
        self.rows.addRow("Stability", self.stability)
        self.rows.addRow("Agreement", self.agreement)
        self.rows.addRow("Smallest area", self.area)
        self.rows.addRow(self.border)

    def _connect(self) -> None:
        for control in (self.quality, self.stability, self.agreement, self.area):
            control.valueChanged.connect(lambda _: self.sifted.emit())
        self.border.toggled.connect(lambda _: self.sifted.emit())
        self.seeds.activated.connect(lambda _: self.asked.emit())
        for number in (self.points, self.crops):
            number.valueChanged.connect(lambda _: self.asked.emit())


class _Number(QSpinBox):
    def __init__(self, most: int, zero: str, tip: str) -> None:
        super().__init__()
        self.setRange(0, most)
        self.setSpecialValueText(zero)
        self.setToolTip(tip)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)


class _Share(QLabeledDoubleSlider):
    """A slider from a least value to 1."""

    def __init__(self, least: float, tip: str) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(least, 1.0)
        self.setDecimals(2)
        self.setSingleStep(0.01)
        self.setToolTip(tip)
