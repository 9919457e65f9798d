"""All that was done to one image, line by line in a file: what a crash leaves can be done again.

JSON Lines. The first line says what the image is, each further one what was done. A line is
appended when something is done, so a crash costs at most the last one. Labels are not computed
again but written as they were: the same file gives the same labels, whatever model is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.engine.census import Box
from napari_simmat.engine.footprints import Patch
from napari_simmat.engine.views import Order
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.widgets.segment.asked import Asked
from napari_simmat.widgets.segment.operations import Entry, Operation, Operations, Register
from napari_simmat.widgets.segment.plain import from_plain, to_plain

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
    views: dict[Order, Asked] = field(default_factory=dict)
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


def _labels(state: Replayed, key: str, patches: Sequence[Patch] = ()) -> np.ndarray:
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


def beginning(key: str, labels: Any, region: Box) -> Job[list[str]]:
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
        patch = Patch.between(
            np.zeros_like(values).reshape(lead + values.shape),
            values.reshape(lead + values.shape),
            (*plane, *low[-2:]),
        )
        if patch is not None:
            lines.append(line_of("begin", (key, patch)))
    return lines
