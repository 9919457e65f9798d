"""Prompt a model all over a plane, and collect its masks with what is known of them.

`candidates.masks_to_instances` turns them into objects, again with other thresholds
if wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.everything.candidates import (
    MaskCandidate,
    MaskCandidates,
    PixelBox,
    is_accepted,
)
from napari_simmat.engine.everything.crop_masks import CropRegion, crop_regions, mask_candidate
from napari_simmat.engine.everything.decoded_objects import decode_objects_job
from napari_simmat.engine.everything.kind_learning import enlargement, known_kind
from napari_simmat.engine.everything.seeds import SeedRounds, prompt_positions, seed_prompts
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import (
    DEFAULT_THRESHOLDS,
    KIND_THRESHOLDS,
    MIN_PREDICTED_IOU,
    AutomaticSettings,
)
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.result import Result

UNEXPECTED_SIZE = 0.3
"""Quality that a mask loses for each factor of e by which its side lies out of the learned ones."""
BATCH_SIZES = {"cpu": 16}
"""Prompts decoded together, by kind of device; more would not stay in a CPU's caches."""
GPU_BATCH_SIZE = 64


ENCODING_WORK = {True: 64, False: 400}
"""How many seeds take as long as encoding, for `tiny` (embedded) and for SAM."""
FOUND_QUALITY = DEFAULT_THRESHOLDS[0]
"""Seeds beside one that found a mask of this quality are prompted as well."""
COUNTED = AutomaticSettings()
"""Masks that pass these filters count as known objects, whatever is wanted in the end."""
ALTERNATIVE_WEIGHT = 0.85
"""Weight of the predicted IoU of the three candidates where the model also gives a single mask."""


def propose_masks_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    keep_all: bool = True,
    kind: ObjectKind | None = None,
) -> Job[MaskCandidates]:
    """Prompt the model all over a plane and collect its masks, or let its decoder find them.

    Parameters
    ----------
    predictor
        Holds the image; its current plane is the same afterwards.
    settings
        Where to prompt; with `keep_all` the thresholds do not matter.
    plane, prompts
        As in `segment_everything`.
    keep_all
        Also keep masks that the filters of `settings` reject, so that they can be filtered again
        with other settings. Otherwise masks of too low predicted IoU are not even formed.
    kind
        The size of its objects counts, by default as in `segment_everything`; `weigh_masks_job`
        heeds their looks.

    Raises
    ------
    ValueError
        If a prompt lies outside the image, or the decoder is asked for that the model lacks.
    """
    height, width = predictor.shape[-2:]
    for prompt in prompts or ():
        prompt.check_inside((height, width))
    kind = kind or known_kind(predictor, settings)
    if prompts is None and settings.uses_decoder(predictor.model.spec, kind):
        decoder = None if kind is None else kind.decoder
        return (yield from decode_objects_job(predictor, settings, plane, decoder=decoder))
    settings = settings if kind is None else settings.with_thresholds(KIND_THRESHOLDS)
    candidates = MaskCandidates((height, width), settings.thresholds)
    is_grid = prompts is None and settings.seeds == "grid"
    whole = CropRegion(PixelBox(0, 0, height, width))
    crops = crop_regions((height, width), settings) if is_grid else [whole]
    seeds_of_crops: list[Sequence[Prompt]] = []
    for crop in crops:
        seeds = prompts
        if seeds is None:
            seeds = seed_prompts(predictor, settings, plane, crop.box, kind)
        seeds_of_crops.append(seeds)
    work = ENCODING_WORK[predictor.model.spec.base.embedded]
    total = sum(work + len(seeds) for seeds in seeds_of_crops)
    done = 0
    first = 0
    size = None if kind is None else kind.size
    with predictor.keeping_plane():
        for crop, seeds in zip(crops, seeds_of_crops, strict=True):
            for step in predictor.encode_tile_job(plane, *crop.box.slices):
                share = step.done / step.total if step.total else 0.0
                yield Progress(done + round(work * share), total, step.message or "encoding")
            done += work
            prompter = CropPrompter(
                predictor, seeds, crop, settings, candidates, keep_all, size, first
            )
            for step in prompter.run_job(is_grid):
                share = step.done / max(step.total, 1)
                yield Progress(done + round(len(seeds) * share), total, step.message)
            done += len(seeds)
            first += len(seeds)
    return candidates


class CropPrompter:
    """Prompts the model with the seeds of an encoded crop, and adds their masks to `candidates`.

    `first` is the number of the first seed, if there were crops before this one.
    """

    def __init__(
        self,
        predictor: Predictor,
        seeds: Sequence[Prompt],
        crop: CropRegion,
        settings: AutomaticSettings,
        candidates: MaskCandidates,
        keep_all: bool,
        expected: ExpectedSize | None,
        first: int = 0,
    ) -> None:
        self._predictor = predictor
        self._seeds = seeds
        self._crop = crop
        self._settings = settings
        self._candidates = candidates
        self._keep_all = keep_all
        self._first = first
        self._positions = prompt_positions(seeds)
        self._minimum = MIN_PREDICTED_IOU if keep_all else settings.thresholds[0]
        # SAM's own generator takes the three candidates and leaves out the single-mask token.
        stock = predictor.model.spec.mask_choice == "stock"
        weights = [0, 1, 1, 1] if stock else [1, *(ALTERNATIVE_WEIGHT,) * 3]
        self._weights = np.array(weights, np.float32)
        self._expected = expected
        self._enlarged = 1.0 if expected is None else enlargement(predictor, crop.box)
        self._seeds_on: list[tuple[int, NDArray[np.intp]]] = []
        self._prompted = 0
        # For each seed of the crop, how many of those so far found an object that it is on.
        self._votes = np.zeros(len(seeds), int)

    def run_job(self, is_grid: bool) -> Job[None]:
        """Prompt with all seeds, or of a grid with those that are worth it (`SeedRounds`)."""
        seeds = self._seeds
        estimates = self._predictor.estimate_clicks(seeds) if is_grid else None
        if estimates is None:
            yield from self._prompt_job(range(len(seeds)), len(seeds))
            return
        foreground, size = (each.numpy() for each in estimates)
        rounds = SeedRounds(self._positions, foreground, size)
        found = yield from self._prompt_job(rounds.first(), rounds.total)
        second, known = rounds.second(found, self._votes)
        yield from self._prompt_job(second, self._prompted + len(second))
        # Seeds that were left out, as they lie on known objects, count as being on no mask.
        measured = self._candidates.known
        for at, inside in self._seeds_on:
            used = len(inside) - int(np.isin(inside, known).sum())
            measured[at] = measured[at]._replace(seeds_inside=used)

    def _prompt_job(self, numbers: Sequence[int], total: int) -> Job[list[int]]:
        """Prompt with some of `total` seeds; returns those that found a mask of `FOUND_QUALITY`."""
        at_once = BATCH_SIZES.get(self._predictor.device.type, GPU_BATCH_SIZE)
        found: list[int] = []
        for start in range(0, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            seeds = [self._seeds[number] for number in batch]
            results = self._predictor.predict_low_res(seeds, self._minimum, self._expected)
            for number, result in zip(batch, results, strict=True):
                qualities = (result.predicted_iou * self._weights).tolist()
                if max(qualities) > FOUND_QUALITY:
                    found.append(number)
                self._add(number, result, qualities)
            self._prompted += len(batch)
            yield Progress(self._prompted, total, "segmenting everything")
        return found

    def _add(self, number: int, result: Result, qualities: list[float]) -> None:
        """Keep the masks of a seed that are good enough; its best object gets a vote."""
        offset = self._settings.offset
        shape = self._candidates.shape
        best = 0.0
        voted = np.empty(0, np.intp)
        for which, quality in enumerate(qualities):
            patch = result.patch(which, above=-offset) if quality > self._minimum else None
            if patch is None:
                continue
            found = mask_candidate(patch, quality, offset, self._crop, shape)
            if found is None:
                continue
            candidate, mask = found
            candidate = candidate._replace(quality=quality - self._unexpected(candidate.area))
            if self._keep_all or is_accepted(candidate, self._settings, shape):
                inside = _seeds_inside(candidate, mask, self._positions, self._crop)
                known = candidate._replace(seed=self._first + number, seeds_inside=len(inside))
                self._seeds_on.append((len(self._candidates), inside))
                self._candidates.add(known, mask)
                score = candidate.quality * candidate.stability
                if score > best and is_accepted(candidate, COUNTED, shape):
                    best, voted = score, inside
        self._votes[voted] += 1

    def _unexpected(self, area: int) -> float:
        """Quality that a mask of so many pixels loses if another size is expected."""
        if self._expected is None:
            return 0.0
        return UNEXPECTED_SIZE * self._expected.misfit(area * self._enlarged)


def _seeds_inside(
    candidate: MaskCandidate,
    mask: NDArray[np.bool_],
    positions: NDArray[np.float64],
    crop: CropRegion,
) -> NDArray[np.intp]:
    box = candidate.box
    numbers = np.flatnonzero(np.isfinite(positions).all(axis=1))  # a mask prompt has none
    at = np.floor(positions[numbers] + 0.5).astype(int)  # the pixel whose center is nearest
    y, x = at[:, 0] + crop.box.y0 - box.y0, at[:, 1] + crop.box.x0 - box.x0
    within = (y >= 0) & (x >= 0) & (y < mask.shape[0]) & (x < mask.shape[1])
    within[within] = mask[y[within], x[within]]
    return np.asarray(numbers[within], np.intp)
