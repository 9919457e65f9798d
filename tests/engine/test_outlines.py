"""Drawn shapes and outlines to masks: which pixels they mean, and what is too much."""

import numpy as np
import pytest

from napari_simmat.engine.outlines import (
    TOO_COSTLY,
    OutlineBudget,
    is_upright_rectangle,
    mask_of,
    section_of,
    shape_mask,
)


def test_mask_of_an_outline_beyond_the_image_is_cut_off():
    huge = np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])
    found = mask_of([huge], (6, 4))
    assert found[0].all()
    assert (found[0].shape, found[1]) == ((6, 4), (0, 0))
    assert mask_of([huge + 5e9], (6, 4)) is None
    assert mask_of([huge * 1e291], (6, 4))[0].all()
    with pytest.raises(ValueError, match="not finite"):
        mask_of([np.array([[0, np.nan], [1, 1], [2, 0]])], (6, 4))


@pytest.mark.parametrize(
    ("rings", "expected"),
    [
        ([[[0, 0], [6, 0], [6, 3], [0, 3]]], True),
        ([[[0, 0], [0, 3], [6, 3], [6, 0], [0, 0]]], True),  # closed, the other way round
        ([[[0, 0], [6, 0.1], [6, 3], [0, 3]]], False),
        ([[[0, 0], [6, 0], [6, 0], [0, 0]]], False),  # without an area
        ([[[0, 0], [6, 0], [0, 3], [6, 3]]], False),  # crosses itself
        ([[[0, 0], [6, 0], [6, 3]]], False),
        ([[[0, 0], [6, 0], [6, 3], [0, 3]], [[1, 1], [2, 1], [2, 2], [1, 2]]], False),  # a hole
        ([[[-1e308, 0], [1e308, 0], [1e308, 3], [-1e308, 3]]], True),
        ([[[np.nan, 0], [6, 0], [6, 3], [0, 3]]], False),
        ([], False),
    ],
)
def test_upright_rectangle_is_known(rings, expected):
    assert is_upright_rectangle([np.array(ring, float) for ring in rings]) is expected


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_mask_of_an_outline_is_the_shape_drawn_in_the_window(shift):
    """One rule for both: a center on an edge is inside, also where the edge is the right one."""
    drawn = np.array([(3, 2), (3, 9), (8, 9), (12, 5), (8, 2)]) + shift  # y, x
    found, (top, left) = mask_of([drawn[:, ::-1] + 0.5], (20, 30))
    whole = np.zeros((20, 30), bool)
    whole[top : top + found.shape[0], left : left + found.shape[1]] = found
    np.testing.assert_array_equal(whole, shape_mask("polygon", drawn, (20, 30)))


def test_mask_of_lines_that_cross_is_inside_an_odd_number():
    one = np.array([[0, 0], [6, 0], [6, 6], [0, 6]])
    found, corner = mask_of([one, one + 3], (20, 20))
    assert corner == (0, 0)
    assert found.sum() == 2 * (36 - 9)
    assert not found[3:6, 3:6].any()


@pytest.mark.parametrize("side", [63, 64, 65, 200])
def test_mask_of_a_large_outline_equals_skimage(side):
    """Squares that lie wholly inside or outside are not asked pixel by pixel."""
    from skimage.draw import polygon2mask

    random = np.random.default_rng(side)
    star = random.uniform(-20, side + 20, (9, 2))  # y, x; it crosses itself
    found, (top, left) = mask_of([star[:, ::-1] + 0.5], (side, side))
    whole = np.zeros((side, side), bool)
    whole[top : top + found.shape[0], left : left + found.shape[1]] = found
    np.testing.assert_array_equal(whole, polygon2mask((side, side), star))


BOX = [(2.5, 1.5), (2.5, 9.5), (8.5, 9.5), (8.5, 1.5)]
"""y, x of the corners of 6 x 8 pixels."""


def test_shape_mask_of_ellipse_is_exact():
    y, x = np.mgrid[:12, :14]
    expected = ((y - 5.5) / 3) ** 2 + ((x - 5.5) / 4) ** 2 <= 1
    np.testing.assert_array_equal(shape_mask("ellipse", BOX, (12, 14)), expected)


@pytest.mark.parametrize("kind", ["rectangle", "polygon"])
def test_shape_mask_holds_centers_on_the_edge(kind):
    mask = shape_mask(kind, [(2, 1), (2, 9), (8, 9), (8, 1)], (12, 14))
    assert mask[2:9, 1:10].all()
    assert mask.sum() == 7 * 9


@pytest.mark.parametrize("kind", ["rectangle", "ellipse", "polygon"])
def test_shape_mask_without_a_center_is_what_it_touches(kind):
    thin = [(3.1, 2.1), (3.1, 6.2), (3.2, 6.2), (3.2, 2.1)]
    assert np.argwhere(shape_mask(kind, thin, (12, 14))).tolist() == [[3, x] for x in range(2, 7)]


def test_shape_mask_of_an_endless_sliver_is_refused():
    corners = [(1.5, 2), (1.5, 20), (12, 20), (12.25, 1e11)]
    with pytest.raises(ValueError, match=TOO_COSTLY.format("")):
        shape_mask("ellipse", corners, (20, 30))


@pytest.mark.parametrize("kind", ["path", "line"])
def test_shape_mask_of_a_line_is_empty(kind):
    assert not shape_mask(kind, BOX, (12, 14)).any()


@pytest.mark.parametrize("grid", [0, 1, 2, 10, -1])
def test_shape_mask_of_a_polygon_is_what_skimage_draws(grid):
    """Vertices and edges through pixel centers count as inside; the last case has flat ones."""
    from skimage.draw import polygon

    random = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(random.integers(1, 40, 2))
        corners = random.uniform(-15, 45, (random.integers(3, 9), 2))
        if grid > 0:
            corners = np.rint(corners * grid) / grid
        elif grid < 0:
            corners[:, 0] = corners[0, 0] + random.integers(0, 2) * np.arange(len(corners))
        expected = np.zeros(shape, bool)
        expected[polygon(corners[:, 0], corners[:, 1], shape)] = True
        if expected.any():
            np.testing.assert_array_equal(shape_mask("polygon", corners, shape), expected)


def test_outline_budget_refuses_many_outlines_of_the_whole_image():
    """Five on a large image, 400 of which are a file of 57 kB, took ten seconds."""
    side = 5000
    budget = OutlineBudget((side, side))
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]])
    for _ in range(5):
        assert section_of([square], (), (side, side), budget).size == side**2
    with pytest.raises(ValueError, match=TOO_COSTLY.format("")):
        budget.spend(1_300_000_000)
    zigzag = np.stack([np.arange(300_000) % side, np.arange(300_000) % 2 * side], axis=1)
    with pytest.raises(ValueError, match=TOO_COSTLY.format("")):
        mask_of([zigzag], (side, side))
