"""Find all objects of a plane that words mean, or that are like examples, if the network can.

The masks have scores, as those of `mask_proposals` have, and become objects in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_simmat.engine.coordinates import BoxCorners
from napari_simmat.engine.everything.candidates import MaskCandidates, PixelBox
from napari_simmat.engine.everything.crop_masks import CropRegion, mask_candidate
from napari_simmat.engine.settings import (
    MIN_PREDICTED_IOU,
    WORDS_THRESHOLDS,
    AutomaticSettings,
)
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


def find_named_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    keep_all: bool = True,
    examples: Sequence[BoxCorners] = (),
) -> Job[MaskCandidates]:
    """Find the masks of all objects on a plane that ``settings.words`` mean.

    Parameters
    ----------
    predictor
        Holds the image; its current plane is the same afterwards.
    settings
        The words; with `keep_all` the thresholds do not matter.
    plane
        Index along the image's axes before Y and X.
    keep_all
        Also keep masks of scores that the settings reject, from `MIN_PREDICTED_IOU` on.
    examples
        Half-open boxes y0, x0, y1, x1 of objects on the plane that are meant, too.

    Raises
    ------
    ValueError
        If the network reads no words, its vocabulary is missing, or there is no example where
        examples alone are meant.
    """
    height, width = predictor.shape[-2:]
    settings.check_words(predictor.model.spec, len(examples))
    whole = PixelBox(0, 0, height, width)
    with predictor.keeping_plane():
        yield Progress(0, 1, "encoding")
        yield from with_progress(
            predictor.encode_tile_job(plane, *whole.slices), Progress(0, 1, "encoding")
        )
        yield Progress(0, 1, f"looking for {settings.words}")
        candidates = named_candidates(predictor, settings, whole.size, keep_all, examples)
    yield Progress(1, 1, f"looking for {settings.words}")
    return candidates


def named_candidates(
    predictor: Predictor,
    settings: AutomaticSettings,
    size: tuple[int, int],
    keep_all: bool = False,
    examples: Sequence[BoxCorners] = (),
) -> MaskCandidates:
    """The masks that the words mean on the encoded part of a plane, of `size` pixels.

    `examples` are in its pixels.
    """
    thresholds = settings.with_thresholds(WORDS_THRESHOLDS).thresholds
    candidates = MaskCandidates(size, thresholds)
    minimum = MIN_PREDICTED_IOU if keep_all else thresholds[0]
    own = CropRegion(PixelBox(0, 0, *size))
    found = predictor.find_named(settings.words, examples, minimum)
    for number, result in enumerate(found):
        patch = result.patch(0, above=-settings.offset)
        known = None
        if patch is not None:
            known = mask_candidate(patch, result.score, settings.offset, own, size)
        if known is not None:
            candidate, mask = known
            candidates.add(candidate._replace(seed=number), mask)
    return candidates


def boxes_of_objects(labels: NDArray[np.integer]) -> list[BoxCorners]:
    """The half-open boxes of the objects in labels (Y, X), in the order of their numbers."""
    found = find_objects(np.maximum(labels, 0))
    return [
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in filter(None, found)
    ]
