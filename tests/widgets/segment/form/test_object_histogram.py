"""The bars under the table of objects."""

import re

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap

from napari_simmat.widgets.segment.form.object_histogram import FEWEST
from napari_simmat.widgets.segment.form.object_panel import ObjectPanel
from napari_simmat.widgets.segment.form.object_table import ObjectRow


def rows(count):
    return [ObjectRow(n, "", 10 * n, 2.5 * n, n / 100, None) for n in range(1, count + 1)]


def test_sizes_are_shown_and_scores_if_sorted_by_them(qtbot):
    panel = ObjectPanel()
    qtbot.addWidget(panel)
    panel.set_rows(rows(20), "µm²")
    shown = panel.histogram
    assert not shown.isHidden()
    assert shown.accessibleName() == "Histogram of µm²"
    assert sum(shown.histogram.counts) == 20
    assert shown.histogram.edges[0] == 2.5
    panel.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    assert shown.accessibleName() == "Histogram of score"
    assert shown.histogram.edges[-1] == 0.2
    shown.render(QPixmap(200, 44))


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("\N{MICRO SIGN}m²", "D50 6.676 \N{MICRO SIGN}m by area"),
        ("px", "D50 6.676 px by area"),
        ("mm³", "D50 4.058 mm by volume"),
        ("ml", "D50 40.58 mm by volume"),
        ("voxels", "D50 4.058 px by volume"),
        ("px, all t", None),
    ],
)
def test_sizes_tell_their_distribution(qtbot, title, told):
    panel = ObjectPanel()
    qtbot.addWidget(panel)
    panel.set_rows(rows(19), title)  # of 475, the first 14 are more than half; the 14th is 35
    tip = panel.histogram.toolTip()
    if told is None:
        assert "D50" not in tip
    else:
        assert re.sub(r"D10 .*(D50 \S+), D90 \S+ ", r"\1 ", tip.splitlines()[1]) == told
    panel.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    assert "D50" not in panel.histogram.toolTip()


def test_few_objects_have_no_histogram(qtbot):
    panel = ObjectPanel()
    qtbot.addWidget(panel)
    panel.set_rows(rows(FEWEST - 1))
    assert panel.histogram.isHidden()
