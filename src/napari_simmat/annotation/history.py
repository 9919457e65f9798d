"""The undo history of one image, as plain values: no Qt, no napari.

Each user action is one `Command`: the prompts before and after it, what it did with drafts and, if
it touched a labels layer, the voxels and objects that it changed. Undo, redo, editing and saving
all read the history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

from napari_simmat.annotation.drafts import Draft, DraftEdit
from napari_simmat.annotation.prompt_state import Plane, Prompts, PromptState
from napari_simmat.engine.coordinates import AxisOrder, inverse_order
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.prompts import Prompt

LIMIT = 500
"""Number of commands that can be undone."""


@dataclass(frozen=True)
class Provenance:
    """How an object was made on one plane."""

    plane: Plane
    """Which plane, of the view `order`."""
    prompts: Prompts
    """The prompts it was made from there."""
    digest: str
    """Digest of its pixels as they were written; a different one means that they have changed."""
    choices: tuple[tuple[Prompt, int], ...] = ()
    kept: ObjectMask | None = None
    """As in `PromptState.choices` and `EditedObject.kept`."""
    order: AxisOrder = ()
    """The view; plane, prompts and pixels are in its coordinates."""
    expected_area: Annotated[float | None, {"omit_default": True}] = None
    """As in `PromptState`."""
    part: Annotated[bool, {"omit_default": True}] = False
    """Whether the model had seen only a part of the plane; the whole may give another mask."""


@dataclass(frozen=True)
class ObjectEntry:
    """What is known about a committed object besides its voxels."""

    score: float = float("nan")
    """The model's own estimate of the mask's IoU; NaN if there is none."""
    category: str = ""
    """Name of its class, or empty."""
    provenance: tuple[Provenance, ...] = ()
    """On which planes it was made from prompts, and how."""
    parent: int = 0
    """In a time series: the object that divided into it and another; 0 for none."""
    certainty: Annotated[float | None, {"omit_default": True}] = None
    """How certain the program is of the class that it gave, 0..1; None for a class by hand."""
    doubtful: Annotated[tuple[Plane, ...], {"omit_default": True}] = ()
    """As in `NewObject`, of the propagation that wrote it last."""

    @property
    def classed_by_hand(self) -> bool:
        """Whether somebody gave it its class."""
        return bool(self.category) and self.certainty is None

    def provenance_on(self, plane: Plane, order: AxisOrder = ()) -> Provenance | None:
        """How it was made on `plane` of a view; None if not from prompts there."""
        here = (each for each in self.provenance if each.plane == plane and each.order == order)
        return next(here, None)


@dataclass(frozen=True, eq=False)
class LayerEdit:
    """What one command changed in a labels layer."""

    layer: str
    """The layer's key."""
    patches: tuple[LabelEdit, ...] = ()
    """The voxels in the order they were written, in the layer's axes whatever the view."""
    entries: Mapping[int, tuple[ObjectEntry | None, ObjectEntry | None]] = field(
        default_factory=dict
    )
    """For each object whose entry changed, the entry before and after; None for no entry."""
    by_hand: bool = False
    """Whether it was painted with napari's own tools, whose history contains it as well."""

    def __bool__(self) -> bool:
        return bool(self.patches or self.entries)

    def then(self, later: LayerEdit) -> LayerEdit:
        """Make this edit and a later one of the same layer one."""
        entries = dict(self.entries)
        for label, (before, after) in later.entries.items():
            entries[label] = entries.get(label, (before, after))[0], after
        return replace(self, patches=(*self.patches, *later.patches), entries=entries)


@dataclass(frozen=True, eq=False)
class Command:
    """One user action."""

    name: str
    """In words, as in ``Undone: commit of 3.``"""
    before: PromptState
    after: PromptState
    """The prompts in the view in which it was done."""
    edit: LayerEdit | None = None
    """What it changed in a labels layer, if anything."""
    drafts: Annotated[DraftEdit | None, {"omit_default": True}] = None
    """What it did with drafts, if anything."""

    def then(self, later: Command) -> Command:
        """Make this command and a later one on the same labels, without drafts, one."""
        edit = later.edit if self.edit is None else self.edit
        if self.edit is not None and later.edit is not None:
            edit = self.edit.then(later.edit)
        return replace(self, after=later.after, edit=edit)


@dataclass(frozen=True, eq=False)
class NewObject:
    """An object to be written."""

    viewed: ObjectMask
    """Its voxels, in the coordinates of the view `order`."""
    score: float = float("nan")
    """The model's own estimate of its IoU."""
    label: int | None = None
    """The object that it replaces on the planes of `viewed`; None for the next free number."""
    category: str = ""
    """Name of its class; a replaced object keeps its own."""
    provenance: tuple[Provenance, ...] = ()
    """On which planes it was made from which prompts, without digests."""
    order: AxisOrder = ()
    """The view."""
    doubtful: tuple[Plane, ...] = ()
    """Planes of the view on which a propagated object may be wrong."""
    draft: Draft | None = None
    """What it was proposed as."""

    @cached_property
    def mask(self) -> ObjectMask:
        """Its voxels in the axes of the labels layer."""
        return self.viewed.transposed(inverse_order(self.order))


class ObjectRegister:
    """The committed objects of one labels layer: their sizes and boxes, and their entries."""

    def __init__(self, index: LabelIndex | None = None) -> None:
        self.index = LabelIndex() if index is None else index
        self.entries: dict[int, ObjectEntry] = {}

    def entry(self, label: int) -> ObjectEntry:
        """The entry of an object; an empty one for a painted object."""
        return self.entries.get(label, ObjectEntry())

    @property
    def next_label(self) -> int:
        """The first number above all that are or were in use."""
        return max(self.index.highest, *self.entries, 0) + 1

    def apply(self, edit: LayerEdit, *, back: bool = False) -> None:
        """Update the entries for an edit that was made, or taken back."""
        for label, states in edit.entries.items():
            if (entry := states[0 if back else 1]) is None:
                self.entries.pop(label, None)
            else:
                self.entries[label] = entry


class UndoStack:
    """The commands of one image, with a position: those before it can be undone, after it redone.

    Parameters
    ----------
    on_change
        Called with each change: ``do`` or ``extend`` and the command, ``undo``, ``redo``, or
        ``drop``. It may be replaced later.
    limit
        Number of commands that are kept.
    """

    def __init__(
        self, on_change: Callable[[str, Any], None] | None = None, limit: int = LIMIT
    ) -> None:
        self.on_change = on_change or (lambda *_: None)
        self._done: deque[Command] = deque(maxlen=limit)
        self._undone: list[Command] = []

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[Command]:
        """The commands that can be undone, oldest first."""
        return iter(self._done)

    @property
    def can_undo(self) -> bool:
        """Whether there is a command to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a command to redo."""
        return bool(self._undone)

    @property
    def last(self) -> Command | None:
        """The last command that was done."""
        return self._done[-1] if self._done else None

    @property
    def next(self) -> Command | None:
        """The command that redo repeats."""
        return self._undone[-1] if self._undone else None

    def add(self, command: Command) -> None:
        """Add a command that was just done; what had been undone is forgotten."""
        self._done.append(command)
        self._undone.clear()
        self.on_change("do", command)

    def extend(self, command: Command) -> None:
        """Make a command that was just done a part of the last one: one undo reverts both."""
        self._done.append(self._done.pop().then(command))
        self._undone.clear()
        self.on_change("extend", command)

    def undo(self) -> Command | None:
        """Step back: the command to revert, or None."""
        if not self._done:
            return None
        command = self._done.pop()
        self._undone.append(command)
        self.on_change("undo", None)
        return command

    def redo(self) -> Command | None:
        """Step forward: the command to repeat, or None."""
        if not self._undone:
            return None
        command = self._undone.pop()
        self._done.append(command)
        self.on_change("redo", None)
        return command

    def drop_last(self) -> Command | None:
        """Forget the last command as if it had never been done; None if there is none."""
        if self._done:
            self.on_change("drop", None)
        return self._done.pop() if self._done else None

    def restore(self, other: UndoStack, layers: Mapping[str, str]) -> None:
        """Take over the commands of another stack without calling `on_change`.

        `layers` maps the layers' keys in `other` to their keys here.
        """
        self._done = deque((_moved(each, layers) for each in other._done), self._done.maxlen)
        self._undone = [_moved(each, layers) for each in other._undone]

    def edits(self, layer: str) -> bool:
        """Whether a command, done or undone, changed a labels layer."""
        return any(
            each.edit is not None and each.edit.layer == layer
            for each in (*self._done, *self._undone)
        )

    def forget_layer(self, layer: str) -> None:
        """Drop the edits of a labels layer that is gone; changes of prompts stay."""
        self._done = deque(_without(self._done, layer), maxlen=self._done.maxlen)
        self._undone = list(_without(self._undone, layer))


def _moved(command: Command, layers: Mapping[str, str]) -> Command:
    edit = command.edit
    if edit is None or edit.layer not in layers:
        return command
    return replace(command, edit=replace(edit, layer=layers[edit.layer]))


def _without(commands: Iterable[Command], layer: str) -> Iterator[Command]:
    for command in commands:
        if command.edit is None or command.edit.layer != layer:
            yield command
        elif command.before != command.after or command.drafts is not None:
            yield replace(command, edit=None)
