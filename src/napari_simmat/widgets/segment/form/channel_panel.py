"""`ChannelPanel`: what each channel does for a mask; derive and register channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QMenu, QWidget

from napari_simmat.engine.channel_influence import ChannelInfluence
from napari_simmat.engine.channels.derivation import DERIVATIONS
from napari_simmat.engine.channels.registration import Motion
from napari_simmat.widgets.controls import Button, hbox, text_label, vbox
from napari_simmat.widgets.segment.form.panel import Panel
from napari_simmat.widgets.tones import tone_color

INFLUENCES = "Part of the mask that changes without a channel: {}."
MOTION_KINDS: dict[str, Motion] = {
    "Shift": "shift",
    "Shift and turn": "rigid",
    "Shift, turn and scale": "affine",
}
"""What may lie between two channels, for the user."""
MANY = 12
"""Channels of which each influence is written out; of more, the largest."""


class SpectrumPlot(QWidget):
    """Mean and standard deviation of an object in each channel, and a bar for its influence."""

    def __init__(self) -> None:
        super().__init__()
        self._channels: Sequence[ChannelInfluence] = ()
        self.setMinimumHeight(72)
        self.setMouseTracking(True)
        self.hide()

    def set_value(self, channels: Sequence[ChannelInfluence]) -> None:
        """Show the channels of an object; nothing of fewer than two, or of an empty mask."""
        self._channels = [each for each in channels if np.isfinite(each.mean)]
        self.setAccessibleName("Spectrum: " + ", ".join(map(_described, channels)))
        self.setVisible(len(self._channels) > 1)
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw a line with a band, and the bars below it."""
        means = np.array([each.mean for each in self._channels])
        spread = np.array([each.std for each in self._channels])
        low = (means - spread).min()
        high = (means + spread).max()
        height = self.height() - 4
        bars = self.height() // 4

        def points(values: np.ndarray) -> list[QPointF]:
            shares = (values - low) / max(high - low, 1e-12)
            return [
                QPointF(self._x(n), 2 + (1 - share) * (height - bars - 4))
                for n, share in enumerate(shares)
            ]

        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        line, bar = QColor(tone_color("info", self)), QColor(tone_color("warning", self))
        painter.setBrush(bar)
        wide = max(2.0, 0.6 * self.width() / len(means))
        for n, each in enumerate(self._channels):
            tall = max(1.0, each.influence * bars)
            painter.drawRect(QRectF(self._x(n) - wide / 2, self.height() - tall, wide, tall))
        band = QColor(line)
        band.setAlphaF(0.25)
        painter.setBrush(band)
        painter.drawPolygon(QPolygonF(points(means + spread) + points(means - spread)[::-1]))
        painter.setPen(QPen(line, 2))
        painter.drawPolyline(QPolygonF(points(means)))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Say what is under the mouse."""
        number = int(event.position().x() * len(self._channels) / max(1, self.width()))
        if 0 <= number < len(self._channels):
            self.setToolTip(_described(self._channels[number]))

    def _x(self, number: int) -> float:
        return (number + 0.5) * self.width() / len(self._channels)


def _described(each: ChannelInfluence) -> str:
    return f"{each.channel}: {each.mean:.4g} ± {each.std:.2g}, influence {each.influence:.2f}"


class ChannelPanel(Panel):
    """Asks for what `ChannelTools` does, and shows what it finds about the open object."""

    derived = Signal(str)
    """A name in `DERIVATIONS`."""
    registered = Signal(str)
    """A `Motion`."""

    def __init__(self) -> None:
        super().__init__()
        self.see = self.button(
            "see", "What the model sees", "Its three channels as a layer; what each of yours does"
        )
        self.derive = Button("Derive", tip="Make channels from others: AoLP, NDVI, CT windows, HHA")
        self.register = Button("Register", tip="Move the chosen channels onto the first of them")
        menu = QMenu(self.derive)
        for kind, each in DERIVATIONS.items():
            menu.addAction(each.title, lambda kind=kind: self.derived.emit(kind))
        self.derive.setMenu(menu)
        motions = QMenu(self.register)
        for title, motion in MOTION_KINDS.items():
            motions.addAction(title, lambda motion=motion: self.registered.emit(motion))
        self.register.setMenu(motions)
        self.text = text_label("muted")
        self.plot = SpectrumPlot()
        buttons = hbox((self.see, 2), (self.derive, 1), (self.register, 1))
        buttons.setSpacing(4)
        vbox(buttons, self.text, self.plot, parent=self)
        self.show_influences(())

    def show_influences(self, channels: Sequence[ChannelInfluence]) -> None:
        """Show the channels of an object, or none."""
        ranked = sorted(channels, key=lambda each: -each.influence)[:MANY]
        words = (f"{each.channel} {each.influence:.2f}" for each in ranked)
        self.text.setText(INFLUENCES.format(", ".join(words)) if ranked else "")
        self.text.setVisible(bool(ranked))
        self.plot.set_value(channels)
