"""Where a prompt's object is and how large, and on which levels of an image it is looked for."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.model.network import Encoded
from napari_simmat.model.prior import SIZE, UNIT
from napari_simmat.model.pyramid import MASK_STRIDE

BEST = 48.0
"""Square root of an object's area, in pixels, for which a scale is chosen."""
USUAL = 24.0
"""Square root of a mask's area, in its level's pixels, for which a click is trusted most."""
UNUSUAL = 0.15
"""Predicted IoU that such an answer loses for each factor of e that its mask is off `USUAL`."""
ENOUGH = 0.75
"""Trust in an answer to a click from which on no other level is asked."""
NEAR = 2
"""Levels that are asked where the object's extent is known."""
LARGEST = 200.0
"""Longest side in pixels of a box or mask that a window takes in."""
BLURRED = 1.0
"""Pixels of its level by which a mask may be off, of whose breadth that is the share lost."""


class Extent(NamedTuple):
    """Where a prompt's object is, in pixels of the network's input.

    Attributes
    ----------
    low, high
        Corners as x, y.
    whole
        Whether it is the object's bounding box, or only holds some points of it.
    thickness
        `breadth` of its mask, where that is known.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    whole: bool
    thickness: float | None = None

    @property
    def size(self) -> float:
        """Its thickness; unknown, about the square root of an area that has this bounding box."""
        if self.thickness is not None:
            return self.thickness
        return 0.85 * math.sqrt(
            math.prod(max(b - a, 1.0) for a, b in zip(self.low, self.high, strict=True))
        )

    @property
    def longest(self) -> float:
        """The longer side."""
        return max(b - a for a, b in zip(self.low, self.high, strict=True))

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre as x, y."""
        (x0, y0), (x1, y1) = self.low, self.high
        return (x0 + x1) / 2, (y0 + y1) / 2


def extent_of(points: Tensor, box: Tensor | None, mask: Tensor | None) -> Extent | None:
    """What is known of the object's extent: from a box, else from a mask and positive points.

    None where nothing is known.

    Parameters
    ----------
    points
        Positive ones (K, 2) as x, y.
    box
        (4,) as x0, y0, x1, y1.
    mask
        Logits (1, 1, h, w) at `MASK_STRIDE`.
    """
    if box is not None:
        x0, y0, x1, y1 = box.tolist()
        return Extent((x0, y0), (x1, y1), whole=True)
    whole = mask is not None and bool((mask > 0).any())
    if mask is not None and whole:
        inside = mask[0, 0] > 0
        rows, columns = (torch.nonzero(inside.any(axis))[:, 0] for axis in (1, 0))
        ends = torch.stack([columns[[0, -1]], rows[[0, -1]]], dim=-1).to(points)
        ends[1] += 1
        points = torch.cat([points, MASK_STRIDE * ends - 0.5])
    if not len(points):
        return None
    low, high = points.amin(0).tolist(), points.amax(0).tolist()
    thickness = float(breadth(mask[0, 0])) if mask is not None and whole else None
    return Extent((low[0], low[1]), (high[0], high[1]), whole, thickness)


def breadth(logits: Tensor) -> Tensor:
    """How thick masks (..., h, w) at `MASK_STRIDE` are: square root of a disk's area as thick.

    From area and perimeter (as the Cauchy-Crofton formula has it from crossings of the grid's
    lines), so that what is folded or branched counts as thin although it reaches far.
    """
    inside = logits > 0
    area = inside.sum((-2, -1))
    crossings = (inside[..., 1:, :] != inside[..., :-1, :]).sum((-2, -1))
    crossings = crossings + (inside[..., 1:] != inside[..., :-1]).sum((-2, -1))
    perimeter = math.pi / 4 * crossings.clamp(min=1)
    return MASK_STRIDE * 2 * math.sqrt(math.pi) * area / perimeter


def doubt(logits: Tensor) -> Tensor:
    """Predicted IoU that masks (N, h, w) lose as their level is too coarse for them, (N,)."""
    return (BLURRED / breadth(logits).clamp(min=1)).clamp(max=0.5)


def candidates(levels: list[Encoded], extent: Extent | None, clicks: Tensor) -> list[Encoded]:
    """Levels on which a prompt may be answered, in the order in which they are tried.

    With the object's extent known, the `NEAR` ones on which it is closest to `BEST`, finest first.
    With clicks alone all on which they lie in one window, by `likely`.
    """
    if extent is None:
        return likely(levels, clicks)
    fitting = [each for each in levels if extent.longest * each.scale <= LARGEST] or levels[-1:]
    if not extent.whole:
        return likely(fitting, clicks)
    misfits = [abs(math.log(extent.size * each.scale / BEST)) for each in fitting]
    near = sorted(range(len(fitting)), key=lambda i: misfits[i])[:NEAR]
    return [fitting[i] for i in sorted(near)]


def clicked_size(level: Encoded, points: Tensor) -> float:
    """Square root of the area of what lies under points (K, 2), in pixels of the level."""
    dense = level.maps["dense"].detach()
    height, width = dense.shape[-2:]
    at = ((points + 0.5) * level.scale / MASK_STRIDE).long()
    column, row = at[:, 0].clamp(0, width - 1), at[:, 1].clamp(0, height - 1)
    return float(UNIT * dense[0, SIZE, row, column].mean().exp())


def likely(levels: list[Encoded], clicks: Tensor) -> list[Encoded]:
    """Levels in the order in which points (K, 2) are asked on them.

    First that on which what lies under the points is closest to `BEST`, as the level itself
    measures it. The order depends on sizes alone, so that it is the same at another resolution.
    """
    if not len(clicks):
        return levels
    return sorted(levels, key=lambda level: abs(math.log(clicked_size(level, clicks) / BEST)))


def trust(quality: float, logits: Tensor, left: bool) -> float:
    """How far the answer to a click is believed: its predicted IoU, less for an unusual size.

    Parameters
    ----------
    quality
        Predicted IoU.
    logits
        The mask (h, w) at `MASK_STRIDE` on its level.
    left
        Whether the mask goes on beyond the window; that counts as unsure.
    """
    area = max(float((logits > 0).sum()) * MASK_STRIDE**2, 1.0)
    return quality - float(left) - UNUSUAL * abs(math.log(math.sqrt(area) / USUAL))


def agreement(logits: Tensor, corners: Tensor) -> Tensor:
    """IoU of the bounding boxes of masks with a box, (N,).

    Parameters
    ----------
    logits
        Masks (N, h, w) over a window, at `MASK_STRIDE`.
    corners
        Of the box, (2, 2) as x, y in the window's pixels; what lies outside does not count.
    """
    ends = MASK_STRIDE * torch.tensor(logits.shape[:0:-1]).to(corners)  # x, y
    (x0, y0), (x1, y1) = ((corner + 0.5).clamp(min=0).minimum(ends).tolist() for corner in corners)
    agreed = []
    for mask in logits:
        across, down = _span(mask.amax(0)), _span(mask.amax(1))
        width = max(min(across[1], x1) - max(across[0], x0), 0.0)
        height = max(min(down[1], y1) - max(down[0], y0), 0.0)
        area = (across[1] - across[0]) * (down[1] - down[0]) + (x1 - x0) * (y1 - y0)
        agreed.append(width * height / max(area - width * height, 1e-6))
    return corners.new_tensor(agreed)


def _span(profile: Tensor) -> tuple[float, float]:
    """Where logits (n,) along an axis rise above zero and fall below it, in pixels."""
    above = torch.nonzero(profile > 0)[:, 0]
    if not len(above):
        return 0.0, 0.0
    first, last = int(above[0]), int(above[-1])
    low, high = first - 0.5, last + 0.5  # at the image's border, where there is nothing beside it
    if first > 0:
        low = first - float(profile[first] / (profile[first] - profile[first - 1]))
    if last < len(profile) - 1:
        high = last + float(profile[last] / (profile[last] - profile[last + 1]))
    return (low + 0.5) * MASK_STRIDE, (high + 0.5) * MASK_STRIDE
