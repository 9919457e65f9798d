from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.qt import get_stylesheet
from qtpy.QtGui import QColor, QImage

from napari_simmat.widgets.train.runs import CurveHistory
from napari_simmat.widgets.train.tab import (
    IOU,
    LOSS,
    TrainingCurves,
    nice_ticks,
    smooth_points,
    thin_points,
)


@pytest.mark.parametrize(
    ("values", "floor", "ticks"),
    [
        ([], True, [0, 0.5, 1]),
        ([0.03, 0.31], True, [0, 0.2, 0.4]),
        ([90.7, 97.1], False, [90, 92.5, 95, 97.5]),
        ([40.0, 40.0], False, [40, 42, 44]),
        ([12.0, 88.0], False, [0, 50, 100]),
        ([0.0], True, [0, 0.0005, 0.001]),
    ],
)
def test_ticks_are_few_round_numbers_around_the_values(
    values: list[float], floor: bool, ticks: list[float]
) -> None:
    found = nice_ticks(values, floor=floor)
    assert found == pytest.approx(ticks)


def test_ticks_hold_all_values_whatever_they_are() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        values = (random.normal(size=5) * 10.0 ** random.integers(-4, 5)).tolist()
        for floor in (False, True):
            ticks = nice_ticks(values, floor=floor)
            assert 2 <= len(ticks) <= 5
            assert ticks[0] <= min(values) + 1e-9
            assert ticks[-1] >= max(values) - 1e-9
            assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(n), float(n)) for n in range(1001)]
    few = thin_points(points, 100)
    assert len(few) <= 101
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert thin_points(points[:50], 100) == points[:50]


def test_the_mean_runs_up_to_each_point() -> None:
    points = [(float(n), float(n % 2)) for n in range(20)]  # over two points each
    assert [value for _, value in smooth_points(points)] == [0.0] + [0.5] * 19
    assert smooth_points([(1.0, 3.0)]) == [(1.0, 3.0)]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_both_curves_and_words_are_seen_in_both_themes(qtbot: Any, theme: str) -> None:
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
    drawn = pixels(curves)
    for colour in (IOU, LOSS):
        wanted = np.array(QColor(colour).getRgb()[:3])
        near = np.abs(drawn.astype(int) - wanted).max(axis=-1) < 24
        assert near.sum() > 60, f"the curve {colour} in {theme}"
        assert np.flatnonzero(near.any(axis=0)).max() < 200, "40 of 100 steps are done"
    ink = {"dark": 200, "light": 80}[theme]
    words = drawn.min(axis=-1) > ink if theme == "dark" else drawn.max(axis=-1) < ink
    assert words.sum() > 100
    assert not np.array_equal(empty, drawn)
    assert "Best validation 82.0 % at step 32" in curves.toolTip()


def pixels(widget: Any) -> np.ndarray:
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
