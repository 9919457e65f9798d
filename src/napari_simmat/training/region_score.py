"""The score of regions, trained: the chance that a region of the decoder's maps is an object.

A region is right at an IoU of .75 with an object, and nearly so at .5; regions that lie mostly
where the truth is unknown are left out.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.engine.object_regions import RegionTree
from napari_simmat.models.object_decoder import RegionScore

RIGHT = 0.75
"""IoU of which the score tells the chance."""
NEARLY = 0.5
"""The other one."""
MOST_UNKNOWN = 0.3
"""Share of unknown pixels up to which a region counts."""
BATCH = 1024
"""Regions of an update."""
DECAY = 0.05
"""Weight decay of AdamW."""
DROPOUT = 0.1
"""Share of the measures that an update does not see."""
SOFTNESS = 0.2
"""Width of the soft target around an IoU."""
HARD_SHARE = 0.7
"""Share of the target that is 0 or 1."""


def judged_regions(
    tree: RegionTree, labels: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Measures (N, M) of the regions that count, and their IoUs (N,) with the labeled objects.

    `labels` (Y, X) are of the plane at any size, negative where the truth is unknown.
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(tree.basins.shape, labels.shape, strict=True)
    )
    truth = labels[rows][:, columns]
    unknown = np.bincount(tree.basins.ravel(), (truth < 0).ravel(), minlength=tree.members.shape[1])
    counts = np.flatnonzero(tree.members @ unknown < MOST_UNKNOWN * tree.area)
    return tree.measures[counts], region_ious(tree, truth)[counts]


def region_ious(tree: RegionTree, truth: NDArray[np.int32]) -> NDArray[np.float32]:
    """IoU (N,) of each region with the object of `truth` (Y, X) that it meets best."""
    known = np.maximum(truth, 0).astype(np.int64)
    ids = int(known.max()) + 1
    basins = tree.members.shape[1]
    shared = np.bincount(
        tree.basins.ravel().astype(np.int64) * ids + known.ravel(), minlength=basins * ids
    )
    together = tree.members @ shared.reshape(basins, ids)
    sizes = np.bincount(known.ravel(), minlength=ids)
    either = np.maximum(tree.area[:, None] + sizes[None] - together, 1)
    best: NDArray[np.float32] = (together / either)[:, 1:].max(1, initial=0).astype(np.float32)
    return best


def hits(iou: Tensor) -> Tensor:
    """Whether IoUs (N,) reach `RIGHT`, and `NEARLY`: (N, 2) of 0 and 1."""
    return torch.stack([iou >= RIGHT, iou >= NEARLY], 1).float()


@torch.random.fork_rng(devices=[])
@torch.enable_grad()
def fit_score(
    score: RegionScore,
    measures: NDArray[np.float32],
    iou: NDArray[np.float32],
    steps: int,
    rate: float,
    seed: int = 0,
    share: NDArray[np.float64] | None = None,
) -> None:
    """Train a score in place on regions: measures (N, M), IoUs (N,).

    They are drawn in proportion to a `share` (N,), by default alike; the rate falls as a cosine.
    The score is frozen afterwards, whether or not it was before.
    """
    score.requires_grad_(True)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    given, reached = torch.tensor(measures), torch.tensor(iou)
    centers = torch.tensor([RIGHT, NEARLY])
    soft = ((reached[:, None] - centers) / SOFTNESS + 0.5).clamp(0, 1)
    target = HARD_SHARE * hits(reached) + (1 - HARD_SHARE) * soft
    weights = None if share is None else share / share.sum()
    optimizer = torch.optim.AdamW(score.parameters(), lr=rate, weight_decay=DECAY)
    cross = functional.binary_cross_entropy_with_logits
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        some = torch.tensor(rng.choice(len(iou), BATCH, p=weights))
        varied = functional.dropout(given[some] - score.mean, DROPOUT) + score.mean
        loss = cross(score(varied), target[some])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    score.requires_grad_(False)
