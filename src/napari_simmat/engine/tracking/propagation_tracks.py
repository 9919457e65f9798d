"""An object over the planes of a stack: where it is annotated, and the intervals in between."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt

PlaneIndex = tuple[int, ...]
DOUBTFUL_SCORE = 0.7
DOUBTFUL_EVIDENCE = 0.5
"""A plane below either is doubtful."""
Origin = Literal["annotated", "propagated", "interpolated"]


@dataclass(frozen=True)
class Section:
    """An object on one plane.

    Parameters
    ----------
    pixels
        Its pixels, over (Y, X).
    score
        Predicted IoU; NaN if the mask is not the model's.
    origin
        ``"annotated"``: from prompts on this plane; ``"propagated"``: predicted from neighboring
        planes; ``"interpolated"``: by shape alone, where the model found nothing similar between
        annotated planes.
    evidence
        How much of the edge along the outline on the annotated plane there is on this plane, 0..1;
        NaN if the annotated outline lies on no edge.
    chosen
        Whether the user chose it among the model's candidates: its first one means something else,
        so on further planes the candidate that is most like the mask before is taken.
    """

    pixels: ObjectMask
    score: float
    origin: Origin
    evidence: float = 1.0
    chosen: bool = False

    @property
    def doubtful(self) -> bool:
        """Whether the object may not be on this plane, or not like this: worth a look."""
        if self.origin == "annotated":
            return False
        weak = self.score < DOUBTFUL_SCORE or self.evidence < DOUBTFUL_EVIDENCE
        return self.origin == "interpolated" or weak

    @property
    def certainty(self) -> float:
        """Score and evidence as one number, 0..1; 1 where the user annotated it."""
        if self.origin == "annotated":
            return 1.0
        known = [value for value in (self.score, self.evidence) if not math.isnan(value)]
        return min(known, default=0.0)

    def mask(self, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels as (Y, X) bool."""
        return self.pixels.on_plane((), shape_yx)


@dataclass(frozen=True, eq=False)
class Track:
    """An object through a stack of `shape` (..., Y, X).

    `object` is the id of its prompts, or None; `sections` are the planes on which it is.
    """

    object: int | None
    shape: tuple[int, ...]
    sections: Mapping[PlaneIndex, Section]

    def mask(self, plane: int | Sequence[int]) -> NDArray[np.bool_]:
        """The object on one plane (Y, X); all False if it is not there."""
        section = self.sections.get(_plane_index(plane))
        size = self.shape[-2], self.shape[-1]
        return np.zeros(size, bool) if section is None else section.mask(size)

    def masks(self) -> Iterator[tuple[PlaneIndex, NDArray[np.bool_], float]]:
        """Plane, mask (Y, X) and score of each plane on which the object is, in order."""
        for plane in sorted(self.sections):
            yield plane, self.mask(plane), self.sections[plane].score

    def volume(self) -> NDArray[np.bool_]:
        """The whole object (..., Y, X)."""
        whole = np.zeros(self.shape, bool)
        for plane, mask, _ in self.masks():
            whole[plane] = mask
        return whole

    @property
    def doubtful(self) -> list[PlaneIndex]:
        """The planes that are worth a look, in order."""
        return sorted(plane for plane, section in self.sections.items() if section.doubtful)

    @property
    def score(self) -> float:
        """Mean score of the planes that have one; NaN if none has."""
        scores = [each.score for each in self.sections.values() if not math.isnan(each.score)]
        return math.fsum(scores) / len(scores) if scores else math.nan

    def object_mask(self) -> ObjectMask:
        """The whole object, over all axes of the image; ValueError if it is on no plane."""
        corners = np.array([(*plane, *s.pixels.corner) for plane, s in self.sections.items()])
        if not len(corners):
            raise ValueError("The object is on no plane: click on it first.")
        sizes = [(*([1] * len(plane)), *s.pixels.shape) for plane, s in self.sections.items()]
        first = corners.min(axis=0)
        block = np.zeros((corners + sizes).max(axis=0) - first, bool)
        for corner, size, section in zip(corners, sizes, self.sections.values(), strict=True):
            start = corner - first
            where = tuple(slice(n, n + length) for n, length in zip(start, size, strict=True))
            block[where] = section.pixels.mask
        return ObjectMask.of(block, tuple(int(n) for n in first))

    def correction(
        self,
        plane: int | Sequence[int],
        points: Sequence[tuple[float, float]],
        labels: Sequence[int] | None = None,
    ) -> Prompt:
        """A prompt that corrects the object on one plane, to be added to its other prompts.

        Where the object was found, the `points` and `labels` (as of a `Prompt`) refine its mask.
        Elsewhere they are an ordinary prompt, and negative points alone mean that it is not there.
        """
        index = _plane_index(plane)
        mask = self.mask(index) if index in self.sections else None
        taken = (1,) * len(points) if labels is None else tuple(labels)
        return Prompt(tuple(points), taken, mask=mask, object=self.object, plane=index)


@dataclass(frozen=True, eq=False)
class ObjectAnnotations:
    """The prompts of one object.

    Parameters
    ----------
    object
        The id that its prompts share; None for a single prompt without one.
    present
        The prompts on each plane that show the object.
    absent
        Planes with negative points alone: the object is not there.
    """

    object: int | None
    present: Mapping[PlaneIndex, tuple[Prompt, ...]]
    absent: frozenset[PlaneIndex]


def group_annotations(prompts: Sequence[Prompt], shape: tuple[int, ...]) -> list[ObjectAnnotations]:
    """Group prompts by `Prompt.object`, in order of appearance; one without is its own object.

    Raises ValueError if a prompt is not on the image, or an object is on no plane.
    """
    gathered: dict[tuple[str, int], list[Prompt]] = {}
    for number, prompt in enumerate(prompts):
        _check_plane(prompt, shape)
        own = ("number", number) if prompt.object is None else ("object", prompt.object)
        gathered.setdefault(own, []).append(prompt)
    annotations = []
    for group in gathered.values():
        present: dict[PlaneIndex, tuple[Prompt, ...]] = {}
        for prompt in group:
            is_absent = prompt.kinds == {"points"} and not any(prompt.labels)
            if not is_absent:
                corrects = prompt.mask is not None and bool(prompt.points)
                earlier = () if corrects else present.get(prompt.plane, ())
                present[prompt.plane] = (*earlier, prompt)
        absent = frozenset(prompt.plane for prompt in group) - present.keys()
        name = group[0].object
        if not present:
            raise ValueError(
                f"{'An object' if name is None else f'Object {name}'} has negative points alone, "
                "which say where it ends; click on it on at least one plane."
            )
        annotations.append(ObjectAnnotations(name, present, absent))
    return annotations


def _check_plane(prompt: Prompt, shape: tuple[int, ...]) -> None:
    leading = shape[:-2]
    if len(prompt.plane) != len(leading):
        raise ValueError(
            f"A prompt is on plane {prompt.plane}, but the image has shape "
            f"{format_shape(shape)}: a plane is {len(leading)} "
            f"{'number' if len(leading) == 1 else 'numbers'}."
        )
    for index, size in zip(prompt.plane, leading, strict=True):
        if not 0 <= index < size:
            raise ValueError(
                f"A prompt is on plane {index}, but there are {size}, counted from 0; place it on "
                "the image."
            )
    prompt.check_inside((shape[-2], shape[-1]))


def voxel_spacing(spacing: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The distance between voxels along each of `count` axes, by default 1.

    Raises ValueError unless they are `count` positive numbers.
    """
    if spacing is None:
        return (1.0,) * count
    taken = tuple(float(value) for value in spacing)
    if len(taken) != count or not all(0 < value < math.inf for value in taken):
        raise ValueError(
            f"The spacing is one positive number for each of the image's {count} axes (without "
            f"channels), not {taken}."
        )
    return taken


@dataclass(frozen=True)
class IntervalEnd:
    """The object on an annotated plane from which it is propagated."""

    index: int
    section: Section


@dataclass(frozen=True)
class SliceInterval:
    """Planes along one axis on which an object is looked for. Equal intervals, equal results.

    Parameters
    ----------
    axis
        The axis of the image along which the planes follow each other.
    line
        The plane's indices along the other leading axes.
    indices
        Indices along `axis`, in the order in which they are visited.
    start
        The annotated plane before them.
    end
        The annotated plane after them; None if the object is propagated until it ends.
    clearest
        The annotated plane on which the object stands out most; None for `start`.
    whole
        What else of its line decides where the object is; None where it is followed by masks,
        which go no farther than `start` and `end`.
    """

    axis: int
    line: PlaneIndex
    indices: tuple[int, ...]
    start: IntervalEnd
    end: IntervalEnd | None = None
    clearest: IntervalEnd | None = None
    whole: AnnotatedLine | None = None

    @property
    def ascending(self) -> bool:
        """Whether the planes are visited in the order of the image."""
        return self.indices[0] > self.start.index

    @property
    def ends(self) -> tuple[IntervalEnd, ...]:
        """The annotated planes before and after the interval."""
        return (self.start,) if self.end is None else (self.start, self.end)

    def plane(self, index: int) -> PlaneIndex:
        """The full index of a plane."""
        return (*self.line[: self.axis], index, *self.line[self.axis :])

    def part(self, index: int) -> float:
        """Position of a plane between `start` (0) and `end` (1)."""
        assert self.end is not None
        return (index - self.start.index) / (self.end.index - self.start.index)


@dataclass(frozen=True)
class AnnotatedLine:
    """A line of planes along which an object is followed by memory.

    Parameters
    ----------
    given
        All its annotated planes in order, also those outside the planes that may be visited.
    intervals
        All intervals of the object on the line.
    """

    given: tuple[IntervalEnd, ...]
    intervals: tuple[SliceInterval, ...]


def line_of(plane: PlaneIndex, axis: int) -> PlaneIndex:
    """A plane's indices without that along `axis`."""
    return (*plane[:axis], *plane[axis + 1 :])


def slice_intervals(
    sections: Mapping[PlaneIndex, Section],
    absent: Collection[PlaneIndex],
    axis: int,
    limits: tuple[int, int],
) -> list[SliceInterval]:
    """All intervals along `axis` between and beyond the annotated planes of an object.

    Parameters
    ----------
    sections
        The annotated planes.
    absent
        Planes on which the object is not; it ends before them.
    limits
        The first and the last index that may be visited.
    """
    intervals = []
    for line in sorted({line_of(plane, axis) for plane in sections}):
        seeds = [
            IntervalEnd(plane[axis], section)
            for plane, section in sorted(sections.items())
            if line_of(plane, axis) == line
        ]
        ends = {plane[axis] for plane in absent if line_of(plane, axis) == line}
        intervals += _intervals_on_line(line, axis, seeds, ends, limits)
    return intervals


def _intervals_on_line(
    line: PlaneIndex, axis: int, seeds: list[IntervalEnd], ends: set[int], limits: tuple[int, int]
) -> list[SliceInterval]:
    """The intervals of one line from its annotated planes; the object is not on those in `ends`."""
    intervals = []
    first, last = limits
    for number, seed in enumerate(seeds):
        before = seeds[number - 1] if number else None
        after = seeds[number + 1] if number + 1 < len(seeds) else None
        above = [end for end in ends if end > seed.index]
        if after is not None:
            above = [end for end in above if end < after.index]
        below = [end for end in ends if end < seed.index]
        if before is not None:
            below = [end for end in below if end > before.index]
        if after is not None and not above:
            inner = range(max(first, seed.index + 1), min(last + 1, after.index))
            intervals.append(SliceInterval(axis, line, tuple(inner), seed, after))
        else:
            up = range(max(first, seed.index + 1), min([*above, last + 1]))
            intervals.append(SliceInterval(axis, line, tuple(up), seed))
        if before is None or below:
            down = range(min(last, seed.index - 1), max([*below, first - 1]), -1)
            intervals.append(SliceInterval(axis, line, tuple(down), seed))
    return [interval for interval in intervals if interval.indices]


def _plane_index(plane: int | Sequence[int]) -> PlaneIndex:
    return (int(plane),) if isinstance(plane, (int, np.integer)) else tuple(plane)
