"""Figures of automatic results that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.evaluation.metrics import THRESHOLDS
from napari_simmat.evaluation.scores import ImageMatches, plane_matches, summary_figures


def row(*runs: tuple[int, int]) -> np.ndarray:
    """Labels (1, X): so many pixels of each label, one after the other."""
    return np.concatenate([np.full(count, label) for label, count in runs])[None]


NOTHING = np.zeros((1, 30), bool)
TRUTH = row((1, 10), (0, 2), (2, 10), (0, 2), (3, 6))
FOUND = row((0, 2), (7, 8), (0, 2), (5, 10), (0, 2), (0, 3), (4, 3))
"""Of the first object 8 of 10 pixels, the second whole, of the third half."""


def test_figures_by_hand() -> None:
    found = plane_matches(FOUND, TRUTH, NOTHING)
    assert [each[:3] for each in found] == [
        (2, 1, 1) if threshold < 0.8 else (1, 2, 2) for threshold in THRESHOLDS
    ]
    figures = summary_figures(found)
    assert figures == pytest.approx(
        {
            "ap@50": 2 / 4,
            "ap@75": 2 / 4,
            "ap": (6 * 2 / 4 + 4 * 1 / 5) / 10,
            "pq": 1.8 / 3,
            "sq": 0.9,
            "rq": 2 / 3,
        }
    )


def test_what_is_found_where_labels_do_not_count_does_not_count() -> None:
    """Without the third object what was found in it is not invented, but the first's is."""
    ignored = TRUTH == 3
    assert plane_matches(FOUND, TRUTH, ignored)[0][:3] == (2, 0, 0)
    half = FOUND.copy()
    half[0, 22:27] = 4  # 2 of its 8 pixels lie beside the object, 3 + 3 within
    half[0, 10:12] = 0
    assert plane_matches(half, TRUTH, ignored)[0][:3] == (2, 0, 0)
    beside = np.where(FOUND == 4, 0, FOUND)
    beside[0, 22:25] = 4  # 1 of its 3 pixels
    assert plane_matches(beside, TRUTH, ignored)[0][:3] == (2, 1, 0)


def test_planes_and_images_add_up() -> None:
    """Counts are added, not shares averaged."""
    good = plane_matches(TRUTH, TRUTH, NOTHING)
    bad = plane_matches(np.zeros_like(TRUTH), TRUTH, NOTHING)
    one = ImageMatches("one", (((0,), good), ((2,), bad)))
    assert one.counts == {"objects": 6, "found": 3}
    assert one.figures["ap@50"] == 0.5
    assert list(one.headline) == ["ap@50", "ap@75", "ap", "pq"]
    assert [row["plane"] for row in one.rows()] == ["0", "2"]
    assert [row["matched@50"] for row in one.rows()] == [3, 0]
    assert [row["ap"] for row in one.rows()] == [1, 0]
    two = ImageMatches("two", (((), good),))
    assert ImageMatches.together([one, two])["ap@50"] == pytest.approx(6 / 9)
    assert ImageMatches("none", ()).counts == {"objects": 0, "found": 0}
