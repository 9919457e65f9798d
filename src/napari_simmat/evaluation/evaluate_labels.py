"""Score label images that any program wrote against the true objects of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.datasets.folder import LabeledFile
from napari_simmat.datasets.label_folder import read_labels_of
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.drawing import draw_overlay, to_rgb
from napari_simmat.engine.image_stack import ArraySource
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.evaluation.evaluate import counted_objects, picture_scale, score_images_job
from napari_simmat.evaluation.label_scores import LabelScore, score_labels
from napari_simmat.evaluation.metrics import without_covered
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.evaluation.scores import ImageScores, PlaneNumber, ScoreConfig, Scores
from napari_simmat.io.files import sha256_of
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from PIL.Image import Image


def evaluate_labels_job(
    files: Sequence[LabeledFile],
    labels: Mapping[str, Path],
    taught: Mapping[str, Path] | None = None,
    *,
    min_size: int = 0,
    selection: ChannelSelection | None = None,
    output: Path | None = None,
) -> Job[Scores]:
    """Score the label images of a program; a stack's planes with objects are samples.

    Parameters
    ----------
    files
        The images and their true objects.
    labels
        The program's label image of each, by the image's name.
    taught
        Label images of the objects that the program was given, of some or all images. True objects
        of which more than half is covered by these are left out, as are labels on them.
    min_size
        As `ScoreConfig`.
    selection
        Where the images' channels are; by default as the files say.
    output
        Folder for a picture of each image, STEM_overlay.png. None for none.

    Raises
    ------
    ValueError, TypeError, OSError
        If a file cannot be used; the message names it.
    """
    config = ScoreConfig(min_size=min_size)
    known = taught or {}
    chosen = [replace(file, selection=selection or ChannelSelection()) for file in files]
    for done, file in enumerate(chosen):
        # All files are read before the first picture is written.
        yield Progress(done, 2 * len(files), f"{file.name}: checking")
        image = file.read()
        for path in (labels[file.name], known.get(file.name)):
            if path is not None:
                read_labels_of(path, image.shape, image.name)

    def score_job(file: LabeledFile) -> Job[tuple[ImageScores, Image | None]]:
        one = labels[file.name]
        given = known.get(file.name)
        return _score_image_job(file, one, given, min_size, output is not None)

    job = score_images_job(chosen, score_job, config.needed, output)
    return (yield from as_part(job, 0.5, 1.0))


def hash_of_labels(labels: Mapping[str, Path]) -> str:
    """SHA-256 of the label images of a program: images' names and contents, in order."""
    lines = (f"{name}\0{sha256_of(path)}" for name, path in sorted(labels.items()))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _score_image_job(
    file: LabeledFile, labels: Path, taught: Path | None, min_size: int, drawn: bool
) -> Job[tuple[ImageScores, Image | None]]:
    """Score the planes of one image; draw the one with the most objects."""
    image = file.read()
    truth = image.labels
    found = read_labels_of(labels, image.shape, image.name)
    known = np.zeros(truth.shape, bool)
    if taught is not None:
        known = read_labels_of(taught, image.shape, image.name) > 0
    counted, too_small = counted_objects(truth, UserProtocol(min_size=min_size))
    planes = {}
    for plane, chosen in counted.items():
        untaught = np.unique(without_covered(truth[plane], known[plane]))
        if np.isin(chosen, untaught).any():
            planes[plane] = [label for label in chosen if label in untaught]
    shown = max(planes, key=lambda plane: len(planes[plane]), default=())
    scores: list[tuple[PlaneNumber, LabelScore]] = []
    picture = None
    for done, (plane, chosen) in enumerate(planes.items()):
        yield Progress(done, len(planes), "comparing")
        true = truth[plane]
        others = ~np.isin(truth[plane], chosen)
        ignored = others & ((true != 0) | known[plane])
        scores.append((plane, score_labels(found[plane], true, ignored)))
        if drawn and plane == shown:
            picture = _draw(image, plane, found[plane], scores[-1][1])
    return ImageScores(file.name, tuple(scores), too_small), picture


def _draw(image: LabeledImage, plane: PlaneNumber, found: NDArray[Any], score: LabelScore) -> Image:
    """The labels over a plane of the image, the true objects outlined in white."""
    channels = ArraySource.of(image.arrays, image.channel_axis, image.name)
    under = to_rgb(np.stack(channels.read(range(channels.n_channels), plane)))
    truth = image.labels[plane]
    done = len(score.best) - score.missed
    caption = f"{done} of {len(score.best)} found, {score.missed} missed, {score.wrong} wrong"
    return draw_overlay(under, found, (), truth, caption, picture_scale(truth.shape))
