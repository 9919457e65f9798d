"""Segmenting everything: what is asked, what comes out, again and with other thresholds."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import calculate_stability_score
from skimage.data import coins

from napari_simmat import AutomaticSettings, Predictor, Prompt, load_model, segment_everything
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.everything import generator
from napari_simmat.engine.everything.candidates import (
    PixelBox,
    accepted_candidates,
    masks_to_instances,
)
from napari_simmat.engine.everything.generator import segment_everything_job
from napari_simmat.engine.everything.kind_learning import weigh_masks_job
from napari_simmat.engine.everything.mask_proposals import (
    ENCODING_WORK,
    propose_masks_job,
)
from napari_simmat.engine.everything.seeds import MOST_SEEDS_PER_SIDE, prompts_at, seed_prompts
from napari_simmat.engine.everything.tiles import box_around, segment_tiles_job
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import KIND_THRESHOLDS, LOOKS_THRESHOLDS
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.network import ClickEstimates, DecodedMasks
from napari_simmat.models.spec import Base, InputSize
from napari_simmat.progress import finish
from tests.sam2_models import sam2_model
from tests.scripted_predictor import all_match
from tests.widgets.scenes import gray


class Oracle:
    """Stands for a predictor: answers a click with the object of a label image that is there.

    The background is one object, too. Qualities are 0.9 for even ids, 0.55 for odd ones.
    """

    device = torch.device("cpu")

    def __init__(self, truth: np.ndarray) -> None:
        self.truth, self.shape = truth, truth.shape
        base = Base(name="tiny", architecture="tiny_deep", sha256="0" * 64)
        self.model = SimpleNamespace(
            spec=SimpleNamespace(
                mask_choice="single",
                base=base,
                kind=None,
                expects_kind=False,
                finds_instances=False,
            ),
            network=SimpleNamespace(expected_size=None),
        )
        self.crop = (slice(None), slice(None))
        self.cuts: list[tuple[slice, slice]] = []
        self.asked = 0

    def keeping_plane(self):
        return nullcontext()

    def encode_tile_job(self, _plane, rows, columns, **_options):
        self.crop = (rows, columns)
        self.cuts.append(self.crop)
        yield from ()

    def estimate_clicks(self, _prompts):
        return None

    def predict_low_res(self, prompts, _least, _size=None):
        part = self.truth[self.crop]
        frame = InputTransform.of(
            part.shape, InputSize(method="native", size=4096, minimum=1, multiple=1)
        )
        results = []
        for prompt in prompts:
            (y, x) = prompt.points[0]
            label = part[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]
            logits = torch.where(torch.from_numpy(part == label), 5.0, -5.0)[None]
            quality = torch.full((4,), 0.55 if label % 2 else 0.9)
            results.append(Result(DecodedMasks(logits.expand(4, -1, -1), quality), frame, 1))
            self.asked += 1
        return results


class Seer(Oracle):
    """An oracle that says beforehand whether and how large an object is at a click."""

    def estimate_clicks(self, prompts):
        at = np.array([prompt.points[0] for prompt in prompts])
        y, x = np.floor(at + 0.5).astype(int).T
        labels = self.truth[self.crop][y, x]
        areas = np.bincount(self.truth.ravel())
        foreground = torch.from_numpy(np.where(labels > 0, 3.0, -6.0))
        return ClickEstimates(foreground, torch.from_numpy(np.sqrt(areas[labels])))


@pytest.fixture
def truth():
    """(60, 80) with four discs: 1 .. 3 within, 4 cut by the border."""
    y, x = np.mgrid[:60, :80]
    labels = np.zeros((60, 80), int)
    for label, (cy, cx, r) in enumerate([(15, 15, 8), (15, 50, 8), (42, 30, 9), (45, 76, 10)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= r**2] = label
    return labels


def test_propose_masks_alternatives_count_less(truth):
    candidates = finish(propose_masks_job(Oracle(truth), AutomaticSettings(points_per_side=8)))
    of_a_seed: dict[int, list[float]] = {}
    for one in candidates.known:
        of_a_seed.setdefault(one.seed, []).append(one.quality)
    for result, *alternatives in of_a_seed.values():
        assert alternatives == pytest.approx([0.85 * result] * 3)


def test_segment_everything_finds_each_object_and_no_background(truth):
    instances = segment_everything(Oracle(truth), AutomaticSettings(quality=0.5))
    np.testing.assert_array_equal(instances.labels > 0, truth > 0)
    assert all_match(instances.labels, truth, 0.99)
    assert sorted(instances.scores.tolist()) == pytest.approx([0.55, 0.55, 0.9, 0.9])


def test_objects_of_another_size_than_the_learned_one_count_less(truth):
    """A model that has learned how large its objects are leaves out what is far larger."""
    labels = truth.copy()
    labels[:, :4] = 6  # a strip of 240 pixels; the discs have about as many
    labels[56:, 4:14] = 8  # and a crumb of 40
    oracle, settings = Oracle(labels), AutomaticSettings(quality=0.85, points_per_side=40)
    oracle.stack = SimpleNamespace(pixel_size=None)
    oracle.model.spec.input_size = InputSize(method="native", size=4096, minimum=1, multiple=1)
    assert set(np.unique(labels[segment_everything(oracle, settings).labels > 0])) == {2, 4, 6, 8}
    oracle.model.network.expected_size = ExpectedSize.of([200.0, 240.0])
    assert set(np.unique(labels[segment_everything(oracle, settings).labels > 0])) == {2, 4, 6}


def test_grid_is_as_close_as_the_learned_objects_need(truth):
    oracle, plane = Oracle(truth), PixelBox(0, 0, 320, 320)
    oracle.stack = SimpleNamespace(pixel_size=None)
    oracle.model.spec.input_size = InputSize(method="native", size=4096, minimum=1, multiple=1)
    for area, side in ((100.0, 64), (4.0, MOST_SEEDS_PER_SIDE), (1e5, 20)):
        kind = ObjectKind(ExpectedSize.of([area]))
        seeds = seed_prompts(oracle, AutomaticSettings(), (), plane, kind)
        assert len(seeds) == side**2
    given = AutomaticSettings(points_per_side=7)
    assert len(seed_prompts(oracle, given, (), plane, kind)) == 49


def test_side_of_an_object_tells_its_size(truth):
    labels = truth.copy()
    labels[:, :4], labels[56:, 4:14] = 6, 8
    oracle = Oracle(labels)
    oracle.stack = SimpleNamespace(pixel_size=None)
    oracle.model.spec.input_size = InputSize(method="native", size=4096, minimum=1, multiple=1)
    settings = AutomaticSettings(quality=0.85, points_per_side=40, object_side=220**0.5)
    assert set(np.unique(labels[segment_everything(oracle, settings).labels > 0])) == {2, 4, 6}
    assert settings.for_model(oracle.model.spec).stability == KIND_THRESHOLDS[1]


def small_discs():
    """(120, 160) with 35 discs of radius 5, every 20 pixels; few lie on a coarse grid's seeds."""
    y, x = np.mgrid[:120, :160]
    labels = np.zeros((120, 160), int)
    for number, (row, column) in enumerate(np.ndindex(5, 7), 1):
        labels[np.hypot(y - 17 - 21 * row, x - 17 - 21 * column) <= 5] = 2 * number
    return labels


def looks(settings, labels, **named):
    oracle = Oracle(labels)
    oracle.stack = SimpleNamespace(pixel_size=None)
    oracle.model.spec.input_size = InputSize(method="native", size=4096, minimum=1, multiple=1)
    found = segment_everything(oracle, settings, **named).labels
    return len(np.unique(labels[found > 0])), oracle


@pytest.mark.slow
def test_second_look_finds_small_objects_between_the_seeds():
    labels, once = small_discs(), AutomaticSettings()
    (first, _), (second, _) = (
        looks(each, labels) for each in (once, replace(once, second_look=True))
    )
    assert first == 20
    assert second == 35


def test_second_look_is_left_out_where_it_takes_minutes(monkeypatch):
    again = AutomaticSettings(second_look=True)
    _, oracle = looks(again, small_discs())
    assert len(oracle.cuts) == 2
    seeds = oracle.asked - looks(AutomaticSettings(), small_discs())[1].asked
    monkeypatch.setattr(generator, "MOST_SEEDS", seeds - 1)
    assert len(looks(again, small_discs())[1].cuts) == 1


@pytest.mark.slow
def test_second_look_needs_objects_a_grid_and_no_known_size():
    labels = small_discs()
    again = AutomaticSettings(second_look=True)
    few = np.where(labels == 2, 2, 0)
    _, oracle = looks(again, few)
    assert len(oracle.cuts) == 1, "one object teaches no size"
    kind = ObjectKind(ExpectedSize.of([80.0]))
    assert [len(looks(again, labels, **more)[1].cuts) for more in ({}, {"kind": kind})] == [2, 1]
    prompts = prompts_at([(17, 17), (17, 38), (38, 17), (38, 38)])
    assert len(looks(again, labels, prompts=prompts)[1].cuts) == 1


def test_looks_that_are_known_have_lower_thresholds(truth):
    kind = ObjectKind(ExpectedSize.of([200.0]))
    spec = Oracle(truth).model.spec
    assert AutomaticSettings().for_model(spec, kind).thresholds == KIND_THRESHOLDS
    taught = replace(kind, looks=object())
    assert AutomaticSettings().for_model(spec, taught).thresholds == LOOKS_THRESHOLDS


def test_kind_of_objects_leaves_out_others_of_their_size(truth):
    """Two of the discs are bright, as the taught ones; the others are as dark as the ground."""
    oracle = Oracle(truth)
    oracle.stack = SimpleNamespace(pixel_size=None)
    oracle.model.spec.input_size = InputSize(method="native", size=4096, minimum=1, multiple=1)
    image = np.isin(truth, (1, 2)).astype(np.float32)[np.newaxis]
    lesson, ground = np.zeros((60, 80), np.int32), np.zeros((60, 80), bool)
    y, x = np.mgrid[:60, :80]
    for label, (row, column) in enumerate([(15, 15), (15, 50), (42, 30)], 1):
        lesson[(y - row) ** 2 + (x - column) ** 2 <= 8**2] = label
    ground[:, 70:] = True
    bright = (lesson > 0).astype(np.float32)[np.newaxis]
    kind = ObjectKind.of(lesson, 1.0, bright, ground)
    settings = AutomaticSettings(points_per_side=40, quality=0.5)
    by_size = finish(propose_masks_job(oracle, settings, kind=kind))
    labels = masks_to_instances(by_size, settings).labels
    assert set(np.unique(truth[labels > 0])) == {1, 2, 3, 4}
    found = finish(weigh_masks_job(by_size, kind, oracle, image=image))
    labels = masks_to_instances(found, settings).labels
    assert set(np.unique(truth[labels > 0])) == {1, 2}


def test_grid_seeds_without_foreground_are_left_out(truth):
    settings = AutomaticSettings(quality=0.5, points_per_side=16)
    oracle, seer = Oracle(truth), Seer(truth)
    every, fewer = (segment_everything(each, settings) for each in (oracle, seer))
    np.testing.assert_array_equal(fewer.labels, every.labels)
    assert 0 < seer.asked < oracle.asked / 3


def test_grid_object_on_a_single_seed_is_found_anywhere():
    y, x = np.mgrid[:60, :80]
    dots = np.zeros((60, 80), int)
    for number, (row, column) in enumerate(np.ndindex(6, 8), 1):  # one seed each, every 10 pixels
        dots[np.hypot(y - 10 * row - 4.5, x - 10 * column - 4.5) < 3] = 2 * number
    found = segment_everything(Seer(dots), AutomaticSettings(points_per_side=8))
    assert len(found) == 48


def test_grid_large_object_is_prompted_beside_what_found_it(truth):
    settings = AutomaticSettings(points_per_side=16)
    large = np.kron(truth, np.ones((3, 3), int))
    seer = Seer(np.where(large % 2 == 1, large, 0))  # of too low a quality to count as found
    assert len(segment_everything(seer, settings)) == 0
    on_them = np.count_nonzero(seer.truth[7::15, 7::15])
    assert seer.asked == pytest.approx(on_them / 2, abs=2)


def test_grid_seeds_on_an_object_with_many_votes_are_left_out():
    y, x = np.mgrid[:160, :160]
    disc = np.where(np.hypot(y - 80, x - 80) < 60, 2, 0)
    seer, settings = Seer(disc), AutomaticSettings(points_per_side=16, agreement=1)
    candidates = finish(propose_masks_job(seer, settings))
    on_it = np.count_nonzero(disc[5::10, 5::10])
    assert seer.asked < 0.6 * on_it
    assert {one.seeds_inside for one in candidates.known} == {seer.asked}
    assert len(masks_to_instances(candidates, settings)) == 1


def test_propose_masks_progress_counts_encoding_and_rises(truth):
    seer = Seer(np.kron(truth, np.ones((2, 2), int)))
    settings = AutomaticSettings(quality=0.5, points_per_side=12, crop_layers=1)
    steps = list(segment_everything_job(seer, settings))
    shares = [step.done / step.total for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({step.total for step in steps}) == 1
    assert steps[0].done > ENCODING_WORK[True]  # encoding came first, and counts


def test_segment_everything_with_prompts_uses_them_alone(truth):
    oracle = Oracle(truth)
    found = segment_everything(
        oracle, AutomaticSettings(), prompts=prompts_at([(15, 15), (15, 50)])
    )
    assert oracle.asked == 2
    assert len(found) == 1  # the other is not good enough
    assert found.labels[15, 50] == 1


def test_propose_masks_refuses_a_seed_outside_the_image(truth):
    with pytest.raises(ValueError, match="The point y 15, x 90 lies outside the image of 60 x 80"):
        segment_everything(Oracle(truth), prompts=prompts_at([(15, 50), (15, 90)]))


def test_segment_everything_takes_a_mask_prompt():
    predictor = Predictor(load_model("tiny"), "cpu")
    y, x = np.mgrid[:64, :64]
    disc = np.hypot(y - 30, x - 34) < 12
    predictor.set_image(np.where(disc, 200, 30).astype(np.uint8))
    found = segment_everything(predictor, prompts=[Prompt(mask=disc), *prompts_at([(30, 34)])])
    assert len(found) == 1
    assert np.count_nonzero((found.labels == 1) & disc) > 0.9 * np.count_nonzero(disc)


@pytest.mark.slow
def test_crop_layers_find_objects_again_and_keep_none_they_cut(truth):
    oracle = Oracle(np.kron(truth, np.ones((4, 4), int)))
    settings = AutomaticSettings(quality=0.5, crop_layers=1)
    instances = segment_everything(oracle, settings)
    assert len(oracle.cuts) == 5
    assert all_match(instances.labels, oracle.truth, 0.99)


def test_masks_to_instances_with_another_threshold_equals_a_run(truth):
    strict = AutomaticSettings(quality=0.7)
    loose = replace(strict, quality=0.5, min_area=150, keep_border=False)
    candidates = finish(propose_masks_job(Oracle(truth), strict))
    again, fresh = masks_to_instances(candidates, loose), segment_everything(Oracle(truth), loose)
    np.testing.assert_array_equal(again.labels, fresh.labels)
    np.testing.assert_array_equal(again.scores, fresh.scores)
    assert (len(again), len(masks_to_instances(candidates, strict))) == (3, 2)


def test_propose_masks_keeps_filtered_masks_only_if_wanted(truth):
    settings = AutomaticSettings(quality=0.7, min_area=150, keep_border=False)
    every = finish(propose_masks_job(Oracle(truth), settings))
    few = finish(propose_masks_job(Oracle(truth), settings, keep_all=False))
    wanted = accepted_candidates(every, settings)
    assert 0 < len(wanted) < len(every)
    assert few.known == [every.known[number] for number in wanted]
    for number, kept in enumerate(wanted):
        np.testing.assert_array_equal(few.mask(number), every.mask(kept))


@pytest.mark.slow
def test_segment_tiles_finds_what_the_whole_plane_finds(truth):
    large = np.tile(truth[:, :66], (5, 5))
    ids = np.kron(np.arange(25).reshape(5, 5), np.ones(truth[:, :66].shape, int)) * 4
    large = np.where(large > 0, large + ids, 0)[10:]  # (290, 330), the first row cut
    settings = AutomaticSettings(quality=0.5, tile=128, tile_overlap=40)
    assert max(large.shape) > 2 * settings.tile_side
    tiled = segment_everything(Oracle(large), settings)
    whole = segment_everything(Oracle(large), replace(settings, tile=1024, points_per_side=32))
    assert all_match(tiled.labels, whole.labels, 0.999)
    assert all_match(tiled.labels, large, 0.999)
    inner = segment_everything(Oracle(large), replace(settings, keep_border=False))
    assert 0 < len(inner) < len(tiled)


@pytest.mark.slow
def test_segment_tiles_max_area_is_a_share_of_the_plane():
    y, x = np.mgrid[:400, :400]
    large = np.zeros((400, 400), int)
    for number, (row, column) in enumerate(np.ndindex(4, 4), 1):
        large[(y - 50 - 100 * row) ** 2 + (x - 50 - 100 * column) ** 2 <= 25**2] = 2 * number
    large[190:210, 20:380] = 100  # of several tiles
    settings = AutomaticSettings(quality=0.5, tile=128, tile_overlap=60, max_area=0.03)
    tiled = segment_everything(Oracle(large), settings)
    whole = segment_everything(Oracle(large), replace(settings, tile=1024, points_per_side=32))
    assert len(whole) == 16
    assert all_match(tiled.labels, whole.labels, 0.999)


def test_segment_tiles_without_seeds_encodes_nothing(predictor):
    image = np.zeros((300, 300), np.uint8)
    image[20:40, 20:40] = 200
    finish(predictor.open_image_job(image))
    labels, encodes = np.zeros(image.shape, np.uint32), predictor.encodes
    settings = AutomaticSettings(seeds="maxima", tile=128, agreement=0)
    scores = finish(segment_tiles_job(predictor, labels, settings))
    assert predictor.encodes == encodes + 1
    assert len(scores) == labels.max() == 1
    assert all_match(labels, image > 0, 0.8)


def test_segment_tiles_encodes_only_around_seeds():
    tile = PixelBox(100, 200, 228, 328)
    seeds = np.array([[30.5, 40.0], [50.0, 127.0]])
    assert box_around(seeds, tile, 20) == PixelBox(110, 220, 171, 328)
    assert box_around(seeds, tile, 200) == tile


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_model("tiny"), "cpu")


@pytest.fixture(scope="module")
def proposed(predictor):
    """A part of the coins, its candidates and the settings they were made with."""
    settings = AutomaticSettings(points_per_side=10).for_model(predictor.model.spec)
    predictor.set_image(coins()[:150, :200])
    return finish(propose_masks_job(predictor, settings)), settings


def test_segment_everything_finds_coins(proposed):
    instances = masks_to_instances(*proposed)
    assert len(instances) == 7  # seven coins, and a sliver of another at the border
    areas = np.bincount(instances.labels.ravel())[1:]
    assert areas.min() > 300
    assert areas.max() < 3500
    assert (instances.scores > 0.6).all()


def test_candidates_measure_stability_and_area_of_the_whole_mask(predictor, proposed):
    from napari_simmat.engine.everything.seeds import point_grid
    from napari_simmat.engine.result import enlarge

    candidates, settings = proposed
    seeds = point_grid((150, 200), settings.points_per_side)
    checked = 0
    for known in candidates.known[::5]:
        result = predictor.predict(points=seeds[known.seed].points)
        if known.quality != pytest.approx(result.score, abs=1e-4):
            continue  # an alternative to the answer
        checked += 1
        logits = torch.from_numpy(result.logits)[None]
        whole = enlarge(logits, result._transform, result._stride)
        assert known.stability == pytest.approx(
            float(calculate_stability_score(whole, 0.0, settings.offset)[0]), abs=0.01
        )
        assert known.area == pytest.approx(int(result.mask.sum()), rel=0.01, abs=2)
    assert checked > 3


def test_maxima_of_a_channel_are_seeds(predictor):
    predictor.set_image(gray())
    settings = AutomaticSettings(seeds="maxima", maxima_height=0.1, agreement=0)
    instances = segment_everything(predictor, settings)
    assert len(instances) >= 1
    with pytest.raises(ValueError, match="There is no channel 5 to look for maxima in"):
        segment_everything(predictor, replace(settings, maxima_channel=5))


def test_propose_masks_canceled_keeps_the_plane(predictor):
    predictor.set_image(coins()[:100, :100])
    before = predictor.predict(points=[(40, 40)]).mask
    job = segment_everything_job(predictor, AutomaticSettings(crop_layers=1, points_per_side=4))
    for _ in range(12):
        next(job)
    job.close()
    np.testing.assert_array_equal(predictor.predict(points=[(40, 40)]).mask, before)


@pytest.mark.parametrize(("choice", "threshold"), [("single", 0.75), ("stock", 0.88)])
def test_proposed_masks_are_filtered_as_their_model_wants(predictor, choice, threshold):
    """Also by settings that set no thresholds, as the window's, which are not for a model."""
    model = SimpleNamespace(
        mask_choice=choice,
        base=Base(name="tiny", architecture="tiny_lite", sha256="0" * 64),
        expects_kind=False,
        kind=None,
        finds_instances=False,
    )
    settings = AutomaticSettings(points_per_side=6)
    predictor.set_image(coins()[:150, :200])
    found = finish(propose_masks_job(predictor, settings.for_model(model)))
    kept = masks_to_instances(found, settings)
    assert len(kept)
    assert kept.scores.min() > threshold
    loose = masks_to_instances(found, replace(settings, quality=0.3))
    assert len(loose) > len(kept)


def test_sam2_has_the_thresholds_of_its_own_generator(sam2_pair):
    spec = sam2_model(sam2_pair).spec
    assert AutomaticSettings().for_model(spec).thresholds == (0.8, 0.95)
    assert AutomaticSettings(quality=0.5).for_model(spec).thresholds == (0.5, 0.95)
