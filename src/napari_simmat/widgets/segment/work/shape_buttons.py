"""napari's own buttons for shapes: out of sight while the pen is in hand, where they mean others.

They are found by what napari calls them; where there are none, as in another napari, all stay.
"""

from __future__ import annotations

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QAbstractButton, QApplication

from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.worker import later

KEPT = ("pan_zoom", "transform")
"""Modes that do not draw."""


class ShapeButtons(QObject):
    """Shows and hides napari's buttons of the layer that the tab's shapes are drawn in."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._shown = True
        self._later = later(self, self._update)  # napari makes them after a layer is chosen

    def show(self, shown: bool) -> None:
        """Show the buttons, or hide them."""
        if shown != self._shown:
            self._shown = shown
            self._later.start(0)
            self._update()

    def _update(self) -> None:
        layer = self._workspace.prompt_layers.boxes
        if layer is None:
            return
        for button in QApplication.allWidgets():
            if isinstance(button, QAbstractButton) and type(button).__name__.startswith("QtMode"):
                of = getattr(button, "layer_ref", lambda button=button: button.layer)
                if of() is layer and str(getattr(button, "mode", "")) not in KEPT:
                    button.setVisible(self._shown)
