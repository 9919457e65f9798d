"""Alternatives to a click: other scales before other masks, and nothing twice."""

import torch

from napari_simmat.models.multiscale import LevelPrediction, LevelWindow, with_alternatives

GRID = (32, 32)


def squares(*sides: int) -> torch.Tensor:
    """Logits (N, 32, 32) of squares of so many cells from the corner."""
    logits = torch.full((len(sides), *GRID), -4.0)
    for each, side in zip(logits, sides, strict=True):
        each[:side, :side] = 4.0
    return logits


def prediction(confidence: float, *sides: int) -> LevelPrediction:
    """A prediction on the finest level, whose window is the whole image."""
    quality = torch.arange(len(sides)) / 10 + confidence
    return LevelPrediction(confidence, LevelWindow(0, 0, 64, 64), 1.0, squares(*sides), quality)


def sides_of(logits: torch.Tensor) -> list[int]:
    return [int((mask[0] > 0).sum()) for mask in logits]


def test_alternatives_of_other_levels_come_first():
    result = with_alternatives(
        [prediction(0.2, 20, 1, 1, 1), prediction(0.6, 10, 4, 6, 8), prediction(0.4, 30, 2, 2, 2)],
        GRID,
    )
    assert sides_of(result.logits) == [10, 30, 20, 4]
    torch.testing.assert_close(result.predicted_iou, torch.tensor([0.6, 0.4, 0.2, 0.7]))


def test_alternatives_that_repeat_a_mask_come_last():
    result = with_alternatives([prediction(0.6, 20, 19, 12, 8), prediction(0.4, 20, 5, 5, 5)], GRID)
    assert sides_of(result.logits) == [20, 12, 8, 20]


def test_alternatives_of_one_level_keep_their_order():
    result = with_alternatives([prediction(0.6, 20, 19, 20, 8)], GRID)
    assert sides_of(result.logits) == [20, 19, 20, 8]


def test_alternatives_that_are_empty_come_last():
    result = with_alternatives([prediction(0.6, 0, 0, 3, 0), prediction(0.1, 0, 1, 1, 1)], GRID)
    assert sides_of(result.logits) == [0, 3, 0, 0]


def test_alternatives_of_a_coarser_level_fit_the_grid():
    coarse = LevelPrediction(
        0.3, LevelWindow(0, 0, 32, 32), 0.5, torch.full((4, 16, 16), 4.0), torch.ones(4)
    )
    result = with_alternatives([prediction(0.6, 10, 4, 6, 8), coarse], GRID)
    assert sides_of(result.logits) == [10, 32, 4, 6]
