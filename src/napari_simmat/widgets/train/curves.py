"""Loss and validation IoU of a training as two small plots over one axis of steps.

Painted with Qt alone: two curves are not worth a plotting library, and they take the theme's
colours by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_simmat.widgets.train.events import History, Points

IOU, LOSS = "#3fb68b", "#e8833a"
"""Lines that are seen on a dark and on a light ground."""
_RING = 4.5


class Curves(QWidget):
    """Shows a `History`; grows with the steps of the training."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._history = History()
        self._total = 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMaximumHeight(self.sizeHint().height())
        self.setMinimumHeight(170)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Room for two plots with their titles."""
        return QSize(280, 250)

    def value(self) -> History:
        """What is shown."""
        return self._history

    def set_value(self, history: History, total: int = 0) -> None:
        """Show the curves of a training of `total` steps; 0 where that is not known."""
        self._history, self._total = history, total
        best = history.best
        if best is not None:
            text = f"Best validation {best[1]:.1f} % at step {best[0]:.0f}"
            self.setToolTip(text)
            self.setAccessibleDescription(text)
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both plots and the axis below them."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self.font()
        font.setPointSizeF(max(7.0, 0.85 * font.pointSizeF()))
        painter.setFont(font)
        metrics = QFontMetricsF(font)
        line = metrics.height()
        left = metrics.horizontalAdvance("0.00") + 8
        width = self.width() - left - 10
        height = (self.height() - 2 * (line + 4) - 2 * line - 8) / 2
        steps = self._steps()
        top = 0.0
        for title, points, colour, noisy in (
            (self._iou_title(), self._history.iou, IOU, False),
            (self._loss_title(), self._history.loss, LOSS, True),
        ):
            painter.setPen(QColor(colour))
            painter.setBrush(QColor(colour))
            painter.drawEllipse(QPointF(left + 4, top + line / 2 + 1), 3.5, 3.5)
            painter.setPen(self._ink())
            painter.drawText(QPointF(left + 13, top + metrics.ascent() + 1), title)
            box = QRectF(left, top + line + 4, width, height)
            self._plot(painter, box, points, steps, colour, noisy)
            top = box.bottom() + line / 2
        self._axis(painter, QRectF(left, top - line / 2, width, 2 * line), steps)

    def _plot(
        self,
        painter: QPainter,
        box: QRectF,
        points: Points,
        steps: tuple[float, float],
        colour: str,
        noisy: bool,
    ) -> None:
        """A curve in its frame: each point and the best, or if `noisy` a mean, from 0 up."""
        ticks = nice_ticks([value for _, value in points], floor=noisy)
        low, high = ticks[0], ticks[-1]

        def place(step: float, value: float) -> QPointF:
            x = box.left() + box.width() * (step - steps[0]) / (steps[1] - steps[0])
            return QPointF(x, box.bottom() - box.height() * (value - low) / (high - low))

        faint = self._ink(0.16)
        for tick in ticks:
            y = place(steps[0], tick).y()
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(self._ink(0.7))
            label = QRectF(0, y - 8, box.left() - 5, 16)
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(label, flags, f"{tick:g}")
        if not points:
            return
        painter.save()
        painter.setClipRect(box.adjusted(-6, -6, 6, 6))
        strong, light = QColor(colour), QColor(colour)
        light.setAlphaF(0.4)
        raw = QPolygonF([place(*point) for point in thinned(points, int(2 * box.width()))])
        if noisy:
            painter.setPen(QPen(light, 1))
            painter.drawPolyline(raw)
            calm = thinned(smoothed(points), int(2 * box.width()))
            painter.setPen(QPen(strong, 1.8))
            painter.drawPolyline(QPolygonF([place(*point) for point in calm]))
        else:
            painter.setPen(QPen(strong, 1.8))
            painter.drawPolyline(raw)
            painter.setBrush(strong)
            for point in raw:
                painter.drawEllipse(point, 2.2, 2.2)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(self._ink(), 1.4))
            painter.drawEllipse(place(*max(points, key=lambda point: point[1])), _RING, _RING)
        painter.restore()

    def _axis(self, painter: QPainter, box: QRectF, steps: tuple[float, float]) -> None:
        painter.setPen(self._ink(0.7))
        ends = (
            (f"{steps[0]:.0f}", Qt.AlignmentFlag.AlignLeft),
            ("step", Qt.AlignmentFlag.AlignHCenter),
            (f"{steps[1]:.0f}", Qt.AlignmentFlag.AlignRight),
        )
        for text, side in ends:
            painter.drawText(box.adjusted(0, 3, 0, 0), side | Qt.AlignmentFlag.AlignTop, text)

    def _steps(self) -> tuple[float, float]:
        last = max((p[-1][0] for p in (self._history.iou, self._history.loss) if p), default=0)
        return 0.0, max(1.0, float(self._total), last)

    def _iou_title(self) -> str:
        best = self._history.best
        if best is None:
            return "validation IoU %"
        return f"validation IoU {self._history.iou[-1][1]:.1f} %, best {best[1]:.1f} %"

    def _loss_title(self) -> str:
        points = self._history.loss
        return "loss" if not points else f"loss {smoothed(points)[-1][1]:.3f}"

    def _ink(self, strength: float = 1.0) -> QColor:
        """The theme's colour of words."""
        colour = QColor(self.palette().color(self.foregroundRole()))
        colour.setAlphaF(strength)
        return colour


def nice_ticks(values: Sequence[float], *, floor: bool = False, most: int = 4) -> list[float]:
    """Round numbers, evenly spaced, that hold all `values` between the first and the last.

    Parameters
    ----------
    values
        What is drawn.
    floor
        Start at 0.
    most
        How many numbers at most.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(0.0, low) if floor else low
    if high - low < 1e-6 * max(1.0, abs(high)):
        high = low + max(1e-3, abs(low) * 0.1)
    rough = (high - low) / (most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * unit
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if step >= rough * 0.999 and last - first < most:
            break
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def smoothed(points: Points) -> Points:
    """A running mean over about a tenth of a curve, up to each point."""
    span = max(1, len(points) // 10)
    mean: Points = []
    total = 0.0
    for number, (step, value) in enumerate(points):
        total += value
        if number >= span:
            total -= points[number - span][1]
        mean.append((step, total / min(number + 1, span)))
    return mean


def thinned(points: Points, most: int) -> Points:
    """At most about `most` points of a longer curve, its ends kept."""
    if len(points) <= max(2, most):
        return points
    every = -(-len(points) // max(2, most))
    return [*points[:-1:every], points[-1]]
