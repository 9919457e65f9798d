"""`LayerChoice`: a list of the open layers of some kinds, which follows the viewer."""

from __future__ import annotations

from collections.abc import Callable

from napari import Viewer
from napari.layers import Layer
from qtpy.QtCore import Signal
from superqt.utils import qdebounced

from napari_simmat.widgets.controls import ComboBox


class LayerChoice(ComboBox):
    """A combo box of the viewer's layers of one kind; the first entry stands for no layer.

    Unlike magicgui's, it keeps its value when a layer is renamed.

    Parameters
    ----------
    viewer
        Its layers are followed.
    kind
        Type of the listed layers.
    new
        Text of the first entry.
    omit
        Layers that are not listed.
    """

    chosen = Signal(object)
    """The layer the user picked; None for the first entry."""

    def __init__(
        self,
        viewer: Viewer,
        kind: type[Layer],
        new: str,
        omit: Callable[[Layer], bool] = lambda _: False,
    ) -> None:
        super().__init__()
        self._viewer, self._kind, self._new, self._omit = viewer, kind, new, omit
        self._layer: Layer | None = None
        self._listed: list[Layer | None] = []
        events = viewer.layers.events
        self._events = [events.inserted, events.removed, events.reordered, events.renamed]
        for event in self._events:
            event.connect(self._on_layers)
        self.activated.connect(self._on_activated)
        self._list()

    def value(self) -> Layer | None:
        """The chosen layer; None for the first entry."""
        return self._layer

    def set_value(self, layer: Layer | None) -> None:
        """Choose without a signal."""
        self._layer = layer
        self._list()

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self._list_later.cancel()
        for event in self._events:
            event.disconnect(self._on_layers)

    def _on_layers(self) -> None:
        self._list_later()

    @qdebounced(timeout=0)
    def _list_later(self) -> None:
        self._list()

    def _list(self) -> None:
        found = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, self._kind) and not self._omit(layer)
        ]
        self._listed = [None, *reversed(found)]
        if self._layer not in self._listed:
            self._layer = None
        self.clear()
        for layer in self._listed:
            self.addItem(self._new if layer is None else layer.name)
        self.setCurrentIndex(self._listed.index(self._layer))

    def _on_activated(self, index: int) -> None:
        self._layer = self._listed[index]
        self.chosen.emit(self._layer)
