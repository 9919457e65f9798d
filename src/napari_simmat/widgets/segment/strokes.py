"""What napari tells about a stroke of its own painting tools, as a change of the labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_simmat.engine.footprints import Patch


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
