"""Segment everything: all objects of a plane without a prompt.

`mask_proposals` prompts the model at `seeds`, `word_search` asks for what words mean, or
`decoded_objects` asks the model's decoder; `candidates` makes objects of the masks,
`tiles` does both tile by tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.engine.coordinates import BoxCorners
from napari_simmat.engine.everything.candidates import (
    Instances,
    MaskCandidates,
    PixelBox,
    masks_to_instances,
)
from napari_simmat.engine.everything.kind_learning import enlargement, known_kind, weigh_masks_job
from napari_simmat.engine.everything.mask_proposals import propose_masks_job
from napari_simmat.engine.everything.seeds import seed_prompts
from napari_simmat.engine.everything.tiles import segment_tiles_job
from napari_simmat.engine.everything.word_search import find_named_job
from napari_simmat.engine.object_kind import MIN_OBJECTS, ObjectKind
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

MOST_SEEDS = 64**2
"""Of a second look: more would take minutes."""


def segment_everything(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    kind: ObjectKind | None = None,
    examples: Sequence[BoxCorners] = (),
) -> Instances:
    """Find all objects of a plane.

    Parameters
    ----------
    predictor
        Holds the image.
    settings
        By default the model's.
    plane
        Index along the image's axes before Y and X.
    prompts
        Used instead of a grid, e.g. `prompts_from_labels`. Crop layers are then
        ignored.
    kind
        What the objects have in common; by default the size in the settings, or what the model
        has learned. Not heeded where words say what to look for.
    examples
        Half-open boxes y0, x0, y1, x1 of objects that ``settings.words`` mean, too; not heeded
        without words, nor in tiles.

    Returns
    -------
    Instances
        Label image and scores. The same image, model and settings give the same labels.

    Raises
    ------
    ValueError
        If a prompt lies outside the image, or the decoder is asked for that the model lacks.

    Examples
    --------
    >>> from napari_simmat import Predictor, load_model, segment_everything
    >>> from skimage.data import coins
    >>> predictor = Predictor(load_model("tiny"))
    >>> predictor.set_image(coins())
    >>> segment_everything(predictor).labels.shape
    (303, 384)
    """
    return finish(segment_everything_job(predictor, settings, plane, prompts, kind, examples))


def segment_everything_job(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    kind: ObjectKind | None = None,
    examples: Sequence[BoxCorners] = (),
) -> Job[Instances]:
    """`segment_everything` as a job that yields after every few prompts."""
    settings = settings or AutomaticSettings()
    if prompts is not None:
        settings = replace(settings, by="clicks")
    kind = kind or known_kind(predictor, settings)
    settings = settings.for_model(predictor.model.spec, kind)
    size = (predictor.shape[-2], predictor.shape[-1])
    if prompts is None and max(size) > 2 * settings.tile_side:
        labels = np.zeros(size, np.uint32)
        scores = yield from segment_tiles_job(predictor, labels, settings, plane, kind)
        return Instances(labels, scores)
    if settings.words:
        candidates = yield from find_named_job(predictor, settings, plane, False, examples)
        return masks_to_instances(candidates, settings)
    candidates = yield from propose_masks_job(
        predictor, settings, plane, prompts, keep_all=False, kind=kind
    )
    if kind is not None and not candidates.disjoint:
        candidates = yield from weigh_masks_job(candidates, kind, predictor, plane)
    elif settings.second_look and prompts is None and not candidates.disjoint:
        candidates = yield from look_again_job(candidates, predictor, settings, plane)
    return masks_to_instances(candidates, settings)


def look_again_job(
    candidates: MaskCandidates,
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    keep_all: bool = False,
) -> Job[MaskCandidates]:
    """Propose masks once more, by the size of the objects that the `candidates` hold.

    `settings` have thresholds, which the objects of both looks must reach. The candidates stay
    where they hold fewer than `object_kind.MIN_OBJECTS`, where the seeds are no grid, or where
    there would be more than `MOST_SEEDS`.
    """
    labels = masks_to_instances(candidates, settings).labels
    if settings.seeds != "grid" or np.count_nonzero(np.unique(labels)) < MIN_OBJECTS:
        return candidates
    whole = PixelBox(0, 0, *labels.shape)
    kind = ObjectKind.of(labels, enlargement(predictor, whole))
    if len(seed_prompts(predictor, settings, plane, whole, kind)) > MOST_SEEDS:
        return candidates
    return (yield from propose_masks_job(predictor, settings, plane, None, keep_all, kind))
