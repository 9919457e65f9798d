"""The dense prior of `tiny`: pixels that look like the prompt's object.

The encoder's dense head predicts for every second pixel the center and size of its object and a few
free features. Pixels that agree with the clicked one form a first guess, which the decoder gets as
SAM's mask prompt. This is the idea of instance embeddings (Neven et al., arXiv 1906.11109), with
distances in units of the object's own size, so that it holds at every scale.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Channels of the dense head: boundary and foreground logits, offset (y, x) to the object's center
# in units of its size, logarithm of its size, free features, logarithm of a scale, bias.
BOUNDARY, FOREGROUND, OFFSET, SIZE, FREE = 0, 1, slice(2, 4), 4, slice(5, 13)
SCALE, BIAS = 13, 14
DENSE_CHANNELS = 15
MASK_STRIDE = 2
"""Pixels per cell of the dense head and of the mask grid."""
SIZE_UNIT = 16.0
"""Pixels in which the dense head measures sizes, to keep its numbers near one."""
MAX_PRIOR_LOGIT = 10.0
"""Bound of the prior's logits."""
BOX_SAMPLES = 4
"""Candidate pixels along each side of a box for the one whose object fills it."""
BOX_EDGE_SHARE = 0.12
"""Share of a box's side that counts as its edge."""
CLICK_BUMP, CLICK_BUMP_SIGMA = 4.0, 4.0
"""Height and width of the bumps at clicks."""


def prompt_prior(
    pixels: DensePixels, points: Tensor, labels: Tensor, mask: Tensor | None
) -> Tensor:
    """The first guess from prompts as logits, (N, 1, h, w).

    Parameters
    ----------
    pixels
        Those of B images.
    points, labels
        (N, K, 2) and (N, K) as for `TinyNetwork.decode_batch`. Corners of boxes have the same
        positions in every prompt of a call; clicks may be positive in one and negative in another.
    mask
        (N, 1, h, w) logits, e.g. of an earlier result; averaged with the guess from points and box.
    """
    if mask is not None:
        mask = mask.float().clamp(-MAX_PRIOR_LOGIT, MAX_PRIOR_LOGIT)
        if bool((labels < 0).all()):
            return mask
    height, width = pixels.shape
    images = len(pixels.dense)
    count = len(points)
    positive, negative = labels == 1, labels == 0
    box = points[:, labels[0] >= 2]
    prior = torch.zeros(count, 1, height, width, device=points.device)
    clicked = positive.any(1)
    if bool(clicked.any()):
        prior = _largest_affinity(pixels, points, positive, -torch.inf)
        prior = torch.where(clicked[:, None, None, None], prior, 0.0)
    if box.shape[1]:
        # The box tells more about the object than a click in it, unless its guess misses a click.
        best = pixels.point_for_box(box.reshape(images, -1, 4)).reshape(count, 1, 2)
        guess = _affinities(pixels, best)
        misses = (positive & (_at(guess, points) < 0)).any(1)
        prior = torch.where(misses[:, None, None, None], prior, guess)
    if bool(negative.any()):
        prior = prior - _largest_affinity(pixels, points, negative, 0.0).clamp(min=0)
    if box.shape[1]:
        prior = torch.minimum(prior, filled_box(box, pixels.shape))
    prior = prior.clamp(-MAX_PRIOR_LOGIT, MAX_PRIOR_LOGIT)
    return prior if mask is None else (prior + mask) / 2


def _affinities(pixels: DensePixels, points: Tensor) -> Tensor:
    """`DensePixels.affinity` for points (N, K, 2) of N = B * P prompts -> (N, K, h, w)."""
    count, each, _ = points.shape
    flat = pixels.affinity(points.reshape(len(pixels.dense), -1, 2))
    return flat.reshape(count, each, *pixels.shape)


def _at(logits: Tensor, points: Tensor) -> Tensor:
    """Values (N, K) of logits (N, 1, h, w) at points (N, K, 2) x, y."""
    height, width = logits.shape[-2:]
    column, row = ((points + 0.5) / MASK_STRIDE).long().unbind(-1)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return logits.flatten(1).gather(1, index)


def _largest_affinity(pixels: DensePixels, points: Tensor, used: Tensor, fill: float) -> Tensor:
    """Largest affinity (N, 1, h, w) to the points of each prompt that are `used` (N, K)."""
    columns = used.any(0)
    affinities = _affinities(pixels, points[:, columns])
    affinities = affinities.masked_fill(~used[:, columns, None, None], fill)
    return affinities.amax(1, keepdim=True)


def filled_box(corners: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Logits of a filled box on the mask grid: corners (N, 2, 2) x, y -> (N, 1, h, w)."""
    x0, y0, x1, y1 = corners.flatten(1).float().unbind(-1)
    height, width = shape
    y = torch.arange(height, device=corners.device) * MASK_STRIDE + 0.5
    x = torch.arange(width, device=corners.device) * MASK_STRIDE + 0.5

    def cover(grid: Tensor, low: Tensor, high: Tensor) -> Tensor:
        rising = (grid - low[:, None]) / MASK_STRIDE + 0.5
        falling = (high[:, None] - grid) / MASK_STRIDE + 0.5
        return rising.clamp(0, 1) * falling.clamp(0, 1)

    inside = cover(y, y0, y1)[:, :, None] * cover(x, x0, x1)[:, None]
    return ((2 * inside - 1) * MAX_PRIOR_LOGIT)[:, None]


def click_bumps(points: Tensor, labels: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Gaussian bumps at the clicks on the mask grid, down for negative ones, (N, 1, h, w)."""
    height, width = shape
    y = torch.arange(height, device=points.device) * MASK_STRIDE + 0.5
    x = torch.arange(width, device=points.device) * MASK_STRIDE + 0.5
    column = torch.exp(-0.5 * ((x - points[..., :1]) / CLICK_BUMP_SIGMA).square())  # (N, K, w)
    row = torch.exp(-0.5 * ((y - points[..., 1:]) / CLICK_BUMP_SIGMA).square())  # (N, K, h)
    sign = (labels == 1).float() - (labels == 0).float()
    return CLICK_BUMP * torch.einsum("nkh,nkw,nk->nhw", row, column, sign)[:, None]


class DensePixels:
    """The dense head's map (B, 15, h, w) float32, one vector for every second pixel."""

    def __init__(self, dense: Tensor) -> None:
        self.dense = dense
        self.shape = dense.shape[-2:]
        height, width = self.shape
        y = (torch.arange(height, device=dense.device) * MASK_STRIDE + 0.5) / SIZE_UNIT
        x = (torch.arange(width, device=dense.device) * MASK_STRIDE + 0.5) / SIZE_UNIT
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"))
        self.size = dense[:, SIZE].clamp(-3, 5).exp()  # (B, h, w), of sqrt(area), in `SIZE_UNIT`
        self.center = grid + dense[:, OFFSET] * self.size[:, None]  # (B, 2, h, w) in `SIZE_UNIT`

    def affinity(self, points: Tensor) -> Tensor:
        """Logits of 'same object as this pixel' for points (B, P, 2) x, y -> (B, P, h, w)."""
        batch, count, _ = points.shape
        height, width = self.shape
        column, row = ((points + 0.5) / MASK_STRIDE).long().unbind(-1)
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # (B, P)

        def at(maps: Tensor) -> Tensor:  # (B, C, h, w) -> (B, P, C)
            flat = maps.flatten(2)
            return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)

        size = at(self.size[:, None])
        distance = _distances(at(self.center), self.center.flatten(2)) / size.square()
        free = self.dense[:, FREE]
        distance = distance + _distances(at(free), free.flatten(2))
        scale = (at(self.dense[:, SCALE, None]) + 1.0).clamp(-5, 5).exp()
        logits = 2 + at(self.dense[:, BIAS, None]) - distance * scale
        return logits.clamp(-MAX_PRIOR_LOGIT, MAX_PRIOR_LOGIT).reshape(batch, count, height, width)

    @torch.no_grad()
    def point_for_box(self, boxes: Tensor) -> Tensor:
        """The pixel whose object fills a box best: (B, P, 4) x0 y0 x1 y1 -> (B, P, 2) x, y.

        Of `best_in_box` and a grid of pixels within the box it is the one whose first guess best
        reaches all four sides of the box without crossing them.
        """
        low = boxes[..., None, :2]
        high = boxes[..., None, 2:]
        ticks = (torch.arange(BOX_SAMPLES, device=boxes.device) + 0.5) / BOX_SAMPLES
        candidates = low + torch.cartesian_prod(ticks, ticks) * (high - low)
        candidates = torch.cat([self.best_in_box(boxes)[:, :, None], candidates], dim=2)
        images, count, each, _ = candidates.shape
        guess = self.affinity(candidates.flatten(1, 2)).sigmoid()
        guess = guess.reshape(images, count, each, *self.shape)
        inside = filled_box(boxes.reshape(-1, 2, 2), self.shape).sigmoid()
        within = guess * inside.reshape(images, count, 1, *self.shape)
        score = within.sum((-2, -1)) / guess.sum((-2, -1)).clamp(min=1e-6)
        for axis in (0, 1):  # x, then y
            profile = within.amax(-2 + axis)  # (B, P, T, w or h)
            place = torch.arange(profile.shape[-1], device=boxes.device) * MASK_STRIDE + 0.5
            start, end = low[..., axis, None], high[..., axis, None]
            band = (BOX_EDGE_SHARE * (end - start)).clamp(min=2 * MASK_STRIDE)
            for near in (place < start + band, place > end - band):
                score = score + (profile * near).amax(-1) / 4
        best = score.argmax(-1)[..., None, None].expand(-1, -1, 1, 2)
        return candidates.gather(2, best)[:, :, 0]

    @torch.no_grad()
    def best_in_box(self, boxes: Tensor) -> Tensor:
        """The pixel whose center and size fit a box best: (B, P, 4) x0 y0 x1 y1 -> (B, P, 2)."""
        height, width = self.shape
        low = boxes[..., :2]
        high = boxes[..., 2:]
        middle = ((low + high) / 2 + 0.5) / SIZE_UNIT
        sides = (high - low).clamp(min=2) / SIZE_UNIT
        center = middle.flip(-1)[..., None, None]  # (B, P, 2, 1, 1) as y, x
        spread = 0.35 * sides.flip(-1)[..., None, None]
        misfit = ((self.center[:, None] - center) / spread).square().sum(2)
        log_size = 0.5 * torch.log(0.7 * sides.prod(-1))[..., None, None]
        misfit = misfit + 4 * (self.dense[:, None, SIZE] - log_size).square()
        misfit = misfit - functional.logsigmoid(self.dense[:, None, FOREGROUND])
        x = torch.arange(width, device=boxes.device) * MASK_STRIDE + 0.5
        y = torch.arange(height, device=boxes.device) * MASK_STRIDE + 0.5
        inside = ((y > low[..., 1:]) & (y < high[..., 1:]))[..., None] & (
            (x > low[..., :1]) & (x < high[..., :1])
        )[..., None, :]
        best = (misfit + 1e4 * ~inside).flatten(2).argmin(-1)
        return torch.stack([x[best % width], y[best // width]], dim=-1)


def _distances(ours: Tensor, all_pixels: Tensor) -> Tensor:
    """Squared distances of (B, P, C) to (B, C, hw) -> (B, P, hw)."""
    ours2 = ours.square().sum(-1, keepdim=True)
    theirs2 = all_pixels.square().sum(1)[:, None]
    return (ours2 - 2 * ours @ all_pixels + theirs2).clamp(min=0)
