"""`Propagator`: objects carried through a stack, from prompts on some of its planes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.label_volume import LabelVolume
from napari_simmat.engine.masks import Mask, ObjectMask
from napari_simmat.engine.outline_evidence import BoundaryBias, ContrastGate, OutlineEvidence
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import CandidateChoices, Refiner, prompt_steps
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.interval_propagator import IntervalPropagator, prompt_from_mask
from napari_simmat.engine.tracking.object_memory import WITHOUT_MEMORY, MemoryTrail, along_lines
from napari_simmat.engine.tracking.propagation_tracks import (
    AnnotatedLine,
    IntervalEnd,
    ObjectAnnotations,
    PlaneIndex,
    Section,
    SliceInterval,
    Track,
    group_annotations,
    line_of,
    slice_intervals,
    voxel_spacing,
)
from napari_simmat.progress import Job, Progress, finish, with_progress, within_step

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.result import Result
    from napari_simmat.models.sam2_memory import ObjectMemory


T = TypeVar("T")
OUT_OF_RANGE = "The range of planes is a first and a last one within 0 to {}, not {} to {}."
MAX_REMEMBERED = 1024
"""Intervals and annotated planes that are cached; each takes some KiB."""
MAX_MEMORIES = 64
"""Objects on annotated planes whose memory is cached; each takes half a MiB."""


@dataclass(frozen=True)
class PropagationProgress(Progress):
    """A plane was visited; `tracks` are the objects as far as they are found."""

    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True)
class _Visited(Progress):
    """A plane was visited; `found` is what lies on the planes of each interval so far."""

    found: Mapping[SliceInterval, Sequence[tuple[int, Section]]] = field(default_factory=dict)


class Propagator:
    """Propagates objects through the stack of a predictor.

    An object is annotated on one or several planes. Beyond them, each plane is prompted with the
    mask of the plane before, until the object ends; between two annotated planes, with the
    interpolated shape. A network with a memory looks for what it remembers of the object instead
    (`PropagationSettings.method`). Results are cached: when prompts are added or changed, only
    planes that depend on them are predicted again.

    Parameters
    ----------
    predictor
        Holds the image.
    settings
        When an object ends.
    spacing
        Distance between voxels along each axis of the image without channels, in any one unit,
        e.g. ``(2.0, 0.5, 0.5)`` microns; all equal by default. It determines how far an outline may
        move from plane to plane.

    Examples
    --------
    >>> propagator = Propagator(predictor, spacing=(2.0, 0.5, 0.5))
    >>> click = Prompt(points=[(40, 60)], object=1, plane=(12,))
    >>> [track] = propagator.propagate([click])
    >>> track.volume().shape
    (24, 192, 192)
    """

    def __init__(
        self,
        predictor: Predictor,
        settings: PropagationSettings | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.predictor = predictor
        self.settings = settings or PropagationSettings()
        self.spacing = voxel_spacing(spacing, len(predictor.shape))
        method = self.settings.method
        if method == "memory" and not predictor.has_memory:
            raise ValueError(WITHOUT_MEMORY.format(predictor.model.spec.name))
        self._by_memory = predictor.has_memory and method != "mask"
        self._refiner = Refiner()
        self._stack = predictor.stack
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._memories: OrderedDict[tuple[PlaneIndex, Section], ObjectMemory] = OrderedDict()

    def propagate(
        self,
        prompts: Sequence[Prompt],
        along: int | Sequence[int] | None = None,
        planes: tuple[int, int] | None = None,
    ) -> list[Track]:
        """Propagate the objects of prompts through the stack.

        Parameters
        ----------
        prompts
            On any planes (`Prompt.plane`), any number for each object (`Prompt.object`). Negative
            points alone mean that the object is not on that plane: it ends before. A mask alone is
            not changed. `Track.correction` makes the prompt that corrects an earlier result.
        along
            The axis, counted without channels; by default the one before Y and X. Several are
            followed one after the other: ``(1, 0)`` in an image (T, Z, Y, X) goes through Z, and
            then with every plane of the object through time.
        planes
            The first and the last index along the (first) axis that may be reached.

        Returns
        -------
        One `Track` for each object, in the order in which they appear in `prompts`.

        Raises
        ------
        ValueError
            If prompts or planes are not in the image.
        """
        return finish(self.propagate_job(prompts, along, planes))

    def propagate_job(
        self,
        prompts: Sequence[Prompt],
        along: int | Sequence[int] | None = None,
        planes: tuple[int, int] | None = None,
        choices: CandidateChoices | None = None,
    ) -> Job[list[Track]]:
        """`propagate` as a job. Closing it cancels; encoded planes stay in the cache.

        `choices` are those of `Refiner.refine_job`, for prompts with their object and plane.
        """
        if self.predictor.stack is not self._stack:
            raise RuntimeError("The predictor has another image now; make another Propagator.")
        shape = self.predictor.shape
        axes = _axes(along, shape)
        size = shape[axes[0]]
        first, last = (0, size - 1) if planes is None else (int(plane) for plane in planes)
        if not 0 <= first <= last < size:
            raise ValueError(OUT_OF_RANGE.format(size - 1, first, last))
        objects = group_annotations(prompts, shape)
        annotated: set[PlaneIndex] = set()
        for one in objects:
            annotated |= one.present.keys()
        total = max(last - first + 1, len(annotated))
        found = yield from self._annotated_sections_job(objects, total, choices or {})
        for axis in axes:
            limits = (first, last) if axis == axes[0] else (0, shape[axis] - 1)
            intervals = []
            for one, sections in zip(objects, found, strict=True):
                there = slice_intervals(sections, one.absent, axis, limits)
                for interval in along_lines(there, sections) if self._by_memory else there:
                    clearest = self._clearest_end(sections, interval)
                    intervals.append((sections, replace(interval, clearest=clearest)))
            reached = [interval for _, interval in intervals]
            visiting = self._propagate_intervals_job(reached, len(annotated))
            yield from self._with_tracks_job(visiting, objects, found, intervals)
            for sections, interval in intervals:
                for index, section in self._known[interval]:
                    sections[interval.plane(index)] = section
        while len(self._known) > MAX_REMEMBERED:  # only now: objects need their own until here
            self._known.popitem(last=False)
        return [
            Track(each.object, shape, sections)
            for each, sections in zip(objects, found, strict=True)
        ]

    def _with_tracks_job(
        self,
        visiting: Job[None],
        objects: Sequence[ObjectAnnotations],
        found: Sequence[dict[PlaneIndex, Section]],
        intervals: Sequence[tuple[dict[PlaneIndex, Section], SliceInterval]],
    ) -> Job[None]:
        """Tell with each plane that was visited what the objects are by then."""
        numbers = {id(sections): number for number, sections in enumerate(found)}
        with closing(visiting):
            for progress in visiting:
                if not isinstance(progress, _Visited):
                    yield progress
                    continue
                now = [dict(sections) for sections in found]
                for sections, interval in intervals:
                    known = self._known.get(interval) or progress.found.get(interval, ())
                    for index, section in known:
                        now[numbers[id(sections)]][interval.plane(index)] = section
                tracks = tuple(
                    Track(each.object, self.predictor.shape, sections)
                    for each, sections in zip(objects, now, strict=True)
                )
                yield PropagationProgress(progress.done, progress.total, progress.message, tracks)

    def _annotated_sections_job(
        self, objects: Sequence[ObjectAnnotations], total: int, choices: CandidateChoices
    ) -> Job[list[dict[PlaneIndex, Section]]]:
        """The objects on the planes of their prompts, of `total` planes that may be visited."""
        found: list[dict[PlaneIndex, Section]] = [{} for _ in objects]
        annotated = []
        for number, one in enumerate(objects):
            annotated += [(plane, number) for plane in one.present]
        annotated.sort()
        planes = sorted({plane for plane, _ in annotated})
        for plane, number in annotated:
            prompts = objects[number].present[plane]
            steps = [step for prompt in prompts for step in prompt_steps(prompt)]
            chosen = tuple(choices.get(step, 0) for step in steps)
            key = prompts, chosen
            if key not in self._known:
                here = _at(planes.index(plane), total, plane)
                yield from within_step(self.predictor.set_plane_job(plane), here)
                encoded = replace(here, done=here.done + 1)
                refining = self._refiner.refine_job(self.predictor, prompts, plane, choices)
                results = yield from with_progress(refining, encoded)
                mask = np.logical_or.reduce([result.mask for result in results])
                score = min(result.score for result in results)
                other = any(n > 0 for n in chosen)
                self._known[key] = (
                    Section(ObjectMask.of(mask), score, "annotated", chosen=other)
                    if mask.any()
                    else None
                )
            section = self._known[key]
            if section is not None:
                found[number][plane] = section
        return found

    def _propagate_intervals_job(
        self, intervals: Iterable[SliceInterval], before: int
    ) -> Job[None]:
        """Find the objects on all planes of new intervals, visiting each plane once.

        `before` planes were visited before these.
        """
        stack = self.predictor.stack
        distinct = dict.fromkeys(intervals)
        new = self._to_be_found(distinct)
        if not self._by_memory:
            yield from self._measure_bias_job(distinct, before)
        propagators = [self._interval_propagator(interval) for interval in new]
        found: dict[SliceInterval, list[tuple[int, Section]]] = {interval: [] for interval in new}
        trails: dict[AnnotatedLine, MemoryTrail] = {}
        visits = _visit_order(propagators)
        for done, (plane, index, there) in enumerate(visits):
            active = [each for each in there if not each.ended]
            if not active:
                continue
            here = _at(before + done, before + len(visits), plane)
            if self._by_memory:
                trails = self._trails(active, trails)
                yield from self._remember_job(trails, active, index, here)
            yield from within_step(self.predictor.set_plane_job(plane), here)
            values = stack.normalized(plane)
            encoded = replace(here, done=here.done + 1)
            if self._by_memory:
                recalling = self._recall_job(trails, active, index)
                results = yield from with_progress(recalling, encoded)
            else:
                prompts = [each.prompt(index) for each in active]
                predicting = self.predictor.predict_many_job(prompts)
                results = yield from with_progress(predicting, encoded)
            for propagator, predicted in zip(active, results, strict=True):
                result = propagator.candidate(index, predicted)
                taken = propagator.accept(index, result.mask, result.score, values)
                if taken is not None:
                    mask, origin, evidence = taken
                    score = result.score if origin == "propagated" else float("nan")
                    section = Section(ObjectMask.of(mask), score, origin, evidence)
                    found[propagator.interval].append((index, section))
            yield _Visited(encoded.done, encoded.total, encoded.message, found)
        for interval in distinct:
            if interval in found:
                self._known[interval] = tuple(found[interval])
            self._known.move_to_end(interval)

    def _to_be_found(self, intervals: Iterable[SliceInterval]) -> list[SliceInterval]:
        """The intervals that are not known; by memory, with all others of their lines."""
        new = [each for each in intervals if each not in self._known]
        lines = {each.whole for each in new if each.whole is not None}
        return [each for each in intervals if each.whole in lines] if lines else new

    def _trails(
        self, active: Sequence[IntervalPropagator], trails: Mapping[AnnotatedLine, MemoryTrail]
    ) -> dict[AnnotatedLine, MemoryTrail]:
        """The trails of a plane's line of planes; those of lines that are done are left."""
        here = active[0].interval.line
        kept = {line: each for line, each in trails.items() if line.intervals[0].line == here}
        for propagator in active:
            line = _whole(propagator.interval)
            if line not in kept:
                length = self.predictor.shape[propagator.interval.axis]
                kept[line] = MemoryTrail(line, length, self.predictor.most_given)
        return kept

    def _remember_job(
        self,
        trails: Mapping[AnnotatedLine, MemoryTrail],
        active: Sequence[IntervalPropagator],
        index: int,
        here: Progress,
    ) -> Job[None]:
        """Remember the objects on the annotated planes that plane `index` recalls."""
        missing = []
        for number, propagator in enumerate(active):
            interval = propagator.interval
            trail = trails[_whole(interval)]
            ends = trail.missing(index, interval.ascending)
            missing += [(end.index, number, end.section, trail) for end in ends]
        missing.sort(key=lambda each: each[:2])
        for other, number, section, trail in missing:
            plane = active[number].interval.plane(other)
            if (plane, section) not in self._memories:
                yield from with_progress(self.predictor.set_plane_job(plane), here)
                remembered = self.predictor.remember(section.mask(self._size))
                self._memories[plane, section] = remembered
            trail.give(other, self._memories[plane, section])
            self._memories.move_to_end((plane, section))
            if len(self._memories) > MAX_MEMORIES:
                self._memories.popitem(last=False)

    def _recall_job(
        self,
        trails: Mapping[AnnotatedLine, MemoryTrail],
        active: Sequence[IntervalPropagator],
        index: int,
    ) -> Job[list[Result]]:
        """Find objects on the current plane, `index` along their intervals, by memory."""
        results = []
        for done, propagator in enumerate(active, start=1):
            interval = propagator.interval
            trail = trails[_whole(interval)]
            result, memory = self.predictor.recall(trail.seen_from(index, interval.ascending))
            trail.add(index, interval.ascending, memory)
            results.append(result)
            yield Progress(done, len(active), "recalling")
        return results

    def _measure_bias_job(self, intervals: Iterable[SliceInterval], before: int) -> Job[None]:
        """Predict annotated planes as those between them, to measure the model's bias.

        The bias is not used beyond the outermost annotated planes: that of a blurred plane at the
        object's end would be carried to the sharp planes on the other side.
        """
        seeds = {
            (interval.plane(seed.index), seed.section)
            for interval in intervals
            if interval not in self._known and interval.end is not None
            for seed in interval.ends
            if seed.section.origin == "annotated"
        }
        unknown = sorted(
            (seed for seed in seeds if ("bias", *seed) not in self._known), key=lambda seed: seed[0]
        )
        for plane, section in unknown:
            # Their encodings are cached, so that this is little work.
            here = _at(before, before + len(unknown), plane)
            yield from with_progress(self.predictor.set_plane_job(plane), here)
            mask = section.mask(self._size)
            prompt = prompt_from_mask(mask, (self.spacing[-2], self.spacing[-1]), plane)
            [result] = yield from with_progress(self.predictor.predict_many_job([prompt]), here)
            self._known["bias", plane, section] = BoundaryBias.of(mask, result.mask)

    def _interval_propagator(self, interval: SliceInterval) -> IntervalPropagator:
        pixel = self.spacing[-2], self.spacing[-1]
        step = self.spacing[interval.axis]
        start = interval.start
        end = interval.end
        known = interval.clearest or start
        plane = interval.plane(known.index)
        outline = self._measured(plane, known.section, OutlineEvidence.of, "outline")
        gate = None if interval.clearest is None else self._contrast_gate(plane, known.section)
        biases: tuple[BoundaryBias | None, BoundaryBias | None] = (None, None)
        if end is not None:
            first, last = (
                self._known.get(("bias", interval.plane(seed.index), seed.section))
                for seed in (start, end)
            )
            biases = first, last
        return IntervalPropagator(
            interval, self.settings, self._size, step, pixel, gate, outline, biases
        )

    def _clearest_end(
        self, sections: Mapping[PlaneIndex, Section], interval: SliceInterval
    ) -> IntervalEnd | None:
        """The annotated plane of an interval's line on which the object stands out most.

        Its contrast is used for all planes: otherwise a correction on a faint plane would make
        everything that faint a part of the object.
        """
        if not self.settings.min_contrast:
            return None
        found = []
        for plane, section in sorted(sections.items()):
            if line_of(plane, interval.axis) == interval.line:
                gate = self._contrast_gate(plane, section)
                found.append(
                    (0.0 if gate is None else gate.strength, plane[interval.axis], section)
                )
        _, index, section = max(found, key=lambda each: each[0])
        return IntervalEnd(index, section)

    def _contrast_gate(self, plane: PlaneIndex, section: Section) -> ContrastGate | None:
        return self._measured(
            plane, section, partial(ContrastGate.of, minimum=self.settings.min_contrast), "contrast"
        )

    def _measured(
        self,
        plane: PlaneIndex,
        section: Section,
        measure: Callable[[Mask, NDArray[Any]], T],
        name: str,
    ) -> T:
        """What is measured of an object on a plane, once."""
        key = name, plane, section.pixels
        if key not in self._known:
            values = self.predictor.stack.normalized(plane)
            self._known[key] = measure(section.mask(self._size), values)
        found: T = self._known[key]
        return found

    @property
    def _size(self) -> tuple[int, int]:
        return self.predictor.shape[-2], self.predictor.shape[-1]


def propagate_prompts_job(
    predictor: Predictor,
    prompts: Sequence[Prompt],
    labels: Sequence[int],
    settings: PropagationSettings,
    axes: str,
    scale: Mapping[str, float],
) -> Job[LabelVolume]:
    """Propagate objects through the depth of an image, or through time if it has none.

    Parameters
    ----------
    predictor
        Holds the image.
    prompts, labels
        Each prompt and the number of its object.
    settings
        When an object ends.
    axes, scale
        Letters of the image's axes without channels, and the distance between voxels by letter.
    """
    propagator = Propagator(predictor, settings, axis_spacing(axes, scale))
    numbered = [replace(one, object=label) for one, label in zip(prompts, labels, strict=True)]
    tracks = yield from propagator.propagate_job(numbered, propagation_axis(axes, predictor.shape))
    volume = LabelVolume(predictor.shape)
    for track in tracks:
        usual = 0.0 if math.isnan(track.score) else track.score
        for plane, mask, score in track.masks():
            volume.add(track.object or 0, mask, usual if math.isnan(score) else score, plane)
    return volume


def axis_spacing(axes: str, scale: Mapping[str, float]) -> tuple[float, ...]:
    """The distance between voxels along each axis, in one unit; along time as along X."""
    known = {letter: scale[letter] for letter in "ZYX" if scale.get(letter, 0.0) > 0}
    if len(known) < 3:
        return (1.0,) * len(axes)  # otherwise micrometers would be compared with pixels
    return tuple(known.get(letter, known["X"]) for letter in axes)


def propagation_axis(axes: str, shape: Sequence[int]) -> int | None:
    """The axis of propagation: depth, or the last other axis if depth is a single plane.

    Many files have axes of length 1; None if there is no longer axis.
    """
    long = [axis for axis, size in enumerate(shape[:-2]) if size > 1]
    depth = [axis for axis in long if axes[axis] == "Z"]
    return next(iter([*depth, *reversed(long)]), None)


def _visit_order(
    propagators: Sequence[IntervalPropagator],
) -> list[tuple[PlaneIndex, int, list[IntervalPropagator]]]:
    """Planes, indices and propagators in the order of visits: line by line, up, then down."""
    visits: dict[tuple[Any, ...], list[IntervalPropagator]] = {}
    for propagator in propagators:
        interval = propagator.interval
        for index in interval.indices:
            turn = index if interval.ascending else -index
            visits.setdefault((interval.line, not interval.ascending, turn), []).append(propagator)
    return [
        (there[0].interval.plane(abs(turn)), abs(turn), there)
        for (_, _, turn), there in sorted(visits.items(), key=lambda item: item[0])
    ]


def _whole(interval: SliceInterval) -> AnnotatedLine:
    assert interval.whole is not None, "it is followed by memory"
    return interval.whole


def _at(done: int, total: int, plane: PlaneIndex) -> Progress:
    return Progress(done, total, f"plane {', '.join(map(str, plane))}")


def _axes(along: int | Sequence[int] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    leading = len(shape) - 2
    if not leading:
        raise ValueError(
            f"An image of {format_shape(shape)} pixels has a single plane; objects are "
            "followed through stacks."
        )
    given = (leading - 1,) if along is None else (along,) if isinstance(along, int) else along
    axes = tuple(int(axis) for axis in given)
    if not axes or len(set(axes)) < len(axes) or not all(0 <= axis < leading for axis in axes):
        raise ValueError(
            f"Objects are followed along axes 0 to {leading - 1} of an image of shape "
            f"{format_shape(shape)}, each at most once, not {axes}."
        )
    return axes
