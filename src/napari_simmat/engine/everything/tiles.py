"""Segment everything tile by tile, in bounded memory, for planes of any size."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.everything.candidates import (
    Instances,
    MaskCandidates,
    PixelBox,
    masks_to_instances,
)
from napari_simmat.engine.everything.crop_masks import CropRegion
from napari_simmat.engine.everything.decoded_objects import decode_objects_job
from napari_simmat.engine.everything.kind_learning import known_kind, weigh_masks_job
from napari_simmat.engine.everything.mask_proposals import CropPrompter
from napari_simmat.engine.everything.seeds import prompt_positions, prompts_at, seed_prompts
from napari_simmat.engine.everything.stitching import Stitcher, tile_boxes
from napari_simmat.engine.everything.word_search import named_candidates
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.everything.tile_journal import TileJournal
    from napari_simmat.engine.everything.tissue import TissueMask
    from napari_simmat.engine.predictor import Predictor


def segment_tiles_job(
    predictor: Predictor,
    labels: Any,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    kind: ObjectKind | None = None,
    tissue: TissueMask | None = None,
    journal: TileJournal | None = None,
) -> Job[NDArray[np.float32]]:
    """Find all objects of a plane in overlapping tiles, stitched across their seams.

    All tiles are normalized as the whole image.

    Parameters
    ----------
    predictor
        Holds the image; `Predictor.open_image_job` opens one without encoding a whole plane.
    labels
        (Y, X) uint32, empty: numpy, or zarr if it does not fit into memory. It is filled tile by
        tile; the objects are 1..N.
    settings
        By default the model's; `tile` and `tile_overlap` define the tiles.
    plane
        Index along the image's axes before Y and X.
    kind
        What the objects have in common; by default the size in the settings, or what the model
        has learned.
    tissue
        Where alone objects are looked for: tiles without it are not encoded.
    journal
        Keeps what is done beside the output, so that a run that was killed goes on at its tile.

    Returns
    -------
    (N,) predicted IoU of the objects.
    """
    settings = settings or AutomaticSettings()
    settings.check_words(predictor.model.spec)
    kind = kind or known_kind(predictor, settings)
    settings = settings.for_model(predictor.model.spec, kind)
    height, width = predictor.shape[-2:]
    stitcher = Stitcher(labels if journal is None else journal.labels, settings.overlap)
    known = 0 if journal is None else journal.restore(stitcher)
    max_pixels = settings.max_area * height * width
    tiles = tile_boxes((height, width), settings.tile_side, settings.tile_shared)
    with predictor.keeping_plane():
        for done, tile in enumerate(tiles):
            here = Progress(done, len(tiles), f"tile {done + 1} of {len(tiles)}")
            if done < known:
                continue
            yield here
            if tissue is not None and not tissue.part(tile).any():
                continue
            proposed = yield from with_progress(
                _tile_masks_job(predictor, settings, plane, tile, kind, tissue, max_pixels), here
            )
            if proposed is None:
                continue
            part, candidates, within = proposed
            found = masks_to_instances(candidates, within)
            _stitch(stitcher, found, part, journal, done + 1)
    yield Progress(len(tiles), len(tiles), "numbering")
    into = None if journal is None else labels
    return stitcher.finish(settings.keep_border, max_pixels, into=into)


def _tile_masks_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...],
    tile: PixelBox,
    kind: ObjectKind | None,
    tissue: TissueMask | None,
    max_pixels: float,
) -> Job[tuple[PixelBox, MaskCandidates, AutomaticSettings] | None]:
    """The part of a tile that was looked at, its masks, and the settings that filter them.

    None if there is nothing to look at. An object has at most `max_pixels`.
    """
    if settings.uses_decoder(predictor.model.spec, kind):
        within = _settings_within(settings, tile, max_pixels)
        decoder = None if kind is None else kind.decoder
        found = yield from decode_objects_job(
            predictor, within, plane, tile, keep=False, decoder=decoder
        )
        if tissue is not None and len(found):
            middles = [np.add(each.box[:2], each.box[2:]) / 2 - 0.5 for each in found.known]
            found = found.only(tissue.holds(np.array(middles) + np.array([tile.y0, tile.x0])))
        return tile, found, within
    if settings.words:
        yield from predictor.encode_tile_job(plane, *tile.slices, keep=False)
        within = _settings_within(settings, tile, max_pixels)
        return tile, named_candidates(predictor, within, tile.size), within
    positions = prompt_positions(seed_prompts(predictor, settings, plane, tile, kind))
    if tissue is not None:
        positions = positions[tissue.holds(positions + np.array([tile.y0, tile.x0]))]
    if not len(positions):
        return None
    part = box_around(positions, tile, settings.tile_shared)
    seeds = prompts_at(positions + np.array([tile.y0 - part.y0, tile.x0 - part.x0]))
    yield from predictor.encode_tile_job(plane, *part.slices, keep=False)
    candidates = MaskCandidates(part.size, settings.thresholds)
    own = CropRegion(PixelBox(0, 0, *part.size))
    within = _settings_within(settings, part, max_pixels)
    size = None if kind is None else kind.size
    prompter = CropPrompter(
        predictor, seeds, own, within, candidates, keep_all=False, expected=size
    )
    yield from prompter.run_job(settings.seeds == "grid")
    if kind is not None:
        candidates = yield from weigh_masks_job(candidates, kind, predictor, plane, part=part)
    return part, candidates, within


def _settings_within(
    settings: AutomaticSettings, part: PixelBox, max_pixels: float
) -> AutomaticSettings:
    """The settings for a part of a plane, whose border and area are not the plane's.

    A mask that nearly fills a part is not an object either.
    """
    largest = max(settings.max_area, AutomaticSettings.max_area)
    share = min(max_pixels / math.prod(part.size), largest)
    return replace(settings, keep_border=True, max_area=share)


def _stitch(
    stitcher: Stitcher, found: Instances, part: PixelBox, journal: TileJournal | None, done: int
) -> None:
    """Add the objects of a part, and note that so many tiles are done."""
    if journal is None:
        stitcher.add(found, part)
    else:
        stitcher.add(found, part, partial(journal.keep, stitcher, part, done))
        journal.end(done)


def box_around(positions: NDArray[np.float64], tile: PixelBox, margin: int) -> PixelBox:
    """The part of a tile, in the plane's pixels, within `margin` of its seeds.

    The rest of the tile need not be encoded. `positions` (N, 2) are y, x in the tile's pixels.
    """
    first = np.maximum(np.floor(positions.min(0)).astype(int) - margin, 0)
    last = np.minimum(np.ceil(positions.max(0)).astype(int) + 1 + margin, tile.size)
    corner = np.array([tile.y0, tile.x0])
    return PixelBox(*(corner + first).tolist(), *(corner + last).tolist())
