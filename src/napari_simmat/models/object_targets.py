"""What the decoder of all objects learns from labels: targets of its maps, and their loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor
from torch.nn import functional

from napari_simmat.models.object_decoder import (
    CONTACT,
    DEPTH,
    INSIDE,
    OUTLINE,
    WIDTH,
    WIDTH_UNIT,
)

CUT_WEIGHT = 0.3
"""Weight of the depth in objects that the crop cuts: their largest depth may lie beyond."""
WEIGHTS = {"inside": 1.0, "depth": 2.0, "outline": 1.0, "contact": 1.0, "width": 0.2}


class MapTargets(NamedTuple):
    """Targets of crops, each (B, S, S) float32.

    Attributes
    ----------
    inside, outline, contact
        0 or 1.
    depth
        Distance to the object's outline, relative to its largest, 0..1; 0 on the ground.
    width
        Logarithm of the largest depth in `WIDTH_UNIT`; 0 on the ground.
    known
        1 where the truth is known.
    whole
        1, `CUT_WEIGHT` in objects that the crop cuts.
    """

    inside: Tensor
    depth: Tensor
    outline: Tensor
    contact: Tensor
    width: Tensor
    known: Tensor
    whole: Tensor


def map_targets(labels: NDArray[np.int32]) -> MapTargets:
    """Targets of ids (B, S, S), 0 on the ground, negative where the truth is unknown."""
    rows = [_targets_of(each) for each in labels]
    return MapTargets(*(torch.tensor(np.stack(maps)) for maps in zip(*rows, strict=True)))


def _targets_of(labels: NDArray[np.int32]) -> tuple[NDArray[np.float32], ...]:
    inside = labels > 0
    ids = np.where(inside, labels, 0)
    rim, touching = _rims(ids)
    depth = np.zeros(ids.shape, np.float32)
    if (rim & inside).any():
        depth = ndi.distance_transform_edt(~(rim & inside)).astype(np.float32) + 1
    elif inside.any():  # one object fills the crop
        depth = np.full(ids.shape, 64, np.float32)
    depth[~inside] = 0
    numbers = np.arange(ids.max() + 1)
    largest = np.maximum(ndi.maximum(depth, ids, numbers), 1).astype(np.float32)
    relative = depth / largest[ids]
    width = np.where(inside, np.log(largest[ids] / WIDTH_UNIT), 0)
    cut = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    whole = np.where(np.isin(ids, cut[cut > 0]), CUT_WEIGHT, 1)
    maps = inside, relative, rim, touching, width, labels >= 0, whole
    return tuple(each.astype(np.float32) for each in maps)


def _rims(ids: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels beside one of another object or of the ground; those beside another object."""
    rim, touching = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    for one, other in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        differ = ids[one] != ids[other]
        both = differ & (ids[one] > 0) & (ids[other] > 0)
        for side in (one, other):
            rim[side] |= differ
            touching[side] |= both
    return rim, touching


def map_loss(maps: Tensor, targets: MapTargets) -> tuple[Tensor, dict[str, float]]:
    """The loss of maps (B, 5, S, S), and its parts by name."""
    known, inside = targets.known, targets.inside
    cross = functional.binary_cross_entropy_with_logits

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / weight.sum().clamp(min=1)

    parts = {
        "inside": mean(cross(maps[:, INSIDE], inside, reduction="none"), known),
        "depth": mean(
            cross(maps[:, DEPTH], targets.depth, reduction="none"), known * targets.whole
        ),
        "outline": mean(
            cross(maps[:, OUTLINE], targets.outline, reduction="none"),
            known * (1 + 2 * targets.outline),
        ),
        "contact": mean(
            cross(maps[:, CONTACT], targets.contact, reduction="none"),
            known * (0.3 + 5 * targets.contact),
        ),
        "width": mean(
            functional.smooth_l1_loss(maps[:, WIDTH], targets.width, reduction="none"),
            inside * targets.whole,
        ),
    }
    loss = torch.stack([WEIGHTS[name] * part for name, part in parts.items()]).sum()
    return loss, {name: part.item() for name, part in parts.items()}
