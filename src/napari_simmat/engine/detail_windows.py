"""Windows of a plane at full resolution, in which prompts are predicted again, or at first."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.masks import Mask, Window, bounding_box
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import enlarge

if TYPE_CHECKING:
    from napari_simmat.models.spec import InputSize

MAX_SCALE = 0.75
"""Planes that are reduced less than this lose too little for a second encoding."""
SMALL_OBJECT = 48
"""Longest side of an object, in pixels of the network's input, up to which detail is lost."""
MOST_OF_PLANE = 0.5
"""A mask of a lone click over more of the plane than this is not trusted."""
SHARE_OF_INPUT = 4
"""How many times smaller than the largest input a window is."""
STEPS = 4
"""Windows begin at multiples of their side divided by this, so that neighboring prompts share."""
PART_SIDE = 1024
"""Side of the part of a large plane that is encoded before the whole plane is."""
PART_STEPS = 2
"""As `STEPS`, of these parts: fewer parts serve more clicks."""
LARGE = 2
"""A plane is large if it has this many times the pixels of such a part."""
MARGIN = 0.1
"""Minimum distance of a prompt from the border of its window, in sides of the window."""


@dataclass(frozen=True)
class DetailWindows:
    """Windows of a plane at full resolution, for small objects of planes that are reduced.

    A plane that is larger than the network's input is reduced, and objects of some pixels are lost.
    So a prompt on a small object is predicted again in a window at full resolution. The window
    follows from the prompt alone, so the same prompt always gives the same mask; neighboring
    prompts share windows.

    `plane` and `window` say how the plane and a window of `side` pixels lie in the network's input;
    `stride` is that of its mask grid; `steps` is as `STEPS`.
    """

    plane: InputTransform
    side: int
    window: InputTransform
    stride: float
    steps: int = STEPS

    @classmethod
    def of(cls, plane: InputTransform, size: InputSize, stride: float) -> DetailWindows | None:
        """The windows of a plane; None if it is not reduced, or hardly."""
        down, across = plane.scale
        is_reduced = size.method == "native" and max(down, across) < MAX_SCALE
        if not is_reduced or not math.isclose(down, across, rel_tol=0.02):
            return None
        side = min(size.size // SHARE_OF_INPUT, *plane.image)
        return cls(plane, side, InputTransform.of((side, side), size), stride)

    @classmethod
    def parts(cls, plane: InputTransform, size: InputSize, stride: float) -> DetailWindows | None:
        """The windows for a plane that is not encoded yet; None if that takes no longer."""
        side = min(PART_SIDE, *plane.image)
        is_large = math.prod(plane.padded) >= LARGE * PART_SIDE**2
        if size.method != "native" or not is_large or not math.isclose(*plane.scale, rel_tol=0.02):
            return None
        return cls(plane, side, InputTransform.of((side, side), size), stride, PART_STEPS)

    def around(self, prompt: Prompt) -> Window | None:
        """Rows and columns of the window of a prompt; None if the prompt does not fit into one.

        It lies around the first point, which an object's later prompts share, or around the box.
        """
        if prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            corners = [(y0, x0), (y1, x1)]
            center = (y0 + y1) / 2, (x0 + x1) / 2
        elif prompt.points:
            corners = []
            center = prompt.points[0]
        else:
            return None
        if prompt.mask is not None and prompt.mask.dtype == bool:
            if (box := bounding_box(prompt.mask)) is None:
                return None
            corners += [(box[0].start, box[1].start), (box[0].stop, box[1].stop)]
        window = self._span(center[0], 0), self._span(center[1], 1)
        for axis, (span, size) in enumerate(zip(window, self.plane.image, strict=True)):
            # Not too near to a border that is none of the image.
            low = -math.inf if span.start == 0 else span.start + MARGIN * self.side
            high = math.inf if span.stop == size else span.stop - MARGIN * self.side
            if not all(low <= point[axis] <= high for point in (*prompt.points, *corners)):
                return None
        return window

    def _span(self, center: float, axis: int) -> slice:
        step = max(1, self.side // self.steps)
        size = self.plane.image[axis]
        start = min(max(round((center - self.side / 2) / step) * step, 0), size - self.side)
        return slice(start, start + self.side)

    def refines(self, prompt: Prompt) -> bool:
        """Whether a prompt refines the logits of a window."""
        if prompt.mask is None or prompt.mask.dtype == bool:
            return False
        return bool(prompt.mask.shape == self.window.grid(self.stride))

    def drawn(self, prompt: Prompt) -> Mask:
        """The logits of a window as a mask (Y, X) of the plane."""
        first = replace(prompt.until(1), mask=None)
        window = self.around(first)
        mask = np.zeros(self.plane.image, bool)
        assert window is not None
        assert prompt.mask is not None
        logits = torch.tensor(prompt.mask)[None]
        mask[window] = enlarge(logits, self.window, self.stride)[0].numpy() > 0
        return mask

    def lost_detail(self, prompt: Prompt, mask: Mask) -> bool:
        """Whether a mask (Y, X) from the reduced plane may have lost its object."""
        if (box := bounding_box(mask)) is None:
            return True
        longest = max(each.stop - each.start for each in box)
        whole = prompt.is_a_click and np.count_nonzero(mask) > MOST_OF_PLANE * mask.size
        return bool(longest * self.plane.scale[0] <= SMALL_OBJECT or whole)

    def cut(self, mask: Mask, window: Window) -> bool:
        """Whether an object (Y, X) is empty, or reaches a border of its window inside the plane."""
        if (box := bounding_box(mask)) is None:
            return True
        return any(
            (part.start <= span.start and span.start > 0)
            or (part.stop >= span.stop and span.stop < size)
            for part, span, size in zip(box, window, self.plane.image, strict=True)
        )
