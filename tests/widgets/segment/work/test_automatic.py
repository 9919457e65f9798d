"""Everything on a plane segmented in the window: one press, sliders, one more press."""

from typing import Any

import numpy as np
import pytest
from dask.array import from_array
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.annotation.lesson import Lesson
from napari_simmat.annotation.proposals import (
    BY_ITSELF,
    COMMIT_FOUND,
    EXPECTED,
    KNOWN,
    LOOSEN,
    looked_for,
)
from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.engine.settings import OBJECT_THRESHOLDS, AutomaticSettings
from napari_simmat.widgets.segment.work.automatic import NO_EXAMPLES
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, discs, gray


@pytest.fixture
def everything(ready):
    """The section, opened, with few seeds; the window shows four discs."""
    tab = ready.tab
    tab.sections["everything"].set_open(True)
    tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    return tab.controller.automatic


def toggle(window: Any, box: Any) -> None:
    box.click()  # its middle is beside its text
    window.idle()


def at_centers(labels: np.ndarray) -> list[int]:
    return [int(labels[int(y), int(x)]) for y, x in CENTERS]


def test_thresholds_of_the_model_are_shown_from_the_start(ready):
    form = ready.tab.automatic_panel.form
    assert (form.options.shown("quality"), form.options.shown("stability")) == OBJECT_THRESHOLDS
    assert form.value().quality is None, "they are not set by hand"


def test_everything_is_found_by_tiny_and_outlined_by_the_model(ready, everything):
    """With slow models this is the quick way; the sliders filter by the chances of tiny."""
    panel = ready.tab.automatic_panel
    by = panel.options["by"]
    panel.set_value(AutomaticSettings())
    by.setCurrentIndex(by.findText("tiny, outlined by the model"))
    ready.push(panel.start)
    found = at_centers(ready.preview)
    assert 0 not in found
    assert len(set(found)) == 4
    candidates = everything.proposals.candidates
    assert candidates.disjoint
    assert candidates.thresholds == OBJECT_THRESHOLDS
    panel.options["min_area"].setValue(100_000)
    ready.idle()
    assert not ready.preview.any()
    assert everything.proposals.candidates is candidates, "nothing was asked again"


def test_everything_is_proposed_filtered_and_committed(ready, everything):
    panel = ready.tab.automatic_panel
    ready.push(panel.start)
    found = at_centers(ready.preview)
    assert 0 not in found
    assert len(set(found)) == 4
    assert ready.status.text == f"{len(np.unique(ready.preview)) - 1} objects found. {COMMIT_FOUND}"
    assert "SimMAT objects" not in ready.viewer.layers, "a preview first"

    encodes = ready.controller.inference.service.encodes
    candidates = everything.proposals.candidates
    panel.options["min_area"].setValue(100_000)
    ready.idle()
    assert not ready.preview.any()
    assert ready.status.text == f"0 objects found. {LOOSEN}"
    panel.options["min_area"].setValue(20)
    ready.idle()
    assert at_centers(ready.preview) == found
    assert everything.proposals.candidates is candidates, "nothing was asked again"
    assert ready.controller.inference.service.encodes == encodes

    ready.push(ready.tab.buttons.commit)
    objects = ready.objects
    _, labels = discs()
    for number, center in enumerate(at_centers(objects), start=1):
        ours, theirs = objects == center, labels == number
        assert (ours & theirs).sum() > 0.8 * (ours | theirs).sum()
    assert not ready.preview.any()
    ready.undo()
    assert not objects.any(), "one step takes all back"
    ready.redo()
    assert len(set(at_centers(objects))) == 4
    assert not ready.preview.any()


@pytest.mark.slow
@pytest.mark.slow
def test_commit_undone_shows_the_proposals_again(ready, everything):
    panel = ready.tab.automatic_panel
    ready.push(panel.start)
    shown, candidates = ready.preview.copy(), everything.proposals.candidates
    ready.viewer.layers.selection.active = ready.viewer.layers["discs"]
    ready.commit()
    assert ready.status.text.startswith("Committed to SimMAT objects")
    assert not ready.tab.buttons.commit.isEnabled()
    ready.undo()
    assert not ready.objects.any()
    assert np.array_equal(ready.preview, shown)
    assert ready.tab.buttons.commit.isEnabled()
    panel.options["min_area"].setValue(100_000)
    ready.idle()
    assert not ready.preview.any(), "the sliders filter them, and nothing is proposed again"
    panel.options["min_area"].setValue(20)
    ready.idle()
    assert everything.proposals.candidates is candidates
    ready.redo()
    assert not ready.preview.any()
    assert np.array_equal(ready.objects > 0, shown > 0)
    ready.undo()
    assert np.array_equal(ready.preview, shown)
    ready.push(ready.tab.buttons.commit)
    assert np.array_equal(ready.objects > 0, shown > 0)


def test_everything_leaves_out_committed_objects(ready, everything):
    ready.push(ready.tab.automatic_panel.start)
    labels = np.zeros((200, 220), np.int32)
    labels[(discs()[1] == 2) & (ready.preview > 0)] = 9
    labels[:, np.nonzero(labels)[1].max() - 2 :] = 0  # its rim is left
    ready.tab.objects.chosen.emit(ready.viewer.add_labels(labels, name="mine"))
    before = labels == 9
    ready.push(ready.tab.buttons.commit)
    assert "1 object mostly on 9 is left out" in ready.status.text
    np.testing.assert_array_equal(labels == 9, before)
    assert set(np.unique(labels)) == {0, *range(9, 9 + len(np.unique(labels)) - 1)}, "no gap"
    assert len(np.unique(labels)) - 2 == 3, "the other three"
    ready.push(ready.tab.automatic_panel.start)
    known = KNOWN.format(count=4, were="were")
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    side = np.exp(np.log(areas).mean() / 2)
    size = EXPECTED.format(objects="4 committed objects", side=side)
    alone = BY_ITSELF.format(met=4, count=4)
    assert ready.status.text == f"0 objects found. {size} {alone} {known} {LOOSEN}"
    assert not ready.preview.any()
    assert not ready.tab.buttons.commit.isEnabled()
    labels[labels == 9] = 0
    ready.viewer.layers["mine"].data = labels.copy()
    ready.push(ready.tab.automatic_panel.start)
    assert [one > 0 for one in at_centers(ready.preview)] == [False, True, False, False]


@pytest.mark.slow
def test_commit_into_a_full_layer_writes_a_new_one_once(ready, everything):
    labels = np.zeros((200, 220), np.uint8)
    labels[CENTERS[0]] = 255
    ready.tab.objects.chosen.emit(ready.viewer.add_labels(labels, name="mine"))
    ready.push(ready.tab.automatic_panel.start)
    ready.push(ready.tab.buttons.commit)
    assert ready.controller.review.has_drafts, "nothing is written yet"
    ready.push(ready.tab.status.offer)
    assert ready.objects[CENTERS[1]]
    assert not ready.controller.review.has_drafts
    assert not ready.preview.any()
    assert not ready.tab.buttons.commit.isEnabled()


@pytest.mark.parametrize("when", nightly_but(("asking", "found"), "found"))
def test_everything_is_dropped_for_another_model(ready, everything, when, other_foundation):
    QTest.mouseClick(ready.tab.automatic_panel.start, Qt.MouseButton.LeftButton)
    if when == "found":
        ready.idle()
        assert ready.tab.buttons.commit.isEnabled()
    ready.tab.models.set_value(other_foundation)
    ready.idle()
    assert everything.proposals is None
    assert not ready.preview.any()
    assert not ready.tab.buttons.commit.isEnabled()


def test_a_click_hides_the_proposals_until_it_is_committed(ready, everything):
    ready.push(ready.tab.automatic_panel.start)
    found = ready.preview.copy()
    ready.click(*CENTERS[0])
    assert (ready.preview > 0).sum() < (found > 0).sum() / 2, "one disc of four"
    ready.commit()
    others = np.where(found == found[CENTERS[0]], 0, found)
    np.testing.assert_array_equal(ready.preview, others, "the object takes its draft away")
    ready.push(ready.tab.buttons.commit)
    assert len(set(at_centers(ready.objects))) == 4
    assert not ready.preview.any()


def test_everything_canceled_is_free_again(ready, everything):
    panel = ready.tab.automatic_panel
    panel.options["points_per_side"].setValue(100)
    QTest.mouseClick(panel.start, Qt.MouseButton.LeftButton)
    ready.qtbot.waitUntil(lambda: ready.status.fraction is not None, timeout=180_000)
    assert not panel.start.isVisible()
    ready.push(ready.tab.status.cancel)
    assert ready.status.kind == "canceled"
    assert everything.proposals is None
    assert panel.start.isVisible()
    ready.click(*CENTERS[0])
    assert ready.preview.any()


@pytest.mark.slow
def test_everything_ends_when_its_image_is_closed(ready, everything):
    panel = ready.tab.automatic_panel
    panel.options["points_per_side"].setValue(100)
    QTest.mouseClick(panel.start, Qt.MouseButton.LeftButton)
    ready.qtbot.waitUntil(lambda: ready.status.fraction is not None, timeout=180_000)
    ready.viewer.layers.remove("discs")
    ready.qtbot.waitUntil(lambda: ready.workspace.session is None)
    assert not everything.proposing


def test_everything_from_points_or_labels_of_a_layer(ready, everything):
    seeds = ready.viewer.add_points(np.array(CENTERS[:2]), name="seeds")
    ready.tab.automatic_panel.layer.set_value(seeds)
    ready.push(ready.tab.automatic_panel.start)
    assert len(everything.proposals.candidates) == 2 * 4, "an answer and three alternatives each"
    assert [one > 0 for one in at_centers(ready.preview)] == [True, True, False, False]
    seeds.data = np.array([[-50.0, -50.0]])
    ready.push(ready.tab.automatic_panel.start)
    assert ready.status.kind == "failed"
    assert "seeds has no point on this plane" in ready.status.text
    lazy = ready.viewer.add_labels(from_array(discs()[1]), name="lazy")
    ready.tab.automatic_panel.layer.set_value(lazy)
    ready.push(ready.tab.automatic_panel.start)
    assert 0 not in at_centers(ready.preview)


def test_like_mine_without_examples_says_so(ready, everything):
    panel = ready.tab.automatic_panel
    ready.push(panel.start)
    before = len(np.unique(ready.preview)) - 1
    toggle(ready, panel.like_mine)
    assert ready.status.text == f"{before} objects found. {COMMIT_FOUND} {NO_EXAMPLES}"
    toggle(ready, panel.like_mine)
    ready.push(ready.tab.buttons.clear)
    assert not ready.preview.any()
    assert not ready.tab.buttons.commit.isEnabled()
    assert everything.proposals is None


def test_like_mine_compares_with_the_plane_of_most_objects(window):
    _, labels = discs()
    dark = np.where(labels == 4, 30, gray()).astype(np.uint8)
    window.open(np.stack([gray(), dark]), name="stack")
    panel = window.tab.automatic_panel
    window.tab.sections["everything"].set_open(True)
    panel.set_value(AutomaticSettings(points_per_side=6))
    objects = np.stack([np.where(labels < 4, labels, 0), np.zeros_like(labels)])
    window.workspace.use_objects(window.viewer.add_labels(objects, name="mine"))
    window.show_plane(1)
    window.push(panel.start)
    assert 0 not in at_centers(window.preview[1]), "the dark disc too"
    whole = len(np.unique(window.preview)) - 1
    toggle(window, panel.like_mine)
    found = at_centers(window.preview[1])
    assert 0 not in found[:3]
    assert found[3] == 0, "unlike the bright ones"
    left = len(np.unique(window.preview)) - 1
    assert f"{left} of {whole} objects are like the committed ones" in window.status.text


def test_words_for_a_model_without_them_are_refused(ready, everything):
    """As when a session is read back that another model worked on."""
    everything.start(AutomaticSettings(words="leaf"))
    ready.idle()
    assert ready.status.kind == "failed"
    assert "reads no words, but was asked for 'leaf'" in ready.status.text


def test_field_for_words_starts_the_search(ready, everything, monkeypatch):
    panel = ready.tab.automatic_panel
    assert not panel.form.words_row.isVisibleTo(panel)
    panel.form.show_model(sam_spec("mine", "sam3", ""))
    assert panel.form.words_row.isVisibleTo(panel)
    asked = []
    monkeypatch.setattr(everything, "start", lambda *given, **more: asked.append(given))
    panel.form.words.setText("leaf")
    panel.form.words.textEdited.emit("leaf")
    QTest.keyClick(panel.form.words, Qt.Key.Key_Return)
    ready.idle()
    ((settings, *_),) = asked
    assert settings.words == "leaf"


@pytest.mark.parametrize(
    ("words", "taught", "sentence"),
    [
        ("leaf", False, "Looked for: leaf."),
        ("leaf", True, "Looked for: leaf and what is like 3 committed objects."),
        ("visual", True, "Looked for: what is like 3 committed objects."),
    ],
)
def test_what_was_looked_for_is_said(words, taught, sentence):
    lesson = Lesson((), np.array([[1, 2, 3]])) if taught else None
    assert looked_for(words, lesson, ()) == sentence


def test_few_of_many_spots_name_settings_that_find_them(ready, everything):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 3, (160, 160))
    image[8::16, 8::16] += 60
    image[9::16, 8::16] += 60
    ready.viewer.layers.clear()
    ready.viewer.add_image(image, scale=(0.3, 0.3), units=("um", "um"))
    ready.idle()
    ready.push(ready.tab.automatic_panel.start)
    said = ready.status.text
    assert "bright spots of some" in said
    assert "Where to look: at bright spots, Between spots: 2" in said
    assert "vit_b_lm (419 MB, license CC-BY-4.0)" in said
