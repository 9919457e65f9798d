"""The live table of a run's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from napari_simmat.widgets.batch.look import Planned

COLUMNS = ("File", "State", "Objects", "Time", "Message")
_COLOURS = {
    "reading": "#ffb000", "segmenting": "#ffb000", "writing": "#ffb000",
    "written": "#2ecc71", "kept": "#2ecc71", "failed": "#ff5c50", "skipped": "#8a8f98",
}  # fmt: skip
_WORDS = {"written": "done", "kept": "kept", "waiting": ""}
DONE = ("written", "kept")
"""States of a file that can be opened."""


@dataclass(frozen=True)
class FileRow:
    """One file of the table.

    Parameters
    ----------
    name
        Of the file.
    state
        ``"waiting"``, a state of `batch.running`, or ``"skipped"``.
    objects, seconds
        Once they are known.
    message
        A remark, or why it failed.
    image, labels
        What is opened; None for a file that was left out.
    """

    name: str
    state: str = "waiting"
    objects: int | None = None
    seconds: float | None = None
    message: str = ""
    image: Path | None = None
    labels: Path | None = None

    def texts(self) -> tuple[str, str, str, str, str]:
        """The cells."""
        return (
            self.name,
            _WORDS.get(self.state, self.state),
            "" if self.objects is None else str(self.objects),
            "" if self.seconds is None else f"{self.seconds:.1f} s",
            self.message,
        )


def rows_of(planned: Planned) -> list[FileRow]:
    """The files of a run; those that are left out at the end."""
    rows = [
        FileRow(_name(image, labels.parent, planned.output), image=image, labels=labels)
        for image, labels in planned.pairs
    ]
    return rows + [
        FileRow(one.image.name, "failed" if one.failed else "skipped", message=one.why)
        for one in planned.skipped
    ]


def _name(image: Path, folder: Path, output: Path) -> str:
    below = folder.relative_to(output) if folder.is_relative_to(output) else folder
    return (below / image.name).as_posix()


class FilesModel(QAbstractTableModel):
    """The rows, as Qt asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[FileRow] = []

    def set_rows(self, rows: Sequence[FileRow]) -> None:
        """Show other files."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def update(self, number: int, state: str, file: Mapping[str, Any] | None = None) -> None:
        """A file has come further."""
        row = replace(self.rows[number], state=state)
        if file is not None:
            labels = file.get("labels_file")  # of a large image in another format than planned
            row = replace(
                row,
                labels=row.labels if labels is None else Path(labels),
                objects=file.get("objects"),
                seconds=file.get("seconds"),
                message=str(file.get("error") or file.get("note") or ""),
            )
        if row != self.rows[number]:
            self.rows[number] = row
            last = len(COLUMNS) - 1
            self.dataChanged.emit(self.index(number, 0), self.index(number, last))

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """How many files."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """How many columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """Titles of the columns."""
        horizontal = orientation == Qt.Orientation.Horizontal
        shown = role == Qt.ItemDataRole.DisplayRole
        return COLUMNS[section] if horizontal and shown else None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Text, colour and tip of a cell."""
        row = self.rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return row.texts()[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == 1:
            return QColor(_COLOURS.get(row.state, "#8a8f98"))
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() in (2, 3):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None


class FilesTable(QTableView):
    """The table; a click on a file that is done asks to open it, on another to explain it."""

    opened = Signal(object, object)
    """The files of the image and of its labels."""
    explained = Signal(str)
    """Why a file was not segmented."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.files = FilesModel()
        self.setModel(self.files)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(20)
        header = self.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
        header.setStretchLastSection(True)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        for column, width in enumerate((112, 84, 54, 54, 140)):
            self.setColumnWidth(column, width)
        self.setMinimumHeight(150)
        self.clicked.connect(self._on_clicked)

    def chosen(self) -> Path | None:
        """The image of the selected row."""
        row = self.currentIndex().row()
        return self.files.rows[row].image if 0 <= row < len(self.files.rows) else None

    def _on_clicked(self, index: QModelIndex) -> None:
        row = self.files.rows[index.row()]
        if row.state in DONE and row.image is not None:
            self.opened.emit(row.image, row.labels)
        elif row.message:
            self.explained.emit(row.message)
