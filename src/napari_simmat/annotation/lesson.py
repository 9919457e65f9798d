"""What the user has shown of the objects that are wanted: some of them, and marks on the ground.

Negative marks alone, without an object that they correct, mark the ground. *Everything* takes them
up: they are kept beside what became of the drafts, and undo brings them back as marks. Where the
user says that all objects are labeled, the rest is ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_simmat.annotation.drafts import Draft
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.prompt_state import Plane, Prompts
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.everything.sifting import MIN_EXAMPLES
from napari_simmat.engine.masks import ObjectMask, bounding_box, compact_labels
from napari_simmat.engine.object_kind import MIN_GROUND
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import closes

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
    ground: NDArray[np.bool_] | None = None

    @cached_property
    def areas(self) -> NDArray[np.intp]:
        """(N,) of the objects in pixels; without sorting, which takes long on a large plane."""
        compact, _ = compact_labels(np.maximum(self.labels, 0))
        counts = np.bincount(compact.ravel())[1:]
        return np.asarray(counts[counts > 0])

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.areas)

    @property
    def tells_looks(self) -> bool:
        """Whether there is enough ground beside the objects to tell how they look."""
        if self.ground is None:
            return False
        known = np.count_nonzero(self.ground & (self.labels == 0))
        return bool(known >= MIN_GROUND)

    @property
    def side(self) -> float:
        """Side of a typical object in pixels, the square root of its area (geometric mean)."""
        return float(np.exp(np.log(self.areas).mean() / 2))


def lesson_of(
    editor: LabelEditor | None, ground: Sequence[Draft], order: AxisOrder, plane: Plane
) -> Lesson | None:
    """The objects committed on a plane, or on that with the most; None if there are too few.

    `ground` are the marks on all planes.
    """
    found = None if editor is None else examples(editor, order, plane)
    if found is None:
        return None
    marks = [each.mask for each in ground if (each.order, each.plane) == (order, found.plane)]
    marked = np.zeros(found.labels.shape, bool)
    for mask in marks:
        marked |= mask.on_plane(found.plane, found.labels.shape)
    return replace(found, ground=marked) if marks else found


def labeled_ground(lesson: Lesson, complete: NDArray[np.bool_]) -> Lesson:
    """A lesson with more ground: what has no label where all objects are labeled (Y, X)."""
    known = np.zeros(lesson.labels.shape, bool) if lesson.ground is None else lesson.ground
    return replace(lesson, ground=known | (complete & (lesson.labels == 0)))


def examples(editor: LabelEditor, order: AxisOrder, plane: Plane) -> Lesson | None:
    """The objects committed on a plane, or on that with the most, without ground.

    None if there are fewer than `MIN_EXAMPLES`.
    """
    if len(editor.register.index) < MIN_EXAMPLES:
        return None
    labels = transposed_view(editor.layer.data, order)
    planes = [plane]
    if plane and not order:
        counts = editor.masks_on_planes()
        planes.append(max(counts, key=lambda each: counts[each]))
    for at in planes:
        found = Lesson(at, np.array(labels[at]))
        if found.count >= MIN_EXAMPLES:
            return found
    return None


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
    lines = [[vertex[-2:] for vertex in each.vertices] for each in prompts.outlines]
    for line in lines:
        at += _line(line)
    marked = _discs(np.array(at, float), shape_yx, min(GROUND_RADIUS, max(side / 4, 1.0)))
    for line in filter(closes, lines):
        marked |= shape_mask("polygon", line, shape_yx)
    region = bounding_box(marked)
    if region is None:
        return None
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


def _discs(
    centers: NDArray[np.float64], shape_yx: tuple[int, int], radius: float
) -> NDArray[np.bool_]:
    """The discs around points (N, 2) on a plane, as a mask (Y, X)."""
    reach = int(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    offsets = np.argwhere(dy**2 + dx**2 <= radius**2) - reach
    at = (np.floor(centers + 0.5).astype(int)[:, np.newaxis] + offsets).reshape(-1, 2)
    rows, columns = at[((at >= 0) & (at < shape_yx)).all(axis=1)].T
    mask = np.zeros(shape_yx, bool)
    mask[rows, columns] = True
    return mask
