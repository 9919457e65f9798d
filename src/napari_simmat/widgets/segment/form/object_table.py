"""`ObjectTable`: the committed objects as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_simmat.engine.measuring.size_distribution import SizeDistribution
from napari_simmat.widgets.placement import ImageGeometry, time_axis_of
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.tones import tone_color

NAMED_TIP = "Named by the program, certainty {:.2f}; choose the class in the list to confirm it"
NO_ROWS = "Objects that you commit are listed here."
_TABLE_HEIGHT = 114
"""Least height of the table in pixels: four rows."""


@dataclass(frozen=True)
class ObjectRow:
    """One committed object.

    Attributes
    ----------
    label, category, certainty
        Its number, its class, and how certain the program is of that; None for one by hand.
    size
        Pixels or voxels.
    area
        The same in physical units; NaN if there are none.
    score
        The model's own estimate of its IoU; NaN if there is none.
    """

    label: int
    category: str
    size: int
    area: float
    score: float
    certainty: float | None = None


def rows_of(editor: LayerEditor | None, geometry: ImageGeometry | None) -> list[ObjectRow]:
    """The rows of the table."""
    if editor is None or geometry is None:
        return []
    voxel, _ = voxel_of(geometry)
    rows = []
    for label, size in editor.register.index.sizes().items():
        entry = editor.register.entry(label)
        known = entry.category, size, size * voxel, entry.score, entry.certainty
        rows.append(ObjectRow(label, *known))
    return rows


def voxel_of(geometry: ImageGeometry) -> tuple[float, str]:
    """Area or volume of a voxel and its unit, as in saved files, but for ml instead of mm³.

    Time is no side of a voxel. NaN and empty unless all other axes share a unit.
    """
    reference = geometry.kept_reference()
    axes = spatial_axes(geometry)
    known = [reference.of(geometry.axes[axis]) for axis in axes]
    units = {"" if each is None else each[1] for each in known}
    if len(axes) > 3 or len(units) > 1 or units & {"pixel", ""}:
        return math.nan, ""
    sizes = [each[0] for each in known if each is not None]
    # The layer may be sheared.
    linear = geometry.matrix[:-1, :-1][np.ix_(axes, axes)]
    spacing = [geometry.usual.spacing[axis] for axis in axes]
    part = abs(np.linalg.det(linear)) / math.prod(spacing)
    unit = units.pop().replace("um", "\N{MICRO SIGN}m")
    voxel = math.prod(sizes) * float(part)
    if len(axes) == 3 and unit == "mm":
        return voxel / 1000, "ml"  # as radiologists say it
    return voxel, f"{unit}{'²' if len(axes) == 2 else '³'}"


def spatial_axes(geometry: ImageGeometry) -> list[int]:
    """The axes of an image but that of time."""
    time = time_axis_of(geometry)
    return [axis for axis in range(geometry.ndim) if axis != time]


def size_title(geometry: ImageGeometry) -> str:
    """The title of the column of sizes: their unit, and that they add up over time."""
    axes = spatial_axes(geometry)
    unit = voxel_of(geometry)[1] or ("px" if len(axes) == 2 else "voxels")
    return unit if len(axes) == geometry.ndim else f"{unit}, all t"


def size_distribution(title: str, sizes: Sequence[float]) -> SizeDistribution | None:
    """D10, D50 and D90 of a column that `size_title` named.

    None for other columns, and for sizes that add up over time.
    """
    counted = {"px": ("px", 2, 1.0), "voxels": ("px", 3, 1.0), "ml": ("mm", 3, 1000.0)}
    powers = {"\N{SUPERSCRIPT TWO}": 2, "\N{SUPERSCRIPT THREE}": 3}
    if title in counted:
        unit, axes, each = counted[title]
        return SizeDistribution.of_sizes(np.asarray(sizes) * each, unit, axes)
    if title[-1:] not in powers:
        return None
    return SizeDistribution.of_sizes(sizes, title[:-1], powers[title[-1]])


class ObjectTableModel(QAbstractTableModel):
    """Rows for the table; numbers are sorted as numbers.

    It sorts itself: Qt's proxy asks for two values at each comparison, a stall for 2000 objects.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[ObjectRow] = []
        self._column = 0
        self._is_descending = False
        self._titles = ["id", "class", "px", "score"]

    def set_rows(self, rows: Sequence[ObjectRow], title: str = "px") -> None:
        """Show these objects; `title` says the unit of their sizes."""
        self.beginResetModel()
        self.rows = list(rows)
        self._sort()
        self._titles[2] = title
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

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; chosen objects stay chosen."""
        self._column = column
        self._is_descending = order == Qt.SortOrder.DescendingOrder
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        labels = [self.rows[index.row()].label for index in before]
        self._sort()
        rows = {row.label: number for number, row in enumerate(self.rows)}
        pairs = zip(before, labels, strict=True)
        after = [self.index(rows[label], index.column()) for index, label in pairs]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def shown_numbers(self) -> tuple[str, list[float]]:
        """Title and values of the scores, if it is sorted by these, or else of the sizes."""
        column = 3 if self._column == 3 else 2
        return self._titles[column], [_value(row, column) for row in self.rows]

    def _sort(self) -> None:
        def key(row: ObjectRow) -> Any:
            value = _value(row, self._column)
            if self._column == 1:  # of a class those that are least certain, then those by hand
                return value, 2.0 if row.certainty is None else row.certainty
            return -1.0 if _is_missing(value) else value

        self.rows.sort(key=key, reverse=self._is_descending)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell shows."""
        value = _value(self.rows[index.row()], index.column())
        certainty = self.rows[index.row()].certainty
        if index.column() == 1 and certainty is not None:
            if role == Qt.ItemDataRole.FontRole:
                return _by_program()
            if role == Qt.ItemDataRole.ToolTipRole:
                return NAMED_TIP.format(certainty)
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != 1:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if not isinstance(value, float):
            return str(value)
        if _is_missing(value):
            return ""
        if index.column() == 3:
            return f"{value:.2f}"
        rounded = float(f"{value:.4g}")
        return f"{rounded:.0f}" if rounded >= 10_000 else f"{value:.4g}"  # not 2.548e+06


def _by_program() -> QFont:
    """The font of a class that the program gave."""
    font = QFont()
    font.setItalic(True)
    return font


def _value(row: ObjectRow, column: int) -> Any:
    size: float = row.size if math.isnan(row.area) else row.area
    return (row.label, row.category, size, row.score)[column]


def _is_missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


class ObjectTable(QTableView):
    """A sortable table of the committed objects."""

    chosen = Signal(object)
    """The numbers of the chosen objects, a tuple, whenever the user changes it."""
    visited = Signal(int)
    """An object that was clicked, to be shown."""
    opened = Signal(int)
    """An object that was double-clicked, to be edited."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Objects")
        self._model = ObjectTableModel()
        self._filling = False
        self.setModel(self._model)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(_TABLE_HEIGHT)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.selectionModel().selectionChanged.connect(self._on_selection)
        self.clicked.connect(lambda index: self.visited.emit(self._label(index)))
        self.doubleClicked.connect(lambda index: self.opened.emit(self._label(index)))

    def value(self) -> tuple[int, ...]:
        """The chosen objects, ascending."""
        selection = self.selectionModel().selectedRows()
        return tuple(sorted(self._label(index) for index in selection))

    def categories(self) -> set[str]:
        """The classes of the chosen objects."""
        selection = self.selectionModel().selectedRows()
        return {self._model.rows[index.row()].category for index in selection}

    def set_rows(self, rows: Sequence[ObjectRow], title: str = "px") -> None:
        """Show these objects; chosen ones that still exist stay chosen."""
        before = self.value()
        self._filling = True
        self._model.set_rows(rows, title)
        self.choose(before)
        self._filling = False
        if self.value() != before:
            self.chosen.emit(self.value())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Say what will be listed, as long as nothing is."""
        super().paintEvent(event)
        if not self._model.rows:
            painter = QPainter(self.viewport())
            painter.setPen(QColor(tone_color("muted", self)))
            painter.drawText(self.viewport().rect(), Qt.AlignmentFlag.AlignCenter, NO_ROWS)

    def shown_numbers(self) -> tuple[str, list[float]]:
        """Title and values of the column by which it is sorted: scores, or else the sizes."""
        return self._model.shown_numbers()

    def choose(self, labels: Sequence[int]) -> None:
        """Choose exactly these objects."""
        model = self.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        model.clearSelection()
        wanted = set(labels)
        for number, row in enumerate(self._model.rows):
            if row.label in wanted:
                model.select(self._model.index(number, 0), flags.Select | flags.Rows)

    def _label(self, index: QModelIndex) -> int:
        return self._model.rows[index.row()].label

    def _on_selection(self) -> None:
        if not self._filling:
            self.chosen.emit(self.value())
