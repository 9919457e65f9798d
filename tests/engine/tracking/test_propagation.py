"""Objects through stacks; a stand-in that answers by brightness makes every number countable."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage as ndi

from napari_simmat import Predictor, Prompt, load_model
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.masks import ObjectMask, iou
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.interval_propagator import IntervalPropagator
from napari_simmat.engine.tracking.propagation import Propagator, propagate_prompts_job
from napari_simmat.engine.tracking.propagation_tracks import IntervalEnd, Section, SliceInterval
from napari_simmat.models.network import DecodedMasks
from napari_simmat.progress import Progress, finish

BRIGHT = 100.0


class Thresholding:
    """Answers with the bright patch on which the first positive point or the mask lies."""

    has_memory = False

    def __init__(self, image: np.ndarray, score: float = 0.9) -> None:
        self.image, self.score = image, score
        self.shape = image.shape
        self.model = SimpleNamespace(fingerprint="none")
        self.stack = SimpleNamespace(normalized=lambda plane: self.image[plane][None])
        self.plane: tuple[int, ...] | None = None
        self.visited: list[tuple[int, ...]] = []
        self.asked: list[Prompt] = []

    def set_plane_job(self, plane: Any) -> Any:
        yield Progress(0, 1, "encoding")
        if plane != self.plane:
            self.visited.append(tuple(plane))
        self.plane = tuple(plane)

    def predict_many_job(self, prompts: Any) -> Any:
        yield Progress(0, len(prompts))
        self.asked += prompts
        return [self.result(prompt) for prompt in prompts]

    def result(self, prompt: Prompt) -> Any:
        patches, _ = ndi.label(self.image[self.plane] > BRIGHT / 2)
        y, x = (round(v) for v in prompt.points[0]) if prompt.points else (0, 0)
        mask = (patches == patches[y, x]) & (patches > 0)
        for (_, x), label in zip(prompt.points, prompt.labels, strict=True):
            if not label:  # a negative click takes away its column
                mask[:, round(x) :] = False
        logits = torch.from_numpy(np.where(mask, 1.0, -1.0).astype(np.float32))
        frame = InputTransform(mask.shape, mask.shape, mask.shape, half_pixel=True)
        decoded = DecodedMasks(logits[None].repeat(4, 1, 1), torch.full((4,), self.score))
        return Result(decoded, frame, 1)


def ball(shape: tuple[int, int, int] = (15, 40, 40), center: Any = (7, 20, 20)) -> np.ndarray:
    """A bright ball of radius 6 planes, 12 pixels; planes 2 to 12."""
    z, y, x = np.indices(shape)
    far = ((z - center[0]) / 6) ** 2 + ((y - center[1]) / 12) ** 2 + ((x - center[2]) / 12) ** 2
    return np.where(far < 1, BRIGHT, 0.0)


def click(z: int, y: float = 20, x: float = 20, label: int = 1, number: int = 1) -> Prompt:
    return Prompt(points=[(y, x)], labels=[label], object=number, plane=(z,))


def test_propagate_one_click_finds_both_ends():
    image = ball()
    predictor = Thresholding(image)
    [track] = Propagator(predictor).propagate([click(7)])
    assert np.array_equal(track.volume(), image > 0)
    assert sorted(track.sections) == [(z,) for z in range(2, 13)]
    assert track.sections[(7,)].origin == "annotated"
    assert track.sections[(8,)].origin == "propagated"
    assert [plane for plane, _, _ in track.masks()] == sorted(track.sections)
    visited = [z for (z,) in predictor.visited]
    assert sorted(visited) == list(range(1, 14)), "the ends are met on the first plane without it"


def test_propagate_several_objects_together():
    two = ball((15, 40, 90), (6, 14, 14)) + ball((15, 40, 90), (8, 26, 70))
    predictor = Thresholding(two)
    tracks = Propagator(predictor).propagate([click(7, 14, 14, 1, 5), click(7, 26, 70, 1, 3)])
    assert [track.object for track in tracks] == [5, 3]
    assert np.array_equal(tracks[0].volume() | tracks[1].volume(), two > 0)
    assert len(predictor.visited) == len(set(predictor.visited))


def test_propagate_more_objects_than_are_cached(monkeypatch):
    image = np.concatenate([ball(), ball(center=(4, 20, 20))], axis=2)
    monkeypatch.setattr("napari_simmat.engine.tracking.propagation.MAX_REMEMBERED", 2)
    predictor = Thresholding(image)
    propagator = Propagator(predictor)
    clicks = [click(7), click(4, x=60, number=2)]
    for _ in range(2):
        first, second = propagator.propagate(clicks)
        assert np.array_equal(first.volume()[..., :40], image[..., :40] > 0)
        assert np.array_equal(second.volume()[..., 40:], image[..., 40:] > 0)


@pytest.mark.parametrize(
    ("clicks", "planes", "found"),
    [
        ([click(7)], (5, 8), range(5, 9)),
        ([click(7), click(10, label=0), click(3, label=0)], None, range(4, 10)),
        ([click(4), click(7, label=0), click(9)], None, (2, 3, 4, 5, 6, 8, 9, 10, 11, 12)),
    ],
    ids=["range", "negative points", "gap"],
)
def test_propagate_ends_at_its_range_and_negative_points(clicks, planes, found):
    predictor = Thresholding(ball())
    [track] = Propagator(predictor).propagate(clicks, planes=planes)
    assert sorted(track.sections) == [(z,) for z in found]
    negative = {each.plane for each in clicks if not any(each.labels)}
    assert negative.isdisjoint(predictor.visited)


def test_propagate_of_negative_points_alone_is_refused():
    with pytest.raises(ValueError, match="Object 1 has negative points alone"):
        Propagator(Thresholding(ball())).propagate([click(7, label=0)])


def test_propagate_between_annotations_interpolates_gaps():
    image = ball()
    image[6:9] = 0
    [track] = Propagator(Thresholding(image)).propagate([click(5), click(9)])
    assert [track.sections[(z,)].origin for z in (6, 7, 8)] == ["interpolated"] * 3
    assert iou(track.mask(7), ball()[5] > 0) > 0.95
    assert np.isnan(track.sections[(7,)].score)
    assert track.sections[(10,)].origin == "propagated"


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [(False, False, 0), (True, False, 1), (False, True, 1), (False, None, 0), (True, None, 1)],
)
def test_candidate_next_to_a_chosen_mask_is_the_one_like_it(before, after, number):
    disk, whole = ball()[7] > 0, np.ones((40, 40), bool)

    def end(index: int, chosen: bool | None) -> IntervalEnd | None:
        section = Section(ObjectMask.of(disk), 0.9, "annotated", chosen=bool(chosen))
        return None if chosen is None else IntervalEnd(index, section)

    start = end(2, before)
    assert start is not None
    interval = SliceInterval(0, (), (3, 4, 5), start, end(6, after))
    propagator = IntervalPropagator(interval, PropagationSettings(), (40, 40), 1.0, (1.0, 1.0))
    frame = InputTransform((40, 40), (40, 40), (40, 40), half_pixel=True)
    logits = torch.from_numpy(np.where([whole, disk, whole, whole], 1.0, -1.0).astype(np.float32))
    seen = Result(DecodedMasks(logits, torch.full((4,), 0.9)), frame, 1)
    mask = propagator.candidate(3, seen).mask
    assert np.array_equal(mask, [whole, disk][number])


def test_propagate_between_unlike_annotations_interpolates():
    image = ball()
    image[6] = 0  # not seen there
    propagator = Propagator(Thresholding(image), PropagationSettings(min_likeness=0))
    [track] = propagator.propagate([click(4), click(8)])
    assert track.sections[6,].origin == "interpolated"
    assert iou(track.mask(6), ball()[6] > 0) > 0.8


def test_propagate_after_a_correction_predicts_what_depends():
    predictor = Thresholding(ball((31, 40, 40), (15, 20, 20)))
    propagator = Propagator(predictor)
    prompts = [click(12), click(15), click(18)]
    [before] = propagator.propagate(prompts)
    predictor.visited.clear()
    predictor.plane = None
    correction = before.correction(20, [(20.0, 22.0)], [0])
    assert correction.mask is not None
    assert correction.object == 1
    [after] = propagator.propagate([*prompts, correction])
    assert {z for (z,) in predictor.visited} == {19, 20, 21}, "beside it, up to 18 and the end"
    for z in range(10, 19):
        assert after.sections[(z,)] is before.sections[(z,)]
    assert not after.mask(20)[:, 22:].any()
    predictor.visited.clear()
    again = propagator.propagate([*prompts, correction])
    assert np.array_equal(again[0].volume(), after.volume())
    assert not predictor.visited


def test_correction_replaces_the_prompts_of_its_plane():
    propagator = Propagator(Thresholding(ball()))
    [before] = propagator.propagate([click(7)])
    correction = before.correction(7, [(20.0, 26.0)], [0])
    [after] = propagator.propagate([click(7), correction], planes=(7, 7))
    assert before.mask(7)[:, 26:].any()
    assert not after.mask(7)[:, 26:].any()


def test_correction_off_the_object_is_a_prompt_of_its_own():
    [track] = Propagator(Thresholding(ball())).propagate([click(7)], planes=(5, 8))
    assert track.correction(11, [(20, 20)]).mask is None


@pytest.mark.parametrize(
    ("image", "why"),
    [(lambda z: 0.0, "the object is gone"), (lambda z: 30.0, "too faint to answer")],
)
def test_propagate_ends_where_the_next_plane_has_none(image, why):
    stack = ball()
    stack[9:][stack[9:] > 0] = image(9)
    [track] = Propagator(Thresholding(stack)).propagate([click(7)])
    assert max(track.sections) == (8,), why


def test_propagate_ends_at_a_low_score_jump_or_leak():
    ends = Thresholding(ball(), score=0.2)
    assert len(Propagator(ends).propagate([click(7)])[0].sections) == 1

    jumping = ball()
    jumping[9:] = np.roll(jumping[9:], 14, axis=2)
    [track] = Propagator(Thresholding(jumping)).propagate([click(7)])
    assert max(track.sections) == (8,)

    leaking = ball()
    leaking[10:, :, :] = BRIGHT
    [track] = Propagator(Thresholding(leaking)).propagate([click(7)])
    assert max(track.sections) == (9,)
    generous = PropagationSettings(max_change=100, min_overlap=0, slope=100)
    [track] = Propagator(Thresholding(leaking), generous).propagate([click(7)])
    assert max(track.sections) == (14,)


def test_propagate_ends_where_an_object_fades():
    """The stand-in goes on down to half of the brightness, as a network does further."""
    stack = ball((20, 40, 40), (7, 20, 20)) * 5
    for step in range(1, 8):
        stack[7 + step] = stack[7] * (1 - 0.11 * step)
    [track] = Propagator(Thresholding(stack)).propagate([click(7)])
    assert max(track.sections) == (13,), "six planes further 34 % are left, then 23 %"
    unaware = PropagationSettings(min_contrast=0)
    [track] = Propagator(Thresholding(stack), unaware).propagate([click(7)])
    assert max(track.sections) == (14,)


def test_propagate_reaches_by_the_spacing():
    """A cone that widens by 4 pixels each plane: possible between planes that lie far apart."""
    z, y, x = np.indices((9, 80, 80))
    radius = np.hypot(y - 40, x - 40)
    cone = np.where(radius < 6 + 4 * z, BRIGHT, 0.0)
    near = Propagator(Thresholding(cone), PropagationSettings(reach=0), spacing=(1, 1, 1))
    far = Propagator(Thresholding(cone), PropagationSettings(reach=0), spacing=(4.5, 1, 1))
    assert np.array_equal(far.propagate([click(3, 40, 40)])[0].volume(), cone > 0)
    assert max(near.propagate([click(3, 40, 40)])[0].sections) < (8,)


def test_propagate_through_time_ignores_the_time_step():
    image = np.zeros((2, 1, 40, 80))  # T, Z, Y, X
    y, x = np.indices((40, 80))
    image[:, 0] = np.where(np.hypot(y - 20, x - 20) < 10, BRIGHT, 0)
    image[1, 0, 18:22, 20:] = BRIGHT  # something else touches it
    scale = {"T": 300.0, "Z": 2.0, "Y": 0.5, "X": 0.5}  # seconds, micrometers
    prompt = Prompt(points=[(20, 20)], plane=(0, 0))
    job = propagate_prompts_job(
        Thresholding(image), [prompt], [1], PropagationSettings(), "TZYX", scale
    )
    labels = finish(job).labels
    assert labels[1, 0, 20, 20] == 1
    assert not labels[1, 0, :, 40:].any()


def test_propagate_through_planes_and_then_time():
    moving = np.stack([np.roll(ball(), 2 * t, axis=2) for t in range(4)])  # T, Z, Y, X
    predictor = Thresholding(moving)
    prompt = Prompt(points=[(20, 22)], object=1, plane=(1, 7))
    [there] = Propagator(predictor).propagate([prompt])
    assert {t for t, _ in there.sections} == {1}
    [track] = Propagator(predictor).propagate([prompt], along=(1, 0))
    assert np.array_equal(track.volume(), moving > 0)
    [alone] = Propagator(predictor).propagate([prompt], along=0)
    assert sorted(alone.sections) == [(t, 7) for t in range(4)]


def test_propagate_keeps_a_painted_mask():
    painted = np.zeros((40, 40), bool)
    painted[12:28, 12:28] = True
    [track] = Propagator(Thresholding(ball())).propagate(
        [Prompt(mask=painted, object=4, plane=(7,))], planes=(7, 7)
    )
    assert np.array_equal(track.mask(7), painted)


def test_propagate_prompts_without_id_are_own_objects():
    prompts = [Prompt(points=[(20, 20)], plane=(z,)) for z in (6, 8)]
    tracks = Propagator(Thresholding(ball())).propagate(prompts)
    assert len(tracks) == 2
    assert np.array_equal(tracks[0].volume(), tracks[1].volume())


def test_propagate_without_a_mask_gives_an_empty_track():
    [track] = Propagator(Thresholding(ball())).propagate([click(0, 1, 1)])
    assert not track.sections
    assert not track.volume().any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": [Prompt(points=[(1, 1)])]}, "a plane is 1 number"),
        ({"prompts": [click(15)]}, "there are 15"),
        ({"prompts": [click(7, 50, 50)]}, "lies outside"),
        ({"along": 1}, "along axes 0 to 0"),
        ({"along": (0, 0)}, "each at most once"),
        ({"planes": (3, 15)}, "within 0 to 14"),
        ({"planes": (5, 3)}, "within 0 to 14"),
    ],
)
def test_propagate_refuses_wrong_prompts_and_axes(change, said):
    values = {"prompts": [click(7)], **change}
    with pytest.raises(ValueError, match=said):
        Propagator(Thresholding(ball())).propagate(**values)


def test_propagate_refuses_a_single_plane_and_wrong_spacing():
    flat = Thresholding(ball()[7])
    with pytest.raises(ValueError, match="a single plane"):
        Propagator(flat).propagate([Prompt(points=[(20, 20)])])
    with pytest.raises(ValueError, match="one positive number for each of the image's 3 axes"):
        Propagator(Thresholding(ball()), spacing=(1, 1))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"min_score": 2}, "min_score must be between 0 and 1"),
        ({"max_change": 1}, "max_change must be above 1"),
        ({"slope": -1}, "slope must be"),
    ],
)
def test_propagation_settings_out_of_range_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        PropagationSettings(**values)


def test_propagate_job_closed_stops():
    predictor = Thresholding(ball())
    job = Propagator(predictor).propagate_job([click(7)])
    seen = [next(job) for _ in range(6)]
    job.close()
    assert all(0 <= each.done <= each.total for each in seen)
    assert len(predictor.visited) < 6


def test_propagate_between_annotations_corrects_the_bias():
    predictor = Thresholding(ball((15, 60, 60), (7, 30, 30)))
    truth = predictor.image > 0
    wide = np.stack([ndi.binary_dilation(plane, iterations=3) for plane in truth])
    predictor.image = np.where(wide, BRIGHT, 0.0)  # it sees all outlines three pixels too far out
    drawn = [Prompt(mask=truth[z], object=1, plane=(z,)) for z in (4, 10)]
    [track] = Propagator(predictor).propagate(drawn, planes=(4, 10))
    for z in (5, 6, 7, 8, 9):
        seen = np.count_nonzero(wide[z] ^ truth[z])
        assert np.count_nonzero(track.mask(z) ^ truth[z]) < 0.35 * seen
    assert np.array_equal(track.mask(4), truth[4])


def texture(first: int, last: int, planes: int) -> np.ndarray:
    """A striped disc, no brighter than its surroundings, on some planes of noise (Z, Y, X)."""
    rng = np.random.default_rng(0)
    y, x = np.indices((112, 112))
    stripes = 100 + 30 * np.sign(np.sin(x / 1.6))
    stack = []
    for z in range(planes):
        noise = 100 + 60 * ndi.gaussian_filter(rng.normal(size=x.shape), 2)
        disc = (np.hypot(y - 56, x - 56) < 20) & (first <= z <= last)
        stack.append(ndi.gaussian_filter(np.where(disc, stripes, noise), 0.7))
    return np.clip(stack, 0, 255).astype(np.uint8)


def test_propagate_ends_where_the_outline_has_no_edge():
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(texture(2, 5, 8), plane=3)
    prompts = [Prompt(points=[(56, 56)], object=1, plane=(3,))]
    unaware = PropagationSettings(min_evidence=0)
    [before] = Propagator(predictor, unaware).propagate(prompts)
    assert {(1,), (6,)} & set(before.sections), "the network goes on into noise"
    [track] = Propagator(predictor).propagate(prompts)
    assert set(track.sections) == {(2,), (3,), (4,), (5,)}
    assert all(section.evidence > 0.8 for section in track.sections.values())
    beyond = set(before.sections) - set(track.sections)
    assert beyond <= set(before.doubtful), "seen as such, if it is not ended"
