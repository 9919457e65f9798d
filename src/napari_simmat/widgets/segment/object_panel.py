"""The finished objects in the form: how new ones are written, the table, and what can be done."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_simmat.widgets.controls import Button, Choice
from napari_simmat.widgets.keys import key_of
from napari_simmat.widgets.segment.object_table import ObjectTable, Row
from napari_simmat.widgets.segment.overlap import Overlap

_OVERLAPS: dict[Overlap, str] = {
    "keep": "keep",
    "overwrite": "overwrite",
    "ask": "ask",
}
_NO_CLASS = "no class"
_LETTERS = 3
"""That a list shows at least: two stand side by side in a narrow dock."""


class ClassChoice(QComboBox):
    """A list of classes to which a name can be typed; Enter gives the keyboard back."""

    picked = Signal(str)
    """A class, or empty for none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LETTERS)
        self.activated.connect(self._on_pick)
        self.set_names([])
        line = self.lineEdit()
        assert line is not None
        line.returnPressed.connect(self._on_pick)
        line.setPlaceholderText("type a name")

    def set_names(self, names: Sequence[str]) -> None:
        """List these classes, keeping the choice."""
        before = self.value()
        if [self.itemText(n) for n in range(1, self.count())] != list(names):
            self.clear()
            self.addItems([_NO_CLASS, *names])
            self.set_value(before)

    def value(self) -> str:
        """The chosen class; empty for none."""
        text = self.currentText().strip()
        return "" if text == _NO_CLASS else text

    def set_value(self, name: str) -> None:
        """Choose without telling."""
        self.setEditText(name or _NO_CLASS)
        line = self.lineEdit()
        assert line is not None
        line.setCursorPosition(0)  # of a name that is too long its beginning is seen

    def _on_pick(self) -> None:
        self.clearFocus()
        self.picked.emit(self.value())


class ObjectPanel(QWidget):
    """Shows the objects and passes on what is to be done with them."""

    overlap_chosen = Signal(str)
    class_chosen = Signal(str)
    acted = Signal(str)
    """The name of an action: edit, delete, merge, split."""
    save_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = ObjectTable()
        self.category = ClassChoice()
        self.category.setToolTip("Class of new objects, and of those chosen in the table")
        self.overlap = Choice()
        self.overlap.setMinimumContentsLength(_LETTERS)
        self.overlap.addItems(list(_OVERLAPS.values()))
        self.overlap.setToolTip(
            "Where a new object lies over others: keep theirs, overwrite them, ask each time"
        )
        tips = {
            "edit": ("Edit", "Open it again with its prompts (or click it twice)"),
            "delete": ("Delete", "Take it away"),
            "merge": ("Merge", "Make one of those under the points, or chosen here"),
            "split": ("Split", "One for each point on it, or its separate pieces"),
        }
        self.buttons = {
            action: Button(text, key_of(action), tip) for action, (text, tip) in tips.items()
        }
        form = QHBoxLayout()
        form.setSpacing(6)
        for title, choice, part in (("Class", self.category, 3), ("Overlap", self.overlap, 2)):
            form.addWidget(QLabel(title))
            form.addWidget(choice, stretch=part)
        self.save = Button("Save ...", "", "Label image, table and classes as files")
        self.save.clicked.connect(lambda: self.save_asked.emit())
        for action, button in self.buttons.items():
            button.clicked.connect(lambda _=False, action=action: self.acted.emit(action))
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, action in enumerate(("edit", "merge", "split")):
            grid.addWidget(self.buttons[action], 0, 2 * number, 1, 2)
        grid.addWidget(self.buttons["delete"], 1, 0, 1, 3)
        grid.addWidget(self.save, 1, 3, 1, 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        layout.addWidget(self.table)
        layout.addLayout(grid)
        names = list(_OVERLAPS)
        self.overlap.activated.connect(lambda index: self.overlap_chosen.emit(names[index]))
        self.category.picked.connect(self.class_chosen)

    def set_rows(self, rows: Sequence[Row], ndim: int, unit: str) -> None:
        """Show these objects; sizes have `unit`, or are counts if it is empty."""
        self.table.set_rows(rows, ndim, unit)
        for button in (*self.buttons.values(), self.save):
            button.setEnabled(bool(rows))

    def set_overlap(self, overlap: Overlap) -> None:
        """Choose without telling."""
        self.overlap.setCurrentIndex(list(_OVERLAPS).index(overlap))
