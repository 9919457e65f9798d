"""A session file that was recorded once is read, written and restored by every version.

What it became then was recorded beside it: every kind of prompt and every action on objects.
"""

import base64
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.session_lines import LineDecoder, line_of
from napari_simmat.annotation.session_replay import LINES
from napari_simmat.io.files import user_folder
from napari_simmat.io.plain import from_plain
from tests.golden import session
from tests.golden.compare import digest
from tests.widgets.segment.noted import replayed, restore

FOLDER = Path(session.__file__).parent
FILE = FOLDER / "session.jsonl"
SEEN = json.loads((FOLDER / "session_seen.json").read_text("utf-8"))
CTRL = Qt.KeyboardModifier.ControlModifier
KINDS = {"begin", "do", "undo", "redo", "drop", "forget", "anew"}
CLASSED = {1, 3, 4, 10, 11}
"""Objects of the class that was given to the first: those after it get it too."""


def test_the_file_has_all_kinds_of_lines():
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()[1:]]
    assert {line["what"] for line in lines} == KINDS


def test_each_line_is_written_as_it_was_read():
    first, *lines = FILE.read_text("utf-8").splitlines(keepends=True)
    decoder = LineDecoder(tuple(json.loads(first)["shape"]))
    for line in lines:
        values = json.loads(line)
        kind = LINES[values["what"]].type
        read = from_plain(kind, values["value"], special=decoder.special)
        assert unpacked(json.loads(line_of(values["what"], read))) == unpacked(values)


def unpacked(value: Any, name: str = "") -> Any:
    """JSON with bytes as they were before packing, which differs between versions of zlib.

    Without what the recorded file is too old to hold, where it has its default.
    """
    if isinstance(value, dict):
        known = {each: item for each, item in value.items() if (each, item) != ("after", 0)}
        return {each: unpacked(item, each) for each, item in known.items()}
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    return zlib.decompress(base64.b64decode(value)) if name in ("bits", "zip") else value


def test_the_file_replays_without_a_window():
    state = replayed(FILE)
    (labels,) = state.labels.values()
    assert digest(labels.astype(np.int64)) == SEEN["objects"]
    assert len(state.history) == SEEN["operations"]
    (entries,) = state.entries.values()
    assert {label for label, entry in entries.items() if entry.category == "nucleus"} == CLASSED


@pytest.mark.slow
def test_the_file_is_offered_and_restored(window):
    image = json.loads(FILE.read_text("utf-8").splitlines()[0])["image"]
    user_folder("sessions").mkdir(parents=True)
    shutil.copy(FILE, user_folder("sessions") / f"{image}-recorded.jsonl")
    session.open_stack(window)
    assert window.status.offer == "Restore"
    restore(window)
    assert session.seen(window) == SEEN
    for _ in range(SEEN["operations"]):
        window.undo()
    assert not window.viewer.layers["SimMAT objects"].data.any()
    assert not len(window.viewer.layers["SimMAT points"].data)
    for _ in range(SEEN["operations"]):
        window.key(Qt.Key.Key_Z, CTRL | Qt.KeyboardModifier.ShiftModifier)
    assert session.seen(window) == SEEN
