"""On a large image the first masks come from a part of it; the whole is encoded meanwhile."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine import detail_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.refinement import Refiner
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.work.controller import REFINED
from napari_simmat.widgets.segment.work.large_plane import PART, PART_ALONE, WRITTEN_CUT
from napari_simmat.widgets.segment.work.plane_status import CUT, STOP_ENCODING
from tests.widgets.scenes import CENTERS, discs, gray, iou

CLICK = CENTERS[1]


@pytest.fixture
def encode_whole(window, monkeypatch):
    """The viewer with an image that counts as large; setting the event lets it be encoded."""
    monkeypatch.setattr(detail_windows, "PART_SIDE", 128)
    gate, original = threading.Event(), InferenceService.encode_job

    def held(*arguments):
        while not gate.wait(0.005):
            yield Progress(1, 4, "encoding")
        return (yield from original(*arguments))

    monkeypatch.setattr(InferenceService, "encode_job", held)
    window.viewer.add_image(np.tile(gray(), (2, 2)), name="slide")
    window.open_widget()
    window.qtbot.waitUntil(lambda: PART in window.status.text)
    yield gate
    gate.set()


def click(window, y, x):
    """Click and wait for the mask, not for what is encoded in the background."""
    window.take(window.tab.buttons.tools["point"])
    window.press(y, x)
    window.qtbot.waitUntil(lambda: window.mask.any())


def test_click_on_a_large_image_is_answered_before_it_is_encoded(window, encode_whole):
    assert window.status.kind == "ready", window.status
    click(window, *CLICK)
    first, disc = window.mask.copy(), np.pad(discs()[1] == 2, ((0, 200), (0, 220)))
    assert iou(first, disc) > 0.7
    assert PART in window.status.text
    window.qtbot.waitUntil(lambda: "(25%)" in window.status.text)
    prompt = window.workspace.session.predictions[()][1].objects[0].prompt
    encode_whole.set()
    window.idle()
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(window.viewer.layers["slide"].data)
    assert np.array_equal(window.mask, Refiner().refine(predictor, [prompt])[0].mask)
    assert PART not in window.status.text
    assert (REFINED in window.status.text) == (not np.array_equal(window.mask, first))


def test_encoding_of_the_whole_can_be_stopped_and_resumed(window, encode_whole):
    assert "still being encoded" in PART
    click(window, *CLICK)
    window.qtbot.waitUntil(lambda: window.status.offer == STOP_ENCODING)
    window.take(window.tab.status.offer)
    window.idle()
    assert window.status.text.endswith(PART_ALONE)
    assert not window.status.offer
    window.click(CLICK[0] + 12, CLICK[1])
    assert window.status.text.endswith(PART_ALONE), "the next click does not begin it again"
    encode_whole.set()
    window.key(Qt.Key.Key_S)
    assert PART_ALONE not in window.status.text
    [_, prediction] = window.workspace.session.predictions[()]
    assert not prediction.part


def test_click_on_a_part_twice_gives_the_same_mask(window, encode_whole):
    click(window, *CLICK)
    first = window.mask.copy()
    window.tap(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    window.qtbot.waitUntil(lambda: not window.mask.any())
    click(window, *CLICK)
    assert np.array_equal(window.mask, first)


def test_commit_of_a_part_stays_and_is_recorded(window, encode_whole):
    click(window, *CLICK)
    first = window.mask.copy()
    window.tap(Qt.Key.Key_C)
    window.qtbot.waitUntil(lambda: "SimMAT objects" in window.viewer.layers)
    encode_whole.set()
    window.idle()
    assert np.array_equal(window.objects > 0, first)
    assert not window.mask.any()
    session = window.workspace.session
    [made] = session.editor.register.entries[1].provenance
    assert made.part
    assert '"part"' in window.tab.autosave.snapshot(session).text()


def test_click_after_a_commit_of_a_cut_mask_is_a_new_object(window, encode_whole):
    window.viewer.layers.clear()
    wide = np.full((400, 440), 60, np.uint8)
    wide[180:240, 20:420] = 190  # longer than a part
    window.viewer.add_image(wide, name="wide")
    window.qtbot.waitUntil(lambda: "SimMAT preview" in window.viewer.layers)
    window.qtbot.waitUntil(lambda: not window.controller.inference.busy)
    click(window, 210, 220)
    first = window.mask.copy()
    assert CUT in window.status.text
    window.tap(Qt.Key.Key_C)
    assert np.array_equal(window.objects > 0, first), "what is shown, now"
    assert window.status.text.endswith(WRITTEN_CUT)
    click(window, 210, 380)
    encode_whole.set()
    window.idle()
    assert np.array_equal(window.objects > 0, first), "nothing that nobody saw"
    assert window.mask.any()
    window.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    window.key_over(210, 220, Qt.Key.Key_E)
    widths = [np.ptp(np.flatnonzero(mask.any(0))) for mask in (first, window.mask)]
    assert widths[0] <= 128
    assert widths[1] > 300, "the whole bar"


def test_box_larger_than_a_part_waits_for_the_whole(window, encode_whole):
    window.take(window.tab.buttons.tools["box"])
    window.workspace.prompt_layers.boxes.mode = "add_rectangle"
    window._mouse("mouse_press", 10, 10)
    window._mouse("mouse_move", 300, 300)
    window._mouse("mouse_release", 300, 300)
    window.qtbot.waitUntil(lambda: window.mask.any())
    assert PART not in window.status.text
