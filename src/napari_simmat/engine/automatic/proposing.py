"""What a model answers all over a plane, as candidates; where and on which crops it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import generate_crop_boxes, is_box_near_crop_edge

from napari_simmat.engine.automatic.candidates import Box, Candidate, Candidates
from napari_simmat.engine.automatic.seeds import at_points, grid, local_maxima, positions_of
from napari_simmat.engine.automatic.settings import LEAST_QUALITY, AutomaticSettings, grid_points
from napari_simmat.engine.automatic.sifting import passes
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.answers import Answer
    from napari_simmat.engine.predictor import Predictor

BATCH = {"cpu": 16}
"""Prompts that are answered together by kind of device; more would not stay in a CPU's caches."""
GPU_BATCH = 64
ALTERNATIVE = 0.85
"""What the estimate of an alternative counts where a model's answer is a mask beside them."""


class Crop(NamedTuple):
    """A part of a plane that is encoded by itself; layer 0 is the whole plane."""

    box: Box
    layer: int = 0


def proposing(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    keep_all: bool = True,
) -> Job[Candidates]:
    """Ask the model all over a plane and keep what it answers.

    Parameters
    ----------
    predictor
        With an image; what is encoded of it afterwards is what was before.
    settings
        Where to ask; with `keep_all` thresholds play no part.
    plane
        Index along the image's axes before Y and X.
    prompts
        Where to ask instead of on grids; crops are not used then.
    keep_all
        Keep masks that the filters of `settings` rule out as well, to be sifted again with other
        ones. Without, those are not even formed where the model's estimate says so.

    Raises
    ------
    ValueError
        If a prompt does not lie on the image; one sentence says which.
    """
    height, width = predictor.shape[-2:]
    for prompt in prompts or ():
        prompt.check_inside((height, width))
    candidates = Candidates((height, width))
    crops = [Crop(Box(0, 0, height, width))]
    if prompts is None and settings.seeds == "grid":
        crops = crops_of((height, width), settings)
    asked = [
        seeds_of(predictor, settings, plane, crop.box) if prompts is None else prompts
        for crop in crops
    ]
    total, done = sum(map(len, asked)), 0
    with predictor.keeping_plane():
        for crop, seeds in zip(crops, asked, strict=True):
            for progress in predictor.cutting(plane, *crop.box.slices):
                yield replace(progress, message=progress.message or "encoding")
            yield from asking(predictor, seeds, crop, settings, candidates, (done, total), keep_all)
            done += len(seeds)
    return candidates


def asking(
    predictor: Predictor,
    seeds: Sequence[Prompt],
    crop: Crop,
    settings: AutomaticSettings,
    candidates: Candidates,
    counted: tuple[int, int],
    keep_all: bool,
) -> Job[None]:
    """Answer seeds on the crop that is encoded, and keep their masks in the plane's pixels.

    Parameters
    ----------
    counted
        How many seeds were answered before, which is the first one's number, and how many there
        are altogether.
    keep_all
        As in `proposing`.
    """
    least = LEAST_QUALITY if keep_all else settings.thresholds[0]
    before, total = counted
    positions = positions_of(seeds)
    stock = predictor.model.spec.mask_choice == "stock"
    worth = np.array([0, 1, 1, 1] if stock else [1, *(ALTERNATIVE,) * 3], np.float32)
    size = BATCH.get(predictor.device.type, GPU_BATCH)
    for start in range(0, len(seeds), size):
        batch = seeds[start : start + size]
        for at, answer in enumerate(predictor.answer(batch, least), start=start):
            answer = replace(answer, quality=answer.quality * worth)
            for index in range(len(worth)):
                proposed = _proposed(answer, index, least, settings.offset, crop, candidates.shape)
                if proposed is None:
                    continue
                known, mask = proposed
                if keep_all or passes(known, settings, candidates.shape):
                    here = known._replace(
                        seed=before + at, seeds_inside=_inside(known, mask, positions, crop)
                    )
                    candidates.add(here, mask)
        yield Progress(before + start + len(batch), total, "segmenting everything")


def crops_of(shape: tuple[int, int], settings: AutomaticSettings) -> list[Crop]:
    """The whole plane, then the crops of each layer, as SAM's generator lays them out."""
    boxes, layers = generate_crop_boxes(shape, settings.crop_layers, settings.crop_overlap)
    return [
        Crop(Box(y0, x0, y1, x1), layer)
        for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True)
    ]


def seeds_of(
    predictor: Predictor, settings: AutomaticSettings, plane: tuple[int, ...], box: Box
) -> list[Prompt]:
    """Clicks on a part of a plane, in its own pixels: a grid, or the local maxima of a channel.

    Raises
    ------
    ValueError
        If the model has no such channel.
    """
    if settings.seeds == "grid":
        return grid(box.size, settings.points_per_side or grid_points(box.size))
    stack, number = predictor.stack, settings.maxima_channel
    if number >= stack.n_channels:
        raise ValueError(
            f"There is no channel {number} to look for maxima in; {stack.inputs.reader} reads "
            f"{stack.n_channels}, counted from 0 to {stack.n_channels - 1}."
        )
    values = stack.part(plane, *box.slices).normalized()[number]
    unit = values / stack.inputs.normalization.scale
    return at_points(local_maxima(unit, settings.maxima_distance, settings.maxima_height))


def _proposed(
    answer: Answer, index: int, least: float, offset: float, crop: Crop, shape: tuple[int, int]
) -> tuple[Candidate, NDArray[np.bool_]] | None:
    """One of an answer's masks, unless it is hopeless, empty or cut by the crop's edge."""
    quality = float(answer.quality[index])
    patch = answer.patch(index, above=-offset) if quality > least else None
    if patch is None:
        return None
    inside = patch.logits > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    mask = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = int(crop.box.y0 + patch.top + rows[0]), int(crop.box.x0 + patch.left + columns[0])
    box = Box(top, left, top + mask.shape[0], left + mask.shape[1])
    if is_cut(box, crop.box, shape):
        return None
    known = Candidate(
        box=box,
        area=int(np.count_nonzero(mask)),
        quality=quality,
        stability=_stability(patch.logits, offset),
        rim=_rim(mask, box, crop.box),
        layer=crop.layer,
    )
    return known, mask


def is_cut(box: Box, crop: Box, shape: tuple[int, int]) -> bool:
    """Whether a box comes near the crop's edge where the plane goes on, by SAM's rule."""
    tight = torch.tensor([[box.x0, box.y0, box.x1 - 1, box.y1 - 1]])  # as SAM's boxes
    edges = [crop.x0, crop.y0, crop.x1, crop.y1]
    near = is_box_near_crop_edge(tight, edges, [0, 0, shape[1], shape[0]])
    return bool(near[0])


def _stability(logits: NDArray[np.float32], offset: float) -> float:
    """Share of a mask that stays when its cutoff moves; SAM's, counted without copies."""
    inner, outer = (np.float32(np.count_nonzero(logits > cut)) for cut in (offset, -offset))
    return float(inner / outer)


def _rim(mask: NDArray[np.bool_], box: Box, crop: Box) -> float:
    """Share of the crop's outermost pixels that a mask covers."""
    height, width = crop.size
    covered = 0
    for row, edge in ((0, box.y0 == crop.y0), (-1, box.y1 == crop.y1)):
        covered += int(mask[row].sum()) if edge else 0
    for column, edge in ((0, box.x0 == crop.x0), (-1, box.x1 == crop.x1)):
        covered += int(mask[:, column].sum()) if edge else 0
    return covered / (2 * (height + width))


def _inside(
    proposed: Candidate, mask: NDArray[np.bool_], positions: NDArray[np.float64], crop: Crop
) -> int:
    """How many of the crop's seeds lie on a mask."""
    box = proposed.box
    positions = positions[np.isfinite(positions).all(axis=1)]  # those of masks are not known
    at = np.floor(positions + 0.5).astype(int)  # the pixel whose centre is nearest
    y, x = at[:, 0] + crop.box.y0 - box.y0, at[:, 1] + crop.box.x0 - box.x0
    within = (y >= 0) & (x >= 0) & (y < mask.shape[0]) & (x < mask.shape[1])
    return int(np.count_nonzero(mask[y[within], x[within]]))
