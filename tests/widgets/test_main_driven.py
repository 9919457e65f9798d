"""What people do that no other test does: by the events of mouse, keys and files dropped."""

import logging

import napari
import numpy as np
import psutil
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets.segment.work.propagation import PROPAGATING
from tests.widgets.dropping import drop
from tests.widgets.gate import click_without_waiting
from tests.widgets.hands import SECONDS
from tests.widgets.scenes import CENTERS, discs, gray, iou

log = logging.getLogger(__name__)


def test_zoom_and_pan_during_a_click_change_nothing(ready):
    ready.click(*CENTERS[1])
    mask = ready.mask.copy()
    ready.undo()
    assert not ready.mask.any()
    click_without_waiting(ready, *CENTERS[1])
    camera = ready.viewer.scene.camera
    camera.zoom, camera.center = 3 * camera.zoom, (0, *CENTERS[0])
    ready.tap(Qt.Key.Key_Space)
    ready.viewer.layers.selection.active.mode = "pan_zoom"
    ready.draw([CENTERS[0], CENTERS[2]])
    assert np.array_equal(ready.mask, mask)
    assert len(ready.workspace.session.prompts.points) == 1


@pytest.mark.slow
@pytest.mark.real_window
def test_dicom_series_dropped_on_the_canvas_segments(window, plugin, monkeypatch, tmp_path):
    pytest.importorskip("pydicom")
    from tests.io.test_dicom import write_slice

    for number in range(3):
        path = tmp_path / f"{number}.dcm"
        write_slice(path, gray().astype(np.uint16), number, PixelSpacing=[1, 1])
    monkeypatch.setattr(napari, "current_viewer", lambda: window.viewer)
    drop(window.viewer.window._qt_viewer, tmp_path)
    QApplication.processEvents()
    [layer] = window.viewer.layers
    assert layer.data.shape == (3, *gray().shape)
    window.start()
    window.add_object(*CENTERS[1])
    assert window.objects.shape == layer.data.shape
    assert iou(window.objects.max(axis=0) == 1, discs()[1] == 2) > 0.8


@pytest.mark.slow
@pytest.mark.real_window
def test_propagation_over_a_whole_mri_stops_and_ends(window, shared_image):
    """White matter from one click: progress grows, Cancel loses nothing, memory stays bounded."""
    volume = shared_image("mri_t1_mni.nii.gz").T
    truth = shared_image("mri_t1_mni_gm2_wm3.nii.gz").T == 3
    middle = len(volume) // 2
    window.viewer.add_image(volume, name="brain")
    window.open_widget()
    window.show_plane(middle)
    rows, columns = np.nonzero(truth[middle])
    nearest = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean() - 30))
    window.click(rows[nearest], columns[nearest])
    mask = window.preview[middle].copy()
    fractions, propagation = [], window.controller.propagation
    before = psutil.Process().memory_info().rss

    def running() -> bool:
        status = window.status
        if status.text.startswith(PROPAGATING) and status.fraction is not None:
            fractions.append(status.fraction)
        return propagation.busy

    button = window.tab.stack_panel.start
    window.take(button)
    window.qtbot.waitUntil(lambda: running() and bool(fractions) and fractions[-1] > 0.2)
    assert not button.isVisible()
    window.push(window.tab.status.cancel)
    assert window.status.kind == "canceled"
    assert np.array_equal(window.preview[middle], mask)
    window.take(button)
    window.qtbot.waitUntil(lambda: not running(), timeout=10 * SECONDS)
    window.idle()
    assert len(set(fractions)) > 10
    assert propagation.result is not None
    planes = window.mask.any(axis=(1, 2)).sum()
    assert planes > len(volume) // 2
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    found = iou(window.mask, truth)
    log.info("MRI: %s of %s planes, IoU %.2f, %.0f MiB", planes, len(volume), found, grown)
    assert grown < 1500
    window.commit()
    assert (window.objects == 1).any(axis=(1, 2)).sum() == planes
