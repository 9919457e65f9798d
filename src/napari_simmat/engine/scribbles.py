"""Lines drawn by hand: what they show the model, and what they change of a mask.

A person who mends a mask draws along the middle of what is missing, or of what is too much. The
disk around each point of such a line that reaches to the mask's outline also reaches to where the
outline should be: the disks together are the wrong part, of which the line is the medial axis
(Blum 1967). A line that closes encloses what is missing or too much, or the object as a whole.
Hands are not that exact, so the model decides on the rim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import Mask, bounding_box
from napari_simmat.engine.outlines import box_and_mask, shape_mask
from napari_simmat.engine.pen_line import Line, at_distances, closes
from napari_simmat.engine.prompts import Prompt

MOST_SHOWN = 8
"""Largest number of the points of a line that a model sees, as clicks."""
SURE = 0.7
"""Radius, in distances to the outline, within which a line changes the mask."""
POSSIBLE = 1.3
"""Radius within which it may change the mask."""
RIM = 0.15
"""How far from an outline drawn by hand the model decides, in half widths of what it encloses."""


def as_model_sees(prompt: Prompt, shape: tuple[int, int]) -> Prompt:
    """A prompt on a plane (Y, X) with few clicks for each line, and none for one that closes.

    If nothing else shows the object, the first line that closes is its outline: a box and a mask.
    """
    if not prompt.scribbles:
        return prompt
    line = _first_outline(prompt)
    box, mask = (prompt.box, prompt.mask) if line is None else box_and_mask("polygon", line, shape)
    is_shown = box is not None or mask is not None
    marks = [mark for mark in prompt.marks if not (is_shown and closes(mark.points))]
    few = [(point, mark.label) for mark in marks for point in _few(mark.points)]
    return replace(
        prompt,
        points=tuple((y, x) for (y, x), _ in few),
        labels=tuple(label for _, label in few),
        scribbles=(),
        box=box,
        mask=mask,
    )


def begins_with_outline(prompt: Prompt) -> bool:
    """Whether a line that closes is what shows the object at first."""
    return _first_outline(prompt) is not None


def drawn_outline(prompt: Prompt, shape: tuple[int, int]) -> Mask | None:
    """What a line that closes encloses (Y, X), if a prompt begins with one."""
    line = _first_outline(prompt)
    return None if line is None else shape_mask("polygon", line, shape)


def settle_rim(drawn: Mask, predicted: Mask) -> Mask:
    """An outline drawn by hand (Y, X), but by the model near the line.

    The model mistakes what it has never seen, and a hand is off by some pixels: each alone is right
    less often than the two (docs/reports/finishing.md).
    """
    box = bounding_box(drawn)
    settled = np.zeros_like(drawn)
    if box is None:
        return settled
    inside = _grown(box, 1, drawn.shape)
    depths = ndi.distance_transform_edt(drawn[inside])
    reach = max(RIM * float(depths.max()), 1.0)
    near = _grown(box, math.ceil(reach), drawn.shape)
    distances = ndi.distance_transform_edt(~drawn[near])
    settled[near] = predicted[near] & (distances <= reach)
    settled[inside] |= depths > reach
    return settled


def _first_outline(prompt: Prompt) -> Line | None:
    """The positive line that closes with which a prompt begins, if it is none of another kind."""
    positive = [mark for mark in prompt.marks if mark.label] if prompt.kinds == {"points"} else []
    return positive[0].points if positive and closes(positive[0].points) else None


def _few(line: Line) -> Line:
    """At most `MOST_SHOWN` of the points of a line, its ends among them."""
    chosen = np.linspace(0, len(line) - 1, min(len(line), MOST_SHOWN)).round().astype(int)
    return [line[number] for number in chosen]


def pixels_along(line: Line, shape: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a plane of a shape (Y, X) that a line passes, each once."""
    vertices = np.asarray(line, np.float64)
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    steps = math.ceil(lengths[-1]) + 1
    points = at_distances(vertices, lengths, np.linspace(0, lengths[-1], steps))
    pixels = np.clip(np.floor(points + 0.5).astype(np.intp), 0, np.array(shape) - 1)
    rows, columns = np.unique(pixels, axis=0).T
    return rows, columns


def correct_by_scribble(mask: Mask, predicted: Sequence[Mask], line: Line, label: int) -> Mask:
    """The mask after a scribble over what is missing, or over what is too much.

    Parameters
    ----------
    mask
        (Y, X), before the scribble.
    predicted
        Masks that the model predicts from mask and scribble.
    line, label
        Points y, x along the scribble, and 1 if it is positive, 0 if negative.
    """
    wrong_side = ~mask if label else mask
    rows, columns = pixels_along(line, mask.shape)
    # What is missing is not broader than the object, however far away the line is.
    depths = _depths(wrong_side, rows, columns, math.sqrt(np.count_nonzero(mask) / math.pi))
    possible = _disks(rows, columns, POSSIBLE * depths, mask.shape) & wrong_side
    by_model = np.zeros_like(mask)
    for other in predicted:
        by_model |= _connected(possible & (mask ^ other), rows, columns)
    change = by_model | (_disks(rows, columns, SURE * depths, mask.shape) & wrong_side)
    corrected = mask | change if label else mask & ~change
    # A line along the middle of the whole object would erase it: the model knows better.
    vanishes = 2 * np.count_nonzero(corrected) < np.count_nonzero(mask)
    return mask & ~by_model if vanishes and by_model.any() else corrected


def _grown(box: tuple[slice, ...], margin: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Rows and columns of a box with a margin, on a plane (Y, X)."""
    spans = zip(box, shape, strict=True)
    return tuple(slice(max(s.start - margin, 0), min(s.stop + margin, end)) for s, end in spans)


def _depths(
    side: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp], most: float
) -> NDArray[np.float64]:
    """How deep pixels lie within a side (Y, X) of an outline, at most `most`."""
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    near = _grown(box, math.ceil(most) + 1, side.shape)
    if side[near].all():
        return np.full(len(rows), most)
    depths = ndi.distance_transform_edt(side[near])
    of_line = depths[rows - near[0].start, columns - near[1].start]
    return np.asarray(np.minimum(of_line, most), np.float64)


def _disks(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    radii: NDArray[np.float64],
    shape: tuple[int, ...],
) -> Mask:
    """The union (Y, X) of disks around pixels."""
    union = np.zeros(shape, bool)
    for row, column, radius in zip(rows.tolist(), columns.tolist(), radii.tolist(), strict=True):
        reach = math.ceil(radius)
        top, left = max(row - reach, 0), max(column - reach, 0)
        part = union[top : row + reach + 1, left : column + reach + 1]
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (y + top - row) ** 2 + (x + left - column) ** 2 < radius**2
    return union


def _connected(change: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Mask:
    """The parts (Y, X) of a change that hold a pixel of the line."""
    parts, _ = ndi.label(change, np.ones((3, 3)))
    met = np.unique(parts[rows, columns])
    return np.asarray(np.isin(parts, met[met > 0]), bool)
