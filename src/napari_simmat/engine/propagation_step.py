"""One step of propagation: from one slice to the next.

From one plane to the next: what is asked there, and whether the answer is still the object.

Which way the model errs on an object, learned where the object is known, used beside it.

Whether an object still stands out: a blurred object fades from plane to plane where it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import (
    Floats,
    Mask,
    PixelSpacing,
    dilated,
    interior_point,
    interpolated_mask,
    iou,
    signed_distance,
)
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_tracks import (
    Origin,
    PlaneIndex,
    PropagationSettings,
    SliceInterval,
)


class IntervalPropagator:
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
        span: SliceInterval,
        settings: PropagationSettings,
        shape_yx: tuple[int, int],
        step: float,
        pixel: PixelSpacing,
    ) -> None:
        self.span = span
        self.ended = False
        self._settings, self._pixel, self._step = settings, pixel, step
        self._start = span.start.section.mask(shape_yx)
        self._end = None if span.end is None else span.end.section.mask(shape_yx)
        self._last = self._start
        self._contrast_gate: ContrastGate | None = None
        self._biases: tuple[BoundaryBias | None, BoundaryBias | None] = (None, None)

    def prompt(self, index: int) -> Prompt:
        """What is asked on the next plane."""
        return prompt_from_mask(self._prior(index), self._pixel, self.span.plane(index))

    def set_contrast_gate(self, look: ContrastGate | None) -> None:
        """See what the object looks like where it stands out most; None for no matter."""
        self._contrast_gate = look

    def set_bias(self, start: BoundaryBias | None, end: BoundaryBias | None) -> None:
        """See how the model errs on the annotated planes; None where that is not known."""
        self._biases = start, end

    def accept(
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
        kept = mask & dilated(prior, self._reach(prior), self._pixel)
        if self._contrast_gate is not None:
            kept = self._contrast_gate.visible_part(kept, values)
        if self._end is not None:
            kept = self._without_bias(index, kept)
            if not kept.any() or iou(kept, prior, empty=0.0) < self._settings.min_likeness:
                return prior, "interpolated"
            return kept, "propagated"
        if not self._continues(prior, kept, mask, score):
            self.ended = True
            return None
        self._last = kept
        return kept, "propagated"

    def _prior(self, index: int) -> Mask:
        """Where the object is expected: as on the plane before, or between those annotated."""
        if self._end is None:
            return self._last
        return interpolated_mask(self._start, self._end, self.span.part(index), self._pixel)

    def _without_bias(self, index: int, mask: Mask) -> Mask:
        """The mask without the model's error, as far as that is known."""
        part = self.span.part(index)
        shares = zip(self._biases, (1 - part, part), strict=True)
        moves = [share * lean.on(mask) for lean, share in shares if lean is not None and mask.any()]
        return move_outline(mask, np.sum(moves, axis=0)) if moves else mask

    def _reach(self, prior: Mask) -> float:
        radius = math.sqrt(np.count_nonzero(prior) * math.prod(self._pixel) / math.pi)
        settings = self._settings
        return max(settings.reach * radius, settings.slope * self._step, *self._pixel)

    def _continues(self, last: Mask, kept: Mask, mask: Mask, score: float) -> bool:
        settings = self._settings
        area, before = np.count_nonzero(kept), np.count_nonzero(last)
        if area == 0 or score < settings.min_score:
            return False
        if 2 * area < np.count_nonzero(mask):
            return False  # most of the answer lies where the object cannot be
        if max(area / before, before / area) > settings.max_change:
            return False
        return iou(kept, last, empty=0.0) >= settings.min_overlap


def prompt_from_mask(mask: Mask, pixel: PixelSpacing, plane: PlaneIndex) -> Prompt:
    """What lies where a mask is, and on its deepest pixel.

    Of all that a mask can be turned into, this answered best (docs/stacks.md).
    """
    return Prompt(points=(interior_point(mask, pixel),), mask=mask, plane=plane)


BIAS_SMOOTHING = 0.2
"""Width of the Gaussian along the outline, as a part of the object's radius."""
MAX_OUTLINE_MOVE = 0.5
"""How far an outline is moved at most, as a part of the object's radius."""


@dataclass(frozen=True, eq=False)
class BoundaryBias:
    """How far the outline that the model finds lies off the one that is known.

    Parameters
    ----------
    moves
        (Y, X) float32 pixels by which the outline of the model's mask that is nearest to a pixel
        is to be moved, outwards if positive.
    middle, radius
        Where on the plane that mask lies, and how large it is.
    """

    moves: Floats
    middle: NDArray[np.float64]
    radius: float

    @classmethod
    def of(cls, known: Mask, found: Mask) -> BoundaryBias | None:
        """Compare what is known on a plane with what the model makes of it; None if nothing."""
        if not known.any() or not found.any():
            return None
        middle, radius = _centre_and_radius(found)
        edge = found & ~ndi.binary_erosion(found, border_value=1)
        if not edge.any():
            return None
        away = _subpixel_distance(signed_distance(known)) - _subpixel_distance(
            signed_distance(found)
        )
        nearest = ndi.distance_transform_edt(~edge, return_distances=False, return_indices=True)
        moves = np.clip(away, -MAX_OUTLINE_MOVE * radius, MAX_OUTLINE_MOVE * radius)[tuple(nearest)]
        return cls(ndi.gaussian_filter(moves, BIAS_SMOOTHING * radius), middle, radius)

    def on(self, mask: Mask) -> Floats:
        """The moves (Y, X) for another mask of the object, as they lie on it."""
        middle, radius = _centre_and_radius(mask)
        scale = self.radius / radius
        return np.asarray(
            ndi.affine_transform(
                self.moves, [scale, scale], self.middle - scale * middle, order=1, mode="nearest"
            ),
            np.float32,
        )


def move_outline(mask: Mask, moves: Floats) -> Mask:
    """The mask (Y, X) with its outline moved by so many pixels at each place."""
    kept: Mask = _subpixel_distance(signed_distance(mask)) + moves > 0
    return kept


def _centre_and_radius(mask: Mask) -> tuple[NDArray[np.float64], float]:
    """Middle y, x and radius of the disc of equal area."""
    return np.array(ndi.center_of_mass(mask)), math.sqrt(np.count_nonzero(mask) / math.pi)


def _subpixel_distance(distance: Floats) -> Floats:
    """Distances to the outline between pixels, instead of to the first pixel across it."""
    return np.asarray(distance - 0.5 * np.sign(distance), np.float32)


MIN_RELATIVE_CONTRAST = 0.03
"""Contrast, as part of the range of a plane's values, below which it says nothing."""
MIN_DISTINCT_SHARE = 0.9
"""Part of the object that must stand out on its own plane, for its brightness to tell it."""
CONTRAST_SMOOTHING = 0.12
"""Width of the Gaussian that evens out texture, as part of the object's radius."""

PlaneValues = NDArray[np.floating]
"""(C, Y, X), a plane as the model reads it."""


@dataclass(frozen=True, eq=False)
class ContrastGate:
    """What an object looks like on its annotated plane.

    Parameters
    ----------
    contrast
        (C,) mean of each channel inside, less that of a ring around it.
    least
        Part of the contrast that a pixel of the object needs.
    """

    contrast: NDArray[np.float64]
    least: float

    @property
    def strength(self) -> float:
        """How much the object stands out, in the units of the values."""
        return float(np.linalg.norm(self.contrast))

    @classmethod
    def of(cls, mask: Mask, values: PlaneValues, least: float) -> ContrastGate | None:
        """Look at an object; None if brightness does not tell it from what is around it."""
        ring = _ring(mask)
        if not ring.any():
            return None
        contrast = _mean(values, mask) - _mean(values, ring)
        if np.abs(contrast).max() <= MIN_RELATIVE_CONTRAST * (
            float(values.max()) - float(values.min())
        ):
            return None
        look = cls(contrast, least)
        kept = np.count_nonzero(look.visible_part(mask, values))
        return look if kept >= MIN_DISTINCT_SHARE * np.count_nonzero(mask) else None

    def visible_part(self, mask: Mask, values: PlaneValues) -> Mask:
        """The part of a mask (Y, X) that stands out from what is around it; holes are filled."""
        ring = _ring(mask)
        if not ring.any():
            return mask
        unit = self.contrast / float(self.contrast @ self.contrast)
        above = np.tensordot(unit, np.asarray(values, np.float64), 1) - unit @ _mean(values, ring)
        radius = math.sqrt(np.count_nonzero(mask) / math.pi)
        even = _smoothed(above, mask, CONTRAST_SMOOTHING * radius)
        kept: Mask = ndi.binary_fill_holes(mask & (even >= self.least))
        return kept & mask


def _smoothed(values: NDArray[np.float64], mask: Mask, width: float) -> NDArray[np.float64]:
    """Gaussian mean over the pixels of the mask alone, so that the edge is not dimmed."""
    weight = ndi.gaussian_filter(mask.astype(np.float64), width)
    total = ndi.gaussian_filter(np.where(mask, values, 0.0), width)
    return np.asarray(total / np.maximum(weight, 1e-9))


def _ring(mask: Mask) -> Mask:
    """A ring around a mask, a pixel off its blurred edge."""
    if not mask.any():
        return mask
    radius = math.sqrt(np.count_nonzero(mask) / math.pi)
    return dilated(mask, max(3.0, 0.3 * radius)) & ~dilated(mask, 1.0)


def _mean(values: PlaneValues, where: Mask) -> NDArray[np.float64]:
    return np.asarray(values[:, where].mean(axis=1, dtype=np.float64))
