"""All objects found by `tiny` and outlined by another model: whose outline counts, and when."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat import Predictor, load_model, segment_everything
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.everything import decoder_tuning
from napari_simmat.engine.everything.generator import Instances
from napari_simmat.engine.everything.kind_learning import learn_kind
from napari_simmat.engine.everything.tiles import segment_tiles_job
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou
from napari_simmat.models.network import DecodedMasks
from napari_simmat.models.spec import Model
from napari_simmat.progress import finish
from tests.engine.everything.test_decoder_tuning import large_and_small
from tests.nightly import nightly_but

BY_TINY = AutomaticSettings(by="tiny")
SIZE = 96, 120
RADIUS = 13


def two_discs() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Bright discs on noisy ground, four pixels apart, and their ids."""
    y, x = np.indices(SIZE)
    labels = np.zeros(SIZE, np.int32)
    for number, middle in enumerate((44, 44 + 2 * RADIUS + 5), start=1):
        labels[(y - 48) ** 2 + (x - middle) ** 2 <= RADIUS**2] = number
    noise = np.random.default_rng(0).normal(0, 6, SIZE)
    return (60 + 120 * (labels > 0) + noise).clip(0, 255).astype(np.uint8), labels


def foundation(name: str = "tiny") -> Model:
    """A model whose clicks are good, without its decoder of all objects."""
    model = load_model(name)
    return replace(model, spec=replace(model.spec, instance_decoder="none"), decoder=None)


def found(model: Model, settings: AutomaticSettings) -> Instances:
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(two_discs()[0]))
    return segment_everything(predictor, settings)


def found_by_tiny() -> Instances:
    return found(load_model("tiny"), AutomaticSettings())


def answering(monkeypatch, change, quality: float) -> list[NDArray]:
    """Let every model answer a mask with a change of it, of this quality; returns the masks."""
    asked: list[NDArray] = []

    def answer(_self, prompts):
        [prompt] = prompts
        asked.append(prompt.mask)
        logits = torch.tensor(np.where(change(prompt.mask), 9.0, -9.0), dtype=torch.float32)
        decoded = DecodedMasks(logits.expand(4, -1, -1), torch.full((4,), quality))
        shape = prompt.mask.shape
        return [Result(decoded, InputTransform(shape, shape, shape, half_pixel=False), 1)]

    monkeypatch.setattr(Predictor, "predict_low_res", answer)
    return asked


def test_tiny_finds_and_another_model_outlines():
    alone, both = found_by_tiny(), found(foundation(), BY_TINY)
    assert len(alone) == len(both) == 2
    np.testing.assert_array_equal(alone.scores, both.scores)
    assert (alone.labels != both.labels).any()
    overlaps = pairwise_iou(both.labels.astype(np.int32), two_discs()[1])
    assert (overlaps.max(0) > 0.9).all()
    again = found(foundation(), BY_TINY)
    np.testing.assert_array_equal(again.labels, both.labels)


@pytest.mark.parametrize(
    ("change", "quality", "counts"),
    [
        (ndi.binary_dilation, 0.9, True),
        (ndi.binary_dilation, 0.7, False),
        (ndi.binary_dilation, float("nan"), False),
        (np.ones_like, 0.95, False),
        (np.zeros_like, 0.95, False),
        (lambda mask: np.roll(mask, RADIUS, 0), 0.95, False),
    ],
    ids=["sure", "unsure", "unknown", "whole plane", "nothing", "beside it"],
)
def test_outline_counts_where_it_is_sure_of_the_object(monkeypatch, change, quality, counts):
    alone = found_by_tiny().labels
    asked = answering(monkeypatch, change, quality)
    both = found(foundation(), BY_TINY).labels
    assert len(asked) == 2
    expected = alone.copy()
    if counts:
        for number in (1, 2):
            grown = ndi.binary_dilation(alone == number)
            expected[grown & (expected == 0)] = number
    np.testing.assert_array_equal(both, expected)


def test_outline_takes_no_pixel_of_another_object(monkeypatch):
    alone = found_by_tiny().labels
    answering(monkeypatch, lambda mask: ndi.binary_dilation(mask, iterations=7), 0.95)
    both = found(foundation(), replace(BY_TINY, min_area=0)).labels
    for number in (1, 2):
        assert not ((alone == number) & (both != number)).any()


def test_small_object_of_a_reduced_plane_stays_as_it_was_found(monkeypatch):
    """At half of its size 26 pixels are 13: the model would lose their edges."""
    asked = answering(monkeypatch, ndi.binary_dilation, 0.95)
    model = foundation()
    small = replace(model.spec.input_size, size=64, minimum=64)
    model = replace(model, spec=replace(model.spec, input_size=small))
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(two_discs()[0]))
    alone = found_by_tiny().labels
    np.testing.assert_array_equal(segment_everything(predictor, BY_TINY).labels, alone)
    assert not asked


def test_objects_are_found_in_the_colors_of_a_transfer_layer():
    """Four angles of polarized light: no picture that tiny could read by itself."""
    image, labels = two_discs()
    angles = np.stack([image, image // 2, image // 3, image // 2])
    predictor = Predictor(foundation("polarization"), "cpu")
    finish(predictor.open_image_job(angles, 0))
    found = segment_everything(predictor, BY_TINY)
    assert (pairwise_iou(found.labels.astype(np.int32), labels).max(0) > 0.75).all()


@pytest.mark.parametrize("reads_angles", nightly_but((False, True), True))
def test_tiles_have_no_seams_and_keep_the_image(reads_angles):
    image, labels = two_discs()
    wide = np.tile(image, (2, 4))
    truth = np.concatenate([labels + 2 * n * (labels > 0) for n in range(4)], 1)
    truth = np.concatenate([truth, truth + 8 * (truth > 0)])
    if reads_angles:
        predictor = Predictor(foundation("polarization"), "cpu")
        predictor.set_image(np.stack([wide] * 4), 0)
    else:
        predictor = Predictor(foundation(), "cpu")
        predictor.set_image(wide)
    before = predictor.predict(points=[(48, 44)]).mask
    into = np.zeros(wide.shape, np.uint32)
    settings = replace(BY_TINY, tile=160, tile_overlap=60)
    scores = finish(segment_tiles_job(predictor, into, settings))
    assert len(scores) == 16
    assert (pairwise_iou(into.astype(np.int32), truth.astype(np.int32)).max(0) > 0.75).all()
    np.testing.assert_array_equal(predictor.predict(points=[(48, 44)]).mask, before)


def test_model_without_a_picture_of_its_channels_is_refused():
    spec = replace(load_model("polarization").spec, transfer="baseline_a")
    with pytest.raises(ValueError, match="makes no picture of its channels in which tiny could"):
        BY_TINY.check_model(spec)


def test_model_that_came_without_tiny_says_so():
    model = replace(foundation(), finder=None)
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(two_discs()[0]))
    with pytest.raises(ValueError, match="not loaded with tiny"):
        segment_everything(predictor, BY_TINY)


@pytest.mark.usefixtures("brief_lessons")
@pytest.mark.parametrize("reads_angles", nightly_but((False, True), True))
def test_objects_teach_the_decoder_that_finds_for_another_model(reads_angles, monkeypatch):
    """Of large and small discs three large ones are shown, and small ones as ground."""
    monkeypatch.setattr(decoder_tuning, "STEPS", 20)
    image, large, small = large_and_small()
    ids = np.unique(large)[1:]
    shown = np.where(np.isin(large, ids[:3]), large, 0)
    if reads_angles:
        predictor = Predictor(foundation("polarization"), "cpu")
        finish(predictor.open_image_job(np.stack([image] * 4), 0))
    else:
        predictor = Predictor(foundation(), "cpu")
        finish(predictor.open_image_job(image))
    kind = learn_kind(predictor, shown, np.isin(small, np.unique(small)[1:6]), by="tiny")
    assert kind.decoder is not None
    before, after = (
        segment_everything(predictor, BY_TINY, kind=each).labels for each in (None, kind)
    )
    wrong = [len(np.unique(each[small > 0])) - 1 for each in (before, after)]
    met = (pairwise_iou(after.astype(np.int32), large).max(0) > 0.75).sum()
    assert met >= len(ids) - 1
    assert wrong[1] < wrong[0] - 3
