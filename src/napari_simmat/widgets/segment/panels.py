"""The buttons for prompts: which tool is in hand, and what is done with what is open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Labels, Layer, Points
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
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QSpinBox,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.widgets.controls import Button, ComboBox, LayerChoice, MainButton
from napari_simmat.widgets.forms import EverythingForm
from napari_simmat.widgets.placement import ImageGeometry, unit_symbol
from napari_simmat.widgets.segment.label_editor import Finished, Overlap
from napari_simmat.widgets.segment.outputs import PREVIEW
from napari_simmat.widgets.segment.prompt_layers import NEGATIVE, POSITIVE, Tool
from napari_simmat.widgets.shortcuts import shortcut_text


class PromptButtons(QWidget):
    """Tools and actions; each button shows its key."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        alt = shortcut_text("flip", shapes=True)
        self.point = Button("● Point", tip="Click on the object")
        self.box = Button("▭ Box", tip="Draw a box around each object; E and P: ellipse, polygon")
        self.scribble = Button("∿ Line", tip="Scribble over the object")
        self.sign = Button("", tip=f"Flip between inside and outside ({alt} on boxes)")
        self.commit = MainButton(
            "Commit", shortcut_text("commit"), "Write the object; then the next one"
        )
        self.segment = Button("Segment", shortcut_text("segment"), "Answer the prompts (again)")
        self.clear = Button("Clear", shortcut_text("clear"), "Remove the prompts shown")
        self.undo = Button("Undo", shortcut_text("undo"), "Take back whatever was done last")
        self.redo = Button("Redo", shortcut_text("redo"), "Do it again")
        self.cycle = Button(
            "Other mask", shortcut_text("cycle"), "Another of the model's candidates"
        )
        self.next = Button("One more", shortcut_text("next"), "Another object beside what is open")
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
        self.sign.setText(f"{'inside' if positive else 'outside'}  {shortcut_text('flip')}")
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


# The part of the form for stacks: follow an object through planes, encode planes ahead.


Direction = Literal["both", "up", "down"]
_DIRECTIONS: dict[Direction, str] = {
    "both": "both directions",
    "up": "to later planes",
    "down": "to earlier planes",
}


@dataclass(frozen=True)
class Axis:
    """One axis of planes."""

    index: int
    name: str
    size: int


class StackPanel(QWidget):
    """Settings and buttons; it computes nothing."""

    started = Signal()
    """Follow what is open."""
    stopped = Signal()
    """Stop following."""
    dropped = Signal()
    """Take back what was found."""
    committed = Signal()
    """Write what was found."""
    ahead_chosen = Signal(bool)
    """Whether planes are encoded ahead."""
    disk_chosen = Signal(bool)
    """Whether embeddings are kept on disk."""
    whole_asked = Signal()
    """Encode all planes."""
    whole_stopped = Signal()
    """Stop that."""
    cleared = Signal()
    """Forget all embeddings."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._axes: tuple[Axis, ...] = ()
        self._ways: list[tuple[Axis, ...]] = []
        self.along = ComboBox()
        self.direction = ComboBox()
        for text in _DIRECTIONS.values():
            self.direction.addItem(text)
        self.first, self.last = _Plane(), _Plane()
        self.start = Button(
            "Propagate", shortcut_text("propagate"), "Follow what is open through planes"
        )
        self.commit = Button("Commit all", "", "Write what was found on all planes (C)")
        self.drop = Button("Discard", "", "Take back what was found")
        self.whole = Button("Encode whole stack", "", "All planes, so that each click is fast")
        self.clear = Button("Clear", "", "Forget what is encoded, in memory and on disk")
        self.ahead = QCheckBox("Encode planes ahead")
        self.disk = QCheckBox("Keep on disk")
        self.bar = QProgressBar()
        self.told = QLabel()
        self._propagating = self._encoding = False
        self._lay_out()
        self._connect()
        self.set_state(working=False, busy=False, found=False)
        self.show_encoded("", 1.0)

    # ---------------------------------------------------------------------- values

    def set_axes(self, axes: Sequence[Axis]) -> None:
        """Offer the axes along which an image has planes; the last is the usual one."""
        if tuple(axes) == self._axes:
            return
        self._axes = tuple(axes)
        ways = [(axis,) for axis in reversed(self._axes)]
        if len(self._axes) > 1:
            ways.append((self._axes[-1], self._axes[0]))
        self._ways = ways
        self.along.clear()
        for way in ways:
            self.along.addItem(", then ".join(axis.name for axis in way))
        self.along.setEnabled(len(ways) > 1)
        self._on_along()

    def along_value(self) -> tuple[int, ...]:
        """The axes to go along, one after the other."""
        return tuple(axis.index for axis in self._ways[self.along.currentIndex()])

    def planes_value(self, annotated: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """The first and the last plane to go to, from those on which something is open."""
        axis = self.along_value()[0]
        first, last = sorted((self.first.value(), self.last.value()))
        direction = list(_DIRECTIONS)[self.direction.currentIndex()]
        at = [plane[axis] for plane in annotated]
        if direction == "up" and at:
            first = min(max(first, min(at)), last)
        if direction == "down" and at:
            last = max(min(last, max(at)), first)
        return first, last

    # ----------------------------------------------------------------------- shown

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Enable what can be done: something is open, planes are asked, something was found."""
        self._propagating = busy
        text = "Cancel" if busy else f"Propagate  {shortcut_text('propagate')}"
        self.start.setText(text)
        self.start.setEnabled(busy or (working and bool(self._axes)))
        for button in (self.commit, self.drop):
            button.setEnabled(found and not busy)

    def set_encoding(self, whole: bool) -> None:
        """Show whether the whole stack is being encoded."""
        self._encoding = whole
        self.whole.setText("Cancel encoding" if whole else "Encode whole stack")

    def show_encoded(self, text: str, part: float) -> None:
        """Say how far the encoding is; a part of 1 means that nothing is under way."""
        self.told.setText(text)
        self.bar.setVisible(part < 1)
        self.bar.setValue(round(100 * part))

    # ---------------------------------------------------------------------- layout

    def _lay_out(self) -> None:
        planes = QHBoxLayout()
        planes.addWidget(self.first)
        planes.addWidget(QLabel("to"))
        planes.addWidget(self.last)
        form = QFormLayout()
        form.setContentsMargins(14, 0, 0, 0)
        form.setVerticalSpacing(6)
        form.addRow("Along", self.along)
        form.addRow("Go", self.direction)
        form.addRow("Planes", planes)
        found = QHBoxLayout()
        found.setSpacing(4)
        found.addWidget(self.commit)
        found.addWidget(self.drop)
        encode = QHBoxLayout()
        encode.setSpacing(4)
        encode.addWidget(self.whole, 2)
        encode.addWidget(self.clear, 1)
        checks = QHBoxLayout()
        checks.addWidget(self.ahead)
        checks.addWidget(self.disk)
        self.bar.setMaximumHeight(6)
        self.bar.setTextVisible(False)
        self.told.setWordWrap(True)
        self.ahead.setChecked(True)
        self.disk.setToolTip(
            "Next time nothing is encoded again. Off by default: it tells much about the image."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(form)
        layout.addWidget(self.start)
        layout.addLayout(found)
        layout.addLayout(checks)
        layout.addLayout(encode)
        layout.addWidget(self.bar)
        layout.addWidget(self.told)

    def _connect(self) -> None:
        self.along.currentIndexChanged.connect(self._on_along)
        self.start.clicked.connect(
            lambda: (self.stopped if self._propagating else self.started).emit()
        )
        self.commit.clicked.connect(self.committed)
        self.drop.clicked.connect(self.dropped)
        self.whole.clicked.connect(
            lambda: (self.whole_stopped if self._encoding else self.whole_asked).emit()
        )
        self.clear.clicked.connect(self.cleared)
        self.ahead.toggled.connect(self.ahead_chosen)
        self.disk.toggled.connect(self.disk_chosen)

    def _on_along(self) -> None:
        if 0 <= self.along.currentIndex() < len(self._ways):
            last = self._ways[self.along.currentIndex()][0].size - 1
            for box in (self.first, self.last):
                box.setMaximum(last)
            self.first.setValue(0)
            self.last.setValue(last)


class _Plane(QSpinBox):
    """The number of a plane; a click into the image gives the keys back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setMaximum(0)


# The part of the form that segments everything: where to ask, and what to keep of it.


class EverythingPanel(EverythingForm):
    """Settings and buttons; it computes nothing.

    Parameters
    ----------
    viewer
        Its points and labels layers can be where the model is asked.
    """

    started = Signal()
    """Segment everything on the plane that is shown."""
    stopped = Signal()
    """Stop that."""
    committed = Signal()
    """Write what was found."""
    dropped = Signal()
    """Take back what was found."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.layer = LayerChoice(viewer, (Points, Labels), "none", _is_preview)  # type: ignore[arg-type]
        self.start = Button("Segment everything", "", "All objects of the plane that is shown")
        self.stop = Button("Stop", "", "Stop segmenting")
        self.commit = Button("Commit all", "", "Write what was found as objects")
        self.drop = Button("Discard", "", "Take back what was found")
        self._add_buttons()
        self._connect_buttons()
        self.set_state(working=False, busy=False, found=False)

    def layer_value(self) -> Layer | None:
        """The layer whose points or labels are asked, if one was chosen."""
        return self.layer.value()

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Show what can be done: with an image, while masks are proposed, with some found."""
        self.start.setVisible(not busy)
        self.start.setEnabled(working)
        self.stop.setVisible(busy)
        self.commit.setEnabled(found and not busy)
        self.drop.setEnabled(found and not busy)

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self.layer.release()

    def _add_buttons(self) -> None:
        self.rows.insertRow(1, "or on a layer", self.layer)
        first, second = QHBoxLayout(), QHBoxLayout()
        second.setSpacing(4)
        first.addWidget(self.start)
        first.addWidget(self.stop)
        second.addWidget(self.commit)
        second.addWidget(self.drop)
        self.rows.addRow(first)
        self.rows.addRow(second)

    def _connect_buttons(self) -> None:
        self.start.clicked.connect(lambda: self.started.emit())
        self.stop.clicked.connect(lambda: self.stopped.emit())
        self.commit.clicked.connect(lambda: self.committed.emit())
        self.drop.clicked.connect(lambda: self.dropped.emit())


def _is_preview(layer: Layer) -> bool:
    return bool(layer.name == PREVIEW)


# The finished objects as a table that can be sorted and leads to each of them.


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


def rows_of(finished: Finished | None, place: ImageGeometry | None) -> list[Row]:
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


def voxel_of(place: ImageGeometry) -> tuple[float, str]:
    """Area or volume of a voxel and its unit; NaN and empty unless all axes share a unit."""
    units = {str(unit) for unit in place.layer_options()["units"]}
    if place.ndim > 3 or len(units) > 1 or units & {"pixel", ""}:
        return math.nan, ""
    unit = unit_symbol(place.layer_options()["units"][0])
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


# The finished objects in the form: how new ones are written, the table, and what can be done.


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
        self.overlap = ComboBox()
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
            action: Button(text, shortcut_text(action), tip) for action, (text, tip) in tips.items()
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
