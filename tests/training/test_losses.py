"""Losses, counted by hand."""

import math

import pytest
import torch

from napari_simmat.models.dense_prior import DENSE_CHANNELS
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.losses import (
    dense_loss,
    dense_targets,
    dice_and_entropy,
    mask_loss,
    size_loss,
    to_mask_grid,
)


def test_mask_loss_is_as_by_hand():
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    logits = (2 * target - 1) * 50
    loss, iou = mask_loss(logits, target)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert iou.item() == 1
    # Logit 0 is probability 1/2: entropy ln 2; Dice 1 - (2 * 1 + 1) / (2 + 2 + 1) = 0.4.
    loss, iou = mask_loss(torch.zeros(1, 1, 2, 2), target)
    assert loss.item() == pytest.approx(math.log(2) + 0.4)
    assert iou.item() == 0
    balanced = mask_loss(torch.zeros(1, 1, 2, 2), target, balance=0.5).loss.item()
    assert balanced == pytest.approx(1.5 * math.log(2) + 0.4)


def test_mask_loss_counts_each_mask_of_each_prompt():
    target = torch.zeros(2, 1, 4, 4)
    target[0, 0, :2] = target[1, 0, :, :2] = 1
    logits = torch.full((2, 3, 4, 4), -5.0)
    logits[:, 1, :2] = 5
    iou = mask_loss(logits, target).iou
    torch.testing.assert_close(iou, torch.tensor([[0, 1, 0], [0, 4 / 12, 0]]))


def test_dense_targets_of_two_squares_are_as_by_hand():
    labels = torch.zeros(1, 16, 32, dtype=torch.int32)
    labels[0, 4:12, 4:12] = 1
    labels[0, 4:12, 20:28] = 2
    boundary, inside, dy, dx, size = dense_targets(labels)[0]
    assert boundary.shape == (8, 16)
    assert inside.sum() == 2 * 16
    assert boundary[3, 5] == boundary[2, 3] == 1
    assert boundary[3, 3] == boundary[0, 0] == 0
    # 16 cells of 2 pixels: the size is 8 pixels, half of the unit of 16
    assert size[3, 3].item() == pytest.approx(math.log(0.5))
    # the first square's center is (7.5, 7.5), its first cell's (4.5, 4.5): 3 of 8 pixels away
    assert (dy[2, 2].item(), dx[2, 2].item()) == pytest.approx((3 / 8, 3 / 8))
    assert dx[2, 10].item() == pytest.approx(3 / 8)


def test_dense_loss_at_the_targets_is_zero():
    labels = torch.zeros(1, 16, 16, dtype=torch.int32)
    labels[0, 2:10, 2:10] = 1
    targets = dense_targets(labels)
    dense = torch.zeros(1, DENSE_CHANNELS, 8, 8)
    dense[:, :2] = (2 * targets[:, :2] - 1) * 50
    dense[:, 2:5] = targets[:, 2:5]
    assert dense_loss(dense, targets).item() == pytest.approx(0, abs=1e-6)
    dense[0, 2:5, 7, 7] = 100
    assert dense_loss(dense, targets).item() == pytest.approx(0, abs=1e-6)
    dense[0, 4, 2, 2] += 1
    assert dense_loss(dense, targets).item() > 0.001
    # One of 16 cells is off by e: smooth L1 of 1 with a knee at 1/4 is 7/8.
    assert size_loss(dense, targets).tolist() == pytest.approx([7 / 8 / 17])
    dense[:, :4] = 0  # neither what is background or border nor where centers are counts
    assert size_loss(dense, targets).tolist() == pytest.approx([7 / 8 / 17])


@pytest.mark.parametrize(
    ("logit", "entropy", "dice"),
    [
        (0, math.log(2), 1 - (2 * 1 + 1) / (3 + 1)),  # 1/2 everywhere: squares 4 / 4 + 2
        (50, 0, 0),
        (-50, 50, 1 - 1 / (2 + 2 + 1)),  # nothing in common
        # ln 3 inside is 3/4, outside 1/4: overlap 3/2, squares 2 * 9 / 16 + 2 / 16 + 2
        (math.log(3), -math.log(0.75), 1 - 4 / (1.25 + 2 + 1)),
    ],
)
def test_dice_and_entropy_is_as_by_hand(logit, entropy, dice):
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    loss = dice_and_entropy((2 * target - 1) * logit, target, 1.0)
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(entropy + dice, abs=1e-6)


@pytest.mark.parametrize("cells", [1, 4, 16, 100])
def test_dice_and_entropy_is_that_of_monai(cells):
    """The authors' loss, and its gradient, on an object of so many cells of the mask grid."""
    losses = pytest.importorskip("monai.losses", reason="MONAI is an oracle of the tests")
    torch.manual_seed(cells)
    target = torch.zeros(1, 1, 256, 256)
    side = math.isqrt(cells)
    target[..., 80 : 80 + side, 90 : 90 + side] = 1
    logits = (torch.randn(1, 1, 256, 256) - 6 + 8 * target).requires_grad_()
    exact = logits.detach().double().requires_grad_()  # in float32 its norms have an error of 1e-5
    theirs = losses.DiceCELoss(sigmoid=True, squared_pred=True)(exact, target.double())
    (wanted,) = torch.autograd.grad(theirs, exact)
    ours = dice_and_entropy(logits, target, TrainConfig().smoothing).mean()
    (gradient,) = torch.autograd.grad(ours, logits)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    torch.testing.assert_close(gradient, wanted.float(), rtol=1e-5, atol=1e-9)


def test_to_mask_grid_of_cells_with_three_and_a_half_pixels():
    """Two cells of 7 pixels: the middles 1.75 and 5.25 lie in pixels 1 and 5."""
    masks = torch.zeros(3, 7, 7, dtype=torch.bool)
    masks[0, 1, 5] = True
    masks[1, 0, 0] = True  # no middle: the cell that it touches
    masks[2, 3, 6] = True  # half of it in either row
    assert to_mask_grid(masks, 3.5).tolist() == [
        [[[0, 1], [0, 0]]],
        [[[1, 0], [0, 0]]],
        [[[0, 1], [0, 1]]],
    ]


def test_to_mask_grid_takes_middle_pixels_and_thin_objects():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2, 6] = masks[0, 3, 3] = masks[0, 0, 0] = True
    assert to_mask_grid(masks, 4).tolist() == [[[[0, 1], [0, 0]]]]  # pixels 2 and 6 of each axis
    assert to_mask_grid(masks, 2).nonzero().tolist() == [[0, 0, 1, 1]]  # odd pixels: of them (3, 3)
    assert to_mask_grid(masks, 4, 0).tolist() == [[[[1, 0], [0, 0]]]]  # pixels 0 and 4, as theirs
    masks = torch.zeros(3, 7, 8, dtype=torch.bool)
    masks[0, 4, 1:6] = True  # no odd row
    masks[1, 4, 1:6] = masks[1, 5, 1] = True  # one
    cells = to_mask_grid(masks, 2)
    assert cells.shape == (3, 1, 3, 4)
    assert cells[0].nonzero()[:, 1:].tolist() == [[2, 0], [2, 1], [2, 2]]
    assert cells[1].nonzero()[:, 1:].tolist() == [[2, 0]]
    assert not cells[2].any()


def test_losses_ignore_cells_of_unknown_truth():
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    known = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    logits = torch.tensor([[[[50.0, 50.0], [-50.0, 50.0]]]], requires_grad=True)
    loss, iou = mask_loss(logits, target, 0.5, known)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert iou.item() == 1
    assert logits.grad[0, 0, 1, 1] == 0
    dense = torch.zeros(1, DENSE_CHANNELS, 2, 2, requires_grad=True)
    labels = torch.tensor([[[1, 1, 0, 0]] * 2 + [[0, 0, -1, -1]] * 2])
    targets = dense_targets(labels)
    assert targets[0, :2, 1, 1].tolist() == [0, 0]  # no boundary to what is unknown
    dense_loss(dense, targets, known).backward()
    assert (dense.grad[0, :2, 1, 1] == 0).all()
    assert (dense.grad[0, :2, 1, 0] != 0).all()
