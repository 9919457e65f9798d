"""Train the score of regions: the chance that a region of the decoder's maps is an object.

Regions of the training images, of drawn scenes and, to judge, of validation images are collected at
the scales at which objects are looked for. A region is right at an IoU of .75 with an object, and
nearly so at .5; regions mostly of unknown pixels are left out. Sources count by the root of their
number of regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional

from napari_simmat.datasets.labeled_image import ImageCache
from napari_simmat.engine.everything.object_finder import FINE_ZOOM, ZOOMS
from napari_simmat.engine.object_regions import ObjectMaps, region_tree
from napari_simmat.models.object_decoder import ObjectDecoder, RegionScore
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import UNKNOWN, is_known
from napari_simmat.training.region_score import fit_score, hits, judged_regions
from simmat_research.object_scenes import draw_object_scene
from simmat_research.real_scenes import RealSource, image_plane
from simmat_research.scene_pool import MEAN, STD, scene_drawer, stretched

MOST_REGIONS = 1500
"""Of an image at a scale."""
SIDES = 48, 1100
"""Sides in pixels of the network's input between which a scale is used."""
STEPS, RATE = 2500, 2e-3
DRAWN, DRAWN_VALIDATION = 300, 10
"""Scenes that are drawn; one of so many is for validation."""


class Regions(NamedTuple):
    """Regions of many images.

    Attributes
    ----------
    measures
        (N, M).
    iou
        (N,) with the object that each meets best.
    source
        (N,) names.
    validation
        (N,) whether it is only judged.
    """

    measures: NDArray[np.float32]
    iou: NDArray[np.float32]
    source: NDArray[np.str_]
    validation: NDArray[np.bool_]


@dataclass(frozen=True)
class ScoreReport:
    """How well the chances hold on the validation images.

    Attributes
    ----------
    said, right
        For each tenth of the chance of an IoU of .75: its mean, and the share that reaches it.
    regions
        For each tenth the number of regions.
    loss, constant_loss
        Cross entropy, and that of the mean chance of the training regions.
    """

    said: tuple[float, ...]
    right: tuple[float, ...]
    regions: tuple[int, ...]
    loss: float
    constant_loss: float

    def __str__(self) -> str:
        rows = zip(self.said, self.right, self.regions, strict=True)
        lines = [f"said {said:.2f}, right {right:.2f} of {count}" for said, right, count in rows]
        return "\n".join([f"loss {self.loss:.4f} ({self.constant_loss:.4f})", *lines])


def collect_regions_job(
    network: TinyNetwork,
    decoder: ObjectDecoder,
    sources: tuple[RealSource, ...],
    folder: Path,
    images: int = 14,
    seed: int = 0,
) -> Job[Regions]:
    """Regions of up to so many `images` of each source, thrice as many of a source of hundreds.

    Each source is kept in a file of `folder`, so that an interrupted collection goes on.
    """
    parts = []
    names = [*(source.name for source in sources), "drawn"]
    for done, name in enumerate(names):
        yield Progress(done, len(names), name)
        path = folder / f"regions-{name}.npz"
        if not path.exists():
            scenes = (
                _drawn(np.random.default_rng([seed, 1]))
                if name == "drawn"
                else _real(sources[done], images, np.random.default_rng([seed, 0, done]))
            )
            rows = [
                (measures, iou, np.full(len(iou), kept))
                for image, labels, kept in scenes
                for measures, iou in _regions(network, decoder, image, labels, seed)
            ]
            whole = [np.concatenate(each) for each in zip(*rows, strict=True)]
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, *whole)
            unfinished.rename(path)
        with np.load(path) as kept:
            parts.append((*(kept[each] for each in kept.files), name))
    return Regions(
        np.concatenate([measures for measures, _, _, _ in parts]),
        np.concatenate([iou for _, iou, _, _ in parts]).astype(np.float32),
        np.concatenate([np.full(len(iou), name) for _, iou, _, name in parts]),
        np.concatenate([validation for _, _, validation, _ in parts]),
    )


def _real(
    source: RealSource, images: int, rng: Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32], bool]]:
    """Images (3, Y, X) in 0..255 with their ids, and whether they are for validation."""
    cache = ImageCache()
    for validation, files in ((False, source.train), (True, source.validation)):
        most = images * (3 if len(source.train) > 300 else 1)
        for number in rng.permutation(len(files))[:most]:
            content = cache.read(files[number])
            if not (content.labels > 0).any():
                continue
            values, labels = image_plane(content, rng)
            if len(values) not in (1, 3):
                values = values[:1]
            if not source.complete:
                whole = slice(0, labels.shape[0]), slice(0, labels.shape[1])
                labels = np.where(is_known(labels, whole), labels, UNKNOWN)
            yield stretched(values), labels, validation


def _drawn(
    rng: Generator,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32], bool]]:
    general = scene_drawer()
    for number in range(DRAWN):
        scene = (draw_object_scene if number % 3 else general)(rng)
        yield scene.image, scene.labels, number % DRAWN_VALIDATION == 0


def _regions(
    network: TinyNetwork,
    decoder: ObjectDecoder,
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    seed: int,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Measures and IoUs of the regions of an image at each of its scales."""
    least, most = SIDES
    for zoom in (*ZOOMS, FINE_ZOOM):
        if max(labels.shape) * zoom > most or min(labels.shape) * zoom < least:
            continue
        maps = maps_of(network, decoder, image, zoom)
        measures, ious = judged_regions(region_tree(maps), labels)
        chosen = np.random.default_rng(seed).permutation(len(ious))[:MOST_REGIONS]
        yield measures[chosen], ious[chosen]


@torch.inference_mode()
def maps_of(
    network: TinyNetwork, decoder: ObjectDecoder, image: NDArray[np.float32], zoom: float
) -> ObjectMaps:
    """The maps of an image (3, Y, X) in 0..255 at a scale."""
    height, width = (max(32, round(side * zoom)) for side in image.shape[1:])
    values = torch.tensor(image)[None]
    values = functional.interpolate(values, (height, width), mode="bilinear", antialias=True)
    values = functional.pad((values - MEAN) / STD, (0, -width % 32, 0, -height % 32))
    return ObjectMaps.of(decoder(network.features(values)), (height, width))


def train_score(score: RegionScore, regions: Regions, seed: int = 0) -> ScoreReport:
    """Train a score in place, calibrate it on the validation regions, and judge it on them."""
    measures, iou = torch.tensor(regions.measures), torch.tensor(regions.iou)
    train = np.flatnonzero(~regions.validation)
    _, index = np.unique(regions.source[train], return_inverse=True)
    with torch.no_grad():
        score.mean.copy_(measures[train].mean(0))
        score.deviation.copy_(measures[train].std(0).clamp(min=1e-3))
    share = 1 / np.sqrt(np.bincount(index))[index]
    fit_score(score, regions.measures[train], regions.iou[train], STEPS, RATE, seed, share)
    hard = hits(iou)
    _calibrate(score, measures, hard, regions.validation)
    return _judged(score, measures, hard, regions.validation)


def _calibrate(
    score: RegionScore,
    measures: torch.Tensor,
    hard: torch.Tensor,
    validation: NDArray[np.bool_],
) -> None:
    """Scale and shift the logits, so that chances hold on the validation images (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    chosen = torch.tensor(np.flatnonzero(validation))
    last = score.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        logits = score(measures[chosen]).numpy()
        for output in range(logits.shape[1]):
            fit = LogisticRegression(C=1e6).fit(logits[:, [output]], hard[chosen, output].numpy())
            last.weight[output] *= float(fit.coef_[0, 0])
            last.bias[output] *= float(fit.coef_[0, 0])
            last.bias[output] += float(fit.intercept_[0])


@torch.no_grad()
def _judged(
    score: RegionScore,
    measures: torch.Tensor,
    hard: torch.Tensor,
    validation: NDArray[np.bool_],
) -> ScoreReport:
    chosen = torch.tensor(np.flatnonzero(validation))
    logits = score(measures[chosen])
    constant = hard[torch.tensor(np.flatnonzero(~validation))].mean(0).expand_as(logits)
    chance, right = logits[:, 0].sigmoid().numpy(), hard[chosen, 0].numpy()
    tenth = np.minimum((chance * 10).astype(int), 9)
    counts = np.bincount(tenth, minlength=10)
    least = np.maximum(counts, 1)
    said = np.bincount(tenth, chance, minlength=10) / least
    share = np.bincount(tenth, right, minlength=10) / least
    cross = functional.binary_cross_entropy
    return ScoreReport(
        tuple(said.tolist()),
        tuple(share.tolist()),
        tuple(counts.tolist()),
        float(cross(logits.sigmoid(), hard[chosen])),
        float(cross(constant, hard[chosen])),
    )
