"""Which layers napari's own list shows, in its window."""

from typing import Any

import pytest
from napari._qt.containers import QtLayerList

from tests.widgets.scenes import CENTERS

pytestmark = pytest.mark.real_window


def listed(window: Any) -> list[str]:
    """The names in napari's list that are seen, from the top."""
    view = window.viewer.window._qt_window.findChild(QtLayerList)
    rows = [row for row in range(view.model().rowCount()) if not view.isRowHidden(row)]
    return [view.model().index(row, 0).data() for row in rows]


def test_list_shows_the_image_and_its_objects_alone(ready):
    assert listed(ready) == ["discs"]
    ready.add_object(*CENTERS[0])
    ready.click_row(0)
    ready.click(*CENTERS[1])
    assert listed(ready) == ["SimMAT objects", "discs"]
    names = {layer.name for layer in ready.viewer.layers}
    assert {"SimMAT points", "SimMAT boxes", "SimMAT preview", "SimMAT chosen"} < names
    ready.viewer.add_points([(1, 1)], name="mine")
    ready.idle()
    assert set(listed(ready)) == {"mine", "SimMAT objects", "discs"}
    ready.tab.helpers.setChecked(True)
    assert "SimMAT points" in listed(ready)
    ready.tab.helpers.setChecked(False)
    ready.close_widget()
    assert "SimMAT points" in listed(ready), "nobody would hide it any more"
