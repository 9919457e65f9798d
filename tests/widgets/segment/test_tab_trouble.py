"""What goes wrong is one sentence; nothing is lost, and the window is ready again."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.work.controller import SEGMENT
from tests.nightly import nightly_but
from tests.widgets.conftest import SECONDS
from tests.widgets.gate import Gate, click_without_waiting
from tests.widgets.scenes import CENTERS, discs, gray, iou


@pytest.mark.parametrize("case", ["flat", "multiscale"])
def test_objects_of_other_pixels_are_refused_by_every_action(window, case):
    flat = discs()[1]
    window.viewer.add_image(np.stack([gray()] * 3), name="stack")
    levels = [np.stack([flat] * 3)[:, ::step, ::step] for step in (1, 2)]
    data: Any = flat if case == "flat" else levels
    layer = window.viewer.add_labels(data, name="mine", multiscale=case == "multiscale")
    window.start()
    window.tab.objects.chosen.emit(layer)
    window.click(*CENTERS[0])
    window.hover(*CENTERS[0])
    tab, actions = window.tab, window.controller.objects
    for act in (
        *(actions.edit, actions.delete, actions.merge, actions.split),
        lambda: tab.object_panel.table.visited.emit(1),
        lambda: tab.act("save"),
    ):
        window.workspace.say("")
        act()
        assert window.status.kind == "failed"
        words = "has 200 x 220 pixels, the image 3 x 200 x 220" if case == "flat" else "multiscale"
        assert words in window.status.text
    window.double_click(*CENTERS[0])
    tab.masks.chosen.emit(layer)
    window.idle()
    assert np.array_equal(flat, discs()[1])


@pytest.mark.parametrize(
    "case", nightly_but(("full", "shape", "transform", "read only"), "full", "transform")
)
def test_commit_into_an_unfit_layer_offers_a_new_one(ready, case):
    data = np.zeros((200, 220), dtype=np.uint8)
    data[0, 0] = 255 if case == "full" else 3
    options: dict[str, Any] = {"translate": (5, 5)} if case == "transform" else {}
    if case == "shape":
        data = data[:-1]
    if case == "read only":
        data.flags.writeable = False
    before = data.copy()
    layer = ready.viewer.add_labels(data, name="mine", **options)
    ready.tab.objects.chosen.emit(layer)
    ready.click(*CENTERS[1])
    ready.tab.act("commit")
    words = {
        "full": "mine holds ids up to 255 (uint8) and the next one would be 256",
        "shape": "mine has 199 x 220 pixels, the image 200 x 220",
        "transform": "mine has another scale, translate or affine than the image",
        "read only": "mine is not writable",
    }
    assert ready.status.kind == "failed"
    assert ready.status.text == f"{words[case]}; commit into a new layer instead."
    assert np.array_equal(data, before)
    assert len(ready.workspace.prompt_layers.points.data) == 1, "the prompts stay"
    assert ready.tab.status.offer.isVisible()
    ready.tab.status.offer.click()
    ready.idle()
    objects = ready.viewer.layers["SimMAT objects"]
    assert objects.data.dtype == np.int32
    assert iou(objects.data == 1, discs()[1] == 2) > 0.8
    assert ready.workspace.objects is objects


def test_cancel_frees_the_window_and_drops_the_result(ready):
    gate = Gate(ready, *CENTERS[1])
    ready.qtbot.waitUntil(lambda: ready.status.fraction == 0.25)
    assert ready.status.kind == "working"
    assert ready.status.text == "Encoding block 1 of 4"
    ready.qtbot.waitUntil(ready.tab.status.cancel.isVisible)
    ready.tab.status.cancel.click()
    assert ready.status.kind == "canceled", "at once, while the computation still runs"
    assert ready.status.offer == SEGMENT
    assert not gate.ended.is_set()
    gate.open.set()
    assert gate.ended.wait(SECONDS / 1000)
    ready.idle()
    assert ready.status.kind == "canceled"
    assert not ready.preview.any()
    assert len(ready.workspace.prompt_layers.points.data) == 1
    ready.push(ready.tab.status.offer)
    assert iou(ready.mask, discs()[1] == 2) > 0.8


def test_click_during_a_prediction_replaces_it(ready):
    gate = Gate(ready, *CENTERS[0])
    click_without_waiting(ready, *CENTERS[0])
    ready.workspace.prompt_layers.points.data = np.array([CENTERS[1]], dtype=float)
    ready.qtbot.waitUntil(lambda: not ready.workspace.prompt_layers.pending)
    gate.release()
    assert iou(ready.mask, discs()[1] == 2) > 0.8
    assert ready.controller.inference.service.encodes == 1


def test_model_error_is_one_sentence_and_the_next_click_works(ready):
    service = ready.controller.inference.service
    original = service.predict_job

    def failing(question, **named):
        yield Progress(0, 1)
        raise RuntimeError("the sensor is on fire\nTraceback and more")

    service.predict_job = failing
    ready.click(*CENTERS[1])
    assert ready.status.kind == "failed"
    assert "the sensor is on fire" in ready.status.text
    assert "\n" not in ready.status.text
    service.predict_job = original
    ready.key(Qt.Key.Key_S)
    assert ready.status.kind == "done"


def test_tab_without_an_image_does_nothing(window):
    window.open_widget()
    assert window.status.kind == "nothing"
    assert "No image is open" in window.status.text
    for button in (
        window.tab.buttons.tools["point"],
        window.tab.buttons.commit,
        window.tab.buttons.undo,
    ):
        assert not button.isEnabled()
    window.tab.act("commit")
    window.tab.act("undo")
    window.tab.act("clear")
    window.tab.act("segment")
    window.viewer.add_image(gray(), name="discs")
    window.idle()
    assert window.status.kind == "ready"


def test_image_deleted_during_work_ends_it(ready):
    gate = Gate(ready, *CENTERS[1])
    ready.viewer.layers.remove("discs")
    gate.release()
    assert ready.status.kind == "nothing"
    ready.viewer.add_image(gray(), name="again")
    ready.idle()
    ready.click(*CENTERS[1])
    assert iou(ready.mask, discs()[1] == 2) > 0.8


@pytest.mark.parametrize("name", nightly_but(("SimMAT points", "SimMAT preview"), "SimMAT preview"))
def test_own_layer_deleted_during_work_is_made_again(ready, name):
    ready.click(*CENTERS[0])
    gate = Gate(ready, CENTERS[0][0] + 3, CENTERS[0][1])
    ready.viewer.layers.remove(name)
    gate.release()
    assert len(ready.viewer.layers["SimMAT points"].data) == 2, "no prompt is lost"
    assert ready.mask.any()
    ready.commit()
    assert iou(ready.objects == 1, discs()[1] == 1) > 0.8


def test_image_data_replaced_during_work_drop_the_result(ready):
    gate = Gate(ready, *CENTERS[1])
    ready.viewer.layers["discs"].data = gray()[::-1].copy()
    gate.release()
    assert len(ready.workspace.prompt_layers.points.data) == 1
    shown = ready.preview.copy()
    ready.tab.act("clear")
    ready.idle()
    ready.click(*CENTERS[1])
    assert np.array_equal(ready.preview, shown), "of the new data"
    assert ready.controller.inference.service.encodes == 2


def test_channel_reshaped_during_work_is_refused(window):
    for name in "abc":
        window.viewer.add_image(gray(), name=name)
    window.start()
    chosen = window.tab.channels.value()
    window.tab.channels.set_value(chosen)
    gate = Gate(window, *CENTERS[1])
    window.viewer.layers["b"].data = gray()[:-1]
    gate.release()
    assert window.status.kind == "failed"
    assert window.status.text == (
        "b has 199 x 220 pixels, but a has 200 x 220: choose layers of one size."
    )
    assert not window.preview.any()
    window.viewer.layers["b"].data = gray()
    window.idle()
    assert iou(window.mask, discs()[1] == 2) > 0.8


def test_image_moved_takes_its_prompts_along(ready):
    ready.click(*CENTERS[1])
    asked = ready.workspace.session.prompts
    mask = ready.preview.copy()
    ready.viewer.layers["discs"].translate = (1000, 0)
    ready.idle()
    assert ready.workspace.session.prompts == asked
    points = ready.viewer.layers["SimMAT points"]
    assert ready.viewer.layers.selection.active is points
    assert points.mode == "add", "the tool is still in the hand"
    assert np.allclose(points.translate, (1000, 0))
    assert len(points.data) == 1
    assert np.array_equal(ready.preview, mask)
    assert np.allclose(ready.viewer.layers["SimMAT preview"].translate, (1000, 0))


def test_layers_renamed_and_reordered_stay_in_use(ready):
    ready.click(*CENTERS[0])
    ready.viewer.layers["SimMAT points"].name = "dots"
    ready.viewer.layers["discs"].name = "coins"
    ready.viewer.layers.move(0, len(ready.viewer.layers))
    ready.idle()
    ready.commit()
    assert ready.objects.any()
    assert "coins" in ready.tab.channels.image.currentText()


@pytest.mark.slow
@pytest.mark.real_window
def test_shortcut_after_a_button_or_a_list_acts(ready):
    ready.click(*CENTERS[0])
    ready.activate()
    ready.tab.sections["model"].set_open(True)
    for control in (ready.tab.buttons.clear, ready.tab.models.choice):
        QTest.mouseClick(control, Qt.MouseButton.LeftButton)
        popup = QApplication.activePopupWidget()
        if popup is not None:
            popup.close()
        ready.idle()
        assert not control.hasFocus()


@pytest.mark.slow
@pytest.mark.real_window
def test_shortcuts_on_other_layers_are_napari_keys(ready):
    """With a window, as without one napari binds no keys to its tools."""
    mine = ready.viewer.add_points(np.array([[5.0, 5.0]]), name="mine")
    mine.mode = "add"
    ready.viewer.layers.selection.active = mine
    ready.key(Qt.Key.Key_S)
    assert mine.mode == "select"


def test_release_gives_back_keys_and_events(ready):
    ready.add_object(*CENTERS[0])
    layers = [each for each in ready.viewer.layers if each.name.startswith("SimMAT")]
    assert all(layer.keymap for layer in layers)
    assert ready.viewer.keymap
    ready.widget.release()
    assert not any(layer.keymap for layer in ready.viewer.layers)
    assert not ready.viewer.keymap
    assert ready.tab._on_double_click not in ready.viewer.mouse_double_click_callbacks
    ready.qtbot.waitUntil(lambda: "SimMAT preview" not in ready.viewer.layers)
    names = [layer.name for layer in ready.viewer.layers]
    assert {"SimMAT objects", "SimMAT points", "discs"} <= set(names), "the user's work stays"
    ready.viewer.layers["SimMAT points"].add((5, 5))
    ready.viewer.layers.clear()


@pytest.mark.slow
@pytest.mark.real_window
def test_viewer_closed_during_work_leaves_no_thread(ready):
    gate = Gate(ready, *CENTERS[0])
    worker = ready.controller.inference.worker
    ready.widget = None
    ready.viewer.close()
    gate.open.set()
    QApplication.processEvents()
    ready.qtbot.waitUntil(lambda: not worker.alive, timeout=SECONDS)
