"""The widget is painted before what it needs is imported, and that happens in a thread."""

import os
import subprocess
import sys

import pytest
from qtpy.QtTest import QTest

from napari_simmat.widgets import main
from tests.nightly import nightly_but
from tests.widgets.hands import LEFT

PROGRAM = """
import sys, threading
import napari
import numpy as np
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

heavy = ("torch", "pandas", "scipy", "numba", "napari_simmat.engine", "napari_simmat.checkpoints")
imported, made = [], []

class Noted:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread() and not made:
            imported.append(name)

viewer = napari.Viewer(show=True)
viewer.add_image(np.zeros((64, 256), np.uint8) + np.eye(64, 256, dtype=np.uint8) * 200)
viewer.window.resize(1000, 700)
for _ in range(20):
    QApplication.processEvents()
viewer.reset_view()
if "zoomed" in sys.argv:
    viewer.camera.zoom *= 1.5
zoom = viewer.camera.zoom
sys.meta_path.insert(0, Noted())
_, widget = viewer.window.add_plugin_dock_widget("napari-simmat")
assert "napari_simmat.widgets.segment.tab" not in imported, "a thread may have begun with it"
while not widget._loading.isVisible():
    QTest.qWait(1)
assert not made
assert widget._loading.value().text == "Loading ...", widget._loading.value()
widget.opened.connect(lambda: made.append(True))
turns = 0
while not made:
    QTest.qWait(5)  # a loop without a pause would take what the thread needs
    turns += 1
unwanted = [name for name in imported if name.startswith(heavy)]
assert not unwanted, unwanted
assert turns > 10, turns
assert widget.segment.isVisible() and not widget._loading.isVisible()
QApplication.processEvents()
tabs = widget.tabs.geometry()
assert tabs.top() == 0 and tabs.height() == widget.height(), "the tabs fill the dock"
assert widget.width() >= widget.tabs.minimumSizeHint().width(), "nothing is cut"
while widget.segment.workspace.session is None or widget.segment.busy:
    QTest.qWait(5)
assert widget.segment.status.value().kind == "ready", widget.segment.status.value()
if "zoomed" in sys.argv:
    assert viewer.camera.zoom == zoom, "the user's"
else:
    assert viewer.camera.zoom < 0.9 * zoom, "the dock has taken a part of the canvas"
    zoom = viewer.camera.zoom
    viewer.reset_view()
    assert abs(viewer.camera.zoom - zoom) < 0.02 * zoom, "all is in sight"
widget.release()
viewer.close()
"""


@pytest.mark.parametrize("view", nightly_but(("whole", "zoomed"), "whole"))
def test_opening_imports_in_a_thread_and_says_so(view):
    """The image that was in sight still is, beside the dock."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, view], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "different thread" not in done.stderr


@pytest.mark.all_tabs
def test_tab_is_made_when_it_is_first_shown(window):
    widget = window.open_widget()
    tabs = widget.tabs
    assert widget.segment.isVisible()
    for index, name in enumerate(("train", "batch"), start=1):
        assert name not in vars(widget)
        QTest.mouseClick(tabs.tabBar(), LEFT, pos=tabs.tabBar().tabRect(index).center())
        assert tabs.currentWidget() is tabs.widget(index) is vars(widget)[name]
        assert vars(widget)[name].isVisible()
    assert [tabs.tabText(index) for index in range(3)] == ["Segment", "Train", "Batch"]


def test_opening_that_fails_says_why(window, monkeypatch):
    def broken():
        raise ImportError("libc10.so is damaged.")
        yield

    monkeypatch.setattr(main, "import_window_job", broken)
    widget = main.SimMATWidget(window.viewer)
    window.qtbot.waitUntil(lambda: widget._loading.value().kind == "failed")
    assert "libc10.so is damaged" in widget._loading.value().text
    widget.release()


def test_release_before_the_tabs_are_made_ends_the_thread(window):
    widget = main.SimMATWidget(window.viewer)
    widget.release()
    assert widget._imports.join(60)
    assert "segment" not in vars(widget)
