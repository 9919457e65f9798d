"""Prompts as users and SimMAT's paper give them, and how their masks are scored."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.masks import iou, label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.prompting import (
    PROMPT_KIND_WEIGHTS,
    GroundTruthObject,
    PaperProtocol,
    PromptBatch,
    UserProtocol,
    add_correction,
    bounding_box,
    center_clicks,
    correcting_click,
    draw_prompts,
    resample_to_grid,
)
from napari_simmat.progress import finish
from tests.scripted_predictor import Scripted


@pytest.fixture
def masks():
    """Two objects (2, 64, 80): a rectangle and an L, which has its middle off its centroid."""
    masks = np.zeros((2, 64, 80), bool)
    masks[0, 10:30, 40:70] = True
    masks[1, 10:50, 8:14] = masks[1, 44:50, 8:60] = True
    return masks


@pytest.mark.parametrize("kind", PROMPT_KIND_WEIGHTS)
def test_draw_prompts_gives_the_points_of_each_kind(kind, masks):
    for seed in range(20):
        points, labels, mask = draw_prompts(kind, masks, np.random.default_rng(seed))
        assert points.shape[:2] == labels.shape
        for row, kinds, truth in zip(points, labels.tolist(), masks, strict=True):
            for (x, y), label in zip(row.tolist(), kinds, strict=True):
                if label in (0, 1):
                    assert truth[int(y), int(x)] == bool(label)
            assert (
                kinds
                == {
                    "click": [1, -1],
                    "box": [2, 3],
                    "points": [1, 1, 0, -1],
                    "click+box": [1, 2, 3],
                    "points+box": [1, 1, 0, 2, 3],
                    "mask": [-1],
                    "box+mask": [2, 3],
                    "scribble": [1, 1, 1, 1, 1, -1],
                }[kind]
            )
        if "mask" in kind:
            assert mask.shape == (2, 1, 32, 40)
            covered = torch.nn.functional.avg_pool2d(torch.tensor(masks[:, None]).float(), 2) > 0.5
            overlap = ((mask > 0) & covered).sum() / ((mask > 0) | covered).sum()
            assert overlap > 0.3
        else:
            assert mask is None


@pytest.mark.parametrize(("kind", "in_the_middle"), [("anywhere", 60), ("click", 330)])
def test_draw_prompts_places_clicks_as_their_kind_says(kind, in_the_middle):
    """600 clicks into 10 pixels in a row, of which one counts as the middle."""
    row = np.zeros((1, 5, 20), bool)
    row[0, 2, 4:14] = True
    rng = np.random.default_rng(0)
    clicks = [draw_prompts(kind, row, rng) for _ in range(600)]
    assert all(click.labels.tolist() == [[1, -1]] for click in clicks)
    counts = np.bincount([int(click.points[0, 0, 0]) for click in clicks], minlength=14)[4:]
    assert abs(counts.max() - in_the_middle) < 45
    assert abs(counts.min() - (600 - in_the_middle) / 9) < 30


def test_draw_prompts_tight_box_has_edges_half_a_pixel_outside(masks):
    np.testing.assert_array_equal(bounding_box(masks[0]), [[40, 10], [70, 30]])
    boxes = [draw_prompts("box", masks[:1], np.random.default_rng(s)).points[0] for s in range(40)]
    assert any(np.array_equal(box, [[39.5, 9.5], [69.5, 29.5]]) for box in boxes)


@pytest.mark.parametrize("height", [2, 6, 30])
def test_draw_prompts_box_holds_most_of_a_thin_object(height):
    rod = np.zeros((1, 64, 160), bool)
    rod[0, 20 : 20 + height, 20:120] = True
    boxes = [draw_prompts("box", rod, np.random.default_rng(s)).points[0] for s in range(200)]
    for (left, top), (right, bottom) in (box.tolist() for box in boxes):
        assert min(bottom, 19.5 + height) - max(top, 19.5) >= 0.59 * height
        assert min(right, 119.5) - max(left, 19.5) >= 59
    assert any(top < 19.5 - 0.2 * height for (_, top), _ in boxes)  # loose by more


def test_add_correction_clicks_the_largest_error(masks):
    truth = torch.tensor(masks[:1, None]).float()
    target = torch.nn.functional.avg_pool2d(truth, 2)
    logits = torch.full((1, 1, 32, 40), -5.0)
    logits[0, 0, 5:15, 20:27] = 5  # the left part is found
    logits[0, 0, 25:27, 2:4] = 5  # and something small that is not there
    before = PromptBatch(torch.tensor([[[45.0, 20.0], [0.0, 0.0]]]), torch.tensor([[1, -1]]))
    after = add_correction(before, logits, target, 2)
    (x, y), label = after.points[0, 0].tolist(), int(after.labels[0, 0])
    assert label == 1
    assert 54 <= x <= 70
    assert 10 <= y <= 30
    torch.testing.assert_close(after.points[:, 1:], before.points)
    torch.testing.assert_close(after.mask, logits)

    logits[0, 0] = 5  # everything is taken for the object: the error lies outside
    after = add_correction(before, logits, target, 2)
    (x, y), label = after.points[0, 0].tolist(), int(after.labels[0, 0])
    assert label == 0
    assert not masks[0][int(y), int(x)]


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


def test_correcting_click_lies_in_the_largest_error():
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    assert correcting_click(truth, truth) is None
    (y, x), label = correcting_click(truth & (np.arange(20) < 9), truth)
    assert label == 1
    assert 9 <= x < 15
    assert 5 <= y < 15
    (y, x), label = correcting_click(truth | (np.arange(20) > 13), truth)
    assert label == 0
    assert x > 13


def test_ground_truth_middle_lies_deepest_inside():
    labels = np.zeros((20, 30), np.int64)
    labels[2:5, 2:28] = labels[2:17, 2:11] = 2_000_000_000  # an L, thick below
    labels[19, 29], labels[19, 0] = 3, -5
    (_, window), (label, other) = label_windows(labels)
    y, x = GroundTruthObject(labels, label, other).middle
    assert 5 <= y <= 13
    assert 5 <= x <= 7
    assert GroundTruthObject(labels, 3, window).middle == (19, 29)
    assert label_windows(np.zeros((3, 4), int)) == []


@pytest.mark.parametrize("seed", range(3))
def test_agreement_equals_that_of_whole_images(seed):
    """Blobs anywhere, also at the border: the same figures as from whole images."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 60, 80)), (0, 4, 4))
    truth = noise[0] > np.quantile(noise[0], 0.8)
    ours = (noise[0] + 0.5 * noise[1]) > np.quantile(noise[0], 0.8)
    labels = np.where(truth, 5, 0)
    ((label, window),) = label_windows(labels)
    reached = GroundTruthObject(labels, label, window).agreement(ours)
    assert reached == (iou(ours, truth), dice(ours, truth))
    assert 0 < reached[0] < 1


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
