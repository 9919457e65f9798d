"""What the table beside saved objects holds: asked for in a dialog, as the Batch tab asks."""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QWidget

from napari_simmat.batch.options import SegmentTableOptions
from napari_simmat.widgets.controls import form_rows, text_label, vbox
from napari_simmat.widgets.forms import Options

TITLE = "What the saved table holds"
ACTION = "What the saved table holds ..."


class SavedTable(QObject):
    """The choice of statistics, indices and channels; a right click on some widgets offers it.

    Attributes
    ----------
    dialog
        The last one that was opened.
    """

    changed = Signal()

    def __init__(self, *offering: QWidget, parent: QWidget) -> None:
        super().__init__(parent)
        self._parent = parent
        self._value = SegmentTableOptions()
        self.dialog: TableDialog | None = None
        self.action = QAction(ACTION, self)
        self.action.triggered.connect(lambda: self.ask())
        for widget in offering:
            widget.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
            widget.addAction(self.action)

    def value(self) -> SegmentTableOptions:
        """What was chosen."""
        return self._value

    def set_value(self, value: SegmentTableOptions) -> None:
        """Take the choice of the last session, unless its file was changed to nonsense."""
        with suppress(ValueError):
            _ = value.settings
            self._value = value

    def ask(self) -> None:
        """Open the dialog."""
        self.dialog = TableDialog(self._value, self._parent)
        self.dialog.accepted.connect(self._on_accepted)
        self.dialog.open()

    def _on_accepted(self) -> None:
        self._value = self.dialog.options.value()
        self.changed.emit()


class TableDialog(QDialog):
    """Statistics, indices, channels; it stays open, and says why, if one does not exist."""

    def __init__(self, value: SegmentTableOptions, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(TITLE)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.options = Options(SegmentTableOptions(), self)
        self.options.set_value(value)
        self.options["index"].setPlaceholderText("ndvi; ratio=nir/red")
        rows = QWidget()
        shown = "statistics", "index", "all_channels"  # the class has a field of its own
        self.options.add_rows(form_rows(parent=rows), *shown)
        self.problem = text_label("warning")
        self.problem.hide()
        both = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(both.Ok | both.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = vbox(rows, self.problem, self.buttons, parent=self, spacing=8)
        layout.setContentsMargins(12, 12, 12, 12)

    def accept(self) -> None:
        """Close, unless something is wrong."""
        try:
            _ = self.options.value().settings
        except ValueError as error:
            self.problem.setText(str(error))
            self.problem.show()
            return
        super().accept()
