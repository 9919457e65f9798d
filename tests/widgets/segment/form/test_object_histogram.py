"""The bars under the table of objects."""

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


def test_few_objects_have_no_histogram(qtbot):
    panel = ObjectPanel()
    qtbot.addWidget(panel)
    panel.set_rows(rows(FEWEST - 1))
    assert panel.histogram.isHidden()
