"""napari's own brush and ours: one list, in step with napari's history."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.widgets.scenes import CENTERS, gray


def test_brush_and_commits_are_undone_in_their_order(ready):
    ready.add_object(*CENTERS[0])
    layer = ready.viewer.layers["SimMAT objects"]
    ready.viewer.layers.selection.active = layer
    layer.brush_size, layer.selected_label = 6, 1
    states = [layer.data.copy()]
    layer.mode = "paint"
    ready.draw([(100, 30), (110, 60)], slowly=True)
    states.append(layer.data.copy())
    layer.mode = "erase"
    ready.draw([CENTERS[0], (CENTERS[0][0], CENTERS[0][1] + 20)], slowly=False)
    states.append(layer.data.copy())
    ready.add_object(*CENTERS[1])
    states.append(layer.data.copy())
    ready.viewer.layers.selection.active = layer
    layer.mode, layer.selected_label = "fill", 5
    ready.press(*CENTERS[1])
    ready.idle()
    states.append(layer.data.copy())
    changed = [int((a != b).sum()) for a, b in pairwise(states)]
    assert min(changed) > 30, "each tool has changed something"
    names = [operation.name for operation in ready.workspace.session.history]
    assert names == [
        "prompts",
        "commit of 1",
        "painting in SimMAT objects",
        "painting in SimMAT objects",
        "prompts",
        "commit of 2",
        "painting in SimMAT objects",
    ]
    layer.mode = "pan_zoom"
    for state, steps in zip(states[-2::-1], (1, 2, 1, 1), strict=True):
        ready.undo(steps)
        assert np.array_equal(layer.data, state)
        assert ready.workspace.session.editor.register.index.sizes() == {
            n: int((state == n).sum()) for n in np.unique(state).tolist() if n
        }
    for state, steps in zip(states[1:], (1, 1, 2, 1), strict=True):
        ready.redo(steps)
        assert np.array_equal(layer.data, state)


def test_brush_history_after_closing_the_tab_is_right(ready):
    layer = ready.objects_layer()
    ready.viewer.layers.selection.active = layer
    layer.brush_size, layer.selected_label, layer.mode = 6, 3, "paint"
    ready.draw([(100, 30), (110, 60)], slowly=False)
    once = layer.data.copy()
    ready.draw([(30, 100), (40, 130)], slowly=False)
    layer.mode = "pan_zoom"
    ready.undo()
    assert np.array_equal(layer.data, once)
    ready.close_widget()
    layer.undo()
    assert not layer.data.any()
    layer.redo()
    assert np.array_equal(layer.data, once)


def test_brush_in_a_shared_layer_is_a_step_of_the_chosen_image(window):
    """As two channels of one scene, each segmented by itself."""
    window.viewer.add_image(gray()[::-1].copy(), name="other")
    window.open(gray(), name="discs")
    window.add_object(*CENTERS[0])
    layer = window.viewer.layers["SimMAT objects"]
    committed = layer.data.copy()
    window.choose(window.tab.channels.image, "other")
    window.tab.objects.chosen.emit(layer)
    layer.data_setitem((np.array([3, 4]), np.array([3, 4])), 7)
    window.idle()
    window.tab.act("undo")
    assert np.array_equal(layer.data, committed)
    window.choose(window.tab.channels.image, "discs")
    assert len(window.workspace.session.history) == 2, "the click and its commit"


def as_drawn_whole(layer: Any) -> np.ndarray:
    """What napari would show of a layer if all of it were drawn."""
    return layer._raw_to_displayed(layer._slice.image.raw)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_part_that_has_changed_is_drawn_alone(window, monkeypatch, order):
    window.open(np.stack([gray()] * 3), name="stack")
    window.show_plane(1)
    window.add_object(*CENTERS[0])
    window.click(*CENTERS[1])
    layer, drawn = window.workspace.objects, []
    monkeypatch.setattr(type(layer), "refresh", lambda self, *_: drawn.append(self.name))
    window.commit()
    window.viewer.dims.order = order
    window.idle()
    shown = layer._slice.image
    drawn.clear()
    window.undo()
    window.redo()
    window.key_over(0, 0, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert layer.name not in drawn
    assert np.array_equal(layer._slice.image.view, as_drawn_whole(layer))
    assert layer._slice.image is shown


def test_contours_are_drawn_whole(ready):
    ready.add_object(*CENTERS[0])
    layer = ready.workspace.objects
    layer.contour = 1
    ready.add_object(*CENTERS[1])
    assert np.array_equal(layer._slice.image.view, as_drawn_whole(layer))
    assert layer._slice.image.view.any()
