"""The dock widget that napari opens."""

from __future__ import annotations

from typing import Any

import napari
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_simmat.widgets.batch.tab import BatchTab
from napari_simmat.widgets.segment.tab import SegmentTab
from napari_simmat.widgets.train.tab import TrainTab


class SimMATWidget(QWidget):
    """Segment images of any modality with a click, or folders of them; train a model for a new one.

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
        self.train = TrainTab(viewer)
        self.batch = BatchTab(viewer)
        self._docked = False
        self._released = False
        self.tabs = tabs = QTabWidget()
        tabs.setStyleSheet("QTabBar::tab { padding: 4px 12px; }")
        tabs.addTab(self.segment, "Segment")
        tabs.addTab(self.train, "Train")
        tabs.addTab(self.batch, "Batch")
        tabs.currentChanged.connect(self._on_tab)
        self.train.training.trained.connect(self.segment.models.refresh)
        self.train.wanted.connect(self._on_wanted)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(tabs)
        self.setMinimumWidth(300)
        for running in (
            self.segment.interaction.worker,
            self.segment.models.transfers,
            self.train.form.base.transfers,
            self.train.training,
            self.batch.form.models.transfers,
            self.batch.batching,
        ):
            self.destroyed.connect(running.close)  # also when Qt deletes the window around it
        for writing in (self.segment.saving.worker, self.segment.autosave.worker):
            self.destroyed.connect(writing.finish)  # what was asked for is written

    def release(self) -> None:
        """End threads and process, give back keys and events; the widget is of no use then."""
        if not self._released:
            self._released = True
            self.segment.release()
            self.train.release()
            self.batch.release()

    def _on_tab(self) -> None:
        current = self.tabs.currentWidget()
        if current in (self.train, self.batch):
            current.refresh()
        else:
            self.segment.models.refresh()  # a foundation may have been downloaded beside it

    def _on_wanted(self, name: str) -> None:
        self.segment.models.refresh()
        self.segment.models.set_value(name)
        self.tabs.setCurrentWidget(self.segment)

    def event(self, event: QEvent) -> bool:
        """Let go when napari takes the widget out of its dock."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.release()
        return super().event(event)
