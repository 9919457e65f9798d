"""`IntervalPropagator`: one object along an interval of planes, one step after the other.

It makes the prompt on the next plane and decides whether its mask is still the object:
`BoundaryBias` corrects a systematic error of the model's outline; `ContrastGate` ends an object
that fades out of focus; `OutlineEvidence` says whether the outline still lies on an edge.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import (
    Mask,
    PixelSpacing,
    dilated,
    interior_point,
    interpolated_mask,
    iou,
)
from napari_simmat.engine.outline_evidence import (
    BoundaryBias,
    ContrastGate,
    OutlineEvidence,
    PlaneValues,
    move_outline,
)
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.propagation_tracks import Origin, PlaneIndex, SliceInterval

if TYPE_CHECKING:
    from napari_simmat.engine.result import Result


class IntervalPropagator:
    """Propagates one object along one interval of slices.

    Parameters
    ----------
    interval
        The interval.
    settings
        When the object ends.
    shape_yx
        Size of a plane.
    step, pixel
        Distance between two planes, and height and width of a pixel, in one unit.
    gate
        Tests the object's contrast; None for no test.
    outline
        Tests the edge along its outline; None for no test.
    biases
        The model's bias at the annotated ends, to be corrected; None where unknown.
    """

    def __init__(
        self,
        interval: SliceInterval,
        settings: PropagationSettings,
        shape_yx: tuple[int, int],
        step: float,
        pixel: PixelSpacing,
        gate: ContrastGate | None = None,
        outline: OutlineEvidence | None = None,
        biases: tuple[BoundaryBias | None, BoundaryBias | None] = (None, None),
    ) -> None:
        self.interval = interval
        self.ended = False
        self._settings = settings
        self._pixel = pixel
        self._step = step
        self._start = interval.start.section.mask(shape_yx)
        self._end = None if interval.end is None else interval.end.section.mask(shape_yx)
        self._last = self._start
        self._gate = gate
        self._outline = outline
        self._biases = biases

    def prompt(self, index: int) -> Prompt:
        """The prompt on the next plane."""
        return prompt_from_mask(self._prior(index), self._pixel, self.interval.plane(index))

    def candidate(self, index: int, result: Result) -> Result:
        """The result for the next plane, or that of its candidates which `Section.chosen` asks."""
        if not any(end.section.chosen for end in self.interval.ends):
            return result
        prior = self._prior(index)
        others = [result.alternative(number) for number in range(result.count)]
        return max(others, key=lambda each: iou(each.mask, prior, empty=0.0))

    def accept(
        self, index: int, mask: Mask, score: float, values: NDArray[np.floating]
    ) -> tuple[Mask, Origin, float] | None:
        """The object on plane `index`, where its mask is from, and its `Section.evidence`.

        None if the object has ended. `mask` and `score` are the model's; `values` (C, Y, X) is the
        normalized plane.
        """
        prior = self._prior(index)
        radius = math.sqrt(np.count_nonzero(prior) * math.prod(self._pixel) / math.pi)
        settings = self._settings
        reach = max(settings.reach * radius, settings.slope * self._step, *self._pixel)
        kept = mask & dilated(prior, reach, self._pixel)
        if self._gate is not None:
            kept = self._gate.visible_part(kept, values)
        if self._end is not None:
            # Corrected by the biases of both ends, weighted by their nearness.
            part = self.interval.part(index)
            shares = [
                (bias, share)
                for bias, share in zip(self._biases, (1 - part, part), strict=True)
                if bias is not None and kept.any()
            ]
            if shares:
                kept = move_outline(kept, np.sum([s * bias.on(kept) for bias, s in shares], axis=0))
            if not kept.any() or iou(kept, prior, empty=0.0) < settings.min_likeness:
                return prior, "interpolated", self._evidence(prior, values)
            return kept, "propagated", self._evidence(kept, values)
        evidence = self._evidence(kept, values)
        faded = self._gate is None and evidence < settings.min_evidence
        if faded or not self._continues(prior, kept, mask, score):
            self.ended = True
            return None
        self._last = kept
        return kept, "propagated", evidence

    def _evidence(self, mask: Mask, values: PlaneValues) -> float:
        return math.nan if self._outline is None else self._outline.share(mask, values)

    def _prior(self, index: int) -> Mask:
        """The expected mask: that of the last plane, or interpolated between annotated ones."""
        if self._end is None:
            return self._last
        return interpolated_mask(self._start, self._end, self.interval.part(index), self._pixel)

    def _continues(self, last: Mask, kept: Mask, mask: Mask, score: float) -> bool:
        settings = self._settings
        start = self.interval.start.section
        area, before = np.count_nonzero(kept), np.count_nonzero(last)
        # The model did not believe in a mask that the user chose from the beginning.
        least = min(settings.min_score, start.score / 2) if start.chosen else settings.min_score
        if area == 0 or score < least:
            return False
        if 2 * area < np.count_nonzero(mask):
            return False  # most of the model's mask lies where the object cannot be
        if max(area / before, before / area) > settings.max_change:
            return False
        return iou(kept, last, empty=0.0) >= settings.min_overlap


def prompt_from_mask(mask: Mask, pixel: PixelSpacing, plane: PlaneIndex) -> Prompt:
    """The mask and a click on its deepest pixel.

    This worked best of all prompts that can be made of a mask (docs/stacks.md).
    """
    return Prompt(points=(interior_point(mask, pixel),), mask=mask, plane=plane)
