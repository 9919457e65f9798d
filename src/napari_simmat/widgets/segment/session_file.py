"""What the user did as plain JSON values and back. No Qt, no napari; no class but those listed."""

from __future__ import annotations

import base64
import json
import math
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from napari_simmat.batch.record import prompt_from_dict, prompt_to_dict
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import LabelEdit, ObjectMask, VoxelBox
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import sessions_folder
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.widgets.layer_data import ImageValue
from napari_simmat.widgets.segment.history import Edit, Entry, Made, Operation, Operations, Register
from napari_simmat.widgets.segment.prompt_state import Asked, Followed, Opened, Outline, Prompts

_TAGS = {"ObjectMask": "Footprint", "LabelEdit": "Patch"}  # class -> its tag in session files
_CLASSES: dict[str, type[Any]] = {
    _TAGS.get(each.__name__, each.__name__): each
    for each in (
        *(Asked, Followed, Opened, Outline, Prompts),
        *(Edit, Entry, Made, Operation, ObjectMask, LabelEdit),
    )
}
_KIND = "is"
_MOST_UNPACKED = 1 << 30
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def to_plain(value: Any) -> Any:
    """A value of the list of operations as JSON can hold it."""
    if isinstance(value, Prompt):
        return {_KIND: "Prompt", **prompt_to_dict(value)}
    if is_dataclass(value):
        values = {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
        return {_KIND: _TAGS.get(type(value).__name__, type(value).__name__), **values}
    if isinstance(value, Mapping):
        return {_KIND: "map", "items": [[to_plain(k), to_plain(v)] for k, v in value.items()]}
    if isinstance(value, (tuple, list)):
        return [to_plain(each) for each in value]
    if isinstance(value, bytes):
        return {_KIND: "bytes", "zip": _packed(value)}
    if isinstance(value, np.ndarray):
        dtype, shape = value.dtype.name, list(value.shape)
        return {_KIND: "array", "dtype": dtype, "shape": shape, "zip": _packed(value.tobytes())}
    if isinstance(value, np.generic):
        return value.item()
    return {_KIND: "nan"} if isinstance(value, float) and math.isnan(value) else value


def from_plain(value: Any) -> Any:
    """Read what `to_plain` gave.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    if isinstance(value, list):
        return tuple(from_plain(each) for each in value)
    if not isinstance(value, dict):
        return value
    values = dict(value)
    kind = values.pop(_KIND)
    if kind == "nan":
        return math.nan
    if kind == "map":
        return {from_plain(k): from_plain(v) for k, v in values["items"]}
    if kind == "bytes":
        return _unpacked(values["zip"])
    if kind == "array":
        return _array(values)
    if kind == "Prompt":
        return prompt_from_dict(values)
    return _CLASSES[kind](**{name: from_plain(each) for name, each in values.items()})


def _array(values: dict[str, Any]) -> np.ndarray:
    if values["dtype"] not in _DTYPES:
        raise ValueError(f"An array of labels holds whole numbers, not {values['dtype']}.")
    flat = np.frombuffer(_unpacked(values["zip"]), dtype=values["dtype"])
    return flat.reshape([int(size) for size in values["shape"]]).copy()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def _unpacked(text: str) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(base64.b64decode(text), _MOST_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"Packed values are damaged ({error}).") from None
    if not unpacking.eof:
        raise ValueError("Packed values are larger than any mask.")
    return data


# All that was done to one image, line by line in a file: what a crash leaves can be done again.


FORMAT, VERSION = "napari-simmat session", 2
_MOST_BYTES = 1 << 30
_MOST_VOXELS = 1 << 31
_FOREIGN = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What reading a line of something else ends in."""


@dataclass
class Replayed:
    """What is there after all lines.

    Parameters
    ----------
    header
        The first line: image, model, settings.
    labels
        (..., Y, X) of each labels layer, by its key; the one written to last comes last. They are
        int32, and wider where a layer of the user's held larger numbers.
    entries
        What is known about the objects of each.
    operations
        The list, to undo and redo.
    views
        What is open in each view, by its order.
    saved
        Whether all of it lies in saved files.
    """

    header: dict[str, Any]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    entries: dict[str, dict[int, Entry]] = field(default_factory=dict)
    operations: Operations = field(default_factory=Operations)
    views: dict[AxisOrder, Asked] = field(default_factory=dict)
    saved: bool = False

    @property
    def asked(self) -> Asked:
        """What is open in the usual view."""
        return self.views.get((), Asked())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image without channels."""
        return tuple(int(size) for size in self.header["shape"])


def header_of(image: str, shape: Iterable[int], model: str, channels: Iterable[str]) -> str:
    """The first line.

    Parameters
    ----------
    image
        Tells images apart by their content.
    shape
        (..., Y, X) without channels.
    model, channels
        What was in use at first, for whoever reads the file.
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
    """One line: ``do`` an operation, ``undo``, ``redo``, ``begin`` a layer, ``forget`` one, ...

    ``anew`` says that a layer has got another array, and which of its objects are still known.
    """
    return json.dumps({"what": what, "value": to_plain(value)}) + "\n"


def replayed(path: Path) -> Replayed:
    """Do again what a file says, as `replaying`."""
    return finish(replaying(path))


def replaying(path: Path) -> Job[Replayed]:
    """Do again what a file says.

    Parameters
    ----------
    path
        Of the window's own folder, or ``STEM_session.jsonl`` beside saved labels.

    Raises
    ------
    ValueError
        If it is no such file; one sentence says why. A last line that was cut off is left out.
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
                _take(state, each["what"], from_plain(each["value"]))
            except _FOREIGN as error:
                raise ValueError(f"{path.name}, line {number}, cannot be read: {error}.") from None
    return state


def _header(line: bytes) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("It is not a session of napari-simmat.")
    if not values["format_version"] <= VERSION:
        raise ValueError("It was written by a later version: update napari-simmat.")
    if not 0 < np.prod([float(size) for size in values["shape"]]) <= _MOST_VOXELS:
        raise ValueError("Its image is larger than fits into memory.")
    return values


def _take(state: Replayed, what: str, value: Any) -> None:
    """Take up one line."""
    state.saved = what == "saved"
    if what == "begin":
        key, patch = value
        if patch is not None:
            labels = _labels(state, key, (patch,))
            labels[patch.footprint.region][patch.footprint.mask] = patch.after
    elif what == "anew":
        key, known = value
        _labels(state, key)[...] = 0  # lines that begin it follow
        entries = state.entries.get(key, {})
        state.entries[key] = {label: entries[label] for label in known if label in entries}
    elif what == "do":
        state.operations.add(value)
        _play(state, value, back=False)
    elif what == "undo" and (operation := state.operations.undo()) is not None:
        _play(state, operation, back=True)
    elif what == "redo" and (operation := state.operations.redo()) is not None:
        _play(state, operation, back=False)
    elif what == "drop" and (operation := state.operations.drop_last()) is not None:
        _open(state, operation.before)
    elif what == "forget":
        state.operations.forget_layer(value)
        state.labels.pop(value, None)
        state.entries.pop(value, None)


def _play(state: Replayed, operation: Operation, *, back: bool) -> None:
    _open(state, operation.before if back else operation.after)
    edit = operation.edit
    if edit is None:
        return
    labels = _labels(state, edit.layer, edit.patches)
    for patch in reversed(edit.patches) if back else edit.patches:
        (patch.revert if back else patch.apply)(labels)
    register = Register()
    register.entries = state.entries.setdefault(edit.layer, {})
    register.note(edit, back=back)


def _open(state: Replayed, asked: Asked) -> None:
    state.views[asked.order] = asked


def _labels(state: Replayed, key: str, patches: Sequence[LabelEdit] = ()) -> np.ndarray:
    """The labels of a layer, of a type that can hold what `patches` write into them."""
    labels = state.labels.pop(key, None)
    labels = np.zeros(state.shape, np.int32) if labels is None else labels
    values = [np.asarray(each) for patch in patches for each in (patch.before, patch.after)]
    if any(each.max() > np.iinfo(labels.dtype).max for each in values):
        unsigned = any(each.dtype == np.uint64 for each in values)
        labels = labels.astype(np.uint64 if unsigned else np.int64)
    state.labels[key] = labels
    return labels


def moved_to(operations: Operations, keys: dict[str, str]) -> Operations:
    """The list with other keys for its layers."""
    return operations.mapped(
        lambda each: (
            each
            if each.edit is None or each.edit.layer not in keys
            else replace(each, edit=replace(each.edit, layer=keys[each.edit.layer]))
        )
    )


def beginning(key: str, labels: Any, region: VoxelBox) -> Job[list[str]]:
    """The lines that say what a layer holds, one for each plane that is not empty.

    They may be made in another thread while the layer is edited. A pixel is then noted as it was
    before or after any of the edits that are noted behind these lines; since an edit changes only
    pixels that are as it met them, doing all edits ends in the same labels, and undoing them all
    in those that were there at first, whichever it was.

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
        yield Progress(len(lines), int(np.prod(counts)), "noting what a layer holds")
        plane = tuple(start + index for start, index in zip(low[:-2], at, strict=True))
        values = np.array(labels[(*plane, *rows)])
        lead = (1,) * len(plane)
        patch = LabelEdit.between(
            np.zeros_like(values).reshape(lead + values.shape),
            values.reshape(lead + values.shape),
            (*plane, *low[-2:]),
        )
        if patch is not None:
            lines.append(line_of("begin", (key, patch)))
    return lines


# The files in which work is noted, one for each image that is worked on: no Qt, no napari.


KEPT_DAYS = 30
"""After so many days what was not restored is deleted."""
_SAMPLE = 1 << 16
"""Values of an image by which it is told from others."""


@dataclass(eq=False)
class Book:
    """The file of one image's work.

    Parameters
    ----------
    path, lock
        The file, and what shows to other windows that it is in use.
    begun
        Keys of the labels layers whose first state is in the file.
    aliases
        For a layer that was restored, the key it has in the file.
    noted
        How many lines it was given.
    broken
        Whether a line could not be written: none is after it, since it would follow a gap.
    """

    path: Path
    lock: FileLock
    begun: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    noted: int = 0
    broken: bool = False

    def known(self, layer: str) -> str:
        """The key that a layer has in the file."""
        return self.aliases.get(layer, layer)

    def create(self, header: str) -> None:
        """Write the first line; as `append`."""
        self._write(header, "x")

    def append(self, text: str) -> None:
        """Write at the end, unless something before it could not be written.

        Raises
        ------
        OSError
            If it cannot be written; the sentence has no number.
        """
        if not self.broken:
            self._write(text, "a")

    def _write(self, text: str, mode: str) -> None:
        opener = None if mode == "x" else _existing  # made anew it would lack its first line
        try:
            with open(self.path, mode, encoding="utf-8", newline="\n", opener=opener) as file:
                file.write(text)
        except OSError as error:
            self.broken = True
            raise OSError(error.strerror or str(error)) from error
        except BaseException:
            self.broken = True
            raise


def _existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def lock_of(path: Path) -> FileLock:
    """What shows that a file is in use; it is to be taken and given back in one thread."""
    return FileLock(path.with_suffix(".lock"))


# --------------------------------------------------------------------- in the thread


def noting(book: Book, what: str, value: Any = None) -> Job[None]:
    """Append one line."""
    yield Progress(0, 1, "noting what was done")
    book.append(line_of(what, value))


def noting_first(book: Book, key: str, labels: Any, region: VoxelBox) -> Job[None]:
    """Append what a layer of labels holds within a region; it may be edited meanwhile."""
    lines = yield from beginning(key, labels, region)
    book.append("".join(lines))


def opening(book: Book, header: str) -> Job[None]:
    """Write the first line."""
    yield Progress(0, 1, "noting what was done")
    book.create(header)


def reading(book: Book, text: Future[str]) -> Job[None]:
    """Give all that was noted; nothing where it cannot be told."""
    try:
        yield Progress(0, 1, "reading what was done")
        text.set_result("" if book.broken else book.path.read_text(encoding="utf-8"))
    except OSError:
        text.set_result("")
    finally:
        if not text.done():
            text.set_result("")


def closing(book: Book) -> Job[None]:
    """Offer none of it again: it is in files of the user's."""
    yield Progress(0, 1, "noting what was saved")
    if book.broken:
        book.path.unlink(missing_ok=True)
    else:
        book.append(line_of("saved"))


# --------------------------------------------------------------------- which file


def identity_of(image: ImageValue, name: str) -> str:
    """Equal for the same image, in another session too: shape, type, and a sample of values.

    Of an image that is not in memory nothing is read; its name stands for the values.
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


def left_of(image: str) -> Path | None:
    """The newest file of an image that is not saved and that no window has open; None for none."""
    found = []
    for path in sessions_folder().glob("*.jsonl"):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > KEPT_DAYS * 86400 and _is_free(path):
                path.unlink()
            elif path.name.startswith(f"{image}-") and _is_free(path) and not _is_saved(path):
                found.append((age, path))
    return min(found)[1] if found else None


def _is_saved(path: Path) -> bool:
    ending = line_of("saved").encode()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(ending)))
        return file.read() == ending


def _is_free(path: Path) -> bool:
    lock = lock_of(path)
    try:
        with lock.acquire(blocking=False):
            return True
    except Timeout:
        return False
