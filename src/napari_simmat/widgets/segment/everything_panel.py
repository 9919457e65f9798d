"""The part of the form that segments everything: where to ask, and what to keep of it."""

from __future__ import annotations

from napari import Viewer
from napari.layers import Labels, Layer, Points
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_simmat.widgets.controls import Button, LayerChoice
from napari_simmat.widgets.everything_form import EverythingForm
from napari_simmat.widgets.segment.label_layers import PREVIEW


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
