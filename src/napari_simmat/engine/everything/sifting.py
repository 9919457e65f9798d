"""Leave out objects that differ from examples: by size, shape and brightness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.everything.candidates import Instances
from napari_simmat.engine.measuring.object_properties import mean_embedding, object_intensities

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
    embedding = predictor.embedding
    ids: list[int] = []
    vectors: dict[str, list[Any]] = {"size": [], "intensity": [], "appearance": []}
    for seen in object_intensities(predictor.stack.normalized(index), labels):
        mean = mean_embedding(embedding, labels, seen.label, seen.around)
        ids.append(seen.label)
        vectors["size"].append([np.log(seen.area)])
        vectors["intensity"].append([*seen.mean, *seen.difference])
        vectors["appearance"].append(mean)
    return ObjectProperties(
        tuple(ids), {name: np.array(rows, float) for name, rows in vectors.items()}
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
    fits = {
        name: _fits(name, properties.vectors[name], examples)
        for name, examples in committed.vectors.items()
    }
    keep = np.logical_and.reduce(list(fits.values()))
    kept = tuple(label for label, fit in zip(properties.ids, keep, strict=True) if fit)
    left_out = {name: int(np.count_nonzero(~fit)) for name, fit in fits.items()}
    numbers = np.zeros(int(found.labels.max(initial=0)) + 1, np.uint32)
    numbers[list(kept)] = np.arange(1, len(kept) + 1)
    instances = Instances(numbers[found.labels], found.scores[[label - 1 for label in kept]])
    objects = pluralize(len(keep), "object")
    if len(kept) == len(keep):
        sentence = ALL_ALIKE.format(objects)
    else:
        reasons = [f"{name} {number}" for name, number in left_out.items() if number]
        sentence = KEPT.format(len(kept), objects, format_list(reasons))
    return Sifted(instances, kept, left_out, sentence)


def _fits(
    name: str, vectors: NDArray[np.float64], examples: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of N vectors are about as near to an example as the examples are to each other."""
    if not len(vectors):
        return np.zeros(0, bool)
    apart = []
    for number in range(len(examples)):
        others = np.delete(examples, number, axis=0)
        apart.append(_distance(name, examples[number : number + 1], others)[0])
    allowed = max(MIN_DISTANCES[name], ROOM * max(apart))
    return np.asarray(_distance(name, vectors, examples) <= allowed)


def _distance(
    name: str, vectors: NDArray[np.float64], examples: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far each of N vectors is from the nearest of the examples, (N,)."""
    if name == "appearance":
        apart = 1 - vectors @ examples.T
    else:
        apart = np.abs(vectors[:, None] - examples[None]).mean(2)
    return np.asarray(apart.min(1))
