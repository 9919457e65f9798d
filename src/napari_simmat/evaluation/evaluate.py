"""Evaluate a model on a folder of labelled images, with figures and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat.datasets.folder import LabelledFile
from napari_simmat.engine.drawing import to_rgb
from napari_simmat.engine.masks import label_windows
from napari_simmat.evaluation.figures import Gallery, PlaneFigure, draw_matches
from napari_simmat.evaluation.protocols import PaperProtocol, PromptProtocol, UserProtocol
from napari_simmat.evaluation.scores import (
    ImageMatches,
    ImageScores,
    Matches,
    ObjectScore,
    PlaneNumber,
    ScoreConfig,
    Scores,
    plane_matches,
)
from napari_simmat.io.files import atomic_outputs
from napari_simmat.progress import Job, Progress, map_progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.io.image_file import ImageFile


logger = logging.getLogger(__name__)

T = TypeVar("T")
SUBSAMPLE_SEED = 0
OVERLAY_SHEET = "overlays.png"


def evaluate_job(
    predictor: Predictor,
    files: Sequence[LabelledFile],
    config: ScoreConfig,
    output: Path | None = None,
) -> Job[Scores]:
    """Evaluate a model on labelled images; a stack's planes with objects are samples.

    Parameters
    ----------
    predictor
        Holds the model.
    files
        The images.
    config
        Prompts and objects.
    output
        Folder for pictures: STEM_overlay.png for each image and, for prompted objects,
        overlays.png with the worst and best of all. None for none.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used; the message names it.
    """
    images: list[Any] = []
    overlays = []
    gallery = None if output is None or config.prompt == "auto" else Gallery(len(files))
    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: reading")
        if config.prompt == "auto":
            job = _match_image_job(predictor, file, config, drawn=output is not None)
        else:
            job = _score_image_job(predictor, file, config, gallery)
        try:
            scores, picture = yield from _as_part_of(job, done, len(files), file.name)
        except (ValueError, TypeError) as error:
            words = str(error)
            is_named = file.image.name in words or file.labels.name in words
            raise ValueError(words if is_named else f"{file.image.name}: {words}") from error
        if not scores.counts["objects"]:
            logger.warning("%s has no object to evaluate and is left out.", file.labels.name)
            continue
        images.append(scores)
        if output is not None and picture is not None:
            overlays.append(_save(picture, output / f"{file.name}_overlay.png"))
    if not images:
        raise ValueError(f"The label images hold no object of {config.needed}; label some objects.")
    sheet = None if gallery is None else gallery.sheet()
    if output is not None and sheet is not None:
        overlays.append(_save(sheet, output / OVERLAY_SHEET))
    return Scores(tuple(images), tuple(overlays))


def _score_image_job(
    predictor: Predictor, file: LabelledFile, config: ScoreConfig, gallery: Gallery | None
) -> Job[tuple[ImageScores | ImageMatches, Image | None]]:
    """Prompt the objects of one image; with a gallery, draw the plane with the most objects."""
    image, labels = file.read(config.channel_axis, config.pixel_ratio)
    protocol = _protocol(config)
    objects, too_small = _objects(labels, protocol)
    planes, shown = _by_plane(_subsample(objects, config.most))
    axis, names = _channels(image, config)
    scores: list[tuple[PlaneNumber, ObjectScore]] = []
    picture = None
    for number, (plane, chosen) in enumerate(planes.items()):
        if number == 0:
            yield from predictor.set_image_job(
                image.data, axis, config.channels, plane, names, pixel_size=image.pixel_size
            )
        else:
            yield from predictor.set_plane_job(plane)
        view = None
        if gallery is not None:
            under = to_rgb(predictor.stack.normalized(plane))
            view = PlaneFigure(under, labels[plane], gallery, file.name, plane)
        found = yield from protocol.score_job(predictor, labels[plane], frozenset(chosen), view)
        scores += [(plane, score) for score in found]
        if view is not None and plane == shown:
            picture = view.picture(chosen)
    return ImageScores(file.name, tuple(scores), too_small), picture


def _match_image_job(
    predictor: Predictor, file: LabelledFile, config: ScoreConfig, drawn: bool
) -> Job[tuple[ImageScores | ImageMatches, Image | None]]:
    """Segment everything on the planes with objects, match; draw the plane with the most."""
    from napari_simmat.engine.automatic_generator import segment_everything_job

    image, labels = file.read(config.channel_axis, config.pixel_ratio)
    objects, too_small = _objects(labels, _protocol(config))
    planes, shown = _by_plane(objects)
    axis, names = _channels(image, config)
    if planes:
        yield from predictor.open_image_job(
            image.data, axis, config.channels, names, pixel_size=image.pixel_size
        )
    matched: list[tuple[PlaneNumber, Matches]] = []
    picture = None
    for plane, chosen in planes.items():
        instances = yield from segment_everything_job(predictor, config.automatic, plane)
        truth = labels[plane]
        ignored = (truth != 0) & ~np.isin(truth, chosen)
        matched.append((plane, plane_matches(instances.labels, truth, ignored)))
        if drawn and plane == shown:
            under = to_rgb(predictor.stack.normalized(plane))
            picture = draw_matches(under, instances.labels, truth, matched[-1][1])
    return ImageMatches(file.name, tuple(matched), too_small), picture


def _protocol(config: ScoreConfig) -> PromptProtocol:
    if config.prompt == "paper":
        return PaperProtocol(config.smallest)
    prompts = "all" if config.prompt == "auto" else config.prompt
    return UserProtocol(prompts, config.clicks, config.smallest)


def _objects(
    labels: NDArray[Any], protocol: PromptProtocol
) -> tuple[list[tuple[PlaneNumber, int]], int]:
    """Planes and labels of the objects that count, in order, and the number of the others."""
    planes = list(np.ndindex(*labels.shape[:-2]))
    objects = [(plane, label) for plane in planes for label in protocol.objects(labels[plane])]
    everything = sum(len(label_windows(labels[plane])) for plane in planes)
    return objects, everything - len(objects)


def _by_plane(
    objects: list[tuple[PlaneNumber, int]],
) -> tuple[dict[PlaneNumber, list[int]], PlaneNumber]:
    """The objects of each plane, and the plane that has most."""
    planes: dict[PlaneNumber, list[int]] = {}
    for plane, label in objects:
        planes.setdefault(plane, []).append(label)
    return planes, max(planes, key=lambda plane: len(planes[plane]), default=())


def _channels(image: ImageFile, config: ScoreConfig) -> tuple[int | None, tuple[str, ...] | None]:
    """Axis and names of an image's channels."""
    axis = image.channel_axis if config.channel_axis is None else config.channel_axis
    own = axis is not None and axis % image.data.ndim == image.channel_axis  # or from the end
    return axis, image.channel_names if own else None


def _save(picture: Image, path: Path) -> Path:
    with atomic_outputs(path) as (temporary,):
        picture.save(temporary, format="png")
    return path


def _subsample(
    objects: list[tuple[PlaneNumber, int]], most: int | None
) -> list[tuple[PlaneNumber, int]]:
    """At most so many objects: one at random from each of as many equal parts of the list."""
    if most is None or len(objects) <= most:
        return objects
    offsets = np.random.default_rng(SUBSAMPLE_SEED).random(most)
    places = (np.arange(most) + offsets) * len(objects) / most
    return [objects[int(place)] for place in places]


def _as_part_of(job: Job[T], done: int, total: int, name: str) -> Job[T]:
    """One image's progress as part of the whole, in hundredths of an image."""

    def within(part: Progress) -> Progress:
        share = part.done / part.total if part.total else 0.0
        return Progress(round(100 * (done + share)), 100 * total, f"{name}: {part.message}")

    return map_progress(job, within)
