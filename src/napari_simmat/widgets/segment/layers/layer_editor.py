"""One labels layer of the viewer: its objects, what napari's own tools paint, and its history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_simmat.annotation.history import LayerEdit
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.masks import VoxelBox, box_union


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

    def _show(self, patches: Sequence[LabelEdit]) -> None:
        """Draw what has changed alone: napari takes a second for all of a large plane."""
        boxes = [patch.mask.box for patch in patches]
        if boxes and not draw_part(self.layer, _region(box_union(boxes))):
            self.layer.refresh()

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


def draw_part(layer: Labels, region: tuple[slice, ...]) -> bool:
    """Draw a region of a layer anew as napari's brush does; whether that can be done.

    It can on a plane of an array in memory that is seen itself.
    """
    shown = list(layer._slice_input.displayed)
    raw = layer._slice.image.raw
    is_plane = len(shown) == 2 and layer.visible
    if not is_plane or not hasattr(layer, "_updated_slice") or not layer.loaded:
        return False
    is_view = isinstance(layer.data, np.ndarray) and np.may_share_memory(layer.data, raw)
    around = layer.contour + 1  # contours change beside what has changed
    region = tuple(
        slice(max(0, part.start - around), part.stop + around) if axis in shown else part
        for axis, part in enumerate(region)
    )
    seen = tuple(region[axis] for axis in shown)
    if not is_view or raw.ndim != 2 or raw.shape != tuple(layer.data.shape[axis] for axis in shown):
        return False
    layer._slice.image.view[seen] = layer._raw_to_displayed(raw, data_slice=seen)
    layer._updated_slice = region
    layer._partial_labels_refresh()
    return True


def _region(box: VoxelBox) -> tuple[slice, ...]:
    return tuple(slice(int(first), int(end)) for first, end in zip(*box, strict=True))


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
