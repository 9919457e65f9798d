from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine import refinement
from napari_simmat.engine.masks import Mask, iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import ALL_PIECES, Refiner, correct_mask, prompt_steps
from napari_simmat.engine.result import Result
from napari_simmat.progress import finish
from tests.scripted_predictor import Scripted


@pytest.fixture
def predictor(random_models):
    predictor = Predictor(load_model(random_models / "tiny-1.safetensors"), device="cpu")
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8))
    return predictor


def ask(refiner: Refiner, predictor: Predictor, *prompts: Prompt, **named: Any) -> list[Result]:
    return finish(refiner.refine_job(predictor, prompts, "subject", **named))


def test_refine_hands_each_click_the_logits_before(predictor):
    points, labels = ((10, 12), (20, 30), (5, 40)), (1, 0, 1)
    logits = None
    for count in (1, 2, 3):
        expected = predictor.predict(points=points[:count], labels=labels[:count], mask=logits)
        [result] = ask(Refiner(), predictor, Prompt(points=points[:count], labels=labels[:count]))
        assert np.array_equal(result.mask, expected.mask)
        assert result.score == expected.score
        logits = expected.logits


def test_refine_of_a_box_keeps_main_and_clicked_pieces():
    mask = np.zeros((20, 30), bool)
    mask[2:10, 2:10] = mask[12:17, 2:6] = True  # 64 and 20 pixels
    main = mask.copy()
    mask[10:12, 20:24] = mask[1, 28] = True  # crumbs
    box = Prompt(box=(0, 0, 20, 30))
    clicked = replace(box, points=((11, 22), (1, 28)), labels=(1, 0))
    with_one = main.copy()
    with_one[10:12, 20:24] = True
    for prompt, kept, left_out in ((box, main, 2), (clicked, with_one, 1)):
        predictor = cast(Predictor, Scripted(*[mask] * 3))
        [result] = Refiner().refine(predictor, [prompt])
        np.testing.assert_array_equal(result.mask, kept)
        assert result.left_out == left_out
    for prompt in (box, clicked):
        predictor = cast(Predictor, Scripted(*[mask] * 3))
        [whole] = ask(Refiner(), predictor, prompt, choices={box: ALL_PIECES})
        np.testing.assert_array_equal(whole.mask, mask)


@pytest.mark.parametrize(
    ("click", "label", "score", "kept"),
    [
        ((5, 5), 1, 0.55, True),
        ((5, 5), 1, 0.65, False),  # so much surer that the box alone was misunderstood
        ((5, 15), 1, 0.55, False),
        ((5, 5), 0, 0.55, False),
    ],
)
def test_refine_of_a_click_on_a_box_mask_confirms_it(click, label, score, kept):
    first, second = np.zeros((2, 12, 20), bool)
    first[2:8, 2:8] = second[2:8, 4:18] = True
    box = Prompt(box=(2, 2, 8, 18))
    clicked = replace(box, points=(click,), labels=(label,))
    scripted = Scripted(first, second, second, scores=(0.5, score, 0.5))
    refiner = Refiner()
    [result] = refiner.refine(cast(Predictor, scripted), [clicked])
    np.testing.assert_array_equal(result.mask, first if kept else second)
    further = replace(clicked, points=(click, (3, 17)), labels=(label, 1))
    refiner.refine(cast(Predictor, scripted), [further])
    # The next click refines the mask that was kept.
    assert scripted.asked[-1].mask is not None
    assert scripted.asked[-1].mask[0, 0] == (1 if kept else 2)


def test_refine_remembers_and_changes_nothing(predictor, monkeypatch):
    monkeypatch.setattr(refinement, "FIRST_REFINING_CORRECTION", 9)  # no click is asked twice
    points = ((10, 12), (20, 30), (5, 40))
    refiner = Refiner()
    decoded = 0
    original = predictor.predict_many_job

    def counting(prompts):
        nonlocal decoded
        decoded += len(prompts)
        return (yield from original(prompts))

    predictor.predict_many_job = counting  # type: ignore[method-assign]
    one_by_one = [ask(refiner, predictor, Prompt(points=points[:n]))[0] for n in (1, 2, 3)]
    assert decoded == 3, "one for each click"
    [again] = ask(refiner, predictor, Prompt(points=points))
    assert decoded == 3
    [fresh] = ask(Refiner(), predictor, Prompt(points=points))
    assert decoded == 6
    assert np.array_equal(again.mask, one_by_one[-1].mask)
    assert np.array_equal(fresh.mask, again.mask)
    others = [Prompt(box=(y, 5, y + 9, 25)) for y in (0, 10, 20)]
    before = ask(refiner, predictor, *others, Prompt(points=points[:1]))
    decoded = 0
    [*after, clicked] = ask(refiner, predictor, *others, Prompt(points=points[:2]))
    assert decoded == 1, "of four open objects that was predicted which was clicked"
    assert after == before[:3]
    assert np.array_equal(clicked.mask, one_by_one[1].mask)


def disk(y: float, x: float, radius: float) -> Mask:
    rows, columns = np.mgrid[:60, :60]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < radius**2)


BODY, OTHER = disk(25, 25, 12), disk(48, 48, 8)
CLICKS = ((25.0, 25.0), (25.0, 40.0), (25.0, 20.0), (36.0, 25.0))
"""Inside the body; outside of it; inside again; inside, but near its border."""


@pytest.mark.parametrize(
    ("last", "local"),
    [(OTHER, True), (disk(25, 25, 11), False), (BODY & ~disk(36, 25, 3), False)],
    ids=["another object", "nearly the same", "the same and what was asked"],
)
def test_refine_of_a_later_correction_keeps_what_is_right(last, local):
    """The third click may still change everything; the fourth cuts a piece off at most."""
    prompt = Prompt(points=CLICKS, labels=(1, 0, 1, 0))
    script = Scripted(BODY, OTHER, BODY, last, last)
    [result] = Refiner().refine(cast(Predictor, script), [prompt])
    if not local:
        assert len(script.asked) == 4
        assert np.array_equal(result.mask, last)
        return
    assert len(script.asked) == 5  # once more, with a click on what is there already
    assert script.asked[4].points == ((25, 25), *CLICKS)
    assert np.array_equal(script.asked[4].mask, BODY)
    assert not result.mask[36, 25]
    assert not (result.mask & ~BODY).any()
    assert iou(result.mask, BODY) > 0.8
    assert np.array_equal(result.mask, correct_mask(BODY, [last, last], CLICKS[3], 0))


def test_refine_after_an_object_was_clicked_away_finds_it():
    """What is left, nothing, is no mask that a next click could refine."""
    nothing = np.zeros_like(BODY)
    prompt = Prompt(mask=BODY, points=((25, 25), (48, 48)), labels=(0, 1))
    script = Scripted(nothing, nothing, OTHER)
    [result] = Refiner().refine(cast(Predictor, script), [prompt])
    assert np.array_equal(script.asked[0].mask, BODY)
    assert (script.asked[2].mask == 1).all()  # the first result's logits
    assert np.array_equal(result.mask, OTHER)


def test_refine_takes_and_refines_another_candidate(predictor):
    prompt = Prompt(points=((10, 12),))
    longer = Prompt(points=((10, 12), (20, 30)))
    usual = predictor.predict(points=prompt.points)
    [plain] = ask(Refiner(), predictor, prompt)
    assert (plain.choice, plain.count) == (0, usual.count)
    assert usual.count > 1
    [other] = ask(Refiner(), predictor, prompt, choices={prompt: 1})
    assert np.array_equal(other.mask, usual.alternative(1).mask)
    assert other.score == usual.alternative(1).score
    [refined] = ask(Refiner(), predictor, longer, choices={prompt: 1})
    expected = predictor.predict(points=longer.points, mask=usual.alternative(1).logits)
    assert np.array_equal(refined.mask, expected.mask)
    scores = [usual.alternative(n).score for n in range(1, usual.count)]
    assert scores == sorted(scores, reverse=True)


def test_refine_of_a_mask_alone_returns_it(predictor):
    mask = np.zeros((40, 50), dtype=bool)
    mask[8:20, 10:30] = True
    [alone] = ask(Refiner(), predictor, Prompt(mask=mask))
    assert np.array_equal(alone.mask, mask)
    assert np.isnan(alone.score)
    prompt = Prompt(mask=mask, points=((10, 12),))
    [more] = ask(Refiner(), predictor, prompt)
    assert np.array_equal(more.mask, predictor.predict_many([prompt])[0].mask)


def test_refine_of_logits_alone_predicts(predictor):
    before = predictor.predict(points=[(10, 12)])
    expected = predictor.predict(mask=before.logits)
    [result] = ask(Refiner(), predictor, Prompt(mask=before.logits))
    assert np.array_equal(result.mask, expected.mask)
    assert result.score == expected.score


def test_refine_of_a_chosen_candidate_corrects_near_the_click(predictor):
    mask = np.zeros((40, 50), dtype=bool)
    mask[8:30, 10:40] = True
    prompt = Prompt(mask=mask, points=((12, 14),), labels=(0,))
    usual = predictor.predict_many([prompt])[0].alternative(1)
    [other] = ask(Refiner(), predictor, prompt, choices={prompt: 1})
    assert (other.choice, other.score) == (1, usual.score)
    assert not other.mask[12, 14]
    assert not (other.mask & ~mask).any(), "a negative click adds nothing"
    assert other.mask[20:30, 25:40].all(), "far from the click all is as it was"
    assert not np.array_equal(usual.mask, other.mask)


@pytest.mark.parametrize(
    ("labels", "named", "sizes"),
    [
        ((1, 1, 0), {}, [1, 2, 3]),
        ((0, 0, 1), {}, [3]),
        ((0, 0), {}, [2]),
        ((1, 0), {"box": (1, 1, 9, 9)}, [0, 1, 2]),
        ((), {"box": (1, 1, 9, 9)}, [0]),
        ((1, 1), {"mask": np.ones((4, 4), dtype=bool)}, [1, 2]),
    ],
)
def test_prompt_steps_grow_click_by_click(labels, named, sizes):
    points = tuple((float(n), 2.0) for n in range(len(labels)))
    steps = prompt_steps(Prompt(points=points, labels=labels, **named))
    assert [len(step.points) for step in steps] == sizes
    assert all(step.box == named.get("box") for step in steps)


@pytest.mark.parametrize(
    ("labels", "scribbles", "named", "sizes"),
    [
        ((1, 1, 1, 0, 0), (1, 1, 1, 2, 2), {}, [3, 5]),  # the first one asks at once
        ((1, 0, 0, 1), (0, 1, 1, 0), {}, [1, 3, 4]),
        ((0, 0, 1, 1), (1, 1, 2, 2), {}, [4]),
        ((1, 1, 1), (1, 1, 0), {"box": (1, 1, 9, 9)}, [0, 2, 3]),
        ((1, 1, 1), (1, 1, 1), {"mask": np.ones((4, 4), dtype=bool)}, [3]),
    ],
)
def test_prompt_steps_take_a_scribble_at_once(labels, scribbles, named, sizes):
    points = tuple((float(n), 2.0) for n in range(len(labels)))
    prompt = Prompt(points=points, labels=labels, scribbles=scribbles, **named)
    assert [len(step.points) for step in prompt_steps(prompt)] == sizes


def test_scribble_corrects_where_the_model_does_not_follow():
    half = np.zeros((30, 40), bool)
    half[10:20, 5:20] = True
    line = [(14.0, float(x)) for x in range(22, 31, 2)]
    box = (10, 5, 20, 35)
    scribbled = Prompt(box=box, points=line, labels=[1] * 5, scribbles=[1] * 5)
    predictor = cast(Predictor, Scripted(*[half] * 3))  # of the box, the line, line and middle
    [result] = Refiner().refine(predictor, [scribbled])
    assert result.mask[14, 22:31].all(), "what the line passes belongs to it"
    assert result.mask[half].all()


def test_model_sees_few_clicks_of_a_long_scribble_each_time():
    half = np.zeros((30, 40), bool)
    half[10:20, 5:20] = True
    line = [(14.0, 22 + n / 2) for n in range(20)]
    scribbled = Prompt(box=(10, 5, 20, 35), points=line, labels=[1] * 20, scribbles=[1] * 20)
    predictor = Scripted(*[half] * 3)
    Refiner().refine(cast(Predictor, predictor), [scribbled])
    *_, with_middle = predictor.asked
    assert len(with_middle.points) == 9, "8 of the line, and the middle of the mask"


def loop_of(rows, columns):
    """A line around the pixels of a rectangle."""
    (top, bottom), (left, right) = rows, columns
    return [(top, left), (top, right - 1), (bottom - 1, right - 1), (bottom - 1, left), (top, left)]


@pytest.mark.parametrize(
    ("label", "rows", "columns", "expected"),
    [
        (1, (10, 20), (19, 30), np.s_[10:20, 5:30]),
        (0, (8, 22), (15, 25), np.s_[10:20, 5:15]),
    ],
    ids=["adds", "takes away"],
)
def test_line_that_closes_corrects_by_what_it_encloses(label, rows, columns, expected):
    half = np.zeros((30, 40), bool)
    half[10:20, 5:20] = True
    right = np.zeros_like(half)
    right[expected] = True
    line = loop_of(rows, columns)
    drawn = Prompt(box=(10, 5, 20, 35), points=line, labels=[label] * 5, scribbles=[1] * 5)
    predictor = Scripted(half, half)  # of the box, of box and mask
    [result] = Refiner().refine(cast(Predictor, predictor), [drawn])
    assert np.array_equal(result.mask, right)


def test_positive_line_takes_nothing_away():
    wide, line = np.zeros((60, 60), bool), loop_of((20, 41), (20, 41))
    wide[2:58, 2:58] = True
    within = Prompt(box=(0, 0, 60, 60), points=line, scribbles=[1] * 5)
    [result] = Refiner().refine(cast(Predictor, Scripted(wide, wide)), [within])
    assert np.array_equal(result.mask, wide)


def test_line_alone_outlines_the_object():
    line = loop_of((20, 41), (20, 41))
    alone = Scripted(np.ones((60, 60), bool))
    [first] = Refiner().refine(cast(Predictor, alone), [Prompt(points=line, scribbles=[1] * 5)])
    assert first.mask[20:41, 20:41].all()
    assert not first.mask[:18].any(), "1.65 pixels beyond the line the model is not asked"
    assert first.mask[19, 20:41].all(), "but within them"


def test_click_after_an_outline_corrects_it():
    drawn = np.zeros((30, 40), bool)
    drawn[5:26, 5:26] = True
    line = loop_of((5, 26), (5, 26))
    prompt = Prompt(points=(*line, (24, 24)), labels=(1,) * 5 + (0,), scribbles=(1,) * 5 + (0,))
    predictor = Scripted(drawn, drawn, drawn)
    [result] = Refiner().refine(cast(Predictor, predictor), [prompt])
    assert not result.mask[24, 24]
    assert result.mask[6:20, 6:20].all(), "far from the click all is as it was"
    again = Refiner()
    again.refine(cast(Predictor, Scripted(drawn)), [prompt.until(5)])
    [known] = again.refine(cast(Predictor, Scripted(drawn, drawn)), [prompt])
    assert np.array_equal(known.mask, result.mask), "whether or not the outline is remembered"


def test_click_after_a_line_keeps_what_was_drawn():
    half, other = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    half[10:20, 5:20] = True
    other[22:28, 30:38] = True
    line = loop_of((10, 20), (19, 30))
    prompt = Prompt(
        box=(10, 5, 20, 35),
        points=(*line, (15, 6)),
        labels=(1,) * 5 + (0,),
        scribbles=(1,) * 5 + (0,),
    )
    predictor = Scripted(half, half, other, other)  # of the click the model takes another object
    [result] = Refiner().refine(cast(Predictor, predictor), [prompt])
    assert result.mask[10:20, 14:30].all()
    assert not result.mask[15, 6]
    assert not result.mask[other].any()
