"""Keeps the tab's helper layers out of napari's list of layers, where they stood above the user's.

napari has no layer that is drawn and not listed, but its list is a Qt view, and a Qt view hides
rows. Where there is no such view, as in another napari, the layers are listed as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from weakref import WeakSet

from napari import Viewer
from napari.layers import Layer
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QDockWidget, QListView, QWidget

from napari_simmat.widgets.segment.layers.outputs import CHOSEN, PREVIEW
from napari_simmat.widgets.segment.layers.prompt_adapters import BOXES, POINTS
from napari_simmat.widgets.worker import later

HELPERS = (POINTS, BOXES, PREVIEW, CHOSEN)
"""How the names of layers begin that only show what the tab works on."""


class LayerRows(QObject):
    """Hides the rows of helper layers, until it is told to show them or released.

    Parameters
    ----------
    viewer
        Whose layers.
    inside
        A widget of the viewer's window.
    """

    def __init__(self, viewer: Viewer, inside: QWidget) -> None:
        super().__init__(inside)
        self._viewer, self._inside = viewer, inside
        self._shows_helpers = False
        self._hidden_in: WeakSet[QListView] = WeakSet()
        self._later = later(self, self.update)  # behind the list's own answer to an event
        events = viewer.layers.events
        self._events = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._events:
            event.connect(self._on_layers)

    def show_helpers(self, shown: bool) -> None:
        """List the helper layers, as to save points from napari's menu, or not."""
        self._shows_helpers = shown
        self.update()

    def update(self) -> None:
        """Hide the rows of helper layers, and no others."""
        for view in {*self._views(), *self._hidden_in}:
            self._hidden_in.add(view)
            for row in range(view.model().rowCount()):
                layer = view.model().index(row, 0).data(Qt.ItemDataRole.UserRole)
                is_helper = isinstance(layer, Layer) and layer.name.startswith(HELPERS)
                view.setRowHidden(row, is_helper and not self._shows_helpers)

    def release(self) -> None:
        """List all layers."""
        self._later.stop()
        for event in self._events:
            event.disconnect(self._on_layers)
        with suppress(RuntimeError):  # the window is gone, too
            self.show_helpers(True)

    def _on_layers(self) -> None:
        self._later.start()

    def _views(self) -> Iterator[QListView]:
        """Napari's lists of this viewer's layers: rows whose items are these."""
        window = self._inside.window()
        if isinstance(window, QDockWidget) and window.parentWidget() is not None:
            window = window.parentWidget()  # the widget floats
        for view in window.findChildren(QListView):
            model = view.model()
            if model is not None and model.rowCount() > 0:
                item = model.index(0, 0).data(Qt.ItemDataRole.UserRole)
                if isinstance(item, Layer) and item in self._viewer.layers:
                    yield view
