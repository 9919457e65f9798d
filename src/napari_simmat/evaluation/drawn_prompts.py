"""Prompts drawn from ground truth at random, as a training needs them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.engine.masks import interior_point

PROMPT_KIND_WEIGHTS = {
    "click": 0.36,
    "box": 0.22,
    "points": 0.09,
    "click+box": 0.13,
    "points+box": 0.06,
    "mask": 0.05,
    "box+mask": 0.05,
    "scribble": 0.04,
}
"""Kinds of first prompts and how often each is trained."""
SCRIBBLE_POINTS = 5
"""Points of a scribble."""
BoolMasks = NDArray[np.bool_]


class PromptBatch(NamedTuple):
    """Points (N, K, 2) as x, y, labels (N, K) as in `TinyNetwork.decode_batch`, mask logits."""

    points: Tensor
    labels: Tensor
    mask: Tensor | None = None


def draw_prompts(kind: str, masks: BoolMasks, rng: np.random.Generator) -> PromptBatch:
    """One prompt of a kind for each mask (N, H, W).

    A click falls into the object, every second time into its middle, or always anywhere; a box is
    loose or tight by a few percent of its side, and holds most of the object; a mask prompt is the
    object moved and grown or shrunk. A drawn outline reaches the model as box and mask, a scribble
    as points along it.
    """
    points, labels = [], []
    for mask in masks:
        own: list[NDArray[np.floating]] = []
        kinds: list[int] = []
        if kind in ("click", "points", "click+box", "points+box"):
            if rng.random() < 0.5:
                own.append(np.array(interior_point(mask, ties="median")[::-1]))
            else:
                own.append(_random_pixel(mask, rng))
            kinds.append(1)
        if kind == "anywhere":
            own.append(_random_pixel(mask, rng))
            kinds.append(1)
        if kind == "scribble":
            # Points of the object in the order of a stroke drawn across it.
            stroke = np.array([_random_pixel(mask, rng) for _ in range(SCRIBBLE_POINTS)])
            angle = rng.uniform(0, np.pi)
            own += list(stroke[np.argsort(stroke @ np.array([np.cos(angle), np.sin(angle)]))])
            kinds += [1] * SCRIBBLE_POINTS
        if "points" in kind:
            own += [_random_pixel(mask, rng), _pixel_near_outside(mask, rng)]
            kinds += [1, 0]
        if "box" in kind:
            own += list(_loosen_box(bounding_box(mask), rng))
            kinds += [2, 3]
        else:
            own.append(np.zeros(2))
            kinds.append(-1)
        points.append(own)
        labels.append(kinds)
    coarse = _coarse_mask_logits(masks, rng) if "mask" in kind else None
    return PromptBatch(
        torch.tensor(np.array(points), dtype=torch.float32), torch.tensor(labels), coarse
    )


def add_correction(
    batch: PromptBatch,
    logits: Tensor,
    target: Tensor,
    stride: float,
    known: Tensor | None = None,
) -> PromptBatch:
    """Add a click in the largest error, and hand on the logits, as the window does.

    Parameters
    ----------
    logits, target
        (N, 1, h, w): the masks so far and the truth in 0..1.
    stride
        Pixels per cell of their grid.
    known
        (N, 1, h, w), 0 in cells where nothing is an error; by default there are none.
    """
    truth = target[:, 0] > 0.5
    wrong = (logits[:, 0] > 0) ^ truth
    if known is not None:
        wrong &= known[:, 0] > 0
    depth = wrong.float()[:, None]
    for window in (3, 5, 9):  # a cell deep inside a large wrong region scores highest
        depth = functional.avg_pool2d(depth, window, 1, window // 2) * wrong[:, None]
    empty = ~wrong.flatten(1).any(1)
    score = torch.where(empty[:, None], truth.flatten(1).float(), depth.flatten(1))
    best = score.argmax(1)
    width = wrong.shape[-1]
    xy = torch.stack([best % width, best // width], dim=1).float() * stride + (stride - 1) / 2
    label = truth.flatten(1).gather(1, best[:, None]).long()
    return PromptBatch(
        torch.cat([xy[:, None], batch.points], dim=1),
        torch.cat([label, batch.labels], dim=1),
        logits.detach(),
    )


def bounding_box(mask: BoolMasks) -> NDArray[np.float64]:
    """Corners ((x0, y0), (x1, y1)) of an object, half-open."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=float)


def _random_pixel(mask: BoolMasks, rng: np.random.Generator) -> NDArray[np.float64]:
    inside = np.flatnonzero(mask)
    pixel = inside[rng.integers(len(inside))]
    return np.array([pixel % mask.shape[1], pixel // mask.shape[1]], dtype=float)


def _pixel_near_outside(mask: BoolMasks, rng: np.random.Generator) -> NDArray[np.float64]:
    low, high = bounding_box(mask)
    reach = (high - low) * 0.4 + 4
    x0, y0 = np.maximum(low - reach, 0).astype(int)
    x1, y1 = np.minimum(high + reach, mask.shape[::-1]).astype(int)
    outside = ~mask[y0:y1, x0:x1]
    if not outside.any():
        x0 = y0 = 0
        outside = ~mask
    if not outside.any():  # an object that fills the image: its corner must do
        return np.zeros(2)
    return np.asarray(_random_pixel(outside, rng) + np.array([x0, y0]))


def _loosen_box(box: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    if rng.random() < 0.3:
        return box - 0.5  # edges of pixels in pixel-center coordinates
    sides = box[1] - box[0]
    side = sides.mean()
    low, high = rng.normal(0, 0.05 * side + 0.5, (2, 2)).clip(-0.2 * side, 0.2 * side)
    # Into a thin object no further than into its own width, else the corners would change places.
    shift = np.stack([low.clip(max=0.2 * sides), high.clip(min=-0.2 * sides)])
    return np.asarray(box - 0.5 + shift)


def _coarse_mask_logits(masks: BoolMasks, rng: np.random.Generator) -> Tensor:
    """Mask prompts as logits at stride 2: moved by up to a tenth, grown or shrunk, blocky."""
    coarse = []
    for mask in masks:
        low, high = bounding_box(mask)
        reach = max(1, int((high - low).mean() * 0.1))
        moved = np.roll(mask, rng.integers(-reach, reach + 1, 2), axis=(0, 1))
        blurred = torch.tensor(moved, dtype=torch.float32)[None]
        window = 2 * int(rng.integers(0, reach + 1)) + 1
        blurred = functional.avg_pool2d(blurred, window, 1, window // 2)
        coarse.append(blurred > rng.uniform(0.2, 0.8))
    grid = functional.avg_pool2d(torch.stack(coarse).float(), 2)
    return (grid - 0.5) * 12
