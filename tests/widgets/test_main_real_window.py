"""Each tool and each key in napari's window does what the tests without a window rely on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.widgets.hands import Headless
from tests.widgets.scenes import CENTERS, RADII, gray

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
ALT = Qt.KeyboardModifier.AltModifier
FIRST, SECOND, THIRD, FOURTH = CENTERS


def tools(window: Any) -> Iterator[str]:
    """Draw with each tool, one after the other; says what was done."""
    prompts = window.workspace.prompt_layers
    window.click(*FIRST)
    yield "click"
    window.double_click(*FOURTH)
    yield "double click where nothing is"
    window.key(Qt.Key.Key_C, SHIFT)
    window.drag(SECOND[0] - 34, SECOND[1] - 34, SECOND[0] + 34, SECOND[1] + 34)
    yield "rectangle"
    window.drag(THIRD[0] - 32, THIRD[1] - 32, THIRD[0] + 32, THIRD[1] + 32, mode="add_ellipse")
    yield "ellipse"
    prompts.draw("box")
    prompts.boxes.mode = "add_polygon"
    for angle in np.linspace(0, 2 * np.pi, 7)[:-1]:
        window.press(FOURTH[0] + 24 * np.sin(angle), FOURTH[1] + 24 * np.cos(angle))
    window.key(Qt.Key.Key_Escape)
    yield "polygon"
    window.stroke([(SECOND[0], SECOND[1] - 9), (SECOND[0] + 3, SECOND[1] + 9)])
    yield "scribble"
    prompts.boxes.mode = "select"
    window.press(THIRD[0], THIRD[1] - 31)  # the ellipse, by its edge
    window.key(Qt.Key.Key_Delete)
    yield "shape selected and deleted"
    window.commit()
    layer = window.viewer.layers["SimMAT objects"]
    window.viewer.layers.selection.active = layer
    layer.brush_size, layer.selected_label = 9, 9
    for mode in ("paint", "erase"):
        layer.mode = mode
        window.draw([(100, 30), (104, 60)])
        yield mode
    layer.mode = "fill"
    window.press(*SECOND)
    window.idle()
    yield "fill"


def keys(window: Any) -> Iterator[str]:
    """Press each key where it has something to do; says what was pressed."""
    for number, center in enumerate((FIRST, SECOND), start=1):
        window.add_object(*center)
        yield f"C, object {number}"
    window.click(*THIRD)
    window.key(Qt.Key.Key_Q)
    yield "Q"
    window.key(Qt.Key.Key_T)
    window.click(THIRD[0] + RADII[2] + 8, THIRD[1])
    window.key(Qt.Key.Key_T)
    yield "T"
    window.key(Qt.Key.Key_N)
    window.click(*FOURTH)
    yield "N"
    window.key(Qt.Key.Key_S)
    yield "S"
    window.key(Qt.Key.Key_C, SHIFT)
    yield "Shift+C"
    window.key(Qt.Key.Key_Z, CTRL)
    yield "Ctrl+Z"
    window.key(Qt.Key.Key_Z, CTRL | SHIFT)
    yield "Ctrl+Shift+Z"
    window.workspace.prompt_layers.draw("box")
    window.key(Qt.Key.Key_T)
    yield "T on shapes"
    window.key(Qt.Key.Key_T)
    window.key(Qt.Key.Key_E)
    yield "napari's own E on shapes"
    window.hover(*FIRST)
    window.key(Qt.Key.Key_E, ALT)
    yield "Alt+E"
    window.key(Qt.Key.Key_C, SHIFT)
    window.tab.buttons.tools["point"].click()
    window.hover(*SECOND)
    window.key(Qt.Key.Key_E)
    yield "E"
    window.key(Qt.Key.Key_C, SHIFT)
    window.hover(*FIRST)
    window.key(Qt.Key.Key_G)
    window.hover(*SECOND)
    window.key(Qt.Key.Key_G)
    yield "G"
    window.hover(*FIRST)
    window.key(Qt.Key.Key_K)
    yield "K"
    window.hover(*FIRST)
    window.key(Qt.Key.Key_D, SHIFT)
    yield "Shift+D"


def state(window: Any) -> dict[str, Any]:
    """What a user sees of the prompts, the objects and the tab."""
    workspace, layers = window.workspace, window.viewer.layers
    boxes = workspace.prompt_layers.boxes
    return {
        "points": workspace.prompt_layers.points.data,
        "labels": list(workspace.prompt_layers.points.features["label"]),
        "shapes": [np.array([shape.min(0), shape.max(0)]) for shape in boxes.data],
        "kinds": list(boxes.shape_type),
        "tool": workspace.prompt_layers.tool,
        "steps": [step.name for step in workspace.session.history],
        "layers": sorted(layer.name for layer in layers),
        "objects": sizes(layers, "SimMAT objects"),
        "preview": sizes(layers, "SimMAT preview"),
        "positive": workspace.prompt_layers.positive,
        "status": window.status.kind,
    }


def sizes(layers: Any, name: str) -> dict[int, int]:
    """Pixels of each label of a layer, if it is there."""
    if name not in layers:
        return {}
    numbers, counts = np.unique(layers[name].data, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def near(one: Any, other: Any) -> bool:
    """Equal, but for the pixel to which a real mouse is rounded, and how often it is heard."""
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and np.allclose(one, other, atol=5))
    if isinstance(one, list) and one and isinstance(one[0], np.ndarray):
        return len(one) == len(other) and all(map(near, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            abs(count - other[key]) <= 0.15 * count + 20 for key, count in one.items()
        )
    return bool(one == other)


@pytest.fixture
def headless(qtbot):
    """The same image in a viewer without a window."""
    viewer = Headless(qtbot)
    viewer.open(gray(), name="discs")
    yield viewer
    viewer.close()


@pytest.mark.slow
@pytest.mark.real_window
@pytest.mark.parametrize("actions", [tools, keys])
def test_real_window_does_what_the_headless_does(ready, headless, actions):
    for each in (ready, headless):
        each.viewer.reset_view()  # how much of the image is seen tells what a click means
    for done, same in zip(actions(ready), actions(headless), strict=True):
        assert done == same
        seen, expected = state(ready), state(headless)
        different = {
            name: (seen[name], expected[name])
            for name in seen
            if not near(seen[name], expected[name])
        }
        assert not different, done
