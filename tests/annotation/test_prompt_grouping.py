from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_simmat.annotation.prompt_grouping import objects_on
from napari_simmat.annotation.prompt_state import EditedObject, Outline, Prompts, PromptState
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.pen_line import closes
from napari_simmat.engine.prompts import Prompt

SHAPE = (40, 50)


def prompts_on(state: PromptState, plane: tuple[int, ...], shape: tuple[int, int]) -> Any:
    return tuple(each.prompt for each in objects_on(state, plane, shape))


def box(y0: float, x0: float, y1: float, x1: float, *plane: float) -> Outline:
    corners = ((*plane, y0, x0), (*plane, y0, x1), (*plane, y1, x1), (*plane, y1, x0))
    return Outline("rectangle", corners)


def test_objects_on_points_alone_is_one_object():
    prompts = Prompts(points=((3.0, 4.0), (9.0, 9.0)), labels=(1, 0))
    assert prompts_on(PromptState(prompts), (), SHAPE) == (
        Prompt(points=((3.0, 4.0), (9.0, 9.0)), labels=(1, 0)),
    )


def test_objects_on_boxes_gives_points_to_the_box_around_them():
    prompts = Prompts(
        points=((5.0, 5.0), (30.0, 42.0), (20.0, 48.0)),
        labels=(1, 1, 0),
        outlines=(box(1.5, 1.5, 9.5, 9.5), box(24.5, 29.5, 34.5, 44.5)),
    )
    first, second = prompts_on(PromptState(prompts), (), SHAPE)
    assert first == Prompt(points=((5.0, 5.0),), labels=(1,), box=(2, 2, 10, 10))
    assert second.box == (25, 30, 35, 45)
    assert second.points == ((30.0, 42.0), (20.0, 48.0)), "a stray point belongs to the nearest box"
    assert second.labels == (1, 0)


def test_objects_on_nested_boxes_gives_points_to_the_smaller():
    prompts = Prompts(
        points=((5.0, 5.0),), labels=(1,), outlines=(box(0, 0, 30, 30), box(3.5, 3.5, 8.5, 8.5))
    )
    outer, inner = prompts_on(PromptState(prompts), (), SHAPE)
    assert outer.points == ()
    assert inner.points == ((5.0, 5.0),)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("small_is_first", [False, True])
@pytest.mark.parametrize(("at", "owner"), [(14.0, 0), (15.0, 1)])
def test_stray_point_belongs_to_the_box_half_a_pixel_nearer(at, owner, small_is_first, turned):
    """Rows 2 to 9 and 20 to 27: their edges are at 9.5 and 19.5."""
    widths = (4.5, 34.5) if small_is_first else (34.5, 4.5)
    sides = [(1.5, 1.5, 9.5, widths[0]), (19.5, 1.5, 27.5, widths[1])]
    point = (at, 3.0)
    if turned:
        sides = [(x0, y0, x1, y1) for y0, x0, y1, x1 in sides]
        point = point[::-1]
    prompts = Prompts(points=(point,), labels=(0,), outlines=tuple(box(*each) for each in sides))
    asked = prompts_on(PromptState(prompts), (), SHAPE)
    assert [each.points for each in asked] == [(point,) if n == owner else () for n in (0, 1)]


def test_objects_on_another_plane_is_empty():
    prompts = Prompts(
        points=((0.0, 3.0, 4.0), (1.0, 5.0, 6.0)), labels=(1, 1), outlines=(box(0, 0, 5, 5, 0.0),)
    )
    (asked,) = prompts_on(PromptState(prompts), (1,), SHAPE)
    assert asked == Prompt(points=((5.0, 6.0),), labels=(1,), plane=(1,))
    assert prompts_on(PromptState(prompts), (2,), SHAPE) == ()


def test_objects_on_a_box_over_the_border_clips_it():
    (asked,) = prompts_on(PromptState(Prompts(outlines=(box(-10, -10, 8.5, 99),))), (), SHAPE)
    assert asked.box == (0, 0, 9, 50)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (Prompts(points=((3.0, 4.0),), labels=(0,)), "only negative marks"),
        (Prompts(points=((3.0, 400.0),), labels=(1,)), "x 400 lies outside the image"),
        (Prompts(outlines=(box(-20, -20, -10, -10),)), "lies outside the image"),
    ],
)
def test_objects_on_unusable_prompts_raises_one_sentence(prompts, words):
    with pytest.raises(ValueError, match=words):
        prompts_on(PromptState(prompts), (), SHAPE)


def ring(kind: str, *vertices: tuple[float, float], **named: int) -> Outline:
    return Outline(kind, vertices, **named)


@pytest.mark.parametrize(
    ("kind", "vertices", "bounds", "inside", "outside"),
    [
        ("ellipse", [(9.5, 9.5), (9.5, 29.5), (19.5, 29.5), (19.5, 9.5)], (10, 10, 20, 30),
         (15, 20), (10, 10)),
        ("polygon", [(5, 5), (5, 25), (25, 5)], (5, 5, 26, 26), (8, 8), (20, 20)),
        ("rectangle", [(20, 10), (10, 20), (20, 30), (30, 20)], (10, 10, 31, 31),
         (20, 20), (11, 11)),
    ],
)  # fmt: skip
def test_objects_on_a_shape_has_box_and_mask(kind, vertices, bounds, inside, outside):
    drawn = Prompts(outlines=(ring(kind, *vertices),))
    [asked] = prompts_on(PromptState(drawn), (), SHAPE)
    assert asked.box == bounds
    assert asked.mask[inside]
    assert not asked.mask[outside], "no corner of the box"


def test_objects_on_an_upright_rectangle_has_no_mask():
    [upright] = prompts_on(PromptState(Prompts(outlines=(box(9.5, 9.5, 30.5, 30.5),))), (), SHAPE)
    assert upright.mask is None


@pytest.mark.parametrize("label", [1, 0])
def test_objects_on_a_scribble_has_points_along_it(label):
    drawn = ring("path", (5.0, 5.0), (5.0, 33.0), (12.0, 33.0), label=label)
    prompts = Prompts(points=((30.0, 40.0),), labels=(1,), outlines=(drawn,))
    [asked] = prompts_on(PromptState(prompts), (), SHAPE)
    assert asked.labels == (*(label,) * 9, 1)
    assert asked.scribbles == (*(1,) * 9, 0)
    assert asked.points[0] == (5, 5)
    assert asked.points[7] == (7.625, 33), "around the corner"
    assert asked.points[8] == (12, 33)
    gaps = np.diff([abs(y - 5) + abs(x - 5) for y, x in asked.points[:9]])
    assert gaps == pytest.approx([35 / 8] * 8), "equal distances"


def test_objects_on_marks_keep_the_order_in_which_they_were_made():
    lines = [
        ring("path", (5.0, 5.0), (5.0, 9.0), label=1),
        ring("path", (20.0, 5.0), (20.0, 9.0), label=0, after=1),
        ring("path", (30.0, 5.0), (30.0, 9.0), label=0, after=9),  # of clicks that are gone
    ]
    prompts = Prompts(points=((10.0, 7.0), (25.0, 7.0)), labels=(1, 0), outlines=tuple(lines))
    [each] = objects_on(PromptState(prompts), (), SHAPE)
    rows = [mark.points[0][0] for mark in each.prompt.marks]
    assert rows == [5, 10, 20, 25, 30]
    assert [line.after for line in each.source.outlines] == [0, 1, 2]


def test_prompts_of_a_plane_keep_the_order_of_their_marks():
    points = ((0.0, 1.0, 1.0), (1.0, 2.0, 2.0), (0.0, 3.0, 3.0))
    line = ring("path", (1.0, 5.0, 5.0), (1.0, 5.0, 9.0), after=2)
    prompts = Prompts(points, (1, 1, 1), outlines=(line,))
    assert [each.after for each in prompts.on((1,)).outlines] == [1]
    assert [each.after for each in prompts.on((0,)).outlines] == []
    assert prompts.on((1,)).points == points[1:2]


def test_polygon_of_many_vertices_is_an_outline_drawn_freehand():
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    vertices = [(20 + 10 * np.sin(a), 25 + 12 * np.cos(a)) for a in turn]
    few = Prompts(outlines=(ring("polygon", *vertices[::4]),))
    [coarse] = prompts_on(PromptState(few), (), SHAPE)
    assert coarse.mask is not None
    drawn = Prompts(points=((20.0, 25.0),), labels=(0,), outlines=(ring("polygon", *vertices),))
    [asked] = prompts_on(PromptState(drawn), (), SHAPE)
    assert (asked.box, asked.mask) == (None, None)
    first, last = asked.marks
    assert closes(first.points)
    assert last == (((20, 25),), 0), "a click in it corrects it"


def test_objects_on_a_short_scribble_has_few_points():
    [asked] = prompts_on(PromptState(Prompts(outlines=(ring("path", (5, 5), (5, 14)),))), (), SHAPE)
    assert len(asked.points) == 3


def test_objects_on_groups_is_one_object_each():
    prompts = Prompts(
        points=((5.0, 5.0), (30.0, 30.0), (31.0, 31.0), (8.0, 8.0)),
        labels=(1, 1, 0, 1),
        groups=(0, 1, 1, 2),
    )
    first, second, third = objects_on(PromptState(prompts), (), SHAPE)
    assert first.prompt == Prompt(points=((5.0, 5.0),))
    assert second.prompt == Prompt(points=((30.0, 30.0), (31.0, 31.0)), labels=(1, 0))
    assert third.prompt == Prompt(points=((8.0, 8.0),))
    assert second.source == Prompts(points=prompts.points[1:3], labels=(1, 0)), "as a first group"
    boxed = replace(prompts, outlines=(box(1.5, 1.5, 9.5, 9.5),))
    asked = prompts_on(PromptState(boxed), (), SHAPE)
    assert [(len(each.points), each.box is not None) for each in asked] == [
        (1, True),
        (2, False),
        (1, False),
    ]


def test_objects_on_a_mask_has_its_deepest_point():
    pixels = np.zeros(SHAPE, dtype=bool)
    pixels[10:21, 20:31] = True
    prompts = Prompts(masks=(ObjectMask.of(pixels, (2, 0, 0)),))
    [asked] = prompts_on(PromptState(prompts), (2,), SHAPE)
    assert np.array_equal(asked.mask, pixels)
    assert asked.points == ((15.0, 25.0),)
    assert asked.box is None
    assert prompts_on(PromptState(prompts), (1,), SHAPE) == ()


def test_objects_on_an_edited_object_puts_it_first():
    pixels = np.zeros(SHAPE, dtype=bool)
    pixels[10:21, 20:31] = True
    opened = (EditedObject(7, (), ObjectMask.of(pixels)),)
    [alone] = prompts_on(PromptState(edited=opened), (), SHAPE)
    assert np.array_equal(alone.mask, pixels)
    assert alone.points == ()
    assert alone.box is None
    boxes = (box(1.5, 1.5, 9.5, 9.5), box(24.5, 29.5, 34.5, 44.5))
    prompts = Prompts(points=((5.0, 5.0),), labels=(0,), outlines=boxes)
    first, second = prompts_on(PromptState(prompts, edited=opened), (), SHAPE)
    assert np.array_equal(first.mask, pixels)
    assert first.box == (2, 2, 10, 10)
    assert first.labels == (0,)
    assert second == Prompt(box=(25, 30, 35, 45))
