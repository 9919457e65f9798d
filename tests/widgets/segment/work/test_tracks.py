"""Objects linked over time in the window: wrong links corrected by hand, undone, saved."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.engine.tracking.linking import DIVIDED_ALREADY, LAPTRACK_MISSING, NOT_LINKED
from napari_simmat.widgets.segment.work.tracks import PICK_TWO, TRACKS, WHICH_AXIS
from tests.widgets.segment.noted import replayed, save_as

LEFT = Qt.MouseButton.LeftButton
PLACES = (((20, 20), (50, 60)), ((22, 22), (50, 63)), ((24, 24), (44, 60), (58, 68)))
"""Centers of the discs on each frame: one moves, the other divides on the last."""


def series() -> tuple[np.ndarray, np.ndarray]:
    """Three frames of discs, and labels that count anew on each."""
    y, x = np.indices((80, 90))
    labels = np.zeros((3, 80, 90), np.int32)
    for frame, places in zip(labels, PLACES, strict=True):
        for number, (row, column) in enumerate(places, start=1):
            radius = 6 if len(places) == 3 and number > 1 else 8
            frame[np.hypot(y - row, x - column) <= radius] = 1 + len(places) - number
    return np.where(labels > 0, 180, 30).astype(np.uint8), labels


@pytest.fixture
def linked(window):
    """The series with its objects, linked."""
    image, labels = series()
    window.viewer.add_image(image, name="series", axis_labels=("t", "y", "x"))
    layer = window.viewer.add_labels(labels, name="cells")
    window.start()
    window.tab.objects.chosen.emit(layer)
    window.tab.sections["tracks"].set_open(True)
    window.idle()
    press(window, "link over time")
    return window


def press(window: Any, name: str) -> None:
    button = window.tab.tracks_panel.buttons[name]
    assert button.isEnabled()
    window.push(button)


def labels_at(window: Any) -> list[list[int]]:
    """The ids at `PLACES`."""
    data = window.viewer.layers["cells"].data
    return [[int(data[(frame, *place)]) for place in places] for frame, places in enumerate(PLACES)]


def pick(window: Any, *at: tuple[int, int]) -> None:
    """Click on objects: (frame, number)."""
    for frame, number in at:
        window.viewer.dims.set_point(0, frame)
        window.idle()
        window.click(*PLACES[frame][number], Qt.KeyboardModifier.ShiftModifier)


def test_link_all_finds_a_division_and_a_link_can_be_corrected(linked):
    (one, other), second, third = labels_at(linked)
    assert second == [one, other]
    assert third[0] == one
    assert len({one, other, *third}) == 4, "daughters have ids of their own"
    tracks = linked.viewer.layers[TRACKS]
    assert tracks.graph == {third[1]: [other], third[2]: [other]}
    assert linked.tab.tracks_panel.summary.text() == "4 tracks, 1 division."
    pick(linked, (1, 1), (2, 2))
    press(linked, "cut link")
    assert labels_at(linked)[2][1] == other, "the other daughter is the cell again"
    assert labels_at(linked)[2][2] not in (one, other)
    assert linked.viewer.layers[TRACKS].graph == {}
    assert not linked.workspace.session.prompt_state.prompts.points
    linked.undo()
    assert labels_at(linked) == [[one, other], second, third]
    linked.qtbot.waitUntil(lambda: len(linked.viewer.layers[TRACKS].graph) == 2)
    for frame in (1, 2):  # undo has brought the points back
        linked.viewer.dims.set_point(0, frame)
        linked.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    pick(linked, (1, 0), (2, 1))
    press(linked, "link")
    moved = labels_at(linked)
    assert moved[2][2] == other, "who has one daughter left does not divide"
    assert linked.viewer.layers[TRACKS].graph == {
        moved[2][0]: [one],
        moved[2][1]: [one],
    }


def test_link_without_objects_or_axis_says_why(linked, monkeypatch):
    (one, other), _, third = labels_at(linked)
    press(linked, "link")
    assert linked.status.text == PICK_TWO
    pick(linked, (1, 0), (2, 1))
    press(linked, "cut link")
    assert linked.status.text == NOT_LINKED.format(one, 1, third[1], 2)
    linked.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    pick(linked, (1, 0))
    linked.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    pick(linked, (1, 1), (2, 0))
    press(linked, "link")
    assert linked.status.text == DIVIDED_ALREADY.format(other)
    monkeypatch.setattr("napari_simmat.engine.tracking.linking.find_spec", lambda _: None)
    press(linked, "link over time")
    assert linked.status.text == LAPTRACK_MISSING


def test_depth_is_not_taken_for_time(window):
    image, labels = series()
    window.open(image, name="stack", axis_labels=("z", "y", "x"))
    tracks = window.tab.entries["tracks"]
    assert not tracks.isVisible(), "tracks are of time series"
    for name in ("t", "z", "t"):
        window.viewer.layers["stack"].axis_labels = (name, "y", "x")
        window.idle()
        assert tracks.isVisible() == (name == "t"), "an open layer's axis is renamed"
    window.viewer.layers.clear()
    window.viewer.add_image(image, name="series", axis_labels=("s", "y", "x"))
    layer = window.viewer.add_labels(labels, name="cells")
    window.idle()
    window.tab.objects.chosen.emit(layer)
    window.idle()
    assert tracks.isVisible()
    press(window, "link over time")
    assert window.status.text == WHICH_AXIS
    assert (layer.data == labels).all()
    window.choose(window.tab.tracks_panel.axis, "s")
    press(window, "link over time")
    assert len(np.unique(layer.data)) == 5


def test_tracks_are_saved_and_restored(linked, tmp_path, monkeypatch):
    path = tmp_path / "s_labels.tif"
    save_as(monkeypatch, path)
    QTest.mouseClick(linked.tab.object_panel.save, LEFT)
    linked.qtbot.waitUntil(lambda: (tmp_path / "s_session.jsonl").exists())
    (one, other), _, (_, third, last) = labels_at(linked)
    rows = [line.split() for line in (tmp_path / "s_res_track.txt").read_text().splitlines()]
    assert {tuple(map(int, row)) for row in rows} == {
        (one, 0, 2, 0),
        (other, 0, 1, 0),
        (third, 2, 2, other),
        (last, 2, 2, other),
    }
    state = replayed(tmp_path / "s_session.jsonl")
    [entries] = state.entries.values()
    assert {label: each.parent for label, each in entries.items() if each.parent} == {
        third: other,
        last: other,
    }
    [restored] = state.labels.values()
    assert (restored == linked.viewer.layers["cells"].data).all()


def test_join_planes_gives_objects_in_3d(window):
    image, labels = series()
    labels[2, labels[2] == 1] = 7
    window.viewer.add_image(image, name="stack", axis_labels=("z", "y", "x"))
    layer = window.viewer.add_labels(labels.copy(), name="cells")
    window.start()
    window.tab.objects.chosen.emit(layer)
    window.tab.sections["stack"].set_open(True)
    window.idle()
    window.pick(window.tab.object_panel.entries["join planes"])
    (one, other), second, third = labels_at(window)
    assert second == [one, other]
    assert third[0] == one
    assert other in third[1:], "nothing divides along depth"
    assert len(set(third)) == 3
    assert window.status.text == "3 objects in 3D; each has one id on all its planes."
    assert TRACKS not in window.viewer.layers
    assert window.workspace.session.time_axis is None
    window.undo()
    np.testing.assert_array_equal(layer.data, labels)
