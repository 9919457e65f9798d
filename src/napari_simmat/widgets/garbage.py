"""Keeps collections of garbage from stalling the window.

napari collects garbage with each layer that it removes, and Python does so by itself now and then.
A full collection walks all objects, and no thread gets a turn meanwhile: with napari and torch
these are some 580,000, almost all of them modules that never become garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
from napari.components import LayerList
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_simmat.widgets.worker import later

CLOSED = 50
"""Milliseconds in which napari takes a dock apart and draws what was behind it."""
HELD_AT_MOST = 256 << 20
"""Bytes of layers that are gone, and are still held because they were left out."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from walking objects that are being created, as by an import."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                # Moves all objects to the oldest generation, which is rarely collected.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class LeftOut(QObject):
    """Leaves all objects that exist out of collections, until it is released.

    Among them are layers, which are part of cycles: one that is removed would never be freed. So
    once those that are gone hold much memory, everything is collected as if nothing had been left
    out, and what is there then is left out anew.

    Parameters
    ----------
    layers
        The viewer's.
    parent
        Its owner.
    """

    def __init__(self, layers: LayerList, parent: QObject) -> None:
        super().__init__(parent)
        self._layers = layers
        self._left_out: WeakSet[Layer] = WeakSet()
        self._held = 0
        # A layer that is being removed is still in use until the next turn of the event loop.
        self._collect_later = later(self, self._collect)
        layers.events.removed.connect(self._on_removed)
        self._leave_out()

    def release(self, pause: int = 0) -> None:
        """Let collections walk everything again, as before, after `pause` milliseconds.

        What is removed meanwhile costs as little as it did until then.
        """
        self._collect_later.stop()
        self._layers.events.removed.disconnect(self._on_removed)
        QTimer.singleShot(pause, gc.unfreeze) if pause else gc.unfreeze()

    def _leave_out(self) -> None:
        self._left_out = WeakSet(self._layers)
        self._held = 0
        gc.freeze()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._left_out:
            self._left_out.discard(layer)
            self._held += _bytes_of(layer)
        if self._held > HELD_AT_MOST:
            self._collect_later.start()

    def _collect(self) -> None:
        gc.unfreeze()
        gc.collect()
        self._leave_out()


def _bytes_of(layer: Layer) -> int:
    """Memory of a layer's data; lazy arrays hold none."""
    levels = layer.data if getattr(layer, "multiscale", False) else [layer.data]
    return sum(level.nbytes for level in levels if isinstance(level, np.ndarray))
