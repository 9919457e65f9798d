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
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import LabelEdit, ObjectMask, VoxelBox
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import sessions_folder
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.widgets.layer_data import ImageValue
from napari_simmat.widgets.segment.history import (
    Command,
    LayerEdit,
    ObjectEntry,
    ObjectRegister,
    Provenance,
    UndoStack,
)
from napari_simmat.widgets.segment.prompt_state import (
    EditedObject,
    Outline,
    Prompts,
    PromptState,
    PropagatedMask,
)

FORMAT, VERSION = "napari-simmat session", 2
KEPT_DAYS = 30
"""Files that were not restored are deleted after this time."""
_MOST_BYTES = 1 << 30
_MOST_VOXELS = 1 << 31
_LEARNED, _LEARNING = ".safetensors", ".learning-"
_SAMPLE = 1 << 16
"""Number of values that identify an image."""
_FOREIGN = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What reading a foreign line can raise."""

WRITTEN_LATER = "It was written by a later version: update napari-simmat."
TOO_LARGE = "Its image is larger than fits into memory."
NO_SESSION = "It is not a session of napari-simmat."
LOST = "What was learned on this image is gone: its file was removed or changed. Learn again."


@dataclass(frozen=True)
class LearnedModel:
    """What was learned on an image: a checkpoint beside its session file."""

    file: str
    """Name of the checkpoint."""
    sha256: str
    """Of the file."""
    base: str
    """Name of the model that it was learned on."""
    sentence: str
    """What it gained."""
    objects: Mapping[int, int] = field(default_factory=dict)
    """Size of each object that it learned from by its number."""
    all_channels: bool = False
    """Whether it reads all channels of the image that show something."""


# ------------------------------------------------------------------------ JSON values

# On-disk names of the classes and of the fields that are called otherwise in the code. Files in
# users' folders have them, so they never change.
_TAGS: dict[str, type[Any]] = {
    "Asked": PromptState,
    "Followed": PropagatedMask,
    "Opened": EditedObject,
    "Outline": Outline,
    "Prompts": Prompts,
    "Edit": LayerEdit,
    "Entry": ObjectEntry,
    "Made": Provenance,
    "Operation": Command,
    "Footprint": ObjectMask,
    "Learned": LearnedModel,
    "Patch": LabelEdit,
}
_TAG_OF = {kind: tag for tag, kind in _TAGS.items()}
_FIELDS: dict[type[Any], dict[str, str]] = {
    PromptState: {"edited": "opened", "propagated": "followed"},
    ObjectEntry: {"provenance": "made"},
    LabelEdit: {"mask": "footprint"},
}
_OPTIONAL = ("parent",)
"""Fields that are written only if they are set, so that earlier versions read the other files."""
_KIND = "is"
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def to_json(value: Any) -> Any:
    """A value of the undo history as JSON values."""
    if isinstance(value, Prompt):
        return {_KIND: "Prompt", **value.to_plain()}
    if is_dataclass(value):
        kind = type(value)
        names = _FIELDS.get(kind, {})
        values = {
            names.get(each.name, each.name): to_json(getattr(value, each.name))
            for each in fields(value)
            if each.name not in _OPTIONAL or getattr(value, each.name) != each.default
        }
        return {_KIND: _TAG_OF[kind], **values}
    if isinstance(value, Mapping):
        return {_KIND: "map", "items": [[to_json(k), to_json(v)] for k, v in value.items()]}
    if isinstance(value, (tuple, list)):
        return [to_json(each) for each in value]
    if isinstance(value, bytes):
        return {_KIND: "bytes", "zip": _packed(value)}
    if isinstance(value, np.ndarray):
        dtype, shape = value.dtype.name, list(value.shape)
        return {_KIND: "array", "dtype": dtype, "shape": shape, "zip": _packed(value.tobytes())}
    if isinstance(value, np.generic):
        return value.item()
    return {_KIND: "nan"} if isinstance(value, float) and math.isnan(value) else value


def from_json(value: Any) -> Any:
    """Read what `to_json` returned.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else. No class is created but those listed.
    """
    if isinstance(value, list):
        return tuple(from_json(each) for each in value)
    if not isinstance(value, dict):
        return value
    values = dict(value)
    tag = values.pop(_KIND)
    if tag == "nan":
        return math.nan
    if tag == "map":
        return {from_json(k): from_json(v) for k, v in values["items"]}
    if tag == "bytes":
        return _unpacked(values["zip"])
    if tag == "array":
        return _array(values)
    if tag == "Prompt":
        return Prompt.from_plain(values)
    kind = _TAGS[tag]
    names = {on_disk: name for name, on_disk in _FIELDS.get(kind, {}).items()}
    return kind(**{names.get(name, name): from_json(each) for name, each in values.items()})


def _array(values: dict[str, Any]) -> np.ndarray:
    if values["dtype"] not in _DTYPES:
        raise ValueError(f"An array of labels holds whole numbers, not {values['dtype']}.")
    flat = np.frombuffer(_unpacked(values["zip"]), dtype=values["dtype"])
    return flat.reshape([int(size) for size in values["shape"]]).copy()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def _unpacked(text: str) -> bytes:
    # A small file can unpack to any size, so the size is limited while unpacking.
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(base64.b64decode(text), _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"Packed values are damaged ({error}).") from None
    if not unpacking.eof:
        raise ValueError("Packed values are larger than any mask.")
    return data


# ----------------------------------------------------------------------- lines


def header_of(image: str, shape: Iterable[int], model: str, channels: Iterable[str]) -> str:
    """The first line.

    Parameters
    ----------
    image
        Identifies the image by its content.
    shape
        (..., Y, X) without channels.
    model, channels
        What was in use at first, for human readers.
    """
    values = {
        "format": FORMAT,
        "format_version": VERSION,
        "image": image,
        "shape": [int(size) for size in shape],
        "model": model,
        "channels": list(channels),
    }
    return json.dumps(values) + "\n"


def line_of(what: str, value: Any = None) -> str:
    """One line: ``do`` a command, ``undo``, ``redo``, ``begin`` a layer, ``forget`` one, ...

    ``learned`` says which model was adapted to the image,
    ``anew`` that a layer's array was replaced, and which of its objects are still known.
    """
    return json.dumps({"what": what, "value": to_json(value)}) + "\n"


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
    lines = []
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

    header: dict[str, Any]
    """The first line: image, model, channels."""
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
    learned: LearnedModel | None = None
    """What was learned last."""
    saved: bool = False
    """Whether everything is in saved files."""

    @property
    def prompt_state(self) -> PromptState:
        """The uncommitted prompts of the usual view."""
        return self.views.get((), PromptState())

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X) of the image without channels."""
        return tuple(int(size) for size in self.header["shape"])


def replayed(path: Path) -> Replayed:
    """Replay a session file; see `replay_job`."""
    return finish(replay_job(path))


def replay_job(path: Path) -> Job[Replayed]:
    """Replay a session file.

    Parameters
    ----------
    path
        A file of the window's own folder, or ``STEM_session.jsonl`` beside saved labels.

    Raises
    ------
    ValueError
        If it is no such file; one sentence says why. A last line that was cut off is ignored.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{path.name} is no session: it is larger than any. Choose another file.")
    with path.open("rb") as file:
        try:
            state = Replayed(_header(file.readline()))
        except _FOREIGN as error:
            raise ValueError(f"{path.name} cannot be read as a session. {error}") from None
        for number, line in enumerate(file, start=2):
            if not line.endswith(b"\n"):
                break  # cut off
            yield Progress(file.tell() >> 10, 1 + (size >> 10), f"step {number - 1}")
            try:
                each = json.loads(line)
                _replay_line(state, each["what"], from_json(each["value"]))
            except _FOREIGN as error:
                raise ValueError(f"{path.name}, line {number}, cannot be read: {error}.") from None
    return state


def _header(line: bytes) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(NO_SESSION)
    if not values["format_version"] <= VERSION:
        raise ValueError(WRITTEN_LATER)
    if not 0 < np.prod([float(size) for size in values["shape"]]) <= _MOST_VOXELS:
        raise ValueError(TOO_LARGE)
    return values


def _replay_line(state: Replayed, what: str, value: Any) -> None:
    state.saved = what == "saved"
    if what == "begin":
        key, patch = value
        if patch is not None:
            labels = _labels(state, key, (patch,))
            labels[patch.mask.region][patch.mask.mask] = patch.after
    elif what == "anew":
        key, known = value
        _labels(state, key)[...] = 0  # lines with its new content follow
        entries = state.entries.get(key, {})
        state.entries[key] = {label: entries[label] for label in known if label in entries}
    elif what == "do":
        state.history.add(value)
        _apply(state, value, back=False)
    elif what == "undo" and (command := state.history.undo()) is not None:
        _apply(state, command, back=True)
    elif what == "redo" and (command := state.history.redo()) is not None:
        _apply(state, command, back=False)
    elif what == "drop" and (command := state.history.drop_last()) is not None:
        state.views[command.before.order] = command.before
    elif what == "learned":
        if not isinstance(value, LearnedModel | None):
            raise TypeError(f"{value!r} is nothing learned")
        state.learned = value
    elif what == "forget":
        state.history.forget_layer(value)
        state.labels.pop(value, None)
        state.entries.pop(value, None)


def _apply(state: Replayed, command: Command, *, back: bool) -> None:
    prompts = command.before if back else command.after
    state.views[prompts.order] = prompts
    edit = command.edit
    if edit is None:
        return
    labels = _labels(state, edit.layer, edit.patches)
    for patch in reversed(edit.patches) if back else edit.patches:
        (patch.revert if back else patch.apply)(labels)
    register = ObjectRegister()
    register.entries = state.entries.setdefault(edit.layer, {})
    register.apply(edit, back=back)


def _labels(state: Replayed, key: str, patches: Sequence[LabelEdit] = ()) -> np.ndarray:
    """The labels of a layer, of a type that can hold what `patches` write."""
    labels = state.labels.pop(key, None)
    labels = np.zeros(state.shape, np.int32) if labels is None else labels
    values = [np.asarray(each) for patch in patches for each in (patch.before, patch.after)]
    if any(each.max() > np.iinfo(labels.dtype).max for each in values):
        unsigned = any(each.dtype == np.uint64 for each in values)
        labels = labels.astype(np.uint64 if unsigned else np.int64)
    state.labels[key] = labels
    return labels


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
        """Write the first line; see `append`."""
        yield Progress(0, 1, "logging")
        self._write(header, "x")

    def append_job(self, what: str, value: Any = None) -> Job[None]:
        """Append one line."""
        yield Progress(0, 1, "logging")
        self.append(line_of(what, value))

    def append_layer_job(self, key: str, labels: Any, region: VoxelBox) -> Job[None]:
        """Append what a layer holds within a region; it may be edited meanwhile."""
        lines = yield from begin_lines_job(key, labels, region)
        self.append("".join(lines))

    def read_job(self, text: Future[str]) -> Job[None]:
        """Set `text` to the content; empty if it cannot be read, or the job is canceled."""
        try:
            yield Progress(0, 1, "reading the log")
            text.set_result("" if self.broken else self.path.read_text(encoding="utf-8"))
        except OSError:
            text.set_result("")
        finally:
            if not text.done():
                text.set_result("")

    def mark_saved_job(self) -> Job[None]:
        """Do not offer the file again: everything is in the user's files."""
        yield Progress(0, 1, "logging that everything is saved")
        if self.broken:
            self.path.unlink(missing_ok=True)
        else:
            self.append(line_of("saved"))

    def append(self, text: str) -> None:
        """Write at the end, unless a line before could not be written.

        Raises
        ------
        OSError
            If it cannot be written; the sentence has no error number.
        """
        if not self.broken:
            self._write(text, "a")

    def _write(self, text: str, mode: str) -> None:
        # To append, the file must already exist: a new file would have no header line.
        opener = None if mode == "x" else _open_existing
        try:
            with open(self.path, mode, encoding="utf-8", newline="\n", opener=opener) as file:
                file.write(text)
        except OSError as error:
            self.broken = True
            raise OSError(error.strerror or str(error)) from error
        except BaseException:
            self.broken = True
            raise


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def lock_of(path: Path) -> FileLock:
    """The lock that shows that a file is in use; acquire and release it in one thread."""
    return FileLock(path.with_suffix(".lock"))


def identity_of(image: ImageValue, name: str) -> str:
    """Identifies an image across sessions: by shape, type, and a sample of its values.

    An image that is not in memory is not read; its name stands for the values.
    """
    state = xxhash.xxh3_128(repr(image.names).encode())
    for array in image.all_arrays:
        state.update(repr((tuple(array.shape), str(array.dtype))).encode())
        if isinstance(array, np.ndarray):
            most = max(1, int(_SAMPLE ** (1 / array.ndim)))
            sample = array[tuple(slice(None, None, max(1, size // most)) for size in array.shape)]
            state.update(np.ascontiguousarray(sample).tobytes())
        else:
            state.update(name.encode())
    return state.hexdigest()


def left_over(image: str) -> Path | None:
    """The newest unsaved file of an image that no window has open; None for none.

    If all are saved, the newest beside which lies what was learned.
    Deletes files older than `KEPT_DAYS`.
    """
    found = []
    for path in sessions_folder().glob("*.jsonl"):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > KEPT_DAYS * 86400 and _is_free(path):
                remove_learned(path)
                path.unlink()
            elif path.name.startswith(f"{image}-") and _is_free(path):
                saved = is_saved(path)
                if not saved or _has_learned(path):
                    found.append((saved, age, path))
    return min(found)[2] if found else None


def learned_file(path: Path, digest: str) -> Path:
    """The checkpoint, beside a session file, of what was learned."""
    return path.with_suffix(f".{digest}{_LEARNED}")


def learning_folder(path: Path, digest: str) -> Path:
    """The folder, beside a session file, that keeps the state of a learning under way."""
    return path.with_suffix(f"{_LEARNING}{digest}")


def learning_folders(path: Path) -> list[Path]:
    """Those beside a session file: of learnings under way, or interrupted."""
    return list(path.parent.glob(f"{path.stem}{_LEARNING}*"))


def remove_learned(path: Path, keep: LearnedModel | None = None) -> None:
    """Remove the checkpoints beside a session file but one, and the folders of learnings.

    So are parts of checkpoints, left by a process that was killed while it wrote.
    """
    folder, name = path.parent, f"{path.stem}.*{_LEARNED}"
    for each in (*folder.glob(name), *folder.glob(f".{name}.*")):
        if keep is None or each.name != keep.file:
            each.unlink(missing_ok=True)
    for each in learning_folders(path):
        shutil.rmtree(each, ignore_errors=True)


def _has_learned(path: Path) -> bool:
    return any(path.parent.glob(f"{path.stem}.*{_LEARNED}"))


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
