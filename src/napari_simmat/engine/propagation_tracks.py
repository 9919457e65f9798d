"""Values of propagation, and its step from one plane to the next.

`IntervalPropagator` makes the prompt on the next plane and decides whether its mask is still the
object: `BoundaryBias` corrects a systematic error of the model's outline; `ContrastGate` ends an
object that fades out of focus; `OutlineEvidence` says whether the outline still lies on an edge.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat._text import format_shape
from napari_simmat.engine.masks import (
    Floats,
    Mask,
    ObjectMask,
    PixelSpacing,
    bounding_box,
    dilated,
    interior_point,
    interpolated_mask,
    iou,
    signed_distance,
)
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import PropagationSettings

if TYPE_CHECKING:
    from napari_simmat.engine.result import Result

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
    """

    axis: int
    line: PlaneIndex
    indices: tuple[int, ...]
    start: IntervalEnd
    end: IntervalEnd | None = None
    clearest: IntervalEnd | None = None

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
            # Downwards: `_visit_order` goes up first, so that each plane is visited once.
            inner = range(min(last, after.index - 1), max(first - 1, seed.index), -1)
            intervals.append(SliceInterval(axis, line, tuple(inner), after, seed))
        else:
            up = range(max(first, seed.index + 1), min([*above, last + 1]))
            intervals.append(SliceInterval(axis, line, tuple(up), seed))
        if before is None or below:
            down = range(min(last, seed.index - 1), max([*below, first - 1]), -1)
            intervals.append(SliceInterval(axis, line, tuple(down), seed))
    return [interval for interval in intervals if interval.indices]


def _plane_index(plane: int | Sequence[int]) -> PlaneIndex:
    return (int(plane),) if isinstance(plane, (int, np.integer)) else tuple(plane)


BIAS_SMOOTHING = 0.2
"""Width of the Gaussian that smooths the moves of the outline, in radii of the object."""
MAX_OUTLINE_MOVE = 0.5
"""Largest move of the outline, in radii of the object."""
MIN_RELATIVE_CONTRAST = 0.03
"""Contrasts below this fraction of the range of a plane's values are not used."""
MIN_DISTINCT_SHARE = 0.9
"""Brightness is used only if at least this share of the object stands out on its own plane."""
MIN_EDGE_EXCESS = 0.2
"""An outline lies on an edge if it is this much steeper than the image beside it, relatively."""
EDGE_SMOOTHING = 0.08
"""Width of the Gaussian that suppresses texture at the outline, in radii of the object."""
CONTRAST_SMOOTHING = 0.12
"""Width of the Gaussian that suppresses texture, in radii of the object."""

PlaneValues = NDArray[np.floating]
"""A normalized plane (C, Y, X)."""


class IntervalPropagator:
    """Propagates one object along one interval of slices.

    Parameters
    ----------
    interval
        The interval.
    settings
        When the object ends.
    shape_yx
        Size of a plane.
    step, pixel
        Distance between two planes, and height and width of a pixel, in one unit.
    gate
        Tests the object's contrast; None for no test.
    outline
        Tests the edge along its outline; None for no test.
    biases
        The model's bias at the annotated ends, to be corrected; None where unknown.
    """

    def __init__(
        self,
        interval: SliceInterval,
        settings: PropagationSettings,
        shape_yx: tuple[int, int],
        step: float,
        pixel: PixelSpacing,
        gate: ContrastGate | None = None,
        outline: OutlineEvidence | None = None,
        biases: tuple[BoundaryBias | None, BoundaryBias | None] = (None, None),
    ) -> None:
        self.interval = interval
        self.ended = False
        self._settings = settings
        self._pixel = pixel
        self._step = step
        self._start = interval.start.section.mask(shape_yx)
        self._end = None if interval.end is None else interval.end.section.mask(shape_yx)
        self._last = self._start
        self._gate = gate
        self._outline = outline
        self._biases = biases

    def prompt(self, index: int) -> Prompt:
        """The prompt on the next plane."""
        return prompt_from_mask(self._prior(index), self._pixel, self.interval.plane(index))

    def candidate(self, index: int, result: Result) -> Result:
        """The result for the next plane, or that of its candidates which `Section.chosen` asks."""
        if not any(end.section.chosen for end in self.interval.ends):
            return result
        prior = self._prior(index)
        others = [result.alternative(number) for number in range(result.count)]
        return max(others, key=lambda each: iou(each.mask, prior, empty=0.0))

    def accept(
        self, index: int, mask: Mask, score: float, values: NDArray[np.floating]
    ) -> tuple[Mask, Origin, float] | None:
        """The object on plane `index`, where its mask is from, and its `Section.evidence`.

        None if the object has ended. `mask` and `score` are the model's; `values` (C, Y, X) is the
        normalized plane.
        """
        prior = self._prior(index)
        radius = math.sqrt(np.count_nonzero(prior) * math.prod(self._pixel) / math.pi)
        settings = self._settings
        reach = max(settings.reach * radius, settings.slope * self._step, *self._pixel)
        kept = mask & dilated(prior, reach, self._pixel)
        if self._gate is not None:
            kept = self._gate.visible_part(kept, values)
        if self._end is not None:
            # Corrected by the biases of both ends, weighted by their nearness.
            part = self.interval.part(index)
            shares = [
                (bias, share)
                for bias, share in zip(self._biases, (1 - part, part), strict=True)
                if bias is not None and kept.any()
            ]
            if shares:
                kept = move_outline(kept, np.sum([s * bias.on(kept) for bias, s in shares], axis=0))
            if not kept.any() or iou(kept, prior, empty=0.0) < settings.min_likeness:
                return prior, "interpolated", self._evidence(prior, values)
            return kept, "propagated", self._evidence(kept, values)
        evidence = self._evidence(kept, values)
        faded = self._gate is None and evidence < settings.min_evidence
        if faded or not self._continues(prior, kept, mask, score):
            self.ended = True
            return None
        self._last = kept
        return kept, "propagated", evidence

    def _evidence(self, mask: Mask, values: PlaneValues) -> float:
        return math.nan if self._outline is None else self._outline.share(mask, values)

    def _prior(self, index: int) -> Mask:
        """The expected mask: that of the last plane, or interpolated between annotated ones."""
        if self._end is None:
            return self._last
        return interpolated_mask(self._start, self._end, self.interval.part(index), self._pixel)

    def _continues(self, last: Mask, kept: Mask, mask: Mask, score: float) -> bool:
        settings = self._settings
        start = self.interval.start.section
        area, before = np.count_nonzero(kept), np.count_nonzero(last)
        # The model did not believe in a mask that the user chose from the beginning.
        least = min(settings.min_score, start.score / 2) if start.chosen else settings.min_score
        if area == 0 or score < least:
            return False
        if 2 * area < np.count_nonzero(mask):
            return False  # most of the model's mask lies where the object cannot be
        if max(area / before, before / area) > settings.max_change:
            return False
        return iou(kept, last, empty=0.0) >= settings.min_overlap


def prompt_from_mask(mask: Mask, pixel: PixelSpacing, plane: PlaneIndex) -> Prompt:
    """The mask and a click on its deepest pixel.

    This worked best of all prompts that can be made of a mask (docs/stacks.md).
    """
    return Prompt(points=(interior_point(mask, pixel),), mask=mask, plane=plane)


@dataclass(frozen=True, eq=False)
class BoundaryBias:
    """Systematic error of the model's outline of an object, measured on an annotated slice.

    On neighboring slices the model tends to err in the same way. So its outline is compared with
    the annotated one, and the difference corrected on the slices between.

    Parameters
    ----------
    moves
        (Y, X) float32: by how many pixels the point of the model's outline that is nearest to a
        pixel has to move, outwards if positive.
    middle, radius
        Center and radius of the model's mask, by which the moves are transferred to other masks.
    """

    moves: Floats
    middle: NDArray[np.float64]
    radius: float

    @classmethod
    def of(cls, known: Mask, found: Mask) -> BoundaryBias | None:
        """Compare the known mask of a plane with the model's; None if either is empty."""
        if not known.any() or not found.any():
            return None
        middle, radius = _center_and_radius(found)
        edge = found & ~ndi.binary_erosion(found, border_value=1)
        if not edge.any():
            return None
        away = _subpixel_distance(signed_distance(known)) - _subpixel_distance(
            signed_distance(found)
        )
        nearest = ndi.distance_transform_edt(~edge, return_distances=False, return_indices=True)
        moves = np.clip(away, -MAX_OUTLINE_MOVE * radius, MAX_OUTLINE_MOVE * radius)[tuple(nearest)]
        return cls(ndi.gaussian_filter(moves, BIAS_SMOOTHING * radius), middle, radius)

    def on(self, mask: Mask) -> Floats:
        """The moves (Y, X), shifted and scaled onto another mask of the object."""
        middle, radius = _center_and_radius(mask)
        scale = self.radius / radius
        shift = self.middle - scale * middle
        # As a matrix: older SciPy warns of a diagonal.
        moved = ndi.affine_transform(self.moves, scale * np.eye(2), shift, order=1, mode="nearest")
        return np.asarray(moved, np.float32)


def move_outline(mask: Mask, moves: Floats) -> Mask:
    """The mask (Y, X) with its outline moved by `moves` (Y, X) pixels, outwards if positive."""
    kept: Mask = _subpixel_distance(signed_distance(mask)) + moves > 0
    return kept


def _center_and_radius(mask: Mask) -> tuple[NDArray[np.float64], float]:
    """Center y, x of a mask, and the radius of the disc of equal area."""
    return np.array(ndi.center_of_mass(mask)), math.sqrt(np.count_nonzero(mask) / math.pi)


def _subpixel_distance(distance: Floats) -> Floats:
    """Distance to the outline, which runs between pixels, not to the first pixel beyond it."""
    return np.asarray(distance - 0.5 * np.sign(distance), np.float32)


@dataclass(frozen=True, eq=False)
class ContrastGate:
    """Tests whether an object still stands out from its surroundings.

    Where an object ends, its blurred image fades from plane to plane, but the model still
    outlines the blur. A pixel belongs to the object as long as it has a part of the contrast that
    the object has on its annotated plane.

    Parameters
    ----------
    contrast
        (C,) mean of each channel inside the object minus that of a ring around it.
    minimum
        Fraction of the contrast that a pixel of the object needs.
    """

    contrast: NDArray[np.float64]
    minimum: float

    @property
    def strength(self) -> float:
        """Contrast over all channels, in the units of the values."""
        return float(np.linalg.norm(self.contrast))

    @classmethod
    def of(cls, mask: Mask, values: PlaneValues, minimum: float) -> ContrastGate | None:
        """Measure an object's contrast; None if brightness does not distinguish the object."""
        ring = _ring(mask)
        if not ring.any():
            return None
        contrast = _mean(values, mask) - _mean(values, ring)
        value_range = float(values.max()) - float(values.min())
        if np.abs(contrast).max() <= MIN_RELATIVE_CONTRAST * value_range:
            return None
        gate = cls(contrast, minimum)
        kept = np.count_nonzero(gate.visible_part(mask, values))
        return gate if kept >= MIN_DISTINCT_SHARE * np.count_nonzero(mask) else None

    def visible_part(self, mask: Mask, values: PlaneValues) -> Mask:
        """The part of a mask (Y, X) that stands out from its surroundings, holes filled."""
        ring = _ring(mask)
        if not ring.any():
            return mask
        unit = self.contrast / float(self.contrast @ self.contrast)
        above = np.tensordot(unit, np.asarray(values, np.float64), 1) - unit @ _mean(values, ring)
        radius = math.sqrt(np.count_nonzero(mask) / math.pi)
        # Gaussian mean over the pixels of the mask alone, so that its edge is not dimmed.
        width = CONTRAST_SMOOTHING * radius
        weight = ndi.gaussian_filter(mask.astype(np.float64), width)
        total = ndi.gaussian_filter(np.where(mask, above, 0.0), width)
        even = total / np.maximum(weight, 1e-9)
        kept: Mask = ndi.binary_fill_holes(mask & (even >= self.minimum))
        return kept & mask


@dataclass(frozen=True)
class OutlineEvidence:
    """Tests whether an object's outline still lies on an edge of the image.

    A network outlines noise, too, if it is prompted with a mask. The image is steeper along the
    outline of an object than beside it, also if the object is as bright as its surroundings; along
    an outline in noise it is not.

    Parameters
    ----------
    excess
        Mean slope of the values across the outline on the annotated plane, minus that beside it.
    """

    excess: float

    @classmethod
    def of(cls, mask: Mask, values: PlaneValues) -> OutlineEvidence | None:
        """Measure an annotated outline; None if it lies on no edge."""
        along, beside = _edge_slopes(mask, values)
        return cls(along - beside) if along > (1 + MIN_EDGE_EXCESS) * beside else None

    def share(self, mask: Mask, values: PlaneValues) -> float:
        """The edge along a mask's outline (Y, X) relative to the annotated one, 0..1."""
        along, beside = _edge_slopes(mask, values)
        return min(max((along - beside) / self.excess, 0.0), 1.0)


def _edge_slopes(mask: Mask, values: PlaneValues) -> tuple[float, float]:
    """Mean slope of the values across the outline of a mask, and across curves beside it.

    Per `width`, so that an object that becomes smaller and less smoothed does not seem clearer.
    """
    if (box := bounding_box(mask)) is None:
        return 0.0, 0.0
    radius = math.sqrt(np.count_nonzero(mask) / math.pi)
    width = max(1.0, EDGE_SMOOTHING * radius)
    away = width + max(3.0, 0.3 * radius)
    margin = math.ceil(away + 5 * width) + 1
    part = tuple(slice(max(each.start - margin, 0), each.stop + margin) for each in box)
    distance = signed_distance(mask[part])
    across = np.stack(np.gradient(ndi.gaussian_filter(distance, 1.0)))
    across /= np.maximum(np.linalg.norm(across, axis=0), 1e-6)
    square = np.zeros(distance.shape)
    for channel in values[:, *part]:
        slopes = np.stack(np.gradient(ndi.gaussian_filter(channel.astype(np.float64), width)))
        square += (slopes * across).sum(axis=0) ** 2
    slope, depth = np.sqrt(square), np.abs(distance)
    along = depth <= width + 0.5
    beside = np.abs(depth - away) <= width + 0.5
    if not along.any() or not beside.any():
        return 0.0, 0.0
    return width * float(slope[along].mean()), width * float(slope[beside].mean())


def _ring(mask: Mask) -> Mask:
    if not mask.any():
        return mask
    radius = math.sqrt(np.count_nonzero(mask) / math.pi)
    return dilated(mask, max(3.0, 0.3 * radius)) & ~dilated(mask, 1.0)


def _mean(values: PlaneValues, where: Mask) -> NDArray[np.float64]:
    return np.asarray(values[:, where].mean(axis=1, dtype=np.float64))
