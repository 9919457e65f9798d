"""The form's part for committed objects: how new ones are written, their table, and actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelectionModel,
    QModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.widgets.controls import Button, ComboBox
from napari_simmat.widgets.placement import ImageGeometry, unit_symbol
from napari_simmat.widgets.segment.label_editor import LabelEditor, Overlap
from napari_simmat.widgets.shortcuts import shortcut_text

_OVERLAPS: tuple[Overlap, ...] = ("keep", "overwrite")
_NO_CLASS = "no class"
_LETTERS = 3
"""Least letters that a list shows: two lists stand side by side in a narrow dock."""
_SORT = Qt.ItemDataRole.UserRole
_HEIGHT = 114
"""Height of the table in pixels: four rows, and what is below it stays in sight."""


@dataclass(frozen=True)
class ObjectRow:
    """One committed object."""

    label: int
    category: str
    """Its number and its class."""
    size: int
    """Pixels or voxels."""
    area: float
    """The same in physical units; NaN if there are none."""
    score: float
    """The model's own estimate of its IoU; NaN if there is none."""


def rows_of(editor: LabelEditor | None, geometry: ImageGeometry | None) -> list[ObjectRow]:
    """The rows of the table."""
    if editor is None or geometry is None:
        return []
    voxel, _ = voxel_of(geometry)
    found = []
    for label, size in editor.register.index.sizes().items():
        entry = editor.register.entry(label)
        area = math.nan if math.isnan(voxel) else size * voxel
        found.append(ObjectRow(label, entry.category, size, area, entry.score))
    return found


def voxel_of(geometry: ImageGeometry) -> tuple[float, str]:
    """Area or volume of a voxel and its unit; NaN and empty unless all axes share a unit."""
    units = {str(unit) for unit in geometry.layer_options()["units"]}
    if geometry.ndim > 3 or len(units) > 1 or units & {"pixel", ""}:
        return math.nan, ""
    unit = unit_symbol(geometry.layer_options()["units"][0])
    power = "²" if geometry.ndim == 2 else "³"
    return abs(float(np.linalg.det(geometry.matrix[:-1, :-1]))), f"{unit}{power}"


class ObjectTableModel(QAbstractTableModel):
    """Rows for the table; numbers are sorted as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[ObjectRow] = []
        self._titles = ["id", "class", "px", "score"]

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; sizes have `unit`, or are counts if it is empty."""
        self.beginResetModel()
        self.rows = list(rows)
        self._titles[2] = unit or ("px" if ndim == 2 else "voxels")
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """One row for each object."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Id, class, size, score."""
        return 0 if parent is not None and parent.isValid() else len(self._titles)

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """The titles; that of the size is its unit."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._titles[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell shows, and its sort key."""
        row = self.rows[index.row()]
        size: float = row.size if math.isnan(row.area) else row.area
        values: tuple[Any, ...] = (row.label, row.category, size, row.score)
        value = values[index.column()]
        missing = isinstance(value, float) and math.isnan(value)
        if role == _SORT:
            return -1.0 if missing else value
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != 1:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if not isinstance(value, float):
            return str(value)
        return "" if missing else f"{value:.2f}" if index.column() == 3 else f"{value:.4g}"


class ObjectTable(QTableView):
    """A sortable table of the committed objects."""

    chosen = Signal(object)
    """The numbers of the chosen objects, a tuple, whenever the user changes it."""
    visited = Signal(int)
    """An object that was clicked, to be shown."""
    opened = Signal(int)
    """An object that was double-clicked, to be edited."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = ObjectTableModel()
        self._sorted = QSortFilterProxyModel()
        self._sorted.setSourceModel(self._model)
        self._sorted.setSortRole(_SORT)
        self._filling = False
        self.setModel(self._sorted)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFixedHeight(_HEIGHT)
        self.setTabKeyNavigation(False)
        vertical, horizontal = self.verticalHeader(), self.horizontalHeader()
        vertical.hide()
        vertical.setDefaultSectionSize(22)
        horizontal.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.selectionModel().selectionChanged.connect(self._on_selection)
        self.clicked.connect(lambda index: self.visited.emit(self._label(index)))
        self.doubleClicked.connect(lambda index: self.opened.emit(self._label(index)))

    def value(self) -> tuple[int, ...]:
        """The chosen objects, ascending."""
        selection = self.selectionModel().selectedRows()
        return tuple(sorted(self._label(index) for index in selection))

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; chosen ones that still exist stay chosen."""
        before = self.value()
        self._filling = True
        self._model.set_rows(rows, ndim, unit)
        self.choose(before)
        self._filling = False
        if self.value() != before:
            self.chosen.emit(self.value())

    def choose(self, labels: Sequence[int]) -> None:
        """Choose exactly these objects."""
        model = self.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        model.clearSelection()
        for row in range(self._sorted.rowCount()):
            index = self._sorted.index(row, 0)
            if self._label(index) in labels:
                model.select(index, flags.Select | flags.Rows)

    def _label(self, index: QModelIndex) -> int:
        return self._model.rows[self._sorted.mapToSource(index).row()].label

    def _on_selection(self) -> None:
        if not self._filling:
            self.chosen.emit(self.value())


class ClassChoice(QComboBox):
    """A list of classes in which a name can be typed; Enter returns the keyboard to the canvas."""

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
        """Choose without emitting a signal."""
        self.setEditText(name or _NO_CLASS)
        line = self.lineEdit()
        assert line is not None
        line.setCursorPosition(0)  # a name that is too long shows its beginning

    def _on_pick(self) -> None:
        self.clearFocus()
        self.picked.emit(self.value())


class ObjectPanel(QWidget):
    """Shows the committed objects; emits what is to be done with them."""

    overlap_chosen = Signal(str)
    class_chosen = Signal(str)
    acted = Signal(str)
    """The name of an action: edit, delete, merge, split."""
    save_requested = Signal()
    load_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = ObjectTable()
        self.category = ClassChoice()
        self.category.setToolTip("Class of new objects, and of those chosen in the table")
        self.overlap = ComboBox()
        self.overlap.setMinimumContentsLength(_LETTERS)
        self.overlap.addItems(_OVERLAPS)
        self.overlap.setToolTip("Where a new object overlaps others: keep them, or overwrite them")
        tips = {
            "edit": ("Edit", "Open it again with its prompts (or double-click it)"),
            "delete": ("Delete", "Delete the chosen objects"),
            "merge": ("Merge", "Merge those under the points, or chosen here"),
            "split": ("Split", "One object per point on it, or per separate piece"),
        }
        self.buttons = {
            action: Button(text, shortcut_text(action), tip) for action, (text, tip) in tips.items()
        }
        form = QHBoxLayout()
        form.setSpacing(6)
        for title, choice, part in (("Class", self.category, 3), ("Overlap", self.overlap, 2)):
            form.addWidget(QLabel(title))
            form.addWidget(choice, stretch=part)
        self.save = Button(
            "Save ...", "", "Label image, OME-Zarr, COCO, ImageJ ROIs or GeoJSON, with a table"
        )
        self.load = Button("Load ...", "", "Add the objects of a file in any of these formats")
        self.save.clicked.connect(lambda: self.save_requested.emit())
        self.load.clicked.connect(lambda: self.load_requested.emit())
        for action, button in self.buttons.items():
            button.clicked.connect(lambda _=False, action=action: self.acted.emit(action))
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, action in enumerate(("edit", "merge", "split")):
            grid.addWidget(self.buttons[action], 0, 2 * number, 1, 2)
        for number, button in enumerate((self.buttons["delete"], self.load, self.save)):
            grid.addWidget(button, 1, 2 * number, 1, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        layout.addWidget(self.table)
        layout.addLayout(grid)
        self.overlap.activated.connect(lambda index: self.overlap_chosen.emit(_OVERLAPS[index]))
        self.category.picked.connect(self.class_chosen)
        self.set_rows([], 2, "")

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; sizes have `unit`, or are counts if it is empty."""
        self.table.set_rows(rows, ndim, unit)
        for button in (*self.buttons.values(), self.save):
            button.setEnabled(bool(rows))

    def set_overlap(self, overlap: Overlap) -> None:
        """Choose without emitting a signal."""
        self.overlap.setCurrentIndex(_OVERLAPS.index(overlap))
