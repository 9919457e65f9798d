import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_simmat.engine.prompts import Prompt

DISK = np.hypot(*np.mgrid[-5:6, -5:6]) < 4


def test_prompt_of_arrays_holds_plain_numbers():
    prompt = Prompt(
        points=np.array([[1, 2], [3.5, 4]]),
        labels=np.array([1, 0]),
        box=np.array([0, 0, 5, 6]),
        object=np.int64(3),
        plane=np.array([2]),
    )
    assert prompt.points == ((1.0, 2.0), (3.5, 4.0))
    assert prompt.labels == (1, 0)
    assert prompt.box == (0.0, 0.0, 5.0, 6.0)
    assert (prompt.object, prompt.plane) == (3, (2,))
    assert {type(value) for value in (*prompt.points[0], *prompt.labels)} == {float, int}


def test_prompt_without_labels_has_positive_points():
    assert Prompt(points=[(1, 2), (3, 4)]).labels == (1, 1)


def test_prompt_equality_includes_the_mask():
    first, same = Prompt(mask=DISK), Prompt(mask=DISK.copy())
    assert first == same
    assert hash(first) == hash(same)
    assert first != Prompt(mask=~DISK)
    assert first != Prompt(mask=DISK, object=1)
    assert first != DISK.tobytes()


def test_prompt_keeps_a_copy_of_its_mask():
    painted = DISK.copy()
    prompt = Prompt(mask=painted)
    painted[:] = False
    assert np.array_equal(prompt.mask, DISK)
    with pytest.raises(ValueError, match="read-only"):
        prompt.mask[0, 0] = True


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "The prompt is empty; give at least a point, a box or a mask."),
        ({"points": [(1, 2, 3)]}, "A point has two coordinates, y and x; this one has 3."),
        ({"points": [(1, np.nan)]}, "coordinates of a point must be finite"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "There are 1 points but 2 labels; give one"),
        ({"points": [(1, 2)], "labels": [2]}, r"label of a point is 1 \(object\) or 0 .*, not 2\."),
        ({"points": [(1, 2)], "labels": [0.5]}, "The label of a prompt is a whole number, not 0.5"),
        ({"labels": [1]}, "There are 0 points but 1 labels"),
        ({"box": (1, 2, 3)}, "A box has four numbers, y0, x0, y1, x1; this one has 3."),
        ({"box": (5, 2, 5, 8)}, "box y 5..5, x 2..8 holds no pixel; give y0, x0, y1, x1 with y0 <"),
        ({"box": (5, 8, 9, 2)}, "holds no pixel"),
        ({"box": (0, 0, np.inf, 2)}, "coordinates of a box must be finite"),
        ({"mask": DISK.astype(int)}, "is a .Y, X. array of bool or the float logits .*, not int64"),
        ({"mask": DISK[0]}, r"not bool of shape \(11,\)"),
        ({"mask": ~(DISK | True)}, "The mask is empty; paint at least one pixel"),
        ({"mask": np.full((4, 4), np.nan)}, "logits are not all finite"),
        ({"points": [(1, 2)], "object": "nucleus"}, "object of a prompt is a whole number, not 'n"),
        ({"points": [(1, 2)], "plane": (1.5,)}, "plane of a prompt is a whole number, not 1.5"),
        ({"points": [(1, 2)], "expected_area": 0}, "area of an object is above 0 pixels, not 0"),
        ({"points": [(1, 2)], "expected_area": "many"}, "is above 0 pixels, not 'many'"),
    ],
)
def test_prompt_of_parts_that_do_not_fit_is_refused(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        Prompt(**parts)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"points": 5}, r"points of a prompt must be a list, not 5; write \[5\]"),
        ({"points": (3, 4)}, r"A point is numbers, \(y, x\), not 3"),
        ({"points": ["ab"]}, r"A point is numbers, \(y, x\), not 'ab'"),
        ({"points": [(1, None)]}, r"A point is numbers, \(y, x\), not \(1, None\)"),
        ({"points": [(1, 2)], "labels": 1}, r"labels of a prompt must be a list, not 1"),
        ({"points": [(1, 2)], "plane": 1}, r"plane of a prompt must be a list, not 1"),
        ({"box": 5}, r"A box is numbers, \(y0, x0, y1, x1\), not 5"),
    ],
)
def test_prompt_of_what_is_no_number_is_refused(parts, sentence):
    with pytest.raises(TypeError, match=sentence):
        Prompt(**parts)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(points=[(-0.5, -0.5), (9.5, 19.5)]),  # to the pixels' outer edges
        Prompt(box=(0, 0, 10, 20)),
        Prompt(box=(-5, -5, 1, 30)),  # over the border
        Prompt(mask=np.ones((10, 20), dtype=bool)),
        Prompt(mask=np.zeros((256, 256), dtype=np.float32)),  # logits have their own grid
    ],
)
def test_check_inside_of_what_lies_on_the_image_passes(prompt):
    prompt.check_inside((10, 20))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (
            Prompt(points=[(3, 3), (9.6, 3)]),
            r"The point y 9.6, x 3 lies outside the image of 10 x 20 pixels \(y x\); place it on",
        ),
        (Prompt(points=[(3, -0.6)]), "The point y 3, x -0.6 lies outside"),
        (Prompt(box=(10, 0, 12, 5)), "The box y 10..12, x 0..5 lies outside the image .*; draw it"),
        (Prompt(box=(-4, 0, 0, 5)), "lies outside the image"),
        (Prompt(box=(0, -4, 5, 0)), "lies outside the image"),
        (Prompt(mask=DISK), "The mask has 11 x 11 pixels, the image of 10 x 20 pixels .* its own"),
    ],
)
def test_check_inside_of_what_lies_outside_is_refused(prompt, sentence):
    with pytest.raises(ValueError, match=sentence):
        prompt.check_inside((10, 20))


BOX = (10, 20, 30, 60)
"""With a tenth of its sides and a pixel: rows 7 to 33, columns 15 to 65."""


@pytest.mark.parametrize(
    ("more", "size", "bounds"),
    [
        ({}, (90, 99), (slice(7, 33), slice(15, 65))),
        ({}, (32, 64), (slice(7, 32), slice(15, 64))),
        ({"box": (1, 0, 5, 4)}, (90, 99), (slice(0, 6), slice(0, 5))),
        ({"points": [(6.5, 40), (32.5, 64.5)]}, (90, 99), (slice(7, 33), slice(15, 65))),
        ({"points": [(6.4, 40)]}, (90, 99), None),
        ({"points": [(32.6, 40)]}, (90, 99), None),
        ({"points": [(20, 14.4)]}, (90, 99), None),
        ({"points": [(20, 64.6)]}, (90, 99), None),
        ({"points": [(6, 40)], "labels": [0]}, (90, 99), (slice(7, 33), slice(15, 65))),
        ({"box": None, "points": [(6, 40)]}, (90, 99), None),
    ],
)
def test_bounds_admit_the_box_with_its_tolerance(more, size, bounds):
    assert Prompt(**{"box": BOX, **more}).bounds(size) == bounds


def saved_and_read(prompt: Prompt) -> Prompt:
    return Prompt.from_plain(json.loads(json.dumps(prompt.to_plain())))


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda m: m.any()))
def test_prompt_with_any_mask_is_read_as_it_was_saved(mask):
    assert saved_and_read(Prompt(mask=mask)) == Prompt(mask=mask)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(points=((0.1, 2),), labels=(0,), box=(0, 1, 2, 3.5), object=7, plane=(1, 2)),
        Prompt(points=((0.1, 2),), expected_area=12.5),
        Prompt(mask=np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)),
    ],
)
def test_prompt_with_numbers_is_read_as_it_was_saved(prompt):
    assert saved_and_read(prompt) == prompt


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"points": 5}, "points of a prompt must be a list"),
        ({"points": [[1]]}, "A point has two coordinates"),
        ({"box": "abcd"}, "A box is numbers"),
        ({"mask": {}}, "incomplete or foreign .'shape'"),
        ({"plane": ["a"]}, "plane of a prompt is a whole number"),
        ({}, "prompt is empty"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, 2, 2], "runs": [0, 3]}}, "do not fill its box"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, 2, 9], "runs": [0, 18]}}, "do not fill its box"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, 2, 2], "runs": [8, -4]}}, "do not fill its box"),
        ({"mask": {"shape": [4, ""], "bbox": [0, 0, 1, 1], "runs": [0, 1]}}, "or foreign"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, 2], "runs": [0, 4]}}, "do not fill its box"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, 2, 2], "runs": []}}, "do not fill its box"),
        ({"mask": {"shape": [4, 4], "bbox": [0, 0, "", 2], "runs": [0]}}, "or foreign"),
        ({"mask": {"shape": [2, 2], "logits": [1, 2, 3]}}, "a number for each of its pixels"),
        ({"mask": {"shape": [4], "logits": [1, 2, 3, 4]}}, "cannot have 4 pixels"),
        ({"mask": {"shape": [1 << 40] * 2, "bbox": [0, 0, 1, 1], "runs": [0, 1]}}, "cannot have"),
    ],
)
def test_prompt_from_foreign_values_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence.replace("its box", "its bounding box")):
        Prompt.from_plain(values)


def test_scribbles_say_which_points_are_one_line():
    points, labels = [(1, 1), (2, 2), (3, 3), (4, 4)], [1, 1, 1, 0]
    prompt = Prompt(points=points, labels=labels, scribbles=[0, 1, 1, 0])
    assert prompt.last_mark == (((4.0, 4.0),), 0)
    assert prompt.until(3).last_mark == (((2.0, 2.0), (3.0, 3.0)), 1)
    assert Prompt.from_plain(prompt.to_plain()) == prompt
    clicks = Prompt(points=points, labels=labels)
    assert prompt != clicks
    assert Prompt(points=points, labels=labels, scribbles=[0] * 4) == clicks
    assert "scribbles" not in clicks.to_plain()


@pytest.mark.parametrize(
    ("labels", "scribbles", "message"),
    [
        ([1, 1, 1], [1, 1], "There are 3 points but 2 numbers of scribbles"),
        ([1, 0, 1], [1, 1, 0], "have one label"),
        ([1, 1, 1], [1, 0, 1], "follow each other"),
        ([1, 1, 1], [0, -1, -1], "numbered from 1, a click is 0, not -1"),
        ([1, 1, 1], [0, 1.5, 1], "a whole number"),
    ],
)
def test_scribbles_that_are_no_lines_are_refused(labels, scribbles, message):
    with pytest.raises(ValueError, match=message):
        Prompt(points=[(1, 1), (2, 2), (3, 3)], labels=labels, scribbles=scribbles)


def test_marks_are_clicks_and_scribbles_in_their_order():
    points = [(float(n), 0.0) for n in range(6)]
    prompt = Prompt(points=points, labels=(1, 0, 0, 1, 1, 1), scribbles=(0, 2, 2, 0, 1, 1))
    sizes = [(len(mark.points), mark.label) for mark in prompt.marks]
    assert sizes == [(1, 1), (2, 0), (1, 1), (2, 1)]
    assert prompt.last_mark.points == ((4, 0), (5, 0))
    assert [mark.points for mark in Prompt(points=points[:2]).marks] == [((0, 0),), ((1, 0),)]
