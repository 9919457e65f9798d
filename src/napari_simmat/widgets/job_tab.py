"""What the Train and the Batch tab have in common: their layout, and files that are dropped."""

from __future__ import annotations

from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

from napari_simmat.widgets.command_line import CommandLine
from napari_simmat.widgets.controls import CollapsibleSection, Part, VerticalScroll, vbox
from napari_simmat.widgets.forms import DropTarget, PathKind
from napari_simmat.widgets.job_controller import JobController
from napari_simmat.widgets.status_line import StatusLine


class JobTab(DropTarget):
    """A tab whose job runs in a child process: settings above, progress below.

    Parameters
    ----------
    form
        The settings.
    drops
        Which paths can be dropped on the tab while no job runs.
    job
        The job; the status line shows its status.

    Attributes
    ----------
    settings, command, status
        The section with the form, the same as a command line, and the status line.
    """

    def __init__(self, form: QWidget, drops: PathKind, job: JobController) -> None:
        super().__init__(drops)
        self._job = job
        self.settings = CollapsibleSection("Settings", form)
        self.settings.set_open(True)
        self.command = CommandLine()
        self.status = StatusLine()
        job.status.connect(self.status.set_value)
        job.changed.connect(self._on_changed)

    def _on_changed(self) -> None:
        raise NotImplementedError

    def _lay_out(self, *parts: Part) -> QVBoxLayout:
        above, rule = QWidget(), QFrame()
        vbox(self.settings, self.command, parent=above, spacing=8)
        rule.setFrameShape(QFrame.Shape.HLine)
        layout = vbox(VerticalScroll(above), rule, *parts, parent=self, spacing=8)
        layout.setContentsMargins(8, 8, 8, 8)
        return layout

    def _dropped(self, event: QDropEvent) -> str:
        return "" if self._job.busy else super()._dropped(event)
