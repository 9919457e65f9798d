"""Objects carried by memory: which planes are recalled, and propagation with SAM 2's network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_simmat import Predictor, Prompt
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.object_memory import MemoryTrail
from napari_simmat.engine.propagation import Propagator
from napari_simmat.engine.propagation_tracks import IntervalEnd, Section, SliceInterval
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.models.sam2_memory import Memories
from napari_simmat.progress import finish
from tests.engine.test_propagation import BRIGHT, Thresholding, ball, click
from tests.sam2_models import SIDE, sam2_model


def end(index: int) -> IntervalEnd:
    square = np.zeros((8, 8), bool)
    square[2:5, 2:5] = True
    return IntervalEnd(index, Section(ObjectMask.of(square), 0.9, "annotated"))


def seen(trail: MemoryTrail, index: int):
    known = trail.seen_from(index)
    return known.given, known.found, known.length


def test_trail_counts_planes_in_the_direction_of_the_search():
    up = MemoryTrail(SliceInterval(0, (), (5, 6, 7), end(4)), {4: "start"}, 10)
    assert seen(up, 5) == ({1: "start"}, {}, 10)
    up.add(5, "five")
    up.add(6, "six")
    assert seen(up, 7) == ({3: "start"}, {2: "five", 1: "six"}, 10)
    down = SliceInterval(0, (), (6, 5), end(7), end(4))
    trail = MemoryTrail(down, {7: "start", 4: "end"}, 10)
    trail.add(6, "six")
    assert seen(trail, 5) == ({2: "start", -1: "end"}, {1: "six"}, 10)


def test_trail_forgets_what_is_not_recalled():
    trail = MemoryTrail(SliceInterval(0, (), tuple(range(1, 40)), end(0)), {0: "start"}, 40)
    for index in range(1, 40):
        trail.add(index, index)
    assert sorted(trail.seen_from(40).found) == list(range(1, 16))


class Remembering(Thresholding):
    """Answers with the bright patches that touch what it remembers."""

    has_memory = True

    def __init__(self, image):
        super().__init__(image)
        self.recalled = []

    def remember(self, mask):
        return (self.plane[0], mask)

    def recall(self, memories):
        self.recalled.append((self.plane[0], memories))
        latest = min(memories.found, default=None)
        last = memories.found[latest] if latest else memories.given[min(memories.given, key=abs)]
        seen = self.image[self.plane] > BRIGHT / 2
        mask = seen & last[1]
        y, x = (np.argwhere(mask) if mask.any() else np.zeros((1, 2), int))[0]
        result = self.result(Prompt(points=[(int(y), int(x))], labels=[1]))
        return result, (self.plane[0], result.mask)


def test_propagation_by_memory_finds_both_ends():
    image = ball()
    predictor = Remembering(image)
    [track] = Propagator(predictor).propagate([click(7)])
    assert np.array_equal(track.volume(), image > 0)
    assert not [asked for asked in predictor.asked if asked.mask is not None]
    [(_, nine)] = [each for each in predictor.recalled if each[0] == 9]
    assert {back: known[0] for back, known in nine.given.items()} == {2: 7}
    assert {back: known[0] for back, known in nine.found.items()} == {1: 8}
    assert nine.length == 15


def test_between_annotated_planes_both_are_given():
    predictor = Remembering(ball())
    Propagator(predictor).propagate([click(5), click(9)])
    [(_, seven)] = [each for each in predictor.recalled if each[0] == 7]
    assert {back: known[0] for back, known in seven.given.items()} == {2: 9, -2: 5}


def test_the_same_prompts_recall_nothing_anew():
    predictor = Remembering(ball())
    propagator = Propagator(predictor)
    [first] = propagator.propagate([click(7)])
    count = len(predictor.recalled)
    [again] = propagator.propagate([click(7)])
    assert len(predictor.recalled) == count
    assert np.array_equal(first.volume(), again.volume())
    propagator.propagate([click(7), click(9)])
    below = [plane for plane, _ in predictor.recalled[count:] if plane < 7]
    assert not below, "planes that depend on no changed prompt are not searched again"


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
        expected = ours.remember(predictor.encoded, whole)
    torch.testing.assert_close(known.pointer, expected.pointer, rtol=1e-3, atol=1e-3)
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
