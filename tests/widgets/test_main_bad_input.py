"""Images, prompts and model files that cannot be used: one sentence, and the window goes on."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_simmat.widgets.segment.work.controller import NOTHING_TO_COMMIT
from napari_simmat.widgets.segment.work.plane_status import READY
from tests.widgets.scenes import CENTERS, discs, gray, iou


def test_click_beside_the_image_is_refused(ready):
    ready.click(-3, 5)
    assert ready.status.kind == "failed"
    assert "lies outside the image of 200 x 220 pixels (y x)" in ready.status.text
    assert not ready.viewer.layers["SimMAT preview"].data.any()
    assert len(ready.workspace.prompt_layers.points.data) == 1, "the click is not lost"
    ready.undo()
    ready.click(*CENTERS[1])
    assert ready.status.kind == "done"


def test_segment_without_prompts_is_refused(ready):
    ready.workspace.prompt_layers.draw("point")
    ready.commit()
    assert ready.status.text == NOTHING_TO_COMMIT
    ready.key(Qt.Key.Key_S)
    assert ready.status.text == READY
    assert "SimMAT objects" not in ready.viewer.layers


UNUSABLE = {
    "bool": (np.zeros((8, 9), dtype=bool), "bool"),
    "all NaN": (np.full((8, 9), np.nan), "holds no finite value, only NaN or infinity"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_image_that_no_model_reads_is_refused(window, case):
    data, words = UNUSABLE[case]
    layer = window.viewer.add_image(np.zeros((8, 9)), name="odd", contrast_limits=(0, 1))
    if case == "all NaN":
        layer.data = data
    else:
        layer._data = data  # napari shows no such images, but scripts make them
    window.start()
    assert window.status.kind == "failed"
    assert words in window.status.text
    window.viewer.layers.remove(layer)
    window.viewer.add_image(gray(), name="discs")
    window.idle()
    assert window.status.kind == "ready"


REMARKS = {
    "constant": (np.full((40, 50), 7, np.uint16), "Every pixel here is 7, so there is nothing"),
    "some NaN": (
        np.where(np.indices((40, 50))[0] < 4, np.nan, np.indices((40, 50))[1]),
        "10 % of the values are no data (NODATA, NaN, infinity), and count as lowest.",
    ),
}


@pytest.mark.parametrize("case", REMARKS)
def test_image_with_odd_values_gets_a_remark(window, case):
    data, words = REMARKS[case]
    window.open(data, name="odd", contrast_limits=(0, 10))
    assert window.status.kind == "ready"
    assert words in window.status.text
    window.workspace.prompt_layers.points.add((data.shape[0] // 2, data.shape[1] // 2))
    window.idle()
    assert window.status.kind == "done"
    assert words in window.status.text
    window.viewer.add_image(gray(), name="discs")
    window.choose(window.tab.channels.image, "discs")
    assert words not in window.status.text


def test_memory_that_runs_out_is_reported(ready, monkeypatch):
    network = ready.controller.inference.service.predictor.model.network

    def failing(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")

    with monkeypatch.context() as patch:
        patch.setattr(network, "encode_job", failing, raising=False)
        ready.viewer.layers["discs"].data = gray()[::-1].copy()
        ready.click(199 - CENTERS[1][0], CENTERS[1][1])
        assert ready.status.kind == "failed"
        assert ready.status.text == (
            "The computer's memory ran out; close other programs, or use a smaller image or model."
        )
    ready.key(Qt.Key.Key_S)
    assert iou(ready.viewer.layers["SimMAT preview"].data > 0, discs()[1][::-1] == 2) > 0.8


@pytest.mark.parametrize(
    ("name", "words"),
    [("text.pth", "is neither a checkpoint (safetensors)"), ("missing.pth", "missing.pth")],
)
def test_file_without_a_model_keeps_the_choice(ready, tmp_path, monkeypatch, name, words):
    (tmp_path / "text.pth").write_text("hello")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / name), ""))
    ready.tab.models._ask_open()
    ready.idle()
    assert words in ready.tab.models.card.text()
    assert ready.status.kind == "ready"
    assert ready.tab.models.value().name == "tiny-6"
