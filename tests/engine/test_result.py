"""Masks at the image's resolution: whole or where they lie, with the same numbers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_simmat.engine import result as result_module
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.result import Result, enlarge, shrink
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
def test_patch_is_a_part_of_the_whole(size, center):
    transform = InputTransform.of((117, 150), size)
    stride = 4 if size.method == "longest" else 2
    logits = blob(transform.grid(stride), center)
    whole = enlarge(logits, transform, stride).numpy()
    result = Result(DecodedMasks(logits, torch.ones(4)), transform, stride)
    for index in range(4):
        patch = result.patch(index, above=-1)
        height, width = patch.logits.shape
        part = whole[index, patch.top : patch.top + height, patch.left : patch.left + width]
        np.testing.assert_allclose(patch.logits, part, rtol=1e-4, atol=1e-4)
        beside = np.ones(whole.shape[1:], bool)
        beside[patch.top : patch.top + height, patch.left : patch.left + width] = False
        assert (whole[index][beside] <= -1).all()


@pytest.mark.parametrize("shape", [(112, 112), (90, 150)])
def test_cells_of_no_whole_number_of_pixels(shape, monkeypatch):
    """SAM 3's have 3.5: 8 cells are 28 pixels. All ways to enlarge them agree."""
    transform = InputTransform.of(shape, InputSize(method="stretch", size=112, minimum=112))
    logits = blob(transform.grid(3.5), (12, 20))
    assert logits.shape == (4, 32, 32)
    whole = enlarge(logits, transform, 3.5)
    fine = interpolate(logits[None], (112, 112), mode="bilinear")
    torch.testing.assert_close(whole[None], interpolate(fine, shape, mode="bilinear"))
    result = Result(DecodedMasks(logits, torch.ones(4)), transform, 3.5)
    assert np.array_equal(result.mask, whole[0].numpy() > 0)
    patch = result.patch(2)
    height, width = patch.logits.shape
    part = whole[2, patch.top : patch.top + height, patch.left : patch.left + width]
    np.testing.assert_allclose(patch.logits, part, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(result_module, "LARGE", 0)
    in_blocks = Result(DecodedMasks(logits, torch.ones(4)), transform, 3.5).mask
    assert np.mean(in_blocks == result.mask) > 0.999
    drawn = shrink(result.mask, transform, 3.5)[0, 0]
    assert drawn.shape == (32, 32)
    clear = logits[0].abs() > 3
    assert torch.equal(drawn[clear] > 0, logits[0][clear] > 0)


def test_patch_of_a_part_of_the_grid_is_placed():
    transform = InputTransform.of((64, 64), InputSize(method="native", size=512))
    logits = torch.full((4, 3, 3), 5.0)
    patch = Result(DecodedMasks(logits, torch.ones(4), 10, 20), transform, 2).patch(0)
    rows, columns = np.nonzero(patch.logits > 0)
    assert (rows.min() + patch.top, rows.max() + patch.top) == (20, 25)
    assert (columns.min() + patch.left, columns.max() + patch.left) == (40, 45)


@pytest.mark.parametrize("part", [torch.full((4, 2, 2), -1.0), torch.full((4, 2, 2), 0.0)])
def test_patch_of_an_empty_mask_is_none(part):
    transform = InputTransform.of((64, 64), InputSize(method="native", size=512))
    assert Result(DecodedMasks(part, torch.ones(4)), transform, 2).patch(0) is None


def test_patch_of_a_mask_in_the_padding_is_none():
    # Padded to 32 rows.
    transform = InputTransform.of((20, 64), InputSize(method="native", size=512))
    logits = torch.full((4, 1, 5), 5.0)
    assert Result(DecodedMasks(logits, torch.ones(4), 15), transform, 2).patch(0) is None


@pytest.mark.parametrize("large", [2**26, 1000])
@pytest.mark.parametrize("shape", [(256, 256), (170, 256), (256, 91), (300, 512)])
@pytest.mark.parametrize("threshold", [-9.0, 0.0, 1.0, 2.5, 9.0])
def test_mask_is_where_stocks_enlarged_logits_exceed_zero(shape, threshold, large, monkeypatch):
    """A whole image, blobs all over, a few, one speck, nothing; the last size in two steps."""
    monkeypatch.setattr(result_module, "LARGE", large)
    torch.manual_seed(0)
    transform = InputTransform.of(shape, InputSize(size=256))
    logits = interpolate(torch.randn(1, 4, 13, 13), (64, 64), mode="bicubic")[0] - threshold
    result = Result(DecodedMasks(logits, torch.ones(4)), transform, 4)
    fine = interpolate(logits[None], (256, 256), mode="bilinear", align_corners=False)
    fine = fine[..., : transform.resized[0], : transform.resized[1]]
    stock = interpolate(fine, shape, mode="bilinear", align_corners=False)[0] > 0
    assert np.array_equal(result.mask, stock[0].numpy())
    assert np.array_equal(result.masks, stock[1:].numpy())


def test_distinct_offers_masks_that_look_alike_once():
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


@pytest.mark.parametrize("cells", [[(5, 5)], [(0, 0), (2, 7)], [(15, 15), (3, 0)]])
def test_mask_of_a_few_cells_equals_enlarged_logits(cells):
    transform = InputTransform.of((64, 64), InputSize(size=64))
    logits = torch.full((4, 16, 16), -5.0)
    for row, column in cells:
        logits[:, row, column] = 9.0
    result = Result(DecodedMasks(logits, torch.ones(4)), transform, 4)
    assert np.array_equal(result.mask, enlarge(logits, transform, 4)[0].numpy() > 0)


def test_result_of_mask_has_logits_of_its_sign():
    mask = np.arange(24).reshape(4, 6) % 3 == 0
    result = Result.of_mask(mask)
    assert np.array_equal(result.logits > 0, mask)
    assert np.array_equal(np.abs(result.logits), np.full((4, 6), 6.0))
    assert np.array_equal(result.mask, mask)


def test_mask_of_a_large_image_needs_no_logits_of_its_size(monkeypatch):
    """Four bytes a pixel, and as many between the two steps."""
    monkeypatch.setattr(result_module, "LARGE", 1000)
    monkeypatch.setattr(result_module, "enlarge", None)
    transform = InputTransform.of((3000, 2000), InputSize(method="native", size=64))
    logits = torch.full((4, *transform.grid(2)), -5.0)
    logits[0, 3:20, 5:9] = 5.0
    mask = Result(DecodedMasks(logits, torch.ones(4)), transform, 2).mask
    assert mask.shape == (3000, 2000)
    assert mask[600, 600]
    assert not mask[0].any()
