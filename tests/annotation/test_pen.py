"""What a line means beside what is open and what is committed, on bars that can be counted."""

import numpy as np
import pytest

from napari_simmat.annotation.pen import Meaning, OpenObject, meaning_of, with_line
from napari_simmat.annotation.prompt_grouping import ObjectPrompt, objects_on
from napari_simmat.annotation.prompt_state import Outline, Prompts, PromptState
from napari_simmat.engine.pen_line import drawn_line
from napari_simmat.engine.prompts import Prompt

SHAPE = (60, 100)


def bar(top, bottom, left, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def loop(top, bottom, left, right):
    """A line around the pixels of a bar."""
    y0, y1, x0, x1 = top - 0.4, bottom - 0.6, left - 0.4, right - 0.6
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0), (y0, x0)])


def opened(*masks, edited=False):
    """Open objects with these masks, each made by a click in the middle of its bar."""
    objects = []
    for number, mask in enumerate(masks):
        y, x = (30, 50) if mask is None else np.argwhere(mask).mean(0)
        prompt = Prompt(points=[(float(y), float(x))])
        objects.append(OpenObject(ObjectPrompt(prompt, Prompts(), group=number), mask, edited))
    return objects


COIN, NEXT = bar(20, 40, 10, 50), bar(20, 40, 60, 90)


@pytest.mark.parametrize(
    ("line", "positive", "expected", "other"),
    [
        (loop(18, 42, 8, 52), True, ("outline", 0), None),  # around the whole
        (loop(18, 42, 45, 58), True, ("adds", 0), None),  # 5 of 13 columns are the coin's
        (loop(18, 42, 49, 58), True, ("adds", 0), ("outline", None)),  # hardly touches it
        (loop(18, 42, 51, 57), True, ("adds", 0), ("outline", None)),  # two pixels away
        (loop(25, 35, 20, 40), True, ("adds", 0), ("outline", 0)),  # there is nothing to add
        (loop(18, 42, 8, 44), True, ("adds", 0), ("outline", 0)),  # around most of it
        (loop(45, 58, 10, 50), True, ("outline", None), None),  # beside it
        (loop(18, 42, 8, 30), False, ("takes away", 0), None),
        (loop(18, 42, 70, 95), False, ("takes away", 1), None),
        (np.array([(30.0, 62.0), (30.0, 95.0)]), True, ("scribble", 1), None),
        (np.array([(30.0, 12.0), (30.0, 45.0)]), False, ("scribble", 0), None),
    ],
)
def test_line_beside_open_objects(line, positive, expected, other):
    objects = opened(COIN, NEXT)
    meaning = meaning_of(line, positive, objects)
    assert said(meaning, objects) == expected
    assert (None if meaning.other is None else said(meaning.other, objects)) == other


def said(meaning, objects):
    return meaning.reading, None if meaning.of is None else objects.index(meaning.of)


def test_outline_after_outline_makes_object_after_object():
    [coin] = opened(COIN)
    touching = loop(18, 42, 49, 90)  # one column of 41 is the coin's
    next_one = meaning_of(touching, True, [coin], outlining=True)
    assert (next_one.reading, next_one.of) == ("outline", None)
    assert next_one.other == Meaning("adds", coin), "it may be more of the coin, too"
    assert meaning_of(loop(18, 42, 55, 90), True, [coin], outlining=True) == Meaning("outline")
    mended = meaning_of(touching, True, [coin], outlining=False)
    assert mended.reading == "adds"
    assert mended.other == Meaning("outline")
    deep = meaning_of(loop(18, 42, 44, 90), True, [coin], outlining=True)
    assert (deep.reading, deep.other) == ("adds", Meaning("outline")), "6 columns deep of 10"


def test_line_around_a_click_without_a_mask_outlines_its_object():
    [clicked] = opened(None)
    assert meaning_of(loop(20, 45, 40, 60), True, [clicked]) == Meaning("outline", clicked)
    assert meaning_of(loop(2, 10, 2, 30), True, [clicked]) == Meaning("outline")


@pytest.mark.parametrize(
    ("line", "outlines"),
    [
        (loop(20, 40, 10, 50), True),  # 760 of 836 pixels
        (loop(20, 40, 10, 34), True),  # 450 of 836
        (loop(20, 40, 10, 30), False),  # 370 of 836, less than half
        (loop(2, 58, 2, 98), False),  # five times as large
    ],
)
def test_line_around_what_a_box_holds_outlines_its_object(line, outlines):
    boxed = OpenObject(ObjectPrompt(Prompt(box=(20, 10, 40, 50)), Prompts()), None)
    assert meaning_of(line, True, [boxed]) == Meaning("outline", boxed if outlines else None)


def test_every_line_mends_an_object_that_was_opened():
    [coin] = opened(COIN, edited=True)
    assert meaning_of(loop(45, 58, 60, 90), True, [coin]) == Meaning("adds", coin)
    assert meaning_of(np.array([(5.0, 5.0), (5.0, 30.0)]), True, [coin]) == Meaning(
        "scribble", coin
    )


@pytest.mark.parametrize(
    ("line", "positive", "expected", "other"),
    [
        (loop(2, 12, 2, 30), True, ("outline", 0), None),
        (loop(18, 42, 49, 90), True, ("outline", 0), ("adds", 4)),  # touches object 4
        (loop(18, 42, 30, 58), True, ("adds", 4), None),
        (loop(18, 42, 44, 80), True, ("adds", 4), ("outline", 0)),
        (loop(18, 42, 8, 52), True, ("outline", 4), ("outline", 0)),
        (loop(2, 58, 2, 98), True, ("outline", 0), ("outline", 4)),  # much larger
        (loop(18, 42, 8, 30), False, ("takes away", 4), None),
        (loop(2, 12, 2, 30), False, ("takes away", 0), None),  # of nothing: ground
        (np.array([(30.0, 45.0), (30.0, 60.0)]), True, ("scribble", 4), None),
        (np.array([(50.0, 5.0), (50.0, 60.0)]), True, ("scribble", 0), None),
    ],
)
def test_line_where_nothing_is_open_may_mean_a_committed_object(line, positive, expected, other):
    meaning = meaning_of(line, positive, [], 4 * COIN.astype(int))
    assert (meaning.reading, meaning.label) == expected
    found = meaning.other
    assert (None if found is None else (found.reading, found.label)) == other


@pytest.mark.parametrize("seed", range(8))
def test_no_positive_line_takes_away_unless_around_the_mask(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        (top, bottom), (left, right) = (
            np.sort(rng.choice(size, 2, replace=False)) for size in (59, 99)
        )
        line = loop(top, bottom + 1, left, right + 1)
        meaning = meaning_of(line, True, opened(COIN), outlining=bool(rng.integers(2)))
        goes_around = top <= 20 and bottom >= 39 and left <= 10 and right >= 49
        if meaning.of is not None and meaning.reading == "outline":
            assert goes_around or _share(top, bottom, left, right) >= 0.95
        assert meaning.reading in ("outline", "adds")


def _share(top, bottom, left, right):
    return COIN[top : bottom + 1, left : right + 1].sum() / COIN.sum()


def test_clicks_keep_their_object_beside_a_new_outline():
    clicked = Prompts(points=((5.0, 5.0), (6.0, 6.0)), labels=(1, 0))
    drawn = with_line(clicked, drawn_line(loop(20, 40, 10, 50)), True, Meaning("outline"), ())
    outlined, first = objects_on(PromptState(drawn), (), SHAPE)
    assert first.prompt.points == clicked.points
    assert outlined.prompt.scribbles, "an outline, without the clicks"
    assert set(outlined.prompt.labels) == {1}


def test_line_mends_the_outline_that_it_is_of():
    prompts = Prompts()
    for columns in ((10, 50), (52, 90)):
        prompts = with_line(
            prompts, drawn_line(loop(20, 40, *columns)), True, Meaning("outline"), ()
        )
    first, second = (OpenObject(each, None) for each in objects_on(PromptState(prompts), (), SHAPE))
    # Its middle is nearer to the other one.
    line = drawn_line(loop(22, 38, 45, 62))
    mended = with_line(prompts, line, False, Meaning("takes away", first), ())
    now = objects_on(PromptState(mended), (), SHAPE)
    assert [len(each.prompt.marks) for each in now] == [2, 1]
    assert now[0].prompt.last_mark.label == 0
    assert now[1].prompt == second.asked.prompt
    assert [each.kind for each in now[0].source.outlines] == ["polygon", "path"]
    assert objects_on(PromptState(now[0].source), (), SHAPE)[0].prompt == now[0].prompt


def test_outline_anew_replaces_all_prompts_of_its_object():
    box = Outline("rectangle", ((5.0, 5.0), (5.0, 30.0), (30.0, 30.0), (30.0, 5.0)))
    prompts = Prompts(points=((6.0, 6.0),), labels=(0,), outlines=(box,))
    [boxed] = (OpenObject(each, None) for each in objects_on(PromptState(prompts), (), SHAPE))
    anew = with_line(prompts, loop(2, 40, 2, 40), True, Meaning("outline", boxed), ())
    assert anew.points == ()
    [outline] = anew.outlines
    assert outline.kind == "polygon"
