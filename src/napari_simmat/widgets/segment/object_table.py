"""The finished objects as a table that can be sorted and leads to each of them."""

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
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from napari_simmat.widgets.place import Place, symbol_of
from napari_simmat.widgets.segment.finished import Finished

_SORT = Qt.ItemDataRole.UserRole
_HEIGHT = 114
"""Of the table in pixels: four rows, and what is below it stays in sight."""


@dataclass(frozen=True)
class Row:
    """One finished object.

    Parameters
    ----------
    label, category
        Its number and its class.
    size
        Pixels or voxels.
    area
        The same in physical units; NaN where there are none.
    score
        The model's own estimate of its IoU; NaN where there is none.
    """

    label: int
    category: str
    size: int
    area: float
    score: float


def rows_of(finished: Finished | None, place: Place | None) -> list[Row]:
    """The objects as the table shows them."""
    if finished is None or place is None:
        return []
    voxel, _ = voxel_of(place)
    found = []
    for label, size in finished.register.census.sizes().items():
        entry = finished.register.entry(label)
        area = math.nan if math.isnan(voxel) else size * voxel
        found.append(Row(label, entry.category, size, area, entry.score))
    return found


def voxel_of(place: Place) -> tuple[float, str]:
    """Area or volume of a voxel and its unit; NaN and empty unless all axes share a unit."""
    units = {str(unit) for unit in place.layer_options()["units"]}
    if place.ndim > 3 or len(units) > 1 or units & {"pixel", ""}:
        return math.nan, ""
    unit = symbol_of(place.layer_options()["units"][0])
    power = "²" if place.ndim == 2 else "³"
    return abs(float(np.linalg.det(place.matrix[:-1, :-1]))), f"{unit}{power}"


class ObjectModel(QAbstractTableModel):
    """Rows for the table; numbers are sorted as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._titles = ["id", "class", "px", "score"]

    def set_rows(self, rows: Sequence[Row], ndim: int, unit: str) -> None:
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
        """The titles; the size's is its unit."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._titles[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell shows, and by what it is sorted."""
        row = self.rows[index.row()]
        size: float = row.size if math.isnan(row.area) else row.area
        values: tuple[Any, ...] = (row.label, row.category, size, row.score)
        value = values[index.column()]
        if role == _SORT:
            return -1.0 if isinstance(value, float) and math.isnan(value) else value
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != 1:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if isinstance(value, float):
            return (
                ""
                if math.isnan(value)
                else f"{value:.2f}"
                if index.column() == 3
                else f"{value:.4g}"
            )
        return str(value)


class ObjectTable(QTableView):
    """A view of the finished objects."""

    chosen = Signal(object)
    """The numbers of the chosen objects, a tuple, whenever the user changes it."""
    visited = Signal(int)
    """An object that was clicked: it is to be shown."""
    opened = Signal(int)
    """An object that was clicked twice: it is to be opened again."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = ObjectModel()
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

    def set_rows(self, rows: Sequence[Row], ndim: int, unit: str) -> None:
        """Show these objects; those that were chosen and are still there stay chosen."""
        before = self.value()
        self._filling = True
        self._model.set_rows(rows, ndim, unit)
        self._select(before)
        self._filling = False
        if self.value() != before:
            self.chosen.emit(self.value())

    def choose(self, labels: Sequence[int]) -> None:
        """Choose exactly these objects."""
        self._select(labels)

    def _select(self, labels: Sequence[int]) -> None:
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
