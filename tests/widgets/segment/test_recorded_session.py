"""A session file of version 2, recorded once, is read, written and restored by every version.

`tests.golden.session` says what was done in it. What it became then was recorded beside it.
"""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.io.files import sessions_folder
from napari_simmat.widgets.segment.session_file import from_json, line_of, replayed
from tests.golden import session
from tests.golden.scenes import digest

FOLDER = Path(session.__file__).parent
FILE = FOLDER / "session.jsonl"
SEEN = json.loads((FOLDER / "session_seen.json").read_text("utf-8"))
CTRL = Qt.KeyboardModifier.ControlModifier
TAGS = {
    *("Asked", "Edit", "Entry", "Followed", "Footprint", "Made", "Opened", "Operation", "Outline"),
    *("Patch", "Prompt", "Prompts", "array", "bytes", "map", "nan"),
}
"""All words for kinds of values."""
LINES = {"begin", "do", "undo", "redo", "drop", "forget", "anew"}
CLASSED = {1, 3, 4, 10, 11}
"""Objects of the class that was given to the first: those after it get it too."""


def test_all_kinds_of_values_and_lines_are_in_the_file() -> None:
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()[1:]]
    assert {line["what"] for line in lines} == LINES
    assert _tags([line["value"] for line in lines]) == TAGS


def _tags(value: Any) -> set[str]:
    if isinstance(value, list):
        return {tag for each in value for tag in _tags(each)}
    if isinstance(value, dict):
        return {str(value["is"])} & TAGS | _tags(list(value.values())) if "is" in value else set()
    return set()


def test_each_line_is_written_again_as_it_was_read() -> None:
    for line in FILE.read_text("utf-8").splitlines(keepends=True)[1:]:
        values = json.loads(line, object_hook=_unpacked)
        read = from_json(json.loads(line)["value"])
        assert json.loads(line_of(values["what"], read), object_hook=_unpacked) == values


def _unpacked(values: dict[str, Any]) -> dict[str, Any]:
    """A value of JSON whose packed bytes are compared as they are before packing."""
    if "zip" in values:
        values["zip"] = zlib.decompress(base64.b64decode(values["zip"]))
    return values


def test_the_file_is_replayed_without_a_window() -> None:
    state = replayed(FILE)
    (labels,) = state.labels.values()
    assert digest(labels.astype(np.int64)) == SEEN["objects"]
    assert len(state.history) == SEEN["operations"]
    (entries,) = state.entries.values()
    assert {label for label, entry in entries.items() if entry.category == "nucleus"} == CLASSED


def test_the_file_is_offered_and_restored_in_the_tab(window: Any) -> None:
    image = json.loads(FILE.read_text("utf-8").splitlines()[0])["image"]
    sessions_folder().mkdir(parents=True)
    shutil.copy(FILE, sessions_folder() / f"{image}-recorded.jsonl")
    session.open_stack(window)
    assert window.status.offer == "Restore"
    QTest.mouseClick(window.tab.status._offer, Qt.MouseButton.LeftButton)
    window.idle()
    assert session.seen(window) == SEEN
    for _ in range(SEEN["operations"]):
        window.key(Qt.Key.Key_Z, CTRL)
    assert not window.viewer.layers["SimMAT objects"].data.any()
    assert not len(window.viewer.layers["SimMAT points"].data)
    for _ in range(SEEN["operations"]):
        window.key(Qt.Key.Key_Z, CTRL | Qt.KeyboardModifier.ShiftModifier)
    assert session.seen(window) == SEEN
