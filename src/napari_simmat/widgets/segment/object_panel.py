"""The form's parts for committed objects: their table and actions, and learning from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Shapes
from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QAction, QColor, QFont, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QHeaderView,
    QInputDialog,
    QLabel,
    QTableView,
    QWidget,
)

from napari_simmat._text import pluralize
from napari_simmat.annotation.label_editor import Overlap
from napari_simmat.progress import Progress
from napari_simmat.training.evidence import FEW, LEAP
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    LayerChoice,
    MenuButton,
    hbox,
    text_label,
    thin_bar,
    tone_color,
    vbox,
)
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.automatic_panel import MORE_SETTINGS
from napari_simmat.widgets.segment.layer_editor import LayerEditor
from napari_simmat.widgets.segment.learning import MIN_OBJECTS, AdaptPanelState
from napari_simmat.widgets.segment.outputs import Look
from napari_simmat.widgets.segment.panel import Panel
from napari_simmat.widgets.segment.prompt_adapters import BOXES
from napari_simmat.widgets.segment.saved_table import SavedTable
from napari_simmat.widgets.shortcuts import SHORTCUTS

_OVERLAPS: tuple[Overlap, ...] = ("keep", "overwrite")
_LOOKS: dict[Look, str] = {
    "filled": "filled",
    "contours": "contours",
    "filled by class": "filled, colored by class",
    "contours by class": "contours, colored by class",
}
_NO_CLASS = "no class"
NAMED_TIP = "Named by the program, certainty {:.2f}; choose the class in the list to confirm it"
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
LOAD = "Load objects ..."
SAVE_TIP = "Label image, OME-Zarr, COCO, ImageJ ROIs or GeoJSON, with a table"
NO_ROWS = "Objects that you commit are listed here."
_LETTERS = 3
"""Minimum letters that a list shows: two lists stand side by side in a narrow dock."""
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

    NaN and empty unless all axes share a unit.
    """
    reference = geometry.kept_reference()
    known = [reference.of(letter) for letter in geometry.axes]
    units = {"" if each is None else each[1] for each in known}
    if geometry.ndim > 3 or len(units) > 1 or units & {"pixel", ""}:
        return math.nan, ""
    sizes = [each[0] for each in known if each is not None]
    # The layer may be sheared.
    part = abs(np.linalg.det(geometry.matrix[:-1, :-1])) / math.prod(geometry.spacing)
    unit = units.pop().replace("um", "\N{MICRO SIGN}m")
    voxel = math.prod(sizes) * float(part)
    if geometry.ndim == 3 and unit == "mm":
        return voxel / 1000, "ml"  # as radiologists say it
    return voxel, f"{unit}{'²' if geometry.ndim == 2 else '³'}"


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

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; sizes have `unit`, or are counts if it is empty."""
        self.beginResetModel()
        self.rows = list(rows)
        self._sort()
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

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; chosen ones that still exist stay chosen."""
        before = self.value()
        self._filling = True
        self._model.set_rows(rows, ndim, unit)
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
        row = hbox(QLabel("Class"), (self.category, 3), (self.chosen_menu, 2), (self.save, 3))
        row.setSpacing(6)
        vbox((self.table, 1), row, parent=self)
        self.look.activated.connect(lambda _: self.look_chosen.emit(self.look.currentData()))
        self.overlap.activated.connect(lambda index: self.overlap_chosen.emit(_OVERLAPS[index]))
        self.category.picked.connect(self.class_chosen)
        self.table.chosen.connect(lambda _: self.show_actions())
        self.set_rows([], 2, "")

    def _action(self, name: str, title: str, tip: str) -> QAction:
        action = QAction(title, self)
        action.setToolTip(tip)
        if key := next((each.text() for each in SHORTCUTS if each.action == name), ""):
            action.setText(f"{title}\t{key}")
        action.triggered.connect(lambda: self.acted.emit(name))
        return action

    def _on_save(self) -> None:
        self.acted.emit("save" if self.table.model().rowCount() else "load")

    def set_rows(self, rows: Sequence[ObjectRow], ndim: int, unit: str) -> None:
        """Show these objects; sizes have `unit`, or are counts if it is empty."""
        self.table.set_rows(rows, ndim, unit)
        for name, action in self.entries.items():
            action.setEnabled(bool(rows) or name == "load")
        # Without objects a press loads some: that is what can be done then.
        self.save.setText(f"Save {len(rows)} ..." if rows else LOAD)
        self.save.setToolTip(SAVE_TIP if rows else self.entries["load"].toolTip())
        self.show_actions()

    def set_busy(self, busy: bool) -> None:
        """Leave the actions on chosen objects to menus and keys, as while others are made."""
        self._is_busy = busy
        self.show_actions()

    def show_actions(self) -> None:
        """Show what can be done with chosen objects, if any are chosen."""
        self.chosen_menu.setVisible(bool(self.table.value()) and not self._is_busy)


# -------------------------------------------------------------------------------- learning

LEARN, LEARN_AGAIN, CANCEL = "Learn from these objects", "Learn again", "Cancel"
COMMIT_MORE = "Commit {}, and the model can learn from them."
AGAIN_AFTER = "Learn again after {}."
LEARNS = "Learns from {} in a minute or two; you can keep working."
FEW_LEARN = "From fewer than {} only a gain of {:.0f} points can be told from chance."
LEARNS_CHANNELS = "Trains a transfer layer for all {} channels; empty ones are left out and named."
GOES_ON = "Learning was interrupted: with the same objects it goes on from there."
SCORES = "Objects left out, mean IoU: {}."
COMPLETE_TIP = (
    "What has no label is background. Otherwise it counts as unknown, beyond a ring around each "
    "object."
)
REGION_TIP = "A shapes layer: all objects are labeled within its shapes"


class LearnPanel(QWidget):
    """Starts and shows learning, compares before and after, and names what is to be kept."""

    started = Signal()
    stopped = Signal()
    compared = Signal(bool)
    """Show the masks after learning, or those before it."""
    named = Signal(str)
    """Keep what was learned as a model of this name."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._state = AdaptPanelState()
        self.hint = text_label("muted")
        self.complete = QCheckBox("All objects are labeled")
        self.complete.setToolTip(COMPLETE_TIP)
        self.region = LayerChoice(
            viewer, Shapes, "in the whole image", lambda layer: layer.name == BOXES
        )
        self.region.setToolTip(REGION_TIP)
        self.all_channels = QCheckBox("")
        self.start = Button("")
        self.bar = thin_bar()
        self.result = text_label()
        self.before = Button("Before", "", "The masks of the model as it was")
        self.after = Button("After", "", "The masks of the model that has learned")
        self.keep = Button("Keep as model ...", "", "Name it, and use it on other images")
        both = QButtonGroup(self)
        for button in (self.before, self.after):
            button.setCheckable(True)
            both.addButton(button)
        self._outcome = QWidget()
        options = QWidget()
        vbox(self.all_channels, hbox(self.complete, (self.region, 1)), parent=options)
        self.more = CollapsibleSection(MORE_SETTINGS, options)
        compare = hbox((self.before, 1), (self.after, 1), (self.keep, 2))
        vbox(self.result, compare, parent=self._outcome)
        vbox(
            self.hint,
            self.start,
            self.bar,
            self._outcome,
            self.more,
            parent=self,
            indent=INDENT,
        )
        self.complete.toggled.connect(self.region.setVisible)
        self.all_channels.toggled.connect(self._show)
        self.start.clicked.connect(self._on_start)
        self.before.clicked.connect(lambda: self.compared.emit(False))
        self.after.clicked.connect(lambda: self.compared.emit(True))
        self.keep.clicked.connect(self._on_keep)
        self.region.setVisible(False)
        self._show()

    @property
    def takes_all_channels(self) -> bool:
        """Whether to learn from all channels of the image."""
        return self._state.channels > 0 and self.all_channels.isChecked()

    @property
    def labeled_within(self) -> Shapes | bool:
        """Where all objects are labeled: within shapes, everywhere, or nowhere for sure."""
        if not self.complete.isChecked():
            return False
        layer = self.region.value()
        return layer if isinstance(layer, Shapes) else True

    def set_state(self, state: AdaptPanelState) -> None:
        """Show what can be done, what goes on, and what came of it."""
        before, self._state = self._state, state
        if (state.channels, state.takes_all) != (before.channels, before.takes_all):
            self.all_channels.setChecked(state.takes_all)
        self._show()

    def set_progress(self, progress: Progress) -> None:
        """Show how far it is; nothing else moves."""
        self._state = self._state._replace(progress=progress)
        self._show_progress()

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self.region.release()

    def _show(self) -> None:
        state, progress = self._state, self._state.progress
        self._show_progress()
        self.all_channels.setText(f"All {state.channels} channels")
        self.all_channels.setVisible(state.channels > 0)
        learns = progress is not None
        for option in (self.complete, self.region, self.all_channels):
            option.setEnabled(not learns)
        again = LEARN if state.adapted is None else LEARN_AGAIN
        self.start.setText(CANCEL if learns else again)
        self.start.setEnabled(learns or state.ready)
        # Once it has learned, there is nothing to start before there are more objects.
        for part in (self.start, self.more):
            part.setVisible(learns or state.ready or state.adapted is None)
        self.bar.setVisible(learns)
        learned, taught = state.adapted is not None, bool(state.taught)
        for button in (self.before, self.after):
            button.setVisible(learned)
        self._outcome.setVisible(learned or taught)
        sentence = "" if state.adapted is None else state.adapted.sentence
        self.result.setText(" ".join(filter(None, [sentence, state.taught])))
        (self.after if state.shows_adapted else self.before).setChecked(True)

    def _show_progress(self) -> None:
        self.hint.setText(hint(self._state, all_channels=self.takes_all_channels))
        if (progress := self._state.progress) is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)

    def _on_start(self) -> None:
        (self.started if self._state.progress is None else self.stopped).emit()

    def _on_keep(self) -> None:
        name, accepted = QInputDialog.getText(self, "Keep as model", "Name of the model")
        if accepted and name.strip():
            self.named.emit(name.strip())


def hint(state: AdaptPanelState, *, all_channels: bool = False) -> str:
    """What goes on, or what is missing until it can."""
    if state.progress is not None:
        message = state.progress.message
        text = f"{message[:1].upper()}{message[1:]}."
        return " ".join(filter(None, [text, scores_text(state.progress)]))
    missing = pluralize(max(0, MIN_OBJECTS - state.new), "more object")
    if not state.ready:
        return (COMMIT_MORE if state.adapted is None else AGAIN_AFTER).format(missing)
    if state.interrupted:
        return GOES_ON
    parts = [LEARNS.format(pluralize(state.new, "new object" if state.adapted else "object"))]
    if state.new < FEW:
        parts.append(FEW_LEARN.format(pluralize(FEW, "object"), LEAP))
    if all_channels:
        parts.append(LEARNS_CHANNELS.format(state.channels))
    return " ".join(parts)


def scores_text(progress: Progress) -> str:
    """The scores of a `LearnProgress` so far; empty before the first."""
    before, after = getattr(progress, "before", None), getattr(progress, "after", None)
    if before is None:
        return ""
    figures = [
        f"{kind} {getattr(before, kind):.0f}"
        f"{'' if after is None else f' → {getattr(after, kind):.0f}'} %"
        for kind in ("click", "box")
    ]
    return SCORES.format(", ".join(figures))
