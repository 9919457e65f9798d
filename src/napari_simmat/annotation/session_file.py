"""The session file: every command on one image as a line of JSON.

The first line describes the image, each further line one command. A line is appended as a command
is done, so a crash costs at most the last one. Labels are stored, not predicted again: the same
file gives the same labels, whichever model is installed. No Qt, no napari.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from napari_simmat.annotation.drafts import Draft, Drafts, DraftSet
from napari_simmat.annotation.history import (
    Command,
    LayerEdit,
    ObjectEntry,
    ObjectRegister,
    UndoStack,
)
from napari_simmat.annotation.image_value import ImageValue, identifying_bytes
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import LabelEdit, ObjectMask, VoxelBox, box_union
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import hash_job, remove, user_folder
from napari_simmat.io.plain import Special, from_plain, to_plain
from napari_simmat.progress import Job, Progress, finish

FORMAT, VERSION = "napari-simmat session", 1
KEPT_DAYS = 30
"""Files that were not restored are deleted after this time."""
_MAX_BYTES = 1 << 30
_MAX_LAYERS = 100
_FREE_STEPS, _STEPS_PER_VOXEL = 1 << 27, 512
"""What a replay may touch: so many voxels, and so many for each voxel of the image. A day's work
does not; a file of a kilobyte can ask for more.
"""
_LOCK = ".lock"
_CHECKPOINT = r"[0-9a-f]{8}\.safetensors"
_LEARNING = r"learning-[0-9a-f]{8}"
"""What follows the stem of a session file in the names of what was learned from it."""
_FOREIGN = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
    ArithmeticError, MemoryError,
)  # fmt: skip
"""What reading a foreign line can raise."""

OTHER_VERSION = "It was written by another version of napari-simmat; open it with that one."
OTHER_SHAPE = "It belongs to an image of another shape; open that one."
TOO_COSTLY = "it changes far more than any work on an image of this size does; its file is damaged"
TOO_MANY_LAYERS = "it has more than 100 labels layers; its file is damaged"
BAD_DRAFT = "a draft does not lie on one plane of the image"
BEYOND_IMAGE = "a mask is larger than the image, or not whole"
OTHER_VIEW = "its prompts are in a view that the image does not have"
LOST = "What was learned on this image is gone: its file was removed or changed. Learn again."
NO_SESSION = "It is not a session of napari-simmat."
UNREADABLE = "{} cannot be read as a session. {}"
UNREADABLE_LINE = "{}, line {}, cannot be read: {}."
TOO_LARGE_FILE = "{} is too large to be a session file. Choose another file."


class AdaptedModelFile(NamedTuple):
    """A model adapted to an image: a checkpoint beside its session file."""

    file: str
    """Name of the checkpoint."""
    sha256: str
    """Of the file."""
    base: str
    """Name of the model that was adapted."""
    sentence: str
    """What it gained."""
    objects: Mapping[int, int]
    """Size of each object that it learned from by its number."""
    all_channels: bool
    """Whether it reads all channels of the image that show something."""


class SessionHeader(NamedTuple):
    """The first line."""

    image: str
    """Identifies the image by its content."""
    shape: tuple[int, ...]
    """(..., Y, X) without channels."""
    model: str
    channels: tuple[str, ...]
    """What was in use at first, for human readers."""

    def line(self) -> str:
        """As JSON."""
        values = {"format": FORMAT, "format_version": VERSION, **to_plain(self)}
        return json.dumps(values) + "\n"


# ----------------------------------------------------------------------- lines


def line_of(what: str, value: Any = None) -> str:
    """One line; `_LINES` says what there is, and of which type its value is."""
    return json.dumps({"what": what, "value": to_plain(value, _ENCODE)}) + "\n"


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    dtype, shape = array.dtype.name, list(array.shape)
    return {"dtype": dtype, "shape": shape, "zip": _packed(array.tobytes())}


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def _encode_number(value: float | np.generic) -> Any:
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and math.isnan(number) else number


def _decode_number(value: Any) -> float:
    if value is None:  # a score that there is not; JSON has no NaN
        return math.nan
    return from_plain(int if type(value) is int else float, value)


_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_ENCODE: Special = {
    Prompt: Prompt.to_plain,
    bytes: _packed,
    np.ndarray: _encode_array,
    np.generic: _encode_number,
    float: _encode_number,
}


class _Decoder:
    """Decodes values of a file, and counts what they and their replay cost.

    A small file can unpack to any size and repeat any edit, so nothing is allocated before it is
    known to fit the image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.voxels = math.prod(shape)
        self._left = _FREE_STEPS + _STEPS_PER_VOXEL * self.voxels
        self._plain: dict[type, Callable[[Any], Any]] = {
            bytes: self._unpacked, np.ndarray: self._array, float: _decode_number,
            Prompt: lambda values: Prompt.from_plain(values, self.voxels),
        }  # fmt: skip
        self.special: Special = {**self._plain, ObjectMask: self._mask}

    def spend(self, steps: int) -> None:
        """Count voxels or bytes that are touched; ValueError beyond all that is plausible."""
        self._left -= steps
        if self._left < 0:
            raise ValueError(TOO_COSTLY)

    def _unpacked(self, text: str) -> bytes:
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(base64.b64decode(text), 8 * self.voxels + 1)
        except zlib.error as error:
            raise ValueError(f"Packed values are damaged ({error}).") from None
        if not unpacking.eof:
            raise ValueError("Packed values are larger than any mask.")
        self.spend(len(data))
        return data

    def _array(self, values: dict[str, Any]) -> np.ndarray:
        if values["dtype"] not in _DTYPES:
            raise ValueError(f"An array of labels holds whole numbers, not {values['dtype']}.")
        flat = np.frombuffer(self._unpacked(values["zip"]), dtype=values["dtype"])
        return flat.reshape([int(size) for size in values["shape"]]).copy()

    def _mask(self, values: Any) -> ObjectMask:
        mask = from_plain(ObjectMask, values, "mask", self._plain)
        size = math.prod(mask.shape)
        whole = min(mask.shape, default=0) > 0 and min(mask.corner, default=0) >= 0
        if not whole or size > self.voxels or len(mask.bits) != -(-size // 8):
            raise ValueError(BEYOND_IMAGE)
        self.spend(size)
        return mask


def begin_lines_job(key: str, labels: Any, region: VoxelBox) -> Job[list[str]]:
    """The lines with a layer's content, one for each plane that is not empty.

    The snapshot may race with edits logged after it. That is safe: an edit only changes pixels
    that still hold its "before" value, so replaying (or undoing) all logged edits gives the same
    labels whichever state the snapshot caught.

    Parameters
    ----------
    key
        The layer's.
    labels
        (..., Y, X), numpy or lazy.
    region
        Where it holds, or held before the first edit, anything but 0.
    """
    lines: list[str] = []
    low, high = region
    counts = [end - start for start, end in zip(low[:-2], high[:-2], strict=True)]
    rows = tuple(slice(*ends) for ends in zip(low[-2:], high[-2:], strict=True))
    for at in np.ndindex(*counts):
        yield Progress(len(lines), int(np.prod(counts)), "logging the layer's content")
        plane = tuple(start + index for start, index in zip(low[:-2], at, strict=True))
        values = np.array(labels[(*plane, *rows)])
        values = values.reshape((1,) * len(plane) + values.shape)
        patch = LabelEdit.between(np.zeros_like(values), values, (*plane, *low[-2:]))
        if patch is not None:
            lines.append(line_of("begin", (key, patch)))
    return lines


# ----------------------------------------------------------------------- replay


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
        If it is no such file, of another image, or asks for far more than any work on this one;
        one sentence says why. A last line that was cut off is ignored.
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
        self._decoder = _Decoder(state.header.shape)
        self._n_axes = len(state.header.shape)

    def line(self, plain: Any) -> None:
        """Replay one line, as JSON has it."""
        what = plain["what"]
        kind = _LINES[what]
        value = from_plain(kind.type, plain["value"], what, self._decoder.special)
        self._state.saved = False  # whatever is done after saving is not in the user's files
        kind.replay(self, value)

    def begin(self, value: tuple[str, LabelEdit]) -> None:
        key, patch = value
        labels = self._labels(key, (patch,))
        labels[patch.mask.region][patch.mask.mask] = patch.after

    def anew(self, value: tuple[str, tuple[int, ...]]) -> None:
        key, kept = value
        self._labels(key)[...] = 0  # lines with its new content follow
        self._decoder.spend(self._decoder.voxels)
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
        self._decoder.spend(sum(math.prod(patch.mask.shape) for patch in edit.patches))
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
            if len(layers) >= _MAX_LAYERS:
                raise ValueError(TOO_MANY_LAYERS)
            labels = np.zeros(self._state.header.shape, np.int32)
        values: list[np.ndarray] = []
        for patch in patches:
            values += [np.asarray(patch.before), np.asarray(patch.after)]
        if any(array.max() > np.iinfo(labels.dtype).max for array in values):
            is_unsigned = any(array.dtype == np.uint64 for array in values)
            self._decoder.spend(self._decoder.voxels)
            labels = labels.astype(np.uint64 if is_unsigned else np.int64)
        layers[key] = labels
        return labels


class _Line(NamedTuple):
    """One kind of line."""

    type: Any
    """Of its value."""
    replay: Callable[[_Replay, Any], None]


_LINES: dict[str, _Line] = {
    # What a plane of a layer held before its first edit.
    "begin": _Line(tuple[str, LabelEdit], _Replay.begin),
    # A layer's array was replaced; its objects that are still known.
    "anew": _Line(tuple[str, tuple[int, ...]], _Replay.anew),
    # A command of the history.
    "do": _Line(Command, _Replay.do),
    # Objects that were proposed; None discards those that are open.
    "drafts": _Line(DraftSet | None, _Replay.drafts),
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


# ----------------------------------------------------------------------- the file


@dataclass(eq=False)
class AutosaveFile:
    """The session file that is being written for one image.

    Its jobs run in the thread of `Autosave`, in the order in which the commands were done.
    """

    path: Path
    lock: FileLock
    """The file, and the lock that shows other windows that it is in use."""
    begun: set[str] = field(default_factory=set)
    """Keys of the labels layers whose first state is in the file."""
    aliases: dict[str, str] = field(default_factory=dict)
    """For a restored layer, its key in the file."""
    lines: int = 0
    """Number of lines that were submitted."""
    empty_at: int = 0
    """`lines` when there was last nothing to restore."""
    redundant: bool = False
    """Whether all of it is in the user's files, so that it goes when the image is closed."""
    broken: bool = False
    """Whether a line could not be written. None is written after it: it would follow a gap."""

    def key_of(self, layer: str) -> str:
        """The key that a layer has in the file."""
        return self.aliases.get(layer, layer)

    def release(self) -> None:
        """Let other windows have the file; delete it if it is redundant."""
        if self.redundant:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self.lock.release()
        if self.redundant:
            with suppress(OSError):
                os.unlink(self.lock.lock_file)

    def create_job(self, header: str) -> Job[None]:
        """Write the first line."""
        yield Progress(0, 1, "logging")
        self._write(header, "x")

    def append_job(self, what: str, value: Any = None) -> Job[None]:
        """Append one line."""
        yield Progress(0, 1, "logging")
        self._write(line_of(what, value))

    def append_layer_job(self, key: str, labels: Any, region: VoxelBox) -> Job[None]:
        """Append what a layer holds within a region; it may be edited meanwhile."""
        lines = yield from begin_lines_job(key, labels, region)
        self._write("".join(lines))

    def jobs_of(
        self, what: str, value: Any, editor: LabelEditor | None
    ) -> list[Callable[[], Job[None]]]:
        """What logs a change of the history, as `UndoStack` reports it: jobs to run in this order.

        What a layer, that of `editor`, held before its first edit goes before that edit.
        """
        edit = value.edit if isinstance(value, Command) else None
        if edit is None:
            return [partial(self.append_job, what, value)]
        before = []
        if edit.layer not in self.begun and editor is not None:
            self.begun.add(edit.layer)
            before = self.layer_jobs(editor, edit)
        value = replace(value, edit=replace(edit, layer=self.key_of(edit.layer)))
        return [*before, partial(self.append_job, what, value)]

    def anew_jobs(self, editor: LabelEditor) -> list[Callable[[], Job[None]]]:
        """What logs that a layer's array was replaced."""
        value = self.key_of(editor.key), tuple(editor.register.entries)
        return [partial(self.append_job, "anew", value), *self.layer_jobs(editor)]

    def layer_jobs(
        self, editor: LabelEditor, edit: LayerEdit | None = None
    ) -> list[Callable[[], Job[None]]]:
        """What logs the content of a layer, or that before an edit; none if it is empty."""
        index = editor.register.index
        boxes = [index.box(label) for label in index]
        boxes += [] if edit is None else [patch.mask.box for patch in edit.patches]
        if not boxes:
            return []
        region = box_union(boxes)
        return [partial(self.append_layer_job, self.key_of(editor.key), editor.layer.data, region)]

    def read_job(self, text: Future[str]) -> Job[None]:
        """Set `text` to the content; empty if it cannot be read, or the job is canceled."""
        content = ""
        try:
            yield Progress(0, 1, "reading the log")
            with suppress(OSError):
                content = "" if self.broken else self.path.read_text(encoding="utf-8")
        finally:
            text.set_result(content)

    def remove_models_job(self, keep: str) -> Job[None]:
        """Remove the models that were adapted before the one in the file `keep`."""
        yield Progress(0, 1, "removing models that were adapted before")
        remove_beside(self.path, keep)

    def mark_saved_job(self) -> Job[None]:
        """Do not offer the file again: everything is in the user's files."""
        yield Progress(0, 1, "logging that everything is saved")
        if self.broken:
            self.path.unlink(missing_ok=True)
        else:
            self._write(line_of("saved"))

    def _write(self, text: str, mode: str = "a") -> None:
        """Write at the end, unless a line before could not be written."""
        if self.broken:
            return
        # To append, the file must already exist: a new file would have no header line.
        opener = None if mode == "x" else lambda path, flags: os.open(path, flags & ~os.O_CREAT)
        try:
            with open(self.path, mode, encoding="utf-8", newline="\n", opener=opener) as file:
                file.write(text)
        except OSError as error:
            self.broken = True
            raise OSError(error.strerror or str(error)) from error
        except BaseException:
            self.broken = True
            raise


def lock_of(path: Path) -> FileLock:
    """The lock that shows that a file is in use; acquire and release it in one thread."""
    return FileLock(path.with_suffix(_LOCK))


def new_path(image: str) -> Path:
    """Where to write a further session of an image, in the user's folder, which is made."""
    path = user_folder("sessions") / f"{image}-{uuid4().hex[:8]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def identity_of(image: ImageValue, name: str) -> str:
    """Identifies an image across sessions, as `identifying_bytes`."""
    state = xxhash.xxh3_128(repr(image.names).encode())
    for array in image.all_arrays:
        for piece in identifying_bytes(array, name):
            state.update(piece)
    return state.hexdigest()


def left_over(image: str) -> Path | None:
    """The newest unsaved file of an image that no window has open; None for none.

    If all are saved, the newest beside which there is a checkpoint. Deletes files that are older
    than `KEPT_DAYS`.
    """
    candidates = []
    for path in user_folder("sessions").glob("*.jsonl"):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > KEPT_DAYS * 86400 and _is_free(path):
                remove_beside(path)
                path.unlink()
            elif path.name.startswith(f"{image}-") and _is_free(path):
                saved = is_saved(path)
                if not saved or any(each.is_file() for each in beside(path)):
                    candidates.append((saved, age, path))
    return min(candidates)[2] if candidates else None


def beside(path: Path) -> list[Path]:
    """The checkpoints, and the folders of interrupted learning, that belong to a session file.

    They are known by their names alone: the file may lie beside a user's own, such as its image.
    """
    own = re.compile(rf"{re.escape(path.stem)}\.({_CHECKPOINT}|{_LEARNING})")
    return [other for other in path.parent.iterdir() if own.fullmatch(other.name)]


def holds_learned_job(path: Path, adapted: AdaptedModelFile) -> Job[bool]:
    """Whether the checkpoint that was learned is beside a session file, and is unchanged."""
    checkpoint = path.with_name(Path(adapted.file).name)
    if not checkpoint.is_file():
        return False
    return (yield from hash_job(checkpoint)) == adapted.sha256


def checkpoint_beside(path: Path, digest: str) -> Path:
    """Where what was learned goes; `digest` has eight hexadecimal digits."""
    return path.with_name(f"{path.stem}.{digest}.safetensors")


def learning_beside(path: Path, digest: str) -> Path:
    """The folder with the state of learning; `digest` has eight hexadecimal digits."""
    return path.with_name(f"{path.stem}.learning-{digest}")


def remove_beside(path: Path, keep: str = "") -> None:
    """Remove what belongs to a session file, but for the checkpoint called `keep`.

    So are parts of checkpoints, left by a process that was killed while it wrote.
    """
    for other in beside(path):
        if other.name != keep:
            remove(other)
    for part in path.parent.glob(f".{escape(path.stem)}.????????.safetensors.????????.part"):
        remove(part)


def is_saved(path: Path) -> bool:
    """Whether everything in a session file is also in files of the user's."""
    ending = line_of("saved").encode()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(ending)))
        return file.read() == ending


def _is_free(path: Path) -> bool:
    try:
        with lock_of(path).acquire(blocking=False):
            return True
    except Timeout:
        return False
