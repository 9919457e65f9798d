"""Masks proposed on a plane, and the drafts that settings choose from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from napari_simmat._text import pluralize
from napari_simmat.annotation.drafts import COVERED, DOUBTFUL_SHARE, Draft, DraftSet, still_open
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.lesson import Lesson
from napari_simmat.annotation.predictions import PredictionRequest, Subject
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.everything.candidates import Instances, Unsure, masks_to_instances
from napari_simmat.engine.everything.sifting import Sifted
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.object_kind import MIN_GROUND, WORTHWHILE, ObjectKind, met_objects
from napari_simmat.engine.settings import BY_EXAMPLES
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.everything.candidates import MaskCandidates
    from napari_simmat.engine.everything.next_step import SeenPlane
    from napari_simmat.engine.settings import AutomaticSettings

Sift = Callable[[Instances], Job[Sifted]]
FOUND = "{} found."
EXPECTED = "Expected: the size of {objects}, {side:.0f} pixels across."
EXPECTED_LOOKS = "Expected: the size ({side:.0f} pixels across) and looks of {objects}."
EXPECTED_ALIKE = "Expected: objects like {objects}."
LOOKED_FOR = "Looked for: {}."
LIKE_OBJECTS = "what is like {}"
MORE_GROUND = f"Mark {MIN_GROUND} pixels of ground or more to tell their looks, too."
BY_ITSELF = "It finds {met} of these {count} by itself."
HARDLY = "Others like them will hardly be found: draw boxes around them."
KNOWN = "{count} more {were} committed or rejected before."
COMMIT_FOUND = "Commit (<key:commit>) writes them."
LOOSEN = "Loosen the thresholds under More settings."


@dataclass(frozen=True, eq=False)
class Proposals:
    """Masks proposed on a plane of a view, from which filters choose the drafts.

    They are valid for `subject` alone. `expected` says in words what was looked for, if anything,
    `lesson` is what told it. `candidates` is None until they are there. `seen` is what was looked
    at, if that tells what to try next.
    """

    session: ImageSession
    request: PredictionRequest
    subject: Subject | None
    order: AxisOrder
    plane: Plane
    expected: str = ""
    lesson: Lesson | None = None
    candidates: MaskCandidates | None = None
    seen: SeenPlane | None = None


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
    other_model: str = "",
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
    other_model
        A sentence on a model made for such images, told if too little was found.
    """
    yield Progress(0, 1, "filtering")
    candidates = proposals.candidates
    assert candidates is not None, "they are there by now"
    instances = masks_to_instances(candidates, settings)
    yield Progress(0, 1, "comparing with committed objects")
    step = _next_step(proposals, instances, settings, known)
    # A tuned decoder was shown the committed objects themselves: that it finds them says nothing.
    by_itself = ""
    if known.committed is not None and not candidates.disjoint:
        by_itself = found_by_itself(instances, known.committed)
    instances, left_out = _without_committed(instances, proposals, known)
    like = ""
    if sift is not None and len(instances):
        sifted = yield from sift(instances)
        instances = sifted.instances
        like = sifted.sentence
    drafts = drafts_of(instances, proposals.plane, proposals.order)
    count = len(still_open(drafts, known.settled))
    left_out += len(drafts) - count

    sentences = [like or FOUND.format(pluralize(count, "object"))]
    if proposals.expected:
        sentences += [proposals.expected, by_itself]
    if left_out:
        sentences.append(KNOWN.format(count=left_out, were="was" if left_out == 1 else "were"))
    sentences += [COMMIT_FOUND if count else "" if step else LOOSEN, step, note]
    sentences += [other_model] if step or not count else []
    quality = candidates.thresholds[0]
    doubtful_below = quality + DOUBTFUL_SHARE * (1 - quality)
    text = " ".join(filter(None, sentences))
    return ChosenDrafts(proposals, DraftSet(drafts, doubtful_below), text)


def _next_step(
    proposals: Proposals, instances: Instances, settings: AutomaticSettings, known: KnownObjects
) -> str:
    """What to try where too little was found and committed, in sentences; empty otherwise.

    Nothing where filters alone left nothing.
    """
    if proposals.seen is None or proposals.order:
        return ""
    there = instances.labels if known.committed is None else instances.labels + known.committed
    # After committed objects have taught it, the status line says how many of them it finds.
    unsure = Unsure() if proposals.expected else instances.unsure
    step = proposals.seen.next_step(there, settings, unsure)
    filtered = not len(instances) and proposals.candidates
    return "" if step is None or (step.shows_one and filtered) else step.in_controls


def expected(lesson: Lesson, image: str = "", kind: ObjectKind | None = None) -> str:
    """What a lesson, or the kind that it taught, lets expect; of another image its name."""
    text = EXPECTED_LOOKS if lesson.tells_looks else EXPECTED
    if kind is not None and kind.decoder is not None:
        text = EXPECTED_ALIKE
    elif lesson.ground is not None and not lesson.tells_looks:
        text = f"{text} {MORE_GROUND}"
    objects = pluralize(lesson.count, "committed object")
    named = f"{objects} of {image}" if image else objects
    return text.format(objects=named, side=lesson.side)


def looked_for(words: str, lesson: Lesson | None, plane: Plane) -> str:
    """What words let look for, with the objects of a lesson on the same plane, in a sentence."""
    sought = [] if words == BY_EXAMPLES else [words]
    if lesson is not None and lesson.plane == plane:
        sought.append(LIKE_OBJECTS.format(pluralize(lesson.count, "committed object")))
    return LOOKED_FOR.format(" and ".join(sought) or words)


def found_by_itself(instances: Instances, committed: np.ndarray) -> str:
    """How many of the committed objects (Y, X) are found by themselves, in words.

    Empty if there are no committed objects.
    """
    count = len(np.unique(committed[committed > 0]))
    if not count:
        return ""
    met = met_objects(instances.labels, committed)
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
    covered = _covered(instances, known.committed)
    drafts = drafts_of(instances, proposals.plane, proposals.order)
    fresh = set(still_open([drafts[number - 1] for number in covered], known.settled))
    gone = [number for number in covered if drafts[number - 1] in fresh]
    return _without(instances, gone), len(gone)


def _covered(instances: Instances, committed: np.ndarray) -> list[int]:
    """The numbers of the objects that committed ones (Y, X) cover, alone or together; ascending."""
    labels = instances.labels
    sizes = np.bincount(labels.ravel(), minlength=len(instances) + 1)
    shared = (labels > 0) & (committed > 0)

    # One committed object is the same one if they share most of the smaller of the two.
    meetings = np.stack([labels[shared].astype(np.int64), committed[shared].astype(np.int64)])
    (numbers, ids), pixels = np.unique(meetings, axis=1, return_counts=True)
    committed_ids, committed_sizes = np.unique(committed, return_counts=True)
    theirs = committed_sizes[np.searchsorted(committed_ids, ids)]
    same = numbers[pixels > COVERED * np.minimum(sizes[numbers], theirs)]

    # Several committed objects may cover one together.
    inside = np.bincount(labels[shared], minlength=len(instances) + 1)
    together = np.flatnonzero(inside[1:] > COVERED * sizes[1:]) + 1
    covered: list[int] = np.union1d(same, together).tolist()
    return covered


def _without(instances: Instances, gone: Sequence[int]) -> Instances:
    """The other objects, numbered anew in their order."""
    kept = np.setdiff1d(np.arange(1, len(instances) + 1), gone)
    new_number = np.zeros(len(instances) + 1, instances.labels.dtype)
    new_number[kept] = np.arange(1, len(kept) + 1)
    return Instances(new_number[instances.labels], instances.scores[kept - 1])
