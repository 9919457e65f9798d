"""Which of the objects found are like those that a user committed: by size, intensity, appearance.

Each property is one number: how far an object is from the committed ones. The largest distance of
a committed object from the others (leave-one-out), with some room, is what it may be. So every
object that is left out has a reason that can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.automatic_postprocessing import Instances
from napari_simmat.engine.masks import label_windows

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

MIN_EXAMPLES = 3
"""Committed objects needed to tell what they have in common."""
ROOM = 1.5
"""What an object may be, in largest distances of a committed object from the others."""
MIN_DISTANCES = {"size": 0.4, "intensity": 0.35, "appearance": 0.1}
"""Distances that always pass: few committed objects may be alike by chance. Size is the logarithm
of the area, intensity is in standard deviations of the image, appearance is 1 less the cosine of
the embeddings' angle."""
RING = 0.3
"""Width of the ring around an object in square roots of its area."""
MIN_RING = 2.0
TOO_FEW = "Three committed objects are needed to tell which objects are like them, {} {} here."
ALL_ALIKE = "All {} are like the committed ones."
KEPT = "{} of {} are like the committed ones; left out by {}."


@dataclass(frozen=True, eq=False)
class ObjectProperties:
    """Properties of N objects.

    Parameters
    ----------
    ids
        In order.
    vectors
        ``size`` (N, 1), ``intensity`` (N, 2 C): mean of each channel, and its difference from the
        ring around the object; ``appearance`` (N, D): the mean embedding, of unit length.
    """

    ids: tuple[int, ...]
    vectors: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Sifted:
    """The objects that are like the committed ones.

    Parameters
    ----------
    instances
        These objects, renumbered.
    kept
        Their ids before.
    left_out
        Number of objects left out by each property; one that fails several counts for each.
    sentence
        The outcome in words.
    """

    instances: Instances
    kept: tuple[int, ...]
    left_out: Mapping[str, int]
    sentence: str


def measure_properties(
    predictor: Predictor, labels: NDArray[Any], index: tuple[int, ...] = ()
) -> ObjectProperties:
    """The properties of objects on the predictor's current plane.

    Parameters
    ----------
    predictor
        On the plane.
    labels
        The plane's labels (Y, X).
    index
        The plane's index along the axes before Y and X.
    """
    values, embedding = predictor.stack.normalized(index), predictor.embedding
    center, spread = values.mean((1, 2)), values.std((1, 2)) + 1e-6
    ids, size, intensity, appearance = [], [], [], []
    for label, window in label_windows(labels):
        reach = 1 + int(max(MIN_RING, RING * max(side.stop - side.start for side in window)))
        around = tuple(
            slice(max(side.start - reach, 0), min(side.stop + reach, length))
            for side, length in zip(window, labels.shape, strict=True)
        )
        mask = labels[around] == label
        area = int(np.count_nonzero(mask))
        width = max(MIN_RING, RING * area**0.5)
        ring = ~mask & (ndi.distance_transform_edt(~mask) <= width)
        seen = values[:, *around]
        inside = (seen[:, mask].mean(1) - center) / spread
        outside = (seen[:, ring].mean(1) - center) / spread if ring.any() else np.zeros(len(seen))
        ids.append(int(label))
        size.append([np.log(area)])
        intensity.append([*inside, *(inside - outside)])
        appearance.append(_mean_embedding(embedding, labels, label, around))
    vectors = {"size": size, "intensity": intensity, "appearance": appearance}
    return ObjectProperties(
        tuple(ids), {name: np.array(each, float) for name, each in vectors.items()}
    )


def sift(found: Instances, properties: ObjectProperties, committed: ObjectProperties) -> Sifted:
    """Keep the objects that are like the committed ones.

    Parameters
    ----------
    found
        E.g. of `segment_everything`.
    properties
        Those of these objects.
    committed
        Properties of at least `MIN_EXAMPLES` objects that a user committed.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    count = len(committed.ids)
    if count < MIN_EXAMPLES:
        raise ValueError(TOO_FEW.format(count, "is" if count == 1 else "are"))
    fits: dict[str, NDArray[np.bool_]] = {}
    for name, examples in committed.vectors.items():
        others = [np.delete(examples, n, axis=0) for n in range(count)]
        apart = [_distance(name, examples[n : n + 1], rest)[0] for n, rest in enumerate(others)]
        allowed = max(MIN_DISTANCES[name], ROOM * max(apart))
        ours = properties.vectors[name]
        fits[name] = _distance(name, ours, examples) <= allowed if len(ours) else np.zeros(0, bool)
    keep = np.logical_and.reduce(list(fits.values()))
    kept = tuple(label for label, fit in zip(properties.ids, keep, strict=True) if fit)
    left_out = {name: int(np.count_nonzero(~fit)) for name, fit in fits.items()}
    numbers = np.zeros(int(found.labels.max(initial=0)) + 1, np.uint32)
    numbers[list(kept)] = np.arange(1, len(kept) + 1)
    instances = Instances(numbers[found.labels], found.scores[[label - 1 for label in kept]])
    objects = pluralize(len(keep), "object")
    reasons = [f"{name} {number}" for name, number in left_out.items() if number]
    sentence = ALL_ALIKE.format(objects)
    if len(kept) < len(keep):
        sentence = KEPT.format(len(kept), objects, format_list(reasons))
    return Sifted(instances, kept, left_out, sentence)


def _distance(
    name: str, ours: NDArray[np.float64], examples: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far each of N vectors is from the nearest of the examples, (N,)."""
    if name == "appearance":
        apart = 1 - ours @ examples.T
    else:
        apart = np.abs(ours[:, None] - examples[None]).mean(2)
    return np.asarray(apart.min(1))


def _mean_embedding(
    embedding: NDArray[np.float32], labels: NDArray[Any], label: int, window: tuple[slice, ...]
) -> NDArray[np.float64]:
    """The mean of an embedding (D, h, w) over an object's cells, or at the cell in its middle."""
    scale = np.array(embedding.shape[1:]) / labels.shape
    cells = [
        ((np.arange(side.start, side.stop) + 0.5) * factor).astype(int)
        for side, factor in zip(window, scale, strict=True)
    ]
    mask = labels[window] == label
    rows, columns = np.nonzero(mask)
    mean = embedding[:, cells[0][rows], cells[1][columns]].mean(1)
    return np.asarray(mean / (np.linalg.norm(mean) + 1e-9), float)
