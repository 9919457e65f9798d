"""Planes encoded before they are looked at."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.widgets.segment.work.propagation import around


def test_around_orders_planes_by_distance():
    assert around((3,), (7,)) == [(3,), (4,), (2,), (5,), (1,), (6,), (0,)]
    assert around((3,), (7,), 2) == [(3,), (4,), (2,)]
    assert around((0,), (7,), 2) == [(0,), (1,), (2,)]
    assert around((500,), (100_000,), 2) == [(500,), (501,), (499,)]
    several = around((1, 1), (3, 3))
    assert several[0] == (1, 1)
    assert set(several[1:3]) == {(1, 2), (1, 0)}, "the axis before Y and X first"
    assert sorted(several) == sorted(np.ndindex(3, 3))


@pytest.mark.slow
def test_prefetch_encodes_the_neighbors_of_the_shown_plane(window, qtbot):
    stack = np.random.default_rng(0).integers(0, 255, (4, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    panel, service = window.tab.encoding_panel, window.controller.inference.service
    panel.ahead.setChecked(True)
    qtbot.waitUntil(lambda: len(service.cache) == 4)
    window.idle()
    assert panel.encoded.text().startswith("4 planes encoded")
    assert panel.bar.isHidden()
    encodes = service.encodes
    for plane in (3, 1, 2):
        window.viewer.dims.set_current_step(0, plane)
        window.click(24, 24)
    assert service.encodes == encodes

    panel.ahead.setChecked(False)
    QTest.mouseClick(panel.clear, Qt.MouseButton.LeftButton)
    assert panel.encoded.text().startswith("0 planes encoded")
    assert len(service.cache) == 0
    QTest.mouseClick(panel.whole, Qt.MouseButton.LeftButton)
    assert panel.whole.text() == "Cancel encoding"
    qtbot.waitUntil(lambda: len(service.cache) == 4)
    window.idle()
    assert panel.whole.text() == "Encode whole stack"


def test_embeddings_are_kept_on_disk_only_if_switched_on(window, qtbot):
    stack = np.random.default_rng(0).integers(0, 255, (2, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    tab, cache = window.tab, window.controller.inference.service.cache
    window.idle()
    assert not cache.keeps_on_disk
    tab.encoding_panel.disk.setChecked(True)
    QTest.mouseClick(tab.encoding_panel.whole, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(cache) == 2)
    window.idle()
    assert len(cache.store) >= 1
    assert "on disk" in tab.encoding_panel.encoded.text()
    QTest.mouseClick(tab.encoding_panel.clear, Qt.MouseButton.LeftButton)
    assert len(cache.store) == 0
