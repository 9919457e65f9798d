"""Classes from a few objects: the others are named by their size, shape, brightness and looks.

A logistic regression on standardized features names them, since it needs no choice of a seed, says
how certain it is, and was as good as forests on few objects (``research/scripts/naming.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, is_or_are, pluralize
from napari_simmat.engine.measuring.object_properties import ObjectFeatures, measure_features_job
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

MIN_CLASSES = 2
MIN_EACH = 3
"""Objects of a class that somebody has to name: of two, leaving one out tells too little."""
DOUBTFUL = 0.6
"""Names of a lower certainty are not given: about half of them would be wrong."""
ENCODED_PLANES = 20
"""On so many planes at most the model looks at the objects, too: encoding takes a while."""
_LEFT_OUT = 200
"""Known objects that are left out one by one, at most."""
_REACH = 4.0
"""Standard deviations beyond which a feature counts no more."""
_STRENGTH = 0.5
"""Inverse of the regression's penalty: with it certainties are about as often right."""

TOO_FEW = "Class three objects of each of at least two classes by hand; so far there {are} {known}."
NAMED = (
    "Named {objects} by {known}; left out one by one, {right} of these {tested} {are} named right."
)
NAMED_SOME = (
    "Named {objects} by {known}; left out one by one, {right} of {tested} {are} named right."
)
IN_DOUBT = "{count} {are} doubtful and {stay} without a class."


@dataclass(frozen=True, eq=False)
class NamedObjects:
    """The classes of objects that nobody has named.

    Attributes
    ----------
    names, certainties
        Of each such object, by its id: the most likely class, and how likely it is, 0..1.
    known
        How many objects of each class were known.
    right, tested
        How many known objects the other known ones name right, of how many that were left out.
    """

    names: Mapping[int, str]
    certainties: Mapping[int, float]
    known: Mapping[str, int]
    right: int
    tested: int

    @property
    def doubtful(self) -> tuple[int, ...]:
        """The objects whose class is not certain enough to be given, ascending."""
        return tuple(n for n, certainty in self.certainties.items() if certainty < DOUBTFUL)

    @property
    def sure(self) -> dict[int, str]:
        """The classes that are given."""
        return {n: name for n, name in self.names.items() if self.certainties[n] >= DOUBTFUL}

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        return self.described(len(self.sure), len(self.doubtful))

    def described(self, named: int, doubtful: int) -> str:
        """The outcome in words, of so many objects."""
        text = NAMED if self.tested == sum(self.known.values()) else NAMED_SOME
        parts = [
            text.format(
                objects=pluralize(named, "object"),
                known=_counted(self.known),
                right=self.right,
                tested=self.tested,
                are=is_or_are(self.right),
            )
        ]
        if doubtful:
            stay = "stays" if doubtful == 1 else "stay"
            parts.append(IN_DOUBT.format(count=doubtful, are=is_or_are(doubtful), stay=stay))
        return " ".join(parts)


def name_objects(
    labels: NDArray[np.integer[Any]],
    known: Mapping[int, str],
    channels: Sequence[Any] = (),
    predictor: Predictor | None = None,
) -> NamedObjects:
    """Name the other objects of an image by the classes of a few.

    Parameters
    ----------
    labels
        (..., Y, X), 0 is background; an object may extend over several planes.
    known
        The class of at least `MIN_EACH` objects of each of at least `MIN_CLASSES` classes, by id.
    channels
        The image: an array of the shape of `labels` for each channel, of any type. NaN and infinity
        do not count. Without any, size and shape alone decide.
    predictor
        The same image in a model, whose embedding is compared, too, if the objects lie on no more
        than `ENCODED_PLANES` planes. It is on another plane afterwards.

    Raises
    ------
    ValueError
        If fewer objects are known; one sentence says what is missing.
    """
    return finish(name_objects_job(labels, known, channels, predictor))


def name_objects_job(
    labels: NDArray[np.integer[Any]],
    known: Mapping[int, str],
    channels: Sequence[Any] = (),
    predictor: Predictor | None = None,
) -> Job[NamedObjects]:
    """`name_objects` as a job."""
    check_known(known)
    for number, channel in enumerate(channels):
        if tuple(channel.shape) != labels.shape:
            found = f"channel {number} has {channel.shape} and the labels {labels.shape}"
            raise ValueError(f"Channels and labels need one shape, but {found}.")

    def plane(at: tuple[int, ...]) -> NDArray[Any]:
        return np.stack([np.asarray(channel[at]) for channel in channels])

    def encode_job(at: tuple[int, ...]) -> Job[NDArray[np.float32]]:
        assert predictor is not None
        yield from predictor.set_plane_job(at)
        return predictor.embedding

    n_planes = int(np.count_nonzero(labels.any(axis=(-2, -1))))
    looks = predictor is not None and n_planes <= ENCODED_PLANES
    features = yield from measure_features_job(
        labels, plane, len(channels), encode_job if looks else None
    )
    return (yield from name_by_features_job(features, known))


def name_by_features_job(features: ObjectFeatures, known: Mapping[int, str]) -> Job[NamedObjects]:
    """Name the other objects by their features; `known` as in `name_objects`."""
    rows = {label: row for row, label in enumerate(features.ids)}
    known = {label: known[label] for label in sorted(known) if label in rows}
    check_known(known)
    values = _comparable(features)
    ours = np.array([rows[label] for label in known])
    names = np.array(list(known.values()))
    chosen = np.random.default_rng(0).permutation(len(ours))[:_LEFT_OUT]
    right = 0
    for done, left in enumerate(chosen):
        yield Progress(done, len(chosen), "leaving out known objects one by one")
        rest = np.arange(len(ours)) != left
        told, _ = _named(values[ours[rest]], names[rest], values[ours[left]][None])
        right += int(told[0] == names[left])
    others = [label for label in features.ids if label not in known]
    told, certain = _named(values[ours], names, values[[rows[label] for label in others]])
    return NamedObjects(
        dict(zip(others, told.tolist(), strict=True)),
        dict(zip(others, certain.tolist(), strict=True)),
        Counter(known.values()),
        right,
        len(chosen),
    )


def check_known(known: Mapping[int, str]) -> None:
    """Raise ValueError if others cannot be named by these; the sentence says what is missing."""
    counts = Counter(known.values())
    if len(counts) < MIN_CLASSES or min(counts.values()) < MIN_EACH:
        are = is_or_are(next(iter(counts.values()), 0))
        raise ValueError(TOO_FEW.format(are=are, known=_counted(counts) if counts else "none"))


def _counted(counts: Mapping[str, int]) -> str:
    return format_list(f"{number} {name}" for name, number in counts.items())


def _comparable(features: ObjectFeatures) -> NDArray[np.float64]:
    """All features in standard deviations of all objects; what is not known is as usual."""
    values = _standardized(features.values)
    if features.appearance is None:
        return values
    looks = _standardized(features.appearance)
    # A model's embedding has many more numbers, which together count as much as the others.
    return np.hstack([values, looks * (values.shape[1] / looks.shape[1]) ** 0.5])


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns that differ, in standard deviations from their mean."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    away = np.where(known, values, 0.0)
    away = np.where(known, away - away.sum(0) / count, 0.0)
    spread = np.sqrt((away**2).sum(0) / count)
    differs = spread > 1e-9
    return np.asarray(np.clip(away[:, differs] / spread[differs], -_REACH, _REACH))


def _named(
    known: NDArray[np.float64], names: NDArray[Any], others: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The most likely name of each of the others, and how likely it is."""
    from sklearn.linear_model import LogisticRegression

    if not len(others):
        return names[:0], np.empty(0)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000)
    likely = model.fit(known, names).predict_proba(others)
    return model.classes_[likely.argmax(1)], likely.max(1)
