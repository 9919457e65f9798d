import math

import pytest
import torch

from napari_simmat.models.dense_prior import SIZE, SIZE_UNIT
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.prompt_levels import (
    UNEXPECTED_SIZE_PENALTY,
    PromptExtent,
    box_iou,
    candidate_levels,
    clicked_size,
    coarseness_penalty,
    levels_by_likelihood,
    mask_thickness,
    prompt_extent,
    trust,
)
from tests.models.test_multiscale import level


def test_prompt_extent_of_each_prompt():
    none = torch.zeros(0, 2)
    mask = torch.full((1, 1, 50, 60), -5.0)
    assert prompt_extent(none, None, None) is None
    assert prompt_extent(none, None, mask) is None
    box = prompt_extent(none, torch.tensor([3.0, 4.0, 103.0, 54.0]), mask)
    assert box == PromptExtent((3, 4), (103, 54), whole=True)
    assert (box.longest, box.middle) == (100, (53, 29))
    clicks = prompt_extent(torch.tensor([[5.0, 9.0], [45.0, 3.0]]), None, mask)
    assert clicks == PromptExtent((5, 3), (45, 9), whole=False)
    mask[..., 10:20, 30:45] = 5
    thick = float(mask_thickness(mask[0, 0]))
    found = prompt_extent(none, None, mask)
    assert found == PromptExtent((59.5, 19.5), (89.5, 39.5), whole=True, thickness=thick)
    assert found.size == thick
    wider = prompt_extent(torch.tensor([[5.0, 9.0]]), None, mask)
    assert wider == PromptExtent((5, 9), (89.5, 39.5), whole=True, thickness=thick)


def test_mask_thickness_of_shapes():
    """A disk as the square root of its area; a ring, and a comb, as their thin parts."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    away = (y - 64).hypot(x - 64)
    masks = torch.stack([40 - away, torch.minimum(40 - away, away - 32), away - 1000])
    disk, ring, empty = mask_thickness(masks).tolist()
    assert disk == pytest.approx(2 * math.sqrt(math.pi) * 40, rel=0.03)  # 2 pixels a cell
    assert ring == pytest.approx(2 * math.sqrt(math.pi) * 8, rel=0.06)
    assert empty == 0
    comb = torch.full((128, 128), -1.0)
    comb[10:100, 10:106:12] = 1  # teeth one cell wide
    assert mask_thickness(comb) < 6
    assert coarseness_penalty(torch.stack([masks[0], comb, masks[2]])).tolist() == pytest.approx(
        [1 / disk, 1 / float(mask_thickness(comb)), 0.5]
    )


def test_candidate_levels_suit_the_extent():
    levels = [level(1024 // n, 1024 // n, 1 / n) for n in (1, 2, 4, 8)]

    nowhere = torch.zeros(0, 2)

    def tried_scales(side, whole=True):
        extent = PromptExtent((0, 0), (side, side), whole)
        return [each.scale for each in candidate_levels(levels, extent, nowhere)]

    assert tried_scales(20) == [1, 0.5]
    assert tried_scales(70) == [1, 0.5]
    assert tried_scales(90) == [1, 0.5]  # 76 pixels on the first one, 38 on the second
    assert tried_scales(120) == [0.5, 0.25]
    assert tried_scales(180) == [0.5, 0.25]
    assert tried_scales(240) == [0.25, 0.125]
    assert tried_scales(500) == [0.25, 0.125]
    assert tried_scales(1024) == [0.125]  # on the others it does not fit into a window
    assert tried_scales(300, whole=False) == [0.5, 0.25, 0.125]  # its size is not known
    folded = PromptExtent((0, 0), (150, 150), whole=True, thickness=14.0)  # as far as it fits
    assert [each.scale for each in candidate_levels(levels, folded, nowhere)] == [1, 0.5]
    long = PromptExtent((0, 0), (800, 10), whole=True)
    assert [each.scale for each in candidate_levels(levels, long, nowhere)] == [0.25, 0.125]
    assert candidate_levels(levels, None, nowhere) == levels
    vast = PromptExtent((0, 0), (5000, 5000), whole=True)
    assert candidate_levels(levels, vast, nowhere) == levels[-1:]


def test_levels_by_likelihood_begin_with_the_fitting_size():
    sizes = {1.0: 190.0, 0.5: 96.0, 0.25: 50.0, 0.125: 20.0}
    levels = [level(int(1024 * s), int(1024 * s), s, size=sizes[s]) for s in sizes]
    click = torch.tensor([[400.0, 300.0]])
    assert [each.scale for each in levels_by_likelihood(levels, click)] == [0.25, 0.5, 0.125, 1.0]
    assert [each.scale for each in candidate_levels(levels, None, click)] == [0.25, 0.5, 0.125, 1.0]
    # Two clicks, which do not fit the first level.
    far = PromptExtent((0, 0), (300, 300), whole=False)
    assert [each.scale for each in candidate_levels(levels, far, click)] == [0.25, 0.5, 0.125]


def test_trust_falls_with_an_unusual_size():
    logits = torch.full((64, 64), -3.0)
    logits[:15, :15] = 3.0  # 30 pixels of the level, as usual
    assert trust(0.8, logits, left=False) == pytest.approx(0.8)
    assert trust(0.8, logits, left=True) == pytest.approx(-0.2)
    logits[:48, :48] = 3.0
    assert trust(0.8, logits, left=False) == pytest.approx(0.8 - 0.1 * math.log(96 / 30))
    assert trust(0.8, -logits.abs(), left=False) == pytest.approx(0.8 - 0.1 * math.log(30))
    expected = ExpectedSize(math.log(48), 0.3)
    assert trust(0.8, logits, False, False, expected, 2.0) == trust(0.8, logits, left=False)
    lost = UNEXPECTED_SIZE_PENALTY * (math.log(4) - 0.3)  # 192 pixels of the input, four times 48
    assert trust(0.8, logits, False, False, expected, 0.5) == pytest.approx(
        trust(0.8, logits, left=False) - lost
    )
    assert trust(1.0, logits, left=False, filled=True) < trust(0, -logits.abs(), left=True)


def test_box_iou_of_masks():
    masks = torch.full((4, 40, 50), -4.0)
    masks[0, 10:20, 15:35] = 4  # pixels 20 to 40 down, 30 to 70 across
    masks[1, 10:20, 15:25] = 4  # its left half
    masks[2] = 4  # everything
    corners = torch.tensor([[29.5, 19.5], [69.5, 39.5]])
    found = box_iou(masks, corners)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 800 / 8000, 0.0]))
    softer = torch.where(masks > 0, masks, -12.0)  # it ends a quarter of a cell earlier
    sides = (40 - 2 * 0.5) * (20 - 2 * 0.5)
    assert box_iou(softer, corners)[0].item() == pytest.approx(sides / 800)
    beyond = torch.tensor([[29.5, 19.5], [169.5, 39.5]])  # parts outside the window do not count
    assert box_iou(masks, beyond)[0].item() == pytest.approx(800 / 1400)


def test_clicked_size_is_that_of_the_dense_head():
    there = level(128, 128, 0.5, size=20.0)
    there.maps["dense"][0, SIZE, 10, 40] = math.log(80 / SIZE_UNIT)
    assert clicked_size(there, torch.tensor([[160.0, 40.0]])) == pytest.approx(80)
    assert clicked_size(there, torch.tensor([[0.0, 0.0]])) == pytest.approx(20)
