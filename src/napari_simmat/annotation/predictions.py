"""Requests for masks and their results as values, and a result in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.prompt_grouping import ObjectPrompt
from napari_simmat.annotation.prompt_state import Plane, Position, Prompts, PromptState
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import closes
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import ALL_PIECES
from napari_simmat.engine.settings import Compute, PropagationSettings

if TYPE_CHECKING:
    from napari_simmat.engine.everything.candidates import MaskCandidates
    from napari_simmat.engine.everything.next_step import SeenPlane
    from napari_simmat.engine.object_kind import ObjectKind

# <key:...> stands for the key of an action; who shows the sentence knows it.
EDITING, EDITING_DRAFT = "Editing object {label}:", "Editing a draft:"
COMMIT_NEXT = "Commit (<key:commit>), or click to correct it."
MASK_NUMBER = "Mask {number} of {count} (<key:cycle> for the next)."
WITH_SMALL_PIECES = "With its small pieces (<key:cycle> for the next)."
SMALL_PIECES = "{pieces} left out: a click adds one, <key:cycle> adds all."
MARKS_OUTSIDE = (
    "{marks} not in the mask: try another mask (<key:cycle>), or commit (<key:commit>) before a "
    "new object."
)
MARKS_COVERED = (
    "{marks} still in the mask: scribble over what does not belong, or try another (<key:cycle>)."
)
LARGER_AROUND = "A much larger object contains it: <key:cycle>, or its picture below."
READ_OTHERWISE = "The line may also mean the other picture: <key:cycle>, or click it."
OTHER_READING = -2
"""Number of the candidate that reads the last line otherwise."""
_MUCH_LARGER = 4
"""Times the pixels of the mask that a click shows first."""


class ChosenModel(NamedTuple):
    """The model that the user chose; unequal to itself after its file was replaced.

    Attributes
    ----------
    reference
        Its name or file.
    changed
        When its file was written.
    compute
        How it computes.
    """

    reference: str | Path
    changed: int = 0
    compute: Compute = Compute()


class Subject(NamedTuple):
    """What results depend on besides prompts: the model, the image, and where the image lies."""

    model: ChosenModel
    image: tuple[object, ...]
    placement: bytes


@dataclass(frozen=True, eq=False)
class PredictionRequest:
    """A request for the masks of objects on one plane of an image.

    Without objects the plane is only encoded, a large one in part, around `center` (y, x); with
    `whole` the whole of it. `choices` lists prompts for which another of the model's candidates was
    chosen; `state` is the user's prompts that the request was made from.
    """

    model: ChosenModel
    image: ImageValue
    plane: Plane
    objects: tuple[ObjectPrompt, ...] = ()
    choices: tuple[tuple[Prompt, int], ...] = ()
    state: PromptState = field(default_factory=PromptState)
    center: tuple[float, float] | None = None
    whole: bool = False

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The model's prompt for each object."""
        return tuple(each.prompt for each in self.objects)

    @property
    def encoding(self) -> tuple[object, ...]:
        """What must be encoded; equal for requests that share the encoding."""
        return self.model, self.image.token, self.plane


class Candidate(NamedTuple):
    """One of the masks that the user can choose for an object: number, picture and pixels."""

    choice: int
    thumbnail: np.ndarray
    area: int


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One mask (Y, X) and its score for each of `objects`, and a note for the user.

    `choices` says which of the model's candidates each mask is, `left_out` counts the small pieces
    that each lacks, and `candidates` are those of the last one, in the order in which Q goes
    through them; none if there is nothing to choose from. `part`: the model has seen a part of the
    plane only, since the whole is not encoded yet. `cut`: a mask ends where that part does.
    """

    objects: tuple[ObjectPrompt, ...]
    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    note: str = ""
    choices: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    part: bool = False
    cut: bool = False

    def __repr__(self) -> str:
        """How many objects and how good, without their pixels."""
        return f"Prediction({_scored(self)[:-1]})"


def described(prediction: Prediction, edited: int | None) -> str:
    """A prediction in words; `edited` is the committed object that it changes, 0 for a draft."""
    parts = [_scored(prediction), _choice_text(prediction), *_contradictions(prediction)]
    if edited is not None:
        parts.insert(0, EDITING.format(label=edited) if edited else EDITING_DRAFT)
    return " ".join(filter(None, [*parts, COMMIT_NEXT, prediction.note]))


def _scored(prediction: Prediction) -> str:
    """How many objects, and how good the model thinks they are."""
    count = pluralize(len(prediction.scores), "object")
    known = [score for score in prediction.scores if not np.isnan(score)]
    return f"{count}, {scores_text(known)}." if known else f"{count}."


def _choice_text(prediction: Prediction) -> str:
    """Which mask of the last object is shown, or which other one may be meant."""
    choice = prediction.choices[-1] if prediction.choices else 0
    numbers = [each.choice for each in prediction.candidates]
    left_out = sum(prediction.left_out)
    largest = max((each.area for each in prediction.candidates), default=0)
    shown = np.count_nonzero(prediction.masks[-1]) if prediction.masks else 0
    if OTHER_READING in numbers:
        return READ_OTHERWISE
    if choice == ALL_PIECES:
        return WITH_SMALL_PIECES
    if choice and numbers:
        return MASK_NUMBER.format(number=numbers.index(choice) + 1, count=len(numbers))
    if left_out:
        return SMALL_PIECES.format(pieces=pluralize(left_out, "small piece"))
    return LARGER_AROUND if largest > _MUCH_LARGER * max(1, shown) else ""


def _contradictions(prediction: Prediction) -> list[str]:
    """Which marks the masks do not follow."""
    outside, inside = contradicted(prediction)
    said = []
    if outside:
        said.append(MARKS_OUTSIDE.format(marks=_counted(outside, "positive mark")))
    if inside:
        said.append(MARKS_COVERED.format(marks=_counted(inside, "negative mark")))
    return said


def _counted(count: int, what: str) -> str:
    return f"{pluralize(count, what)} {is_or_are(count)}"


def contradicted(prediction: Prediction) -> tuple[int, int]:
    """How many positive marks lie outside the mask of their object, and how many negative inside.

    A scribble is one mark, and lies where most of it does, or most of what it encloses.
    """
    outside = inside = 0
    for each, mask in zip(prediction.objects, prediction.masks, strict=True):
        for vertices, label in _latest_marks(each.source):
            on_line = mask[_pixels([vertex[-2:] for vertex in vertices], mask.shape)]
            held = bool(on_line.mean() >= 0.5)
            outside += bool(label) and not held
            inside += held and not label
    return outside, inside


def _pixels(line: Sequence[Position], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """The pixels of a plane of a shape (Y, X) on which a mark lies."""
    if closes(line):
        return np.nonzero(shape_mask("polygon", line, (shape[0], shape[1])))
    at = np.floor(np.array(line) + 0.5).astype(np.intp)
    return tuple(np.clip(at, 0, np.array(shape) - 1).T)


def _latest_marks(prompts: Prompts) -> list[tuple[tuple[Position, ...], int]]:
    """The marks that no line that closes came after: such a line is always followed."""
    paths = [each for each in prompts.outlines if each.kind == "path"]
    closed = [each for each in paths if closes([vertex[-2:] for vertex in each.vertices])]
    if not closed:
        return _marks(prompts)
    last = prompts.outlines.index(closed[-1])
    kept = range(closed[-1].after, len(prompts.points))
    return _marks(prompts.with_points(kept, prompts.outlines[last:]))


def _marks(prompts: Prompts) -> list[tuple[tuple[Position, ...], int]]:
    """The positions and the label of each point and scribble."""
    points = [((at,), label) for at, label in zip(prompts.points, prompts.labels, strict=True)]
    paths = [each for each in prompts.outlines if each.kind == "path"]
    return [*points, *((each.vertices, each.label) for each in paths)]


def scores_text(scores: Sequence[float]) -> str:
    """``score 0.94``, ``scores 0.81 to 0.94``: predicted IoUs in words."""
    minimum, maximum = f"{min(scores):.2f}", f"{max(scores):.2f}"
    return f"score {maximum}" if len(scores) == 1 else f"scores {minimum} to {maximum}"


@dataclass(frozen=True, eq=False)
class StackRequest:
    """Objects to be propagated through a stack, as `Propagator.propagate` takes them."""

    prompts: tuple[Prompt, ...]
    choices: Mapping[Prompt, int]
    along: tuple[int, ...]
    planes: tuple[int, int]
    spacing: tuple[float, ...]
    settings: PropagationSettings = field(default_factory=PropagationSettings)


class Proposed(NamedTuple):
    """Masks proposed all over a plane.

    Attributes
    ----------
    candidates
        The masks.
    kind
        The kind of objects that was looked for, if any.
    looks_again
        Whether a second look is still to come.
    seen
        What was looked at, which tells what to try if little was found.
    """

    candidates: MaskCandidates
    kind: ObjectKind | None
    looks_again: bool = False
    seen: SeenPlane | None = None
