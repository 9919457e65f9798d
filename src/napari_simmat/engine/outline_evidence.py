"""What the image says of an outline that went from plane to plane: its bias, contrast and edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import Floats, Mask, bounding_box, dilated, signed_distance

BIAS_SMOOTHING = 0.2
"""Width of the Gaussian that smooths the moves of the outline, in radii of the object."""
MAX_OUTLINE_MOVE = 0.5
"""Largest move of the outline, in radii of the object."""
MIN_RELATIVE_CONTRAST = 0.03
"""Contrasts below this fraction of the range of a plane's values are not used."""
MIN_DISTINCT_SHARE = 0.9
"""Brightness is used only if at least this share of the object stands out on its own plane."""
MIN_EDGE_EXCESS = 0.2
"""An outline lies on an edge if it is this much steeper than the image beside it, relatively."""
EDGE_SMOOTHING = 0.08
"""Width of the Gaussian that suppresses texture at the outline, in radii of the object."""
CONTRAST_SMOOTHING = 0.12
"""Width of the Gaussian that suppresses texture, in radii of the object."""
PlaneValues = NDArray[np.floating]
"""A normalized plane (C, Y, X)."""


@dataclass(frozen=True, eq=False)
class BoundaryBias:
    """Systematic error of the model's outline of an object, measured on an annotated slice.

    On neighboring slices the model tends to err in the same way. So its outline is compared with
    the annotated one, and the difference corrected on the slices between.

    Parameters
    ----------
    moves
        (Y, X) float32: by how many pixels the point of the model's outline that is nearest to a
        pixel has to move, outwards if positive.
    middle, radius
        Center and radius of the model's mask, by which the moves are transferred to other masks.
    """

    moves: Floats
    middle: NDArray[np.float64]
    radius: float

    @classmethod
    def of(cls, known: Mask, found: Mask) -> BoundaryBias | None:
        """Compare the known mask of a plane with the model's; None if either is empty."""
        if not known.any() or not found.any():
            return None
        middle, radius = _center_and_radius(found)
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
        """The moves (Y, X), shifted and scaled onto another mask of the object."""
        middle, radius = _center_and_radius(mask)
        scale = self.radius / radius
        shift = self.middle - scale * middle
        # As a matrix: older SciPy warns of a diagonal.
        moved = ndi.affine_transform(self.moves, scale * np.eye(2), shift, order=1, mode="nearest")
        return np.asarray(moved, np.float32)


def move_outline(mask: Mask, moves: Floats) -> Mask:
    """The mask (Y, X) with its outline moved by `moves` (Y, X) pixels, outwards if positive."""
    kept: Mask = _subpixel_distance(signed_distance(mask)) + moves > 0
    return kept


def _center_and_radius(mask: Mask) -> tuple[NDArray[np.float64], float]:
    """Center y, x of a mask, and the radius of the disc of equal area."""
    return np.array(ndi.center_of_mass(mask)), math.sqrt(np.count_nonzero(mask) / math.pi)


def _subpixel_distance(distance: Floats) -> Floats:
    """Distance to the outline, which runs between pixels, not to the first pixel beyond it."""
    return np.asarray(distance - 0.5 * np.sign(distance), np.float32)


@dataclass(frozen=True, eq=False)
class ContrastGate:
    """Tests whether an object still stands out from its surroundings.

    Where an object ends, its blurred image fades from plane to plane, but the model still
    outlines the blur. A pixel belongs to the object as long as it has a part of the contrast that
    the object has on its annotated plane.

    Parameters
    ----------
    contrast
        (C,) mean of each channel inside the object minus that of a ring around it.
    minimum
        Fraction of the contrast that a pixel of the object needs.
    """

    contrast: NDArray[np.float64]
    minimum: float

    @property
    def strength(self) -> float:
        """Contrast over all channels, in the units of the values."""
        return float(np.linalg.norm(self.contrast))

    @classmethod
    def of(cls, mask: Mask, values: PlaneValues, minimum: float) -> ContrastGate | None:
        """Measure an object's contrast; None if brightness does not distinguish the object."""
        ring = _ring(mask)
        if not ring.any():
            return None
        contrast = _mean(values, mask) - _mean(values, ring)
        value_range = float(values.max()) - float(values.min())
        if np.abs(contrast).max() <= MIN_RELATIVE_CONTRAST * value_range:
            return None
        gate = cls(contrast, minimum)
        kept = np.count_nonzero(gate.visible_part(mask, values))
        return gate if kept >= MIN_DISTINCT_SHARE * np.count_nonzero(mask) else None

    def visible_part(self, mask: Mask, values: PlaneValues) -> Mask:
        """The part of a mask (Y, X) that stands out from its surroundings, holes filled."""
        ring = _ring(mask)
        if not ring.any():
            return mask
        unit = self.contrast / float(self.contrast @ self.contrast)
        above = np.tensordot(unit, np.asarray(values, np.float64), 1) - unit @ _mean(values, ring)
        radius = math.sqrt(np.count_nonzero(mask) / math.pi)
        # Gaussian mean over the pixels of the mask alone, so that its edge is not dimmed.
        width = CONTRAST_SMOOTHING * radius
        weight = ndi.gaussian_filter(mask.astype(np.float64), width)
        total = ndi.gaussian_filter(np.where(mask, above, 0.0), width)
        even = total / np.maximum(weight, 1e-9)
        kept: Mask = ndi.binary_fill_holes(mask & (even >= self.minimum))
        return kept & mask


@dataclass(frozen=True)
class OutlineEvidence:
    """Tests whether an object's outline still lies on an edge of the image.

    A network outlines noise, too, if it is prompted with a mask. The image is steeper along the
    outline of an object than beside it, also if the object is as bright as its surroundings; along
    an outline in noise it is not.

    Parameters
    ----------
    excess
        Mean slope of the values across the outline on the annotated plane, minus that beside it.
    """

    excess: float

    @classmethod
    def of(cls, mask: Mask, values: PlaneValues) -> OutlineEvidence | None:
        """Measure an annotated outline; None if it lies on no edge."""
        along, beside = _edge_slopes(mask, values)
        return cls(along - beside) if along > (1 + MIN_EDGE_EXCESS) * beside else None

    def share(self, mask: Mask, values: PlaneValues) -> float:
        """The edge along a mask's outline (Y, X) relative to the annotated one, 0..1."""
        along, beside = _edge_slopes(mask, values)
        return min(max((along - beside) / self.excess, 0.0), 1.0)


def _edge_slopes(mask: Mask, values: PlaneValues) -> tuple[float, float]:
    """Mean slope of the values across the outline of a mask, and across curves beside it.

    Per `width`, so that an object that becomes smaller and less smoothed does not seem clearer.
    """
    if (box := bounding_box(mask)) is None:
        return 0.0, 0.0
    radius = math.sqrt(np.count_nonzero(mask) / math.pi)
    width = max(1.0, EDGE_SMOOTHING * radius)
    away = width + max(3.0, 0.3 * radius)
    margin = math.ceil(away + 5 * width) + 1
    part = tuple(slice(max(each.start - margin, 0), each.stop + margin) for each in box)
    distance = signed_distance(mask[part])
    across = np.stack(np.gradient(ndi.gaussian_filter(distance, 1.0)))
    across /= np.maximum(np.linalg.norm(across, axis=0), 1e-6)
    square = np.zeros(distance.shape)
    for channel in values[:, *part]:
        slopes = np.stack(np.gradient(ndi.gaussian_filter(channel.astype(np.float64), width)))
        square += (slopes * across).sum(axis=0) ** 2
    slope, depth = np.sqrt(square), np.abs(distance)
    along = depth <= width + 0.5
    beside = np.abs(depth - away) <= width + 0.5
    if not along.any() or not beside.any():
        return 0.0, 0.0
    return width * float(slope[along].mean()), width * float(slope[beside].mean())


def _ring(mask: Mask) -> Mask:
    if not mask.any():
        return mask
    radius = math.sqrt(np.count_nonzero(mask) / math.pi)
    return dilated(mask, max(3.0, 0.3 * radius)) & ~dilated(mask, 1.0)


def _mean(values: PlaneValues, where: Mask) -> NDArray[np.float64]:
    return np.asarray(values[:, where].mean(axis=1, dtype=np.float64))
