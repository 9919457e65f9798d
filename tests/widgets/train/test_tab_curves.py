import sys
from typing import Any

import numpy as np
import pytest
from napari.qt import get_stylesheet
from qtpy.QtGui import QColor, QImage
from qtpy.QtWidgets import QLabel

from napari_simmat.widgets.train.curve_history import CurveHistory
from napari_simmat.widgets.train.tab import (
    IOU,
    LOSS,
    NO_CURVES,
    TrainingCurves,
    smooth_points,
)


def test_smooth_points_run_up_to_each_point():
    points = [(float(n), float(n % 2)) for n in range(20)]  # over two points each
    assert [value for _, value in smooth_points(points)] == [0.0] + [0.5] * 19
    assert smooth_points([(1.0, 3.0)]) == [(1.0, 3.0)]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_curves_are_visible_in_both_themes(qtbot, theme):
    curves = TrainingCurves()
    qtbot.addWidget(curves)
    curves.setStyleSheet(get_stylesheet(theme))
    curves.resize(320, 250)
    history = CurveHistory()
    empty = pixels(curves)
    for step in range(40):
        history.add({"step": step, "loss": 1 / (1 + step)})
        if step % 8 == 0:
            history.add({"step": step, "validation_iou": 50.0 + step})
    curves.set_value(history, 100)
    assert curves.value() is history
    qtbot.waitUntil(lambda: curves._canvas is not None, timeout=60_000)
    curves._canvas.draw()
    drawn = pixels(curves)
    for color in (IOU, LOSS):
        wanted = np.array(QColor(color).getRgb()[:3])
        near = np.abs(drawn.astype(int) - wanted).max(axis=-1) < 24
        assert near.sum() > 60, f"the curve {color} in {theme}"
        assert np.flatnonzero(near.any(axis=0)).max() < 200, "40 of 100 steps are done"
    ink = {"dark": 200, "light": 80}[theme]
    words = drawn.min(axis=-1) > ink if theme == "dark" else drawn.max(axis=-1) < ink
    assert words.sum() > 100
    assert not np.array_equal(empty, drawn)
    assert "Best validation 82.0 % at step 32" in curves.toolTip()


def test_curves_that_grow_stay_in_the_plot(qtbot):
    curves = TrainingCurves()
    qtbot.addWidget(curves)
    history = CurveHistory()
    history.add({"step": 0, "validation_iou": 30.0})  # before the first loss
    curves.set_value(history, 10)
    qtbot.waitUntil(lambda: curves._canvas is not None, timeout=60_000)
    history.add({"step": 2, "loss": 3.0, "validation_iou": 60.0})
    curves.set_value(history, 10)
    _, loss = curves._axes
    qtbot.waitUntil(lambda: len(curves._loss.get_xdata()) == 1)
    low, high = loss.get_ylim()
    assert low == 0
    assert high >= 3.0
    low, high = curves._axes[0].get_ylim()
    assert low <= 30.0
    assert high >= 60.0


def test_curves_without_matplotlib_say_what_to_install(qtbot, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    curves = TrainingCurves()
    qtbot.addWidget(curves)
    history = CurveHistory()
    history.add({"step": 0, "validation_iou": 30.0})
    curves.set_value(history, 10)
    qtbot.waitUntil(lambda: curves.findChild(QLabel) is not None, timeout=60_000)
    assert curves.findChild(QLabel).text() == NO_CURVES


def pixels(widget: Any) -> np.ndarray:
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    bits = image.constBits()
    if hasattr(bits, "setsize"):  # PyQt's
        bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
