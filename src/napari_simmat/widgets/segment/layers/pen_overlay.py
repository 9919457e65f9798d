"""What the pen draws over the canvas while a line is drawn; nothing where there is no canvas."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_simmat.engine.pen_line import REACH
from napari_simmat.widgets.segment.layers.prompt_adapters import NEGATIVE, POSITIVE

SIGNS = "-", "+"
"""Before the word at the cursor: of a negative line, and of a positive one."""
_WIDTH, _HALO = 2.0, 4.0
"""Widths of the line and of the dark line below it, in screen pixels."""
_FILL = 70
"""Opacity of what a line encloses once it will close, of 255."""
_BESIDE = 16.0
"""Screen pixels from the cursor to the word."""


class PenOverlay:
    """The line, a circle at its start, and the word at the cursor."""

    def __init__(self) -> None:
        self._sheet: _Sheet | None = None

    def begin(self, canvas: QWidget, positive: bool) -> None:
        """Begin to draw on a canvas."""
        self.end()
        self._sheet = _Sheet(canvas, positive)

    def show(
        self, line: Sequence[tuple[float, float]], word: str = "", *, closed: bool = False
    ) -> None:
        """Draw a line of x, y on the canvas; without a word that of the last time stays."""
        if self._sheet is not None:
            self._sheet.show_line(line, word, closed)

    def end(self) -> None:
        """Take everything away."""
        sheet, self._sheet = self._sheet, None
        if sheet is not None:
            sheet.hide()
            sheet.setParent(None)
            sheet.deleteLater()


class _Sheet(QWidget):
    """A transparent sheet on the canvas."""

    def __init__(self, canvas: QWidget, positive: bool) -> None:
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setGeometry(canvas.rect())
        self._positive = positive
        self._line: list[QPointF] = []
        self._word, self._closed = "", False
        self.show()

    def show_line(self, line: Sequence[tuple[float, float]], word: str, closed: bool) -> None:
        """Draw a line of x, y."""
        self._line = [QPointF(x, y) for x, y in line]
        if word:
            self._word, self._closed = word, closed
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw."""
        if not self._line:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color, shape = QColor(POSITIVE if self._positive else NEGATIVE), QPolygonF(self._line)
        if self._closed:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(color.red(), color.green(), color.blue(), _FILL))
            painter.drawPolygon(shape)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        style = Qt.PenStyle.SolidLine if self._positive else Qt.PenStyle.DashLine
        for pen in (QPen(QColor(0, 0, 0, 160), _HALO), QPen(color, _WIDTH, style)):
            painter.setPen(pen)
            painter.drawPolyline(shape)
            if self._closed:
                painter.drawLine(self._line[-1], self._line[0])
        for pen in (QPen(QColor(0, 0, 0, 160), _HALO), QPen(QColor("white"), _WIDTH)):
            painter.setPen(pen)
            painter.drawEllipse(self._line[0], REACH, REACH)
        if self._word:
            self._write(painter)
        painter.end()

    def _write(self, painter: QPainter) -> None:
        """The word beside the cursor, on dark ground, within the sheet."""
        font = QFont(painter.font())
        font.setPixelSize(13)
        painter.setFont(font)
        text = f"{SIGNS[self._positive]} {self._word}"
        width = painter.fontMetrics().horizontalAdvance(text) + 12.0
        at = self._line[-1] + QPointF(_BESIDE, _BESIDE)
        x = min(at.x(), self.width() - width)
        y = min(at.y(), self.height() - 22.0)
        ground = QRectF(x, y, width, 22.0)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(20, 20, 20, 210))
        painter.drawRoundedRect(ground, 4, 4)
        painter.setPen(QColor("white"))
        painter.drawText(ground, Qt.AlignmentFlag.AlignCenter, text)
