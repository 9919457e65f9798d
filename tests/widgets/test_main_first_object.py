"""A new user's sessions in napari's window, by real events; each action is counted."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Layer
from npe2 import PluginManifest
from qtpy.QtCore import Qt

from napari_simmat.engine.masks import interior_point
from napari_simmat.widgets import main, samples
from napari_simmat.widgets.main import SimMATWidget
from tests.widgets.hands import NONE, SECONDS, Window
from tests.widgets.scenes import CENTERS, discs, gray, iou
from tests.widgets.segment.work.test_propagation import CENTER as BALL_CENTER
from tests.widgets.segment.work.test_propagation import ball

PLUGIN = "napari-simmat"
log = logging.getLogger(__name__)
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
        with self.window.qtbot.waitSignal(shown.opened, timeout=SECONDS):
            pass
        self.window.widget = shown
        workspace = shown.segment.workspace
        self.window.qtbot.waitUntil(lambda: workspace.session is not None)

    def click(self, y: float, x: float) -> None:
        """Click on the canvas, with what is in hand; y, x are in the world."""
        self.actions += 1
        self.window.press(y, x)

    def key(self, key: Any, modifiers: Any = NONE) -> None:
        """Press a key on the canvas when the answer is there; what comes later is not awaited."""
        self.actions += 1
        tab, predictions = self.window.tab, self.window.workspace.session.predictions
        self.window.qtbot.waitUntil(lambda: bool(predictions) and not tab.busy)
        self.window.tap(key, modifiers)
        self.window.qtbot.waitUntil(lambda: not tab.busy)

    def objects(self) -> np.ndarray:
        """The labels as committed."""
        return self.viewer.layers["SimMAT objects"].data


@pytest.fixture
def user(window, plugin):
    """Somebody in front of an empty viewer that knows the plugin as it is installed."""
    return User(window)


@pytest.mark.real_window
def test_first_object_takes_three_actions(user):
    user.viewer.add_image(gray(), name="discs")
    user.open_tab()
    user.click(*CENTERS[1])
    user.key(Qt.Key.Key_C)
    assert user.actions == 3
    assert iou(user.objects() == 1, discs()[1] == 2) > 0.8


def photograph(_: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """Coins, and one of them."""
    y, x = np.indices((303, 384))
    coin = np.hypot(y - main.FIRST_CLICK[0], x - main.FIRST_CLICK[1]) <= 20
    return samples.coins(), main.FIRST_CLICK, coin


def two_channels(_: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """Nuclei and membranes as two layers, and the largest cell."""
    layers = samples.fluorescence()
    cell = largest(layers[-1][0])
    return layers[:-1], interior_point(cell), cell


def stack(_: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """A ball in a stack whose planes are twice as far apart as pixels."""
    image, mask = ball()
    layers = [(image, {"name": "ball", "scale": (2, 1, 1)}, "image")]
    return layers, BALL_CENTER, mask


def nifti(folder: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """The same ball as a file, whose axes are x, y, z."""
    nibabel: Any = pytest.importorskip("nibabel")
    image, mask = ball()
    path = folder / "ball.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image.T, np.diag([1, 1, 2, 1])), path)
    return [path], BALL_CENTER, mask


def large(_: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """A disc in an image of 2000 x 2000 pixels."""
    y, x = np.indices((2000, 2000), dtype=np.float32)
    disc = np.hypot(y - 1300, x - 1700) < 120
    image = 40 + 120 * disc + np.random.default_rng(0).normal(0, 4, disc.shape)
    return [(image.astype(np.uint8), {"name": "large"}, "image")], (1300, 1700), disc


def slide(_: Path) -> tuple[list[Any], tuple[float, ...], np.ndarray]:
    """A disc in a pyramid of 8192 x 8192 pixels, of which the second level is segmented."""
    y, x = np.indices((4096, 4096), dtype=np.float32)
    disc = np.hypot(y - 2650, x - 3450) < 120
    level = (40 + 120 * disc + np.random.default_rng(0).normal(0, 4, disc.shape)).astype(np.uint8)
    finest = level.repeat(2, axis=0).repeat(2, axis=1)
    levels = [finest, *(level[:: 2**n, :: 2**n] for n in range(3))]
    return [(levels, {"name": "slide", "multiscale": True}, "image")], (5300, 6900), disc


@pytest.mark.slow
@pytest.mark.real_window
@pytest.mark.parametrize(
    ("opened", "actions"),
    [(photograph, 3), (two_channels, 3), (stack, 4), (nifti, 4), (large, 3), (slide, 3)],
)
def test_first_object_of_a_new_user_takes_few_actions(user, tmp_path, opened, actions):
    layers, position, truth = opened(tmp_path)
    for each in layers:
        if isinstance(each, Path):
            user.viewer.open(each, plugin=PLUGIN)
        else:
            user.viewer.add_layer(Layer.create(*each))
    begun, computed = time.perf_counter(), time.process_time()
    user.open_tab()
    user.click(*position)
    if truth.ndim == 3:
        user.key(Qt.Key.Key_S, SHIFT)
    user.key(Qt.Key.Key_C)
    seconds, computed = time.perf_counter() - begun, time.process_time() - computed
    log.info("%s: %.1f s, %.1f s of CPU", opened.__name__, seconds, computed)
    assert user.actions == actions
    assert iou(user.objects() == 1, truth) > 0.75


def largest(labels: np.ndarray) -> np.ndarray:
    """The mask of the largest object."""
    return labels == np.bincount(labels[labels > 0]).argmax()
