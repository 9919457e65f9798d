"""`tiny`'s decoder of all objects, trained along with a checkpoint on it, where that helps.

The checkpoint's network is trained by prompts, then stays; the decoder follows the labels of the
training images on its features. It is kept if it finds more of the validation images' objects, at
the fewest wrong ones, than the decoder of the base.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.engine.everything.candidates import PixelBox, masks_to_instances
from napari_simmat.engine.everything.decoder_tuning import (
    ObjectCrop,
    draw_crops_job,
    fit_decoder_job,
    known_labels,
)
from napari_simmat.engine.everything.object_finder import find_objects_job, regions_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import OBJECT_THRESHOLDS, AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.progress import Job, Progress, as_part, with_progress
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.labeled_planes import as_rgb
from napari_simmat.training.region_score import MOST_UNKNOWN, fit_score, judged_regions
from napari_simmat.training.trainable import TrainableNetwork

CROPS = 240
"""Crops of all training images together, at most one for each update."""
STEPS = 240
"""Updates of the maps, of three crops each."""
UPDATES_PER_STEP = 2
"""At most so many for each step that a training is given: a trial ends soon."""
SCORED = 40
"""Training images of whose regions the score learns."""
PART = 1024
"""Side in pixels of what is seen of such an image."""
SCORE_STEPS = 400
"""Updates of the score."""
SCORE_RATE = 5e-4
"""Learning rate of the score."""
JUDGED = 16
"""Validation images on which the decoders are compared, spread evenly."""
MET = 0.5
"""IoU from which a labeled object is found."""


def train_decoder_job(
    base: Model,
    student: TrainableNetwork,
    dataset: Dataset,
    config: TrainConfig,
    device: torch.device,
) -> Job[tuple[ObjectDecoder | None, dict[str, dict[str, float]]]]:
    """Train the decoder of `base` on a student's features.

    Its score alone, and its maps and score, are compared with the decoder of the base.

    Returns
    -------
    The best decoder, or None if that is the one of the base, or there is none; and the metric
    ``everything``: F1 in percent ``before`` and ``after``, empty if there is none.
    """
    if not isinstance(base.decoder, ObjectDecoder) or STRATEGIES[student.spec.strategy].whole:
        return None, {}
    spec = replace(student.spec, normalization=Normalization(method="none"))
    model = Model(spec, student.network, student.spec.name, decoder=base.decoder)
    predictor = Predictor(model, str(device))
    maps = yield from as_part(_fit_maps_job(predictor, dataset, config), 0, 0.5)
    decoders = {"before": base.decoder}
    for at, (name, decoder) in enumerate({"score": base.decoder, "both": maps}.items()):
        job = _fit_score_job(predictor, decoder, dataset, config)
        start = 0.5 + at / 8
        decoders[name] = yield from as_part(job, start, start + 1 / 8)
    reached = yield from as_part(_judge_job(predictor, decoders, dataset, config), 0.75, 1)
    best = max(reached, key=lambda name: reached[name])  # the earliest of equal ones
    figures = {"before": reached["before"], "after": reached[best]}
    return None if best == "before" else decoders[best], {"everything": figures}


def _fit_maps_job(
    predictor: Predictor, dataset: Dataset, config: TrainConfig
) -> Job[ObjectDecoder]:
    """The decoder whose maps follow crops of the training images."""
    steps = min(STEPS, UPDATES_PER_STEP * (config.steps or STEPS))
    most = min(CROPS, steps)
    samples = _spread(dataset.train, most)
    crops: list[ObjectCrop] = []
    rng = np.random.default_rng(config.seed)
    for done, sample in enumerate(samples):
        known = yield from _open_job(predictor, sample, config)
        if (known > 0).any():
            job = draw_crops_job(predictor, known, (), rng, math.ceil(most / len(samples)))
            start, end = done / len(samples), (done + 1) / len(samples)
            crops += yield from as_part(job, start / 4, end / 4)
    rng.shuffle(crops)
    return (yield from as_part(fit_decoder_job(predictor, crops, steps, ends=True), 0.25, 1))


def _fit_score_job(
    predictor: Predictor, decoder: ObjectDecoder, dataset: Dataset, config: TrainConfig
) -> Job[ObjectDecoder]:
    """The decoder with a score that goes on learning from regions of the training images."""
    samples = _spread(dataset.train, SCORED)
    rng = np.random.default_rng(config.seed)
    rows = []
    for done, sample in enumerate(samples):
        known = yield from _open_job(predictor, sample, config)
        height, width = known.shape
        top, left = (int(rng.integers(max(1, side - PART))) for side in known.shape)
        box = PixelBox(top, left, min(top + PART, height), min(left + PART, width))
        job = regions_job(predictor, decoder, box)
        trees = yield from as_part(job, done / len(samples), (done + 1) / len(samples))
        rows += [judged_regions(tree, known[box.slices]) for tree in trees]
    measures, ious = (np.concatenate(each) for each in zip(*rows, strict=True))
    scored = copy.deepcopy(decoder).cpu()
    if len(ious):
        fit_score(scored.score, measures, ious, SCORE_STEPS, SCORE_RATE, config.seed)
    scored = scored.half().float()
    return scored.requires_grad_(False).eval()


def _judge_job(
    predictor: Predictor,
    decoders: Mapping[str, ObjectDecoder],
    dataset: Dataset,
    config: TrainConfig,
) -> Job[dict[str, float]]:
    """F1 in percent of what each decoder finds on validation images."""
    counts = {name: np.zeros(3, int) for name in decoders}
    judged = _spread(dataset.validation, JUDGED)
    for done, sample in enumerate(judged):
        known = yield from _open_job(predictor, sample, config)
        for name, decoder in decoders.items():
            job = _counts_job(predictor, decoder, known)
            here = Progress(done, len(judged), "validating")
            counts[name] += yield from with_progress(job, here)
    return {name: round(100 * _f1(*each.tolist()), 2) for name, each in counts.items()}


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most so many of the samples, spread evenly."""
    kept = min(count, len(samples))
    return [samples[number * len(samples) // kept] for number in range(kept)]


def _open_job(predictor: Predictor, sample: Sample, config: TrainConfig) -> Job[NDArray[np.int32]]:
    """Give a sample's image to the predictor; returns what is known of it (`known_labels`)."""
    values, labels = sample.load()
    if predictor.model.spec.transfer == "zeroshot":
        values = values[as_rgb(len(values))]
    yield from predictor.open_image_job(values, 0)
    labels = np.asarray(labels, np.int32)
    return labels if config.complete else known_labels(labels, None)


def _counts_job(
    predictor: Predictor, decoder: ObjectDecoder, known: NDArray[np.int32]
) -> Job[tuple[int, int, int]]:
    """How many labeled objects are found, how many there are, and how many were found in all.

    What is found where nothing is known does not count.
    """
    found = yield from find_objects_job(predictor, decoder=decoder)
    settings = AutomaticSettings().with_thresholds(OBJECT_THRESHOLDS)
    drafts = masks_to_instances(found, settings).labels.astype(np.int32)
    labels = np.maximum(known, 0)
    ids, pixels = np.unique(drafts, return_counts=True)
    beside = np.bincount(drafts[known < 0], minlength=ids.max() + 1)[ids] > MOST_UNKNOWN * pixels
    drafts = np.where(np.isin(drafts, ids[beside & (ids > 0)]), 0, drafts)
    overlaps = pairwise_iou(drafts, labels)
    return int((overlaps.max(0, initial=0) >= MET).sum()), overlaps.shape[1], overlaps.shape[0]


def _f1(met: int, labeled: int, found: int) -> float:
    return 2 * met / max(labeled + found, 1)
