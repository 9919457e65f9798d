"""Whether an object still stands out: a blurred object fades from plane to plane where it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.mask_geometry import Mask, within

FAINT = 0.03
"""Contrast, as part of the range of a plane's values, below which it says nothing."""
EVEN = 0.9
"""Part of the object that must stand out on its own plane, for its brightness to tell it."""
SMOOTH = 0.12
"""Width of the Gaussian that evens out texture, as part of the object's radius."""

Values = NDArray[np.floating]
"""(C, Y, X), a plane as the model reads it."""


@dataclass(frozen=True, eq=False)
class Look:
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
    def of(cls, mask: Mask, values: Values, least: float) -> Look | None:
        """Look at an object; None if brightness does not tell it from what is around it."""
        ring = _ring(mask)
        if not ring.any():
            return None
        contrast = _mean(values, mask) - _mean(values, ring)
        if np.abs(contrast).max() <= FAINT * (float(values.max()) - float(values.min())):
            return None
        look = cls(contrast, least)
        kept = np.count_nonzero(look.seen(mask, values))
        return look if kept >= EVEN * np.count_nonzero(mask) else None

    def seen(self, mask: Mask, values: Values) -> Mask:
        """The part of a mask (Y, X) that stands out from what is around it; holes are filled."""
        ring = _ring(mask)
        if not ring.any():
            return mask
        unit = self.contrast / float(self.contrast @ self.contrast)
        above = np.tensordot(unit, np.asarray(values, np.float64), 1) - unit @ _mean(values, ring)
        radius = math.sqrt(np.count_nonzero(mask) / math.pi)
        even = _smoothed(above, mask, SMOOTH * radius)
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
    return within(mask, max(3.0, 0.3 * radius)) & ~within(mask, 1.0)


def _mean(values: Values, where: Mask) -> NDArray[np.float64]:
    return np.asarray(values[:, where].mean(axis=1, dtype=np.float64))
