"""Which parts of a large stack are looked at for all of it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np

BLOCK = 256
"""Side of a block, in pixels."""

Block = tuple[tuple[int, ...], slice, slice]
"""Index of the plane, rows, columns."""


def spread(shape: tuple[int, ...], budget: int) -> list[Block]:
    """Choose blocks of a stack (..., Y, X): all planes if their voxels fit the budget.

    Otherwise square blocks at even distances through planes and plane, each shifted by a seeded
    amount, so that no period of the image is met in step; the same ones every time.
    """
    *leading, height, width = shape
    if math.prod(shape) <= budget:
        return [(index, slice(None), slice(None)) for index in np.ndindex(*leading)]
    side = min(BLOCK, height), min(BLOCK, width)
    tiles = list(_tiles(height, width, side))
    total = math.prod(leading) * len(tiles)
    count = min(total, max(1, budget // math.prod(side)))
    # Python's random numbers are the same in all versions and on all systems.
    seeded = random.Random(0)
    positions = [int((n + seeded.random()) * total / count) for n in range(count)]
    blocks = []
    for position in positions:
        plane, tile = divmod(position, len(tiles))
        index = tuple(int(i) for i in np.unravel_index(plane, leading)) if leading else ()
        blocks.append((index, *tiles[tile]))
    return blocks


def _tiles(height: int, width: int, side: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for y in range(0, height, side[0]):
        for x in range(0, width, side[1]):
            yield slice(y, min(y + side[0], height)), slice(x, min(x + side[1], width))
