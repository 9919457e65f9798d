"""A model on a folder of labelled images: figures per object and image, overlays."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.outputs import staged
from napari_simmat.learn.evaluation import Asked, ObjectScore, evaluating, found_objects
from napari_simmat.learn.labelled import LabelledFile
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.prompts import Prompt

logger = logging.getLogger(__name__)

Plane = tuple[int, ...]
SMALLEST = 12
"""Objects of fewer pixels are left out: a pixel more or less would decide."""
SEED = 0
LARGE = 640
"""Overlays of images with longer sides are not enlarged."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is asked of a model.

    Parameters
    ----------
    prompt
        click, box, iterative (the click and its corrections) or all.
    corrections
        Clicks after the first one.
    most
        Objects per image, spread evenly over its planes and labels; None for all.
    channels, channel_axis
        As `Predictor.set_image` takes them.
    """

    prompt: Asked = "all"
    corrections: int = 3
    most: int | None = None
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        if self.prompt not in get_args(Asked):
            raise ValueError(
                f"Prompt {self.prompt!r} is unknown; give {', '.join(get_args(Asked))}."
            )
        if self.corrections < 0:
            raise ValueError(f"There cannot be {self.corrections} corrections; give 0 or more.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"At most {self.most} objects are none; give 1 or more.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "prompt": self.prompt,
            "corrections": self.corrections,
            "most": self.most,
            "channels": None if self.channels is None else list(self.channels),
            "channel_axis": self.channel_axis,
        }


@dataclass(frozen=True)
class ImageScores:
    """The figures of one image.

    Parameters
    ----------
    name
        Its stem.
    scores
        Each object's plane and score, in order.
    too_small
        Objects left out as they have fewer than `SMALLEST` pixels.
    """

    name: str
    scores: tuple[tuple[Plane, ObjectScore], ...]
    too_small: int = 0

    @property
    def figures(self) -> dict[str, float]:
        """Mean IoU over the objects, by column; what was not asked is not there."""
        return _mean([columns_of(score) for _, score in self.scores])

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for each object."""
        for plane, score in self.scores:
            yield {
                "image": self.name,
                "plane": " ".join(map(str, plane)),
                "label": score.label,
                "area_px": score.area,
                **columns_of(score),
            }


@dataclass(frozen=True)
class Scores:
    """The figures of a folder, in the order of its images."""

    images: tuple[ImageScores, ...]
    overlays: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def figures(self) -> dict[str, float]:
        """Mean over the images of each column."""
        return _mean([image.figures for image in self.images])


def columns_of(score: ObjectScore) -> dict[str, float]:
    """The figures of one object by column, in their order; what was not asked is not there."""
    corrected = {f"click+{n}": value for n, value in enumerate(score.corrected, start=1)}
    values = {
        "click": score.click,
        **corrected,
        "box": score.box,
        "filled_box": score.filled_box,
        "disk": score.disk,
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def scoring(
    predictor: Predictor,
    files: Sequence[LabelledFile],
    config: ScoreConfig,
    output: Path | None = None,
) -> Job[Scores]:
    """Evaluate a model on labelled images; a stack's planes with objects are samples.

    Parameters
    ----------
    predictor
        With the model.
    files
        The images.
    config
        What is asked.
    output
        Folder of the overlays STEM_overlay.png; None for none.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used; one sentence names it.
    """
    images, overlays = [], []
    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: reading")
        try:
            job = _scoring(predictor, file, config, draw=output is not None)
            scores, picture = yield from _within(job, done, len(files), file.name)
        except (ValueError, TypeError) as error:
            words = str(error)
            raise ValueError(
                words if file.name in words else f"{file.image.name}: {words}"
            ) from error
        if not scores.scores:
            logger.warning("%s has no object to evaluate and is left out.", file.labels.name)
            continue
        images.append(scores)
        if output is not None and picture is not None:
            overlays.append(output / f"{file.name}_overlay.png")
            with staged(overlays[-1]) as (temporary,):
                picture.save(temporary, format="png")
    if not images:
        raise ValueError(
            f"The label images hold no object of at least {SMALLEST} pixels; label some objects."
        )
    return Scores(tuple(images), tuple(overlays))


def _scoring(
    predictor: Predictor, file: LabelledFile, config: ScoreConfig, draw: bool
) -> Job[tuple[ImageScores, Image | None]]:
    """One image; the picture shows the plane with the most objects."""
    image, labels = file.read(config.channel_axis)
    objects, too_small = _objects(labels)
    objects = _spread(objects, config.most)
    planes: dict[Plane, list[int]] = {}
    for plane, label in objects:
        planes.setdefault(plane, []).append(label)
    shown = max(planes, key=lambda plane: len(planes[plane]), default=())
    axis = image.channel_axis if config.channel_axis is None else config.channel_axis
    names = image.channel_names if axis == image.channel_axis else None
    scores: list[tuple[Plane, ObjectScore]] = []
    picture = None
    for number, (plane, chosen) in enumerate(planes.items()):
        if number == 0:
            yield from predictor.encoding(image.data, axis, config.channels, plane, names)
        else:
            yield from predictor.moving(plane)
        canvas = Canvas(labels.shape[-2:]) if draw and plane == shown else None
        found = yield from evaluating(
            predictor,
            labels[plane],
            config.corrections,
            asked=config.prompt,
            only=frozenset(chosen),
            show=None if canvas is None else canvas.add,
        )
        scores += [(plane, score) for score in found]
        if canvas is not None:
            truth = np.where(np.isin(labels[plane], chosen), labels[plane], 0)
            picture = canvas.picture(predictor.stack.normalized(plane), truth)
    return ImageScores(file.name, tuple(scores), too_small), picture


class Canvas:
    """What a model answered on one plane, to be looked at.

    Parameters
    ----------
    shape
        The plane's size (Y, X).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._found: dict[str, NDArray[np.int64]] = {}
        self._prompts: dict[str, list[Prompt]] = {}

    def add(self, kind: str, prompt: Prompt, mask: NDArray[np.bool_]) -> None:
        """Take an answer; where answers overlap, the earlier one stays on top."""
        found = self._found.setdefault(kind, np.zeros(self._shape, np.int64))
        found[mask & (found == 0)] = prompt.object or 0
        self._prompts.setdefault(kind, []).append(prompt)

    def picture(self, channels: NDArray[Any], truth: NDArray[Any]) -> Image:
        """Answers to clicks and to boxes side by side over the image (C, Y, X); truth in white."""
        from napari_simmat.learn.overlay import SCALE, as_picture, overlay, side_by_side

        under = as_picture(channels)
        scale = 1 if max(self._shape) > LARGE else SCALE
        return side_by_side(
            [
                overlay(under, found, self._prompts[kind], truth, kind, scale)
                for kind, found in self._found.items()
            ]
        )


def _objects(labels: NDArray[Any]) -> tuple[list[tuple[Plane, int]], int]:
    """Planes and labels of the objects in order, and how many more are too small."""
    objects, too_small = [], 0
    for plane in np.ndindex(*labels.shape[:-2]):
        for label, window in found_objects(labels[plane]):
            if np.count_nonzero(labels[plane][window] == label) >= SMALLEST:
                objects.append((plane, label))
            else:
                too_small += 1
    return objects, too_small


def _spread(objects: list[tuple[Plane, int]], most: int | None) -> list[tuple[Plane, int]]:
    """At most so many objects: one at random from each of as many equal parts of the list."""
    if most is None or len(objects) <= most:
        return objects
    offsets = np.random.default_rng(SEED).random(most)
    places = (np.arange(most) + offsets) * len(objects) / most
    return [objects[int(place)] for place in places]


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _within(
    job: Job[tuple[ImageScores, Image | None]], done: int, total: int, name: str
) -> Job[tuple[ImageScores, Image | None]]:
    """A part's progress as that of the whole, in hundredths of an image."""
    while True:
        try:
            part = next(job)
        except StopIteration as end:
            result: tuple[ImageScores, Image | None] = end.value
            return result
        share = part.done / part.total if part.total else 0.0
        yield Progress(round(100 * (done + share)), 100 * total, f"{name}: {part.message}")
