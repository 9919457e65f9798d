"""Objects of an image file followed through its planes, painted into one label image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_simmat.engine.objects import Painting
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_settings import PropagationSettings
from napari_simmat.engine.volume.propagating import Propagator
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


def painting_through(
    predictor: Predictor,
    prompts: Sequence[Prompt],
    labels: Sequence[int],
    settings: PropagationSettings,
    axes: str,
    scale: Mapping[str, float],
) -> Job[Painting]:
    """Follow objects through the depth of an image, or through time where it has none.

    Parameters
    ----------
    predictor
        With the image set.
    prompts, labels
        Each prompt and the number of its object.
    settings
        When an object has ended.
    axes, scale
        Letters of the image's axes without channels, and the distance between voxels by letter.
    """
    propagator = Propagator(predictor, settings, spacing_along(axes, scale))
    numbered = [replace(one, object=label) for one, label in zip(prompts, labels, strict=True)]
    tracks = yield from propagator.propagating(numbered, along_of(axes, predictor.shape))
    painting = Painting(predictor.shape)
    for track in tracks:
        usual = 0.0 if math.isnan(track.score) else track.score
        for plane, mask, score in track.masks():
            painting.add(track.object or 0, mask, usual if math.isnan(score) else score, plane)
    return painting


def spacing_along(axes: str, scale: Mapping[str, float]) -> tuple[float, ...]:
    """The distance between voxels along each axis, in one unit; a pixel where it is no length."""
    known = {letter: scale[letter] for letter in "ZYX" if scale.get(letter, 0.0) > 0}
    if len(known) < 3:
        return (1.0,) * len(axes)  # some alone would compare micrometres with pixels
    return tuple(known.get(letter, known["X"]) for letter in axes)


def along_of(axes: str, shape: Sequence[int]) -> int | None:
    """The axis along which objects are followed: depth, or where it is one plane the last other.

    Many files have axes of one plane. None where there is no axis of more.
    """
    long = [axis for axis, size in enumerate(shape[:-2]) if size > 1]
    depth = [axis for axis in long if axes[axis] == "Z"]
    return next(iter([*depth, *reversed(long)]), None)
