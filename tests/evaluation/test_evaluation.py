"""Evaluation prompts a model as a user would, and counts what a user would count."""

from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.prompting import UserProtocol
from napari_simmat.progress import finish
from tests.scripted_predictor import Scripted

LABELS = np.zeros((20, 20), int)
LABELS[4:14, 5:15] = 3


def part(pixels: int) -> np.ndarray:
    """So many of the object's 100 pixels, which is the IoU in percent."""
    mask = np.zeros(LABELS.shape, bool)
    mask.flat[np.flatnonzero(LABELS)[:pixels]] = True
    return mask


def clicked(*pixels: int, clicks: int):
    predictor = Scripted(*map(part, pixels))
    (score,) = finish(UserProtocol("iterative", clicks).score_job(predictor, LABELS))
    return predictor, score


def test_clicks_are_counted_until_the_iou_is_reached_first() -> None:
    """80 % with the second click, though the third loses it again; 90 % with the fourth."""
    _, score = clicked(50, 85, 79, 90, 95, clicks=5)
    assert [answer.iou for answer in score.clicks] == [0.5, 0.85, 0.79, 0.9, 0.95]
    assert score.clicks_until(0.8) == 2
    assert score.clicks_until(0.9) == 4
    assert score.clicks_until(0.96) is None
    figures = score.figures
    assert [figures[f"{each}@{n}"] for n in (80, 90) for each in ("noc", "failed")] == [2, 0, 4, 0]


def test_where_the_iou_is_never_reached_all_clicks_count() -> None:
    _, score = clicked(50, 85, 79, clicks=3)
    assert score.figures["noc@90"] == 3
    assert score.figures["failed@90"] == 1
    _, score = clicked(50, 85, 90, clicks=3)
    assert score.figures["noc@90"] == 3
    assert score.figures["failed@90"] == 0


def test_dice_and_boundary_are_measured_beside_the_iou() -> None:
    """Half of the object: 2 * 50 / (50 + 100)."""
    _, score = clicked(50, 100, clicks=2)
    assert score.figures["dice_click"] == pytest.approx(2 / 3, abs=1e-12)
    assert score.figures["boundary_f_click+1"] == 1
    assert score.figures["boundary_f_click"] < 1
    assert list(score.iou) == ["click", "click+1", "filled_box", "disk"]
    assert score.iou["filled_box"] == 1


def test_each_further_click_lies_in_the_largest_error_and_brings_the_logits() -> None:
    predictor, _ = clicked(50, 100, 100, clicks=2)
    first, second = predictor.asked
    assert (first.points, first.labels, first.mask) == (((9, 9),), (1,), None)
    assert second.points[0] == (9, 9)
    y, x = second.points[1]
    assert second.labels == (1, 1)
    assert 9 <= y < 14  # the lower half is missing
    assert 5 <= x < 15
    assert (second.mask == 1).all()  # what the first answer's logits were


def test_nobody_clicks_where_nothing_is_wrong() -> None:
    predictor, score = clicked(50, 100, clicks=5)
    assert len(predictor.asked) == 2
    assert [answer.iou for answer in score.clicks] == [0.5, 1, 1, 1, 1]
    assert score.figures["noc@90"] == 2


@pytest.mark.parametrize(
    ("asked", "columns", "prompts"),
    [
        ("click", ["click"], 1),
        ("box", ["box"], 1),
        ("iterative", ["click", "click+1", "click+2"], 3),
        ("all", ["click", "click+1", "click+2", "box"], 4),
    ],
)
def test_what_is_asked_and_shown(asked: str, columns: list[str], prompts: int) -> None:
    predictor, seen = Scripted(*[part(50)] * 4), []
    (score,) = finish(
        UserProtocol(asked, 3).score_job(
            predictor, LABELS, show=lambda *all_of_it: seen.append(all_of_it)
        )
    )
    assert list(score.answers) == columns
    assert len(predictor.asked) == prompts
    shown = {"click", "click+2", "box"} & set(columns)
    assert [column for column, *_ in seen] == sorted(shown, key=columns.index)
    for column, prompt, mask, reached in seen:
        assert prompt.object == 3
        assert len(prompt.points) == {"click": 1, "click+2": 3, "box": 0}[column]
        assert mask.sum() == 50
        assert reached == score.answers[column]
    counted = asked in ("iterative", "all")
    assert ("noc@80" in score.figures) is counted


def test_every_object_is_scored_and_corrections_help():
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), int)
    labels[(y - 30) ** 2 + (x - 30) ** 2 < 18**2] = 3
    labels[(y - 65) ** 2 + (x - 65) ** 2 < 15**2] = 7
    image = np.array([0, 0, 0, 200, 0, 0, 0, 120])[labels] + np.random.default_rng(0).normal(
        20, 5, labels.shape
    )
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(image)
    scores = finish(UserProtocol(clicks=3).score_job(predictor, labels))
    assert [score.label for score in scores] == [3, 7]
    for score in scores:
        assert list(score.answers) == ["click", "click+1", "click+2", "box"]
        assert min(score.iou[name] for name in score.answers) > 0.75
    assert predictor.encodes == 1


def test_labels_of_another_shape_are_refused():
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(np.random.default_rng(0).normal(size=(40, 40)))
    with pytest.raises(ValueError, match="labels"):
        finish(UserProtocol().score_job(predictor, np.ones((30, 40), int)))
