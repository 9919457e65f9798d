"""From one plane to the next: what is asked there, and whether the answer is still the object."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.mask_geometry import (
    Mask,
    PixelSize,
    between,
    deepest,
    iou,
    within,
)
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_settings import PropagationSettings
from napari_simmat.engine.volume.lean import Lean, moved
from napari_simmat.engine.volume.look import Look
from napari_simmat.engine.volume.spans import Span
from napari_simmat.engine.volume.tracks import Origin, Plane


class Follower:
    """Goes along one span.

    Parameters
    ----------
    span
        The planes.
    settings
        When the object has ended.
    shape_yx
        Size of a plane.
    step
        Distance between two planes, in the unit of `pixel`.
    pixel
        Height and width of a pixel.
    """

    def __init__(
        self,
        span: Span,
        settings: PropagationSettings,
        shape_yx: tuple[int, int],
        step: float,
        pixel: PixelSize,
    ) -> None:
        self.span = span
        self.ended = False
        self._settings, self._pixel, self._step = settings, pixel, step
        self._start = span.start.section.mask(shape_yx)
        self._end = None if span.end is None else span.end.section.mask(shape_yx)
        self._last = self._start
        self._look: Look | None = None
        self._leans: tuple[Lean | None, Lean | None] = (None, None)

    def prompt(self, index: int) -> Prompt:
        """What is asked on the next plane."""
        return asked_like(self._prior(index), self._pixel, self.span.plane(index))

    def learn(self, look: Look | None) -> None:
        """See what the object looks like where it stands out most; None for no matter."""
        self._look = look

    def lean(self, start: Lean | None, end: Lean | None) -> None:
        """See how the model errs on the annotated planes; None where that is not known."""
        self._leans = start, end

    def took(
        self, index: int, mask: Mask, score: float, values: NDArray[np.floating]
    ) -> tuple[Mask, Origin] | None:
        """The object on that plane, from the model's answer; None where it has ended.

        Parameters
        ----------
        index
            The plane.
        mask, score
            The answer.
        values
            (C, Y, X), the plane as the model reads it.
        """
        prior = self._prior(index)
        kept = mask & within(prior, self._reach(prior), self._pixel)
        if self._look is not None:
            kept = self._look.seen(kept, values)
        if self._end is not None:
            kept = self._leaned(index, kept)
            if not kept.any() or iou(kept, prior, empty=0.0) < self._settings.min_likeness:
                return prior, "interpolated"
            return kept, "propagated"
        if not self._goes_on(prior, kept, mask, score):
            self.ended = True
            return None
        self._last = kept
        return kept, "propagated"

    def _prior(self, index: int) -> Mask:
        """Where the object is expected: as on the plane before, or between those annotated."""
        if self._end is None:
            return self._last
        return between(self._start, self._end, self.span.part(index), self._pixel)

    def _leaned(self, index: int, mask: Mask) -> Mask:
        """The mask without the model's error, as far as that is known."""
        part = self.span.part(index)
        shares = zip(self._leans, (1 - part, part), strict=True)
        moves = [share * lean.on(mask) for lean, share in shares if lean is not None and mask.any()]
        return moved(mask, np.sum(moves, axis=0)) if moves else mask

    def _reach(self, prior: Mask) -> float:
        radius = math.sqrt(np.count_nonzero(prior) * math.prod(self._pixel) / math.pi)
        settings = self._settings
        return max(settings.reach * radius, settings.slope * self._step, *self._pixel)

    def _goes_on(self, last: Mask, kept: Mask, mask: Mask, score: float) -> bool:
        settings = self._settings
        area, before = np.count_nonzero(kept), np.count_nonzero(last)
        if area == 0 or score < settings.min_score:
            return False
        if 2 * area < np.count_nonzero(mask):
            return False  # most of the answer lies where the object cannot be
        if max(area / before, before / area) > settings.max_change:
            return False
        return iou(kept, last, empty=0.0) >= settings.min_overlap


def asked_like(mask: Mask, pixel: PixelSize, plane: Plane) -> Prompt:
    """What lies where a mask is, and on its deepest pixel.

    Of all that a mask can be turned into, this answered best (docs/stacks.md).
    """
    return Prompt(points=(deepest(mask, pixel),), mask=mask, plane=plane)
