"""New links of the objects of a series, and the ids that follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.settings import LinkSettings
from napari_simmat.engine.tracking.linking import Lineage, link_objects_job, renumber_job
from napari_simmat.progress import Job, Progress


@dataclass(frozen=True, eq=False)
class Relinked:
    """New links, and the edits that make the ids follow; nothing is written yet."""

    lineage: Lineage
    """Of the objects as they are called now."""
    axis: int
    """The axis along which they are linked."""
    edits: Sequence[LabelEdit]
    after: tuple[np.ndarray, LabelIndex] | None = None
    """The labels with the edits, and their index; None for labels that are not in memory."""


def relink_job(
    labels: Any,
    axis: int,
    parents: Mapping[int, int],
    change: Callable[[Any, Lineage], Job[Lineage]],
) -> Job[Relinked]:
    """Change the links of objects.

    Parameters
    ----------
    labels
        (..., Y, X); they are only read.
    axis
        The time axis.
    parents
        For an id the one that divided into it.
    change
        Makes the new links of the labels and their links so far.

    Raises
    ------
    ValueError
        If the links cannot be changed so, or the type of the labels cannot hold the ids.
    """
    yield Progress(0, 1, "measuring objects")
    lineage = yield from change(labels, Lineage.of_labels(labels, axis, parents))
    edits = yield from renumber_job(labels, lineage, axis)
    if not isinstance(labels, np.ndarray):
        return Relinked(lineage, axis, edits)
    after = labels.copy()
    for done, edit in enumerate(edits):
        yield Progress(done, len(edits), "numbering")
        edit.apply(after)
    return Relinked(lineage, axis, edits, (after, LabelIndex.of(after)))


def linked_anew(
    settings: LinkSettings, axis: int, spacing: Sequence[float] | None = None
) -> Callable[[Any, Lineage], Job[Lineage]]:
    """All objects linked as the settings say, for `relink_job`; links so far are forgotten.

    `spacing` is the distance between voxels along all axes of the labels.
    """
    steps = None if spacing is None else (*spacing[:axis], *spacing[axis + 1 :])
    return lambda labels, _: link_objects_job(labels, settings, axis, steps)
