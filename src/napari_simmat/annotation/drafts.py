"""Drafts: objects that were proposed, and what became of each. Plain values: no Qt, no napari.

What was proposed and what the user did with it are kept apart. A draft is open as long as it is
among those proposed last and nothing like it was accepted, replaced or rejected. So a filter may
propose anew what it likes, and undo takes back what the user did, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.io.plain import OMIT_DEFAULT

SAME_OBJECT = 0.5
"""A draft of at least this IoU with one that was settled shows the same object: it is settled."""
COVERED = 0.5
"""An object that covers more than this share of a draft, or lies in it with more, replaces it."""
DOUBTFUL_SHARE = 0.5
"""How far from the model's quality threshold to 1 the scores of doubtful drafts reach.

Scores are predicted IoUs. Of 118 drafts of `tiny` on coins, bacteria and nuclei 22 lie in the lower
half of the range that passes, and so do all 9 that have an IoU below 0.7 with every labeled object.
Relative to the threshold it also holds for SAM, whose scores are higher.
"""


@dataclass(frozen=True)
class Draft:
    """A proposed object on one plane."""

    mask: ObjectMask
    """Its pixels, in the coordinates of the view `order`."""
    score: float = float("nan")
    """The model's own estimate of its IoU."""
    order: Annotated[AxisOrder, OMIT_DEFAULT] = ()
    """The view."""

    @property
    def plane(self) -> Plane:
        """Where it lies."""
        return self.mask.corner[:-2]

    def is_cut(self, shape_yx: tuple[int, int]) -> bool:
        """Whether it reaches the edge of its plane, and thus may go on beyond, as ground does."""
        low, high = (ends[-2:] for ends in self.mask.box)
        return min(low) <= 0 or any(end >= size for end, size in zip(high, shape_yx, strict=True))


class DraftSet(NamedTuple):
    """The drafts of one plane of a view."""

    drafts: tuple[Draft, ...] = ()
    """Disjoint, in the order of their first pixels."""
    doubt: float = 0.0
    """Drafts of a lower score are doubtful."""


@dataclass(frozen=True)
class DraftEdit:
    """What one command did with drafts."""

    accepted: Annotated[tuple[Draft, ...], OMIT_DEFAULT] = ()
    """They were written as objects."""
    replaced: Annotated[tuple[Draft, ...], OMIT_DEFAULT] = ()
    """Another object was written in their place."""
    rejected: Annotated[tuple[Draft, ...], OMIT_DEFAULT] = ()
    """The user wants no object there."""
    ground: Annotated[tuple[Draft, ...], OMIT_DEFAULT] = ()
    """The user has marked that there is surely none."""

    def __bool__(self) -> bool:
        return bool(self.accepted or self.replaced or self.rejected or self.ground)


class Drafts:
    """The drafts of one image."""

    def __init__(self) -> None:
        self._found = DraftSet()
        self._written: list[Draft] = []
        self._rejected: list[Draft] = []
        self._ground: list[Draft] = []
        self._before = 0  # of `_written`, how many are of drafts that were discarded since
        self._open: tuple[Draft, ...] | None = ()
        self._open_set: frozenset[Draft] | None = None
        self._labels: np.ndarray | None = None

    def __bool__(self) -> bool:
        """Whether any is open, or was rejected, or ground was marked."""
        return bool(self.open or self._rejected or self._ground)

    @property
    def found(self) -> DraftSet:
        """All that were proposed last, also those that are settled by now."""
        return self._found

    @property
    def open(self) -> tuple[Draft, ...]:
        """The drafts that nothing was done with yet."""
        if self._open is None:
            self._open = still_open(self._found.drafts, self.settled, self._labels)
        return self._open

    @property
    def place(self) -> tuple[AxisOrder, Plane] | None:
        """The view and the plane of all drafts that were proposed last; None without any."""
        first = next(iter(self._found.drafts), None)
        return None if first is None else (first.order, first.plane)

    @property
    def labels(self) -> np.ndarray:
        """All that were proposed last as numbers from 1 (Y, X), as far as they reach; uint32."""
        if self._labels is None:
            self._labels = labels_of(self._found.drafts)
        return self._labels

    def open_labels(self, shape_yx: tuple[int, int]) -> np.ndarray:
        """The open drafts on their plane (Y, X), each with its number among all; uint32."""
        table = np.arange(len(self._found.drafts) + 1, dtype=np.uint32)
        is_open = set(map(id, self.open))
        closed = [n for n, each in enumerate(self._found.drafts, 1) if id(each) not in is_open]
        table[closed] = 0
        if self.labels.shape == shape_yx:
            return np.asarray(table[self.labels])
        whole = np.zeros(shape_yx, np.uint32)
        rows, columns = self.labels.shape
        whole[:rows, :columns] = table[self.labels]
        return whole

    @property
    def settled(self) -> tuple[Draft, ...]:
        """What is not proposed again: drafts that were written or rejected.

        Of those written only since drafts were last discarded: objects may be gone by now.
        """
        return (*self._written[self._before :], *self._rejected)

    @property
    def rejected(self) -> tuple[Draft, ...]:
        """The drafts that were rejected, on all planes, in the order in which they were."""
        return tuple(self._rejected)

    @property
    def ground(self) -> tuple[Draft, ...]:
        """What the user has marked as ground, on all planes, in the order in which it was."""
        return tuple(self._ground)

    @property
    def doubtful(self) -> list[Draft]:
        """The open drafts that the model is least sure of, the least certain first."""
        doubtful = (each for each in self.open if each.score < self._found.doubt)
        return sorted(doubtful, key=lambda each: each.score)

    def propose(self, found: DraftSet | None) -> None:
        """Take other drafts in place of those before; what was settled stays so. None for none."""
        self._open = self._open_set = self._labels = None
        self._found = found or DraftSet()
        if found is None:
            self._before = len(self._written)

    def apply(self, edit: DraftEdit, *, back: bool = False) -> None:
        """Settle drafts as a command did, or take that back; the last one goes first."""
        self._open = self._open_set = None
        for known, changed in (
            (self._written, (*edit.accepted, *edit.replaced)),
            (self._rejected, edit.rejected),
            (self._ground, edit.ground),
        ):
            if not back:
                known.extend(changed)
            elif changed:
                del known[-len(changed) :]
        self._before = min(self._before, len(self._written))

    def is_open(self, draft: Draft) -> bool:
        """Whether nothing was done yet with a draft that was proposed last."""
        if self._open_set is None:
            self._open_set = frozenset(self.open)
        return draft in self._open_set

    def at(self, y: int, x: int) -> Draft | None:
        """The open draft at a pixel of their plane."""
        labels = self.labels
        inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
        number = int(labels[y, x]) if inside else 0
        draft = self._found.drafts[number - 1] if number else None
        return draft if draft is not None and self.is_open(draft) else None

    def covered_by(self, objects: Iterable[ObjectMask]) -> tuple[Draft, ...]:
        """The open drafts that objects, in the axes of the image, are to replace."""
        if not self.open or self.place is None:
            return ()
        order, plane = self.place
        drafts, covered = self._found.drafts, set()
        for each in objects:
            if (here := section(each.transposed(order), plane)) is None:
                continue
            for number, shared in _shared(self.labels, here):
                if is_covered(shared, drafts[number - 1].mask.size, here.size):
                    covered.add(number)
        found = (drafts[number - 1] for number in sorted(covered))
        return tuple(each for each in found if self.is_open(each))


def is_covered(shared: ArrayLike, draft: ArrayLike, other: ArrayLike) -> Any:
    """Whether an object replaces a draft, by the pixels that they share, and those of each."""
    return np.asarray(shared) > COVERED * np.minimum(draft, other)


def still_open(
    found: Sequence[Draft], settled: Sequence[Draft], labels: np.ndarray | None = None
) -> tuple[Draft, ...]:
    """Those of `found` that show no object that is settled; `labels` are those of `found`."""
    if not found:
        return ()
    place = found[0].order, found[0].plane
    near = [each for each in settled if (each.order, each.plane) == place]
    closed = {each.mask.digest for each in near}
    # Most are settled as they are; only what another filter proposed has to be compared.
    digests = {each.mask.digest for each in found}
    for each in near:
        if each.mask.digest in digests:
            continue
        labels = labels_of(found) if labels is None else labels
        for number, shared in _shared(labels, each.mask):
            one = found[number - 1].mask
            if shared >= SAME_OBJECT * (one.size + each.mask.size - shared):
                closed.add(one.digest)
    return tuple(each for each in found if each.mask.digest not in closed)


def labels_of(drafts: Sequence[Draft]) -> np.ndarray:
    """Drafts of one plane as numbers from 1 (Y, X), as far as they reach; uint32."""
    masks = [each.mask for each in drafts]
    ends = [each.box[1][-2:] for each in masks]
    labels = np.zeros(np.max(ends, axis=0) if ends else (0, 0), np.uint32)
    for number, each in enumerate(masks, start=1):
        labels[each.region[-2:]][each.mask.reshape(each.shape[-2:])] = number
    return labels


def section(mask: ObjectMask, plane: Plane) -> ObjectMask | None:
    """The part of an object that lies on a plane; None if it does not reach there."""
    at = tuple(index - first for index, first in zip(plane, mask.corner[:-2], strict=True))
    if not all(0 <= index < size for index, size in zip(at, mask.shape[:-2], strict=True)):
        return None
    here = mask.mask[at]
    return ObjectMask.of(here, (*plane, *mask.corner[-2:])) if here.any() else None


def _shared(labels: np.ndarray, mask: ObjectMask) -> list[tuple[int, int]]:
    """The numbers in `labels` (Y, X) under a mask on their plane, and the pixels of each there."""
    there = labels[mask.region[-2:]]  # its edges may reach farther than all drafts do
    inside = mask.mask.reshape(mask.shape[-2:])[: there.shape[0], : there.shape[1]]
    numbers, counts = np.unique(there[inside], return_counts=True)
    return [(int(n), int(count)) for n, count in zip(numbers, counts, strict=True) if n]
