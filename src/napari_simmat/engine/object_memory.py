"""Objects carried through a stack by a network's memory (SAM 2), one interval of planes at a time.

Each interval remembers for itself: what an object looks like on the annotated planes at its ends,
and on the planes on which it was found since. So equal intervals give equal results, in whatever
order they are visited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_simmat.engine.propagation_tracks import SliceInterval

if TYPE_CHECKING:
    from napari_simmat.models.sam2_memory import Memories, ObjectMemory

WITHOUT_MEMORY = (
    "{} has no memory, so it cannot propagate objects by it; choose a model of SAM 2, or propagate "
    "by masks."
)
REACH = 15
"""Planes back that are remembered; SAM 2 recalls no earlier ones."""


class MemoryTrail:
    """What is known of an object along one interval of planes.

    Parameters
    ----------
    interval
        The interval.
    given
        The object on the annotated planes at its ends, by their index.
    length
        Number of planes of the stack.
    """

    def __init__(
        self, interval: SliceInterval, given: Mapping[int, ObjectMemory], length: int
    ) -> None:
        self._ascending = interval.ascending
        self._given, self._length = dict(given), length
        self._found: dict[int, ObjectMemory] = {}

    def seen_from(self, index: int) -> Memories:
        """What is known of the object, from plane `index`."""
        from napari_simmat.models.sam2_memory import Memories

        given = {self._back(index, other): each for other, each in self._given.items()}
        found = {self._back(index, other): each for other, each in self._found.items()}
        return Memories(given, found, self._length)

    def add(self, index: int, memory: ObjectMemory) -> None:
        """Keep what was found on plane `index`."""
        self._found[index] = memory
        forgotten = [each for each in self._found if self._back(index, each) >= REACH]
        for each in forgotten:
            del self._found[each]

    def _back(self, index: int, other: int) -> int:
        """How many planes before `index` another one was visited; negative if it will be later."""
        return index - other if self._ascending else other - index
