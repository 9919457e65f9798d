"""Everything learns from committed objects what to look for, and from marks where none is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers._source import layer_source
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog

from napari_simmat.annotation.lesson import (
    Lesson,
    examples,
    ground_marked,
    lesson_of,
)
from napari_simmat.annotation.prompt_state import Outline, Prompts
from napari_simmat.annotation.proposals import (
    BY_ITSELF,
    EXPECTED,
    EXPECTED_ALIKE,
    EXPECTED_LOOKS,
    HARDLY,
    MORE_GROUND,
    expected,
    found_by_itself,
)
from napari_simmat.engine.everything import kind_learning, mask_proposals
from napari_simmat.engine.everything.candidates import Instances
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.widgets.segment.layers.labeled_region import WITHOUT_REGION
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.work.automatic import EXPECTED_BY_MODEL
from napari_simmat.widgets.segment.work.learning import KEPT
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, discs, gray, iou
from tests.widgets.segment.noted import crash, open_image, restore

OPEN_GROUND = ((100, 20), (100, 200), (20, 110))
THREE = "3 committed objects"
ALL_THREE = BY_ITSELF.format(met=3, count=3)


pytestmark = pytest.mark.usefixtures("brief_lessons")


@pytest.fixture
def taught(ready: Any) -> Any:
    """The window with four discs, of which three are committed."""
    window = ready
    window.tab.sections["everything"].set_open(True)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    for center in CENTERS[:3]:
        window.add_object(*center)
    assert len(np.unique(window.objects)) == 4
    return window


def start(window: Any) -> None:
    window.push(window.tab.automatic_panel.start)


def says_size(window: Any, objects: str) -> bool:
    """Whether the status line names the expected size; the discs are 52 pixels across."""
    return any(EXPECTED.format(objects=objects, side=n) in window.status.text for n in (51, 52))


def says_looks(window: Any) -> bool:
    texts = (EXPECTED_LOOKS.format(objects=THREE, side=side) for side in (51, 52))
    return any(text in window.status.text for text in texts)


def mark_ground(window: Any) -> None:
    window.key(Qt.Key.Key_T)
    for at in OPEN_GROUND:
        window.click(*at)


@pytest.mark.slow
def test_size_of_three_committed_objects_is_expected(taught):
    start(taught)
    assert says_size(taught, THREE)
    assert ALL_THREE in taught.status.text
    _, labels = discs()
    fourth = labels == 4
    found = taught.preview[CENTERS[3]]
    assert found
    assert iou(taught.preview == found, fourth) > 0.8


def test_decoder_is_tuned_and_goes_on_to_the_next_image(taught_file, tmp_path, monkeypatch):
    """With the settings of a newcomer, under which the decoder finds all objects."""
    window = taught_file
    window.tab.automatic_panel.set_value(AutomaticSettings())
    start(window)
    assert EXPECTED_ALIKE.format(objects=THREE) in window.status.text
    assert ALL_THREE not in window.status.text, "it was shown these"
    assert window.preview[CENTERS[3]]
    monkeypatch.setattr(kind_learning, "tune_decoder_job", None)  # it is tuned already
    window.tab.automatic_panel.draft_next.click()
    open_file(window, tmp_path / "one" / "b.tif")
    assert EXPECTED_ALIKE.format(objects=f"{THREE} of a") in window.status.text
    assert all(window.preview[center] for center in CENTERS)


@pytest.mark.slow
def test_nothing_is_expected_without_the_tick_or_objects(ready):
    ready.tab.sections["everything"].set_open(True)
    start(ready)
    assert "Expected" not in ready.status.text


def test_the_tick_off_expects_nothing(taught):
    taught.tab.automatic_panel.expect_mine.click()
    start(taught)
    assert "Expected" not in taught.status.text


@pytest.mark.slow
def test_negative_marks_alone_are_taken_for_ground(taught):
    mark_ground(taught)
    assert "ground" in taught.status.text
    start(taught)
    assert says_looks(taught)
    session = taught.workspace.session
    assert not session.prompt_state.prompts
    assert taught.workspace.prompt_layers.positive
    [marked] = session.drafts.ground
    assert all(marked.mask.on_plane((), gray().shape)[at] for at in OPEN_GROUND)
    assert taught.preview[CENTERS[3]]

    taught.undo()
    assert session.drafts.ground == ()
    assert len(session.prompt_state.prompts.points) == 3, "they are marks again"
    taught.redo()
    assert session.drafts.ground == (marked,)


@pytest.mark.parametrize("in_a_region", nightly_but((False, True), True))
def test_what_is_unlabeled_where_all_is_labeled_is_ground(taught, in_a_region):
    window, panel = taught, taught.tab.learn_panel
    window.tab.sections["learn"].set_open(True)
    panel.complete.click()
    if in_a_region:
        corner = np.array([[0, 0], [0, 110], [100, 110], [100, 0]])
        window.viewer.add_shapes([corner], shape_type="rectangle", name="labeled")
        window.idle()
        window.choose(panel.region, "labeled")
    start(window)
    assert says_looks(window)
    assert bool(window.preview[CENTERS[3]]) == in_a_region, "elsewhere it is said to be ground"
    assert window.workspace.session.drafts.ground == (), "nothing was marked"


def test_region_without_a_shape_there_is_refused(taught):
    panel = taught.tab.learn_panel
    start(taught)
    drafts = taught.workspace.session.drafts.open
    assert drafts
    taught.tab.sections["learn"].set_open(True)
    panel.complete.click()
    taught.viewer.add_shapes([], name="labeled")
    taught.idle()
    taught.choose(panel.region, "labeled")
    start(taught)
    assert taught.status.text == WITHOUT_REGION.format("labeled")
    assert taught.workspace.session.drafts.open == drafts, "a refusal takes nothing away"


def test_too_little_ground_is_said():
    labels, ground = np.zeros((30, 30), int), np.zeros((30, 30), bool)
    labels[:6, :6], labels[10:16, :6], labels[20:26, :6] = 1, 2, 3
    ground[0, 10:20] = True
    text = expected(Lesson((), labels, ground))
    assert text == f"{EXPECTED.format(objects=THREE, side=6)} {MORE_GROUND}"
    ground[:6, 10:20] = True
    assert expected(Lesson((), labels, ground)) == EXPECTED_LOOKS.format(objects=THREE, side=6)


@pytest.mark.slow
def test_canceled_lesson_is_not_remembered(taught_file, tmp_path):
    window = taught_file
    window.tab.automatic_panel.draft_next.click()
    window.tab.automatic_panel.start.click()
    window.controller.automatic.cancel()
    window.idle()
    open_file(window, tmp_path / "one" / "b.tif")
    start(window)
    assert "Expected" not in window.status.text


def keep(window: Any, name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: (name, True))
    window.take(window.tab.learn_panel.keep)
    window.qtbot.waitUntil(lambda: not window.tab.learning.busy)
    window.idle()


def test_what_everything_was_taught_is_kept_as_model(taught, monkeypatch):
    """Another image is then segmented by the same kind, without objects on it."""
    window, panel = taught, taught.tab.learn_panel
    assert panel._outcome.isHidden()
    mark_ground(window)
    start(window)
    window.tab.sections["learn"].set_open(True)
    assert panel.keep.isVisibleTo(panel)
    assert not panel.before.isVisibleTo(panel), "nothing was learned that clicks use"
    assert panel.result.text() in window.status.text
    expected_labels = window.preview.copy()
    for name in ("tiny", "discs"):  # the first name is taken
        keep(window, name, monkeypatch)
    assert window.status.text == KEPT.format("discs")
    window.tab.models.set_value("discs")
    window.idle()
    assert panel._outcome.isHidden(), "another model was taught nothing here"
    window.tab.automatic_panel.expect_mine.click()
    start(window)
    assert EXPECTED_BY_MODEL in window.status.text
    assert ALL_THREE in window.status.text
    np.testing.assert_array_equal(window.preview > 0, expected_labels > 0)


@pytest.mark.slow
def test_given_size_is_no_kind_that_the_model_was_taught(taught):
    taught.tab.automatic_panel.expect_mine.click()
    taught.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6, object_side=50))
    start(taught)
    assert EXPECTED_BY_MODEL not in taught.status.text


@pytest.mark.slow
def test_new_ground_weighs_the_same_masks(taught, monkeypatch):
    start(taught)
    monkeypatch.setattr(mask_proposals, "propose_masks_job", None)
    mark_ground(taught)
    start(taught)
    assert says_looks(taught)
    assert taught.preview[CENTERS[3]]


@pytest.mark.slow
def test_next_image_expects_nothing_unless_wanted(taught_file, tmp_path):
    """It may be of another magnification."""
    window = taught_file
    start(window)
    open_file(window, tmp_path / "one" / "b.tif")
    assert not window.preview.any()
    start(window)
    assert "Expected" not in window.status.text


def test_next_image_is_drafted_at_once_if_wanted(taught_file, tmp_path):
    window = taught_file
    start(window)
    window.tab.automatic_panel.draft_next.click()
    open_file(window, tmp_path / "one" / "b.tif")
    assert says_size(window, f"{THREE} of a")
    assert window.preview[CENTERS[3]]
    window.push(window.tab.buttons.clear)
    window.idle()
    assert not window.preview.any(), "it begins only once"
    open_file(window, tmp_path / "two" / "c.tif")
    assert "Expected" not in window.status.text


def wait_for_ahead(window: Any) -> None:
    window.qtbot.waitUntil(lambda: not window.controller.automatic.proposing_ahead)


@pytest.fixture
def taught_stack(window: Any) -> Any:
    """The same with a stack of four planes, of which the first has the objects."""
    window.viewer.add_image(np.stack([gray()] * 4), name="stack")
    window.open_widget()
    window.viewer.dims.set_current_step(0, 0)
    window.idle()
    window.tab.sections["everything"].set_open(True)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    for center in CENTERS[:3]:
        window.add_object(*center)
    return window


def go_to(window: Any, plane: int) -> None:
    window.viewer.dims.set_current_step(0, plane)
    window.idle()


@pytest.mark.slow
def test_next_plane_is_drafted_by_itself_if_wanted(taught_stack, monkeypatch):
    window, tick = taught_stack, taught_stack.tab.automatic_panel.draft_next
    start(window)
    go_to(window, 1)
    assert window.workspace.session.drafts.place == ((), (0,)), "nothing was wanted yet"
    go_to(window, 0)
    tick.click()
    wait_for_ahead(window)
    window.push(window.tab.buttons.commit)
    window.idle()
    with monkeypatch.context() as computed:
        computed.setattr(mask_proposals, "propose_masks_job", None)
        go_to(window, 1)
    session = window.workspace.session
    assert session.drafts.place == ((), (1,))
    assert len(session.drafts.open) == 4, "what was committed lies on another plane"
    assert says_size(window, f"{THREE} of stack")


def test_a_plane_with_drafts_or_objects_is_left_alone(taught_stack):
    window, session = taught_stack, taught_stack.workspace.session
    window.tab.automatic_panel.draft_next.click()
    start(window)
    go_to(window, 2)
    assert session.drafts.place == ((), (0,)), "open drafts wait"
    go_to(window, 0)
    window.push(window.tab.buttons.clear)
    window.idle()
    go_to(window, 1)
    assert session.drafts.place == ((), (1,))
    window.push(window.tab.buttons.clear)
    window.idle()
    go_to(window, 0)
    assert session.drafts.place is None, "it has objects"
    go_to(window, 1)
    assert session.drafts.place is None, "it begins only once"


def test_images_of_a_folder_are_drafted_ahead(window, tmp_path, monkeypatch):
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.clip(gray(), 0, 240) + np.uint8(number))
    window.open_widget()
    window.tab.encoding_panel.ahead.setChecked(True)
    window.tab.folder_panel.folder.set_value(str(tmp_path))
    window.qtbot.waitUntil(lambda: len(window.controller.inference.service.cache) == 2)
    window.idle()
    window.tab.sections["everything"].set_open(True)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    for center in CENTERS[:3]:
        window.add_object(*center)
    window.tab.automatic_panel.draft_next.click()
    start(window)
    wait_for_ahead(window)
    window.push(window.tab.buttons.commit)
    window.idle()
    with monkeypatch.context() as computed:
        computed.setattr(mask_proposals, "propose_masks_job", None)
        window.key(Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
        window.idle()
    assert "1.tif" in window.tab.folder_panel.place.text()
    assert len(window.workspace.session.drafts.open) == 4
    assert says_size(window, f"{THREE} of 0")
    wait_for_ahead(window)


@pytest.fixture
def taught_file(ready: Any, tmp_path: Path) -> Any:
    """The same, with images from files of two folders."""
    open_file(ready, tmp_path / "one" / "a.tif")
    ready.tab.sections["everything"].set_open(True)
    ready.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    for center in CENTERS[:3]:
        ready.add_object(*center)
    return ready


def open_file(window: Any, path: Path) -> None:
    window.viewer.layers.clear()
    with layer_source(path=str(path)):
        window.viewer.add_image(gray(), name=path.stem)
    window.idle()


@pytest.mark.slow
def test_ground_is_there_after_a_crash(open_window):
    first = open_image(open_window(), gray())
    for center in CENTERS[:3]:
        first.add_object(*center)
    first.tab.sections["everything"].set_open(True)
    first.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    mark_ground(first)
    start(first)
    assert first.workspace.session.drafts.ground
    crash(first)
    second = open_image(open_window(), gray())
    restore(second)
    before, after = (each.workspace.session.drafts for each in (first, second))
    assert after.ground == before.ground
    assert after.open == before.open


def test_objects_that_are_hardly_found_are_to_be_boxed():
    committed = np.zeros((10, 50), np.int32)
    for number in range(5):
        committed[:8, 10 * number : 10 * number + 8] = number + 1
    instances = Instances(np.where(committed == 2, 1, 0).astype(np.uint32), np.ones(1, np.float32))
    text = f"{BY_ITSELF.format(met=1, count=5)} {HARDLY}"
    assert found_by_itself(instances, committed) == text
    assert found_by_itself(instances, np.zeros_like(committed)) == ""


def test_a_line_and_points_are_widened():
    line = Outline("path", ((10.0, 5.0), (10.0, 25.0)), label=0)
    prompts = Prompts(points=((30.0, 30.0),), labels=(0,), groups=(0,), outlines=(line,))
    found = ground_marked(prompts, (), (), (40, 40), side=8.0)
    expected = np.zeros((40, 40), bool)
    y, x = np.indices((40, 40))
    expected |= (y - 30) ** 2 + (x - 30) ** 2 <= 4
    along = np.clip(x, 5, 25)
    expected |= (y - 10) ** 2 + (x - along) ** 2 <= 4
    np.testing.assert_array_equal(found.mask.on_plane((), (40, 40)), expected)


def test_line_around_ground_marks_what_it_encloses():
    line = ((5.0, 5.0), (5.0, 35.0), (35.0, 35.0), (35.0, 5.0), (5.0, 5.0))
    prompts = Prompts(outlines=(Outline("path", line, label=0),))
    found = ground_marked(prompts, (), (), (40, 40), side=8.0)
    assert found.mask.on_plane((), (40, 40))[5:36, 5:36].all()


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(),
        Prompts(points=((3.0, 3.0), (9.0, 9.0)), labels=(1, 0), groups=(0, 0)),
        Prompts(
            points=((3.0, 3.0),),
            labels=(0,),
            groups=(0,),
            outlines=(Outline("rectangle", ((0.0, 0.0), (0.0, 5.0), (5.0, 5.0), (5.0, 0.0))),),
        ),
        Prompts(outlines=(Outline("path", ((1.0, 1.0), (5.0, 5.0)), label=1),)),
    ],
    ids=["nothing", "a correction", "a box", "a positive scribble"],
)
def test_other_prompts_are_no_ground(prompts):
    assert ground_marked(prompts, (), (), (40, 40), side=8.0) is None


def test_objects_whose_boxes_reach_a_plane_are_not_on_it(ready):
    """Three boxes reach the middle plane, on which only one object has pixels."""
    labels = np.zeros((3, 40, 40), np.int32)
    labels[:, 2:8, 2:8] = 1
    labels[0, 12:18, 2:8] = labels[2, 12:18, 2:8] = 2
    labels[0, 22:28, 2:8] = labels[2, 22:28, 2:8] = 3
    editor = LayerEditor(ready.viewer.add_labels(labels, name="boxes"), print, print)
    assert editor.masks_on_planes()[1,] == 3
    found = examples(editor, (), (1,))
    assert found.plane == (0,), "the one with the most"
    np.testing.assert_array_equal(found.labels, labels[0])
    assert lesson_of(editor, (), (), (2,)).plane == (2,)
    editor.release()
