"""One labels layer of the viewer: its objects, what napari's own tools paint, and its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_simmat.annotation.history import LayerEdit
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex


class LayerEditor(LabelEditor):
    """The committed objects of one labels layer of the viewer.

    It follows the layer until `release`, so that strokes of napari's own tools become edits, too.

    Parameters
    ----------
    layer
        The labels layer.
    on_paint
        Called with each edit made with napari's own tools.
    on_replace
        Called when the layer's array was replaced.
    index
        The layer's objects if they are known; they are counted otherwise.
    """

    layer: Labels

    def __init__(
        self,
        layer: Labels,
        on_paint: Callable[[LayerEditor, LayerEdit], None],
        on_replace: Callable[[LayerEditor], None],
        index: LabelIndex | None = None,
    ) -> None:
        if index is None and layer.multiscale:
            index = LabelIndex()
        super().__init__(layer, index)
        self._brush_history = BrushHistory(layer)
        self.follow(on_paint, on_replace)

    def follow(
        self,
        on_paint: Callable[[LayerEditor, LayerEdit], None],
        on_replace: Callable[[LayerEditor], None],
    ) -> None:
        """Follow the layer until `release`, with the callbacks of the class."""
        self._painted, self._replaced = on_paint, on_replace
        self.layer.events.paint.connect(self._on_paint)
        self.layer.events.data.connect(self._on_data)

    def release(self) -> None:
        """Stop following the layer; the callbacks are let go."""
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.data.disconnect(self._on_data)
        self._painted = self._replaced = lambda *_: None

    def replay(self, edit: LayerEdit, *, back: bool) -> None:
        """Revert an edit, or make it again; napari's history of the layer goes along."""
        super().replay(edit, back=back)
        if edit.by_hand:
            self._brush_history.follow(edit, back=back)

    def _on_paint(self, event: Any) -> None:
        """Record a stroke of napari's own tools."""
        self._brush_history.undone.clear()  # it cannot be redone after a new stroke
        edit = self.take_up([patch_of_stroke(atom) for atom in event.value])
        if edit:
            self._painted(self, edit)

    def _on_data(self) -> None:
        """The whole array was replaced."""
        self.recount()
        self._replaced(self)


class BrushHistory:
    """Keeps napari's own undo history of a labels layer in step with the `UndoStack`.

    napari records what its tools paint in a history of its own. If only our stack stepped back,
    that history would keep strokes that are gone, and napari's undo would revert the wrong pixels.
    napari keeps fewer strokes than we do, and none from a restored session, so only strokes that
    were undone here are redone there.
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        self.undone: list[LayerEdit] = []

    def follow(self, edit: LayerEdit, *, back: bool) -> None:
        """A painted edit was undone, or redone."""
        if back and self._layer._undo_history:
            self._layer.undo()
            self.undone.append(edit)
        elif not back and self.undone and self.undone[-1] is edit:
            self.undone.pop()
            self._layer.redo()


def patch_of_stroke(atom: Any) -> LabelEdit | None:
    """One item of napari's stroke history: indices or a box, with the values before and after."""
    if hasattr(atom, "slice_key"):
        corner = tuple(int(part.start) for part in atom.slice_key)
        shape = tuple(int(part.stop - part.start) for part in atom.slice_key)
        mask = np.ones(shape, dtype=bool) if atom.mask is None else np.asarray(atom.mask)
        before = np.zeros(shape, dtype=np.asarray(atom.old_values).dtype)
        before[mask] = np.asarray(atom.old_values).ravel()
        after = before.copy()
        after[mask] = atom.new_value
        return LabelEdit.between(before, after, corner)
    indices, old, new = atom
    index = [np.asarray(axis).ravel() for axis in indices]
    corner = tuple(int(axis.min()) for axis in index)
    shape = tuple(int(axis.max()) - first + 1 for axis, first in zip(index, corner, strict=True))
    at = tuple(axis - first for axis, first in zip(index, corner, strict=True))
    before = np.zeros(shape, dtype=np.asarray(old).dtype)
    before[at] = old
    after = before.copy()
    after[at] = new
    return LabelEdit.between(before, after, corner)
