"""Two viewers in one process, each with a tab of its own."""

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_simmat.engine import remote
from napari_simmat.engine.remote import ENCODED_HERE
from tests.engine.test_remote import Cluster, kill
from tests.widgets.scenes import CENTERS, discs, gray, iou


@pytest.mark.real_window
def test_two_viewers_are_independent(open_window):
    first, second = windows = open_window(), open_window()
    _, labels = discs()
    for window in windows:
        window.open(gray(), name="discs")
    first.click(*CENTERS[0])
    second.click(*CENTERS[1])
    first.commit()
    assert iou(first.objects == 1, labels == 1) > 0.8
    assert "SimMAT objects" not in second.viewer.layers
    assert iou(second.preview == 1, labels == 2) > 0.8
    second.commit()
    layers = [window.viewer.layers["SimMAT objects"] for window in windows]
    committed = [layer.data.copy() for layer in layers]
    for window, layer, place in zip(windows, layers, CENTERS[2:], strict=False):
        window.viewer.layers.selection.active = layer
        layer.mode, layer.brush_size, layer.selected_label = "paint", 8, 7
        window.draw([place, (place[0] + 10, place[1] + 10)], slowly=False)
    painted = [layer.data.copy() for layer in layers]
    assert [int((layer == 7).sum()) > 30 for layer in painted] == [True, True]
    first.undo()
    assert np.array_equal(layers[0].data, committed[0])
    assert np.array_equal(layers[1].data, painted[1]), "undo is the window's own"
    first.release()
    second.undo()
    assert np.array_equal(layers[1].data, committed[1])


@pytest.mark.real_window
def test_two_viewers_with_one_closed_leave_the_other_alone(open_window):
    """The second one is hidden meanwhile, and its layers are compared, not its canvas.

    When a viewer is closed, drawing a labels layer of another in the same process ends in vispy's
    ``GLError 1282, glTexSubImage2D`` (napari 0.9.2, vispy 0.17, Mesa's software renderer): two
    viewers, a labels layer in each, no plugin; close one, write to the other's layer, refresh.
    """
    first, second = open_window(), open_window()
    for window in (first, second):
        window.open(gray(), name="discs")
        window.click(*CENTERS[1])
    first.commit()
    second.viewer.window._qt_window.hide()
    first.close_widget()
    first.viewer.close()
    QApplication.processEvents()
    second.tab.act("commit")
    second.idle()
    _, labels = discs()
    assert iou(second.objects == 1, labels == 2) > 0.8
    second.tab.act("undo")
    second.idle()
    assert not second.objects.any()


@pytest.mark.slow
@pytest.mark.real_window
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_viewers_share_a_worker_and_go_on_without_it(open_window, tmp_path, monkeypatch):
    """The encoder runs on one Dask worker for both, with the masks of this machine."""
    monkeypatch.setattr(remote, "SCHEDULER_TIMEOUT", 10)
    *windows, local = open_window(), open_window(), open_window()
    cluster = Cluster(tmp_path)
    try:
        worker = cluster.worker()
        with remote.client(cluster.address) as client:
            for done, (window, place) in enumerate(zip(windows, CENTERS, strict=False)):
                window.open_widget()
                field = window.tab.compute.remote
                field.setText(cluster.address)
                field.editingFinished.emit()
                window.viewer.add_image(gray(), name="discs")
                window.idle()
                window.click(*place)
                assert window.status.kind == "done", window.status
                assert ENCODED_HERE not in window.status.text
                [count] = client.run(lambda dask_worker: dask_worker.state.executed_count).values()
                assert count > done
        local.open(gray(), name="discs")
        for window, place in zip(windows, CENTERS, strict=False):
            local.click(*place)
            np.testing.assert_array_equal(window.preview, local.preview)
            local.tab.act("clear")
        kill(worker)
        for window, place in zip(windows, CENTERS, strict=False):
            window.tab.act("clear")
            window.viewer.add_image(gray()[::-1].copy(), name="turned")
            window.idle()
            window.click(len(gray()) - 1 - place[0], place[1])
            assert window.status.kind == "done", window.status
            assert window.preview.any()
            assert ENCODED_HERE in window.status.text
    finally:
        cluster.close()
