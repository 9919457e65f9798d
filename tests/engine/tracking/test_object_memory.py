"""Objects carried by memory: which planes are recalled, and propagation with SAM 2's network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_simmat import Predictor, Prompt
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.object_memory import (
    FEATURES_REACH,
    REACH,
    MemoryTrail,
    attending,
)
from napari_simmat.engine.tracking.propagation import Propagator
from napari_simmat.engine.tracking.propagation_tracks import (
    AnnotatedLine,
    IntervalEnd,
    Section,
    SliceInterval,
)
from napari_simmat.models.sam2_memory import FEATURES_BACK, POINTERS_BACK, Memories
from napari_simmat.progress import finish
from tests.engine.tracking.test_propagation import BRIGHT, Thresholding, ball, click
from tests.sam2_models import SIDE, sam2_model


def end(index: int) -> IntervalEnd:
    square = np.zeros((8, 8), bool)
    square[2:5, 2:5] = True
    return IntervalEnd(index, Section(ObjectMask.of(square), 0.9, "annotated"))


class Known:
    """What is remembered of one plane, by its name."""

    nbytes = 1

    def __init__(self, plane: object, features: bool = True) -> None:
        self.plane, self.features = plane, features

    def pointer_alone(self) -> "Known":
        return Known(self.plane, features=False)


def line(given: list[int], *starts: tuple[int, list[int]]) -> AnnotatedLine:
    """A line annotated on the planes `given`, with intervals from a start over other planes."""
    intervals = tuple(SliceInterval(0, (), tuple(there), end(start)) for start, there in starts)
    return AnnotatedLine(tuple(end(index) for index in given), intervals)


def seen(trail: MemoryTrail, index: int, ascending: bool = True):
    """What is recalled on a plane: annotated planes, found ones, those with their pointer alone."""
    for missing in trail.missing(index, ascending):
        trail.give(missing.index, Known(missing.index))
    known = trail.seen_from(index, ascending)
    given = {back: each.plane for back, each in known.given.items()}
    found = {back: each.plane for back, each in known.found.items()}
    assert all(each.features for each in known.given.values())
    return given, found, [back for back, each in known.found.items() if not each.features]


def walk(trail: MemoryTrail, planes: range) -> None:
    for index in planes:
        ascending = planes.step > 0
        for missing in trail.missing(index, ascending):
            trail.give(missing.index, Known(missing.index))
        trail.add(index, ascending, Known(index))


def test_trail_recalls_across_annotated_planes():
    """Meta's code, too: an annotated plane between neither ends nor begins the memory."""
    trail = MemoryTrail(line([0, 4, 9], (0, [1, 2, 3]), (4, [5, 6, 7, 8]), (9, [10])), 12, 16)
    walk(trail, range(1, 4))
    assert seen(trail, 5) == ({5: 0, 1: 4, -4: 9}, {4: 1, 3: 2, 2: 3}, [])
    walk(trail, range(5, 9))
    given, found, pointers = seen(trail, 10)
    assert given == {10: 0, 6: 4, 1: 9}
    assert found == {9: 1, 8: 2, 7: 3, 5: 5, 4: 6, 3: 7, 2: 8}
    assert pointers == [9, 8], "of planes that far back SAM 2 recalls no features"


def test_trail_turns_with_what_was_found_above():
    trail = MemoryTrail(line([4], (4, [*range(5, 40)]), (4, [3, 2, 1, 0])), 40, 16)
    walk(trail, range(5, 40))
    given, found, pointers = seen(trail, 3, ascending=False)
    assert given == {1: 4}
    assert found == {back: 3 + back for back in range(2, 16)}
    assert sorted(pointers) == list(range(7, 16))
    walk(trail, range(3, 1, -1))
    assert seen(trail, 1, ascending=False)[1] == {
        back: 1 + back for back in range(1, 16) if back != 3
    }


def test_trail_forgets_what_is_not_recalled():
    trail = MemoryTrail(line([0], (0, [*range(1, 400)])), 400, 16)
    walk(trail, range(1, 40))
    assert sorted(seen(trail, 40)[1]) == list(range(1, 16))
    early = trail.nbytes
    walk(trail, range(40, 400))
    assert trail.nbytes == early


def test_trail_keeps_no_more_annotated_planes_than_are_recalled():
    given = list(range(0, 400, 4))
    trail = MemoryTrail(line(given, *((at, [at + 1, at + 2, at + 3]) for at in given)), 404, 4)
    kept = []
    for at in given:
        for index in (at + 1, at + 2, at + 3):
            walk(trail, range(index, index + 1))
            kept.append(trail.nbytes)
    assert max(kept) <= 4 + 4 + 15
    chosen, found, _ = seen(trail, 201)
    assert chosen == {1: 200, -3: 204, 5: 196, -7: 208}, "the nearest on both sides"
    assert found[9] == 192, "one beyond them is recalled as a plane on which it was found"


def test_attending_planes_are_the_nearest_on_both_sides():
    given = [0, 10, 20, 30, 90]
    assert attending(given, 32, 16) == set(given)
    assert attending(given, 32, 3) == {30, 90, 20}
    assert attending(given, 95, 2) == {90, 30}
    assert attending(given, 5, 2) == {0, 10}


class SeenMask(Known):
    """A mask that is remembered; `Remembering` looks for it again."""

    def __init__(self, plane: int, mask: np.ndarray) -> None:
        super().__init__(plane)
        self.mask = mask

    def pointer_alone(self) -> "SeenMask":
        return self


class Remembering(Thresholding):
    """Answers with the bright patches that touch what it remembers."""

    has_memory = True
    most_given = 16

    def __init__(self, image):
        super().__init__(image)
        self.recalled = []

    def remember(self, mask):
        return SeenMask(self.plane[0], mask)

    def recall(self, memories):
        self.recalled.append((self.plane[0], memories))
        latest = min(memories.found, default=None)
        last = memories.found[latest] if latest else memories.given[min(memories.given, key=abs)]
        seen = self.image[self.plane] > BRIGHT / 2
        mask = seen & last.mask
        y, x = (np.argwhere(mask) if mask.any() else np.zeros((1, 2), int))[0]
        result = self.result(Prompt(points=[(int(y), int(x))], labels=[1]))
        return result, SeenMask(self.plane[0], result.mask)


def test_propagation_by_memory_finds_both_ends():
    image = ball()
    predictor = Remembering(image)
    [track] = Propagator(predictor).propagate([click(7)])
    assert np.array_equal(track.volume(), image > 0)
    assert not [asked for asked in predictor.asked if asked.mask is not None]
    [(_, nine)] = [each for each in predictor.recalled if each[0] == 9]
    assert {back: known.plane for back, known in nine.given.items()} == {2: 7}
    assert {back: known.plane for back, known in nine.found.items()} == {1: 8}
    assert nine.length == 15


def test_between_annotated_planes_both_are_given():
    predictor = Remembering(ball())
    Propagator(predictor).propagate([click(5), click(9)])
    [(_, seven)] = [each for each in predictor.recalled if each[0] == 7]
    assert {back: known.plane for back, known in seven.given.items()} == {2: 5, -2: 9}
    assert {back: known.plane for back, known in seven.found.items()} == {1: 6}


def test_beyond_the_last_annotated_plane_nothing_is_forgotten():
    predictor = Remembering(ball())
    Propagator(predictor).propagate([click(5), click(9)])
    [(_, ten)] = [each for each in predictor.recalled if each[0] == 10]
    assert {back: known.plane for back, known in ten.given.items()} == {5: 5, 1: 9}
    assert {back: known.plane for back, known in ten.found.items()} == {4: 6, 3: 7, 2: 8}


def test_the_same_prompts_recall_nothing_anew():
    predictor = Remembering(ball())
    propagator = Propagator(predictor)
    [first] = propagator.propagate([click(7)])
    count = len(predictor.recalled)
    [again] = propagator.propagate([click(7)])
    assert len(predictor.recalled) == count
    assert np.array_equal(first.volume(), again.volume())


def test_an_annotation_tells_on_all_planes_of_its_object_alone():
    image = np.concatenate([ball(), ball()], axis=2)
    predictor = Remembering(image)
    propagator = Propagator(predictor)
    other = click(7, x=60, number=2)
    propagator.propagate([click(7), other])
    count = len(predictor.recalled)
    propagator.propagate([click(7), click(9), other])
    anew = predictor.recalled[count:]
    assert {plane for plane, _ in anew} == set(range(1, 14)) - {7, 9}
    assert len(anew) == 11, "the other object is not searched again"
    _, below = next(each for each in anew if each[0] == 4)
    assert {back: known.plane for back, known in below.given.items()} == {3: 7, 5: 9}


def test_a_result_depends_on_no_earlier_step():
    """Propagated in one step, or annotated and propagated plane by plane."""
    image = ball()
    image[8, :, 20:] = 0
    at_once, stepwise = Remembering(image), Remembering(image)
    [expected] = Propagator(at_once).propagate([click(5), click(7), click(10)])
    propagator = Propagator(stepwise)
    propagator.propagate([click(7)])
    propagator.propagate([click(7), click(10)])
    [found] = propagator.propagate([click(5), click(7), click(10)])
    assert np.array_equal(found.volume(), expected.volume())


def test_method_decides_how_planes_are_searched():
    predictor = Remembering(ball())
    settings = PropagationSettings(method="mask")
    Propagator(predictor, settings).propagate([click(7)])
    assert not predictor.recalled
    assert any(asked.mask is not None for asked in predictor.asked)
    forgetful = Thresholding(ball())
    forgetful.model = SimpleNamespace(spec=SimpleNamespace(name="tiny"))
    with pytest.raises(ValueError, match="tiny has no memory, so it cannot propagate"):
        Propagator(forgetful, PropagationSettings(method="memory"))


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    return (60 * ball((5, 60, 60), (2, 30, 30)) / BRIGHT + rng.normal(80, 4, (5, 60, 60))).astype(
        np.uint8
    )


def test_predictor_recalls_as_the_network(sam2_pair, stack):
    """Through the plane's own pixels and back, on any precision of its kind."""
    predictor = Predictor(sam2_model(sam2_pair), "cpu", "exact")
    predictor.set_image(stack)
    assert predictor.has_memory
    mask = np.zeros((60, 60), bool)
    mask[15:45, 15:30] = True
    known = predictor.remember(mask)
    ours = sam2_pair.ours
    with torch.inference_mode():
        whole = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None].float(), (SIDE, SIDE), mode="bilinear"
        )
        expected = ours.remember(predictor.encoded, (whole >= 0.5).float())
    torch.testing.assert_close(known.pointer, expected.pointer, rtol=1e-3, atol=1e-3)
    assert torch.equal(known.features, expected.features), "no rim of the resized mask is kept"
    predictor.set_plane(1)
    result, memory = predictor.recall(Memories({1: known}, {}, 5))
    with torch.inference_mode():
        masks, _ = ours.recall(predictor.encoded, Memories({1: known}, {}, 5))
    assert np.allclose(result.logits, masks.logits[0].numpy(), atol=1e-5)
    assert result.mask.shape == (60, 60)
    assert result.count == 1
    fast = Predictor(sam2_model(sam2_pair), "cpu", "fast")
    fast.set_image(stack, plane=1)
    near, _ = fast.recall(Memories({1: known}, {}, 5))
    assert np.abs(near.logits - result.logits).mean() < 0.1 * result.logits.std()
    assert memory.features.dtype == torch.bfloat16


@pytest.mark.slow
def test_propagation_by_memory_can_be_left_and_begun_again(sam2_pair, stack):
    predictor = Predictor(sam2_model(sam2_pair), "cpu", "exact")
    predictor.set_image(stack)
    given = np.zeros((60, 60), bool)
    given[15:45, 15:45] = True
    prompt = Prompt(mask=given, object=1, plane=(2,))
    lenient = PropagationSettings(
        min_score=0.0, min_overlap=0.0, max_change=1e6, min_contrast=0.0, min_evidence=0.0
    )
    [whole] = Propagator(predictor, lenient).propagate([prompt])
    propagator = Propagator(predictor, lenient)
    job = propagator.propagate_job([prompt])
    for _ in range(4):
        next(job)
    job.close()
    [again] = finish(propagator.propagate_job([prompt]))
    assert np.array_equal(again.volume(), whole.volume())
    assert len(whole.sections) > 1
    [by_mask] = Propagator(
        predictor, PropagationSettings(**{**vars(lenient), "method": "mask"})
    ).propagate([prompt])
    assert not np.array_equal(by_mask.volume(), whole.volume())


def test_reach_is_that_of_the_network():
    assert (REACH, FEATURES_REACH) == (POINTERS_BACK, FEATURES_BACK)
