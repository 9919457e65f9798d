"""Masks proposed on a plane, and the drafts that settings choose from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from napari_simmat._text import pluralize
from napari_simmat.annotation.drafts import (
    COVERED,
    DOUBTFUL_SHARE,
    Draft,
    DraftSet,
    still_open,
)
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.lesson import Lesson
from napari_simmat.annotation.predictions import PredictionRequest, Subject
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.automatic_postprocessing import (
    Instances,
    Sifted,
    masks_to_instances,
)
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.object_kind import WORTHWHILE, met_objects
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.automatic_postprocessing import MaskCandidates
    from napari_simmat.engine.settings import AutomaticSettings

Sift = Callable[[Instances], Job[Sifted]]
FOUND = "{} found."
EXPECTED = "Expected: the size of {objects}, {side:.0f} pixels across."
EXPECTED_LOOKS = "Expected: the size ({side:.0f} pixels across) and looks of {objects}."
MORE_GROUND = "Mark more ground to tell their looks, too."
BY_ITSELF = "It finds {met} of these {count} by itself."
HARDLY = "Others like them will hardly be found: draw boxes around them."
KNOWN = "{count} more {were} committed or rejected before."
COMMIT_FOUND = (
    "Commit (C) writes them, Next doubtful (J) goes over them; More settings filters them."
)
LOOSEN = "Loosen the thresholds under More settings."


@dataclass(frozen=True, eq=False)
class Proposals:
    """Masks proposed on a plane of a view, from which filters choose the drafts.

    They are valid for `subject` alone. `expected` says in words what was looked for, if anything,
    `lesson` is what told it. `candidates` is None until they are there.
    """

    session: ImageSession
    request: PredictionRequest
    subject: Subject | None
    order: AxisOrder
    plane: Plane
    expected: str = ""
    lesson: Lesson | None = None
    candidates: MaskCandidates | None = None


@dataclass(frozen=True, eq=False)
class KnownObjects:
    """What is on a plane already: the labels of committed objects (Y, X), and settled drafts."""

    committed: np.ndarray | None
    settled: tuple[Draft, ...]


class ChosenDrafts(NamedTuple):
    """The drafts that settings choose from proposals, and the outcome in words."""

    proposals: Proposals
    drafts: DraftSet
    text: str


def choose_drafts_job(
    proposals: Proposals,
    settings: AutomaticSettings,
    known: KnownObjects,
    sift: Sift | None = None,
    note: str = "",
) -> Job[ChosenDrafts]:
    """Choose drafts from proposals.

    Parameters
    ----------
    proposals, settings
        The masks, and which of them are kept.
    known
        Objects that are not proposed again.
    sift
        Keeps the objects that are like others.
    note
        A last sentence of the outcome.
    """
    yield Progress(0, 1, "filtering")
    candidates = proposals.candidates
    assert candidates is not None, "they are there by now"
    instances = masks_to_instances(candidates, settings)
    yield Progress(0, 1, "comparing with committed objects")
    by_itself = "" if known.committed is None else found_by_itself(instances, known.committed)
    instances, left_out = _without_committed(instances, proposals, known)
    like = ""
    if sift is not None and len(instances):
        sifted = yield from sift(instances)
        instances, like = sifted.instances, sifted.sentence
    drafts = drafts_of(instances, proposals.plane, proposals.order)
    count = len(still_open(drafts, known.settled))
    sentence = like or FOUND.format(pluralize(count, "object"))
    left_out += len(drafts) - count
    were = "was" if left_out == 1 else "were"
    gone = KNOWN.format(count=left_out, were=were) if left_out else ""
    if proposals.expected:
        sentence = " ".join(filter(None, [sentence, proposals.expected, by_itself]))
    next_step = COMMIT_FOUND if count else LOOSEN
    quality = candidates.thresholds[0]
    found = DraftSet(drafts, quality + DOUBTFUL_SHARE * (1 - quality))
    text = " ".join(filter(None, [sentence, gone, next_step, note]))
    return ChosenDrafts(proposals, found, text)


def expected(lesson: Lesson, image: str = "") -> str:
    """What a lesson lets expect, in words; of another image its name."""
    text = EXPECTED_LOOKS if lesson.tells_looks else EXPECTED
    if lesson.ground is not None and not lesson.tells_looks:
        text = f"{text} {MORE_GROUND}"
    objects = pluralize(lesson.count, "committed object")
    named = f"{objects} of {image}" if image else objects
    return text.format(objects=named, side=lesson.side)


def found_by_itself(instances: Instances, committed: np.ndarray) -> str:
    """How many of the committed objects (Y, X) are found by themselves, in words; empty of none."""
    count, met = len(np.unique(committed[committed > 0])), met_objects(instances.labels, committed)
    if not count:
        return ""
    text = BY_ITSELF.format(met=met, count=count)
    return text if met >= WORTHWHILE * count else f"{text} {HARDLY}"


def drafts_of(instances: Instances, plane: Plane, order: AxisOrder) -> tuple[Draft, ...]:
    """The objects found on a plane of a view as drafts, in their order."""
    return tuple(
        Draft(
            ObjectMask.of(instances.labels[at] == number, (*plane, at[0].start, at[1].start)),
            float(instances.scores[number - 1]),
            order,
        )
        for number, at in enumerate(find_objects(instances.labels), start=1)
    )


def _without_committed(
    instances: Instances, proposals: Proposals, known: KnownObjects
) -> tuple[Instances, int]:
    """The objects that are not committed yet, and how many are.

    Those that are like a settled draft stay, although their object is there: they are not open,
    and undo opens them.
    """
    if known.committed is None or not known.committed.any():
        return instances, 0
    labels = instances.labels
    shared = (labels > 0) & (known.committed > 0)
    pairs, counts = np.unique(
        np.stack([labels[shared].astype(np.int64), known.committed[shared].astype(np.int64)]),
        axis=1,
        return_counts=True,
    )
    sizes = np.bincount(labels.ravel(), minlength=len(instances) + 1)
    objects, areas = np.unique(known.committed, return_counts=True)
    theirs = areas[np.searchsorted(objects, pairs[1])]
    covered = counts > COVERED * np.minimum(sizes[pairs[0]], theirs)
    # Several objects may cover a draft together.
    inside = np.bincount(labels[shared], minlength=len(instances) + 1)
    numbers = set(pairs[0][covered].tolist())
    numbers |= set(np.flatnonzero(inside[1:] > COVERED * sizes[1:]) + 1)
    drafts = drafts_of(instances, proposals.plane, proposals.order)
    fresh = set(still_open([drafts[n - 1] for n in sorted(numbers)], known.settled))
    gone = [number for number in numbers if drafts[number - 1] in fresh]
    kept = np.setdiff1d(np.arange(1, len(instances) + 1), gone)
    table = np.zeros(len(instances) + 1, labels.dtype)
    table[kept] = np.arange(1, len(kept) + 1)
    return Instances(table[labels], instances.scores[kept - 1]), len(gone)
