"""Segment everything in a plane of any size: tile by tile, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.automatic.candidates import Box, Candidates
from napari_simmat.engine.automatic.seeds import at_points, positions_of
from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.automatic.sifting import sift
from napari_simmat.engine.automatic.stitching import Stitcher, tiles_of
from napari_simmat.progress import Job, Progress, retold

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


def segmenting_tiles(
    predictor: Predictor,
    labels: Any,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
) -> Job[NDArray[np.float32]]:
    """Find all objects of a plane in overlapping tiles, normalised as one, stitched across seams.

    Parameters
    ----------
    predictor
        With an image; `Predictor.opening` hands over one that need not be encoded as a whole.
    labels
        (Y, X) uint32, empty: numpy, or zarr for what does not fit into memory. Filled tile by
        tile; every object has one id, 1..N.
    settings
        The model's defaults where left out; `tile` and `tile_overlap` say how it is cut.
    plane
        Index along the image's axes before Y and X.

    Returns
    -------
    (N,) the model's own estimates of the objects' IoU.
    """
    from napari_simmat.engine.automatic.proposing import Crop, asking, seeds_of

    settings = (settings or AutomaticSettings()).for_model(predictor.model.spec)
    height, width = predictor.shape[-2:]
    stitcher = Stitcher(labels, settings.overlap)
    most = settings.max_area * height * width
    tiles = tiles_of((height, width), settings.tile_side, settings.tile_shared)
    with predictor.keeping_plane():
        for done, tile in enumerate(tiles):
            here = Progress(done, len(tiles), f"tile {done + 1} of {len(tiles)}")
            yield here
            positions = positions_of(seeds_of(predictor, settings, plane, tile))
            if not len(positions):
                continue
            part = around(positions, tile, settings.tile_shared)
            seeds = at_points(positions + np.array([tile.y0 - part.y0, tile.x0 - part.x0]))
            yield from retold(predictor.cutting(plane, *part.slices, keep=False), here)
            candidates = Candidates(part.size)
            own = Crop(Box(0, 0, *part.size))
            within = within_part(settings, part.size, most)
            asked = asking(predictor, seeds, own, within, candidates, (0, len(seeds)), False)
            yield from retold(asked, here)
            stitcher.add(sift(candidates, within), part)
    yield Progress(len(tiles), len(tiles), "numbering")
    return stitcher.finish(settings.keep_border, most)


def within_part(
    settings: AutomaticSettings, size: tuple[int, int], most: float
) -> AutomaticSettings:
    """The settings for a part of a plane: its border and its area are not the plane's.

    What fills a part nearly is no object all the same.

    Parameters
    ----------
    size
        Height and width of the part.
    most
        Pixels up to which an object of the plane stays.
    """
    share = min(most / math.prod(size), max(settings.max_area, AutomaticSettings.max_area))
    return replace(settings, keep_border=True, max_area=share)


def around(positions: NDArray[np.float64], tile: Box, margin: int) -> Box:
    """The part of a tile within `margin` pixels of seeds: all of it that is worth encoding.

    Parameters
    ----------
    positions
        (N, 2) as y, x in the tile's pixels, at least one.

    Returns
    -------
    Box
        In the plane's pixels.
    """
    first = np.maximum(np.floor(positions.min(0)).astype(int) - margin, 0)
    last = np.minimum(np.ceil(positions.max(0)).astype(int) + 1 + margin, tile.size)
    return Box(
        tile.y0 + int(first[0]),
        tile.x0 + int(first[1]),
        tile.y0 + int(last[0]),
        tile.x0 + int(last[1]),
    )
