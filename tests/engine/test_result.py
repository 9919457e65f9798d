"""Masks that are formed where they lie are those that are formed whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.result import Result, enlarge
from napari_simmat.models.network import DecodedMasks
from napari_simmat.models.spec import InputSize

SIZES = {
    "native": InputSize(method="native", size=512),
    "native, reduced": InputSize(method="native", size=96),
    "longest": InputSize(method="longest", size=256),
    "stretch": InputSize(method="stretch", size=128),
}


def blob(grid: tuple[int, int], center: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Logits (4, h, w), positive around `center`, with noise."""
    y, x = (
        torch.arange(size)[:, None].float() if n == 0 else torch.arange(size)[None].float()
        for n, size in enumerate(grid)
    )
    far = ((y - center[0]) ** 2 + (x - center[1]) ** 2).sqrt()
    noise = torch.randn(4, *grid, generator=torch.manual_seed(seed))
    return (6 - far + noise).clamp(-10, 10)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("center", [(20, 20), (0, 3), (30, 40)])
def test_patch_is_a_part_of_the_whole(size: InputSize, center: tuple[int, int]) -> None:
    frame = InputTransform.of((117, 150), size)
    stride = 4 if size.method == "longest" else 2
    logits = blob(frame.grid(stride), center)
    whole = enlarge(logits, frame, stride).numpy()
    answer = Result(DecodedMasks(logits, torch.ones(4)), frame, stride)
    for index in range(4):
        patch = answer.patch(index, above=-1)
        assert patch is not None
        height, width = patch.logits.shape
        part = whole[index, patch.top : patch.top + height, patch.left : patch.left + width]
        np.testing.assert_allclose(patch.logits, part, rtol=1e-4, atol=1e-4)
        beside = np.ones(whole.shape[1:], bool)
        beside[patch.top : patch.top + height, patch.left : patch.left + width] = False
        assert (whole[index][beside] <= -1).all()


def test_patch_of_a_part_of_the_grid_is_placed() -> None:
    frame = InputTransform.of((64, 64), InputSize(method="native", size=512))
    logits = torch.full((4, 3, 3), 5.0)
    patch = Result(DecodedMasks(logits, torch.ones(4), 10, 20), frame, 2).patch(0)
    assert patch is not None
    rows, columns = np.nonzero(patch.logits > 0)
    assert (rows.min() + patch.top, rows.max() + patch.top) == (20, 25)
    assert (columns.min() + patch.left, columns.max() + patch.left) == (40, 45)


@pytest.mark.parametrize("part", [torch.full((4, 2, 2), -1.0), torch.full((4, 2, 2), 0.0)])
def test_patch_of_an_empty_mask_is_none(part: torch.Tensor) -> None:
    frame = InputTransform.of((64, 64), InputSize(method="native", size=512))
    assert Result(DecodedMasks(part, torch.ones(4)), frame, 2).patch(0) is None


def test_patch_of_a_mask_in_the_padding_is_none() -> None:
    frame = InputTransform.of((20, 64), InputSize(method="native", size=512))  # padded to 32 rows
    logits = torch.full((4, 1, 5), 5.0)
    assert Result(DecodedMasks(logits, torch.ones(4), 15), frame, 2).patch(0) is None
