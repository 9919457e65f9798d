"""Windows at full resolution: small objects of images that are larger than a network's input.

Such an image is reduced, and objects of some pixels are lost. So a prompt on a small object is
predicted again in a window of the image at full resolution. The window follows from the prompt
alone, so the same prompt always gives the same mask; neighboring prompts share windows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.masks import Mask, Window, bounding_box
from napari_simmat.engine.prompts import Prompt

if TYPE_CHECKING:
    from napari_simmat.models.spec import InputSize

MAX_SCALE = 0.75
"""Images that are reduced less than this lose too little for a second encoding."""
SMALL_OBJECT = 48
"""Longest side of an object, in pixels of the network's input, up to which detail is lost."""
MOST_OF_PLANE = 0.5
"""A mask of a lone click over more of the plane than this is not trusted."""
SHARE_OF_INPUT = 4
"""How many times smaller than the largest input a window is."""
STEPS = 4
"""Windows begin at multiples of their side divided by this, so that neighboring prompts share."""
MARGIN = 0.1
"""Least distance of a prompt from the border of its window, in sides of the window."""


def detail_side(frame: InputTransform, size: InputSize) -> int | None:
    """Side in pixels of the windows of an image; None if it is not reduced, or hardly."""
    down, across = frame.scale
    is_reduced = size.method == "native" and max(down, across) < MAX_SCALE
    if not is_reduced or not math.isclose(down, across, rel_tol=0.02):
        return None
    return min(size.size // SHARE_OF_INPUT, *frame.image)


def detail_window(prompt: Prompt, shape_yx: tuple[int, int], side: int) -> Window | None:
    """Rows and columns of the window of a prompt; None if the prompt does not fit into one.

    It lies around the first point, which an object's later prompts share, or around the box.
    """
    if prompt.box is not None:
        y0, x0, y1, x1 = prompt.box
        corners = [(y0, x0), (y1, x1)]
        center = (y0 + y1) / 2, (x0 + x1) / 2
    elif prompt.points:
        corners, center = [], prompt.points[0]
    else:
        return None
    if prompt.mask is not None and prompt.mask.dtype == bool:
        if (box := bounding_box(prompt.mask)) is None:
            return None
        corners += [(box[0].start, box[1].start), (box[0].stop, box[1].stop)]
    rows, columns = (_span(at, size, side) for at, size in zip(center, shape_yx, strict=True))
    window = rows, columns
    return window if _fits((*prompt.points, *corners), window, shape_yx, side) else None


def _span(center: float, size: int, side: int) -> slice:
    step = max(1, side // STEPS)
    start = min(max(round((center - side / 2) / step) * step, 0), size - side)
    return slice(start, start + side)


def _fits(
    points: tuple[tuple[float, float], ...],
    window: tuple[slice, ...],
    shape_yx: tuple[int, int],
    side: int,
) -> bool:
    """Whether points lie in a window, not too near to a border that is none of the image."""
    for axis, (span, size) in enumerate(zip(window, shape_yx, strict=True)):
        low = -math.inf if span.start == 0 else span.start + MARGIN * side
        high = math.inf if span.stop == size else span.stop - MARGIN * side
        if not all(low <= point[axis] <= high for point in points):
            return False
    return True


def in_window(prompt: Prompt, window: Window) -> Prompt:
    """The prompt in the pixels of a window."""
    top, left = window[0].start, window[1].start
    box, mask = prompt.box, prompt.mask
    if box is not None:
        box = box[0] - top, box[1] - left, box[2] - top, box[3] - left
    if mask is not None and mask.dtype == bool:
        mask = mask[window]
    points = tuple((y - top, x - left) for y, x in prompt.points)
    return replace(prompt, points=points, box=box, mask=mask)


def wants_detail(prompt: Prompt, mask: Mask, scale: float) -> bool:
    """Whether a mask (Y, X) from the reduced image may have lost its object."""
    if (box := bounding_box(mask)) is None:
        return True
    longest = max(each.stop - each.start for each in box)
    lone = prompt.labels == (1,) and prompt.box is None and prompt.mask is None
    whole = lone and np.count_nonzero(mask) > MOST_OF_PLANE * mask.size
    return bool(longest * scale <= SMALL_OBJECT or whole)


def is_cut(mask: Mask, window: Window, shape_yx: tuple[int, int]) -> bool:
    """Whether an object (Y, X) is empty, or reaches a border of its window inside the image."""
    if (box := bounding_box(mask)) is None:
        return True
    return any(
        (part.start <= span.start and span.start > 0)
        or (part.stop >= span.stop and span.stop < size)
        for part, span, size in zip(box, window, shape_yx, strict=True)
    )
