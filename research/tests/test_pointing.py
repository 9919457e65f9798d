"""Clicks and boxes beside where they are meant to be, by as much as a hand strays."""

import numpy as np
import pytest

from simmat_research.pointing import BOX_OFF, MOST_OFF, box_around, click_into, part_at

MANY = range(400)


def square(side, at=(20, 30), shape=(100, 120)):
    mask = np.zeros(shape, bool)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return mask


def strays(values, aim):
    """Root mean square along each axis."""
    return np.sqrt(np.mean((np.array(values) - aim) ** 2, axis=0))


def test_click_strays_by_a_fifth_and_stays_in_the_part():
    part, aim = square(61), (50.0, 60.0)
    clicks = [click_into(part, aim, (0, seed)) for seed in MANY]
    assert strays(clicks, aim) == pytest.approx([0.2 * 31] * 2, rel=0.1)
    assert all(part[round(y), round(x)] for y, x in clicks)
    assert strays([click_into(part, aim, (0, seed), 0.5) for seed in MANY], aim) == pytest.approx(
        [0.1 * 31] * 2, rel=0.1
    )
    assert click_into(part, aim, (0, 7)) == clicks[7]
    assert click_into(part, aim, (0, 7), hand=0.0) == aim


def test_click_lands_in_a_small_part_and_may_miss_a_thin_one():
    small = square(3)
    clicks = [click_into(small, (21.0, 31.0), (seed,)) for seed in MANY]
    assert all(small[round(y), round(x)] for y, x in clicks)
    thin = square(1)
    clicks = [click_into(thin, (20.0, 30.0), (seed,)) for seed in MANY]
    missed = np.mean([not thin[round(y), round(x)] for y, x in clicks])
    assert 0.5 < missed < 0.95
    assert strays(clicks, (20, 30)) == pytest.approx([1, 1], rel=0.1)


def test_nothing_is_placed_outside_the_image():
    corner = square(1, (0, 119))
    for seed in MANY:
        y, x = click_into(corner, (0.0, 119.0), (seed,), hand=5.0)
        assert 0 <= y <= 99
        assert 0 <= x <= 119
        y0, x0, y1, x1 = box_around((0, 60, 40, 120), corner.shape, (seed,), hand=50.0)
        assert 0 <= y0 < y1 <= 100
        assert 0 <= x0 < x1 <= 120


def test_corners_miss_by_less_around_small_objects():
    shape = 1000, 1000

    def off(box, hand=1.0):
        return strays([box_around(box, shape, (seed,), hand) for seed in MANY], box)

    assert off((200, 300, 600, 900)) == pytest.approx([BOX_OFF] * 4, rel=0.1)
    assert off((200, 300, 220, 310)) == pytest.approx([1, 0.5, 1, 0.5], rel=0.1)
    assert off((200, 300, 220, 310), 2.0) == pytest.approx([2, 1, 2, 1], rel=0.1)
    assert off((200, 300, 220, 310), 0.0).max() == 0
    far = [box_around((200, 300, 220, 310), shape, (seed,), 9.0) for seed in MANY]
    assert np.abs(np.array(far) - (200, 300, 220, 310)).max() == MOST_OFF * 20


def test_part_is_the_connected_one():
    one, other = square(5), square(4, (40, 50))
    np.testing.assert_array_equal(part_at(one | other, (41.0, 52.0)), other)
