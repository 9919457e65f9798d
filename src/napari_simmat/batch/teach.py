"""Teach a model a kind of objects from files: an image, some labeled objects, and ground."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.batch.loaded_image import OpenedImage
from napari_simmat.datasets.label_folder import read_labels_of
from napari_simmat.engine.settings import ChannelSelection, Compute
from napari_simmat.io.readers import add_channels, open_image
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.object_kind import ObjectKind

NOTHING_ON = "{} holds no object; label some, each with a number of its own."


@dataclass(frozen=True, kw_only=True)
class LessonFiles:
    """What a kind of objects is learned from.

    Parameters
    ----------
    image
        The image.
    labels
        Label image of some of its objects.
    ground
        An image that is not 0 where there is surely no object.
    selection, channel_files
        The image's channels, and further files that hold some.
    """

    image: Path
    labels: Path
    ground: Path | None = None
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    channel_files: tuple[Path, ...] = ()


def teach_job(model: str | Path, lesson: LessonFiles, compute: Compute) -> Job[ObjectKind]:
    """Learn what objects have in common, on the plane with the most of them.

    Raises
    ------
    ValueError, TypeError, OSError
        If a file cannot be used, there are too few objects, or the channels do not fit the model.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.kind_learning import learn_kind
    from napari_simmat.engine.predictor import Predictor

    image = open_image(lesson.image)
    if lesson.channel_files:
        image = add_channels(image, [open_image(each) for each in lesson.channel_files])
    opened = OpenedImage.of(image, lesson.selection)
    shape, name = opened.shape, image.path.name
    labels = read_labels_of(lesson.labels, shape, name)
    ground = None if lesson.ground is None else read_labels_of(lesson.ground, shape, name) != 0
    counts = {
        plane: len(np.unique(labels[plane][labels[plane] > 0]))
        for plane in np.ndindex(*opened.shape[:-2])
    }
    plane = max(counts, key=lambda each: counts[each])
    if not counts[plane]:
        raise ValueError(NOTHING_ON.format(lesson.labels.name))
    loaded = yield from as_part(load_model_job(model), 0, 0.4)
    predictor = Predictor(loaded, **asdict(compute))
    yield from as_part(predictor.open_image_job(**opened.as_read), 0.4, 0.6)
    yield Progress(60, 100, "learning from the objects")
    here = None if ground is None else ground[plane]
    return learn_kind(predictor, labels[plane], here, plane)
