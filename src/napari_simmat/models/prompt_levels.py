"""On which levels of an image a prompt is decoded, and how far its masks there are trusted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.models.dense_prior import MASK_STRIDE, SIZE, SIZE_UNIT
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.network import Encoded

BEST_OBJECT_SIDE = 48.0
"""Levels are chosen for this square root of an object's area, in pixels of the level."""
MAX_LEVELS_TRIED = 2
"""Levels that are tried if the object's extent is known."""
MAX_WINDOW_OBJECT = 200.0
"""Longest side in pixels of a box or mask that fits into a window."""
TYPICAL_MASK_SIDE = 30.0
"""A click's mask is trusted most at this square root of its area, in pixels of its level."""
SIZE_PENALTY = 0.1
"""Predicted IoU lost for each factor of e between a mask's side and `TYPICAL_MASK_SIDE`."""
UNEXPECTED_SIZE_PENALTY = 0.3
"""Trust lost for each factor of e by which a mask's side lies out of those that are expected."""
SUFFICIENT_TRUST = 0.75
"""A click's mask of at least this trust is accepted without trying other levels."""
WINDOW_FILLED_PENALTY = 3.0
"""Trust that such a mask loses: more than all else, so that any other mask precedes it."""
OUTLINE_UNCERTAINTY = 1.0
"""Error of an outline in pixels of its level; divided by the mask's thickness, the IoU it costs."""


class PromptExtent(NamedTuple):
    """Where a prompt's object is, in pixels of the network's input.

    Attributes
    ----------
    low, high
        Corners as x, y.
    whole
        Whether this is the object's bounding box, or only contains some points of it.
    thickness
        `mask_thickness` of its mask, if known.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    whole: bool
    thickness: float | None = None

    @property
    def size(self) -> float:
        """Its thickness, or about the square root of the area of an object of this box."""
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
        """Its center as x, y."""
        (x0, y0), (x1, y1) = self.low, self.high
        return (x0 + x1) / 2, (y0 + y1) / 2


def prompt_extent(points: Tensor, box: Tensor | None, mask: Tensor | None) -> PromptExtent | None:
    """The object's extent as far as known: from a box, or from a mask and positive points.

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
        return PromptExtent((x0, y0), (x1, y1), whole=True)
    if mask is not None:  # once, as each number read from a GPU waits for it
        points, mask = points.cpu(), mask.cpu()
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
    thickness = float(mask_thickness(mask[0, 0])) if mask is not None and whole else None
    return PromptExtent((low[0], low[1]), (high[0], high[1]), whole, thickness)


def mask_thickness(logits: Tensor) -> Tensor:
    """Thickness of masks (..., h, w) at `MASK_STRIDE`: square root of the area of a disk as thick.

    Computed from area and perimeter (the Cauchy-Crofton formula on crossings of grid lines), so
    that folded or branched objects count as thin although they reach far.
    """
    inside = logits > 0
    area = inside.sum((-2, -1))
    crossings = (inside[..., 1:, :] != inside[..., :-1, :]).sum((-2, -1))
    crossings = crossings + (inside[..., 1:] != inside[..., :-1]).sum((-2, -1))
    perimeter = math.pi / 4 * crossings.clamp(min=1)
    return MASK_STRIDE * 2 * math.sqrt(math.pi) * area / perimeter


def candidate_levels(
    levels: list[Encoded], extent: PromptExtent | None, clicks: Tensor
) -> list[Encoded]:
    """Levels on which a prompt is decoded, in the order in which they are tried.

    If the object's extent is known: the `MAX_LEVELS_TRIED` levels on which its size is closest to
    `BEST_OBJECT_SIDE`, finest first. For clicks alone: all levels on which they lie in one window,
    by `levels_by_likelihood`.
    """
    if extent is None:
        return levels_by_likelihood(levels, clicks)
    fitting = [
        each for each in levels if extent.longest * each.scale <= MAX_WINDOW_OBJECT
    ] or levels[-1:]
    if not extent.whole:
        return levels_by_likelihood(fitting, clicks)
    misfits = [abs(math.log(extent.size * each.scale / BEST_OBJECT_SIDE)) for each in fitting]
    near = sorted(range(len(fitting)), key=lambda i: misfits[i])[:MAX_LEVELS_TRIED]
    return [fitting[i] for i in sorted(near)]


def levels_by_likelihood(levels: list[Encoded], clicks: Tensor) -> list[Encoded]:
    """Levels in the order in which points (K, 2) are tried on them.

    First comes the level that predicts a size under the points closest to `BEST_OBJECT_SIDE`. The
    order depends on sizes alone, so that it is the same at another resolution of the image.
    """
    if not len(clicks):
        return levels
    return sorted(
        levels, key=lambda level: abs(math.log(clicked_size(level, clicks) / BEST_OBJECT_SIDE))
    )


def clicked_size(level: Encoded, points: Tensor) -> float:
    """Size that the dense head predicts for the object under points (K, 2), in level pixels."""
    return float(SIZE_UNIT * dense_at(level, points)[:, SIZE].mean().exp())


def dense_at(level: Encoded, points: Tensor) -> Tensor:
    """The dense head's vectors (K, 15) under points (K, 2) x, y of the network's input."""
    dense = level.maps["dense"].detach()
    height, width = dense.shape[-2:]
    at = ((points + 0.5) * level.scale / MASK_STRIDE).long()
    column, row = at[:, 0].clamp(0, width - 1), at[:, 1].clamp(0, height - 1)
    return dense[0, :, row, column].T


def trust(
    predicted_iou: float,
    logits: Tensor,
    left: bool,
    filled: bool = False,
    expected: ExpectedSize | None = None,
    scale: float = 1.0,
) -> float:
    """Trust in a click's mask: its predicted IoU, less for an unusual size.

    A level that is too coarse or too fine finds some structure at the click as well; its size
    gives it away. The coarsest level of a large image of small things often finds all of it.

    Parameters
    ----------
    predicted_iou
        The network's own estimate.
    logits
        The mask (h, w) at `MASK_STRIDE` on its level.
    left
        Whether the mask continues beyond the window, which costs all trust.
    filled
        Whether it covers nearly all of the window (`LevelWindow.is_filled`).
    expected
        Size of the objects that are meant, if known.
    scale
        The level's.
    """
    area = max(float((logits > 0).sum()) * MASK_STRIDE**2, 1.0)
    misfit = abs(math.log(math.sqrt(area) / TYPICAL_MASK_SIDE))
    lost = float(left) + WINDOW_FILLED_PENALTY * float(filled)
    if expected is not None:
        lost += UNEXPECTED_SIZE_PENALTY * expected.misfit(area / scale**2)
    return predicted_iou - lost - SIZE_PENALTY * misfit


def coarseness_penalty(logits: Tensor) -> Tensor:
    """IoU (N,) that masks (N, h, w) lose to the inaccuracy of their outlines on their level."""
    return (OUTLINE_UNCERTAINTY / mask_thickness(logits).clamp(min=1)).clamp(max=0.5)


def box_iou(logits: Tensor, corners: Tensor) -> Tensor:
    """IoU of the bounding boxes of masks with a box, (N,).

    Parameters
    ----------
    logits
        Masks (N, h, w) over a window, at `MASK_STRIDE`.
    corners
        The box's, (2, 2) as x, y in the window's pixels; clipped to the window.
    """
    ends = MASK_STRIDE * torch.tensor(logits.shape[:0:-1]).to(corners)  # x, y
    (x0, y0), (x1, y1) = (corners + 0.5).clamp(min=0).minimum(ends).tolist()
    profiles = logits.amax(1).cpu(), logits.amax(2).cpu()  # once for all that is read of them
    ious = []
    for across, down in zip(*(map(_span, each) for each in profiles), strict=True):
        width = max(min(across[1], x1) - max(across[0], x0), 0.0)
        height = max(min(down[1], y1) - max(down[0], y0), 0.0)
        area = (across[1] - across[0]) * (down[1] - down[0]) + (x1 - x0) * (y1 - y0)
        ious.append(width * height / max(area - width * height, 1e-6))
    return corners.new_tensor(ious)


def _span(profile: Tensor) -> tuple[float, float]:
    """Where logits (n,) along an axis rise above zero and fall below it, in pixels."""
    above = torch.nonzero(profile > 0)[:, 0]
    if not len(above):
        return 0.0, 0.0
    first = int(above[0])
    last = int(above[-1])
    low, high = first - 0.5, last + 0.5  # at the window's border there is no neighbor
    if first > 0:
        low = first - float(profile[first] / (profile[first] - profile[first - 1]))
    if last < len(profile) - 1:
        high = last + float(profile[last] / (profile[last] - profile[last + 1]))
    return (low + 0.5) * MASK_STRIDE, (high + 0.5) * MASK_STRIDE
