"""The part of the form that segments everything: where to ask, and what to keep of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from napari import Viewer
from napari.layers import Labels, Layer, Points
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QSpinBox, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_simmat.engine.automatic.settings import LEAST_QUALITY, AutomaticSettings
from napari_simmat.widgets.controls import Button, Choice, LayerChoice
from napari_simmat.widgets.segment.label_layers import PREVIEW

_SEEDS = {"grid": "a grid", "maxima": "bright spots"}


class EverythingPanel(QWidget):
    """Settings and buttons; it computes nothing.

    Parameters
    ----------
    viewer
        Its points and labels layers can be where the model is asked.
    """

    started = Signal()
    """Segment everything on the plane that is shown."""
    stopped = Signal()
    """Stop that."""
    sifted = Signal()
    """Which of the proposed masks are kept has changed."""
    committed = Signal()
    """Write what was found."""
    dropped = Signal()
    """Take back what was found."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._base = AutomaticSettings()
        self.seeds = Choice()
        for text in _SEEDS.values():
            self.seeds.addItem(text)
        self.layer = LayerChoice(viewer, (Points, Labels), "none", _is_preview)  # type: ignore[arg-type]
        self.points = _Number(512, "as fits", "Seeds along the longer side; 0 for as many as fit")
        self.crops = _Number(2, "none", "Ask again in smaller parts, for small crowded objects")
        self.quality = _Share(LEAST_QUALITY, "The model's own estimate of a mask's IoU")
        self.stability = _Share(0, "How little a mask depends on its cutoff")
        self.agreement = _Share(0, "Share of the seeds on a mask that are answered with it")
        self.area = _Number(1_000_000, "", "Smaller objects go, smaller holes are filled")
        self.border = QCheckBox("Keep objects at the border")
        self.start = Button("Segment everything", "", "All objects of the plane that is shown")
        self.stop = Button("Stop", "", "Stop segmenting")
        self.commit = Button("Commit all", "", "Write what was found as objects")
        self.drop = Button("Discard", "", "Take back what was found")
        self._lay_out()
        self._connect()
        self.set_value(self._base)
        self.set_state(working=False, busy=False, found=False)

    # ---------------------------------------------------------------------- values

    def value(self) -> AutomaticSettings:
        """The settings that are shown."""
        return replace(
            self._base,
            seeds=list(_SEEDS)[self.seeds.currentIndex()],
            points_per_side=self.points.value(),
            crop_layers=self.crops.value(),
            quality=round(self.quality.value(), 2),
            stability=round(self.stability.value(), 2),
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

    def layer_value(self) -> Layer | None:
        """The layer whose points or labels are asked, if one was chosen."""
        return self.layer.value()

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Show what can be done: with an image, while masks are proposed, with some found."""
        self.start.setVisible(not busy)
        self.start.setEnabled(working)
        self.stop.setVisible(busy)
        self.commit.setEnabled(found and not busy)
        self.drop.setEnabled(found and not busy)

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self.layer.release()

    # ---------------------------------------------------------------------- layout

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setVerticalSpacing(4)
        form.addRow("Ask on", self.seeds)
        form.addRow("or on a layer", self.layer)
        form.addRow("Seeds per side", self.points)
        form.addRow("Layers of crops", self.crops)
        form.addRow("Quality", self.quality)
        form.addRow("Stability", self.stability)
        form.addRow("Agreement", self.agreement)
        form.addRow("Smallest area", self.area)
        form.addRow(self.border)
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.start)
        first.addWidget(self.stop)
        second.addWidget(self.commit)
        second.addWidget(self.drop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(14, 0, 0, 0)
        layout.addLayout(form)
        layout.addLayout(first)
        layout.addLayout(second)

    def _connect(self) -> None:
        self.start.clicked.connect(lambda: self.started.emit())
        self.stop.clicked.connect(lambda: self.stopped.emit())
        self.commit.clicked.connect(lambda: self.committed.emit())
        self.drop.clicked.connect(lambda: self.dropped.emit())
        for control in (self.quality, self.stability, self.agreement, self.area):
            control.valueChanged.connect(lambda _: self.sifted.emit())
        self.border.toggled.connect(lambda _: self.sifted.emit())


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


def _is_preview(layer: Layer) -> bool:
    return bool(layer.name == PREVIEW)
