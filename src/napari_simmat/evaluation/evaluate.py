"""Evaluate a model on a folder of labeled images: figures, pictures, table and summary.

Needs no torch until an image is evaluated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat import __version__
from napari_simmat.datasets.folder import LabeledFile
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.drawing import OVERLAY_SCALE, draw_overlay, side_by_side, to_rgb
from napari_simmat.engine.masks import label_windows
from napari_simmat.engine.prompts import Prompt
from napari_simmat.evaluation.label_scores import DONE, NEARLY
from napari_simmat.evaluation.protocols import PaperProtocol, PromptProtocol, UserProtocol
from napari_simmat.evaluation.scores import (
    ImageScores,
    ObjectScore,
    PlaneMatches,
    PlaneNumber,
    ScoreConfig,
    Scores,
    column_title,
    plane_matches,
)
from napari_simmat.io.files import atomic_outputs, write_table, write_text
from napari_simmat.io.plain import to_plain
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.engine.predictor import Predictor


logger = logging.getLogger(__name__)

SUBSAMPLE_SEED = 0
RESULTS_FILE, SUMMARY_FILE = "results.csv", "summary.json"
MAX_ENLARGED_SIDE = 640
"""Pictures of planes with longer sides are not enlarged."""


def evaluate_job(
    predictor: Predictor,
    files: Sequence[LabeledFile],
    config: ScoreConfig,
    output: Path | None = None,
) -> Job[Scores]:
    """Evaluate a model on labeled images; a stack's planes with objects are samples.

    Parameters
    ----------
    predictor
        Holds the model.
    files
        The images.
    config
        Prompts and objects.
    output
        Folder for a picture of each image, STEM_overlay.png. None for none.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used; the message names it.
    """
    evaluate = _match_image_job if config.prompts == "auto" else _score_image_job

    def score_job(file: LabeledFile) -> Job[tuple[ImageScores, Image | None]]:
        return evaluate(predictor, file, config, output is not None)

    return (yield from score_images_job(files, score_job, config.needed, output))


def score_images_job(
    files: Sequence[LabeledFile],
    score_job: Callable[[LabeledFile], Job[tuple[ImageScores, Image | None]]],
    needed: str,
    output: Path | None,
) -> Job[Scores]:
    """Score images one by one, and write the pictures; those without an object are left out.

    `needed` says in words which objects count. Errors name the image.
    """
    images = []
    overlays = []
    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: reading")
        job = score_job(file)
        try:
            share = done / len(files), (done + 1) / len(files)
            scores, picture = yield from as_part(job, *share, before=f"{file.name}: ")
        except (ValueError, TypeError) as error:
            words = str(error)
            is_named = file.image.name in words or file.labels.name in words
            raise ValueError(words if is_named else f"{file.image.name}: {words}") from error
        if not scores.counts["objects"]:
            logger.warning("%s has no object to evaluate and is left out.", file.labels.name)
            continue
        images.append(scores)
        if output is not None and picture is not None:
            overlays.append(output / f"{file.name}_overlay.png")
            with atomic_outputs(overlays[-1]) as (temporary,):
                picture.save(temporary, format="png")
    if not images:
        raise ValueError(f"The label images hold no object of {needed}; label some objects.")
    return Scores(tuple(images), tuple(overlays))


def _score_image_job(
    predictor: Predictor, file: LabeledFile, config: ScoreConfig, drawn: bool
) -> Job[tuple[ImageScores, Image | None]]:
    """Prompt the objects of one image; draw the plane with the most objects."""
    image = replace(file, selection=config.selection).read()
    labels, protocol = image.labels, _protocol(config)
    planes, too_small = counted_objects(labels, protocol, config.max_objects)
    shown = max(planes, key=lambda plane: len(planes[plane]), default=())
    scores: list[tuple[PlaneNumber, ObjectScore]] = []
    picture = None
    for number, (plane, chosen) in enumerate(planes.items()):
        if number == 0:
            yield from predictor.set_image_job(
                image.arrays,
                image.channel_axis,
                config.selection.channels,
                plane,
                channel_names=_names(image),
                pixel_size=image.pixel_size,
            )
        else:
            yield from predictor.set_plane_job(plane)
        figure = None
        if drawn and plane == shown:
            figure = PlaneFigure(to_rgb(predictor.stack.normalized(plane)), labels[plane])
        found = yield from protocol.score_job(predictor, labels[plane], frozenset(chosen), figure)
        scores += [(plane, score) for score in found]
        if figure is not None:
            picture = figure.picture(chosen)
    return ImageScores(file.name, tuple(scores), too_small), picture


def _match_image_job(
    predictor: Predictor, file: LabeledFile, config: ScoreConfig, drawn: bool
) -> Job[tuple[ImageScores, Image | None]]:
    """Segment everything on the planes with objects, match; draw the plane with the most."""
    from napari_simmat.engine.everything.generator import segment_everything_job

    image = replace(file, selection=config.selection).read()
    labels = image.labels
    planes, too_small = counted_objects(labels, _protocol(config))
    shown = max(planes, key=lambda plane: len(planes[plane]), default=())
    if planes:
        yield from predictor.open_image_job(
            image.arrays,
            image.channel_axis,
            config.selection.channels,
            channel_names=_names(image),
            pixel_size=image.pixel_size,
        )
    matched: list[tuple[PlaneNumber, PlaneMatches]] = []
    picture = None
    for plane, chosen in planes.items():
        instances = yield from segment_everything_job(predictor, config.automatic, plane)
        truth = labels[plane]
        ignored = (truth != 0) & ~np.isin(truth, chosen)
        matched.append((plane, plane_matches(instances.labels, truth, ignored)))
        if drawn and plane == shown:
            under = to_rgb(predictor.stack.normalized(plane))
            picture = draw_matches(under, instances.labels, truth, matched[-1][1])
    return ImageScores(file.name, tuple(matched), too_small), picture


def _protocol(config: ScoreConfig) -> PromptProtocol:
    if config.prompts == "paper":
        return PaperProtocol(config.min_size)
    prompts = "all" if config.prompts == "auto" else config.prompts
    return UserProtocol(prompts, config.clicks, config.min_size)


def counted_objects(
    labels: NDArray[Any], protocol: PromptProtocol, max_objects: int | None = None
) -> tuple[dict[PlaneNumber, list[int]], int]:
    """Labels of the objects that count by plane, in order, and the number of the others.

    Of more than `max_objects`, one is taken at random from each of as many equal parts.
    """
    planes = list(np.ndindex(*labels.shape[:-2]))
    objects = [(plane, label) for plane in planes for label in protocol.objects(labels[plane])]
    others = sum(len(label_windows(labels[plane])) for plane in planes) - len(objects)
    if max_objects is not None and len(objects) > max_objects:
        offsets = np.random.default_rng(SUBSAMPLE_SEED).random(max_objects)
        places = (np.arange(max_objects) + offsets) * len(objects) / max_objects
        objects = [objects[int(place)] for place in places]
    by_plane: dict[PlaneNumber, list[int]] = {}
    for plane, label in objects:
        by_plane.setdefault(plane, []).append(label)
    return by_plane, others


def _names(image: LabeledImage) -> tuple[str, ...] | None:
    """Names of the channels; none for colors, which every model takes in their order."""
    return None if image.is_rgb else image.channel_names


class PlaneFigure:
    """Draws the masks of one plane's prompts.

    Parameters
    ----------
    under
        The plane (Y, X, 3), 0..255.
    labels
        True labels (Y, X).
    """

    def __init__(self, under: NDArray[np.uint8], labels: NDArray[Any]) -> None:
        self._under, self._labels = under, labels
        self._found: dict[str, NDArray[np.int64]] = {}
        self._prompts: dict[str, list[Prompt]] = {}
        self._reached: dict[str, list[float]] = {}

    def __call__(self, column: str, prompt: Prompt, mask: NDArray[np.bool_], iou: float) -> None:
        """Add a mask (`prompting.OnResult`); where masks overlap, the earlier stays on top."""
        found = self._found.setdefault(column, np.zeros(self._labels.shape, np.int64))
        found[mask & (found == 0)] = prompt.object or 0
        self._prompts.setdefault(column, []).append(prompt)
        self._reached.setdefault(column, []).append(iou)

    def picture(self, labels: Sequence[int]) -> Image:
        """The masks of each column side by side; the true objects `labels` outlined in white."""
        truth = np.where(np.isin(self._labels, labels), self._labels, 0)
        return side_by_side(
            [
                draw_overlay(
                    self._under,
                    found,
                    self._prompts[column],
                    truth,
                    f"{column_title(column)}: mean IoU {np.mean(self._reached[column]):.2f}",
                    picture_scale(truth.shape),
                )
                for column, found in self._found.items()
            ]
        )


def draw_matches(
    under: NDArray[np.uint8], found: NDArray[Any], truth: NDArray[Any], matches: PlaneMatches
) -> Image:
    """Draw the objects found automatically over a plane (Y, X, 3), the true ones in white.

    The caption counts the `matches` of both label images (Y, X).
    """
    first, figures = matches.matchings[0], matches.figures
    caption = (
        f"{first.true_positives} matched, {first.false_positives} invented, "
        f"{first.false_negatives} missed; AP50 {figures['ap@50']:.2f}, PQ {figures['pq']:.2f}"
    )
    return draw_overlay(under, found, (), truth, caption, picture_scale(truth.shape))


def summary_values(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str, seconds: float
) -> dict[str, Any]:
    """Every figure of each image and both means, with the columns of the table of objects.

    All but the block `run`, which holds the duration in `seconds`, follows from images, model and
    settings. `fingerprint` identifies the data (see `datasets.folder.fingerprint`).
    """
    spec = predictor.model.spec
    settings = to_plain(config)
    if config.prompts != "auto":
        del settings["automatic"]
    return {
        "set": fingerprint,
        "model": spec.name,
        "base": spec.base.name,
        "fingerprint": predictor.model.fingerprint,
        "steps": spec.training.get("steps"),
        "version": __version__,
        "settings": {
            **settings,
            "precision": predictor.precision,
            "quality": predictor.quality,
        },
        **_figures(scores),
        "run": {**_run(seconds), "device": predictor.device.type},
    }


def label_summary_values(
    scores: Scores, min_size: int, fingerprints: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """The same of labels that another program wrote; `fingerprints` of the set and of these."""
    return {
        **fingerprints,
        "version": __version__,
        "settings": {"min_size": min_size, "done": DONE, "nearly": NEARLY},
        **_figures(scores),
        "run": _run(seconds),
    }


def write_report(output: Path, scores: Scores, values: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write results.csv and summary.json (`summary_values`): both or neither.

    The table has a row for each object, or for each plane that was segmented automatically.
    """
    paths = output / RESULTS_FILE, output / SUMMARY_FILE
    rows = [row for image in scores.images for row in image.rows]
    with atomic_outputs(*paths) as (table, text):
        write_table(table, list(rows[0]), rows)
        write_text(text, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return paths


def _figures(scores: Scores) -> dict[str, Any]:
    """The blocks of the means and of each image."""
    together = scores.together
    return {
        "mean_over_images": {"images": len(scores.images), **_rounded(scores.over_images)},
        "mean_over_objects": {**together.counts, **_rounded(together.figures)},
        "images": {
            image.name: {**image.counts, "too_small": image.too_small, **_rounded(image.figures)}
            for image in scores.images
        },
    }


def _run(seconds: float) -> dict[str, Any]:
    """When it was, and how long it took."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """To six digits, far below any relevant difference."""
    return {name: round(value, 6) for name, value in figures.items()}


def picture_scale(shape: tuple[int, ...]) -> int:
    """How much larger a picture of a plane (Y, X) is drawn."""
    return 1 if max(shape) > MAX_ENLARGED_SIDE else OVERLAY_SCALE
