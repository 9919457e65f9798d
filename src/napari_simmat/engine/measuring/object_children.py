"""How many objects of another label image are in each object: nuclei in cells, cells in regions."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.measuring.measurements import SPATIAL

CHILDREN = "children"
"""Column of the number of objects that are in an object."""


def count_children(
    parents: NDArray[np.integer[Any]], children: NDArray[np.integer[Any]], axes: str
) -> Counter[tuple[tuple[int, ...], int]]:
    """How many `children` each of the `parents` has, by its index along other axes and its label.

    A child belongs to the one object that covers most of it, the lowest label of several, as in the
    column ``parent``; one that none covers belongs to none.

    Parameters
    ----------
    parents, children
        (..., Y, X), of one shape; 0 is background.
    axes
        A letter for each axis: those of `SPATIAL` are in an object, the others count frames.
    """
    frames = [axis for axis, letter in enumerate(axes) if letter not in SPATIAL]
    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    for frame in product(*(range(parents.shape[axis]) for axis in frames)):
        at = dict(zip(frames, frame, strict=True))
        where = tuple(at.get(axis, slice(None)) for axis in range(len(axes)))
        above, below = np.asarray(parents[where]), np.asarray(children[where])
        both = (above > 0) & (below > 0)
        pairs = np.stack([below[both].astype(np.int64), above[both].astype(np.int64)])
        (child, parent), shared = np.unique(pairs, axis=1, return_counts=True)
        # Each child's first row is then that of the object with most of its pixels.
        order = np.lexsort((parent, -shared, child))
        _, first = np.unique(child[order], return_index=True)
        counts.update((frame, int(label)) for label in parent[order][first])
    return counts
