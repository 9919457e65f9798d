"""Figures of objects, images and folders, counted by hand."""

import numpy as np
import pytest

from napari_simmat.evaluation.metrics import THRESHOLDS
from napari_simmat.evaluation.scores import (
    ImageScores,
    ObjectScore,
    Scores,
    click_column,
    column_title,
    plane_matches,
)


def clicked(label: int, *iou: float) -> tuple[tuple[int, ...], ObjectScore]:
    ious = {click_column(number): each for number, each in enumerate(iou, start=1)}
    return (), ObjectScore(label, 20, ious, {name: each / 2 for name, each in ious.items()})


SCORES = Scores(
    (
        ImageScores("a", (clicked(1, 0.25, 0.5), clicked(2, 0.75, 0.875), clicked(3, 0.8, 0.95))),
        ImageScores("b", (clicked(1, 1, 0.75),)),
    )
)


def test_over_images_weighs_each_image_equally():
    assert SCORES.over_images == {
        "click": 0.8,
        "click+1": (2.325 / 3 + 0.75) / 2,
        "dice_click": 0.4,
        "dice_click+1": (2.325 / 3 + 0.75) / 4,
        "noc@80": (5 / 3 + 1) / 2,  # 2 that count although never reached, 2, 1; and 1
        "failed@80": (1 / 3 + 0) / 2,
        "noc@90": (2 + 1) / 2,  # the third object alone reaches it with its second click
        "failed@90": (2 / 3 + 0) / 2,
    }
    assert list(SCORES.headline) == ["click", "click+1"]


def test_together_weighs_each_object_equally():
    means = SCORES.together.figures
    assert SCORES.together.counts == {"objects": 4}
    assert means["click"] == (0.25 + 0.75 + 0.8 + 1) / 4
    assert means["noc@80"] == (2 + 2 + 1 + 1) / 4
    assert means["failed@90"] == 2 / 4


def test_rows_hold_one_for_each_object():
    first, *_, last = (row for image in SCORES.images for row in image.rows)
    assert (first["image"], first["label"], first["area_px"], first["noc@80"]) == ("a", 1, 20, 2)
    assert (last["image"], last["click+1"], last["noc@90"]) == ("b", 0.75, 1)


def test_column_title_is_for_people():
    titles = {"click": "1 click", "click+1": "2 clicks", "click+9": "10 clicks", "box": "box"}
    assert {column: column_title(column) for column in titles} == titles


def row(*runs: tuple[int, int]) -> np.ndarray:
    """Labels (1, X): so many pixels of each label, one after the other."""
    return np.concatenate([np.full(count, label) for label, count in runs])[None]


NOTHING = np.zeros((1, 30), bool)
TRUTH = row((1, 10), (0, 2), (2, 10), (0, 2), (3, 6))
FOUND = row((0, 2), (7, 8), (0, 2), (5, 10), (0, 2), (0, 3), (4, 3))
"""Of the first object 8 of 10 pixels, the second whole, of the third half."""


def test_plane_matches_figures_are_counted_by_hand():
    found = plane_matches(FOUND, TRUTH, NOTHING)
    assert [each[:3] for each in found.matchings] == [
        (3, 0, 0) if threshold == 0.5 else (2, 1, 1) if threshold <= 0.8 else (1, 2, 2)
        for threshold in THRESHOLDS
    ]
    assert found.figures == pytest.approx(
        {
            "ap@50": 1,
            "ap@75": 2 / 4,
            "ap": (1 + 6 * 2 / 4 + 3 * 1 / 5) / 10,
            "pq": 2.3 / 3,
            "sq": 2.3 / 3,
            "rq": 1,
        }
    )


def test_plane_matches_ignores_objects_on_ignored_pixels():
    """Without the third object what was found in it is not invented, but the first's is."""
    ignored = TRUTH == 3
    assert plane_matches(FOUND, TRUTH, ignored).matchings[0][:3] == (2, 0, 0)
    half = FOUND.copy()
    half[0, 22:27] = 4  # 2 of its 8 pixels lie beside the object, 3 + 3 within
    half[0, 10:12] = 0
    assert plane_matches(half, TRUTH, ignored).matchings[0][:3] == (2, 0, 0)
    beside = np.where(FOUND == 4, 0, FOUND)
    beside[0, 22:25] = 4  # 1 of its 3 pixels
    assert plane_matches(beside, TRUTH, ignored).matchings[0][:3] == (2, 1, 0)


def test_matches_of_planes_and_images_add_up():
    """Counts are added, not shares averaged."""
    good = plane_matches(TRUTH, TRUTH, NOTHING)
    bad = plane_matches(np.zeros_like(TRUTH), TRUTH, NOTHING)
    one = ImageScores("one", (((0,), good), ((2,), bad)))
    assert one.counts == {"objects": 6, "found": 3}
    assert one.figures["ap@50"] == 0.5
    assert list(one.headline) == ["ap@50", "ap@75", "ap", "pq"]
    assert [row["plane"] for row in one.rows] == ["0", "2"]
    assert [row["matched@50"] for row in one.rows] == [3, 0]
    assert [row["ap"] for row in one.rows] == [1, 0]
    two = ImageScores("two", (((), good),))
    assert Scores((one, two)).together.figures["ap@50"] == pytest.approx(6 / 9)
    assert ImageScores("none", ()).counts == {"objects": 0}
