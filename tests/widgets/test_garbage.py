"""What is imported is left out of collections; a layer that is removed is freed nevertheless."""

import gc
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets import garbage
from napari_simmat.widgets.garbage import LeftOut, no_garbage_collection
from napari_simmat.widgets.main import SimMATWidget
from napari_simmat.widgets.segment.layers.outputs import PREVIEW


class Pixels(np.ndarray):
    """An array that can be watched."""


def add(viewer):
    """A layer's name, and a reference that says whether its pixels are still in memory."""
    layer = viewer.add_image(np.zeros((64, 64)).view(Pixels))
    return layer.name, weakref.ref(layer.data)


def remove(viewer, name):
    """Remove a layer; napari itself holds on to the active one until another is active."""
    viewer.layers.remove(name)
    viewer.layers.selection.active = viewer.layers["other"]


@pytest.fixture
def thawed():
    """Nothing is left out before and after, but what the suite leaves out."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def viewer(thawed, qtbot):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((8, 8)), name="other")
    return viewer


@pytest.fixture
def owner(viewer):
    return QObject()


@pytest.mark.slow
def test_opening_leaves_imports_out_until_the_tab_is_closed(viewer, qtbot):
    widget = SimMATWidget(viewer)
    qtbot.addWidget(widget)
    with qtbot.waitSignal(widget.opened, timeout=180_000):
        widget.show()
    assert gc.get_freeze_count() > 3 * len(gc.get_objects())
    qtbot.waitUntil(lambda: PREVIEW in viewer.layers, timeout=180_000)
    left_out: list[int] = []
    viewer.layers.events.removed.connect(lambda _: left_out.append(gc.get_freeze_count()))
    widget.release()
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0)
    assert PREVIEW not in viewer.layers
    assert left_out, "the tab removes its layers"
    assert min(left_out) > 0, "a removal collects garbage, and would walk all that is imported"


@pytest.mark.slow
def test_removed_layer_that_came_later_is_freed(viewer, owner):
    left_out = LeftOut(viewer.layers, owner)
    name, pixels = add(viewer)
    remove(viewer, name)
    gc.collect()
    assert pixels() is None
    left_out.release()


def test_removed_layer_that_was_left_out_is_freed_after_release(viewer, owner):
    name, pixels = add(viewer)
    left_out = LeftOut(viewer.layers, owner)
    remove(viewer, name)
    left_out.release()
    gc.collect()
    assert pixels() is None


@pytest.mark.slow
def test_large_removed_layer_that_was_left_out_is_freed(viewer, owner, monkeypatch):
    monkeypatch.setattr(garbage, "HELD_AT_MOST", 64 * 64 * 8)
    first, second = add(viewer), add(viewer)
    left_out = LeftOut(viewer.layers, owner)
    frozen = gc.get_freeze_count()
    remove(viewer, first[0])  # as much as may be held
    QApplication.processEvents()
    assert gc.get_freeze_count() <= frozen
    remove(viewer, second[0])
    QApplication.processEvents()
    assert first[1]() is None
    assert second[1]() is None
    assert gc.get_freeze_count() > frozen / 2, "the rest is left out again"
    left_out.release()


@pytest.mark.parametrize("frozen", [False, True])
def test_imports_stay_left_out_if_others_are(thawed, frozen):
    if frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert (gc.get_freeze_count() > 0) == frozen == (before > 0)
