"""Connects the form's part for finished objects with what it starts."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.segment.autosave import Autosave, Snapshot
from napari_simmat.widgets.segment.interaction import Interaction
from napari_simmat.widgets.segment.object_panel import ObjectPanel
from napari_simmat.widgets.segment.object_table import rows_of, voxel_of
from napari_simmat.widgets.segment.saving import Saving
from napari_simmat.widgets.segment.visiting import visit
from napari_simmat.widgets.worker import Task


class ObjectPart(QObject):
    """The table of objects, what is done to them, and saving them.

    Parameters
    ----------
    interaction
        The image that is worked on.
    autosave
        Gives what is saved beside the objects.
    parent
        Over which a file name is asked for.
    """

    titled = Signal(str)
    """What the part is to be called."""

    def __init__(self, interaction: Interaction, autosave: Autosave, parent: QWidget) -> None:
        super().__init__(parent)
        self._interaction = interaction
        self._autosave = autosave
        self.panel = ObjectPanel()
        self.saving = Saving(parent)
        self._shown: tuple[object, int] | None = None
        self._snapshots: WeakKeyDictionary[Task, Snapshot] = WeakKeyDictionary()
        panel, actions = self.panel, interaction.actions
        panel.overlap_chosen.connect(self._on_overlap)
        panel.save_asked.connect(self._on_save)
        panel.class_chosen.connect(actions.classify)
        panel.table.chosen.connect(self._on_chosen)
        panel.table.visited.connect(self._on_visited)
        panel.table.opened.connect(actions.reopen)
        self.saving.saved.connect(self._on_saved)
        interaction.changed.connect(self.show)

    def release(self) -> None:
        """See what is being saved written."""
        self.saving.release()
        for task in [task for task in self._snapshots if task.done]:
            self._on_saved(task)  # nobody tells of it any more

    def show(self) -> None:
        """Show the objects as they are now."""
        work = self._interaction.work
        finished = None if work is None else work.finished
        shown = None if finished is None else (finished, finished.version)
        self.panel.category.set_names(self._interaction.classes.names)
        if shown == self._shown:
            return
        self._shown = shown
        place = None if work is None else work.place
        rows = rows_of(finished, place)
        unit = "" if place is None else voxel_of(place)[1]
        self.panel.set_rows(rows, 2 if place is None else place.ndim, unit)
        self.titled.emit(f"Objects ({len(rows)})" if rows else "Objects")

    def _on_overlap(self, overlap: Any) -> None:
        self._interaction.actions.overlap = overlap

    def _on_chosen(self, labels: tuple[int, ...]) -> None:
        self._interaction.actions.chosen = labels

    def _on_visited(self, label: int) -> None:
        work = self._interaction.work
        if work is not None and work.finished is not None and self._interaction.has_pixels():
            visit(self._interaction.viewer, work.place, work.finished, label)

    def _on_save(self) -> None:
        work = self._interaction.work
        if not self._interaction.has_pixels():
            return
        path = None if work is None or work.finished is None else self.saving.ask(work.place)
        if work is not None and work.finished is not None and path is not None:
            names, snapshot = self._interaction.classes.names, self._autosave.snapshot(work)
            task = self.saving.save(path, work.place, work.finished, names, snapshot.text)
            self._snapshots[task] = snapshot

    def _on_saved(self, task: Task) -> None:
        if (snapshot := self._snapshots.pop(task, None)) is not None:
            self._autosave.mark_saved(snapshot)
