"""No text is cut: every label that wraps is as high as its text, at any width of the dock."""

import pytest
from napari._qt.qt_resources import get_stylesheet
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets.controls import CollapsibleSection, Status, TextLabel

WORDS = "This image has 48 channels, and the model reads three of them: choose them below. "


@pytest.mark.all_tabs
@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("tab", ["segment", "train", "batch"])
def test_labels_at_any_width_show_all_of_their_text(window, tab, scale):
    widget = window.open_widget()
    points = round(scale * 10)
    sheet = get_stylesheet("dark", extra_variables={"font_size": f"{points}pt"})
    widget.setStyleSheet(sheet)
    shown = getattr(widget, tab)
    widget.tabs.setCurrentWidget(shown)
    for section in shown.findChildren(CollapsibleSection):
        section.set_open(True)
    status = Status("failed", 4 * WORDS, offer="Use tiny", other="Somewhere else")
    shown.status.set_value(status)
    shown.status.set_warning(2 * WORDS)
    labels = shown.findChildren(TextLabel)
    assert len(labels) > 2
    for words in (WORDS, 3 * WORDS):
        for label in labels:
            label.setText(words)
            label.show()
        for width in range(280, 521, 60):
            widget.resize(width, 800)
            for _ in range(5):
                QApplication.processEvents()
            seen = [label for label in labels if label.isVisible()]
            assert shown.status.text in seen
            cut = [
                (type(label.parentWidget()).__name__, width, label.height())
                for label in seen
                if label.height() < label.heightForWidth(label.width())
            ]
            assert not cut, "parent, width, height"
