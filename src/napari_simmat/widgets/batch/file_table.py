"""The table of files of a batch run, with the state of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.tones import Tone, tone_color

TABLE_COLUMNS = ("File", "State", "Objects", "Time")
_TONES: dict[str, Tone] = {
    "reading": "warning", "segmenting": "warning", "writing": "warning",
    "written": "good", "kept": "good", "failed": "error",
}  # fmt: skip
_WORDS = {"written": "done", "kept": "kept", "waiting": ""}
_UNFINISHED = ("reading", "segmenting", "writing")


class FileRow(NamedTuple):
    """One file of the table; the paths of one that is skipped are None."""

    name: str
    state: str = "waiting"
    """``waiting``, a state of `batch.tasks`, or ``skipped``."""
    objects: int | None = None
    seconds: float | None = None
    message: str = ""
    """A remark, or the reason of a failure."""
    image: Path | None = None
    labels: Path | None = None

    def texts(self) -> tuple[str, str, str, str]:
        """The texts of its cells."""
        return (
            self.name,
            _WORDS.get(self.state, self.state),
            "" if self.objects is None else str(self.objects),
            "" if self.seconds is None else f"{self.seconds:.1f} s",
        )


def rows_of(plan: Mapping[str, Any]) -> list[FileRow]:
    """The files of a run, as `Plan.to_plain` has them; those that are skipped come last."""
    output = Path(plan["output"])
    rows = []
    for file in plan["files"]:
        image, labels = Path(file["image"]), Path(file["labels_file"])
        folder = labels.parent
        below = folder.relative_to(output) if folder.is_relative_to(output) else folder
        rows.append(FileRow((below / image.name).as_posix(), image=image, labels=labels))
    for skipped in plan["skipped"]:
        state = "failed" if skipped["failed"] else "skipped"
        rows.append(FileRow(Path(skipped["image"]).name, state, message=skipped["why"]))
    return rows


class FilesModel(QAbstractTableModel):
    """The rows as a Qt model; `view` decides on colors for a dark or a light theme."""

    def __init__(self, view: QWidget | None = None) -> None:
        super().__init__(view)
        self._view = view
        self.rows: list[FileRow] = []

    def set_rows(self, rows: Sequence[FileRow]) -> None:
        """Replace all rows."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def update(self, number: int, state: str, file: Mapping[str, Any] | None = None) -> None:
        """Change the state of a file, and set its outcome if known."""
        row = self.rows[number]._replace(state=state)
        if file is not None:
            labels = file.get("labels_file")  # large images get another format than planned
            row = row._replace(
                labels=row.labels if labels is None else Path(labels),
                objects=file.get("objects"),
                seconds=file.get("seconds"),
                message=str(file.get("error") or file.get("note") or ""),
            )
        if row != self.rows[number]:
            self.rows[number] = row
            last = len(TABLE_COLUMNS) - 1
            self.dataChanged.emit(self.index(number, 0), self.index(number, last))

    def end_run(self, begun: float) -> None:
        """Show what became of the files that a run was at when it ended.

        Parameters
        ----------
        begun
            When the run was started, in seconds since the epoch. Results that were segmented are
            still written after a stop; others are to be done again.
        """
        for number, row in enumerate(self.rows):
            if row.state in _UNFINISHED:
                labels = row.labels
                made = labels is not None and labels.exists() and labels.stat().st_mtime >= begun
                self.update(number, "written" if made else "waiting")

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of files."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of columns."""
        return 0 if parent is not None and parent.isValid() else len(TABLE_COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """Titles of the columns."""
        horizontal = orientation == Qt.Orientation.Horizontal
        shown = role == Qt.ItemDataRole.DisplayRole
        return TABLE_COLUMNS[section] if horizontal and shown else None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Text, color and tooltip of a cell."""
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.texts()[index.column()]
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return row.message or row.texts()[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == 1 and self._view:
            return QColor(tone_color(_TONES.get(row.state, "muted"), self._view))
        if role == Qt.ItemDataRole.TextAlignmentRole:  # a message stands below the texts
            is_number = index.column() in (2, 3)
            side = Qt.AlignmentFlag.AlignRight if is_number else Qt.AlignmentFlag.AlignLeft
            return int(side | Qt.AlignmentFlag.AlignTop)
        return None
