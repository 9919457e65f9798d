"""The part of the form for stacks: follow an object through planes, encode planes ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.widgets.controls import Button, Choice
from napari_simmat.widgets.keys import key_of

Direction = Literal["both", "up", "down"]
_DIRECTIONS: dict[Direction, str] = {
    "both": "both directions",
    "up": "to later planes",
    "down": "to earlier planes",
}


@dataclass(frozen=True)
class Axis:
    """One axis of planes."""

    index: int
    name: str
    size: int


class StackPanel(QWidget):
    """Settings and buttons; it computes nothing."""

    started = Signal()
    """Follow what is open."""
    stopped = Signal()
    """Stop following."""
    dropped = Signal()
    """Take back what was found."""
    committed = Signal()
    """Write what was found."""
    ahead_chosen = Signal(bool)
    """Whether planes are encoded ahead."""
    disk_chosen = Signal(bool)
    """Whether embeddings are kept on disk."""
    whole_asked = Signal()
    """Encode all planes."""
    whole_stopped = Signal()
    """Stop that."""
    cleared = Signal()
    """Forget all embeddings."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._axes: tuple[Axis, ...] = ()
        self._ways: list[tuple[Axis, ...]] = []
        self.along = Choice()
        self.direction = Choice()
        for text in _DIRECTIONS.values():
            self.direction.addItem(text)
        self.first, self.last = _Plane(), _Plane()
        self.start = Button("Propagate", key_of("propagate"), "Follow what is open through planes")
        self.commit = Button("Commit all", "", "Write what was found on all planes (C)")
        self.drop = Button("Discard", "", "Take back what was found")
        self.whole = Button("Encode whole stack", "", "All planes, so that each click is fast")
        self.clear = Button("Clear", "", "Forget what is encoded, in memory and on disk")
        self.ahead = QCheckBox("Encode planes ahead")
        self.disk = QCheckBox("Keep on disk")
        self.bar = QProgressBar()
        self.told = QLabel()
        self._propagating = self._encoding = False
        self._lay_out()
        self._connect()
        self.set_state(working=False, busy=False, found=False)
        self.show_encoded("", 1.0)

    # ---------------------------------------------------------------------- values

    def set_axes(self, axes: Sequence[Axis]) -> None:
        """Offer the axes along which an image has planes; the last is the usual one."""
        if tuple(axes) == self._axes:
            return
        self._axes = tuple(axes)
        ways = [(axis,) for axis in reversed(self._axes)]
        if len(self._axes) > 1:
            ways.append((self._axes[-1], self._axes[0]))
        self._ways = ways
        self.along.clear()
        for way in ways:
            self.along.addItem(", then ".join(axis.name for axis in way))
        self.along.setEnabled(len(ways) > 1)
        self._on_along()

    def along_value(self) -> tuple[int, ...]:
        """The axes to go along, one after the other."""
        return tuple(axis.index for axis in self._ways[self.along.currentIndex()])

    def planes_value(self, annotated: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """The first and the last plane to go to, from those on which something is open."""
        axis = self.along_value()[0]
        first, last = sorted((self.first.value(), self.last.value()))
        direction = list(_DIRECTIONS)[self.direction.currentIndex()]
        at = [plane[axis] for plane in annotated]
        if direction == "up" and at:
            first = min(max(first, min(at)), last)
        if direction == "down" and at:
            last = max(min(last, max(at)), first)
        return first, last

    # ----------------------------------------------------------------------- shown

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Enable what can be done: something is open, planes are asked, something was found."""
        self._propagating = busy
        text = "Cancel" if busy else f"Propagate  {key_of('propagate')}"
        self.start.setText(text)
        self.start.setEnabled(busy or (working and bool(self._axes)))
        for button in (self.commit, self.drop):
            button.setEnabled(found and not busy)

    def set_encoding(self, whole: bool) -> None:
        """Show whether the whole stack is being encoded."""
        self._encoding = whole
        self.whole.setText("Cancel encoding" if whole else "Encode whole stack")

    def show_encoded(self, text: str, part: float) -> None:
        """Say how far the encoding is; a part of 1 means that nothing is under way."""
        self.told.setText(text)
        self.bar.setVisible(part < 1)
        self.bar.setValue(round(100 * part))

    # ---------------------------------------------------------------------- layout

    def _lay_out(self) -> None:
        planes = QHBoxLayout()
        planes.addWidget(self.first)
        planes.addWidget(QLabel("to"))
        planes.addWidget(self.last)
        form = QFormLayout()
        form.setContentsMargins(14, 0, 0, 0)
        form.setVerticalSpacing(6)
        form.addRow("Along", self.along)
        form.addRow("Go", self.direction)
        form.addRow("Planes", planes)
        found = QHBoxLayout()
        found.setSpacing(4)
        found.addWidget(self.commit)
        found.addWidget(self.drop)
        encode = QHBoxLayout()
        encode.setSpacing(4)
        encode.addWidget(self.whole, 2)
        encode.addWidget(self.clear, 1)
        checks = QHBoxLayout()
        checks.addWidget(self.ahead)
        checks.addWidget(self.disk)
        self.bar.setMaximumHeight(6)
        self.bar.setTextVisible(False)
        self.told.setWordWrap(True)
        self.ahead.setChecked(True)
        self.disk.setToolTip(
            "Next time nothing is encoded again. Off by default: it tells much about the image."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(form)
        layout.addWidget(self.start)
        layout.addLayout(found)
        layout.addLayout(checks)
        layout.addLayout(encode)
        layout.addWidget(self.bar)
        layout.addWidget(self.told)

    def _connect(self) -> None:
        self.along.currentIndexChanged.connect(self._on_along)
        self.start.clicked.connect(
            lambda: (self.stopped if self._propagating else self.started).emit()
        )
        self.commit.clicked.connect(self.committed)
        self.drop.clicked.connect(self.dropped)
        self.whole.clicked.connect(
            lambda: (self.whole_stopped if self._encoding else self.whole_asked).emit()
        )
        self.clear.clicked.connect(self.cleared)
        self.ahead.toggled.connect(self.ahead_chosen)
        self.disk.toggled.connect(self.disk_chosen)

    def _on_along(self) -> None:
        if 0 <= self.along.currentIndex() < len(self._ways):
            last = self._ways[self.along.currentIndex()][0].size - 1
            for box in (self.first, self.last):
                box.setMaximum(last)
            self.first.setValue(0)
            self.last.setValue(last)


class _Plane(QSpinBox):
    """The number of a plane; a click into the image gives the keys back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setMaximum(0)
