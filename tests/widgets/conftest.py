"""A viewer with the widget, driven by mouse and keys: without a window, unless a test needs one."""

import gc
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from napari.settings import get_settings
from npe2 import PluginManifest

from napari_simmat.widgets.segment import tab
from tests.widgets.hands import SECONDS, Headless, Window
from tests.widgets.scenes import gray

__all__ = ["SECONDS", "Window"]


@pytest.fixture(scope="session", autouse=True)
def libraries_are_no_garbage():
    """Leave out what is imported once where garbage is looked for, as each test does some times."""
    for name in ("napari.qt", "napari.window", "torch", "napari_simmat.engine.predictor"):
        import_module(name)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def quickly(quick_models, request, monkeypatch):
    """The images of these tests are few, most begin with one that is encoded, and few draw it."""
    if not _in_real_window(request):
        monkeypatch.setattr(tab, "_DRAWN", 0)


def _in_real_window(request):
    """Whether the test gets napari's window."""
    marked = request.node.get_closest_marker("real_window") is not None
    return marked or request.config.getoption("real_windows")


@pytest.fixture(scope="session")
def pages_of_preferences():
    """The classes of napari's pages for plugins: none before napari 0.9."""
    try:
        from napari.settings._plugin_config_generator import plugin_configuration_generator
    except ImportError:
        return {}
    return plugin_configuration_generator()


@pytest.fixture(autouse=True)
def preferences(pages_of_preferences, tmp_path_factory, monkeypatch):
    """napari's preferences of the plugin for each test: the defaults, in a folder of its own."""
    if pages_of_preferences:
        folder = tmp_path_factory.mktemp("napari")
        pages = {
            n: page(config_path=folder / f"{n}.yaml") for n, page in pages_of_preferences.items()
        }
        monkeypatch.setattr("napari.settings._PLUGIN_SETTINGS", pages)


@pytest.fixture
def qtbot(qtbot):
    """pytest-qt's, with the same patience everywhere: a slow machine is no failure."""
    qtbot.waitUntil = partial(qtbot.waitUntil, timeout=SECONDS)
    return qtbot


@pytest.fixture
def plugin(npe2pm):
    """napari knows the plugin as it is installed, and no other."""
    with npe2pm.tmp_plugin(PluginManifest.from_distribution("napari-simmat")):
        yield


@pytest.fixture
def open_window(request, qtbot):
    """Opens empty viewers: with napari's window for tests marked `real_window`, else without."""
    opened: list[Any] = []
    if _in_real_window(request):
        new_viewer = request.getfixturevalue("make_napari_viewer")

        def make():
            viewer = new_viewer(show=True)
            # A key that is held this long ends its tool; a slow machine is no such key.
            get_settings().application.hold_button_delay = SECONDS / 1000
            viewer.window.resize(1000, 800)
            window = Window(viewer, qtbot)
            opened.append(window)
            qtbot.waitUntil(lambda: min(window.canvas.width(), window.canvas.height()) > 200)
            return window

        yield make
        for window in opened:
            window.release()
    else:
        whole = request.node.get_closest_marker("all_tabs") is not None

        def make():
            opened.append(Headless(qtbot, whole=whole))
            return opened[-1]

        yield make
        for window in opened:
            window.close()


@pytest.fixture
def window(open_window):
    """One empty viewer."""
    return open_window()


@pytest.fixture
def ready(window):
    """The viewer with one gray image and the widget, encoded."""
    window.viewer.add_image(gray(), name="discs")
    window.start()
    return window
