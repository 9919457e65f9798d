"""The loaded model and its predictor: the one door to the engine for whoever annotates images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.predictions import (
    OTHER_READING,
    Candidate,
    ChosenModel,
    Prediction,
    PredictionRequest,
    Proposed,
    StackRequest,
)
from napari_simmat.annotation.prompt_grouping import ObjectPrompt, objects_on
from napari_simmat.annotation.prompt_state import Plane, PromptState
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import ALL_PIECES, candidate_masks
from napari_simmat.engine.remote import local_device
from napari_simmat.engine.settings import BY_TINY, Compute
from napari_simmat.progress import Job, Steps, as_part

if TYPE_CHECKING:
    from napari_simmat.annotation.lesson import Lesson
    from napari_simmat.engine.channel_influence import ChannelInfluence
    from napari_simmat.engine.coordinates import BoxCorners
    from napari_simmat.engine.device import DeviceInfo
    from napari_simmat.engine.everything.candidates import Instances, MaskCandidates
    from napari_simmat.engine.everything.object_finder import Look
    from napari_simmat.engine.everything.sifting import Sifted
    from napari_simmat.engine.naming import NamedObjects
    from napari_simmat.engine.normalization import Statistics
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.part_predictor import PartPredictor
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.refinement import Refiner
    from napari_simmat.engine.result import Result
    from napari_simmat.engine.settings import AutomaticSettings
    from napari_simmat.engine.tracking.propagation import Propagator
    from napari_simmat.engine.tracking.propagation_tracks import Track

T = TypeVar("T")


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


PLANES_AHEAD = 2
"""Planes whose masks are proposed ahead and kept: the next of a stack, and of the next image."""


class InferenceService:
    """The loaded model and its predictor, which jobs predict, propose and propagate with.

    A window runs the jobs in one thread, a script with `progress.finish`. Embeddings outlive a
    change of image and of model.

    Parameters
    ----------
    prepare
        Job that runs before the engine is first used, such as one that imports torch gently.

    Attributes
    ----------
    cache
        The embeddings.
    """

    def __init__(self, prepare: Callable[[], Job[None]] | None = None) -> None:
        self._prepare = prepare or _nothing_job
        self.predictor: Predictor | None = None
        self.cache = EmbeddingCache()
        self._devices: tuple[DeviceInfo, ...] = ()
        self._refiner: Refiner | None = None
        self._model: ChosenModel | None = None
        self._image: tuple[object, ...] | None = None
        self._remark: tuple[object, str] = ((), "")
        self._propagator: tuple[object, Propagator] | None = None
        self._proposed: tuple[object, MaskCandidates] | None = None
        # What the decoder found of a large plane, until all of it was looked at.
        self._looks: tuple[object, Look] | None = None
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
        yield from self._prepare()
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
        from napari_simmat.engine.tracking.propagation import Propagator

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
        model was taught. With words in the settings, they and the objects of a lesson on the same
        plane say what to look for. If only the ground of a lesson has changed, the masks are those
        of before, weighed anew. A second look is left to `look_again_job`. `tiny`'s decoder is
        tuned on a lesson, whichever model outlines what it finds; micro-sam's, where
        `settings.uses_decoder`, heeds neither.
        Uses a predictor of its own, because clicks may be predicted in between.
        """
        predictor = yield from self._job_predictor(request, same_image=False)
        if settings.words:
            return (yield from self._find_named_job(predictor, request, settings, lesson))
        from napari_simmat.engine.everything.kind_learning import known_kind, weigh_masks_job
        from napari_simmat.engine.everything.mask_proposals import propose_masks_job
        from napari_simmat.engine.everything.next_step import SeenPlane
        from napari_simmat.engine.everything.object_finder import AT_ONCE, Look, looks_coarsely

        spec = predictor.model.spec
        seen = SeenPlane.of(predictor.stack, request.plane)
        if seeds is not None:
            settings = replace(settings, by="clicks")
        heeds = spec.base.embedded or settings.by == BY_TINY
        if heeds or not settings.uses_decoder(spec):
            kind = kind or known_kind(predictor, settings)
            if lesson is not None:
                kind = yield from as_part(_learn_job(predictor, lesson, settings), 0, 0.7)
        by_decoder = settings.uses_decoder(spec, kind)
        if by_decoder and kind is not None and kind.decoder is None:
            kind = None
        settings = settings.for_model(spec, kind)
        key = (request.encoding, settings.proposing, *_sought(kind))
        if seeds is None and key in self._ahead:
            self._proposed = key, self._ahead.pop(key)
        if seeds is None and self._proposed is not None and self._proposed[0] == key:
            candidates = self._proposed[1]
        else:
            is_alone = settings.by == "decoder" and spec.base.embedded and kind is None
            if is_alone and looks_coarsely(predictor):
                if self._looks is None or self._looks[0] != key:
                    height, width = predictor.shape[-2:]
                    near = request.center or (height / 2, width / 2)
                    self._looks = key, Look.at(predictor, near=near)
                look = self._looks[1]
                yield from look.on_job(predictor, request.plane, most=AT_ONCE)
                return Proposed(look.candidates, None, looks_again=True)
            job = propose_masks_job(predictor, settings, request.plane, seeds, kind=kind)
            candidates = yield from job
            looks_again = settings.second_look and not by_decoder
            if kind is None and seeds is None and looks_again:
                return Proposed(candidates, None, looks_again=True, seen=seen)
            self._proposed = None if seeds is not None else (key, candidates)
        if kind is not None:
            candidates = yield from weigh_masks_job(candidates, kind, predictor, request.plane)
        return Proposed(candidates, kind, seen=seen)

    def _find_named_job(
        self,
        predictor: Predictor,
        request: PredictionRequest,
        settings: AutomaticSettings,
        lesson: Lesson | None,
    ) -> Job[Proposed]:
        """Masks of all that the words mean; filters move without asking the model again."""
        from napari_simmat.engine.everything.word_search import boxes_of_objects, find_named_job

        examples: Sequence[BoxCorners] = ()
        if lesson is not None and lesson.plane == request.plane:
            examples = boxes_of_objects(lesson.labels)
        key = (request.encoding, settings.proposing, tuple(examples))
        if self._proposed is None or self._proposed[0] != key:
            job = find_named_job(predictor, settings, request.plane, examples=examples)
            self._proposed = key, (yield from job)
        return Proposed(self._proposed[1], None)

    def look_again_job(
        self, request: PredictionRequest, settings: AutomaticSettings, first: MaskCandidates
    ) -> Job[Proposed]:
        """Propose masks once more, by the size of the objects that the `first` look has found.

        `tiny`'s decoder goes on with a large plane, piece by piece: what was found so far
        `looks_again`. After the last look `propose_job` with the same request and settings gives
        its masks at once.
        """
        predictor = yield from self._job_predictor(request, same_image=False)
        from napari_simmat.engine.everything.generator import look_again_job
        from napari_simmat.engine.everything.next_step import SeenPlane
        from napari_simmat.engine.everything.object_finder import AT_ONCE, MORE

        settings = settings.for_model(predictor.model.spec)
        key = (request.encoding, settings.proposing, *_sought(None))
        if self._looks is not None and self._looks[0] == key:
            look = self._looks[1]
            most = max(AT_ONCE, round(MORE * look.done))
            yield from look.on_job(predictor, request.plane, most=most)
            candidates = look.candidates
            if look.left:
                return Proposed(candidates, None, looks_again=True)
            self._looks = None
        else:
            job = look_again_job(first, predictor, settings, request.plane, keep_all=True)
            candidates = yield from job
        self._proposed = key, candidates
        return Proposed(candidates, None, seen=SeenPlane.of(predictor.stack, request.plane))

    def propose_ahead_job(
        self, request: PredictionRequest, settings: AutomaticSettings, kind: ObjectKind
    ) -> Job[None]:
        """Propose masks of a kind on a plane that the user has not reached yet.

        `propose_job` finds them there.
        """
        if settings.words:
            return
        predictor = yield from self._job_predictor(request, same_image=False)
        from napari_simmat.engine.everything.mask_proposals import propose_masks_job

        settings = settings.for_model(predictor.model.spec, kind)
        key = (request.encoding, settings.proposing, *_sought(kind))
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
        from napari_simmat.engine.channel_influence import channel_influence_job, foundation_colors
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
        from napari_simmat.engine.everything.sifting import measure_properties, sift

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
        self._image = self._propagator = self._proposed = self._looks = None
        self._ahead.clear()
        self._remark = ((), "")

    def _predict_plane(
        self,
        request: PredictionRequest,
        is_current: Callable[[], bool],
    ) -> Job[Prediction | None]:
        yield from self._load(request.model)
        yield from self._open(request)
        from napari_simmat.engine.part_predictor import OutsidePartError, PartPredictor

        predictor = self.predictor
        assert predictor is not None
        part = None if request.whole else PartPredictor.before(predictor, request.plane)
        if part is not None:
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
        candidates: tuple[Candidate, ...] = ()
        if request.state.other is not None and results:
            shown = _drawn_last(request.state, request.objects)
            job = self._reading(request, part or self.predictor, subject, chosen)
            masks = {choices[-1]: results[shown].mask, OTHER_READING: (yield from job)}
            candidates = self._pictured(masks, sorted(masks, key=lambda n: masks[n].sum()), request)
        elif results:
            candidates = self._candidates(prompts[-1], results[-1], choices[-1], request)
        pairs = zip(prompts, results, strict=True)
        cut = part is not None and any(part.cuts(prompt, each.mask) for prompt, each in pairs)
        return Prediction(
            request.objects,
            tuple(result.mask for result in results),
            tuple(result.score for result in results),
            " ".join(filter(None, [self._remark[1], self.predictor.note])),
            tuple(choices),
            tuple(result.left_out for result in results),
            candidates,
            part is not None,
            cut,
        )

    def _candidates(
        self, prompt: Prompt, result: Result, choice: int, request: PredictionRequest
    ) -> tuple[Candidate, ...]:
        """The masks that look different; `choice` is the one that `result` shows."""
        masks = candidate_masks(prompt, result)
        masks[choice] = result.mask  # with the user's corrections
        if len(masks) < 2:
            return ()
        order = sorted(masks, key=lambda number: 0.5 if number == ALL_PIECES else number)
        return self._pictured(masks, order, request)

    def _reading(
        self,
        request: PredictionRequest,
        predictor: Predictor | PartPredictor,
        subject: Hashable,
        chosen: Mapping[Prompt, int],
    ) -> Job[np.ndarray]:
        """The mask of the object of the last line, if that is read otherwise."""
        assert self._refiner is not None
        assert self.predictor is not None
        other = request.state.other
        assert other is not None
        height, width = self.predictor.shape[-2:]
        objects = objects_on(other, request.plane, (height, width))
        prompt = objects[_drawn_last(other, objects)].prompt
        [result] = yield from self._refiner.refine_job(predictor, [prompt], subject, chosen)
        return result.mask

    def _pictured(
        self, masks: Mapping[int, np.ndarray], order: Sequence[int], request: PredictionRequest
    ) -> tuple[Candidate, ...]:
        """Candidates of these masks (Y, X), with pictures, in an order of their numbers."""
        from napari_simmat.engine.drawing import mask_thumbnail

        assert self.predictor is not None
        stack, plane = self.predictor.stack, request.plane
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
        yield from self._prepare()
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
            channel_names=image.names,
            statistics=statistics,
            pixel_size=image.pixel_size,
        )

    def _measure(self, image: ImageValue) -> Job[Statistics]:
        """The normalization statistics: measured once per image, the same for all its views."""
        assert self.predictor is not None
        model, whole = self.predictor.model, image.usual
        key = (model.fingerprint, *whole.token)
        if key not in self._statistics:
            stack = ChannelStack.build(
                whole.arrays, inputs=model.spec.inputs, channel_names=whole.names
            )
            self._statistics[key] = yield from stack.measure_job()
        return self._statistics[key]


def _drawn_last(state: PromptState, objects: Sequence[ObjectPrompt]) -> int:
    """Which of the objects holds the last line."""
    last = state.prompts.outlines[-1].vertices
    holders = (
        number
        for number, each in enumerate(objects)
        if any(outline.vertices == last for outline in each.source.outlines)
    )
    return next(holders, len(objects) - 1)


def _nothing_job() -> Job[None]:
    yield from ()


def _while_current_job(job: Job[T], is_current: Callable[[], bool]) -> Job[T | None]:
    """A job that is left, with None, at the first step at which its result is of no use."""
    steps = Steps(job)
    with closing(job):
        for progress in steps:
            yield progress
            if not is_current():
                return None
    return steps.result


def remark(values: np.ndarray) -> str:
    """What the user should know about a plane's raw values (C, Y, X), or empty."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() == finite.max():
        return f"Every pixel here is {finite[0]:g}, so there is nothing to segment."
    missing = values.size - finite.size
    if missing:
        share = max(1, round(100 * missing / values.size))
        return f"{share} % of the values are no data (NODATA, NaN, infinity), and count as lowest."
    return ""


def _learn_job(
    predictor: Predictor, lesson: Lesson, settings: AutomaticSettings
) -> Job[ObjectKind]:
    from napari_simmat.engine.everything.kind_learning import learn_kind_job

    by = "decoder" if settings.uses_decoder(predictor.model.spec) else "clicks"
    by = settings.by if settings.by == BY_TINY else by
    job = learn_kind_job(predictor, lesson.labels, lesson.ground, lesson.plane, by=by)
    return (yield from job)


def _sought(kind: ObjectKind | None) -> tuple[object, object]:
    """What of a kind the proposed masks depend on, before they are weighed."""
    return (None, None) if kind is None else (kind.size, kind.decoder)
