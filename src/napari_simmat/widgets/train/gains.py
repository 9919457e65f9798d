"""What a training brought: mean IoU of the base alone and of the new model, by prompt."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_simmat.widgets.train.events import Metrics

_KINDS = ("click", "box")
_LEFT, _RIGHT = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
_BETTER, _WORSE = "#3fb68b", "#ff5c50"


class Gains(QWidget):
    """A view of the `Metrics` of a training; empty where there are none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._metrics: Metrics | None = None
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(14)
        self.setToolTip("On the validation images: a click or a box on each object")
        self._grid.setColumnStretch(4, 1)
        self.cells: dict[tuple[str, str], QLabel] = {}
        heads = ("mean IoU %", "base", "trained", "gain")
        for column, text in enumerate(heads):
            head = self._put(0, column, text)
            head.setStyleSheet("color: #9aa0a8;")
            head.setAlignment(_RIGHT if column else _LEFT)
        for row, kind in enumerate(_KINDS, start=1):
            self._put(row, 0, f"one {kind}")
            for column, name in enumerate(("before", "after", "gain"), start=1):
                cell = self._put(row, column, "")
                cell.setAlignment(_RIGHT)
                self.cells[kind, name] = cell
        self.set_value(None)

    def value(self) -> Metrics | None:
        """What is shown."""
        return self._metrics

    def set_value(self, metrics: Metrics | None) -> None:
        """Show what was measured; nothing hides it."""
        self._metrics = metrics
        self.setVisible(metrics is not None)
        for kind in _KINDS:
            before = (metrics or {}).get("before", {}).get(kind)
            after = (metrics or {}).get("after", {}).get(kind)
            self.cells[kind, "before"].setText("-" if before is None else f"{before:.1f}")
            self.cells[kind, "after"].setText("-" if after is None else f"{after:.1f}")
            gain = self.cells[kind, "gain"]
            if before is None or after is None:
                gain.setText("")
                continue
            gain.setText(f"{after - before:+.1f}".replace("-", "\N{MINUS SIGN}"))
            gain.setStyleSheet(f"color: {_BETTER if after >= before else _WORSE};")

    def _put(self, row: int, column: int, text: str) -> QLabel:
        label = QLabel(text)
        self._grid.addWidget(label, row, column)
        return label
