"""Stretches of planes on which an object is looked for, from one annotated plane or between two."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from napari_simmat.engine.volume.tracks import Plane, Section


@dataclass(frozen=True)
class Seed:
    """What an object is on a plane from which it is followed."""

    index: int
    section: Section


@dataclass(frozen=True)
class Span:
    """A stretch of planes along one axis. Equal spans have equal answers.

    Parameters
    ----------
    axis
        The axis of the image along which the planes follow each other.
    line
        The plane's indices along the other leading axes.
    indices
        Indices along `axis`, in the order in which they are visited.
    start
        The annotated plane that comes before them.
    end
        The annotated plane that comes after them; None where the object is followed until it ends.
    clearest
        The annotated plane on which the object stands out most; None for `start`.
    """

    axis: int
    line: Plane
    indices: tuple[int, ...]
    start: Seed
    end: Seed | None = None
    clearest: Seed | None = None

    @property
    def ascending(self) -> bool:
        """Whether the planes are visited in the order of the image."""
        return self.indices[0] > self.start.index

    def plane(self, index: int) -> Plane:
        """The whole index of a plane."""
        return plane_on(self.line, self.axis, index)

    def part(self, index: int) -> float:
        """How far on the way from `start` to `end` a plane lies, 0..1."""
        assert self.end is not None
        return (index - self.start.index) / (self.end.index - self.start.index)


def plane_on(line: Plane, axis: int, index: int) -> Plane:
    """The plane at `index` along `axis` of a line."""
    return (*line[:axis], index, *line[axis:])


def line_of(plane: Plane, axis: int) -> Plane:
    """A plane's indices without that along `axis`."""
    return (*plane[:axis], *plane[axis + 1 :])


def spans_of(
    sections: Mapping[Plane, Section],
    absent: Collection[Plane],
    axis: int,
    limits: tuple[int, int],
) -> list[Span]:
    """All stretches along `axis` between and beyond the planes of an object that are known.

    Parameters
    ----------
    sections
        The planes on which it is known.
    absent
        Planes on which it is known not to be; it ends before them.
    axis
        Along which to go.
    limits
        The first and the last index that may be visited.
    """
    spans = []
    for line in sorted({line_of(plane, axis) for plane in sections}):
        seeds = [
            Seed(plane[axis], section)
            for plane, section in sorted(sections.items())
            if line_of(plane, axis) == line
        ]
        ends = {plane[axis] for plane in absent if line_of(plane, axis) == line}
        spans += _spans_on(line, axis, seeds, ends, limits)
    return spans


def _spans_on(
    line: Plane, axis: int, seeds: list[Seed], ends: set[int], limits: tuple[int, int]
) -> list[Span]:
    spans = []
    first, last = limits
    for number, seed in enumerate(seeds):
        after = seeds[number + 1] if number + 1 < len(seeds) else None
        before = seeds[number - 1] if number else None
        above = [end for end in ends if end > seed.index and (not after or end < after.index)]
        below = [end for end in ends if end < seed.index and (not before or end > before.index)]
        up = tuple(range(max(first, seed.index + 1), min([*above, last + 1])))
        down = tuple(range(min(last, seed.index - 1), max([*below, first - 1]), -1))
        if after is None or above:
            spans.append(Span(axis, line, up, seed))
        else:
            # Downwards: on the way up the later annotated planes are not known yet, and each
            # plane is to be visited once.
            inner = range(min(last, after.index - 1), max(first - 1, seed.index), -1)
            spans.append(Span(axis, line, tuple(inner), after, seed))
        if before is None or below:
            spans.append(Span(axis, line, down, seed))
    return [span for span in spans if span.indices]
