"""A new user's sessions in napari's window, by real events; each action is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import Qt

from napari_simmat.widgets.main import SimMATWidget
from tests.widgets.hands import NONE, Window
from tests.widgets.scenes import CENTRES, discs, grey, iou

PLUGIN = "napari-simmat"
SHIFT = Qt.KeyboardModifier.ShiftModifier


class User:
    """Does what a person does, and counts it: opening the tab, clicks, keys."""

    def __init__(self, window: Window) -> None:
        self.window, self.viewer, self.actions = window, window.viewer, 0

    def open_tab(self) -> None:
        """Choose the plugin in napari's menu."""
        self.actions += 1
        (widget,) = PluginManifest.from_distribution(PLUGIN).contributions.widgets or []
        _, shown = self.viewer.window.add_plugin_dock_widget(PLUGIN, widget.display_name)
        assert isinstance(shown, SimMATWidget)
        self.window.widget = shown

    def click(self, y: float, x: float) -> None:
        """Click on the canvas, with what is in hand; y, x are in the world."""
        self.actions += 1
        self.window.press(y, x)

    def key(self, key: Any, modifiers: Any = NONE) -> None:
        """Press a key on the canvas when the answer is there."""
        self.actions += 1
        self.window.idle()
        self.window.tap(key, modifiers)
        self.window.idle()

    def objects(self, image: str = "") -> np.ndarray:
        """The labels of an image, as committed."""
        names = [f"SimMAT objects of {image}", "SimMAT objects"]
        found = [layer for layer in self.viewer.layers if layer.name in names]
        assert len(found) == 1, [layer.name for layer in self.viewer.layers]
        return found[0].data


@pytest.fixture
def user(window: Window, npe2pm: Any) -> Iterator[User]:
    """Somebody in front of an empty viewer that knows the plugin as it is installed."""
    with npe2pm.tmp_plugin(PluginManifest.from_distribution(PLUGIN)):
        yield User(window)


@pytest.mark.real_window
def test_the_first_object_takes_three_actions_after_an_image_is_open(user: User) -> None:
    user.viewer.add_image(grey(), name="discs")
    user.open_tab()
    user.click(*CENTRES[1])
    user.key(Qt.Key.Key_C)
    assert user.actions == 3
    assert iou(user.objects() == 1, discs()[1] == 2) > 0.8
