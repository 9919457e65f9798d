"""A place that is pointed at in one plane is seen in the two others."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.widgets.segment.work.test_workspace_views import BLOBS, PLACED, on_screen, open_blobs

CTRL = Qt.KeyboardModifier.ControlModifier
ROLL = (Qt.Key.Key_E, CTRL)
SECOND = BLOBS[1][0]
"""A voxel in the second blob: plane, row, column."""


def shown_voxel(window) -> np.ndarray:
    """What the sliders of all axes stand at, in voxels."""
    point = np.array(window.viewer.dims.point)
    return (point - PLACED["translate"]) / PLACED["scale"]


@pytest.mark.slow
@pytest.mark.real_window
def test_a_click_is_seen_in_all_three_planes(window):
    labels = open_blobs(window)
    window.viewer.dims.set_point(0, PLACED["translate"][0] + SECOND[0])
    window.click(*on_screen(window, SECOND))
    for hidden in (2, 1, 0):
        window.key(*ROLL)
        assert window.viewer.dims.order[0] == hidden
        assert np.allclose(shown_voxel(window), SECOND, atol=1.5)
        at = [slice(None)] * 3
        at[hidden] = window.viewer.dims.current_step[hidden]
        assert (labels[tuple(at)] == 2).any(), "the object is cut by each of the planes"


@pytest.mark.slow
def test_the_cursor_leads_and_off_the_canvas_the_last_press(window):
    open_blobs(window)
    window.viewer.dims.set_point(0, PLACED["translate"][0] + SECOND[0])
    window.press(*on_screen(window, BLOBS[0][0]))
    window.idle()
    window.hover(*on_screen(window, SECOND))
    window.viewer.dims.roll()
    assert np.allclose(shown_voxel(window), SECOND, atol=1.5)
    assert np.array_equal(shown_voxel(window), np.round(shown_voxel(window))), "whole planes"
    window.viewer.dims.order = (0, 1, 2)
    window.idle()
    window._enter(False)  # as on napari's button
    window.viewer.dims.roll()
    assert np.allclose(shown_voxel(window)[1:], BLOBS[0][0][1:], atol=1.5)
    window.viewer.dims.set_point(2, PLACED["translate"][2] + 40 * PLACED["scale"][2])
    window.viewer.dims.roll()
    assert shown_voxel(window)[2] == 40, "a slider that was moved since stays"


def test_a_cursor_beside_the_image_moves_nothing(window):
    open_blobs(window)
    before = window.viewer.dims.current_step
    window.hover(-20.0, -20.0)
    window.viewer.dims.roll()
    assert window.viewer.dims.current_step == before


def test_a_closed_tab_leaves_the_sliders_to_napari(window):
    open_blobs(window)
    window.hover(*on_screen(window, SECOND))
    window.release()
    before = window.viewer.dims.current_step
    window.viewer.dims.roll()
    assert window.viewer.dims.current_step == before
