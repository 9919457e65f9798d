"""`ObjectPanel`: the form's part for committed objects, their table, classes and actions."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QComboBox, QLabel

from napari_simmat.annotation.label_editor import Overlap
from napari_simmat.widgets.controls import ComboBox, MenuButton, hbox, vbox
from napari_simmat.widgets.segment.form.object_histogram import ObjectHistogram
from napari_simmat.widgets.segment.form.object_table import (
    ObjectRow,
    ObjectTable,
    size_distribution,
)
from napari_simmat.widgets.segment.form.panel import Panel
from napari_simmat.widgets.segment.form.saved_table import SavedTable
from napari_simmat.widgets.segment.layers.outputs import Look
from napari_simmat.widgets.shortcuts import SHORTCUTS

_OVERLAPS: tuple[Overlap, ...] = ("keep", "overwrite")
_LOOKS: dict[Look, str] = {
    "filled": "filled",
    "contours": "contours",
    "filled by class": "filled, colored by class",
    "contours by class": "contours, colored by class",
}
_NO_CLASS = "no class"
NAME_OTHERS = "name others"
"""The action that names objects by those that are classed by hand."""
NAME_OTHERS_TIP = (
    "Class at least three objects of each class; the others are named by size, shape and looks"
)
_OBJECT_ACTIONS = {
    "edit": ("Edit", "Open it again with its prompts (or double-click it)"),
    "merge": ("Merge", "Merge those under the points, or chosen here"),
    "split": ("Split", "One object per point on it, or per separate piece"),
    "delete": ("Delete", "Delete the chosen objects"),
    NAME_OTHERS: ("Name the others", NAME_OTHERS_TIP),
    "join planes": (
        "Join planes into 3D objects",
        "Committed objects that go on from plane to plane get one id, one row and one volume",
    ),
    "load": ("Load ...", "Add the objects of a file in any of the formats of Save"),
}
"""Title and tool tip of what is done with objects."""
CLASS, CLASS_OF_NEW = "Class", "Class of new"
LOAD = "Load objects ..."
SAVE_TIP = "Label image, OME-Zarr, COCO, ImageJ ROIs or GeoJSON, with a table"
_LETTERS = 3
"""Minimum letters that a list shows: two lists stand side by side in a narrow dock."""


class ClassChoice(QComboBox):
    """A list of classes in which a name can be typed; Enter returns the keyboard to the canvas."""

    picked = Signal(str)
    """A class, or empty for none."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Class of new objects, and of those chosen in the table")
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LETTERS)
        self.activated.connect(self._on_pick)
        self.set_names([])
        self.lineEdit().returnPressed.connect(self._on_pick)
        self.lineEdit().setPlaceholderText("name")

    def set_names(self, names: Sequence[str]) -> None:
        """List these classes, keeping the choice."""
        before = self.value()
        if [self.itemText(n) for n in range(1, self.count())] != list(names):
            self.clear()
            self.addItems([_NO_CLASS, *names])
            self.setEditText(before or _NO_CLASS)
            self.lineEdit().setCursorPosition(0)  # a name that is too long shows its beginning

    def value(self) -> str:
        """The chosen class; empty for none."""
        text = self.currentText().strip()
        return "" if text == _NO_CLASS else text

    def show_class(self, name: str) -> None:
        """Show a class, without choosing it."""
        if name != self.value():
            self.setEditText(name or _NO_CLASS)
            self.lineEdit().setCursorPosition(0)

    def _on_pick(self) -> None:
        self.clearFocus()
        self.picked.emit(self.value())


class ObjectPanel(Panel):
    """Shows the committed objects; emits what is to be done with them.

    Attributes
    ----------
    entries
        What is done with objects, by name, for menus.
    overlap, look
        Lists that are laid out elsewhere.
    """

    overlap_chosen = Signal(str)
    look_chosen = Signal(str)
    class_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._is_busy = False
        self.table, self.category = ObjectTable(), ClassChoice()
        self.overlap, self.look = ComboBox(), ComboBox()
        for choice in (self.overlap, self.look):
            choice.setMinimumContentsLength(_LETTERS)
        self.overlap.addItems(_OVERLAPS)
        for look, title in _LOOKS.items():
            self.look.addItem(title, look)
        self.look.setToolTip("How objects are drawn, and whether a color is an object or a class")
        self.overlap.setToolTip("Where a new object overlaps others: keep them, or overwrite them")
        self.entries = {name: self._action(name, *each) for name, each in _OBJECT_ACTIONS.items()}
        self.table.addActions(list(self.entries.values()))
        self.chosen_menu = MenuButton("Object", "What can be done with the chosen objects")
        of_chosen = [self.entries[name] for name in ("edit", "merge", "split", "delete")]
        self.chosen_menu.menu().addActions(of_chosen)
        self.save = MenuButton("Save ...", SAVE_TIP, splits=True)
        self.save.clicked.connect(self._on_save)
        self.saved_table = SavedTable(self.table, parent=self)
        self.save.menu().addActions([self.entries["load"], self.saved_table.action])
        self._of = QLabel()
        self._new_class = ""
        row = hbox(self._of, (self.category, 3), (self.chosen_menu, 2), (self.save, 3))
        row.setSpacing(6)
        self.histogram = ObjectHistogram()
        vbox((self.table, 1), self.histogram, row, parent=self)
        self.look.activated.connect(lambda _: self.look_chosen.emit(self.look.currentData()))
        self.overlap.activated.connect(lambda index: self.overlap_chosen.emit(_OVERLAPS[index]))
        self.category.picked.connect(self._on_class)
        self.table.chosen.connect(lambda _: self._show_class())
        self.table.chosen.connect(lambda _: self.show_actions())
        self.table.model().layoutChanged.connect(self._show_histogram)
        self.set_rows([])

    def _action(self, name: str, title: str, tip: str) -> QAction:
        action = QAction(title, self)
        action.setToolTip(tip)
        if key := next((each.text() for each in SHORTCUTS if each.action == name), ""):
            action.setText(f"{title}\t{key}")
        action.triggered.connect(lambda: self.acted.emit(name))
        return action

    def _on_class(self, name: str) -> None:
        if not self.table.value():
            self._new_class = name
        self.class_chosen.emit(name)

    def _show_class(self) -> None:
        """Show the class of the chosen objects, if they have one in common, else of new ones."""
        chosen = self.table.categories()
        self._of.setText(CLASS if chosen else CLASS_OF_NEW)
        shown = self._new_class if not chosen else chosen.pop() if len(chosen) == 1 else ""
        if not self.category.lineEdit().hasFocus():
            self.category.show_class(shown)

    def _on_save(self) -> None:
        self.acted.emit("save" if self.table.model().rowCount() else "load")

    def set_rows(self, rows: Sequence[ObjectRow], title: str = "px") -> None:
        """Show these objects; `title` says the unit of their sizes."""
        self.table.set_rows(rows, title)
        self._show_histogram()
        for name, action in self.entries.items():
            action.setEnabled(bool(rows) or name == "load")
        # Without objects a press loads some: that is what can be done then.
        self.save.setText(f"Save {len(rows)} ..." if rows else LOAD)
        self.save.setToolTip(SAVE_TIP if rows else self.entries["load"].toolTip())
        self._show_class()
        self.show_actions()

    def _show_histogram(self) -> None:
        title, values = self.table.shown_numbers()
        self.histogram.set_values(title, values, size_distribution(title, values))

    def set_busy(self, busy: bool) -> None:
        """Leave the actions on chosen objects to menus and keys, as while others are made."""
        self._is_busy = busy
        self.show_actions()

    def show_actions(self) -> None:
        """Show what can be done with chosen objects, if any are chosen."""
        self.chosen_menu.setVisible(bool(self.table.value()) and not self._is_busy)


# -------------------------------------------------------------------------------- learning
