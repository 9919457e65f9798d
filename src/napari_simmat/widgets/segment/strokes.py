"""Strokes of napari's own painting tools: as changes of the labels, and in its own history."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels

from napari_simmat.engine.footprints import Patch
from napari_simmat.widgets.segment.operations import Edit


class NapariHistory:
    """Has napari step back and forward through its strokes as our list does.

    It remembers fewer strokes than we do, and none that was restored from a file.
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        self._taken_back: list[Edit] = []

    def begin_anew(self) -> None:
        """A stroke was painted: what was taken back cannot come again."""
        self._taken_back.clear()

    def follow(self, edit: Edit, *, back: bool) -> None:
        """An edit by hand was taken back, or made again."""
        if back and self._layer._undo_history:
            self._layer.undo()
            self._taken_back.append(edit)
        elif not back and self._taken_back and self._taken_back[-1] is edit:
            self._taken_back.pop()
            self._layer.redo()


def patch_of_stroke(atom: Any) -> Patch | None:
    """One entry of napari's history of a stroke: indices or a box, values before and after."""
    if hasattr(atom, "slice_key"):
        corner = tuple(int(part.start) for part in atom.slice_key)
        shape = tuple(int(part.stop - part.start) for part in atom.slice_key)
        mask = np.ones(shape, dtype=bool) if atom.mask is None else np.asarray(atom.mask)
        before = np.zeros(shape, dtype=np.asarray(atom.old_values).dtype)
        before[mask] = np.asarray(atom.old_values).ravel()
        after = before.copy()
        after[mask] = atom.new_value
        return Patch.between(before, after, corner)
    indices, old, new = atom
    index = [np.asarray(axis).ravel() for axis in indices]
    corner = tuple(int(axis.min()) for axis in index)
    shape = tuple(int(axis.max()) - first + 1 for axis, first in zip(index, corner, strict=True))
    at = tuple(axis - first for axis, first in zip(index, corner, strict=True))
    before = np.zeros(shape, dtype=np.asarray(old).dtype)
    before[at] = old
    after = before.copy()
    after[at] = new
    return Patch.between(before, after, corner)
