"""The dock widget that napari opens."""

from __future__ import annotations

from typing import Any

import napari
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_simmat.widgets.segment_tab import SegmentTab


class SimMATWidget(QWidget):
    """Segment images of any modality with a click.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are segmented.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # napari hands plugins a proxy whose layers are never identical to those of events.
        viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.segment = SegmentTab(viewer)
        self._docked = False
        self._released = False
        tabs = QTabWidget()
        tabs.setStyleSheet("QTabBar::tab { padding: 4px 12px; }")
        tabs.addTab(self.segment, "Segment")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(tabs)
        self.setMinimumWidth(300)
        for worker in (self.segment.interaction.worker, self.segment.models.transfers):
            self.destroyed.connect(worker.close)  # also when Qt deletes the window around it

    def release(self) -> None:
        """End the threads and give back keys and events; the widget is of no use afterwards."""
        if not self._released:
            self._released = True
            self.segment.release()

    def event(self, event: QEvent) -> bool:
        """Let go when napari takes the widget out of its dock."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.release()
        return super().event(event)
