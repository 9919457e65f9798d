"""Predictions: requests and results as values, the model that is kept loaded, and its queue."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.channel_choice import LayerChannel, all_image_channels, channel_names
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.prompt_state import ObjectPrompt, Plane, PromptState
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import ALL_PIECES, candidate_masks
from napari_simmat.engine.remote import local_device
from napari_simmat.engine.settings import Compute, PropagationSettings
from napari_simmat.progress import Job, Progress, Steps
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import (
    channel_array,
    image_geometry,
    image_value,
    layer_info,
    layer_key,
)
from napari_simmat.widgets.placement import level_of
from napari_simmat.widgets.torch_import import import_torch_job
from napari_simmat.widgets.worker import Worker, WorkerTask

if TYPE_CHECKING:
    from napari_simmat.engine.automatic_postprocessing import Instances, MaskCandidates, Sifted
    from napari_simmat.engine.channels import ChannelInfluence
    from napari_simmat.engine.device import DeviceInfo
    from napari_simmat.engine.naming import NamedObjects
    from napari_simmat.engine.normalization import Statistics
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.predictor import PartPredictor, Predictor
    from napari_simmat.engine.propagation import Propagator
    from napari_simmat.engine.propagation_tracks import Track
    from napari_simmat.engine.refinement import Refiner
    from napari_simmat.engine.result import Result
    from napari_simmat.engine.settings import AutomaticSettings
    from napari_simmat.models.spec import ModelSpec
    from napari_simmat.widgets.placement import ImageGeometry
    from napari_simmat.widgets.segment.lesson import Lesson


T = TypeVar("T")
SEGMENTING, GETTING_READY = "Segmenting", "Getting ready"
EDITING, EDITING_DRAFT = "Editing object {label}:", "Editing a draft:"
COMMIT_NEXT = "Commit (C), or click to correct it."
MASK_NUMBER = "Mask {number} of {count} (Q for the next)."
WITH_SMALL_PIECES = "With its small pieces (Q for the next)."
SMALL_PIECES = "{pieces} left out: a click adds one, Q adds all."
MARKS_OUTSIDE = "{marks} not in the mask: try another mask (Q), or commit (C) before a new object."
MARKS_COVERED = "{marks} still in the mask: scribble over what does not belong, or try another (Q)."
LARGER_AROUND = "A much larger object contains it: Q, or its picture below."
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


@dataclass(frozen=True, eq=False)
class FormChoice:
    """What the form chooses: a model, and the channels of an image for it.

    Attributes
    ----------
    model, spec
        The model and its description; None if it cannot be loaded.
    sources, names
        The channels, those that are gaps left out, and what the model calls them.
    images, versions
        All open images, and as for `image_value`.
    """

    model: ChosenModel
    spec: ModelSpec | None
    sources: tuple[LayerChannel, ...]
    names: tuple[str, ...]
    images: tuple[Image, ...]
    versions: Mapping[str, int]

    @cached_property
    def image(self) -> ImageValue:
        """The channels as the model takes them; ValueError or TypeError if it cannot."""
        return image_value(self.sources, self.names, self.images, self.spec, self.versions)

    @property
    def geometry(self) -> ImageGeometry:
        """Where the image lies."""
        return image_geometry(self.sources, self.images)

    @property
    def layers(self) -> frozenset[str]:
        """Keys of the image's layers."""
        return frozenset(source.layer for source in self.sources)

    @property
    def all_channels(self) -> list[tuple[str, LayerChannel]]:
        """Name and place of each channel of the image, also of those that are not chosen."""
        layers = [layer_info(layer) for layer in self.images]
        channels = all_image_channels(self.sources, layers)
        return list(zip(channel_names(channels, layers), channels, strict=True))

    @property
    def all_arrays(self) -> list[Any]:
        """The array (..., Y, X) of each of `all_channels`."""
        known = {layer_key(layer): layer for layer in self.images}
        return [
            channel_array(known[each.layer], each.part, level_of(known[each.layer]))
            for _, each in self.all_channels
        ]


class ComputeInUse(NamedTuple):
    """What the loaded model computes on, of the devices that are here."""

    devices: Sequence[DeviceInfo]
    compute: Compute

    @property
    def title(self) -> str:
        """What people call the device."""
        device = self.compute.device
        fitting = (e for e in self.devices if f"{e.name}:".startswith(f"{device}:"))
        return next((each.title for each in fitting), device)


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


@dataclass(frozen=True, eq=False)
class Prediction:
    """One mask (Y, X) and its score for each of `objects`, and a note for the user.

    `choices` says which of the model's candidates each mask is, `left_out` counts the small pieces
    that each lacks, and `candidates` are those of the last one, in the order in which Q goes
    through them; none if there is nothing to choose from. `part`: the model has seen a part of the
    plane only, since the whole is not encoded yet.
    """

    objects: tuple[ObjectPrompt, ...]
    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    note: str = ""
    choices: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    part: bool = False


def described(prediction: Prediction, edited: int | None) -> str:
    """A prediction in words; `edited` is the committed object that it changes, 0 for a draft."""
    known = [score for score in prediction.scores if not np.isnan(score)]
    count = pluralize(len(prediction.scores), "object")
    parts = [f"{count}, {scores_text(known)}." if known else f"{count}."]
    if edited is not None:
        parts.insert(0, EDITING.format(label=edited) if edited else EDITING_DRAFT)
    choice = prediction.choices[-1] if prediction.choices else 0
    numbers = [each.choice for each in prediction.candidates]
    if choice == ALL_PIECES:
        parts.append(WITH_SMALL_PIECES)
    elif choice and numbers:
        number = numbers.index(choice) + 1
        parts.append(MASK_NUMBER.format(number=number, count=len(numbers)))
    elif left_out := sum(prediction.left_out):
        parts.append(SMALL_PIECES.format(pieces=pluralize(left_out, "small piece")))
    elif max((each.area for each in prediction.candidates), default=0) > _MUCH_LARGER * max(
        1, np.count_nonzero(prediction.masks[-1])
    ):
        parts.append(LARGER_AROUND)
    for text, kind, count in zip(
        (MARKS_OUTSIDE, MARKS_COVERED),
        ("positive", "negative"),
        contradicted(prediction),
        strict=True,
    ):
        if count:
            marks = f"{pluralize(count, f'{kind} mark')} {is_or_are(count)}"
            parts.append(text.format(marks=marks))
    return " ".join([*parts, COMMIT_NEXT, prediction.note]).strip()


def contradicted(prediction: Prediction) -> tuple[int, int]:
    """How many positive marks lie outside the mask of their object, and how many negative inside.

    A scribble is one mark, and lies where most of it does.
    """
    outside = inside = 0
    for each, mask in zip(prediction.objects, prediction.masks, strict=True):
        source = each.source
        marks = [((at,), label) for at, label in zip(source.points, source.labels, strict=True)]
        marks += [(one.vertices, one.label) for one in source.outlines if one.kind == "path"]
        for vertices, label in marks:
            at = np.floor(np.array(vertices)[:, -2:] + 0.5).astype(int)
            held = mask[tuple(np.clip(at, 0, np.array(mask.shape) - 1).T)].mean() >= 0.5
            outside += bool(label) and not held
            inside += held and not label
    return outside, inside


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
    """Masks proposed all over a plane, and the kind of objects that was looked for, if any."""

    candidates: MaskCandidates
    kind: ObjectKind | None


PLANES_AHEAD = 2
"""Planes whose masks are proposed ahead and kept: the next of a stack, and of the next image."""


class InferenceService:
    """The loaded model and its predictor; its jobs run in the worker's thread. No Qt, no napari.

    Embeddings outlive a change of image and of model.

    Attributes
    ----------
    cache
        The embeddings.
    """

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self.cache = EmbeddingCache()
        self._devices: tuple[DeviceInfo, ...] = ()
        self._refiner: Refiner | None = None
        self._model: ChosenModel | None = None
        self._image: tuple[object, ...] | None = None
        self._remark: tuple[object, str] = ((), "")
        self._propagator: tuple[object, Propagator] | None = None
        self._proposed: tuple[object, MaskCandidates] | None = None
        self._ahead: OrderedDict[object, MaskCandidates] = OrderedDict()
        self._statistics: dict[tuple[object, ...], Statistics] = {}

    @property
    def encodes(self) -> int:
        """Number of times the loaded model's encoder ran."""
        return 0 if self.predictor is None else self.predictor.encodes

    @property
    def in_use(self) -> ComputeInUse | None:
        """What the loaded model computes on; None without a model."""
        predictor = self.predictor
        return None if predictor is None else ComputeInUse(self._devices, predictor.compute)

    def predict_job(
        self,
        request: PredictionRequest,
        is_current: Callable[[], bool] = lambda: True,
    ) -> Job[Prediction | None]:
        """Load the model, encode and predict, each only if needed; closing the job cancels.

        Parameters
        ----------
        request
            What is predicted.
        is_current
            Called while a plane is encoded: once it returns false, the newer request continues
            the encoding, and this one returns None.

        Raises
        ------
        MemoryError
            If memory runs out and nothing smaller can be tried.
        """
        yield from import_torch_job()
        from napari_simmat.engine.device import OUT_OF_MEMORY_MESSAGE, is_out_of_memory

        try:
            return (yield from self._predict_plane(request, is_current))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(OUT_OF_MEMORY_MESSAGE) from error

    def encode_job(self, request: PredictionRequest, planes: Sequence[Plane]) -> Job[int]:
        """Encode planes of the request's image; returns how many of them are ready, in order."""
        predictor = yield from self._job_predictor(request)
        return (yield from predictor.prefetch_job(planes))

    def encode_ahead_job(self, request: PredictionRequest, planes: Sequence[Plane]) -> Job[int]:
        """Encode planes of another image than that of the clicks."""
        predictor = yield from self._job_predictor(request, same_image=False)
        return (yield from predictor.prefetch_job(planes))

    def propagate_job(self, request: PredictionRequest, stack: StackRequest) -> Job[list[Track]]:
        """Propagate objects through the request's image; earlier results are reused."""
        from napari_simmat.engine.propagation import Propagator

        key = (request.model, request.image.token, stack.settings, stack.spacing)
        if self._propagator is None or self._propagator[0] != key:
            predictor = yield from self._job_predictor(request)
            self._propagator = key, Propagator(predictor, stack.settings, stack.spacing)
        propagator = self._propagator[1]
        job = propagator.propagate_job(stack.prompts, stack.along, stack.planes, stack.choices)
        return (yield from job)

    def propose_job(
        self,
        request: PredictionRequest,
        settings: AutomaticSettings,
        seeds: Sequence[Prompt] | None = None,
        lesson: Lesson | None = None,
        kind: ObjectKind | None = None,
    ) -> Job[Proposed]:
        """Propose masks for all objects on the request's plane, from a grid or from `seeds`.

        A `lesson` tells what they have in common, or `kind`, that of another image, else what the
        model was taught. If only the ground of a lesson has changed, the masks are those of before,
        weighed anew.
        Uses a predictor of its own, because clicks may be predicted in between.
        """
        predictor = yield from self._job_predictor(request, same_image=False)
        from napari_simmat.engine.automatic_generator import look_again_job
        from napari_simmat.engine.kind_learning import known_kind, learn_kind, weigh_masks_job
        from napari_simmat.engine.mask_proposals import propose_masks_job

        kind = kind or known_kind(predictor, settings)
        if lesson is not None:
            yield Progress(0, 1, "learning from committed objects")
            kind = learn_kind(predictor, lesson.labels, lesson.ground, lesson.plane)
        settings = settings.for_model(predictor.model.spec, kind)
        key = (request.encoding, settings.proposing, None if kind is None else kind.size)
        if seeds is None and key in self._ahead:
            self._proposed = key, self._ahead.pop(key)
        if seeds is None and self._proposed is not None and self._proposed[0] == key:
            candidates = self._proposed[1]
        else:
            job = propose_masks_job(predictor, settings, request.plane, seeds, kind=kind)
            candidates = yield from job
            if kind is None and seeds is None and settings.second_look:
                plane = request.plane
                job = look_again_job(candidates, predictor, settings, plane, keep_all=True)
                candidates = yield from job
            self._proposed = None if seeds is not None else (key, candidates)
        if kind is not None:
            candidates = yield from weigh_masks_job(candidates, kind, predictor, request.plane)
        return Proposed(candidates, kind)

    def propose_ahead_job(
        self, request: PredictionRequest, settings: AutomaticSettings, kind: ObjectKind
    ) -> Job[None]:
        """Propose masks of a kind on a plane that the user has not reached yet.

        `propose_job` finds them there.
        """
        predictor = yield from self._job_predictor(request, same_image=False)
        from napari_simmat.engine.mask_proposals import propose_masks_job

        settings = settings.for_model(predictor.model.spec, kind)
        key = (request.encoding, settings.proposing, kind.size)
        if key in self._ahead:
            return
        self._ahead[key] = yield from propose_masks_job(
            predictor, settings, request.plane, kind=kind
        )
        while len(self._ahead) > PLANES_AHEAD:
            self._ahead.popitem(last=False)

    def see_job(
        self, request: PredictionRequest
    ) -> Job[tuple[np.ndarray, list[list[ChannelInfluence]]]]:
        """What the foundation gets of the request's plane as a picture (h, w, 3) of uint8.

        Also what each channel does for the mask of each object, as `channel_influence_job`.
        """
        predictor = yield from self._job_predictor(request)
        from napari_simmat.engine.channels import channel_influence_job, foundation_colors
        from napari_simmat.engine.drawing import to_rgb

        yield from predictor.set_plane_job(request.plane)
        picture = to_rgb(foundation_colors(predictor))
        if not request.prompts:
            return picture, []
        return picture, (yield from channel_influence_job(predictor, request.prompts))

    def sift_job(
        self, request: PredictionRequest, found: Instances, plane: Plane, committed: np.ndarray
    ) -> Job[Sifted]:
        """Keep the objects found on the request's plane that are like committed ones.

        The labels of these (Y, X) are of another or the same plane.
        """
        from napari_simmat.engine.automatic_postprocessing import measure_properties, sift

        predictor = yield from self._job_predictor(request)
        yield from predictor.set_plane_job(plane)
        examples = measure_properties(predictor, committed, plane)
        yield from predictor.set_plane_job(request.plane)
        ours = measure_properties(predictor, found.labels, request.plane)
        return sift(found, ours, examples)

    def name_job(
        self,
        request: PredictionRequest,
        labels: np.ndarray,
        known: Mapping[int, str],
        channels: Sequence[Any],
    ) -> Job[NamedObjects]:
        """Name the other objects of the request's image; see `engine.naming.name_objects`."""
        from napari_simmat.engine.naming import name_objects_job

        predictor = yield from self._job_predictor(request, same_image=False)
        return (yield from name_objects_job(labels, known, channels, predictor))

    def forget(self) -> None:
        """Drop the model, so that the next request loads it again."""
        self.predictor = self._model = None
        self._image = self._propagator = self._proposed = None
        self._ahead.clear()
        self._remark = ((), "")

    def _predict_plane(
        self,
        request: PredictionRequest,
        is_current: Callable[[], bool],
    ) -> Job[Prediction | None]:
        yield from self._load(request.model)
        yield from self._open(request)
        predictor = self.predictor
        assert predictor is not None
        part = None if request.whole else predictor.part_predictor(request.plane)
        if part is not None:
            from napari_simmat.engine.predictor import OutsidePartError

            with suppress(OutsidePartError):  # then the whole is needed at once
                if not request.objects and request.center is not None:
                    job = part.encode_job(request.center)
                    yield from _while_current_job(job, is_current)
                return (yield from _while_current_job(self._predict(request, part), is_current))
        job = predictor.set_plane_job(request.plane)
        yield from _while_current_job(job, is_current)
        return (yield from self._predict(request)) if is_current() else None

    def _predict(
        self, request: PredictionRequest, part: PartPredictor | None = None
    ) -> Job[Prediction]:
        assert self.predictor is not None
        assert self._refiner is not None
        chosen, prompts = dict(request.choices), request.prompts
        subject = (request.encoding, part is not None)
        results = yield from self._refiner.refine_job(
            part or self.predictor, prompts, subject, chosen
        )
        choices = [
            ALL_PIECES if chosen.get(prompt) == ALL_PIECES else result.choice
            for prompt, result in zip(prompts, results, strict=True)
        ]
        last = (prompts[-1], results[-1], choices[-1]) if results else None
        return Prediction(
            request.objects,
            tuple(result.mask for result in results),
            tuple(result.score for result in results),
            " ".join(filter(None, [self._remark[1], self.predictor.note])),
            tuple(choices),
            tuple(result.left_out for result in results),
            () if last is None else self._candidates(*last, request.plane),
            part is not None,
        )

    def _candidates(
        self, prompt: Prompt, result: Result, choice: int, plane: Plane
    ) -> tuple[Candidate, ...]:
        """The masks that look different; `choice` is the one that `result` shows."""
        from napari_simmat.engine.drawing import mask_thumbnail

        assert self.predictor is not None
        stack = self.predictor.stack
        masks = candidate_masks(prompt, result)
        masks[choice] = result.mask  # with the user's corrections
        if len(masks) < 2:
            return ()
        order = sorted(masks, key=lambda number: 0.5 if number == ALL_PIECES else number)
        return tuple(
            Candidate(
                number,
                mask_thumbnail(
                    masks[number],
                    lambda rows, columns: stack.part(plane, rows, columns).normalized(),
                ),
                int(np.count_nonzero(masks[number])),
            )
            for number in order
        )

    def _job_predictor(
        self, request: PredictionRequest, *, same_image: bool = True
    ) -> Job[Predictor]:
        """A predictor for a long job, with its own plane, so that clicks can go on in between.

        With `same_image` the request's image becomes that of the clicks, too.
        """
        yield from import_torch_job()
        yield from self._load(request.model)
        assert self.predictor is not None
        if same_image:
            yield from self._open(request)
        predictor = self.predictor.sibling()
        if not same_image:
            yield from self._set_image(predictor, request.image)
        return predictor

    def _load(self, chosen: ChosenModel) -> Job[None]:
        if self.predictor is not None and chosen == self._model:
            return
        from napari_simmat.checkpoints.loading import load_model_job
        from napari_simmat.engine import device
        from napari_simmat.engine.predictor import Predictor
        from napari_simmat.engine.refinement import Refiner

        self.forget()  # two networks at a time may exceed the memory
        device.choose_device(local_device(chosen.compute.device))  # raises before much is read
        model = yield from load_model_job(chosen.reference)
        self._devices = tuple(device.available_devices())
        self.predictor = Predictor(model, cache=self.cache, **asdict(chosen.compute))
        self._refiner = Refiner()
        self._model = chosen

    def _open(self, request: PredictionRequest) -> Job[None]:
        """Make the request's image the predictor's, and remark on its plane."""
        predictor, image = self.predictor, request.image
        assert predictor is not None
        if self._image != image.token:
            self._image = None  # stays None if the job is canceled half-way
            yield from self._set_image(predictor, image)
            self._image = image.token
        if self._remark[0] != request.encoding:
            self._remark = request.encoding, remark(predictor.stack.plane(request.plane))

    def _set_image(self, predictor: Predictor, image: ImageValue) -> Job[None]:
        """Give an image to a predictor; nothing of it is encoded yet."""
        statistics = yield from self._measure(image)
        yield from predictor.open_image_job(
            image.arrays,
            names=image.names,
            statistics=statistics,
            pixel_size=image.pixel_size,
        )

    def _measure(self, image: ImageValue) -> Job[Statistics]:
        """The normalization statistics: measured once per image, the same for all its views."""
        assert self.predictor is not None
        model, whole = self.predictor.model, image.usual
        key = (model.fingerprint, *whole.token)
        if key not in self._statistics:
            stack = ChannelStack.build(whole.arrays, inputs=model.spec.inputs, names=whole.names)
            self._statistics[key] = yield from stack.measure_job()
        return self._statistics[key]


def _while_current_job(job: Job[T], is_current: Callable[[], bool]) -> Job[T | None]:
    """A job that is left, with None, at the first step at which its result is of no use."""
    steps = Steps(job)
    with closing(job):
        for progress in steps:
            yield progress
            if not is_current():
                return None
    return steps.result


class InferenceQueue(QObject):
    """Requests to the worker: the newest one counts, its result arrives on the main thread.

    Attributes
    ----------
    worker, service
        The thread and the model in it; background jobs share both.
    request
        The newest request.
    """

    progressed = Signal(object)
    """A `Status` of the work in progress."""
    predicted = Signal(object, object, float)
    """The request, its `Prediction`, and the seconds it took."""
    failed = Signal(str)
    """Why there is no prediction, in one sentence."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.worker = Worker()
        self.service = InferenceService()
        self.request: PredictionRequest | None = None
        self._task: WorkerTask | None = None
        self._older: list[WorkerTask] = []  # under way still, on what the newest goes on with
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.worker.stopped.connect(self._forget, queued)

    @property
    def busy(self) -> bool:
        """Whether a prediction is awaited."""
        return self._task is not None

    def submit(self, request: PredictionRequest) -> None:
        """Predict, in place of the request before.

        One that has begun to encode the same plane is not canceled: it gives way at its next step,
        and the newer request continues its encoding.
        """
        before, task = self.request, self._task
        if task is not None and before is not None:
            same = before.encoding == request.encoding
            if same and not request.prompts and not before.prompts:
                return  # the plane is being encoded already
            if not same or task.job is None:
                task.cancel()
            self._older.append(task)
        self.request = request
        name = SEGMENTING if request.prompts else GETTING_READY
        self._task = self.worker.submit(
            name,
            lambda: self.service.predict_job(
                request,
                is_current=lambda: self.request is request,
            ),
        )
        self.progressed.emit(Status("working", name))

    def drop(self) -> None:
        """Discard the awaited prediction; the window is free at once."""
        for task in (*self._older, self._task):
            if task is not None:
                task.cancel()
        self._task = None

    def close(self) -> None:
        """Cancel everything and let the thread end."""
        self.drop()
        self.worker.close()

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        # An earlier click on the same image may still be encoding what this one waits for.
        if self._task is not None and not task.canceled and task in (self._task, *self._older):
            fraction = progress.done / progress.total if progress.total else None
            text = progress.message[:1].upper() + progress.message[1:]
            self.progressed.emit(Status("working", text or task.name, fraction))

    def _forget(self, task: WorkerTask) -> None:
        self._older = [older for older in self._older if older is not task]

    def _on_returned(self, task: WorkerTask, prediction: Prediction) -> None:
        self._forget(task)
        if task is self._task:
            self._task = None
            self.predicted.emit(self.request, prediction, time.monotonic() - task.since)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        self._forget(task)
        if task is self._task:
            self._task = None
            self.failed.emit(reason)


def remark(values: np.ndarray) -> str:
    """What the user should know about a plane's raw values (C, Y, X), or empty."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() == finite.max():
        return f"Every pixel here is {finite[0]:g}, so there is nothing to segment."
    missing = values.size - finite.size
    if missing:
        share = max(1, round(100 * missing / values.size))
        return f"{share} % of the values are NaN or infinite and count as the lowest."
    return ""
