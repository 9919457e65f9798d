"""Propagation through a stack: where to, how far, and how sure each plane is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from qtpy.QtCore import QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QSpinBox, QWidget

from napari_simmat.annotation.prompt_state import Plane, plane_names
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    ComboBox,
    form_rows,
    hbox,
    text_label,
    thin_bar,
    vbox,
)
from napari_simmat.widgets.segment.form.panel import KEYS, Panel
from napari_simmat.widgets.tones import tone_color

Direction = Literal["both", "up", "down"]
_DIRECTIONS: dict[Direction, str] = {
    "both": "both directions",
    "up": "to later planes",
    "down": "to earlier planes",
}
_BARS_HEIGHT = 44
NO_BARS = "Propagate shows how sure each plane is."
BAR_TIP = "{plane}: {certainty:.2f}{doubt}. Click to go there."


@dataclass(frozen=True)
class StackAxis:
    """One axis of planes."""

    index: int
    name: str
    size: int


class PlaneBar(NamedTuple):
    """How sure a propagated plane is, 0..1, and whether it is worth a look."""

    plane: Plane
    certainty: float
    doubtful: bool


class PlaneBars(QWidget):
    """A bar for each plane of what was propagated; low and orange where it is doubtful."""

    chosen = Signal(object)
    """The user pressed the bar of this plane."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: tuple[PlaneBar, ...] = ()
        self._shown: Plane | None = None
        self.setFixedHeight(_BARS_HEIGHT)
        self.setAccessibleName("Certainty of each plane")  # napari's slider goes there by keys
        self.setMouseTracking(True)

    def set_bars(self, bars: Sequence[PlaneBar]) -> None:
        """Show these, in this order; none before anything is propagated."""
        self.bars = tuple(bars)
        self.setCursor(Qt.CursorShape.PointingHandCursor if bars else Qt.CursorShape.ArrowCursor)
        self.update()

    def set_shown(self, plane: Plane | None) -> None:
        """Mark the plane that the viewer shows."""
        self._shown = plane
        self.update()

    def area(self, number: int) -> QRectF:
        """The whole height of a bar."""
        width = self.width() / len(self.bars)
        return QRectF(number * width, 0, max(1.0, width - 1), self.height())

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars; the shown plane has a line above it."""
        painter = QPainter(self)
        if not self.bars:
            painter.setPen(QColor(tone_color("muted", self)))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, NO_BARS)
        for number, bar in enumerate(self.bars):
            area = self.area(number)
            if bar.plane == self._shown:
                color = self.palette().windowText().color()
                painter.fillRect(QRectF(area.x(), 0, area.width(), 2), color)
            area.setTop(4 + (area.height() - 6) * (1 - bar.certainty))
            tone = "warning" if bar.doubtful else "good"
            painter.fillRect(area, QColor(tone_color(tone, self)))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Choose the bar under the mouse."""
        if (bar := self._at(event)) is not None:
            self.chosen.emit(bar.plane)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Say what the bar under the mouse means."""
        tip = ""
        if (bar := self._at(event)) is not None:
            plane, doubt = plane_names([bar.plane]), ", doubtful" if bar.doubtful else ""
            tip = BAR_TIP.format(plane=plane, certainty=bar.certainty, doubt=doubt)
        self.setToolTip(tip)

    def _at(self, event: QMouseEvent) -> PlaneBar | None:
        number = int(event.position().x() * len(self.bars) / max(1, self.width()))
        return self.bars[number] if 0 <= number < len(self.bars) else None


class StackPanel(Panel):
    """Propagates open objects, and shows how sure each plane is.

    Attributes
    ----------
    range
        Along which axes, and to which planes; to be laid out elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._axes: tuple[StackAxis, ...] = ()
        self._routes: list[tuple[StackAxis, ...]] = []
        self.along, self.direction = ComboBox(), ComboBox()
        self.along.setAccessibleName("Along")
        self.direction.addItems(_DIRECTIONS.values())
        self.first, self.last = QSpinBox(), QSpinBox()
        self.first.setAccessibleName("First plane")
        self.last.setAccessibleName("Last plane")
        for box in (self.first, self.last):
            box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # not by the wheel
            box.setMaximum(0)
        follow = "Follow the open objects through the planes"
        self.start = Button(f"Propagate  {KEYS['propagate']}", "", follow)
        self.bars = PlaneBars()
        planes = hbox(self.first, QLabel("to"), self.last)
        self.range = QWidget()
        form = form_rows(
            ("Along", self.along),
            ("Direction", self.direction),
            parent=self.range,
            spacing=6,
            indent=INDENT,
        )
        form.addRow("Planes", planes)
        vbox(self.start, self.bars, parent=self, spacing=4)
        self.along.currentIndexChanged.connect(self._on_along)
        self.start.clicked.connect(lambda: self.acted.emit("propagate"))
        self.set_state(working=False, busy=False)

    def set_axes(self, axes: Sequence[StackAxis]) -> None:
        """Offer the axes along which an image has planes; the last is the usual one."""
        if tuple(axes) == self._axes:
            return
        self._axes = tuple(axes)
        self._routes = [(axis,) for axis in reversed(self._axes)]
        if len(self._axes) > 1:
            self._routes.append((self._axes[-1], self._axes[0]))
        self.along.clear()
        for route in self._routes:
            self.along.addItem(", then ".join(axis.name for axis in route))
        self.along.setEnabled(len(self._routes) > 1)
        self._on_along()

    def along_value(self) -> tuple[int, ...]:
        """The axes to propagate along, one after the other; none if there is no stack."""
        routes = self._routes
        index = self.along.currentIndex()
        return tuple(axis.index for axis in routes[index]) if routes else ()

    def planes_value(self, annotated: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """The first and the last plane to propagate to, from those that have prompts."""
        axis = self.along_value()[0]
        first, last = sorted((self.first.value(), self.last.value()))
        direction = list(_DIRECTIONS)[self.direction.currentIndex()]
        at = [plane[axis] for plane in annotated]
        if direction == "up" and at:
            first = min(max(first, min(at)), last)
        if direction == "down" and at:
            last = max(min(last, max(at)), first)
        return first, last

    def set_state(self, *, working: bool, busy: bool) -> None:
        """Enable what can be done: with prompts; the status line stops what goes on."""
        self.start.setVisible(not busy)
        self.start.setEnabled(working and bool(self._axes))

    def _on_along(self) -> None:
        if 0 <= self.along.currentIndex() < len(self._routes):
            last = self._routes[self.along.currentIndex()][0].size - 1
            for box in (self.first, self.last):
                box.setMaximum(last)
            self.first.setValue(0)
            self.last.setValue(last)


class EncodingPanel(Panel):
    """Which planes are encoded before they are shown, and where embeddings are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._encoding = False
        self.whole = Button("", "", "All planes, so that each click is fast")
        self.clear = self.button(
            "clear embeddings", "Clear", "Forget all embeddings, in memory and on disk"
        )
        self.ahead, self.disk = QCheckBox("Encode planes ahead"), QCheckBox("Keep on disk")
        self.ahead.setChecked(True)
        self.disk.setToolTip(
            "Saves encoding next time. Off by default: embeddings reveal much of the image."
        )
        self.bar, self.encoded = thin_bar(), text_label()
        vbox(
            hbox(self.ahead, self.disk),
            hbox((self.whole, 2), (self.clear, 1)),
            self.bar,
            self.encoded,
            parent=self,
            spacing=6,
        )
        self.whole.clicked.connect(
            lambda: self.acted.emit("stop encoding" if self._encoding else "encode whole stack")
        )
        self.show_encoded("", 1.0, whole=False)

    def show_encoded(self, text: str, fraction: float, *, whole: bool) -> None:
        """Show the progress of encoding, and whether it is of the whole stack; 1 means idle."""
        self._encoding = whole
        self.whole.setText("Cancel encoding" if whole else "Encode whole stack")
        self.encoded.setText(text)
        self.bar.setVisible(fraction < 1)
        self.bar.setValue(round(100 * fraction))
