"""A mask at the image's resolution: only what is needed is enlarged, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.result import Result
from napari_simmat.models.network import DecodedMasks
from napari_simmat.models.spec import InputSize


@pytest.mark.parametrize("shape", [(256, 256), (170, 256), (256, 91), (300, 512)])
@pytest.mark.parametrize("threshold", [-9.0, 0.0, 1.0, 2.5, 9.0])
def test_mask_is_where_stocks_enlarged_logits_exceed_zero(
    shape: tuple[int, int], threshold: float
) -> None:
    """A whole image, blobs all over, a few, one speck, nothing; the last size in two steps."""
    torch.manual_seed(0)
    frame = InputTransform.of(shape, InputSize(size=256))
    logits = interpolate(torch.randn(1, 4, 13, 13), (64, 64), mode="bicubic")[0] - threshold
    result = Result(DecodedMasks(logits, torch.ones(4)), frame, 4)
    fine = interpolate(logits[None], (256, 256), mode="bilinear", align_corners=False)
    fine = fine[..., : frame.resized[0], : frame.resized[1]]
    stock = interpolate(fine, shape, mode="bilinear", align_corners=False)[0] > 0
    assert np.array_equal(result.mask, stock[0].numpy())
    assert np.array_equal(result.masks, stock[1:].numpy())


def test_distinct_offers_masks_that_look_alike_once() -> None:
    """Of 40 x 40 cells: one row less is an IoU of 0.975, five rows less 0.875; one is empty."""
    logits = torch.full((4, 64, 64), -5.0)
    for number, rows in enumerate((40, 39, 35, 0)):
        logits[number, :rows, :40] = 5
    result = Result(
        DecodedMasks(logits, torch.ones(4)), InputTransform.of((256, 256), InputSize(size=256)), 4
    )
    assert result.count == 4
    assert result.distinct == [0, 2]
    assert Result.of_mask(np.ones((4, 6), bool)).distinct == [0]
