"""All objects of all frames of a time series by one press: found, linked, stopped, undone."""

from typing import Any

import numpy as np
import pytest

from napari_simmat import segment
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.engine.tracking.linking import LAPTRACK_MISSING
from napari_simmat.widgets.segment.work.all_frames import CANCELED, NO_LAYER, STOPPED, TURNED
from napari_simmat.widgets.segment.work.controller import WAS_STOPPED
from napari_simmat.widgets.segment.work.tracks import TRACKS
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
    assert len(np.unique(film.objects)) == 8, "the objects, not linked"
    film.undo()
    assert not film.objects.any()
    film.redo(2)
    assert ids(film.objects) == [[one, other], second, third]


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


def test_cancel_keeps_the_frames_that_were_found(film):
    panel, frames = film.tab.automatic_panel, film.controller.frames
    film.take(panel.all_frames)
    film.controller.cancel()
    assert film.status.text == CANCELED
    film.idle()
    assert "SimMAT objects" not in film.viewer.layers
    film.take(panel.all_frames)
    until(film, lambda: frames._so_far is not None)
    reached = {each.plane[0] for each in frames._so_far.drafts}
    count = len(frames._so_far.drafts)
    film.controller.cancel()
    film.idle()
    assert film.status.text == STOPPED.format(f"{count} objects", len(reached), "3 frames")
    assert {int(frame) for frame in np.nonzero(film.objects)[0]} == reached
    assert TRACKS not in film.viewer.layers
    film.undo()
    assert not film.objects.any(), "one step"


def test_another_image_stops_it_and_says_so(film):
    film.take(film.tab.automatic_panel.all_frames)
    film.viewer.add_image(np.zeros((60, 60), np.uint8), name="another")
    film.idle()
    film.choose(film.tab.channels.image, "another")
    if film.status.text:
        assert WAS_STOPPED.format(image="series") in film.status.text
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
    film.push(panel.all_frames)
    assert film.status.text == TURNED
    film.viewer.dims.order = (0, 1, 2)
    film.idle()
    monkeypatch.setattr("napari_simmat.engine.tracking.linking.find_spec", lambda _: None)
    film.push(panel.all_frames)
    assert film.status.text == LAPTRACK_MISSING
    assert not film.controller.frames.busy


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
