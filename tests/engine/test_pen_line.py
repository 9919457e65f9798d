"""Paths of a hand: which of them close, and where."""

import numpy as np
import pytest

from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import FEWEST, MOST, closes, drawn_line, points_along

SHAPE = (120, 120)


def circle(radius=40.0, begin=0.0, end=1.0, flat=1.0, count=80):
    """Points around (60, 60), from a share of the turn to another one."""
    turn = 2 * np.pi * np.linspace(begin, end, count)
    return np.stack([60 + flat * radius * np.sin(turn), 60 + radius * np.cos(turn)], 1)


def enclosed(line):
    return shape_mask("polygon", line.tolist(), SHAPE)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (circle(), True),
        (circle(end=0.97), True),  # 7.5 pixels short
        (circle(end=0.9), False),  # 25 pixels short
        (circle(end=1.15), True),  # on past the start
        (circle(flat=0.1), True),
        (circle(flat=0.01), False),
        (np.array([(0.0, 0.0), (0.0, 30.0), (0.5, 0.0)]), False),
        (np.array([(5.0, 5.0)]), False),
        (np.array([(5.0, 5.0), (5.0, 16.0)]), False),  # its ends are within reach
    ],
    ids=[
        *("circle", "a small gap", "a gap", "overshoot", "long and thin", "there and back"),
        *("triangle without area", "click", "short"),
    ],
)
def test_line_closes_where_it_comes_back(path, expected):
    assert closes(drawn_line(path)) is expected


def test_reach_is_of_the_screen():
    short = circle(end=0.94)  # 15 pixels
    assert not closes(drawn_line(short, reach=12.0))
    assert closes(drawn_line(short, reach=24.0)), "at a zoom of a half"
    assert not closes(drawn_line(circle(end=0.97), reach=3.0)), "at a zoom of four"


@pytest.mark.parametrize("slip", [-0.15, 0.15])
def test_what_goes_past_the_start_is_cut_off(slip):
    path = circle(end=1.2)
    beyond = np.linspace(0, 1, len(path)) > 1 / 1.2
    path[beyond] += slip * (path[beyond] - 60)  # within the circle, or around it
    line = drawn_line(path)
    assert closes(line)
    whole = enclosed(circle())
    assert np.count_nonzero(enclosed(line) ^ whole) < 0.02 * np.count_nonzero(whole)


@pytest.mark.parametrize("radius", [2.0, 12.0, 55.0])
def test_line_that_closes_keeps_its_shape(radius):
    line = drawn_line(circle(radius, end=0.98, count=300))
    assert FEWEST < len(line) <= MOST + 1
    assert line[0].tolist() == line[-1].tolist()
    whole, found = enclosed(circle(radius, count=300)), enclosed(line)
    assert np.count_nonzero(whole & found) >= 0.93 * np.count_nonzero(whole | found)


def test_line_that_leads_somewhere_never_ends_where_it_begins():
    there_and_back = np.array([(5.0, 5.0), (5.0, 45.0), (5.0, 5.0)])
    line = drawn_line(there_and_back)
    assert not closes(line)
    assert line[:, 1].max() > 40


def test_points_along_are_few_and_equally_far_apart():
    corner = np.array([(0.0, 0.0), (0.0, 35.0), (35.0, 35.0)])
    points = points_along(corner)
    assert points.tolist()[0] == [0, 0]
    assert points.tolist()[-1] == [35, 35]
    assert len(points) == 18, "70 pixels, 4 apart or a little more"
    assert len(points_along(10 * corner)) == 64
    assert len(points_along(corner[:1])) == 1
    assert len(points_along(corner[:2] / 35)) == 2, "a short line is one, too"
