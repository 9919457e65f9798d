"""What a new user sees: an empty tab that says what to do, and a tour of five steps."""

from __future__ import annotations

from typing import NamedTuple

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import Button, hbox, text_label, vbox
from napari_simmat.widgets.samples import OFFERED
from napari_simmat.widgets.shortcuts import with_keys

OPEN = "Open an image: drop a file on the canvas, or File > Open File(s) ...\n\nOr try a real one:"
TOUR = "Tour in five steps"
LEAVE, NEXT = "Leave the tour", "Next"


class WelcomePanel(QWidget):
    """Says what to do while no image is open; offers samples and a tour."""

    sample_chosen = Signal(int)
    """Which of `OFFERED`."""
    tour_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.text = text_label()
        self.text.setText(OPEN)
        self.samples = [Button(each.title, "", each.source) for each in OFFERED]
        for number, button in enumerate(self.samples):
            button.clicked.connect(lambda _=False, number=number: self.sample_chosen.emit(number))
        self.tour = Button(TOUR, "", "Opens the coins, and leads from a click to a saved table")
        self.tour.clicked.connect(self.tour_wanted)
        row = hbox(*((button, 1) for button in self.samples))
        row.setSpacing(4)
        vbox(self.text, row, self.tour, parent=self, spacing=8).addStretch(1)


class TourState(NamedTuple):
    """What the steps wait for."""

    prompted: bool
    objects: int
    drafts: int
    saved: bool


STEPS = (
    "Click on a coin. Each further click corrects: on what is missing, or, after <key:flip>, on "
    "what is too much.",
    "Press <key:commit>: the object is written, and listed in the table. <key:undo> takes "
    "anything back.",
    "Find the others: press Everything, then Segment everything.",
    "Go over the drafts: <key:next doubtful> goes to a doubtful one, <key:accept> accepts, "
    "<key:reject> rejects, <key:edit> mends it. <key:commit> writes all that are left.",
    "Press Save: one file holds the objects, another their table. <key:keys> shows all keys, the "
    "menu beside the image has models, learning, folders and settings.",
)
TITLE = "{number} of {count}: {text}"


class TourPanel(QWidget):
    """One step at a time; each goes on by itself when the user has done it.

    Attributes
    ----------
    number
        Of the step that is shown, from 0; -1 while nobody is led.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = -1
        self._objects = 0
        self.text = text_label("info")
        self.next, self.leave = Button(NEXT), Button(LEAVE)
        self.next.clicked.connect(lambda: self._show(self.number + 1))
        self.leave.clicked.connect(lambda: self._show(-1))
        vbox(self.text, hbox((self.next, 1), (self.leave, 1)), parent=self)
        self._show(-1)

    def begin(self) -> None:
        """Lead from the first step."""
        self._show(0)

    def follow(self, state: TourState) -> None:
        """Go on if what the step asks for is done."""
        done = (
            state.prompted,
            state.objects > 0,
            state.drafts > 0,
            state.drafts == 0 and state.objects > self._objects,
            state.saved,
        )
        if self.number >= 0 and done[self.number]:
            self._objects = state.objects
            self._show(self.number + 1)

    def _show(self, number: int) -> None:
        self.number = number if number < len(STEPS) else -1
        self.setVisible(self.number >= 0)
        if self.number >= 0:
            words = with_keys(STEPS[self.number])
            title = TITLE.format(number=self.number + 1, count=len(STEPS), text=words)
            self.text.setText(title)
