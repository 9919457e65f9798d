"""The dense prior of `tiny`: which pixels look like the same object as the prompt.

A dense head predicts for every second pixel the centre and size of its object and a few free
features; pixels that agree with the clicked one form a first guess, given to the decoder as
SAM's mask prompt. The idea is that of instance embeddings (Neven et al., arXiv 1906.11109), with
distances in units of the object's own size so that it holds at every scale.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Channels of the dense head: boundary and foreground logits, offset (y, x) to the object's centre
# in units of its size, logarithm of its size, free features, logarithm of a scale, bias.
BOUNDARY, FOREGROUND, OFFSET, SIZE, FREE = 0, 1, slice(2, 4), 4, slice(5, 13)
SCALE, BIAS = 13, 14
DENSE_CHANNELS = 15

STRIDE = 2
UNIT = 16.0
"""Pixels in which the dense head measures sizes; keeps its numbers near one."""
LIMIT = 10.0
"""Bound of the prior's logits."""
TRIED = 4
"""A box tries so many pixels along each side for the one whose object fills it."""
BAND = 0.12
"""Share of a box's side that counts as its edge."""
BUMP = 4.0
BUMP_SIGMA = 4.0


class Pixels:
    """What the dense head says of every second pixel, (B, 15, h, w) float32."""

    def __init__(self, dense: Tensor) -> None:
        self.dense = dense
        self.shape = dense.shape[-2:]
        height, width = self.shape
        y = (torch.arange(height, device=dense.device) * STRIDE + 0.5) / UNIT
        x = (torch.arange(width, device=dense.device) * STRIDE + 0.5) / UNIT
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"))
        self.size = dense[:, SIZE].clamp(-3, 5).exp()  # (B, h, w), of sqrt(area), in UNITs
        self.centre = grid + dense[:, OFFSET] * self.size[:, None]  # (B, 2, h, w) in UNITs

    def affinity(self, points: Tensor) -> Tensor:
        """Logits of 'same object as this pixel' for points (B, P, 2) x, y -> (B, P, h, w)."""
        batch, count, _ = points.shape
        height, width = self.shape
        column, row = ((points + 0.5) / STRIDE).long().unbind(-1)
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # (B, P)

        def at(maps: Tensor) -> Tensor:  # (B, C, h, w) -> (B, P, C)
            flat = maps.flatten(2)
            return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)

        size = at(self.size[:, None])
        distance = _distances(at(self.centre), self.centre.flatten(2)) / size.square()
        free = self.dense[:, FREE]
        distance = distance + _distances(at(free), free.flatten(2))
        scale = (at(self.dense[:, SCALE, None]) + 1.0).clamp(-5, 5).exp()
        logits = 2 + at(self.dense[:, BIAS, None]) - distance * scale
        return logits.clamp(-LIMIT, LIMIT).reshape(batch, count, height, width)

    @torch.no_grad()
    def point_for_box(self, boxes: Tensor) -> Tensor:
        """The pixel whose object fills a box best: (B, P, 4) x0 y0 x1 y1 -> (B, P, 2) x, y.

        Tried are `best_in_box` and a grid of pixels within the box. The guess that a pixel gives
        should reach all four sides of the box and not go beyond them.
        """
        low, high = boxes[..., None, :2], boxes[..., None, 2:]
        ticks = (torch.arange(TRIED, device=boxes.device) + 0.5) / TRIED
        tried = low + torch.cartesian_prod(ticks, ticks) * (high - low)
        tried = torch.cat([self.best_in_box(boxes)[:, :, None], tried], dim=2)
        images, count, each, _ = tried.shape
        guess = self.affinity(tried.flatten(1, 2)).sigmoid()
        guess = guess.reshape(images, count, each, *self.shape)
        inside = filled_box(boxes.reshape(-1, 2, 2), self.shape).sigmoid()
        within = guess * inside.reshape(images, count, 1, *self.shape)
        worth = within.sum((-2, -1)) / guess.sum((-2, -1)).clamp(min=1e-6)
        for axis in (0, 1):  # x, then y
            profile = within.amax(-2 + axis)  # (B, P, T, w or h)
            place = torch.arange(profile.shape[-1], device=boxes.device) * STRIDE + 0.5
            start, end = low[..., axis, None], high[..., axis, None]
            band = (BAND * (end - start)).clamp(min=2 * STRIDE)
            for near in (place < start + band, place > end - band):
                worth = worth + (profile * near).amax(-1) / 4
        best = worth.argmax(-1)[..., None, None].expand(-1, -1, 1, 2)
        return tried.gather(2, best)[:, :, 0]

    @torch.no_grad()
    def best_in_box(self, boxes: Tensor) -> Tensor:
        """The pixel whose centre and size fit a box best: (B, P, 4) x0 y0 x1 y1 -> (B, P, 2)."""
        height, width = self.shape
        low, high = boxes[..., :2], boxes[..., 2:]
        middle = ((low + high) / 2 + 0.5) / UNIT
        sides = (high - low).clamp(min=2) / UNIT
        centre = middle.flip(-1)[..., None, None]  # (B, P, 2, 1, 1) as y, x
        spread = 0.35 * sides.flip(-1)[..., None, None]
        misfit = ((self.centre[:, None] - centre) / spread).square().sum(2)
        wanted = 0.5 * torch.log(0.7 * sides.prod(-1))[..., None, None]
        misfit = misfit + 4 * (self.dense[:, None, SIZE] - wanted).square()
        misfit = misfit - functional.logsigmoid(self.dense[:, None, FOREGROUND])
        x = torch.arange(width, device=boxes.device) * STRIDE + 0.5
        y = torch.arange(height, device=boxes.device) * STRIDE + 0.5
        inside = ((y > low[..., 1:]) & (y < high[..., 1:]))[..., None] & (
            (x > low[..., :1]) & (x < high[..., :1])
        )[..., None, :]
        best = (misfit + 1e4 * ~inside).flatten(2).argmin(-1)
        return torch.stack([x[best % width], y[best // width]], dim=-1)


def prior_of(pixels: Pixels, points: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
    """The first guess from prompts as logits, (N, 1, h, w).

    Parameters
    ----------
    pixels
        Of B images.
    points, labels
        (N, K, 2) and (N, K) as for `TinyNetwork.decode_batch`; corners of boxes stand at the same
        places in every prompt of a call, clicks may be positive in one and negative in another.
    mask
        (N, 1, h, w) logits, e.g. of the answer before; the first guess is the mean of them and of
        what points and box say.
    """
    if mask is not None:
        mask = mask.float().clamp(-LIMIT, LIMIT)
        if bool((labels < 0).all()):
            return mask
    height, width = pixels.shape
    images, count = len(pixels.dense), len(points)
    positive, negative = labels == 1, labels == 0
    box = points[:, labels[0] >= 2]
    prior = torch.zeros(count, 1, height, width, device=points.device)
    lone = ~positive.any(1)
    if box.shape[1] and bool(lone.any()):
        best = pixels.point_for_box(box.reshape(images, -1, 4)).reshape(count, 1, 2)
        prior = torch.where(lone[:, None, None, None], _affinities(pixels, best), prior)
    if bool(positive.any()):
        near = _affinities_of(pixels, points, positive, -torch.inf)
        prior = torch.where(lone[:, None, None, None], prior, near)
    if bool(negative.any()):
        prior = prior - _affinities_of(pixels, points, negative, 0.0).clamp(min=0)
    if box.shape[1]:
        prior = torch.minimum(prior, filled_box(box, pixels.shape))
    prior = prior.clamp(-LIMIT, LIMIT)
    return prior if mask is None else (prior + mask) / 2


def filled_box(corners: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Logits of a filled box on the mask grid: corners (N, 2, 2) x, y -> (N, 1, h, w)."""
    x0, y0, x1, y1 = corners.flatten(1).float().unbind(-1)
    height, width = shape
    y = torch.arange(height, device=corners.device) * STRIDE + 0.5
    x = torch.arange(width, device=corners.device) * STRIDE + 0.5

    def cover(grid: Tensor, low: Tensor, high: Tensor) -> Tensor:
        rising = (grid - low[:, None]) / STRIDE + 0.5
        falling = (high[:, None] - grid) / STRIDE + 0.5
        return rising.clamp(0, 1) * falling.clamp(0, 1)

    inside = cover(y, y0, y1)[:, :, None] * cover(x, x0, x1)[:, None]
    return ((2 * inside - 1) * LIMIT)[:, None]


def bumps(points: Tensor, labels: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Small hills and hollows at the clicks on the mask grid, (N, 1, h, w)."""
    height, width = shape
    y = torch.arange(height, device=points.device) * STRIDE + 0.5
    x = torch.arange(width, device=points.device) * STRIDE + 0.5
    column = torch.exp(-0.5 * ((x - points[..., :1]) / BUMP_SIGMA).square())  # (N, K, w)
    row = torch.exp(-0.5 * ((y - points[..., 1:]) / BUMP_SIGMA).square())  # (N, K, h)
    sign = (labels == 1).float() - (labels == 0).float()
    return BUMP * torch.einsum("nkh,nkw,nk->nhw", row, column, sign)[:, None]


def _affinities(pixels: Pixels, points: Tensor) -> Tensor:
    """`Pixels.affinity` for points (N, K, 2) of N = B * P prompts -> (N, K, h, w)."""
    count, each, _ = points.shape
    flat = pixels.affinity(points.reshape(len(pixels.dense), -1, 2))
    return flat.reshape(count, each, *pixels.shape)


def _affinities_of(pixels: Pixels, points: Tensor, meant: Tensor, otherwise: float) -> Tensor:
    """The largest affinity to those points of each prompt that are `meant` (N, K), (N, 1, h, w)."""
    columns = meant.any(0)
    found = _affinities(pixels, points[:, columns])
    found = found.masked_fill(~meant[:, columns, None, None], otherwise)
    return found.amax(1, keepdim=True)


def _distances(ours: Tensor, all_pixels: Tensor) -> Tensor:
    """Squared distances of (B, P, C) to (B, C, hw) -> (B, P, hw)."""
    ours2, theirs2 = ours.square().sum(-1, keepdim=True), all_pixels.square().sum(1)[:, None]
    return (ours2 - 2 * ours @ all_pixels + theirs2).clamp(min=0)
