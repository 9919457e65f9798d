"""Prompts drawn at random are what their kind says."""

import numpy as np
import pytest
import torch

from napari_simmat.evaluation.drawn_prompts import (
    PROMPT_KIND_WEIGHTS,
    PromptBatch,
    add_correction,
    bounding_box,
    draw_prompts,
)


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
