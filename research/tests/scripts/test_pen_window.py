"""Lines of the pen in the window: how they end, and what is said of them."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ENDS = ("to the start", "short of it", "past it", "beside it")
RING = 60 + 50 * np.stack([np.sin(a := np.linspace(0, 2 * np.pi, 200)), np.cos(a)], 1)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("pen_window", "learn"):  # no other test's
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("pen_window")


@pytest.mark.parametrize("end", ENDS)
def test_line_ends_as_its_hand_does(script, end):
    path = script._ended(RING, end, np.random.default_rng(0))
    gap = np.linalg.norm(path[-1] - path[0])
    length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    around = 2 * np.pi * 50
    if end == "to the start":
        assert gap == pytest.approx(0)
    elif end == "short of it":
        assert around - script.SHORT - 2 < length < around - 1
    elif end == "past it":
        assert around < length < around + script.PAST
    else:
        assert 1 < gap < 9


def test_mouse_reports_at_equal_distances(script):
    path = script._along(RING, 7.0)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() <= 7.0
    assert steps.min() > 6.5


def test_tables_count_what_was_meant_and_what_was_offered(script):
    def row(right, offered, situation="outline"):
        values = ("blood", "a", 1, situation, "outline", "adds", offered, right, ENDS[0])
        made = script.Row(*values, "slow", 30.0, 1.0, 0.8, 0.9, 2.0, 0.5)
        return {name: "" if value is None else str(value) for name, value in made._asdict().items()}

    found = script.tables([row(True, False), row(False, True), row(False, False, "adds")])
    assert "| outline | 3 | 33.3 % | 2 | 1 | 0.80 | 0.90 | 2.0 | 0.50 |" in found
