"""All objects of all frames of a time series by one press: found, linked, stopped, undone."""

import threading
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat import segment
from napari_simmat.annotation.session import Session
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.engine.settings import AutomaticSettings, LinkSettings
from napari_simmat.engine.tracking.linking import LAPTRACK_MISSING
from napari_simmat.widgets.segment.work.all_frames import CANCELED, NO_LAYER, STOPPED, TURNED
from napari_simmat.widgets.segment.work.controller import WAS_STOPPED
from napari_simmat.widgets.segment.work.tracks import TRACKS
from tests.widgets.segment.noted import crash, held, replayed
from tests.widgets.segment.work.test_tracks import PLACES, series


@pytest.fixture
def film(window):
    """Three frames of discs, of which one divides, and *Everything* opened."""
    image, _ = series()
    window.open(image, name="series", axis_labels=("t", "y", "x"))
    window.tab.sections["everything"].set_open(True)
    window.idle()
    return window


def ids(labels: np.ndarray) -> list[list[int]]:
    """The ids at the discs of each frame."""
    return [[int(labels[(n, *place)]) for place in places] for n, places in enumerate(PLACES)]


def until(window: Any, condition: Any) -> None:
    window.qtbot.waitUntil(condition, timeout=180_000)


def test_all_frames_are_found_and_linked_as_by_python(film):
    panel = film.tab.automatic_panel
    film.push(panel.all_frames)
    (one, other), second, third = ids(film.objects)
    assert second == [one, other]
    assert third[0] == one
    assert len({one, other, *third}) == 4, "daughters have ids of their own"
    assert film.viewer.layers[TRACKS].graph == {third[1]: [other], third[2]: [other]}
    assert film.status.text == "7 objects found on 3 frames. 4 tracks, 1 division."
    entries = film.workspace.editor.register.entries
    assert all(entries[label].score > 0 for label in (one, other, *third))

    image, _ = series()
    same = segment(image, axes="TYX", link=True, automatic=AutomaticSettings(), progress=False)
    np.testing.assert_array_equal(same.labels > 0, film.objects > 0)
    pairs = {pair for frames in zip(ids(same.labels), ids(film.objects), strict=True)
             for pair in zip(*frames, strict=True)}  # fmt: skip
    assert len(pairs) == 4, "the same tracks, whatever their numbers"

    film.undo()
    assert not film.objects.any(), "one step"
    film.redo()
    assert ids(film.objects) == [[one, other], second, third]
    film.qtbot.waitUntil(lambda: len(film.viewer.layers[TRACKS].graph) == 2)


@pytest.mark.usefixtures("brief_lessons")
def test_all_frames_of_a_script_are_those_of_the_window(film, tmp_path):
    film.push(film.tab.automatic_panel.all_frames)
    image, _ = series()
    log, settings = tmp_path / "session.jsonl", film.tab.automatic_panel.value()
    series_of = SessionImage.of(image, name="series")
    with Session(series_of, log=log) as session:
        with pytest.raises(ValueError, match="none of them time"):
            session.find_on_frames(settings)
        numbers = session.find_on_frames(settings, link=LinkSettings(axis=0))
        assert numbers == session.objects == film.workspace.editor.labels
        np.testing.assert_array_equal(session.labels, film.objects)
        assert session.find_on_frames(settings, link=LinkSettings(axis=0)) == []
    with Session(series_of, log=log) as session:  # replayed
        np.testing.assert_array_equal(session.labels, film.objects)
        assert session.undo() == "finding of 7 objects"
        assert not session.labels.any()
        session.redo()
        np.testing.assert_array_equal(session.labels, film.objects)


def test_all_frames_come_back_after_a_crash(film):
    film.push(film.tab.automatic_panel.all_frames)
    seen, parents = film.objects.copy(), film.workspace.editor.parents
    state = replayed(crash(film))
    np.testing.assert_array_equal(next(iter(state.labels.values())), seen)
    [entries] = state.entries.values()
    assert {label: each.parent for label, each in entries.items() if each.parent} == parents
    assert len(state.history) == 1


def test_what_is_committed_stays_and_is_linked(film):
    film.add_object(*PLACES[1][1])
    [first] = film.workspace.editor.labels
    mine = film.objects == first
    film.tab.sections["everything"].set_open(True)
    film.push(film.tab.automatic_panel.all_frames)
    assert len(np.unique(film.objects[mine])) == 1
    found = ids(film.objects)
    assert found[0] == found[1], "what was there is a part of its track"
    assert 0 not in found[2]


def test_cancel_keeps_the_frames_that_were_found(window):
    film, image = window, np.repeat(series()[0][:1], 12, axis=0)
    film.open(image + np.arange(12, dtype=np.uint8)[:, None, None], name="series",
              axis_labels=("t", "y", "x"))  # fmt: skip
    film.tab.sections["everything"].set_open(True)
    film.idle()
    panel, frames = film.tab.automatic_panel, film.controller.frames
    film.take(panel.all_frames)
    film.controller.cancel()
    assert film.status.text == CANCELED
    film.idle()
    assert "SimMAT objects" not in film.viewer.layers
    film.take(panel.all_frames)
    until(film, lambda: bool(frames._so_far and frames._so_far.drafts))
    reached = {each.plane[0] for each in frames._so_far.drafts}
    count = len(frames._so_far.drafts)
    film.controller.cancel()
    film.idle()
    assert film.status.text == STOPPED.format(f"{count} objects", len(reached), "12 frames")
    assert {int(frame) for frame in np.nonzero(film.objects)[0]} == reached
    assert TRACKS not in film.viewer.layers
    film.undo()
    assert not film.objects.any(), "one step"


def test_another_image_stops_it_and_says_so(film):
    gate = threading.Event()
    film.controller.inference.worker.submit("held", lambda: held(gate))
    film.take(film.tab.automatic_panel.all_frames)
    film.viewer.add_image(series()[0][0], name="another")
    choice = film.tab.channels.image
    film.qtbot.waitUntil(lambda: choice.findText("another") >= 0)
    assert choice.currentText() == "series", "what is sought keeps the image"
    is_below = choice.findText("another") > choice.currentIndex()
    QTest.keyClick(choice, Qt.Key.Key_Down if is_below else Qt.Key.Key_Up)
    film.qtbot.waitUntil(lambda: film.workspace.session.geometry.name == "another")
    gate.set()
    film.idle()
    assert film.status.text.startswith(WAS_STOPPED.format(image="series"))
    assert not film.controller.frames.busy
    assert "SimMAT objects" not in film.viewer.layers


def test_all_frames_are_refused_before_time_is_spent(film, monkeypatch):
    panel = film.tab.automatic_panel
    film.viewer.add_points([(0, 20, 20)], name="seeds")
    film.idle()
    film.choose(panel.layer, "seeds")
    film.push(panel.all_frames)
    assert film.status.text == NO_LAYER
    film.choose(panel.layer, "none")
    film.viewer.dims.order = (1, 0, 2)
    film.idle()
    assert not panel.all_frames.isVisible(), "time is not on the slider"
    film.viewer.dims.order = (0, 1, 2)
    film.idle()
    monkeypatch.setattr("napari_simmat.engine.tracking.linking.find_spec", lambda _: None)
    film.push(panel.all_frames)
    assert film.status.text == LAPTRACK_MISSING
    assert not film.controller.frames.busy


def test_all_frames_of_a_view_from_the_side_are_refused(window):
    image = np.stack([series()[0]] * 2)
    window.open(image, name="volumes", axis_labels=("t", "z", "y", "x"))
    window.tab.sections["everything"].set_open(True)
    window.viewer.dims.order = (0, 2, 1, 3)
    window.idle()
    window.push(window.tab.automatic_panel.all_frames)
    assert window.status.text == TURNED


def test_all_frames_are_offered_for_time_alone(film):
    button = film.tab.automatic_panel.all_frames
    assert button.isVisible()
    for name, offered in (("z", False), ("s", False), ("t", True)):
        film.viewer.layers["series"].axis_labels = (name, "y", "x")
        film.idle()
        assert button.isVisible() == offered, name
    film.viewer.layers["series"].axis_labels = ("s", "y", "x")
    film.idle()
    film.choose(film.tab.tracks_panel.axis, "s")
    assert not button.isHidden(), "the user says which axis is time"
