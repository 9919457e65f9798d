"""Texts can be read on napari's dark and on its light theme."""

from typing import get_args

import pytest
from napari._qt.qt_resources import get_stylesheet
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_simmat.widgets.batch.controller import OPENABLE_STATES
from napari_simmat.widgets.batch.file_table import FileRow
from napari_simmat.widgets.controls import CollapsibleSection
from napari_simmat.widgets.status_line import Status, StatusKind
from tests.nightly import nightly_but
from tests.widgets.hands import Headless

READABLE = 4.5
"""Contrast that WCAG 2.1 asks for (AA, normal text)."""


def contrast(text: QColor, behind: QColor) -> float:
    """Contrast of two colors, 1..21, by WCAG 2.1."""

    def luminance(color: QColor) -> float:
        parts = [color.redF(), color.greenF(), color.blueF()]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(text), luminance(behind)))
    return (light + 0.05) / (dark + 0.05)


def shown(widget: QLabel | QPushButton) -> tuple[QColor, QColor]:
    """The colors of a text and of what is behind it, as the style sheets set them."""
    palette = widget.palette()
    if isinstance(widget, QPushButton) and not isinstance(widget.parent(), CollapsibleSection):
        return palette.buttonText().color(), palette.button().color()
    text = palette.buttonText() if isinstance(widget, QPushButton) else palette.windowText()
    return text.color(), widget.window().palette().window().color()  # it has none of its own


@pytest.mark.parametrize("theme", nightly_but(("dark", "light"), "light"))
def test_tones_in_every_theme_are_readable(theme, qtbot):
    hands = Headless(qtbot, whole=True)
    widget = hands.open_widget()
    window = QWidget()
    QVBoxLayout(window).addWidget(widget)
    window.setStyleSheet(get_stylesheet("light" if theme == "dark" else "dark"))
    window.show()
    window.setStyleSheet(get_stylesheet(theme))  # the user changes it
    scores = {"before": {"click": 50.0, "box": 60.0}, "after": {"click": 55.0, "box": 58.0}}
    widget.train.gains.set_value(scores)  # one gain, one loss

    def unreadable():
        texts = [*widget.findChildren(QLabel), *widget.findChildren(QPushButton)]
        found = {each.text(): contrast(*shown(each)) for each in texts if _is_seen(each)}
        return {text: round(each, 2) for text, each in found.items() if each < READABLE}

    try:
        for tab in (widget.train, widget.batch, widget.segment):
            widget.tabs.setCurrentWidget(tab)
            for kind in get_args(StatusKind):
                tab.status.set_value(Status(kind, "A sentence", seconds=1.0))
                assert not unreadable()
        widget.segment.buttons.set_sign(False)
        assert not unreadable()
        card = widget.segment.models.card
        assert shown(card)[0] != shown(widget.segment.status.text)[0], "muted"
        model = widget.batch.table.files
        model.set_rows([FileRow("a", state) for state in (*OPENABLE_STATES, "failed", "skipped")])
        behind = QColor(widget.batch.table.palette().base().color())
        for row in range(model.rowCount()):
            color = model.data(model.index(row, 1), Qt.ItemDataRole.ForegroundRole)
            assert contrast(color, behind) >= READABLE
    finally:
        hands.close()
        window.close()


def _is_seen(widget: QWidget) -> bool:
    return widget.isVisible() and widget.isEnabled()
