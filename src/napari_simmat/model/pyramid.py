"""One image at several scales, so that `tiny` sees every object at about the size it knows.

The network is trained on objects of some ten to a hundred pixels. The encoder therefore runs on
the image, and on it at half, a quarter, ... of its size; a prompt is answered on the scale at
which its object (`extent.py`) is about as wide as the network knows best, in a window around it
(`window.py`). So the answer depends little on the image's resolution, and a click costs the same in
a large image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from napari_simmat.model.network import Encoded

WINDOW = 256
"""Side in pixels of what a prompt's answer looks at, and of the largest crops in training."""
SMALLEST = 128
"""Longest side in pixels at which the row of scales ends."""
MULTIPLE = 32
"""Sides of what is encoded are multiples of this many pixels."""
WHOLE = 2048
"""Longest side in pixels of a level that is encoded at once; beyond, it is cut into tiles."""
CORE, HALO = 1024, 256
"""Pixels of a tile that are kept, and those around them that are encoded for context."""
MASK_STRIDE = 2


def scales(height: int, width: int) -> list[float]:
    """Scales at which an image is encoded, finest first; halved each time."""
    longest = max(height, width)
    scale = 2.0 if 2 * longest <= 2 * WINDOW else 1.0
    found = [scale]
    while longest * scale > SMALLEST:
        scale /= 2
        found.append(scale)
    return found


def images(image: Tensor) -> Iterator[tuple[float, Tensor]]:
    """The image (B, C, H, W) at all its scales, padded with zeros to multiples of `MULTIPLE`."""
    for scale in scales(*image.shape[-2:]):
        if scale == 2:
            finer = interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
            yield scale, finer
        else:
            if scale < 1:
                image = avg_pool2d(image, 2)
            below, right = (-side % MULTIPLE for side in image.shape[-2:])
            yield scale, pad(image, (0, right, 0, below))


class Tile(NamedTuple):
    """A part of a level that is encoded at once, in its pixels; its core is what is kept.

    Attributes
    ----------
    rows, columns
        What is encoded.
    core_rows, core_columns
        What is kept; the cores of all tiles cover the level.
    """

    rows: slice
    columns: slice
    core_rows: slice
    core_columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """The tile's part of an image (..., H, W)."""
        return image[..., self.rows, self.columns]


def tiles(height: int, width: int) -> list[Tile]:
    """Tiles that cover a level; a single one where it is not larger than `WHOLE`."""
    return [
        Tile(rows, columns, core_rows, core_columns)
        for rows, core_rows in _cuts(height)
        for columns, core_columns in _cuts(width)
    ]


def _cuts(side: int) -> list[tuple[slice, slice]]:
    if side <= WHOLE:
        return [(slice(0, side), slice(0, side))]
    cuts = []
    for start in range(0, side, CORE):
        end = min(start + CORE, side)
        cuts.append((slice(max(start - HALO, 0), min(end + HALO, side)), slice(start, end)))
    return cuts


def joined(parts: list[tuple[Tile, Encoded]]) -> Encoded:
    """The level whose tiles were encoded apart."""
    if len(parts) == 1:
        return parts[0][1]
    height = max(tile.rows.stop for tile, _ in parts)
    width = max(tile.columns.stop for tile, _ in parts)

    def whole(maps: list[Tensor]) -> Tensor:
        step = (parts[0][0].rows.stop - parts[0][0].rows.start) // maps[0].shape[-2]
        joint = maps[0].new_empty((*maps[0].shape[:2], height // step, width // step))
        for (tile, _), part in zip(parts, maps, strict=True):
            kept, place = [], []
            for cut, core in ((tile.rows, tile.core_rows), (tile.columns, tile.core_columns)):
                kept.append(
                    slice((core.start - cut.start) // step, (core.stop - cut.start) // step)
                )
                place.append(slice(core.start // step, core.stop // step))
            joint[..., place[0], place[1]] = part[..., kept[0], kept[1]]
        return joint

    encoded = [each for _, each in parts]
    maps = {name: whole([each.maps[name] for each in encoded]) for name in encoded[0].maps}
    return Encoded(whole([each.embedding for each in encoded]), (height, width), maps)
