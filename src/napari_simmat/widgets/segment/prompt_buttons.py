"""The buttons for prompts: which tool is in hand, and what is done with what is open."""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from napari_simmat.widgets.controls import Button, MainButton
from napari_simmat.widgets.keys import key_of
from napari_simmat.widgets.segment.point_prompts import NEGATIVE, POSITIVE
from napari_simmat.widgets.segment.prompt_layers import Tool


class PromptButtons(QWidget):
    """Tools and actions; each button shows its key."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        alt = key_of("flip", shapes=True)
        self.point = Button("● Point", tip="Click on the object")
        self.box = Button("▭ Box", tip="Draw a box around each object; E and P: ellipse, polygon")
        self.scribble = Button("∿ Line", tip="Scribble over the object")
        self.sign = Button("", tip=f"Flip between inside and outside ({alt} on boxes)")
        self.commit = MainButton("Commit", key_of("commit"), "Write the object; then the next one")
        self.segment = Button("Segment", key_of("segment"), "Answer the prompts (again)")
        self.clear = Button("Clear", key_of("clear"), "Remove the prompts shown")
        self.undo = Button("Undo", key_of("undo"), "Take back whatever was done last")
        self.redo = Button("Redo", key_of("redo"), "Do it again")
        self.cycle = Button("Other mask", key_of("cycle"), "Another of the model's candidates")
        self.next = Button("One more", key_of("next"), "Another object beside what is open")
        self._tools: dict[Tool, Button] = {
            "point": self.point,
            "box": self.box,
            "ellipse": self.box,
            "polygon": self.box,
            "scribble": self.scribble,
        }
        for button in (self.point, self.box, self.scribble):
            button.setCheckable(True)
        self._lay_out()
        self.set_sign(True)

    def set_tool(self, tool: Tool) -> None:
        """Show what a press on the image does."""
        for button in (self.point, self.box, self.scribble):
            button.setChecked(self._tools.get(tool) is button)

    def set_sign(self, positive: bool) -> None:
        """Show what a click means."""
        self.sign.setText(f"{'inside' if positive else 'outside'}  {key_of('flip')}")
        self.sign.setStyleSheet(f"color: {POSITIVE if positive else NEGATIVE};")

    def set_state(self, *, working: bool, asked: bool, undo: bool, redo: bool) -> None:
        """Enable what can be done: there is an image, something is asked, can be undone, redone."""
        for button in (self.point, self.box, self.scribble, self.sign):
            button.setEnabled(working)
        for button in (self.segment, self.commit, self.clear, self.cycle, self.next):
            button.setEnabled(asked)
        self.undo.setEnabled(undo)
        self.redo.setEnabled(redo)

    def _lay_out(self) -> None:
        tools = QHBoxLayout()
        tools.setSpacing(4)
        for button in (self.point, self.box, self.scribble, self.sign):
            tools.addWidget(button)
        actions = QGridLayout()
        actions.setSpacing(4)
        actions.addWidget(self.commit, 0, 0, 1, 2)
        rows = ((self.segment, self.clear), (self.undo, self.redo), (self.cycle, self.next))
        for row, pair in enumerate(rows, start=1):
            for column, button in enumerate(pair):
                actions.addWidget(button, row, column)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addLayout(tools)
        layout.addLayout(actions)
