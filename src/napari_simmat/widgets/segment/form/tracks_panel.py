"""`TracksPanel`: the time axis, and links of objects over time."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import Button, ComboBox, hbox, text_label, vbox
from napari_simmat.widgets.placement import TIME_NAMES
from napari_simmat.widgets.segment.form.stack_panel import StackAxis

CHOOSE_AXIS = "choose"


class TracksPanel(QWidget):
    """Chooses the time axis; links objects, all or two of them."""

    def __init__(self) -> None:
        super().__init__()
        self._axes: tuple[StackAxis, ...] = ()
        self.axis = ComboBox()
        self.axis.setAccessibleName("Time axis")
        self.start = Button("Link over time", tip="Each object keeps its id from frame to frame")
        self.link = Button("Link", tip="The two objects under the points, on two frames, are one")
        self.cut = Button("Cut link", tip="The two objects under the points are not the same")
        self.buttons = {"link over time": self.start, "link": self.link, "cut link": self.cut}
        self.summary = text_label("muted")
        label = text_label()
        label.setText("Time axis")
        vbox(
            hbox(label, (self.axis, 1)),
            hbox((self.start, 2), (self.link, 1), (self.cut, 1)),
            self.summary,
            parent=self,
        )

    def set_axes(self, axes: tuple[StackAxis, ...]) -> None:
        """Offer the axes; one whose name says time is chosen."""
        if axes == self._axes:
            return
        self._axes = axes
        named = [each for each in axes if each.name.casefold() in TIME_NAMES]
        self.axis.clear()
        if not named:
            self.axis.addItem(CHOOSE_AXIS, None)
        for each in (*named, *(each for each in axes if each not in named)):
            self.axis.addItem(each.name, each.index)

    def value(self) -> int | None:
        """The time axis; None if it is still to be chosen."""
        axis: int | None = self.axis.currentData()
        return axis

    def set_state(self, *, working: bool, busy: bool, text: str) -> None:
        """Show what is linked, and what can be done."""
        for button in self.buttons.values():
            button.setEnabled(working and not busy)
        self.summary.setText(text)
        self.summary.setVisible(bool(text))
