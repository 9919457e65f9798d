"""What was done is in a file as it is done: restored in another window, replayed from Save."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_simmat.engine.folders import sessions_folder
from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.segment.asked import Asked, Followed, Opened, Outline, Prompts
from napari_simmat.widgets.segment.journal import header_of, line_of, replayed
from napari_simmat.widgets.segment.operations import Entry, Made
from napari_simmat.widgets.segment.plain import from_plain, to_plain
from tests.widgets.scenes import CENTRES, grey

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


def open_image(window: Any, image: np.ndarray) -> Any:
    window.viewer.add_image(image, name="discs")
    window.open_widget()
    window.idle()
    return window


def objects(window: Any) -> np.ndarray:
    return np.asarray(window.viewer.layers["SimMAT objects"].data)


def work_on(window: Any) -> None:
    """Two commits, one deleted, that taken back, a third undone, and a point left open."""
    for number in (0, 1):
        window.click(*CENTRES[number])
        window.key(Qt.Key.Key_C)
    window.hover(*CENTRES[1])
    window.key(Qt.Key.Key_D, SHIFT)
    window.key(Qt.Key.Key_Z, CONTROL)
    window.tab.objects_fold.set_open(True)
    window.click_row(0)
    window.type_class("nucleus")
    window.click(*CENTRES[2])


def crash(window: Any) -> Path:
    """Leave the file as a crash does: with nobody who has it open, its last line cut off."""
    (path,) = sessions_folder().glob("*.jsonl")
    left = path.with_name(path.name.replace(".jsonl", "x.jsonl"))
    shutil.copy(path, left)
    with left.open("a", encoding="utf-8") as file:
        file.write('{"what": "do", "val')
    return left


def test_what_a_crash_left_is_offered_and_restored_in_another_viewer(
    open_window: Callable[[], Any],
) -> None:
    first = open_image(open_window(), grey())
    work_on(first)
    crash(first)
    second = open_image(open_window(), grey())
    assert "was not saved" in second.status.text
    assert "SimMAT objects" not in second.viewer.layers, "nothing unasked"
    QTest.mouseClick(second.tab.status._offer, Qt.MouseButton.LeftButton)
    second.idle()
    assert np.array_equal(objects(second), objects(first))
    assert set(np.unique(objects(second))) == {0, 1, 2}
    entries = second.interaction.work.finished.register.entries
    assert {label: entry.category for label, entry in entries.items()} == {1: "nucleus", 2: ""}
    assert second.interaction.work.prompts == first.interaction.work.prompts
    preview = [each.viewer.layers["SimMAT preview"].data for each in (first, second)]
    assert np.array_equal(*preview)
    assert preview[0].any()
    for _ in range(20):
        for each in (first, second):
            each.key(Qt.Key.Key_Z, CONTROL)
    assert not second.interaction.work.operations.can_undo
    assert not objects(second).any(), "the whole list came back"
    assert not second.interaction.work.asked


def test_work_goes_on_after_restoring_and_is_restored_once_more(
    open_window: Callable[[], Any],
) -> None:
    first = open_image(open_window(), grey())
    first.click(*CENTRES[0])
    first.key(Qt.Key.Key_C)
    first.close_widget()
    first.viewer.layers.clear()
    for number in (1, 2):  # closed in an orderly way it is offered as well, as long as unsaved
        window = open_image(open_window(), grey())
        QTest.mouseClick(window.tab.status._offer, Qt.MouseButton.LeftButton)
        window.idle()
        window.click(*CENTRES[number])
        window.key(Qt.Key.Key_C)
        assert set(np.unique(objects(window))) == set(range(number + 2))
        window.close_widget()
    assert len(list(sessions_folder().glob("*.jsonl"))) == 1


def test_another_image_is_offered_nothing_and_another_window_neither(
    open_window: Callable[[], Any],
) -> None:
    first = open_image(open_window(), grey())
    first.click(*CENTRES[0])
    same = open_image(open_window(), grey())
    assert "was not saved" not in same.status.text, "the first window has it open"
    crash(first)
    other = open_image(open_window(), grey() // 2)
    assert "was not saved" not in other.status.text


def test_what_is_saved_replays_to_the_same_labels_and_is_offered_no_more(
    open_window: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_image(open_window(), grey())
    work_on(window)
    answer = str(tmp_path / "mine_labels.tif"), ""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    QTest.mouseClick(window.tab.panel.save, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    assert "mine_session.jsonl" in window.status.text
    state = replayed(tmp_path / "mine_session.jsonl")
    (labels,) = state.labels.values()
    assert np.array_equal(labels, tifffile.imread(tmp_path / "mine_labels.tif"))
    assert state.asked == window.interaction.work.asked
    assert state.header["model"].startswith("tiny-"), "the version that was used"
    window.close_widget()
    again = open_image(open_window(), grey())
    assert "was not saved" not in again.status.text


def test_a_layer_of_the_user_is_noted_with_what_it_held(ready: Any) -> None:
    labels = np.zeros(grey().shape, np.int32)
    labels[:8, :8] = 7
    layer = ready.viewer.add_labels(labels.copy(), name="mine")
    ready.choose(ready.tab.objects, "mine")
    ready.click(*CENTRES[0])
    ready.key(Qt.Key.Key_C)
    (path,) = sessions_folder().glob("*.jsonl")
    (found,) = replayed(path).labels.values()
    assert np.array_equal(found, layer.data)
    assert set(np.unique(found)) == {0, 7, 8}
    ready.viewer.layers.remove(layer)
    ready.idle()
    assert not replayed(path).labels, "it went with its layer"


def test_a_folder_that_cannot_be_written_costs_no_more_than_the_file(ready: Any) -> None:
    sessions_folder().parent.mkdir(parents=True, exist_ok=True)
    sessions_folder().write_text("no folder")
    ready.click(*CENTRES[0])
    ready.key(Qt.Key.Key_C)
    assert objects(ready).any()


def test_values_are_the_same_after_a_file() -> None:
    y, x = np.indices((30, 40))
    pixels = Footprint.of(np.hypot(y - 12, x - 20) < 6)
    asked = Asked(
        Prompts(((1.0, 2.25),), (1,), (0,), (Outline("path", ((0.0, 1.5), (3.0, 4.0)), 0, 1),)),
        ((Prompt(points=[(1.0, 2.25)], mask=pixels.on_plane((), (30, 40))), 2),),
        (Opened(3, (4,), pixels),),
        (Followed(1, (4,), pixels),),
    )
    assert from_plain(json.loads(json.dumps(to_plain(asked)))) == asked
    entry = Entry(made=(Made((2,), Prompts(), "digest", kept=pixels),))
    back = from_plain(json.loads(json.dumps(to_plain(entry), allow_nan=False)))
    assert np.isnan(back.score)
    assert back.made == entry.made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", "not a session"),
        ("no json\n", "cannot be read as a session"),
        (header_of("a", (4, 4), "tiny", ()).replace('sion": 1', 'sion": 9'), "later version"),
        (header_of("a", (10**6, 10**6), "tiny", ()), "larger than fits"),
        (header_of("a", (4, 4), "tiny", ()) + '{"what": "do", "value": {"is": "Popen"}}\n', "line"),
        (header_of("a", (4, 4), "tiny", ()) + '{"what": "do", "value": 3}\n', "line 2"),
        (header_of("a", (4, 4), "tiny", ()) + line_of("begin", (1,)), "line 2"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "some_session.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        replayed(path)
