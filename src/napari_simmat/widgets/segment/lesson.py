"""What the user has shown of the objects that are wanted: some of them, and marks on the ground.

Negative marks alone, without an object that they correct, mark the ground. *Everything* takes them
up: they are kept beside what became of the drafts, and undo brings them back as marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.automatic_postprocessing import MIN_EXAMPLES
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.masks import ObjectMask, bounding_box
from napari_simmat.widgets.segment.drafts import Draft
from napari_simmat.widgets.segment.label_editor import LabelEditor
from napari_simmat.widgets.segment.prompt_state import Plane, Prompts

GROUND_RADIUS = 6.0
"""Pixels around a mark that are ground, at most; of small objects a quarter of their side."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Committed objects on one plane of a view, and its known ground.

    Attributes
    ----------
    plane
        Which one.
    labels
        (Y, X) their ids; 0 where nothing is known.
    ground
        (Y, X), where there is surely none; None if nobody said.
    """

    plane: Plane
    labels: NDArray[np.integer]
    ground: NDArray[np.bool_] | None

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(np.unique(self.labels[self.labels > 0]))

    @property
    def side(self) -> float:
        """Side of a typical object in pixels, the square root of its area (geometric mean)."""
        _, areas = np.unique(self.labels[self.labels > 0], return_counts=True)
        return float(np.exp(np.log(areas).mean() / 2))


def lesson_of(
    editor: LabelEditor | None, ground: Sequence[Draft], order: AxisOrder, plane: Plane
) -> Lesson | None:
    """The objects committed on a plane, or on that with the most; None if there are too few.

    `ground` are the marks on all planes.
    """
    found = None if editor is None else examples(editor, order, plane)
    if found is None:
        return None
    labels, at = found
    marks = [each.mask for each in ground if (each.order, each.plane) == (order, at)]
    marked = np.zeros(labels.shape, bool)
    for mask in marks:
        marked |= mask.on_plane(at, labels.shape)
    return Lesson(at, labels, marked if marks else None)


def examples(
    editor: LabelEditor, order: AxisOrder, plane: Plane
) -> tuple[NDArray[np.integer], Plane] | None:
    """Committed objects (Y, X) on a plane, or on that with the most, and which it is.

    None if there are fewer than `MIN_EXAMPLES`.
    """
    labels, at = transposed_view(editor.layer.data, order), plane
    if len(np.unique(labels[at])) <= MIN_EXAMPLES and not order:
        counts = editor.masks_on_planes()
        at = max(counts, key=lambda each: counts[each], default=at)
    committed = np.array(labels[at])
    if len(np.unique(committed[committed > 0])) < MIN_EXAMPLES:
        return None
    return committed, at


def ground_marked(
    prompts: Prompts, plane: Plane, order: AxisOrder, shape_yx: tuple[int, int], side: float
) -> Draft | None:
    """What the open prompts of a plane mark as ground; None unless all of them are negative marks.

    `side` is that of a typical object in pixels.
    """
    is_mark = all(each.kind == "path" and not each.label for each in prompts.outlines)
    given = bool(prompts.points or prompts.outlines)
    if not given or not is_mark or any(prompts.labels) or prompts.masks:
        return None
    at = [point[-2:] for point in prompts.points]
    for each in prompts.outlines:
        at += _line([vertex[-2:] for vertex in each.vertices])
    marked = np.zeros(shape_yx, bool)
    rows, columns = np.floor(np.array(at, float).T + 0.5).astype(int)
    inside = (rows >= 0) & (rows < shape_yx[0]) & (columns >= 0) & (columns < shape_yx[1])
    if not inside.any():
        return None
    marked[rows[inside], columns[inside]] = True
    marked = _widened(marked, min(GROUND_RADIUS, max(side / 4, 1.0)))
    region = bounding_box(marked)
    assert region is not None
    corner = (*plane, region[0].start, region[1].start)
    return Draft(ObjectMask.of(marked[region], corner), 1.0, order)  # the user is sure


def _line(vertices: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Points of a drawn line, at most a pixel apart."""
    drawn = np.array(vertices, float)
    lengths = np.linalg.norm(np.diff(drawn, axis=0), axis=1)
    found = [tuple(drawn[0])]
    for start, end, length in zip(drawn[:-1], drawn[1:], lengths, strict=True):
        steps = np.linspace(0, 1, int(np.ceil(length)) + 1)[1:, np.newaxis]
        found += [tuple(each) for each in start + steps * (end - start)]
    return [(float(y), float(x)) for y, x in found]


def _widened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= radius)
