"""What a line of the pen means, beside the masks that are shown; a window and a script share it.

A line that closes outlines an object where none is, or goes around the whole of one, which is then
outlined anew; else it adds what it encloses. It never takes pixels away unless it is negative. One
that does not close is a scribble. Where nothing is open, a line over a committed object means that.
Two readings may be near each other: then there is another one, which the user can choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.object_changes import opened_object
from napari_simmat.annotation.predictions import Prediction
from napari_simmat.annotation.prompt_grouping import ObjectPrompt, objects_on
from napari_simmat.annotation.prompt_state import Outline, Plane, Prompts, PromptState
from napari_simmat.engine.coordinates import transposed_view
from napari_simmat.engine.masks import Mask, Window
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import closes
from napari_simmat.engine.scribbles import drawn_outline, pixels_along

Reading = Literal["outline", "adds", "takes away", "scribble"]

AROUND = 0.95
"""Share of a mask within a line from which on the line goes around the whole of it."""
NEARLY_AROUND = 0.7
"""The same from which on it may be meant to."""
WITHIN = 0.95
"""Share of what a line encloses that is the mask's, from which on there is nothing to add."""
MENDS = 1 / 3
"""Depth, in half widths, to which a line reaches into a mask if it mends it, rather than outlines a
neighbor that it touches. An open object that was not outlined just now is mended by any line that
touches it."""
SURELY_MENDS = 0.6
"""The same from which on there is no doubt."""
DEEPEST = 90
"""Percentile of the shared pixels' depths that is the line's depth."""
SHARES = 0.08
"""Share of what a line encloses that is the mask's, from which on `SHARES_DEEP` counts."""
SHARES_DEEP = 0.2
"""Depth from which on a line mends a mask that shares so much with it."""
CROSSES = 0.1
"""Share of a line that lies within a mask at most if the line crosses it, and so mends it; one
around a neighbor follows the common border."""
FEW = 0.08
"""Share of what a line encloses that is the mask's, below which the mask is elsewhere."""
SAME_AS_BOX = 0.5
"""IoU of a line's box with a box prompt from which on both show the same object."""
NEAR = 3
"""Pixels between a line and a mask that it touches for the eye."""
MUCH_LARGER = 3.0
"""Pixels of what a line encloses, in those of a committed object, from which on it is another."""


class OpenObject(NamedTuple):
    """An object that is open on a plane.

    Attributes
    ----------
    asked
        Its prompts.
    mask
        (Y, X) as it is shown, or as it was drawn; None if neither is known yet.
    is_edited
        Whether it is a committed object, or a draft, that was opened.
    """

    asked: ObjectPrompt
    mask: Mask | None
    is_edited: bool = False


@dataclass(frozen=True)
class Meaning:
    """What a line does."""

    reading: Reading
    of: OpenObject | None = None
    """The open object that it mends, or outlines anew; None for a new one."""
    label: int = 0
    """The committed object that it opens first; 0 for none."""
    is_new: bool = False
    """Whether the user said that another object begins here."""
    other: Meaning | None = None
    """The other meaning that it may have."""


def open_objects(
    objects: Sequence[ObjectPrompt],
    prediction: Prediction | None,
    shape_yx: tuple[int, int],
    *,
    edited: bool,
) -> list[OpenObject]:
    """The open objects of a plane with their masks.

    Parameters
    ----------
    objects
        From `objects_on`.
    prediction
        What is shown for them, or for some of them; None if nothing is.
    shape_yx
        Of the plane.
    edited
        Whether the first one was opened for editing.
    """
    shown = {}
    if prediction is not None:
        pairs = zip(prediction.objects, prediction.masks, strict=True)
        shown = {each.prompt: mask for each, mask in pairs}
    return [
        OpenObject(
            each,
            shown[each.prompt] if each.prompt in shown else drawn_outline(each.prompt, shape_yx),
            is_edited=edited and number == 0,
        )
        for number, each in enumerate(objects)
    ]


def drawn_state(
    session: ImageSession,
    plane: Plane,
    line: NDArray[np.float64],
    positive: bool,
    *,
    is_new: bool = False,
) -> tuple[Meaning, PromptState]:
    """What a line (N, 2) means on a plane of a session, and the prompts that it makes.

    With `is_new` it begins another object.
    """
    height, width = session.geometry.shape[-2:]
    inside = np.clip(line, -0.5, np.array([height, width]) - 0.5)
    meaning = read_line(session, plane, inside, positive, is_new=is_new)
    state = _state_with(session, plane, inside, positive, meaning)
    if meaning.other is not None:
        other = _state_with(session, plane, inside, positive, meaning.other).on(plane)
        state = replace(state, other=replace(other, other=None))
    return meaning, state


def read_line(
    session: ImageSession,
    plane: Plane,
    line: NDArray[np.float64],
    positive: bool,
    *,
    is_new: bool = False,
) -> Meaning:
    """What a line (N, 2) on an image means on a plane of a session; see `drawn_state`."""
    if is_new and positive:
        return Meaning("outline" if closes(line) else "scribble", is_new=True)
    state, shape = session.prompt_state.on(plane), session.geometry.shape[-2:]
    shape_yx = shape[0], shape[1]
    try:
        asked = objects_on(state, plane, shape_yx)
    except ValueError:  # negative marks alone
        asked = ()
    _, shown = session.predictions.get(plane, (None, None))
    edited = state.edited_on(plane) is not None
    objects = open_objects(asked, shown, shape_yx, edited=edited)
    committed = None
    if session.editor is not None and not state:
        labels = session.editor.layer.data
        if isinstance(labels, np.ndarray):
            committed = transposed_view(labels, session.geometry.order)[plane]
    lines = state.prompts.outlines
    outlining = bool(
        lines and lines[-1].kind == "polygon" and lines[-1].after == len(state.prompts.points)
    )
    return meaning_of(line, positive, objects, committed, outlining=outlining)


def meaning_of(
    line: NDArray[np.float64],
    positive: bool,
    objects: Sequence[OpenObject],
    committed: NDArray[np.integer] | None = None,
    *,
    outlining: bool = False,
) -> Meaning:
    """What a line (N, 2) means on a plane.

    Parameters
    ----------
    line
        From `engine.pen_line.drawn_line`.
    positive
        Its sign.
    objects
        What is open; with none, the line may mean a committed object.
    committed
        The labels (Y, X) of these; None if there are none.
    outlining
        Whether the line before outlined an object, so that this one may outline the next.
    """
    if not closes(line):
        return _meaning_of_scribble(line, objects, committed)
    if not objects:
        return _meaning_beside_committed(line, positive, committed)
    size, counts, near = _shared(line, [each.mask for each in objects])
    held = [_shows(each, line) for each in objects]
    best = max(
        range(len(objects)), key=lambda n: (counts[n], near[n], held[n], objects[n].is_edited)
    )
    nearest = objects[best]
    if not positive:
        return Meaning("takes away", nearest)
    if not near[best] and not nearest.is_edited:
        return Meaning("outline", nearest if held[best] else None)
    area = 0 if nearest.mask is None else np.count_nonzero(nearest.mask)
    anew, adds = Meaning("outline", nearest), Meaning("adds", nearest)
    if area and counts[best] >= AROUND * area:
        return anew
    if held[best] and counts[best] < FEW * size:
        return replace(anew, other=adds)  # the mask is elsewhere, beside the line
    if held[best] or (area and counts[best] >= min(NEARLY_AROUND * area, WITHIN * size)):
        return replace(adds, other=anew)
    if nearest.is_edited:
        return adds
    assert nearest.mask is not None, "or nothing would be near"
    shape_yx = nearest.mask.shape[0], nearest.mask.shape[1]
    drawn = drawn_outline(nearest.asked.prompt, shape_yx) if outlining else None
    shown = nearest.mask if drawn is None else drawn
    return _beside(adds, Meaning("outline"), line, shown, outlining=outlining)


def with_line(
    prompts: Prompts, line: NDArray[np.float64], positive: bool, meaning: Meaning, plane: Plane
) -> Prompts:
    """The prompts of all planes with a line (N, 2) that has a meaning.

    A new object is a polygon of a group of its own, by which later lines are told to mend it.
    """
    at = tuple((*map(float, plane), float(y), float(x)) for y, x in line)
    if meaning.reading == "outline":
        if meaning.of is not None:
            prompts = _without(prompts, meaning.of.asked.source)
        prompts = _apart(prompts, plane)
        group, after = max(prompts.on(plane).next_group, 1), len(prompts.points)
        outline = Outline("polygon", at[:-1], group=group, after=after)
    else:
        group = 0 if meaning.of is None else meaning.of.asked.group
        if meaning.is_new:
            group = prompts.on(plane).next_group
        outline = Outline("path", at, int(positive), group, len(prompts.points))
    return replace(prompts, outlines=(*prompts.outlines, outline))


def _state_with(
    session: ImageSession,
    plane: Plane,
    line: NDArray[np.float64],
    positive: bool,
    meaning: Meaning,
) -> PromptState:
    """The prompts with a line (N, 2) that has a meaning, on the object that it opens, if any."""
    state = session.prompt_state
    opened = opened_object(session, plane, meaning.label) if meaning.label else None
    if opened is not None:
        height, width = session.geometry.shape[-2:]
        [asked, *_] = objects_on(opened.on(plane), plane, (height, width))
        state, meaning = opened, replace(meaning, of=OpenObject(asked, None, is_edited=True))
    return replace(state, prompts=with_line(state.prompts, line, positive, meaning, plane))


def _meaning_of_scribble(
    line: NDArray[np.float64],
    objects: Sequence[OpenObject],
    committed: NDArray[np.integer] | None,
) -> Meaning:
    """A line that leads somewhere belongs to the object on which most of it lies."""
    if objects:
        on = [0 if each.mask is None else _count_along(line, each.mask) for each in objects]
        best = max(range(len(objects)), key=lambda n: (on[n], objects[n].is_edited))
        # Beside all masks it belongs to the nearest one, as a click does.
        alone = len(objects) == 1 or on[best] > 0 or objects[best].is_edited
        return Meaning("scribble", objects[best] if alone else None)
    if committed is None:
        return Meaning("scribble")
    passed = committed[pixels_along(line.tolist(), committed.shape)]
    begun = int(committed[pixels_along(line[:1].tolist(), committed.shape)][0])
    labels, counts = np.unique(passed, return_counts=True)
    most = int(labels[counts.argmax()])
    return Meaning("scribble", label=max(begun or most, 0))


def _meaning_beside_committed(
    line: NDArray[np.float64], positive: bool, committed: NDArray[np.integer] | None
) -> Meaning:
    """A line that closes, where nothing is open."""
    first: Reading = "outline" if positive else "takes away"
    if committed is None:
        return Meaning(first)
    window, enclosed = _enclosed(line, (committed.shape[0], committed.shape[1]))
    labels, counts = np.unique(committed[window][enclosed], return_counts=True)
    kept = labels > 0
    if not kept.any():
        return Meaning(first)
    label = int(labels[kept][counts[kept].argmax()])
    count, size = int(counts[kept].max()), np.count_nonzero(enclosed)
    if not positive:
        return Meaning("takes away", label=label)
    area = np.count_nonzero(committed == label)
    new, adds = Meaning("outline"), Meaning("adds", label=label)
    anew = replace(new, label=label)
    if count >= AROUND * area:
        is_other = size > MUCH_LARGER * area
        return replace(new, other=anew) if is_other else replace(anew, other=new)
    if count >= NEARLY_AROUND * area:
        return replace(adds, other=anew)
    return _beside(adds, new, line, committed == label)


def _beside(
    adds: Meaning, new: Meaning, line: NDArray[np.float64], mask: Mask, *, outlining: bool = True
) -> Meaning:
    """Whether a line that reaches into a mask (Y, X) mends it, or outlines its neighbor."""
    depth = _depth(line, mask)
    mends = not outlining or _mends(line, mask, depth)
    first, second = (adds, new) if mends else (new, adds)
    return first if mends and depth >= SURELY_MENDS else replace(first, other=second)


def _mends(line: NDArray[np.float64], mask: Mask, depth: float) -> bool:
    """Whether a line that reaches so deep into a mask (Y, X) is meant for that."""
    size, [count], _ = _shared(line, [mask])
    if count >= SHARES * size:
        return depth >= SHARES_DEEP
    passed = len(pixels_along(line.tolist(), mask.shape)[0])
    return depth >= MENDS and _count_along(line, mask) <= CROSSES * passed


def _depth(line: NDArray[np.float64], mask: Mask) -> float:
    """How deep a line reaches into a mask (Y, X), in half widths of the narrower of the two."""
    window, enclosed = _enclosed(line, (mask.shape[0], mask.shape[1]))
    within = ndi.distance_transform_edt(np.pad(mask[window], 1, mode="edge"))[1:-1, 1:-1]
    both = within[enclosed & mask[window]]
    if not both.size:
        return 0.0
    own = ndi.distance_transform_edt(np.pad(enclosed, 1)).max()
    width = min(float(own), float(within.max()))
    return max(0.0, float(np.percentile(both, DEEPEST)) - 0.5) / width


def _shared(
    line: NDArray[np.float64], masks: Sequence[Mask | None]
) -> tuple[int, list[int], list[int]]:
    """Pixels that a line encloses, and how many of them are each mask's (Y, X), with `NEAR` too."""
    shapes = [mask.shape for mask in masks if mask is not None]
    if not shapes:
        return 1, [0] * len(masks), [0] * len(masks)
    window, enclosed = _enclosed(line, (shapes[0][0], shapes[0][1]))
    around = ndi.binary_dilation(enclosed, iterations=NEAR)
    counts = []
    near = []
    for mask in masks:
        here = np.zeros_like(enclosed) if mask is None else mask[window]
        counts.append(int(np.count_nonzero(here & enclosed)))
        near.append(int(np.count_nonzero(here & around)))
    return max(int(np.count_nonzero(enclosed)), 1), counts, near


def _count_along(line: NDArray[np.float64], mask: Mask) -> int:
    """How many pixels of a mask (Y, X) a line passes."""
    return int(np.count_nonzero(mask[pixels_along(line.tolist(), mask.shape)]))


def _enclosed(line: NDArray[np.float64], shape_yx: tuple[int, int]) -> tuple[Window, Mask]:
    """Rows and columns of a plane around a line, and what the line encloses there."""
    low = np.clip(np.floor(line.min(0)).astype(int) - NEAR, 0, np.array(shape_yx) - 1)
    high = np.clip(np.ceil(line.max(0)).astype(int) + NEAR + 1, low + 1, shape_yx)
    window = slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
    height, width = (high - low).tolist()
    return window, shape_mask("polygon", (line - low).tolist(), (height, width))


def _shows(each: OpenObject, line: NDArray[np.float64]) -> bool:
    """Whether a line encloses all positive clicks of an object, or about what its box does."""
    prompt = each.asked.prompt
    (y0, x0), (y1, x1) = line.min(0), line.max(0)
    if prompt.box is not None:
        top, left, bottom, right = prompt.box
        height = max(min(bottom, y1) - max(top, y0), 0.0)
        width = max(min(right, x1) - max(left, x0), 0.0)
        shared = height * width
        area = (bottom - top) * (right - left)
        enclosed_area = (y1 - y0) * (x1 - x0)
        return bool(shared > SAME_AS_BOX * (area + enclosed_area - shared))
    clicks = [mark.points[0] for mark in prompt.marks if mark.label and len(mark.points) == 1]
    low = line.min(0) - 1
    height, width = (np.ceil(line.max(0) - low) + 2).astype(int).tolist()
    enclosed = shape_mask("polygon", (line - low).tolist(), (height, width))
    places = [np.floor(np.array(click) - low + 0.5).astype(int).tolist() for click in clicks]
    held = (0 <= y < height and 0 <= x < width and bool(enclosed[y, x]) for y, x in places)
    return bool(clicks) and all(held)


def _without(prompts: Prompts, source: Prompts) -> Prompts:
    """All prompts but those of one object, which are in other groups there."""
    gone = set(zip(source.points, source.labels, strict=True))
    shapes = {(each.kind, each.vertices) for each in source.outlines}
    pairs = zip(prompts.points, prompts.labels, strict=True)
    kept = [number for number, pair in enumerate(pairs) if pair not in gone]
    outlines = [each for each in prompts.outlines if (each.kind, each.vertices) not in shapes]
    masks = tuple(mask for mask in prompts.masks if mask not in source.masks)
    return replace(prompts.with_points(kept, outlines), masks=masks)


def _apart(prompts: Prompts, plane: Plane) -> Prompts:
    """The prompts with the points that make an object by themselves in a group of their own.

    As group 0 they would correct the outline that comes beside them.
    """
    here = prompts.on(plane)
    is_shape = any(each.kind != "path" for each in here.outlines) or here.masks
    if is_shape or not here:
        return prompts
    own = max(here.next_group, 1)
    there = prompts.off(plane)
    points = replace(here, groups=tuple(group or own for group in here.groups))
    outlines = tuple(
        replace(each, group=each.group or own, after=each.after + len(there.points))
        for each in here.outlines
    )
    return there + replace(points, outlines=outlines)
