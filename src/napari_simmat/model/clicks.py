"""Many lone clicks at once: what `TinyNetwork.decode` does for one, level by level for all.

Alternatives are those of the answer's own level, so that they lie in one small window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.model.extent import ENOUGH, likely, trust
from napari_simmat.model.network import Encoded, Network, Placed
from napari_simmat.model.pyramid import MASK_STRIDE
from napari_simmat.model.window import Window


class _Answer(NamedTuple):
    """The best answer so far to a click."""

    trust: float
    window: Window
    scale: float
    logits: Tensor
    quality: Tensor


def answers(network: Network, encoded: Encoded, clicks: Tensor) -> list[Placed]:
    """Answer clicks (N, 2) x, y, each on the level whose answer can be trusted most.

    All clicks whose turn it is on a level are decoded together, each in the window around it.
    """
    orders = [likely(encoded.levels, click[None]) for click in clicks]
    best: dict[int, _Answer] = {}
    waiting = list(range(len(clicks)))
    for turn in range(len(encoded.levels)):
        for level in encoded.levels:
            asked = [click for click in waiting if orders[click][turn] is level]
            if asked:
                _ask(network, level, asked, clicks, best)
        waiting = [click for click in waiting if best[click].trust < ENOUGH]
    grid = [round(side / encoded.scale) // MASK_STRIDE for side in encoded.input_size]
    return [_placed(best[click], (grid[0], grid[1])) for click in range(len(clicks))]


def _ask(
    network: Network,
    level: Encoded,
    asked: list[int],
    clicks: Tensor,
    best: dict[int, _Answer],
) -> None:
    """Decode some of the clicks on a level; `best` keeps the answer that is trusted more."""
    windows = [Window.around(level, (float(x), float(y))) for x, y in clicks[asked]]
    logits, quality = _decoded(network, level, windows, clicks[asked])
    for at, (click, window) in enumerate(zip(asked, windows, strict=True)):
        left = window.is_left(logits[at, 0], level)
        trusted = trust(float(quality[at, 0].detach()), logits[at, 0], left)
        if click not in best or trusted > best[click].trust:
            best[click] = _Answer(trusted, window, level.scale, logits[at], quality[at])


def _decoded(
    network: Network, level: Encoded, windows: list[Window], clicks: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits (N, 4, h, w) over the windows, which are of one size, and qualities (N, 4)."""
    points = torch.stack(
        [window.points(click, level.scale) for window, click in zip(windows, clicks, strict=True)]
    )
    padded = torch.stack([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([1, -1], device=points.device).expand(len(points), 2)
    return network.decode_batch(_stacked([each.crop(level) for each in windows]), padded, kinds)


def _stacked(crops: list[Encoded]) -> Encoded:
    """Encoded windows of one size as a batch."""
    maps = {name: torch.cat([each.maps[name] for each in crops]) for name in crops[0].maps}
    embedding = torch.cat([each.embedding for each in crops])
    return Encoded(embedding, crops[0].input_size, maps, crops[0].scale)


def _placed(answer: _Answer, grid: tuple[int, int]) -> Placed:
    logits, top, left = answer.window.placed(answer.logits, answer.scale, grid)
    return Placed(logits, answer.quality, top, left)
