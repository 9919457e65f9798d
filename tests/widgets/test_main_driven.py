"""What people do that no other test does: by the events of mouse, keys and files dropped."""

import napari
import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from tests.widgets.dropping import drop
from tests.widgets.scenes import CENTERS, discs, gray, iou


def test_zoom_and_pan_during_a_click_change_nothing(ready):
    ready.click(*CENTERS[1])
    mask = ready.mask.copy()
    ready.undo()
    assert not ready.mask.any()
    ready.take(ready.tab.buttons.tools["point"])
    ready.press(*CENTERS[1])
    camera = ready.viewer.scene.camera
    camera.zoom, camera.center = 3 * camera.zoom, (0, *CENTERS[0])
    ready.tap(Qt.Key.Key_Space)
    ready.viewer.layers.selection.active.mode = "pan_zoom"
    ready.draw([CENTERS[0], CENTERS[2]])
    assert np.array_equal(ready.mask, mask)
    assert len(ready.workspace.session.prompts.points) == 1


def test_labels_of_another_shape_take_no_objects(ready):
    small = ready.viewer.add_labels(np.ones((20, 30), int), name="small")
    ready.click(*CENTERS[0])
    ready.choose(ready.tab.objects, "small")
    ready.commit()
    assert ready.status.kind == "failed", ready.status
    assert "small" in ready.status.text
    assert ready.status.offer == "New layer"
    assert small.data.all(), "nothing was written"
    assert ready.mask.any(), "nothing is lost"
    ready.push(ready.tab.status.offer)
    assert iou(ready.objects == 1, discs()[1] == 1) > 0.8


@pytest.mark.real_window
def test_dicom_series_dropped_on_the_canvas_segments(window, npe2pm, monkeypatch, tmp_path):
    pytest.importorskip("pydicom")
    from tests.io.test_dicom import write_slice

    for number in range(3):
        path = tmp_path / f"{number}.dcm"
        write_slice(path, gray().astype(np.uint16), number, PixelSpacing=[1, 1])
    monkeypatch.setattr(napari, "current_viewer", lambda: window.viewer)
    with npe2pm.tmp_plugin(PluginManifest.from_distribution("napari-simmat")):
        drop(window.viewer.window._qt_viewer, tmp_path)
        QApplication.processEvents()
    [layer] = window.viewer.layers
    assert layer.data.shape == (3, *gray().shape)
    window.open_widget()
    window.idle()
    window.click(*CENTERS[1])
    window.commit()
    assert window.objects.shape == layer.data.shape
    assert iou(window.objects.max(axis=0) == 1, discs()[1] == 2) > 0.8
