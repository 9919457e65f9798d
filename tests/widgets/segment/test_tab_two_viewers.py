"""Two viewers in one process, each with a tab of its own."""

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from tests.widgets.scenes import CENTERS, discs, gray, iou


@pytest.mark.slow
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


@pytest.mark.slow
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
    second.commit()
    _, labels = discs()
    assert iou(second.objects == 1, labels == 2) > 0.8
    second.undo()
    assert not second.objects.any()
