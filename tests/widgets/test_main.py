"""The samples in napari's menu, and the window of `simmat demo --gui`."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import tifffile
from napari._app_model import get_app_model
from napari.components import ViewerModel
from napari.layers import Layer
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QProgressBar,
    QScrollBar,
    QTabBar,
    QWidget,
)

from napari_simmat.annotation.predictions import Candidate
from napari_simmat.widgets import main, samples
from napari_simmat.widgets.controls import NAMED_CONTROLS, OPEN_WIDGETS, CollapsibleSection
from napari_simmat.widgets.main import SimMATWidget
from napari_simmat.widgets.readers import get_reader
from tests.widgets.conftest import SECONDS, Window
from tests.widgets.scenes import gray, iou

MANIFEST = PluginManifest.from_distribution("napari-simmat")
SAMPLES = [each.command for each in MANIFEST.contributions.sample_data or []]


def made_by(command: str) -> Any:
    """What the manifest's command points to."""
    (found,) = [each for each in MANIFEST.contributions.commands or [] if each.id == command]
    module, name = str(found.python_name).split(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("command", SAMPLES)
def test_sample_opened_twice_is_equal(command):
    first, second = made_by(command)(), made_by(command)()
    for (data, options, kind), (again, *_) in zip(first, second, strict=True):
        layer = Layer.create(data, options, kind)
        assert layer.name == options["name"]
        assert np.array_equal(data, again)
    truth = [data for data, _, kind in first if kind == "labels"]
    images = [data for data, _, kind in first if kind == "image"]
    assert images
    for labels in truth:
        assert labels.max() >= 3
        assert images[0].shape[-labels.ndim :] == labels.shape


def test_samples_cover_the_common_instruments():
    names = " ".join(each.display_name for each in MANIFEST.contributions.sample_data or [])
    assert all(word in names for word in ("CT", "MRI", "Thermal", "stack", "Polarization"))
    [(stack, options, _), _] = samples.cells_3d()
    assert (stack.ndim, options["scale"], options["axis_labels"]) == (3, (2, 1, 1), ("z", "y", "x"))


def test_manifest_names_the_widget():
    (widget,) = MANIFEST.contributions.widgets or []
    assert made_by(widget.command) is SimMATWidget


def test_open_demo_segments_a_coin(make_napari_viewer, qtbot, monkeypatch):
    monkeypatch.setattr(main.napari, "Viewer", lambda **_: make_napari_viewer(show=True))
    viewer = main.open_demo(run=False)
    window = Window(viewer, qtbot)
    window.widget = viewer.window._qt_window.findChild(SimMATWidget)
    with qtbot.waitSignal(window.widget.opened, timeout=SECONDS):
        pass
    window.qtbot.waitUntil(lambda: window.workspace.session is not None)
    window.qtbot.waitUntil(lambda: bool(window.workspace.session.prompts))
    window.idle()
    y, x = np.indices(viewer.layers["coins"].data.shape)
    coin = (y - main.FIRST_CLICK[0]) ** 2 + (x - main.FIRST_CLICK[1]) ** 2 <= 20**2
    assert iou(viewer.layers["SimMAT preview"].data > 0, coin) > 0.75
    assert window.tab.buttons.tools["point"].isChecked()
    window.release()


@pytest.mark.real_window
@pytest.mark.parametrize("first", ["menu", "script", "demo", "drop"])
def test_each_way_to_open_leads_to_one_widget(window, plugin, first, tmp_path, monkeypatch):
    viewer = window.viewer
    for band in range(4):
        tifffile.imwrite(tmp_path / f"a_{band}.tif", gray())
        tifffile.imwrite(tmp_path / f"b_{band}.tif", gray())
    monkeypatch.setattr(main.napari, "Viewer", lambda **_: viewer)
    monkeypatch.setattr(main.napari, "current_viewer", lambda: viewer)
    read = get_reader(str(tmp_path))
    assert read is not None
    ways = {
        "menu": lambda: get_app_model().commands.execute_command("napari-simmat.segment"),
        "script": lambda: viewer.window.add_plugin_dock_widget("napari-simmat"),
        "drop": lambda: read(str(tmp_path)),
        "demo": lambda: main.open_demo(run=False),
    }
    ways[first]()
    del ways["demo"]  # has a viewer of its own
    (widget,) = [each for each in OPEN_WIDGETS if each.viewer is viewer]
    window.widget = widget
    widget.open_now()
    for way in ways.values():
        way()
        assert [each for each in OPEN_WIDGETS if each.viewer is viewer] == [widget]
    assert len(viewer.window._qt_window.findChildren(SimMATWidget)) == 1
    viewer.window.remove_dock_widget(widget)
    window.widget = None
    ways["menu"]()
    (again,) = [each for each in OPEN_WIDGETS if each.viewer is viewer]
    assert again is not widget
    again.release()


def test_widget_on_an_older_napari_is_refused(monkeypatch, qtbot):
    """napari 0.6.6 has no event for renamed layers, and a traceback says nothing to a user."""
    monkeypatch.setattr("napari.__version__", "0.6.6")
    with pytest.raises(ImportError, match=r"needs napari 0\.7\.1 or newer, and this is 0\.6\.6\."):
        SimMATWidget(ViewerModel())
    monkeypatch.setattr("napari.__version__", "0.7.2.dev5+g1234567")
    SimMATWidget(ViewerModel()).release()


@pytest.mark.all_tabs
@pytest.mark.parametrize("name", ["segment", "train", "batch"])
def test_tab_key_walks_every_named_control_as_seen(window, name):
    """From top to bottom, and from left to right within a row."""
    widget = window.open_widget()
    tab = getattr(widget, name)
    widget.tabs.setCurrentWidget(tab)
    picture = np.zeros((8, 8, 3), np.uint8)
    widget.segment.candidates.show_candidates([Candidate(n, picture, 9) for n in (0, 1)], 0)
    for section in tab.findChildren(CollapsibleSection):
        section.show()
        section.set_open(True)
    widget.resize(400, 4000)
    for _ in range(5):
        QApplication.processEvents()
    inside = tab.findChildren(QWidget)
    shown = [each for each in inside if isinstance(each, NAMED_CONTROLS) and _is_control(each)]
    assert len(shown) > 15
    walked = [widget]
    while (following := walked[-1].nextInFocusChain()) is not widget:
        walked.append(following)
    walked = [each for each in walked if each in shown and _takes_tab(each)]
    reached = [each.parentWidget() if each.focusProxy() else each for each in walked]
    assert not [_said(each) for each in shown if each not in reached], "not reached by Tab"
    assert not [each for each in shown if len(_said(each)) < 2], "without a name"
    rooms = [QRect(each.mapTo(widget, QPoint()), each.size()) for each in walked]
    assert not [
        f"{_said(first)} before {_said(second)}"
        for first, second, here, there in zip(walked, walked[1:], rooms, rooms[1:], strict=False)
        if there.bottom() < here.top() or (there.right() < here.left() and _one_row(here, there))
    ]


def _is_control(control: Any) -> bool:
    """Whether it is shown, and no part of another control."""
    if not control.isVisible() or isinstance(control, (QScrollBar, QProgressBar)):
        return False
    while (control := control.parentWidget()) is not None:
        if isinstance(control, (QAbstractItemView, QAbstractSpinBox, QComboBox, QTabBar)):
            return False
    return True


def _takes_tab(control: Any) -> bool:
    return bool(control.focusPolicy() & Qt.FocusPolicy.TabFocus)


def _said(control: Any) -> str:
    """What a screen reader says."""
    return control.accessibleName() or getattr(control, "text", str)()


def _one_row(here: QRect, there: QRect) -> bool:
    return here.top() <= there.center().y() <= here.bottom()
