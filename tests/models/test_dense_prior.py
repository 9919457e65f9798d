"""The dense prior: the pixel that represents a box, and the first guess from it."""

import math

import pytest
import torch

from napari_simmat.models.dense_prior import (
    DENSE_CHANNELS,
    FREE,
    OFFSET,
    SIZE,
    SIZE_UNIT,
    DensePixels,
    prompt_prior,
)

SIDE = 64
BOX = (32.0, 32.0, 96.0, 96.0)


def pixels():
    """A square body of 64 pixels, a nut of 16 in its middle; both claim to fill the box.

    The nut's pixels name the box's middle as their center, the body's pixels miss it a little:
    judged by center and size alone the nut fits better.
    """
    dense = torch.zeros(1, DENSE_CHANNELS, SIDE, SIDE)
    rows = torch.arange(SIDE) * 2 + 0.5
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    body = (y > 32) & (y < 96) & (x > 32) & (x < 96)
    nut = (y > 56) & (y < 72) & (x > 56) & (x < 72)
    size = 64 * math.sqrt(0.7)
    dense[0, SIZE] = math.log(size / SIZE_UNIT)
    dense[0, OFFSET] = (torch.stack([64 - y, 64 - x])) / size
    dense[0, OFFSET] += torch.where(nut, 0.0, 4.0) / size
    dense[0, FREE.start] = 6.0 * body - 3.0 * nut  # ground 0, body 6, nut 3
    return DensePixels(dense), body, nut


def test_point_for_box_is_of_an_object_that_reaches_its_sides():
    found, body, nut = pixels()
    box = torch.tensor(BOX)[None, None]
    x, y = found.best_in_box(box)[0, 0].tolist()
    assert nut[int(y) // 2, int(x) // 2]  # center and size alone are deceived
    x, y = found.point_for_box(box)[0, 0].tolist()
    assert body[int(y) // 2, int(x) // 2]
    assert not nut[int(y) // 2, int(x) // 2]


def test_prompt_prior_of_a_box_is_that_of_its_pixel_within_it():
    found, body, nut = pixels()
    box = torch.tensor(BOX).reshape(1, 2, 2)
    guess = prompt_prior(found, box, torch.tensor([[2, 3]]), None)[0, 0] > 0
    torch.testing.assert_close(guess, body & ~nut)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_prompt_prior_of_a_click_depends_on_its_own_prompt(boxed, masked):
    """Corrections that are trained together are positive in one prompt and negative in another."""
    found, _, _ = pixels()
    points = torch.tensor([[[40.0, 40.0], [64.0, 64.0]]]).repeat(4, 1, 1)
    labels = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]])
    if boxed:
        corners = torch.tensor(BOX).reshape(1, 2, 2)
        points = torch.cat([points, corners.expand(4, -1, -1)], dim=1)
        labels = torch.cat([labels, torch.tensor([[2, 3]]).expand(4, -1)], dim=1)
    mask = torch.linspace(-5, 5, 4 * SIDE**2).reshape(4, 1, SIDE, SIDE) if masked else None
    together = prompt_prior(found, points, labels, mask)
    for own in range(4):
        part = slice(own, own + 1)
        alone = prompt_prior(
            found, points[part], labels[part], None if mask is None else mask[part]
        )
        torch.testing.assert_close(together[part], alone)
    assert len({each.sum().item() for each in together}) == 4


def test_point_for_box_of_a_batch_is_of_each_box():
    found, body, nut = pixels()
    twice = DensePixels(torch.cat([found.dense, found.dense.flip(-1)]))
    other = (56.0, 56.0, 72.0, 72.0)
    boxes = torch.tensor([[BOX, other], [BOX, other]])
    chosen = twice.point_for_box(boxes)
    for image, (body_of, nut_of) in enumerate([(body, nut), (body.flip(-1), nut.flip(-1))]):
        (bx, by), (nx, ny) = (chosen[image].int() // 2).tolist()
        assert body_of[by, bx]
        assert not nut_of[by, bx]
        assert nut_of[ny, nx]
        alone = DensePixels(twice.dense[image : image + 1]).point_for_box(
            boxes[image : image + 1, 1:]
        )
        torch.testing.assert_close(alone[0, 0], chosen[image, 1])


def test_first_guess_of_box_stays_unless_it_misses_a_click():
    found, _, nut = pixels()
    corners = torch.tensor(BOX).reshape(1, 2, 2)

    def guess(*click):
        points = torch.cat([torch.tensor(click).reshape(1, 1, 2), corners], dim=1)
        return prompt_prior(found, points, torch.tensor([[1, 2, 3]]), None)[0, 0]

    alone = prompt_prior(found, corners, torch.tensor([[2, 3]]), None)[0, 0]
    torch.testing.assert_close(guess(40.0, 40.0), alone)  # on the body
    torch.testing.assert_close(guess(64.0, 64.0) > 0, nut)
