"""No text is cut: every label that wraps is as high as its text, at any width of the dock."""

import re
import sys

import numpy as np
import pytest
from napari._qt.qt_resources import get_stylesheet
from qtpy.QtCore import QRect, Qt
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets.controls import CollapsibleSection, TextLabel
from napari_simmat.widgets.status_line import Status

NAME = "Experiment_20261128_plate07_well_B04_channel_DAPI_maximum_projection.ome.tif"
"""What stands in the gaps of a message; nobody can break it at a space."""


def messages() -> list[str]:
    """Every sentence of the program that is a constant, with its gaps filled."""
    modules = [each for name, each in sys.modules.items() if name.startswith("napari_simmat.")]
    texts = {
        re.sub(r"\{[^}]*\}", NAME, text)
        for module in modules
        for name, text in vars(module).items()
        if isinstance(text, str) and name.isupper() and " " in text and "<" not in text
    }
    return sorted(texts, key=len)


@pytest.mark.slow
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
    told = messages()
    assert len(told) > 200
    shown.status.set_value(Status("failed", told[-1], offer="Use tiny", other="Somewhere else"))
    shown.status.set_warning(told[-2])
    labels = shown.findChildren(TextLabel)
    assert len(labels) > 2
    for some in np.array_split(told, -(-len(told) // len(labels))):
        for label, text in zip(labels, map(str, some), strict=False):
            label.setText(text)
            assert label.text() == text
            label.show()
        for width in range(280, 521, 60):
            widget.resize(width, 800)
            for _ in range(5):
                QApplication.processEvents()
            seen = [label for label in labels if label.isVisible()]
            assert shown.status.text in seen
            cut = [
                (type(label.parentWidget()).__name__, width, label.size(), label.text())
                for label in seen
                if label.height() < label.heightForWidth(label.width())
                or label.width() < label.fontMetrics().boundingRect(*_room(label)).width()
            ]
            assert not cut, "parent, width, size, text"


def _room(label: TextLabel) -> tuple[QRect, int, str]:
    """Where a label draws its text, how, and what it draws."""
    room = QRect(0, 0, label.width(), 10_000)
    return room, int(Qt.TextFlag.TextWordWrap), label.drawn
