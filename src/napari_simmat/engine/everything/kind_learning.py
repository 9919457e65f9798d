"""What an image teaches of the kind of objects in it, and how that weighs proposed masks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.everything.candidates import MaskCandidates, PixelBox
from napari_simmat.engine.everything.decoder_tuning import tune_decoder_job
from napari_simmat.engine.everything.outlined_objects import seen_by_tiny_job
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.settings import BY_TINY, LOOKS_THRESHOLDS, AutomaticSettings
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


def learn_kind(
    predictor: Predictor,
    labels: NDArray[Any],
    ground: NDArray[np.bool_] | None = None,
    plane: tuple[int, ...] = (),
    seed: int = 0,
    by: str = "auto",
) -> ObjectKind:
    """Learn what some objects of a plane have in common, for `segment_everything`.

    Parameters
    ----------
    predictor
        Holds the image.
    labels
        (Y, X) ids of at least three objects; 0 where nothing is known.
    ground
        (Y, X), where there is surely no object. Without it clicks learn their size alone.
    plane
        Index along the image's axes before Y and X.
    seed
        Of what is drawn at random.
    by
        How such objects are to be found, as in `AutomaticSettings`: `tiny`'s decoder is tuned on
        them unless they are found by clicks. Of another model it is with ``"tiny"``.

    Raises
    ------
    ValueError
        If there are too few objects, or the labels have another size than the image.

    Examples
    --------
    >>> kind = learn_kind(predictor, labels_of_five, ground=strokes)
    >>> segment_everything(predictor, kind=kind)
    """
    return finish(learn_kind_job(predictor, labels, ground, plane, seed, by))


def learn_kind_job(
    predictor: Predictor,
    labels: NDArray[Any],
    ground: NDArray[np.bool_] | None = None,
    plane: tuple[int, ...] = (),
    seed: int = 0,
    by: str = "auto",
) -> Job[ObjectKind]:
    """Learn a kind like `learn_kind`, step by step."""
    height, width = predictor.shape[-2:]
    for given in (labels, ground):
        if given is not None and given.shape != (height, width):
            size = f"{format_shape(given.shape)} instead of {height} x {width}"
            raise ValueError(f"Labels and ground must have the size of a plane; got {size}.")
    enlarged = enlargement(predictor, PixelBox(0, 0, height, width))
    yield Progress(0, 1, "learning from the objects")
    has_decoder = isinstance(predictor.model.decoder, ObjectDecoder)
    if by == "clicks" or not (has_decoder or by == BY_TINY):
        image = None if ground is None else unit_planes(predictor, plane)
        return ObjectKind.of(labels, enlarged, image, ground, seed)
    kind = ObjectKind.of(labels, enlarged)
    objects = np.searchsorted(np.unique(labels[labels > 0]), labels, side="right")
    objects = np.where(labels > 0, objects, 0)
    seen = yield from seen_by_tiny_job(predictor, plane, PixelBox(0, 0, height, width))
    job = tune_decoder_job(seen.finder, objects.astype(np.int32), ground, seen.plane, seed)
    decoder = yield from job
    return replace(kind, decoder=decoder)


def known_kind(predictor: Predictor, settings: AutomaticSettings) -> ObjectKind | None:
    """What the model was taught, with the size of the settings if they give one; None for none."""
    taught = ObjectKind.of_model(predictor.model)
    if not settings.object_side:
        return taught
    height, width = predictor.shape[-2:]
    area = settings.object_side**2 * enlargement(predictor, PixelBox(0, 0, height, width))
    size = ExpectedSize.of([area])
    return ObjectKind(size) if taught is None else replace(taught, size=size)


def weigh_masks_job(
    candidates: MaskCandidates,
    kind: ObjectKind,
    predictor: Predictor,
    plane: tuple[int, ...] = (),
    image: NDArray[np.float32] | None = None,
    part: PixelBox | None = None,
) -> Job[MaskCandidates]:
    """The candidates, less likely ones with less quality, if the looks of their kind are known.

    Parameters
    ----------
    candidates
        Of a plane, or of a `part` of it.
    kind
        With the size of which they were proposed.
    predictor, plane
        As in `propose_masks_job`.
    image
        (C, Y, X) in 0..1: the plane or part in the channels by which the looks were learned; by
        default those that the model reads.
    """
    if kind.looks is None:
        return candidates
    if image is None:
        image = unit_planes(predictor, plane, part)
    likeness = yield from kind.likeness_job(image)
    assert likeness is not None
    return replace(candidates.weighed(likeness), thresholds=LOOKS_THRESHOLDS)


def unit_planes(
    predictor: Predictor, plane: tuple[int, ...], part: PixelBox | None = None
) -> NDArray[np.float32]:
    """A plane, or a part of it, as the model reads it: (C, Y, X) in 0..1."""
    stack, scale = predictor.stack, predictor.stack.inputs.normalization.scale
    values = (
        stack.normalized(plane) if part is None else stack.part(plane, *part.slices).normalized()
    )
    return np.asarray(np.asarray(values, np.float32) / np.float32(scale), np.float32)


def enlargement(predictor: Predictor, box: PixelBox) -> float:
    """Pixels of the network's input for each pixel of a part of a plane."""
    spec, pixel_size = predictor.model.spec, predictor.stack.pixel_size
    return math.prod(InputTransform.of(box.size, spec.input_size, pixel_size).scale)
