"""`StatusLine`: what a tab is doing, how far it is, and what went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QLabel, QWidget

from napari_simmat.progress import time_left
from napari_simmat.widgets.controls import Button, hbox, text_label, thin_bar, vbox
from napari_simmat.widgets.shortcuts import with_keys
from napari_simmat.widgets.tones import Tone, set_tone
from napari_simmat.widgets.worker import later

StatusKind = Literal["nothing", "ready", "working", "canceled", "failed", "done"]


@dataclass(frozen=True)
class Status:
    """What the status line shows.

    Parameters
    ----------
    kind
        Decides the color.
    text
        One sentence, keys as in `with_keys`.
    fraction
        Progress 0..1, if known.
    seconds
        Duration of finished work; the status line counts it while working.
    left
        How long the work will still take, in words; empty: the status line estimates it.
    offer
        Label of a button that helps, e.g. makes a new layer; empty for none.
    other
        Label of a second such button.
    way_out
        Label of the button beside the progress bar; empty if another button stops the work.
    """

    kind: StatusKind
    text: str
    fraction: float | None = None
    seconds: float | None = None
    offer: str = ""
    other: str = ""
    way_out: str = "Cancel"
    left: str = ""


STATUS_TONES: dict[StatusKind, Tone] = {
    "nothing": "muted",
    "ready": "info",
    "working": "warning",
    "canceled": "muted",
    "failed": "error",
    "done": "good",
}
STATUS_SIGNS: dict[StatusKind, str] = {
    "nothing": "○",
    "ready": "●",
    "working": "◐",
    "canceled": "■",
    "failed": "✕",
    "done": "✓",
}
"""State is told by shape as well as by color."""
MIN_FRACTION, MIN_SECONDS = 0.03, 2.0
"""What must be done, and how long it must have taken, before the time left is estimated."""
_SIGN = 16
"""Pixels of the sign of a state, so that the words stay where they are."""
_SHOW_DELAY = 150
"""Milliseconds before work is shown, so that quick results do not flicker."""


class StatusLine(QWidget):
    """A view of one `Status`.

    Attributes
    ----------
    dot, text, time, bar, left, cancel, offer, other
        What shows the parts of the status.
    """

    canceled = Signal()
    accepted = Signal()
    other_accepted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._status = Status("nothing", "")
        self._since = 0.0
        self.dot = QLabel()
        self.dot.setFixedWidth(_SIGN)
        self.text = text_label()
        self.text.least_lines = 2  # so that what is above stays where it is
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._warning = text_label("warning")
        self._warning.hide()
        self.time = QLabel()
        self.left = QLabel()
        for label in (self.time, self.left):
            set_tone(label, "muted")
        self.bar = thin_bar()
        self.cancel, self.offer, self.other = Button("Cancel"), Button(""), Button("")
        self.cancel.clicked.connect(self.canceled)
        self.offer.clicked.connect(self.accepted)
        self.other.clicked.connect(self.other_accepted)
        self._clock = QTimer(self)
        self._clock.setInterval(100)
        self._clock.timeout.connect(self._tick)
        self._late = later(self, self._show, _SHOW_DELAY)
        line = hbox(self.dot, (self.text, 1), self.time)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        for part in (self.dot, self.time):
            line.setAlignment(part, Qt.AlignmentFlag.AlignTop)
        below = hbox((self.bar, 1), self.left, self.cancel, self.offer, self.other)
        vbox(line, below, self._warning, parent=self, spacing=6)
        self._show()

    def value(self) -> Status:
        """The status set last."""
        return self._status

    def set_value(self, status: Status) -> None:
        """Show a status; short work never appears as working."""
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
        """A sentence shown below any status; empty for none."""
        return self._warning.text()

    def set_warning(self, text: str) -> None:
        """Show a sentence below any status."""
        self._warning.setText(text)
        self._warning.setVisible(bool(text))

    def _show(self) -> None:
        status = self._status
        working = status.kind == "working"
        self.setProperty("state", status.kind)
        set_tone(self.dot, STATUS_TONES[status.kind])
        self.dot.setText(STATUS_SIGNS[status.kind])
        self.text.setText(with_keys(status.text) + (" ..." if working else ""))
        self.bar.setVisible(working)
        self.left.setVisible(working)
        self.cancel.setVisible(working and bool(status.way_out))
        self.cancel.setText(status.way_out)
        self.offer.setVisible(bool(status.offer))
        self.offer.setText(status.offer)
        self.other.setVisible(bool(status.other))
        self.other.setText(status.other)
        if working:
            known = status.fraction is not None
            self.bar.setRange(0, 1000 if known else 0)
            self.bar.setValue(int(1000 * (status.fraction or 0.0)))
        self._tick()

    def _tick(self) -> None:
        status = self._status
        seconds = time.monotonic() - self._since if status.kind == "working" else status.seconds
        self.time.setText("" if seconds is None else _clock(seconds))
        fraction = status.fraction or 0.0
        can_tell = seconds is not None and seconds >= MIN_SECONDS and fraction >= MIN_FRACTION
        estimated = time_left(seconds, fraction, 1 - fraction) if can_tell else ""
        self.left.setText(status.left or estimated)


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
