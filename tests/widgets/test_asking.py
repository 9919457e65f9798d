from __future__ import annotations

import pytest

from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.asked import Asked, Outline, Prompts
from napari_simmat.widgets.meaning import prompts_of

SHAPE = (40, 50)


def box(y0: float, x0: float, y1: float, x1: float, *plane: float) -> Outline:
    corners = ((*plane, y0, x0), (*plane, y0, x1), (*plane, y1, x1), (*plane, y1, x0))
    return Outline("rectangle", corners)


def test_points_alone_mean_one_object() -> None:
    prompts = Prompts(points=((3.0, 4.0), (9.0, 9.0)), labels=(1, 0))
    assert prompts_of(Asked(prompts), (), SHAPE) == (
        Prompt(points=((3.0, 4.0), (9.0, 9.0)), labels=(1, 0)),
    )


def test_each_box_is_an_object_and_points_belong_to_the_box_that_holds_them() -> None:
    prompts = Prompts(
        points=((5.0, 5.0), (30.0, 42.0), (20.0, 48.0)),
        labels=(1, 1, 0),
        outlines=(box(1.5, 1.5, 9.5, 9.5), box(24.5, 29.5, 34.5, 44.5)),
    )
    first, second = prompts_of(Asked(prompts), (), SHAPE)
    assert first == Prompt(points=((5.0, 5.0),), labels=(1,), box=(2, 2, 10, 10))
    assert second.box == (25, 30, 35, 45)
    assert second.points == ((30.0, 42.0), (20.0, 48.0)), "a stray point belongs to the nearest box"
    assert second.labels == (1, 0)


def test_of_nested_boxes_the_smaller_one_owns_a_point() -> None:
    prompts = Prompts(
        points=((5.0, 5.0),), labels=(1,), outlines=(box(0, 0, 30, 30), box(3.5, 3.5, 8.5, 8.5))
    )
    outer, inner = prompts_of(Asked(prompts), (), SHAPE)
    assert outer.points == ()
    assert inner.points == ((5.0, 5.0),)


def test_only_the_plane_counts() -> None:
    prompts = Prompts(
        points=((0.0, 3.0, 4.0), (1.0, 5.0, 6.0)), labels=(1, 1), outlines=(box(0, 0, 5, 5, 0.0),)
    )
    (asked,) = prompts_of(Asked(prompts), (1,), SHAPE)
    assert asked == Prompt(points=((5.0, 6.0),), labels=(1,), plane=(1,))
    assert prompts_of(Asked(prompts), (2,), SHAPE) == ()


def test_a_box_over_the_border_is_clipped() -> None:
    (asked,) = prompts_of(Asked(Prompts(outlines=(box(-10, -10, 8.5, 99),))), (), SHAPE)
    assert asked.box == (0, 0, 9, 50)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (Prompts(points=((3.0, 4.0),), labels=(0,)), "only negative points"),
        (Prompts(points=((3.0, 400.0),), labels=(1,)), "x 400 lies outside the image"),
        (Prompts(outlines=(box(-20, -20, -10, -10),)), "lies outside the image"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(prompts: Prompts, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prompts_of(Asked(prompts), (), SHAPE)
