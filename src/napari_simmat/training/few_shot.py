"""Few-shot learning: adapt a model to an image from a few committed objects, in about a minute.

The model is trained on crops around the objects. Whether that helped is measured on objects left
out by place: they are divided into folds, and each fold is scored by a model that learned from the
others. `evidence` says whether the adapted model is offered.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat._text import format_list, is_or_are, pluralize
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.device import choose_device
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.masks import Window, interior_point, iou, label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.engine.remote import local_device
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.network import Encoded
from napari_simmat.models.spec import Model, ModelSpec, Normalization
from napari_simmat.progress import Job, Progress, finish, map_progress, with_progress
from napari_simmat.training.adapting import (
    CORRECTIONS,
    KINDS,
    AdaptedCheckpoint,
    FewShotConfig,
    adapted_spec,
    at_strength,
    make_student,
    make_trainer,
)
from napari_simmat.training.annotations import (
    AnnotatedPlane,
    Part,
    annotate,
    labels_at,
    parts_of,
    scale_levels,
    separating_channels,
)
from napari_simmat.training.batches import CropBatches, PlaneKey
from napari_simmat.training.evidence import (
    AdaptationChoice,
    Evidence,
    LeftOutScores,
    Verdict,
    nothing_to_gain,
)
from napari_simmat.training.labeled_planes import LabeledPlane, as_rgb
from napari_simmat.training.run_folder import RunFolder, read_state
from napari_simmat.training.trainable import TrainableNetwork
from napari_simmat.training.tries import Tries, Try

MIN_OBJECTS = 3
"""Objects needed to learn; when a model goes on learning, new ones."""
STRENGTHS = (1.0, 0.5, 0.0)
"""Fraction of the weight update to apply; chosen on the held-out objects. An embedded network may
also expect their size of what a lone click means, even if nothing else is applied."""
MORE_CLICKS = 2
"""Clicks anywhere in an object that is left out, besides the one in its middle: a single click
succeeds or fails too much by chance."""
SAVE_INTERVAL = 5.0
"""Seconds between two saved states."""

TOO_FEW = "Learning needs {} of at least 16 pixels, {} {} here; commit more."
TOO_FEW_NEW = (
    "Learning again needs {} that the model has not learned from yet, {} {} here; commit more."
)
LEARNED = (
    "Learned from {}. On objects left out while it learned, the mean IoU of a click went from "
    "{:.0f} to {:.0f} %, of a box from {:.0f} to {:.0f} %."
)
TRY = " It was try {} on this image."
SIZED = " A click that may mean several things now prefers those {:.0f} to {:.0f} pixels across."
LEFT_OUT = " Left out, as they show nothing: {}."


@dataclass(frozen=True)
class LearnProgress(Progress):
    """A step, with the scores so far: ``before`` without learning, and ``after`` it.

    The first is of all objects at first, then both are of those of the folds that were scored;
    ``after`` is None up to the second fold, which chooses for the first.
    """

    before: LeftOutScores | None = None
    after: LeftOutScores | None = None


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """The outcome of learning.

    Parameters
    ----------
    checkpoint
        What was learned; None if it was not better, so that nothing changes.
    model
        The adapted model, ready for a `Predictor`; None likewise.
    before, after
        Scores on the objects left out, without and with learning.
    gain, noise
        Mean gain of an object in points (the mean of click and box), and its standard error.
    chance
        Largest share of useless trainings that look as good, 0..1; see `evidence`.
    objects
        Number of objects that were learned from.
    number
        Of the try on the image, from 1: the more there were, the less chance is allowed.
    sentence
        The outcome in words.
    """

    checkpoint: AdaptedCheckpoint | None
    model: Model | None
    before: LeftOutScores
    after: LeftOutScores
    gain: float
    noise: float
    chance: float
    objects: int
    number: int
    sentence: str


def learn_objects_job(
    base: Model,
    planes: Sequence[AnnotatedPlane],
    config: FewShotConfig | None = None,
    *,
    start: AdaptedCheckpoint | None = None,
    folder: Path | None = None,
    device: str = "auto",
    name: str = "learned",
    tries: Tries | None = None,
) -> Job[FewShotResult]:
    """Adapt a model to images from a few objects in them, if that helps.

    The job is made for a thread of its own beside the one that predicts (in the window, a
    `BackgroundJob` of a second `Worker`): it changes neither `base` nor torch's global state, and
    yields `LearnProgress` after each step of a fraction of a second, where closing it cancels it.

    Parameters
    ----------
    base
        A foundation, or a checkpoint for the planes' channels.
    planes
        With the objects to learn from, at least `MIN_OBJECTS` in all. If they have other channels
        than a foundation reads, a transfer layer is trained for them, and they need names.
    config
        Settings.
    start
        What was learned before on `base`, to go on from; then `MIN_OBJECTS` new objects are needed.
    folder
        Keeps the state every few seconds: the same call resumes, with the same result. A state
        that is of no use is replaced.
    device
        As for `Predictor`.
    name
        Of the adapted model.
    tries
        Those on the images so far, among which this one is counted; by default there are none.

    Raises
    ------
    ValueError
        If there are too few objects, or the channels do not fit.
    """
    config = config or FewShotConfig()
    learning = FewShotRun(base, planes, config, start, device, name, tries)
    if folder is None:
        return (yield from learning.run_job(None))
    with closing(RunFolder(folder)) as run:
        with suppress(ValueError):  # damaged, or of an earlier version of the base
            learning.resume(read_state(folder, learning.settings))
        return (yield from learning.run_job(run))


def learn_objects(
    model: Model,
    image: Any,
    labels: NDArray[Any],
    channel_axis: int | None = None,
    *,
    channel_names: Sequence[str] | None = None,
    complete: bool | NDArray[np.bool_] = False,
    pixel_size: tuple[float, float] | None = None,
    config: FewShotConfig | None = None,
    start: AdaptedCheckpoint | None = None,
    device: str = "auto",
    tries: Tries | None = None,
) -> FewShotResult:
    """Adapt a model to an image from a few objects in it, if that helps; see `learn_objects_job`.

    Parameters
    ----------
    model
        A foundation, or a checkpoint for the image's channels.
    image
        (..., Y, X) with channels along `channel_axis`, or a list of one array for each. A
        foundation gets a transfer layer for all channels that show something, if these are others
        than it reads.
    labels
        (..., Y, X) integer ids of the objects; 0 where nothing is labeled.
    channel_names
        Of the channels.
    complete
        Whether all objects are labeled: everywhere, nowhere for sure, or in a region (Y, X).
    pixel_size
        Height and width of a pixel in any unit, as for `Predictor.set_image`.
    config, start, device, tries
        See `learn_objects_job`. Who compares settings on the same objects gives all calls the same
        `Tries`: of several one looks better by chance.

    Raises
    ------
    ValueError
        If there are fewer than `MIN_OBJECTS` objects, or the channels do not fit.

    Examples
    --------
    >>> from napari_simmat import Predictor, learn_objects, load_model
    >>> result = learn_objects(load_model("tiny"), image, labels)
    >>> print(result.sentence)
    >>> predictor = Predictor(result.model or load_model("tiny"))
    """
    names = None if channel_names is None else tuple(channel_names)
    content = LabeledImage("image", image, np.asarray(labels), channel_axis, names, pixel_size)
    planes = annotate(content, model.spec, complete=complete)
    return finish(learn_objects_job(model, planes, config, start=start, device=device, tries=tries))


class _TaughtObject(NamedTuple):
    """An object to learn from: its part, plane, id and digest, and where it lies (y, x).

    Its area is in pixels of the network's input, as `ExpectedSize` wants it.
    """

    part: int
    plane: int
    label: int
    digest: str
    area: float
    place: tuple[float, float]


class FewShotRun:
    """The course of learning: scores before, folds, and the training on all objects."""

    def __init__(
        self,
        base: Model,
        planes: Sequence[AnnotatedPlane],
        config: FewShotConfig,
        start: AdaptedCheckpoint | None,
        device: str,
        name: str,
        tries: Tries | None = None,
    ) -> None:
        if not planes:
            raise ValueError(TOO_FEW.format(f"{MIN_OBJECTS} objects", 0, "are"))
        self.base = base
        self.planes = planes
        self.config = config
        self.start = start
        self.device = choose_device(local_device(device))
        self.spec = adapted_spec(base.spec, planes, name)
        whole = not base.spec.base.embedded
        self.frozen = whole and self.spec.transfer == "zeroshot"  # the encoder is not trained
        self.parts: list[Part] = []
        for number, plane in enumerate(planes):
            self.parts += parts_of(number, plane, whole)
        self.objects = list(_objects(planes, self.parts, self.spec))
        seen = start.seen if start is not None else frozenset()
        self.new = [n for n, taught in enumerate(self.objects) if taught.digest not in seen]
        count = len(self.new)
        if count < MIN_OBJECTS:
            message = TOO_FEW if start is None else TOO_FEW_NEW
            raise ValueError(message.format(f"{MIN_OBJECTS} objects", count, is_or_are(count)))
        self.scales = [scale_levels(part.plane, self.spec) for part in self.parts]
        folds = _folds_by_place(self.objects, self.new, config.folds)
        self.evidence = Evidence(_choices(base.spec, self.spec), folds, {}, [])
        self.tries = tries or Tries()
        self._unfinished: dict[str, Any] = {}
        self._features: dict[PlaneKey, Encoded] = {}
        self._cache = EmbeddingCache()

    @property
    def settings(self) -> dict[str, Any]:
        """What a state must agree on to be resumed."""
        data = hashlib.sha256()
        for plane in self.planes:
            data.update(np.ascontiguousarray(plane.values).data)
            data.update(np.ascontiguousarray(plane.labels).data)
            data.update(np.ascontiguousarray(plane.complete).data)
            data.update(repr(plane.pixel_size).encode())
        start = "" if self.start is None else self.start.digest
        identity = {"base": self.base.fingerprint, "data": data.hexdigest(), "start": start}
        return asdict(self.config) | identity

    @cached_property
    def this_try(self) -> Try:
        """What tells this training from others on the images."""
        settings = self.settings
        line = f"{settings['base']} {settings['start']}"
        lesson = hashlib.sha256(repr(sorted(settings.items())).encode())
        return Try(line, lesson.hexdigest()[:16])

    def resume(self, state: dict[str, Any] | None) -> None:
        """Continue from a state that was saved."""
        if state is not None:
            self.evidence.before = state["before"]
            self.evidence.after = state["after"]
            self._unfinished = state

    def run_job(self, folder: RunFolder | None) -> Job[FewShotResult]:
        """Score, learn in folds, decide, and learn from all objects."""
        yield from self.measure_before_job(folder)
        before = LeftOutScores.of(list(self.evidence.before.values()))
        number = self.tries.number_of(self.this_try)
        refusal = nothing_to_gain(self.base.spec.name, before, len(self.new), number)
        if refusal:
            return self._result(Verdict.none(before), self._naming(refusal))
        yield from self.measure_after_job(folder)
        verdict = self.evidence.verdict()
        self.tries.add(self.this_try)
        refusal = verdict.refusal(len(self.objects), number)
        if refusal:
            return self._result(verdict, self._naming(refusal))
        student, initial = yield from self.teach_job(folder, train=verdict.choice.strength > 0)
        with self.taking(student, initial, verdict.choice):
            sentence = self._success(verdict)
            return self._result(verdict, sentence, self._checkpoint(student, verdict, sentence))

    def _naming(self, refusal: str) -> str:
        """A refusal, with the object that hinders learning, if one does."""
        hindrance = self.evidence.hindrance()
        if hindrance is None:
            return refusal
        return refusal + hindrance.told(self.objects[hindrance.number].label)

    def measure_before_job(self, folder: RunFolder | None) -> Job[None]:
        """Score the new objects without learning, unless a state knows it."""
        yield self._progress(0, "measuring before learning")
        if not self.evidence.before:
            model = self.base if self.start is None else self.start.model(self.base)
            job = self._score_job(model, self.new, 0, (model.network.expected_size,))
            [scores] = yield from job
            self.evidence.before = dict(zip(self.new, scores, strict=True))
            self._save(folder)

    def measure_after_job(self, folder: RunFolder | None) -> Job[None]:
        """Score each fold that no state knows, by a model that learns from the others."""
        for number in range(len(self.evidence.after), len(self.evidence.folds)):
            yield from self._fold_job(number, folder)

    def teach_job(
        self, folder: RunFolder | None, train: bool = True
    ) -> Job[tuple[TrainableNetwork, dict[str, Tensor]]]:
        """A network that learned from all objects (if `train`), and its tensors before that."""
        student, crops = self._learner(())
        initial = student.tensors()
        if train:
            words = "learning from all objects"
            yield from self._train_job(student, crops, len(self.evidence.folds), folder, words)
        return student, initial

    @contextmanager
    def taking(
        self, student: TrainableNetwork, initial: Mapping[str, Tensor], choice: AdaptationChoice
    ) -> Iterator[None]:
        """Context in which a network is as `choice` says; `initial` are its tensors at first."""
        network = student.network
        before = network.expected_size
        if choice.sized:
            network.expected_size = self.size()
        try:
            with at_strength(student, initial, choice.strength):
                yield
        finally:
            network.expected_size = before

    def size(self, hidden: Sequence[int] = ()) -> ExpectedSize:
        """The expected size of the objects, without the hidden ones."""
        shown = [taught for n, taught in enumerate(self.objects) if n not in hidden]
        return ExpectedSize.of([taught.area for taught in shown])

    def _fold_job(self, number: int, folder: RunFolder | None) -> Job[None]:
        """Learn from the other folds, and score the objects left out."""
        evidence = self.evidence
        hidden = evidence.folds[number]
        student, crops = self._learner(hidden)
        initial = student.tensors()
        words = f"learning, part {number + 1} of {len(evidence.folds)} of the objects left out"
        yield from self._train_job(student, crops, number, folder, words)
        done = (number + 1) * self.config.steps
        model = Model(self.spec, student.network, "learning")
        own = student.network.expected_size
        taught = self.size(hidden)
        scores: list[list[list[float]]] = []
        for strength in STRENGTHS:
            choices = [choice for choice in evidence.choices if choice.strength == strength]
            sizes = [taught if choice.sized else own for choice in choices]
            with at_strength(student, initial, strength):
                scores += yield from self._score_job(model, hidden, done, sizes)
        evidence.after.append(scores)
        self._save(folder)
        yield self._progress(done, words)

    def _learner(self, hidden: Sequence[int]) -> tuple[TrainableNetwork, CropBatches]:
        """A network that has learned nothing yet, and the crops of all objects but the hidden."""
        spec = self.spec
        config = self.config
        shown: list[NDArray[np.signedinteger[Any]]] = []
        planes: list[list[LabeledPlane]] = []
        for part, scaled in zip(self.parts, self.scales, strict=True):
            left_out = [self.objects[n] for n in hidden if self.objects[n].plane == part.number]
            labels = part.plane.known([taught.label for taught in left_out])
            frame = part.plane.frame(spec)
            levels = []
            for scale, image in scaled:
                scaled_labels = labels_at(labels, frame, scale, image)
                levels.append(LabeledPlane("", image, scaled_labels, ()))
            shown.append(labels)
            planes.append(levels)
        taught = [one for n, one in enumerate(self.objects) if n not in hidden]
        embedded = spec.base.embedded
        crops = CropBatches(
            planes,
            [(one.part, one.label) for one in taught],
            count=config.crops,
            side=config.side if embedded else spec.input_size.size,
            prompted=config.prompted,
            kinds=KINDS,
            corrections=CORRECTIONS,
            seed=config.seed,
            vary=embedded,
        )
        channels = separating_channels([part.plane.values for part in self.parts], shown)
        student = make_student(self.base, spec, self.start, channels, config, self.device)
        return student, crops

    def _train_job(
        self,
        student: TrainableNetwork,
        crops: CropBatches,
        number: int,
        folder: RunFolder | None,
        words: str,
    ) -> Job[None]:
        """The training of that number: of a fold, or of all objects."""
        done = number * self.config.steps
        if self.frozen:
            yield from self._encode_parts_job(crops.side, self._progress(done, "encoding"))
        trainer = make_trainer(
            student,
            crops,
            self.config,
            self.device,
            self._features if self.frozen else None,
            folder,
            self.settings,
            lambda: {**self._state(), "number": number},
        )
        trainer.save_interval = SAVE_INTERVAL
        if self._unfinished.get("number") == number:
            trainer.restore(self._unfinished)
        job = trainer.run_job()
        yield from map_progress(job, lambda step: self._progress(done + step.done, words))

    def _encode_parts_job(self, side: int, step: LearnProgress) -> Job[None]:
        """The features of all parts, once for all trainings; `step` is shown meanwhile."""
        for part in range(len(self.parts)):
            key = (part, side, side)
            if key not in self._features:
                predictor = self._predictor(self.base)
                yield from with_progress(self._encode_job(predictor, part), step)
                self._features[key] = predictor.encoded.to(self.device)  # memory may have run out

    def _score_job(
        self,
        model: Model,
        objects: Sequence[int],
        done: int,
        sizes: Sequence[ExpectedSize | None],
    ) -> Job[list[list[list[float]]]]:
        """IoU (N, 2), 0 to 1, of clicks and of the box of some objects, for each expected size."""
        network = copy.copy(model.network)  # the size that it expects changes
        was_training = network.training
        predictor = self._predictor(replace(model, network=network))
        step = self._progress(done, "measuring the objects left out")
        scores: dict[int, list[list[float]]] = {}
        network.eval()
        try:
            for part in range(len(self.parts)):
                wanted = {n for n in objects if self.objects[n].part == part}
                if wanted:
                    job = self._score_part_job(predictor, part, wanted, sizes, step)
                    scores |= yield from job
        finally:
            network.train(was_training)
        return [[scores[n][which] for n in objects] for which in range(len(sizes))]

    def _score_part_job(
        self,
        predictor: Predictor,
        part: int,
        wanted: Collection[int],
        sizes: Sequence[ExpectedSize | None],
        step: LearnProgress,
    ) -> Job[dict[int, list[list[float]]]]:
        """IoU of click and box for each expected size, of the wanted objects of one part."""
        plane = self.parts[part].plane
        numbers = {self.objects[n].label: n for n in wanted}
        yield from with_progress(self._encode_job(predictor, part), step)
        pixel = math.prod(plane.frame(self.spec).scale)
        scores = {}
        for label, window in label_windows(plane.labels):
            if label not in numbers:
                continue
            # A part may show a large object at half its size.
            area = pixel * np.count_nonzero(plane.labels[window] == label)
            shrunk = math.log(area / self.objects[numbers[label]].area) / 2
            shown = [size and size._replace(log_side=size.log_side + shrunk) for size in sizes]
            job = _object_ious_job(predictor, plane.labels, label, window, shown)
            scores[numbers[label]] = yield from with_progress(job, step)
        return scores

    def _predictor(self, model: Model) -> Predictor:
        """For parts; of an encoder that is not trained, all models have the same embeddings."""
        given = replace(model.spec, normalization=Normalization(method="none"))
        shown = Model(given, model.network, "frozen encoder")
        cache = self._cache if self.frozen else EmbeddingCache(0)
        return Predictor(shown, str(self.device), "exact", cache)

    def _encode_job(self, predictor: Predictor, part: int) -> Job[None]:
        plane = self.parts[part].plane
        values = plane.values
        if len(values) != len(predictor.model.spec.channels):
            values = values[as_rgb(len(values))]
        yield from predictor.set_image_job(values, 0, pixel_size=plane.pixel_size)

    def _state(self) -> dict[str, Any]:
        return {"before": self.evidence.before, "after": self.evidence.after}

    def _save(self, folder: RunFolder | None) -> None:
        if folder is not None:
            folder.save(self._state(), self.settings)

    def _progress(self, done: int, words: str) -> LearnProgress:
        """A step, with the scores so far."""
        total = self.config.steps * (len(self.evidence.folds) + 1)
        if self.evidence.is_conclusive:
            verdict = self.evidence.verdict()
            return LearnProgress(done, total, words, verdict.before, verdict.after)
        scores = list(self.evidence.before.values())
        before = LeftOutScores.of(scores) if scores else None
        return LearnProgress(done, total, words, before)

    def _success(self, verdict: Verdict) -> str:
        """What was learned, in words."""
        count = pluralize(len(self.objects), "object")
        before, after = verdict.before, verdict.after
        sentence = LEARNED.format(count, before.click, after.click, before.box, after.box)
        if verdict.choice.sized:
            sentence += SIZED.format(*self._usual_sides())
        if (number := self.tries.number_of(self.this_try)) > 1:
            sentence += TRY.format(number)
        dead: dict[str, None] = {}
        for plane in self.planes:
            dead |= dict.fromkeys(plane.dead)
        if dead:
            sentence += LEFT_OUT.format(format_list(list(dead)))
        return sentence

    def _usual_sides(self) -> tuple[float, float]:
        """From which to which side the objects usually reach, in pixels of the first plane."""
        size = self.size()
        pixel = math.sqrt(math.prod(self.planes[0].frame(self.spec).scale))
        least = math.exp(size.log_side - size.spread)
        most = math.exp(size.log_side + size.spread)
        return least / pixel, most / pixel

    def _checkpoint(
        self, student: TrainableNetwork, verdict: Verdict, sentence: str
    ) -> AdaptedCheckpoint:
        """What the student learned, with how that was measured."""
        images = list(dict.fromkeys(plane.name for plane in self.planes))
        return AdaptedCheckpoint.of(
            student,
            bundled=not self.base.spec.is_foundation,
            config=self.config,
            seen=[taught.digest for taught in self.objects],
            training={
                "images": images,
                "objects": len(self.objects),
                "try": self.tries.number_of(self.this_try),
                "chance": round(verdict.chance, 6),
            },
            metrics={"before": _rounded(verdict.before), "after": _rounded(verdict.after)},
            description=f"{self.base.spec.name}, adapted to {format_list(images)}. {sentence}",
            pixels=None if self.spec.kind is None else self.base.pixels,
        )

    def _result(
        self, verdict: Verdict, sentence: str, checkpoint: AdaptedCheckpoint | None = None
    ) -> FewShotResult:
        return FewShotResult(
            checkpoint=checkpoint,
            model=None if checkpoint is None else checkpoint.model(self.base),
            before=verdict.before,
            after=verdict.after,
            gain=verdict.gain,
            noise=verdict.noise,
            chance=verdict.chance,
            objects=len(self.objects),
            number=self.tries.number_of(self.this_try),
            sentence=sentence,
        )


def _rounded(scores: LeftOutScores) -> dict[str, float]:
    return {kind: round(value, 2) for kind, value in scores._asdict().items()}


def _choices(base: ModelSpec, adapted: ModelSpec) -> list[AdaptationChoice]:
    """What may be taken of what is learned; nothing at all only of a new transfer layer."""
    is_sized = (False, True) if base.base.embedded else (False,)
    choices = [AdaptationChoice(*pair) for pair in product(STRENGTHS, is_sized)]
    if adapted.transfer != base.transfer:
        return choices
    return [choice for choice in choices if any(choice)]


def _objects(
    planes: Sequence[AnnotatedPlane], parts: Sequence[Part], spec: ModelSpec
) -> Iterator[_TaughtObject]:
    for number, part in enumerate(parts):
        plane = planes[part.number]
        pixel = math.prod(plane.frame(spec).scale)
        for label in part.shown:
            rows, columns = np.nonzero(plane.labels == label)
            yield _TaughtObject(
                part=number,
                plane=part.number,
                label=label,
                digest=plane.objects[label],
                area=len(rows) * pixel,
                place=(float(rows.mean()), float(columns.mean())),
            )


def _object_ious_job(
    predictor: Predictor,
    labels: NDArray[Any],
    label: int,
    window: Window,
    sizes: Sequence[ExpectedSize | None],
) -> Job[list[list[float]]]:
    """Mean IoU of a click in the middle and of `MORE_CLICKS` anywhere in an object; IoU of its box.

    Both for each expected size. The object is the same from one model to the next, and so are the
    clicks.
    """
    truth = labels == label
    rows, columns = window
    inside = np.argwhere(truth[window])
    drawn = np.random.default_rng(len(inside)).choice(len(inside), MORE_CLICKS)
    places = [interior_point(truth[window], ties="median"), *inside[drawn].tolist()]
    clicks = [
        Prompt(points=((rows.start + y, columns.start + x),), labels=(1,), object=label)
        for y, x in places
    ]
    box = Prompt(box=(rows.start, columns.start, rows.stop, columns.stop), object=label)
    [boxed] = yield from Refiner().refine_job(predictor, [box], ())
    scores = []
    for size in sizes:
        predictor.model.network.expected_size = size
        results = yield from Refiner().refine_job(predictor, clicks, ())
        clicked = float(np.mean([iou(result.mask, truth) for result in results]))
        scores.append([clicked, iou(boxed.mask, truth)])
    return scores


def _folds_by_place(
    objects: Sequence[_TaughtObject], among: Sequence[int], max_folds: int
) -> list[tuple[int, ...]]:
    """Divide objects into groups of neighbors, plane by plane along the longer axis of each."""
    count = min(max_folds, len(among))
    places = {n: objects[n].place for n in among}
    spread = np.ptp(np.array(list(places.values())), axis=0)
    axis = int(spread[1] > spread[0])
    ordered = sorted(among, key=lambda n: (objects[n].plane, places[n][axis], n))
    return [tuple(map(int, part)) for part in np.array_split(ordered, count)]
