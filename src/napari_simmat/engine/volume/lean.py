"""Which way the model errs on an object, learned where the object is known, used beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.mask_geometry import Floats, Mask, signed_distance

SMOOTH = 0.2
"""Width of the Gaussian along the outline, as a part of the object's radius."""
MOST = 0.5
"""How far an outline is moved at most, as a part of the object's radius."""


@dataclass(frozen=True, eq=False)
class Lean:
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
    def of(cls, known: Mask, found: Mask) -> Lean | None:
        """Compare what is known on a plane with what the model makes of it; None if nothing."""
        if not known.any() or not found.any():
            return None
        middle, radius = _place(found)
        edge = found & ~ndi.binary_erosion(found, border_value=1)
        if not edge.any():
            return None
        away = _halved(signed_distance(known)) - _halved(signed_distance(found))
        nearest = ndi.distance_transform_edt(~edge, return_distances=False, return_indices=True)
        moves = np.clip(away, -MOST * radius, MOST * radius)[tuple(nearest)]
        return cls(ndi.gaussian_filter(moves, SMOOTH * radius), middle, radius)

    def on(self, mask: Mask) -> Floats:
        """The moves (Y, X) for another mask of the object, as they lie on it."""
        middle, radius = _place(mask)
        scale = self.radius / radius
        return np.asarray(
            ndi.affine_transform(
                self.moves, [scale, scale], self.middle - scale * middle, order=1, mode="nearest"
            ),
            np.float32,
        )


def moved(mask: Mask, moves: Floats) -> Mask:
    """The mask (Y, X) with its outline moved by so many pixels at each place."""
    kept: Mask = _halved(signed_distance(mask)) + moves > 0
    return kept


def _place(mask: Mask) -> tuple[NDArray[np.float64], float]:
    """Middle y, x and radius of the disc of equal area."""
    return np.array(ndi.center_of_mass(mask)), math.sqrt(np.count_nonzero(mask) / math.pi)


def _halved(distance: Floats) -> Floats:
    """Distances to the outline between pixels, instead of to the first pixel across it."""
    return np.asarray(distance - 0.5 * np.sign(distance), np.float32)
