"""The line below: what is going on, how far, for how long, and a way out."""

from __future__ import annotations

import time

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_simmat.widgets.status import Status

_COLOURS = {
    "nothing": "#8a8f98",
    "ready": "#4aa3ff",
    "working": "#ffb000",
    "cancelled": "#8a8f98",
    "failed": "#ff5c50",
    "done": "#2ecc71",
}
_PATIENCE = 150
"""Milliseconds before work is shown: a click that is answered at once shall not flicker."""


class StatusLine(QWidget):
    """A view of one `Status`; each kind has its look."""

    cancelled = Signal()
    accepted = Signal()
    other_accepted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._status = Status("nothing", "")
        self._since = 0.0
        self._dot = QLabel("●")
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._warning = QLabel()
        self._warning.setWordWrap(True)
        self._warning.setTextFormat(Qt.TextFormat.PlainText)
        self._warning.setStyleSheet(f"color: {_COLOURS['working']};")
        self._warning.hide()
        self._time = QLabel()
        self._time.setStyleSheet("color: #8a8f98;")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._cancel = QPushButton("Cancel")
        self._cancel.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._cancel.clicked.connect(self.cancelled)
        self._offer = QPushButton()
        self._offer.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._offer.clicked.connect(self.accepted)
        self._other = QPushButton()
        self._other.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._other.clicked.connect(self.other_accepted)
        self._clock = QTimer(self)
        self._clock.setInterval(100)
        self._clock.timeout.connect(self._tick)
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(_PATIENCE)
        self._late.timeout.connect(self._show)

        line = QHBoxLayout()
        line.addWidget(self._dot, alignment=Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, stretch=1)
        line.addWidget(self._time, alignment=Qt.AlignmentFlag.AlignTop)
        below = QHBoxLayout()
        below.addWidget(self._bar, stretch=1)
        below.addWidget(self._cancel)
        below.addWidget(self._offer)
        below.addWidget(self._other)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addLayout(below)
        layout.addWidget(self._warning)
        self._show()

    def value(self) -> Status:
        """What was set last."""
        return self._status

    def set_value(self, status: Status) -> None:
        """Show a status; work that ends quickly is not shown as work."""
        was_working = self._status.kind == "working"
        self._status = status
        if status.kind == "working":
            if not was_working:
                self._since = time.monotonic()
                self._clock.start()
                self._late.start()
            elif not self._late.isActive():
                self._show()
        else:
            self._clock.stop()
            self._late.stop()
            self._show()

    @property
    def warning(self) -> str:
        """What is shown below, whatever the status; empty for nothing."""
        return self._warning.text()

    def set_warning(self, text: str) -> None:
        """Show a sentence that stays, whatever the status."""
        self._warning.setText(text)
        self._warning.setVisible(bool(text))

    def _show(self) -> None:
        status = self._status
        working = status.kind == "working"
        self.setProperty("state", status.kind)
        self._dot.setStyleSheet(f"color: {_COLOURS[status.kind]};")
        self._text.setText(status.text + (" ..." if working else ""))
        self._bar.setVisible(working)
        self._cancel.setVisible(working and bool(status.way_out))
        self._cancel.setText(status.way_out)
        self._offer.setVisible(bool(status.offer))
        self._offer.setText(status.offer)
        self._other.setVisible(bool(status.other))
        self._other.setText(status.other)
        if working:
            known = status.fraction is not None
            self._bar.setRange(0, 1000 if known else 0)
            self._bar.setValue(int(1000 * (status.fraction or 0.0)))
        self._tick()

    def _tick(self) -> None:
        status = self._status
        seconds = time.monotonic() - self._since if status.kind == "working" else status.seconds
        self._time.setText("" if seconds is None else _clock(seconds))


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
