"""Teach a model a kind of objects from files: an image, some labeled objects, and ground."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.batch.loaded_image import OpenedImage
from napari_simmat.datasets.label_folder import read_labels_of
from napari_simmat.engine.settings import AutomaticSettings, ChannelSelection, Compute
from napari_simmat.evaluation.metrics import match_at_thresholds
from napari_simmat.io.readers import add_channels, open_image
from napari_simmat.models.taught_kind import GROUND
from napari_simmat.progress import Job, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.predictor import Predictor

FINDS = (
    "Everything finds {} of the {} labeled objects, of {} in all; without them it finds {}, of {}. "
    "It was shown these: look at others before you rely on it."
)
_SAME = 0.5
"""IoU from which on an object is found."""
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


class ShownObjects(NamedTuple):
    """What *Everything* finds on the plane of a lesson."""

    found: int
    """How many of the labeled objects, at an IoU of at least 0.5."""
    objects: int
    """How many objects in all."""


class LessonResult(NamedTuple):
    """A kind of objects, and what it brings where it was learned."""

    kind: ObjectKind
    labeled: int
    """How many objects were labeled on that plane."""
    ground: int = 0
    """How many pixels of ground were marked beside them, further than their border."""
    before: ShownObjects | None = None
    after: ShownObjects | None = None
    """Without and with the kind; None where that would take long, on a plane in tiles."""

    @property
    def sentence(self) -> str:
        """The two in words; empty without them."""
        if self.before is None or self.after is None:
            return ""
        return FINDS.format(self.after.found, self.labeled, self.after.objects, *self.before)


def teach_job(model: str | Path, lesson: LessonFiles, compute: Compute) -> Job[LessonResult]:
    """Learn what objects have in common, on the plane with the most of them.

    What *Everything* finds there is measured without and with it.

    Raises
    ------
    ValueError, TypeError, OSError
        If a file cannot be used, there are too few objects, or the channels do not fit the model.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.everything.kind_learning import learn_kind_job
    from napari_simmat.engine.pixel_forest import training_classes
    from napari_simmat.engine.predictor import Predictor

    image = open_image(lesson.image)
    if lesson.channel_files:
        image = add_channels(image, [open_image(each) for each in lesson.channel_files])
    opened = OpenedImage.of(image, lesson.selection)
    shape, name = opened.shape, image.path.name
    axes = opened.axes
    labels = read_labels_of(lesson.labels, shape, name, axes)
    ground = None
    if lesson.ground is not None:
        ground = read_labels_of(lesson.ground, shape, name, axes) != 0
    counts = {
        plane: len(np.unique(labels[plane][labels[plane] > 0]))
        for plane in np.ndindex(*opened.shape[:-2])
    }
    plane = max(counts, key=lambda each: counts[each])
    if not counts[plane]:
        raise ValueError(NOTHING_ON.format(lesson.labels.name))
    loaded = yield from as_part(load_model_job(model), 0, 0.4)
    predictor = Predictor(loaded, **asdict(compute))
    yield from as_part(predictor.open_image_job(**opened.as_read), 0.4, 0.5)
    known = labels[plane]
    here = np.zeros(known.shape, bool) if ground is None else ground[plane]
    marked = training_classes((known > 0).astype(np.int32), here) == GROUND
    learning = learn_kind_job(predictor, known, None if ground is None else here, plane)
    kind = yield from as_part(learning, 0.5, 0.7)
    result = LessonResult(kind, counts[plane], int(np.count_nonzero(marked)))
    if max(shape[-2:]) > 2 * AutomaticSettings().tile_side:
        return result
    looking = _shown_job(predictor, known, plane, None)
    before = yield from as_part(looking, 0.7, 0.85, after=" without what it was shown")
    after = yield from as_part(_shown_job(predictor, known, plane, kind), 0.85, 1)
    return result._replace(before=before, after=after)


def _shown_job(
    predictor: Predictor, known: NDArray[Any], plane: tuple[int, ...], kind: ObjectKind | None
) -> Job[ShownObjects]:
    """Segment everything on a plane, and count which of the `known` objects are found."""
    from napari_simmat.engine.everything.generator import segment_everything_job

    labels = (yield from segment_everything_job(predictor, plane=plane, kind=kind)).labels
    [matching] = match_at_thresholds(labels, known, (_SAME,))
    return ShownObjects(matching.true_positives, int(labels.max()))
