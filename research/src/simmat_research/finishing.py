"""What finishing an image costs: a simulated user who wants all of its objects.

The user clicks into the deepest pixel of the largest wrong part (`evaluation.ground_truth`), at
most `MAX_CLICKS` times an object, and an object is done at an IoU of `DONE`. What that costs are
seconds, of acting and of waiting (`user_time`), and actions: a click, a box, a stroke on the
ground, a press of a button, or the deletion of a wrong object. The hand is not quite steady, in
clicks and boxes (`pointing`) as in lines (`strokes`).

A way of finishing proposes objects first, after some preparation, or none; the user looks at each,
deletes those that are wrong and makes the objects that are missing. With a pen the user corrects by
lines instead of clicks: along the middle of what is wrong, or around it, or around the whole object
where that is shorter; each is an action, and the length of the lines is counted. A proposal that is
a draft gives way to an object that the user makes in its place, without being deleted. Who does
without a program outlines each object by one line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.annotation.pen import OpenObject, meaning_of
from napari_simmat.annotation.prompt_grouping import ObjectPrompt
from napari_simmat.annotation.prompt_state import Prompts
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.kind_learning import learn_kind
from napari_simmat.engine.masks import Mask, label_windows
from napari_simmat.engine.object_kind import WORTHWHILE, ObjectKind, met_objects
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import drawn_line
from napari_simmat.engine.pixel_forest import segment_by_forest
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.ground_truth import GroundTruthObject
from napari_simmat.evaluation.label_scores import DONE, NEARLY
from napari_simmat.evaluation.metrics import pairwise_iou, without_covered
from napari_simmat.models.spec import Model
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.few_shot import learn_objects
from simmat_research.pointing import Box, Point, box_around, click_into, part_at
from simmat_research.strokes import (
    OUTLINE_UNSTEADINESS,
    Stroke,
    half_width,
    largest_part,
    line_around,
    outline_length,
    outline_of,
    scribble_over,
)
from simmat_research.user_time import BOX, EFFECTIVE_WIDTH, LINE, PER_PIXEL, REACTION, UserTime

MAX_CLICKS = 10
"""Clicks and boxes after which the user gives an object up."""
TAUGHT = 5
"""Objects that the user makes before something learns from them."""
STROKES = 3
"""Strokes on open ground, each a disc of `STROKE_RADIUS` pixels."""
STROKE_RADIUS = 6
MISSED = 0.2
"""Share of the objects that *Everything* may miss without being taught, or `TAUGHT` of them."""
MANY_WRONG = 6
"""Drafts on nothing from which strokes on the ground pay."""
UNLIKE = 0.1
"""An object of which so much lies in other pieces or in holes is not outlined."""
COVERED = 0.5
"""Share of a draft, or of an object made in its place, by which it gives way."""
RGB = 3
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Offer:
    """What a way offers before the user goes over the image.

    Attributes
    ----------
    labels
        (Y, X) proposed objects.
    predictor
        Answers the prompts that follow; None if the user does without.
    made
        (Y, X) masks of the objects that the user made meanwhile, by their true ids.
    offered
        Whether what was learned is used.
    drafts
        Whether wrong ones give way to objects that are made in their place.
    by
        How the objects that are missing are made: by clicks; by boxes corrected by clicks,
        scribbles or a pen; by such a box or an outline, whichever is quicker; or without a
        predictor by hand, at the time of a steady hand or by the steering law.
    kind
        What was learned of the objects, for the next image.
    """

    labels: Labels
    predictor: Predictor | None
    made: Labels | None = None
    offered: bool = False
    drafts: bool = False
    by: Literal["clicks", "boxes", "scribbles", "pen", "pen or box", "hand", "hand, steering"] = (
        "clicks"
    )
    kind: ObjectKind | None = None


class Finished(NamedTuple):
    """What it took to finish an image.

    Attributes
    ----------
    objects
        True objects.
    seconds
        Of acting and waiting (`user_time`), if proposals are accepted by default.
    actions
        Likewise.
    confirmed
        Proposals that stay; as many actions more, if each must be confirmed.
    remaining
        Objects that the user had not made when proposals were there.
    found_75, found_50
        How many of these a proposal meets at that IoU.
    wrong
        Proposals that are not right; drafts among them need not be deleted.
    left
        Objects that were given up.
    offered
        Whether what was learned was used.
    waited, processor
        Seconds for which the user waited, by the clock; processor seconds in all.
    drawn
        Length of all lines, in lengths of the outlines of all objects: 1 as if all were drawn.
    """

    objects: int
    seconds: float
    actions: int
    confirmed: int
    remaining: int
    found_75: int
    found_50: int
    wrong: int
    left: int
    offered: bool
    waited: float
    processor: float
    drawn: float = 0.0


@dataclass
class SimulatedUser:
    """Makes the objects of one image by clicks, boxes and lines.

    Parameters
    ----------
    labels
        (Y, X), all objects of the image.
    seed
        Draws the objects that are taught, where the ground is stroked, and where clicks and boxes
        are placed.
    hand
        How unsteady it is, beside the usual one.
    """

    labels: Labels
    seed: int = 0
    hand: float = 1.0
    objects: dict[int, GroundTruthObject] = field(init=False)
    time: UserTime = field(default_factory=UserTime, init=False)
    boxes_took: list[float] = field(default_factory=list, init=False)
    """Seconds of each box with the lines after it, where the user chooses between pen and box."""

    def __post_init__(self) -> None:
        self.objects = {
            label: GroundTruthObject(self.labels, label, window)
            for label, window in label_windows(self.labels)
        }

    @property
    def taught(self) -> list[int]:
        """The objects that are made first."""
        order = np.random.default_rng(self.seed).permutation(sorted(self.objects))
        return [int(label) for label in order[:TAUGHT]]

    def click(self, predictor: Predictor, label: int) -> tuple[int, Mask]:
        """Click until an object is done; the number of clicks, and the mask (Y, X)."""
        truth = self.objects[label]
        point = self._click_into(self.labels == label, truth.middle, label, 0)
        prompt = Prompt(points=(point,), labels=(1,), object=label)
        return self._correct(predictor, truth, prompt)

    def box(self, predictor: Predictor, label: int) -> tuple[int, Mask]:
        """The same, beginning with a box."""
        return self._correct(predictor, self.objects[label], self._box_prompt(label))

    def boxed(self, predictor: Predictor, label: int) -> Mask:
        """The mask (Y, X) of a box, uncorrected."""
        return self._answer(predictor, Refiner(), self._box_prompt(label)).mask

    def box_and_scribbles(self, predictor: Predictor, label: int) -> tuple[int, Mask]:
        """The same, but what is wrong is scribbled over instead of clicked."""

        def scribble(mask: Mask, truth: Mask, actions: int) -> Stroke:
            return scribble_over(mask ^ truth, truth, actions, self.hand)

        return self._draw(predictor, label, self._box_prompt(label), scribble)

    def box_and_pen(self, predictor: Predictor, label: int) -> tuple[int, Mask]:
        """The same, but a line is drawn around what is wrong, or once around the object.

        The user outlines an object in one piece and without holes where one line around the largest
        wrong part would not do, and scribbles over a part that surrounds what is right.
        """
        truth = self.labels == label
        whole = ndimage.binary_fill_holes(largest_part(truth))
        like = bool(np.count_nonzero(whole ^ truth) <= UNLIKE * np.count_nonzero(truth))
        return self._mend_by_pen(predictor, label, self._box_prompt(label), may_outline=like)

    def pen_or_box(self, predictor: Predictor, label: int) -> tuple[int, Mask]:
        """The same, but the object is outlined at once where that is quicker.

        The user expects a box to take, with its lines, what boxes have taken on this image.
        """
        truth, began = self.labels == label, self.time.seconds
        if LINE + PER_PIXEL * outline_length(truth) < np.mean([BOX, *self.boxes_took]):
            stroke = outline_of(truth, label, self.hand * OUTLINE_UNSTEADINESS)
            self.time.line(stroke.length)
            first = _outline_prompt(drawn_line(stroke.line), label)
            return self._mend_by_pen(predictor, label, first)
        made = self.box_and_pen(predictor, label)
        self.boxes_took.append(self.time.seconds - began)
        return made

    def _mend_by_pen(
        self, predictor: Predictor, label: int, first: Prompt, may_outline: bool = False
    ) -> tuple[int, Mask]:
        def correct(mask: Mask, truth: Mask, actions: int) -> Stroke:
            nonlocal may_outline
            if may_outline and not self._is_done_by_one(label, mask):
                may_outline = False
                return outline_of(truth, actions, self.hand * OUTLINE_UNSTEADINESS)
            wrong = mask ^ truth
            around = line_around(wrong, truth, actions, self.hand)
            return around or scribble_over(wrong, truth, actions, self.hand)

        return self._draw(predictor, label, first, correct)

    def outline(self, label: int, steering: bool = False) -> Mask:
        """Outline an object by one line, without a program: its mask (Y, X).

        By the steering law, in a tunnel as wide as the usual hand needs it, small objects take
        longer.
        """
        truth = self.labels == label
        stroke = outline_of(truth, label, self.hand * OUTLINE_UNSTEADINESS)
        if steering:
            width = EFFECTIVE_WIDTH * OUTLINE_UNSTEADINESS * half_width(largest_part(truth))
            self.time.line(stroke.length, width)
        else:
            self.time.line(stroke.length)
        return shape_mask("polygon", stroke.line, (truth.shape[0], truth.shape[1]))

    def _click_into(self, part: Mask, aim: Point, label: int, number: int) -> Point:
        """Click on a part (Y, X) of an object's mask, or of what is wrong of it."""
        self.time.press()
        return click_into(part, aim, (self.seed, label, number), self.hand)

    def _box_around(self, label: int) -> Box:
        self.time.box()
        height, width = self.labels.shape
        return box_around(self.objects[label].box, (height, width), (self.seed, label), self.hand)

    def _answer(self, predictor: Predictor, refiner: Refiner, prompt: Prompt) -> Result:
        with self.time.waiting(REACTION):
            [result] = refiner.refine(predictor, [prompt])
        return result

    def _box_prompt(self, label: int) -> Prompt:
        return Prompt(box=self._box_around(label), object=label)

    def _draw(
        self,
        predictor: Predictor,
        label: int,
        prompt: Prompt,
        correct: Callable[[Mask, Mask, int], Stroke],
    ) -> tuple[int, Mask]:
        """A prompt, then lines; `correct` takes mask, truth and the number of the action."""
        true_mask, refiner, actions = self.labels == label, Refiner(), 1
        while True:
            mask = self._answer(predictor, refiner, prompt).mask
            if self.is_done(label, mask) or actions == MAX_CLICKS:
                return actions, mask
            stroke = correct(mask, true_mask, actions)
            self.time.line(stroke.length)
            prompt, chosen = _with_line(prompt, drawn_line(stroke.line), stroke.label, mask)
            if chosen:
                self.time.press()
                actions += 1
            actions += 1

    def _is_done_by_one(self, label: int, mask: Mask) -> bool:
        """Whether a mask (Y, X) without its largest wrong part need not be corrected any more."""
        truth = self.labels == label
        return self.is_done(label, mask ^ largest_part(truth & ~mask, mask & ~truth))

    def is_done(self, label: int, mask: Mask) -> bool:
        """Whether a mask (Y, X) need not be corrected."""
        agreed, _ = self.objects[label].agreement(mask)
        return agreed >= DONE

    def _correct(
        self, predictor: Predictor, truth: GroundTruthObject, prompt: Prompt
    ) -> tuple[int, Mask]:
        refiner, actions = Refiner(), 1
        while True:
            mask = self._answer(predictor, refiner, prompt).mask
            further = truth.correction(mask)
            if self.is_done(truth.label, mask) or further is None or actions == MAX_CLICKS:
                return actions, mask
            aim, kind = further
            part = part_at(mask ^ (self.labels == truth.label), aim)
            point = self._click_into(part, aim, truth.label, actions)
            prompt = replace(prompt, points=(*prompt.points, point), labels=(*prompt.labels, kind))
            actions += 1

    def teach(
        self,
        predictor: Predictor,
        boxes: bool = False,
        drafts: tuple[Labels, Mapping[int, int]] | None = None,
    ) -> Labels:
        """Make the first objects: labels (Y, X) of their masks.

        A draft that is right need only be accepted; `drafts` are (Y, X), and which draft is right
        for which object.
        """
        made = np.zeros_like(self.labels)
        for label in self.taught:
            if drafts is not None and label in drafts[1]:
                mask = drafts[0] == drafts[1][label]
                self.time.look()
                self.time.press()
            else:
                _, mask = (self.box if boxes else self.click)(predictor, label)
            made[mask & (made == 0)] = label
        return made

    def right_ones(self, drafts: Labels) -> dict[int, int]:
        """Of the objects for which a draft is right, that draft."""
        overlaps = pairwise_iou(drafts, self.labels)
        numbers = [draft for draft, _ in label_windows(drafts)]
        if not numbers:
            return {}
        best, reached = overlaps.argmax(0), overlaps.max(0)
        return {
            label: numbers[at]
            for label, at, iou in zip(self.objects, best.tolist(), reached.tolist(), strict=True)
            if iou >= DONE
        }

    def groundless(self, drafts: Labels, made: Labels) -> int:
        """How many drafts lie where the user will make no object."""
        missing, count = np.where(made > 0, 0, self.labels), 0
        for draft, window in label_windows(drafts):
            mine = drafts[window] == draft
            under = np.bincount(missing[window][mine])
            under[0] = 0
            count += bool(2 * under.max() < np.count_nonzero(mine))
        return count

    def stroke_ground(self) -> Mask:
        """Draw the `strokes` (Y, X)."""
        for _ in range(STROKES):
            self.time.line(2 * STROKE_RADIUS)
        return self.strokes()

    def strokes(self) -> Mask:
        """Strokes (Y, X) on the ground, as far from objects as there is room."""
        from scipy.ndimage import distance_transform_edt

        room = distance_transform_edt(np.pad(self.labels == 0, 1))[1:-1, 1:-1]
        marked = np.zeros(self.labels.shape, bool)
        y, x = np.indices(self.labels.shape)
        rng = np.random.default_rng(self.seed)
        for _ in range(STROKES):
            free = np.argwhere((room >= min(STROKE_RADIUS, room.max())) & ~marked)
            if not len(free):
                break
            row, column = free[rng.integers(len(free))]
            disc = (y - row) ** 2 + (x - column) ** 2 <= STROKE_RADIUS**2
            marked |= disc & (self.labels == 0)
        return marked


def _with_line(
    prompt: Prompt, line: NDArray[np.float64], label: int, mask: Mask
) -> tuple[Prompt, bool]:
    """A prompt whose mask (Y, X) is shown, and a line with points (N, 2), as the pen reads it.

    Also whether the user has to choose: of two readings that are near the outline is meant.
    """
    shown = OpenObject(ObjectPrompt(prompt, Prompts()), mask)
    meaning = meaning_of(line, bool(label), [shown])
    if any(each is not None and each.reading == "outline" for each in (meaning, meaning.other)):
        return _outline_prompt(line, prompt.object), meaning.reading != "outline"
    points = tuple((float(y), float(x)) for y, x in line)
    before = prompt.scribbles or (0,) * len(prompt.points)
    mended = replace(
        prompt,
        points=(*prompt.points, *points),
        labels=(*prompt.labels, *[label] * len(points)),
        scribbles=(*before, *[max(before, default=0) + 1] * len(points)),
    )
    return mended, False


def _outline_prompt(line: NDArray[np.float64], label: int | None) -> Prompt:
    """A line with points (N, 2) that is an object's outline."""
    points = tuple((float(y), float(x)) for y, x in line)
    return Prompt(points, scribbles=(1,) * len(points), object=label)


class Setting(NamedTuple):
    """An image to be finished with a model; `kind` is what the image before it taught."""

    model: Model
    image: LabeledImage
    user: SimulatedUser
    kind: ObjectKind | None = None

    def predictor(self, model: Model | None = None) -> Predictor:
        """A predictor of the image, by the model or by what it has become."""
        image, predictor = self.image, Predictor(model or self.model, device="cpu")
        reads_all = len(predictor.model.spec.channels) == image.available
        # A foundation reads the first three of many.
        channels = None if reads_all or image.available <= RGB else list(range(RGB))
        with self.user.time.waiting():
            predictor.set_image(
                image.arrays,
                channel_axis=image.channel_axis,
                channel_names=image.channel_names,
                channels=channels,
            )
        return predictor

    def planes(self) -> NDArray[np.float32]:
        """All channels of the image (Y, X, C), as they are."""
        arrays, axis = self.image.arrays, self.image.channel_axis
        if isinstance(arrays, list):
            return np.stack(arrays, axis=-1).astype(np.float32)
        if axis is None:
            return np.asarray(arrays, np.float32)[..., np.newaxis]
        return np.moveaxis(np.asarray(arrays, np.float32), axis, -1)


def by_hand(setting: Setting) -> Offer:
    """Nothing is proposed, and nothing answers: each object is outlined."""
    return Offer(np.zeros_like(setting.user.labels), None, by="hand")


def by_hand_and_steering(setting: Setting) -> Offer:
    """The same, at the time of the steering law."""
    return replace(by_hand(setting), by="hand, steering")


def by_clicks(setting: Setting) -> Offer:
    """Nothing is proposed."""
    return Offer(np.zeros_like(setting.user.labels), setting.predictor())


def by_everything(setting: Setting) -> Offer:
    """*Everything* with the command line's defaults."""
    return _first_drafts(setting, setting.predictor(), AutomaticSettings())


def _first_drafts(
    setting: Setting,
    predictor: Predictor,
    settings: AutomaticSettings,
    kind: ObjectKind | None = None,
) -> Offer:
    """What *Everything* finds of any kind, or of one."""
    setting.user.time.press()
    with setting.user.time.waiting():
        found = segment_everything(predictor, settings, kind=kind).labels
    return Offer(found.astype(np.int32), predictor, offered=kind is not None, kind=kind)


def by_learning(setting: Setting) -> Offer:
    """Five objects by clicks, *Learn*, *Everything* by what was learned, if it is offered."""
    user, image, base = setting.user, setting.image, setting.predictor()
    made = user.teach(base)
    user.time.press()
    with user.time.waiting():
        result = learn_objects(
            setting.model,
            image.arrays,
            made,
            image.channel_axis,
            channel_names=image.channel_names,
            config=FewShotConfig(seed=user.seed),
            device="cpu",
        )
    offered = result.model is not None
    predictor = setting.predictor(result.model) if offered else base
    found = _first_drafts(setting, predictor, AutomaticSettings())
    return replace(
        found, labels=without_covered(found.labels, made > 0), made=made, offered=offered
    )


def by_forest(setting: Setting) -> Offer:
    """Five objects by clicks and three strokes on the ground teach a forest on local features."""
    user, predictor = setting.user, setting.predictor()
    made, ground = user.teach(predictor), user.stroke_ground()
    user.time.press()
    with user.time.waiting():
        found = segment_by_forest(setting.planes(), made, ground, user.seed)
        labels = without_covered(found, made > 0)
    return Offer(labels, predictor, made, offered=True)


def by_boxes(setting: Setting) -> Offer:
    """Nothing is proposed; objects are made by boxes."""
    return replace(by_clicks(setting), by="boxes")


def by_everything_and_boxes(setting: Setting) -> Offer:
    """*Everything* with the command line's defaults; then boxes, to which drafts give way."""
    return replace(by_everything(setting), drafts=True, by="boxes")


def by_everything_and_pen(setting: Setting) -> Offer:
    """The same, but outlines where boxes are expected to take longer, and lines that correct."""
    return replace(by_everything_and_boxes(setting), by="pen or box")


def by_second_look(setting: Setting) -> Offer:
    """The same by clicks all over, and a second look, by the size of what was found."""
    settings = AutomaticSettings(by="clicks", second_look=True)
    found = _first_drafts(setting, setting.predictor(), settings)
    return replace(found, drafts=True, by="boxes")


def by_scribbles(setting: Setting) -> Offer:
    """`by_second_look`, with scribbles."""
    return replace(by_second_look(setting), by="scribbles")


def by_pen(setting: Setting) -> Offer:
    """`by_second_look`, with lines around what is wrong."""
    return replace(by_second_look(setting), by="pen")


def by_kind(setting: Setting) -> Offer:
    """`by_everything_and_boxes`; if that misses more than one in five, again by what five teach.

    Of the five the user accepts the drafts that are right, and makes the others by boxes. If more
    than `MANY_WRONG` of the new drafts lie on nothing, strokes tell where the ground is. If hardly
    any of the five is found by itself, the user goes on with the drafts from before. With a kind
    that the image before taught, that is what *Everything* looks for at first.
    """
    user = setting.user
    found = _first_drafts(setting, setting.predictor(), AutomaticSettings(), setting.kind)
    first = replace(found, drafts=True, by="boxes")
    right = user.right_ones(first.labels)
    if len(user.objects) - len(right) <= max(TAUGHT, MISSED * len(user.objects)):
        return first
    predictor = first.predictor
    assert predictor is not None, "it answered"
    made = user.teach(predictor, boxes=True, drafts=(first.labels, right))
    kind, labels = _by_what_is_taught(user, predictor, made)
    if met_objects(labels, made) < WORTHWHILE * TAUGHT:
        labels = first.labels
    elif user.groundless(without_covered(labels, made > 0), made) > MANY_WRONG:
        kind, labels = _by_what_is_taught(user, predictor, made, user.stroke_ground())
    return replace(
        first,
        labels=without_covered(labels, made > 0),
        made=made,
        offered=labels is not first.labels,
        kind=kind,
    )


def _by_what_is_taught(
    user: SimulatedUser, predictor: Predictor, made: Labels, ground: Mask | None = None
) -> tuple[ObjectKind, Labels]:
    """A press of *Everything* that expects objects like those that are made."""
    user.time.press()
    with user.time.waiting():
        kind = learn_kind(predictor, made, ground)
        labels = segment_everything(predictor, kind=kind).labels.astype(np.int32)
    return kind, labels


WAYS: dict[str, Callable[[Setting], Offer]] = {
    "by hand": by_hand,
    "by hand, steering": by_hand_and_steering,
    "clicks": by_clicks,
    "boxes": by_boxes,
    "everything": by_everything,
    "everything, boxes": by_everything_and_boxes,
    "everything, pen or box": by_everything_and_pen,
    "second look": by_second_look,
    "second look, scribbles": by_scribbles,
    "second look, pen": by_pen,
    "learning, everything": by_learning,
    "forest": by_forest,
    "kind": by_kind,
}
"""Ways to finish an image. A new way is a new row."""
HEAD = (
    "| way | seconds per object | actions per object | if confirmed | found at .75 | found at .5 "
    "| wrong | given up | drawn | offered | waited, s | CPU, s |"
)
"""Of the table; wrong and given up are per object, drawn is in lengths of all outlines."""


def finish_image(way: str, setting: Setting) -> Finished:
    """Finish an image in one of the `WAYS`."""
    began = time.process_time()
    return _finished(WAYS[way](setting), setting.user, began)


def finish_folder(
    model: Model, images: Iterable[LabeledImage], seed: int = 0
) -> Iterator[Finished]:
    """Finish one image after the other by `by_kind`; what one teaches, the next begins with."""
    kind = None
    for image in images:
        began, user = time.process_time(), SimulatedUser(np.asarray(image.labels), seed)
        proposals = by_kind(Setting(model, image, user, kind))
        kind = proposals.kind or kind
        yield _finished(proposals, user, began)


def _finished(proposals: Offer, user: SimulatedUser, began: float) -> Finished:
    """The user goes over the proposals; `began` is the processor's time at the beginning."""
    made = proposals.made
    taught = [] if made is None else user.taught
    truth = np.where(np.isin(user.labels, taught), 0, user.labels)
    remaining = [label for label in user.objects if label not in taught]
    overlaps = pairwise_iou(proposals.labels, truth)  # (proposals, remaining objects)
    best = overlaps.max(axis=0, initial=0)
    met = [label for label, reached in zip(remaining, best, strict=True) if reached >= DONE]
    right = overlaps.max(axis=1, initial=0) >= DONE
    wrong = [
        n for (n, _), fits in zip(label_windows(proposals.labels), right, strict=True) if not fits
    ]
    left = 0 if made is None else sum(not user.is_done(n, made == n) for n in taught)
    user.time.look(len(right))
    replaced, make = set[int](), _maker(proposals, user)
    for label in remaining:
        if label in met:
            continue
        mask = make(label)
        left += not user.is_done(label, mask)
        if proposals.drafts:
            replaced |= _giving_way(proposals.labels, mask)
    user.time.press(len(set(wrong) - replaced))
    return Finished(
        objects=len(user.objects),
        seconds=user.time.seconds,
        actions=user.time.actions,
        confirmed=len(met),
        remaining=len(remaining),
        found_75=len(met),
        found_50=int(np.count_nonzero(best >= NEARLY)),
        wrong=len(wrong),
        left=left,
        offered=proposals.offered,
        waited=user.time.waited,
        processor=time.process_time() - began,
        drawn=user.time.drawn / sum(outline_length(user.labels == n) for n in user.objects),
    )


def _maker(proposals: Offer, user: SimulatedUser) -> Callable[[int], Mask]:
    """What makes an object (Y, X) that is missing."""
    predictor = proposals.predictor
    if predictor is None:
        return partial(user.outline, steering=proposals.by == "hand, steering")
    prompt = {
        "clicks": user.click,
        "boxes": user.box,
        "scribbles": user.box_and_scribbles,
        "pen": user.box_and_pen,
        "pen or box": user.pen_or_box,
    }[proposals.by]
    return lambda label: prompt(predictor, label)[1]


def _giving_way(drafts: Labels, mask: Mask) -> set[int]:
    """The drafts that give way to an object (Y, X) made in their place."""
    sizes, covered = np.bincount(drafts.ravel()), np.bincount(drafts[mask])
    both, whole = covered, np.count_nonzero(mask)
    gone = (both > COVERED * sizes[: len(both)]) | (both > COVERED * whole)
    return {int(n) for n in np.flatnonzero(gone) if n}


def table(rows: Sequence[tuple[str, Finished]]) -> str:
    """A Markdown table of means over images, a row for each way; `rows` are way and result."""
    lines = [HEAD, "| --- |" + " ---: |" * (HEAD.count("|") - 2)]
    for way in dict.fromkeys(way for way, _ in rows):
        results = [result for each, result in rows if each == way]
        shares = (
            [one.seconds / one.objects for one in results],
            [one.actions / one.objects for one in results],
            [(one.actions + one.confirmed) / one.objects for one in results],
            [one.found_75 / one.remaining for one in results],
            [one.found_50 / one.remaining for one in results],
            [one.wrong / one.objects for one in results],
            [one.left / one.objects for one in results],
            [one.drawn for one in results],
        )
        cells = [f"{np.mean(values):.2f}" for values in shares]
        cells.append(f"{sum(one.offered for one in results)} of {len(results)}")
        cells.append(f"{np.mean([one.waited for one in results]):.0f}")
        cells.append(f"{np.mean([one.processor for one in results]):.0f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)
