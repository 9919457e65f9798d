"""Objects carried through a stack by a network's memory (SAM 2), one line of planes at a time.

Source: ``propagate_in_video`` and ``select_closest_cond_frames`` of
https://github.com/facebookresearch/sam2. What is recalled on a plane are the annotated planes of
its line, before and after it, and the last planes on which the object was found. A line is
searched upwards from its first annotated plane to its end, and then downwards; equal lines give
equal results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_simmat.engine.tracking.propagation_tracks import (
    AnnotatedLine,
    IntervalEnd,
    PlaneIndex,
    Section,
    SliceInterval,
    line_of,
)

if TYPE_CHECKING:
    from napari_simmat.models.sam2_memory import Memories, ObjectMemory

WITHOUT_MEMORY = (
    "{} has no memory, so it cannot propagate objects by it; choose a model of SAM 2, or propagate "
    "by masks."
)
REACH = 15
"""Planes back that are remembered; SAM 2 recalls the pointers of no earlier ones."""
FEATURES_REACH = 6
"""Planes back of which more than the pointer is remembered."""


def along_lines(
    intervals: Iterable[SliceInterval], sections: Mapping[PlaneIndex, Section]
) -> list[SliceInterval]:
    """One object's intervals, each with the line that its memory goes along.

    `sections` are the object's annotated planes.
    """
    lines: dict[PlaneIndex, list[SliceInterval]] = {}
    for interval in intervals:
        lines.setdefault(interval.line, []).append(interval)
    found = []
    for line, there in lines.items():
        axis = there[0].axis
        given = tuple(
            IntervalEnd(plane[axis], section)
            for plane, section in sorted(sections.items())
            if line_of(plane, axis) == line
        )
        whole = AnnotatedLine(given, tuple(there))
        found += [replace(interval, whole=whole) for interval in there]
    return found


def attending(given: Sequence[int], index: int, most: int) -> set[int]:
    """Which `most` annotated planes are recalled on plane `index`, as those that the user gave.

    The nearest before it, the nearest after it, and then the nearest of the others.
    """
    if len(given) <= most:
        return set(given)
    before = [other for other in given if other < index]
    after = [other for other in given if other > index]
    chosen = {*before[-1:], *after[:1]}
    others = sorted(set(given) - chosen, key=lambda other: (abs(other - index), other))
    return chosen | set(others[: most - len(chosen)])


class MemoryTrail:
    """What is known of an object along one line of planes.

    It holds no more annotated planes than are recalled next, so `missing` ones come and go. Where
    an interval leads downwards, what was found above its start is kept until then.

    Parameters
    ----------
    line
        The line.
    length
        Number of planes of the stack.
    most
        How many annotated planes are recalled at once.
    """

    def __init__(self, line: AnnotatedLine, length: int, most: int) -> None:
        self._ends = {end.index: end for end in line.given}
        self._turns = [each.start.index for each in line.intervals if not each.ascending]
        self._length, self._most = length, most
        self._given: dict[int, ObjectMemory] = {}
        self._found: dict[int, ObjectMemory] = {}

    def missing(self, index: int, ascending: bool) -> list[IntervalEnd]:
        """The annotated planes to `give` before the object is looked for on plane `index`."""
        needed = attending(list(self._ends), index, self._most)
        needed |= {each for each in self._ends if 0 < _back(index, each, ascending) <= REACH}
        self._given = {each: known for each, known in self._given.items() if each in needed}
        return [self._ends[each] for each in sorted(needed - self._given.keys())]

    def give(self, index: int, memory: ObjectMemory) -> None:
        """Keep what the object looks like on the annotated plane `index`."""
        self._given[index] = memory

    def seen_from(self, index: int, ascending: bool) -> Memories:
        """What is known of the object from plane `index`, upwards or downwards."""
        from napari_simmat.models.sam2_memory import Memories

        chosen = attending(list(self._ends), index, self._most)
        # An annotated plane beyond those is recalled as one on which the object was found.
        others = {each: known for each, known in self._given.items() if each not in chosen}
        found = {
            _back(index, each, ascending): known
            for each, known in {**self._found, **others}.items()
        }
        before = {back: known for back, known in found.items() if 0 < back <= REACH}
        given = {_back(index, each, ascending): self._given[each] for each in sorted(chosen)}
        return Memories(given, before, self._length)

    def add(self, index: int, ascending: bool, memory: ObjectMemory) -> None:
        """Keep what was found on plane `index`, and forget what is not recalled any more."""
        self._found[index] = memory
        for each in list(self._found):
            ages = [_back(index, each, ascending)]
            ages += [each - turn for turn in self._turns if ascending or turn < index]
            age = min((age for age in ages if age >= 0), default=REACH)
            if age >= REACH:
                del self._found[each]
            elif age >= FEATURES_REACH:
                self._found[each] = self._found[each].pointer_alone()

    @property
    def nbytes(self) -> int:
        """Memory of what is kept, in bytes."""
        return sum(each.nbytes for kept in (self._given, self._found) for each in kept.values())


def _back(index: int, other: int, ascending: bool) -> int:
    """How many planes before `index` another one lies in the direction of the search."""
    return index - other if ascending else other - index
