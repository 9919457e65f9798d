"""What the user did, as one list of operations that can be undone and redone.

Plain values, no Qt, no napari. Every action is one `Operation`: what was open before and after it,
and, where it touched a labels layer, the voxels and the objects that it changed. Undo, redo,
reopening and saving all read this list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from napari_simmat.engine.coordinates import AxisOrder, inverse_order
from napari_simmat.engine.masks import LabelEdit, LabelIndex, ObjectMask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.segment.prompt_state import Asked, Plane, Prompts

LIMIT = 500
"""Steps that are kept."""


@dataclass(frozen=True)
class Made:
    """How an object came to be on one plane.

    Parameters
    ----------
    plane
        Which plane, of the view `order`.
    prompts
        What was asked for it there.
    digest
        Of its pixels there, as they were written: whether they were changed since shows by it.
    choices, kept
        As in `Asked.choices` and `Opened.kept`.
    order
        In which view; plane, prompts and pixels are in its coordinates.
    """

    plane: Plane
    prompts: Prompts
    digest: str
    choices: tuple[tuple[Prompt, int], ...] = ()
    kept: ObjectMask | None = None
    order: AxisOrder = ()


@dataclass(frozen=True)
class Entry:
    """What is known about a finished object beside its voxels.

    Parameters
    ----------
    score
        The model's own estimate of the mask's IoU; NaN where there is none.
    category
        Name of its class, or empty.
    made
        On which planes it was made from prompts, and how.
    """

    score: float = float("nan")
    category: str = ""
    made: tuple[Made, ...] = ()

    def made_on(self, plane: Plane, order: AxisOrder = ()) -> Made | None:
        """How it came to be on `plane` of a view; None where it was not made from prompts there."""
        here = (each for each in self.made if each.plane == plane and each.order == order)
        return next(here, None)


@dataclass(frozen=True, eq=False)
class Edit:
    """What one operation changed in a labels layer.

    Parameters
    ----------
    layer
        The layer's key.
    patches
        The voxels, in the order they were written; at their place in the layer, whatever the view.
    entries
        For each object whose entry changed, the one before and the one after; None for none.
    by_hand
        Whether it was painted with napari's own tools, which remember it as well.
    """

    layer: str
    patches: tuple[LabelEdit, ...] = ()
    entries: Mapping[int, tuple[Entry | None, Entry | None]] = field(default_factory=dict)
    by_hand: bool = False

    def __bool__(self) -> bool:
        return bool(self.patches or self.entries)


@dataclass(frozen=True, eq=False)
class Operation:
    """One action of the user.

    Parameters
    ----------
    name
        In words, as in "Undone: commit of 3."
    before, after
        What was open in the view in which it was done.
    edit
        What it changed in a labels layer, if it did.
    """

    name: str
    before: Asked
    after: Asked
    edit: Edit | None = None


class Register:
    """The finished objects of one labels layer: how large they are, and what is known of them."""

    def __init__(self, census: LabelIndex | None = None) -> None:
        self.census = LabelIndex() if census is None else census
        self.entries: dict[int, Entry] = {}

    def entry(self, label: int) -> Entry:
        """What is known about an object; of a painted one nothing is."""
        return self.entries.get(label, Entry())

    @property
    def next_label(self) -> int:
        """The first number above all that are or were in use."""
        return max(self.census.largest, *self.entries, 0) + 1

    def note(self, edit: Edit, *, back: bool = False) -> None:
        """Take up what an operation says of the objects, or that it was taken back."""
        for label, states in edit.entries.items():
            if (entry := states[0 if back else 1]) is None:
                self.entries.pop(label, None)
            else:
                self.entries[label] = entry


class Operations:
    """The list, with a position in it: what lies before can be undone, after it redone.

    Attributes
    ----------
    told
        Called with every change of the list: ``do`` and the operation, ``undo``, ``redo``,
        ``drop``, or ``forget`` and the layer's key.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.told: Callable[[str, Any], None] = _nobody
        self._done: deque[Operation] = deque(maxlen=limit)
        self._undone: list[Operation] = []

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[Operation]:
        """What is done, the earliest first."""
        return iter(self._done)

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._undone)

    @property
    def last(self) -> Operation | None:
        """What was done last."""
        return self._done[-1] if self._done else None

    def add(self, operation: Operation) -> None:
        """Note what was just done; what had been undone is forgotten."""
        self._done.append(operation)
        self._undone.clear()
        self.told("do", operation)

    def undo(self) -> Operation | None:
        """Step back: the operation to revert, or None."""
        if not self._done:
            return None
        operation = self._done.pop()
        self._undone.append(operation)
        self.told("undo", None)
        return operation

    def redo(self) -> Operation | None:
        """Step forward: the operation to do again, or None."""
        if not self._undone:
            return None
        operation = self._undone.pop()
        self._done.append(operation)
        self.told("redo", None)
        return operation

    def drop_last(self) -> Operation | None:
        """Forget what was done last, as if it had not been; None if there is nothing."""
        if self._done:
            self.told("drop", None)
        return self._done.pop() if self._done else None

    def mapped(self, change: Callable[[Operation], Operation]) -> Operations:
        """A list of the same operations, each changed."""
        other = Operations(self._done.maxlen or LIMIT)
        other._done.extend(change(each) for each in self._done)
        other._undone = [change(each) for each in self._undone]
        return other

    def forget_layer(self, layer: str) -> None:
        """Drop what was done to a labels layer that is gone; prompts stay."""
        self._done = deque(_without(self._done, layer), maxlen=self._done.maxlen)
        self._undone = list(_without(self._undone, layer))
        self.told("forget", layer)


def _nobody(what: str, value: Any) -> None:
    """Nobody is told."""


def _without(operations: deque[Operation] | list[Operation], layer: str) -> Iterator[Operation]:
    for operation in operations:
        if operation.edit is None or operation.edit.layer != layer:
            yield operation
        elif operation.before != operation.after:
            yield replace(operation, edit=None)


# An object that is about to be written among the finished ones: plain values.


@dataclass(frozen=True, eq=False)
class NewObject:
    """An object to be written.

    Parameters
    ----------
    seen
        Its voxels, in the coordinates of the view `order`.
    score
        The model's own estimate of its IoU.
    label
        An object that it replaces on the planes of `seen`; None for the next free number.
    category
        Name of its class; of an object that is replaced the class stays.
    made
        On which planes it was made from which prompts; the digests are filled in.
    order
        The view.
    """

    seen: ObjectMask
    score: float = float("nan")
    label: int | None = None
    category: str = ""
    made: tuple[Made, ...] = ()
    order: AxisOrder = ()

    @cached_property
    def footprint(self) -> ObjectMask:
        """Its voxels at their place in the labels layer."""
        return self.seen.transposed(inverse_order(self.order))
