"""A session replayed from the lines of its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from napari_simmat.annotation.drafts import Draft, Drafts, DraftSet
from napari_simmat.annotation.history import Command, ObjectEntry, ObjectRegister, UndoStack
from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.annotation.session_lines import (
    FORMAT,
    VERSION,
    AdaptedModelFile,
    LineDecoder,
    SessionHeader,
)
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.io.plain import from_plain
from napari_simmat.progress import Job, Progress, finish

_MAX_BYTES = 1 << 30
_FOREIGN = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
    ArithmeticError, MemoryError,
)  # fmt: skip
"""What reading a foreign line can raise."""
OTHER_VERSION = "It was written by another version of napari-simmat; open it with that one."
OTHER_SHAPE = "It belongs to an image of another shape; open that one."
NOTHING_TO_EXTEND = "a part of a command stands alone, or does something with drafts"
BAD_DRAFT = "a draft does not lie on one plane of the image"
OTHER_VIEW = "its prompts are in a view that the image does not have"
NO_SESSION = "It is not a session of napari-simmat."
UNREADABLE = "{} cannot be read as a session. {}"
UNREADABLE_LINE = "{}, line {}, cannot be read: {}."
TOO_LARGE_FILE = "{} is too large to be a session file. Choose another file."


@dataclass
class Replayed:
    """The state after all lines of a file."""

    header: SessionHeader
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """(..., Y, X) of each labels layer by its key; the layer written to last comes last. int32, or
    wider if a layer held larger numbers.
    """
    entries: dict[str, dict[int, ObjectEntry]] = field(default_factory=dict)
    """The entries of the objects of each layer."""
    history: UndoStack = field(default_factory=UndoStack)
    """The commands, to undo and redo."""
    views: dict[AxisOrder, PromptState] = field(default_factory=dict)
    """The uncommitted prompts of each view, by its order."""
    drafts: Drafts = field(default_factory=Drafts)
    """The proposed objects, and what became of them."""
    adapted: AdaptedModelFile | None = None
    """The model that was adapted last."""
    saved: bool = False
    """Whether everything is in saved files."""


def replayed(path: Path, shape: tuple[int, ...]) -> Replayed:
    """Replay a session file; see `replay_job`."""
    return finish(replay_job(path, shape))


def replay_job(path: Path, shape: tuple[int, ...]) -> Job[Replayed]:
    """Replay a session file.

    Parameters
    ----------
    path
        A file of the window's own folder, or ``STEM_session.jsonl`` beside saved labels.
    shape
        (..., Y, X) of the image it is restored for; a file of another one is not replayed.

    Raises
    ------
    ValueError
        If it is no such file, of another image, or damaged; one sentence says why. A last line that
        was cut off is ignored.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(TOO_LARGE_FILE.format(path.name))
    with path.open("rb") as file:
        try:
            state = Replayed(_header(file.readline()))
        except _FOREIGN as error:
            reason = str(error).removesuffix(".") or type(error).__name__
            raise ValueError(UNREADABLE.format(path.name, f"{reason}.")) from None
        if state.header.shape != shape:
            raise ValueError(OTHER_SHAPE)
        replay = _Replay(state)
        for number, line in enumerate(file, start=2):
            if not line.endswith(b"\n"):
                break  # cut off
            yield Progress(file.tell() >> 10, 1 + (size >> 10), f"step {number - 1}")
            try:
                replay.line(json.loads(line))
            except _FOREIGN as error:
                reason = str(error).removesuffix(".") or type(error).__name__
                raise ValueError(UNREADABLE_LINE.format(path.name, number, reason)) from None
    return state


def _header(line: bytes) -> SessionHeader:
    values = json.loads(line)
    if not isinstance(values, dict) or values.pop("format", "") != FORMAT:
        raise ValueError(NO_SESSION)
    if values.pop("format_version", None) != VERSION:
        raise ValueError(OTHER_VERSION)
    return from_plain(SessionHeader, values)


class _Replay:
    """Does again what the lines of a file say; ValueError if that is no work on its image."""

    def __init__(self, state: Replayed) -> None:
        self._state = state
        self._decoder = LineDecoder(state.header.shape)
        self._n_axes = len(state.header.shape)

    def line(self, plain: Any) -> None:
        """Replay one line, as JSON has it."""
        what = plain["what"]
        kind = LINES[what]
        value = from_plain(kind.type, plain["value"], what, self._decoder.special)
        self._state.saved = False  # whatever is done after saving is not in the user's files
        kind.replay(self, value)

    def begin(self, value: tuple[str, LabelEdit]) -> None:
        key, patch = value
        labels = self._labels(key, (patch,))
        labels[patch.mask.region][patch.mask.mask] = patch.after

    def known(self, value: tuple[str, Mapping[int, ObjectEntry]]) -> None:
        key, entries = value
        self._state.entries.setdefault(key, {}).update(entries)

    def anew(self, value: tuple[str, tuple[int, ...]]) -> None:
        key, kept = value
        self._labels(key)[...] = 0  # lines with its new content follow
        entries = self._state.entries.get(key, {})
        self._state.entries[key] = {label: entries[label] for label in kept if label in entries}

    def do(self, command: Command) -> None:
        for prompts in (command.before, command.after):
            self._check_view(prompts)
        settled = command.drafts
        if settled is not None:
            self._check_drafts(settled.accepted)
            self._check_drafts(settled.replaced)
            self._check_drafts(settled.rejected)
            self._check_drafts(settled.ground)
        self._state.history.add(command)
        self._apply(command, back=False)

    def extend(self, command: Command) -> None:
        if command.drafts is not None or not self._state.history.can_undo:
            raise ValueError(NOTHING_TO_EXTEND)
        for prompts in (command.before, command.after):
            self._check_view(prompts)
        self._state.history.extend(command)
        self._apply(command, back=False)

    def drafts(self, proposed: DraftSet | None) -> None:
        if proposed is not None:
            self._check_drafts(proposed.drafts)
        self._state.drafts.propose(proposed)

    def undo(self, _: None) -> None:
        command = self._state.history.undo()
        if command is not None:
            self._apply(command, back=True)

    def redo(self, _: None) -> None:
        command = self._state.history.redo()
        if command is not None:
            self._apply(command, back=False)

    def drop(self, _: None) -> None:
        command = self._state.history.drop_last()
        if command is not None:
            self._state.views[command.before.order] = command.before

    def adapted(self, model: AdaptedModelFile | None) -> None:
        self._state.adapted = model

    def forget(self, key: str) -> None:
        self._state.history.forget_layer(key)
        self._state.labels.pop(key, None)
        self._state.entries.pop(key, None)

    def saved(self, _: None) -> None:
        self._state.saved = True

    # ----------------------------------------------------------------- helpers

    def _is_view(self, order: AxisOrder) -> bool:
        """Whether the image has a view of this order; the usual one is empty."""
        return not order or sorted(order) == [*range(self._n_axes)]

    def _check_view(self, state: PromptState) -> None:
        """Check that prompts have the axes of a view of the image; ValueError if not."""
        positions = list(state.prompts.points)
        for outline in state.prompts.outlines:
            positions += outline.vertices
        is_whole = all(len(position) == self._n_axes for position in positions)
        if not self._is_view(state.order) or not is_whole:
            raise ValueError(OTHER_VIEW)

    def _check_drafts(self, drafts: Sequence[Draft]) -> None:
        """Check that each draft lies on one plane of a view of the image; ValueError if not."""
        shape = self._state.header.shape
        for draft in drafts:
            mask = draft.mask
            if not self._is_view(draft.order) or len(mask.corner) != self._n_axes:
                raise ValueError(BAD_DRAFT)
            sizes = [shape[axis] for axis in draft.order or range(self._n_axes)]
            is_inside = all(end <= size for end, size in zip(mask.box[1], sizes, strict=True))
            is_flat = all(planes == 1 for planes in mask.shape[:-2])
            if not is_inside or not is_flat:
                raise ValueError(BAD_DRAFT)

    def _apply(self, command: Command, *, back: bool) -> None:
        state = self._state
        prompts = command.before if back else command.after
        state.views[prompts.order] = prompts
        if command.drafts is not None:
            state.drafts.apply(command.drafts, back=back)
        edit = command.edit
        if edit is None:
            return
        labels = self._labels(edit.layer, edit.patches)
        for patch in reversed(edit.patches) if back else edit.patches:
            patch.replay(labels, back=back)
        register = ObjectRegister()
        register.entries = state.entries.setdefault(edit.layer, {})
        register.apply(edit, back=back)

    def _labels(self, key: str, patches: Sequence[LabelEdit] = ()) -> np.ndarray:
        """The labels of a layer, of a type that can hold what `patches` write."""
        layers = self._state.labels
        labels = layers.pop(key, None)  # put back as the last one below
        if labels is None:
            labels = np.zeros(self._state.header.shape, np.int32)
        values: list[np.ndarray] = []
        for patch in patches:
            values += [np.asarray(patch.before), np.asarray(patch.after)]
        if any(array.max() > np.iinfo(labels.dtype).max for array in values):
            is_unsigned = any(array.dtype == np.uint64 for array in values)
            labels = labels.astype(np.uint64 if is_unsigned else np.int64)
        layers[key] = labels
        return labels


class _Line(NamedTuple):
    """One kind of line."""

    type: Any
    """Of its value."""
    replay: Callable[[_Replay, Any], None]


LINES: dict[str, _Line] = {
    # What a plane of a layer held before its first edit.
    "begin": _Line(tuple[str, LabelEdit], _Replay.begin),
    # What was known of a layer's objects before its first edit.
    "known": _Line(tuple[str, Mapping[int, ObjectEntry]], _Replay.known),
    # A layer's array was replaced; its objects that are still known.
    "anew": _Line(tuple[str, tuple[int, ...]], _Replay.anew),
    # A command of the history.
    "do": _Line(Command, _Replay.do),
    # Objects that were proposed; None discards those that are open.
    "drafts": _Line(DraftSet | None, _Replay.drafts),
    # What was done as a part of the last command.
    "extend": _Line(Command, _Replay.extend),
    "undo": _Line(NoneType, _Replay.undo),
    "redo": _Line(NoneType, _Replay.redo),
    # The last command was taken back as if it had never been done.
    "drop": _Line(NoneType, _Replay.drop),
    # The model that was adapted to the image.
    "adapted": _Line(AdaptedModelFile | None, _Replay.adapted),
    # A layer was closed.
    "forget": _Line(str, _Replay.forget),
    # Everything is in the user's files.
    "saved": _Line(NoneType, _Replay.saved),
}
