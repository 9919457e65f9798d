"""Prompts as users and SimMAT's paper give them, and how their masks are scored."""

import numpy as np
import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.masks import iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.protocols import (
    PaperProtocol,
    UserProtocol,
    center_clicks,
    resample_to_grid,
)
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


def test_user_protocol_counts_clicks_until_the_iou_is_reached():
    """80 % with the second click, though the third loses it again; 90 % with the fourth."""
    _, score = clicked(50, 85, 79, 90, 95, clicks=5)
    assert list(score.iou.values())[:5] == [0.5, 0.85, 0.79, 0.9, 0.95]
    assert score.clicks_until(0.8) == 2
    assert score.clicks_until(0.9) == 4
    assert score.clicks_until(0.96) is None
    figures = score.figures
    assert [figures[f"{each}@{n}"] for n in (80, 90) for each in ("noc", "failed")] == [2, 0, 4, 0]
    _, score = clicked(50, 85, 79, clicks=3)
    assert score.figures["noc@90"] == 3
    assert score.figures["failed@90"] == 1
    _, score = clicked(50, 85, 90, clicks=3)
    assert score.figures["noc@90"] == 3
    assert score.figures["failed@90"] == 0


def test_user_protocol_measures_dice_beside_the_iou():
    """Half of the object: 2 * 50 / (50 + 100)."""
    _, score = clicked(50, 100, clicks=2)
    assert score.figures["dice_click"] == pytest.approx(2 / 3, abs=1e-12)
    assert list(score.iou) == ["click", "click+1", "filled_box", "disk"]
    assert score.iou["filled_box"] == 1


def test_user_protocol_corrects_the_largest_error_with_logits():
    predictor, _ = clicked(50, 100, 100, clicks=2)
    first, second = predictor.asked
    assert (first.points, first.labels, first.mask) == (((9, 9),), (1,), None)
    assert second.points[0] == (9, 9)
    y, x = second.points[1]
    assert second.labels == (1, 1)
    assert 9 <= y < 14  # the lower half is missing
    assert 5 <= x < 15
    assert (second.mask == 1).all()  # what the first answer's logits were


def test_user_protocol_stops_where_nothing_is_wrong():
    predictor, score = clicked(50, 100, clicks=5)
    assert len(predictor.asked) == 2
    assert list(score.iou.values())[:5] == [0.5, 1, 1, 1, 1]
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
def test_user_protocol_prompts_and_shows_what_was_chosen(asked, columns, prompts):
    predictor, seen = Scripted(*[part(50)] * 4), []
    (score,) = finish(
        UserProtocol(asked, 3).score_job(
            predictor, LABELS, show=lambda *all_of_it: seen.append(all_of_it)
        )
    )
    assert list(score.iou) == [*columns, "filled_box", "disk"]
    assert list(score.dice) == columns
    assert len(predictor.asked) == prompts
    shown = {"click", "click+2", "box"} & set(columns)
    assert [column for column, *_ in seen] == sorted(shown, key=columns.index)
    for column, prompt, mask, reached in seen:
        assert prompt.object == 3
        assert len(prompt.points) == {"click": 1, "click+2": 3, "box": 0}[column]
        assert mask.sum() == 50
        assert reached == score.iou[column]
    counted = asked in ("iterative", "all")
    assert ("noc@80" in score.figures) is counted


def test_user_protocol_scores_boxes_without_crumbs_as_users_do():
    """A user's mask of a box is `Refiner`'s."""
    boxed = part(100)
    boxed[4:14, 14] = False  # 90 pixels of the object, and a crumb apart from them
    boxed[[4, 5], [16, 16]] = True
    predictor, seen = Scripted(boxed, boxed.copy()), []
    [score] = finish(
        UserProtocol("box").score_job(predictor, LABELS, show=lambda *shown: seen.append(shown))
    )
    [users] = Refiner().refine(predictor, [Prompt(box=(4, 5, 14, 15), object=3)])
    assert users.left_out == 1
    assert score.iou["box"] == iou(users.mask, LABELS == 3) == 0.9
    assert score.dice["box"] == dice(users.mask, LABELS == 3)
    [(_, prompt, shown, reached)] = seen
    assert prompt == predictor.asked[1]
    assert np.array_equal(shown, users.mask)
    assert reached == 0.9


def test_score_job_refuses_labels_of_another_shape():
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(np.random.default_rng(0).normal(size=(40, 40)))
    with pytest.raises(ValueError, match="labels"):
        finish(UserProtocol().score_job(predictor, np.ones((30, 40), int)))


def test_center_clicks_takes_the_middle_pixel_at_1024():
    """Six pixels: the fourth begins the second row, at the region's left edge."""
    labels = np.zeros((1024, 1024), int)
    labels[10:12, 100:103] = 4
    assert center_clicks(labels) == {4: (11, 100)}
    # 2 x 2 pixels of 512 are 4 x 4: the ninth of 16 is in row 10, column 16.
    labels = np.zeros((512, 512), int)
    labels[4:6, 8:10] = 1
    assert center_clicks(labels) == {1: (4.75, 7.75)}
    # Pixels twice as wide as high: the aspect is not kept.
    wide = np.zeros((1024, 512), int)
    wide[8:12, 8:10] = 1
    assert center_clicks(wide) == {1: (10, 7.75)}


@pytest.mark.parametrize("shape", [(37, 301), (1500, 1100), (256, 256), (7, 5)])
def test_center_clicks_lie_on_their_regions(shape):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 6, (7, 5))
    labels = np.kron(cells, np.ones((-(-shape[0] // 7), -(-shape[1] // 5)), int))
    labels = labels[: shape[0], : shape[1]]
    clicks = center_clicks(labels)
    assert list(clicks) == [label for label in np.unique(labels) if label]
    for label, (y, x) in clicks.items():
        assert labels[round(y), round(x)] == label


def test_center_clicks_leave_out_small_and_unseen_regions():
    """64 x 64 pixels of 512 count as 128 x 128; a lone pixel of 1024 lies between the cells."""
    labels = np.zeros((512, 512), int)
    labels[:64, :64] = 7
    assert list(center_clicks(labels, 128 * 128 - 1)) == [7]
    assert list(center_clicks(labels, 128 * 128)) == []
    speck = np.zeros((1024, 1024), int)
    speck[0, 0] = 1
    assert center_clicks(speck) == {}
    speck[2, 2] = 1
    assert list(center_clicks(speck)) == [1]


def test_paper_protocol_compares_masks_on_256_cells():
    """Half of the answer is right: IoU 1/3, Dice 1/2. What no cell's center sees is not counted."""
    labels, answer = np.zeros((2, 512, 512), int)
    labels[100:164, 100:164] = 9
    answer[132:196, 100:164] = 1
    answer[::2] = 0  # cells see the odd rows
    seen = []
    predictor = Scripted(answer > 0)
    job = PaperProtocol().score_job(predictor, labels, show=lambda *each: seen.append(each))
    (score,) = finish(job)
    assert score.figures == {"paper": 1 / 3, "dice_paper": 0.5}
    assert (score.label, score.area) == (9, 64 * 64)
    ((column, prompt, mask, reached),) = seen
    assert (column, prompt.object, reached) == ("paper", 9, score.iou["paper"])
    assert (mask == (answer > 0)).all()


def test_resample_to_grid_takes_the_nearest_pixels():
    plane = np.arange(12).reshape(3, 4)
    assert resample_to_grid(plane, 3).tolist() == [[0, 2, 3], [4, 6, 7], [8, 10, 11]]
    assert (resample_to_grid(plane, 6)[::2, 1] == plane[:, 1]).all()


def test_paper_protocol_scores_chosen_labels_of_the_same_size():
    labels = np.repeat([[1, 2, 3, 0]], 4, axis=0)
    predictor = Scripted(labels == 2)
    (score,) = finish(PaperProtocol().score_job(predictor, labels, {2}))
    assert (score.label, score.figures["paper"]) == (2, 1)
    with pytest.raises(ValueError, match="The labels have 3 x 4 pixels"):
        finish(PaperProtocol().score_job(Scripted(labels == 2), labels[:3]))
