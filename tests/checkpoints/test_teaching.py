"""A model that was taught a kind of objects: its file finds what the kind in memory finds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model, list_models
from napari_simmat.checkpoints.teaching import keep_taught_job, save_taught
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.kind_learning import known_kind, learn_kind, unit_planes
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import (
    KIND_THRESHOLDS,
    LOOKS_THRESHOLDS,
    OBJECT_THRESHOLDS,
    AutomaticSettings,
)
from napari_simmat.progress import finish
from napari_simmat.training.adapting import AdaptedCheckpoint
from tests.lessons import shorten
from tests.model_files import export
from tests.nightly import nightly_but

SETTINGS = AutomaticSettings(points_per_side=8)


def discs():
    """Image (90, 120) of twelve bright discs, their labels, five of them, and ground."""
    y, x = np.indices((90, 120))
    labels = np.zeros((90, 120), np.int32)
    for number, (row, column) in enumerate(np.ndindex(3, 4), start=1):
        labels[(y - 15 - 30 * row) ** 2 + (x - 15 - 30 * column) ** 2 <= 10**2] = number
    noise = np.random.default_rng(0).normal(0, 4, labels.shape)
    image = gaussian_filter((labels > 0) * 150.0, 1) + 40 + noise
    ground = np.zeros(labels.shape, bool)
    ground[28:32] = True
    return image.astype(np.uint8), labels, np.where(labels <= 5, labels, 0), ground


@pytest.fixture(scope="module")
def lesson():
    return discs()


def taught(model, lesson, ground=True, by="clicks"):
    """A predictor of the image, and the kind that its five discs teach."""
    image, _, five, there = lesson
    predictor = Predictor(load_model(model))
    predictor.set_image(image)
    return predictor, learn_kind(predictor, five, there if ground else None, by=by)


@pytest.fixture(scope="module")
def tiny_taught(lesson, tmp_path_factory):
    """`tiny` on the image, what five discs taught its clicks, and the file; none is changed."""
    predictor, kind = taught("tiny", lesson)
    folder = tmp_path_factory.mktemp("taught")
    return predictor, kind, save_taught("tiny", kind, folder / "discs.safetensors")


@pytest.fixture(scope="module")
def tuned(lesson, tmp_path_factory):
    """The same of its decoder."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        predictor, kind = taught("tiny", lesson, by="auto")
    folder = tmp_path_factory.mktemp("tuned")
    return predictor, kind, save_taught("tiny", kind, folder / "discs.safetensors")


def test_tuned_file_finds_what_the_kind_finds(tuned, lesson):
    predictor, kind, path = tuned
    assert (kind.looks, load_model(path).pixels) == (None, None)
    again = Predictor(load_model(path))
    again.set_image(lesson[0])
    expected = segment_everything(predictor, kind=kind)
    found = segment_everything(again)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert len(found.scores) == 12
    assert found.scores.tolist() != segment_everything(predictor).scores.tolist()
    assert AutomaticSettings().for_model(again.model.spec).thresholds == OBJECT_THRESHOLDS


def test_tuned_file_leaves_clicks_alone(tuned, lesson):
    before, _, path = tuned
    after = Predictor(load_model(path))
    after.set_image(lesson[0])
    one, other = (each.predict([(15, 45)]) for each in (before, after))
    np.testing.assert_array_equal(one.mask, other.mask)
    assert path.stat().st_size < 1.5e6


def test_tuned_file_can_be_taught_anew_and_bundled(tuned, tiny_taught, tmp_path):
    kind, first = tuned[1:]
    by_clicks = save_taught(first, tiny_taught[1], tmp_path / "clicks.safetensors")
    assert not ObjectKind.of_model(load_model(by_clicks)).decoder
    assert not [name for name in load_file(by_clicks) if name.startswith("instance_decoder")]
    again = save_taught(by_clicks, kind, tmp_path / "again.safetensors")
    whole = export(again, tmp_path / "whole.safetensors", bundle=True)
    for each in (again, whole):
        found = ObjectKind.of_model(load_model(each)).decoder.state_dict()
        assert all(torch.equal(found[name], of) for name, of in kind.decoder.state_dict().items())


def test_tuned_decoder_is_not_written_for_another_foundation(tuned, sam_file, tmp_path):
    with pytest.raises(ValueError, match="tuned on tiny's encoder, which my_sam has not"):
        save_taught(sam_file, tuned[1], tmp_path / "other.safetensors")


def test_tuned_file_without_its_decoder_is_refused(tuned, tmp_path):
    def without(tensors, values):
        for name in [each for each in tensors if each.startswith("instance_decoder")][:1]:
            del tensors[name]

    path = damaged(tuned[2], without, tmp_path / "discs.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        load_model(path)

    def without_all(tensors, values):
        for name in [each for each in tensors if each.startswith("instance_decoder")]:
            del tensors[name]

    path = damaged(tuned[2], without_all, tmp_path / "discs.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        load_model(path)


@pytest.mark.parametrize("ground", nightly_but((True, False), False))
def test_taught_file_finds_what_the_kind_finds(ground, lesson, tmp_path):
    predictor, kind = taught("tiny", lesson, ground)
    path = save_taught("tiny", kind, tmp_path / "discs.safetensors")
    again = Predictor(load_model(path))
    again.set_image(lesson[0])
    assert again.model.spec.name == "discs"
    known = known_kind(again, SETTINGS)
    assert (known.size, known.likelihood) == (kind.size, kind.likelihood)
    planes = unit_planes(again, ())
    np.testing.assert_array_equal(
        *(finish(each.likeness_job(planes)) if ground else 0 for each in (known, kind))
    )
    expected = segment_everything(predictor, SETTINGS, kind=kind)
    found = segment_everything(again, SETTINGS)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.scores, expected.scores)
    any_kind = segment_everything(predictor, SETTINGS)
    assert found.scores.tolist() != any_kind.scores.tolist()


@pytest.mark.slow
def test_taught_model_leaves_clicks_and_boxes_alone(lesson, tiny_taught):
    before, _, path = tiny_taught
    after = Predictor(load_model(path))
    after.set_image(lesson[0])
    for prompt in (Prompt(points=((15, 45),)), Prompt(box=(33, 33, 58, 58))):
        (one,), (other,) = (each.predict_many([prompt]) for each in (before, after))
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one.score == other.score
    assert before.model.fingerprint != after.model.fingerprint


def test_given_side_replaces_the_size_and_keeps_looks(lesson, tiny_taught):
    _, kind, path = tiny_taught
    predictor = Predictor(load_model(path))
    predictor.set_image(lesson[0])
    known = known_kind(predictor, AutomaticSettings(object_side=40))
    assert known.side > 2 * kind.side
    assert known.looks is not None
    assert known.likelihood == kind.likelihood


def test_taught_model_has_the_thresholds_of_a_kind(tiny_taught):
    spec = read_spec(tiny_taught[2])
    assert AutomaticSettings().for_model(spec).thresholds == LOOKS_THRESHOLDS
    assert AutomaticSettings(object_side=9).for_model(find_model("tiny").spec).thresholds == (
        KIND_THRESHOLDS
    )


def test_learned_size_has_the_thresholds_of_a_kind():
    """They are those that segmenting uses and the record names, so that a replay is equal."""
    spec = find_model("tiny").spec
    learned = replace(spec, training={"expected size": [3.0, 0.3]})
    assert AutomaticSettings().for_model(learned).thresholds == KIND_THRESHOLDS
    assert AutomaticSettings().for_model(spec).thresholds == OBJECT_THRESHOLDS


def test_keep_lists_it_among_the_users_models(tiny_taught, user_folder):
    kind = tiny_taught[1]
    entry = finish(keep_taught_job("tiny", kind, "discs"))
    assert entry.path == user_folder / "models" / "discs.safetensors"
    assert entry in list_models()
    words = f"It looks for objects {kind.side:.0f} pixels of its input across"
    assert entry.spec.description == f"tiny-6. {words} that look like those it was shown."
    assert entry.spec.training == {}
    with pytest.raises(ValueError, match="There is a model called discs already"):
        finish(keep_taught_job("tiny", kind, "discs"))


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [False, True])
def test_checkpoint_that_is_taught_keeps_its_tensors(bundle, assets, tmp_path):
    source = "polarization"
    if bundle:
        source = export("polarization", tmp_path / "all.safetensors", bundle=True)
    image, _, five, ground = discs()
    predictor = Predictor(load_model(source))
    predictor.set_image(np.stack([image] * 4), channel_axis=0)
    kind = learn_kind(predictor, five, ground, by="clicks")
    path = save_taught(source, kind, tmp_path / "taught.safetensors")
    (before, after) = (load_model(each).network.state_dict() for each in (source, path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_model(path).pixels.features.shape[1] == 4 * 24
    assert read_spec(path).metrics == {"iou_click": 0.7}


def test_taught_model_can_be_taught_anew_and_bundled(lesson, tiny_taught, tmp_path):
    predictor, kind, first = tiny_taught
    sized = learn_kind(predictor, lesson[2], by="clicks")
    second = save_taught(first, sized, tmp_path / "second.safetensors")
    assert load_model(second).pixels is None
    assert read_spec(second).description.count("It looks for objects") == 1
    assert load_model(second).spec.base.name == "tiny-6"
    whole = export(first, tmp_path / "whole.safetensors", bundle=True)
    model = load_model(whole)
    assert ObjectKind.of_model(model).likelihood == kind.likelihood
    np.testing.assert_array_equal(model.pixels.features, kind.looks.pixels.features)


def test_model_that_learns_keeps_what_it_was_taught(tiny_taught, tmp_path):
    learned = AdaptedCheckpoint.load(tiny_taught[2])
    assert not learned.tensors
    learned.save(tmp_path / "again.safetensors")
    assert ObjectKind.of_model(load_model(tmp_path / "again.safetensors")).looks is not None
    assert learned.model(load_model("tiny")).pixels is learned.pixels


def test_kind_of_other_channels_is_not_written(tiny_taught, assets, tmp_path):
    kind = tiny_taught[1]
    path = tmp_path / "other.safetensors"
    with pytest.raises(ValueError, match="learned from other channels than the 4 of this model"):
        save_taught("polarization", kind, path)
    assert not path.exists()


def damaged(path, change, target):
    """The file with other tensors or another description."""
    tensors, spec = load_file(path), read_spec(path)
    values = json.loads(spec.to_json())
    change(tensors, values)
    save_file(tensors, target, {"simmat": json.dumps(values)})
    return target


def _without_looks(tensors, values):
    del values["kind"]["looks"]


def _without_pixels(tensors, values):
    del tensors["looks.owners"]


def _of_no_class(tensors, values):
    tensors["looks.owners"][0, 0] = 7


def _half_an_object(tensors, values):
    tensors["looks.owners"][0, 1] = 0.5


def _without_ground(tensors, values):
    tensors["looks.owners"][:, 0] = 1


def _of_another_length(tensors, values):
    tensors["looks.owners"] = tensors["looks.owners"][:-1].contiguous()


def _of_two_channels(tensors, values):
    tensors["looks.features"] = tensors["looks.features"][:, :48].contiguous()


def _with_nan(tensors, values):
    tensors["looks.features"][3, 4] = float("nan")


def _of_no_likelihood(tensors, values):
    values["kind"]["looks"]["likelihood"] = 0


def _of_endless_size(tensors, values):
    values["kind"]["size"]["log_side"] = 1e9


def _of_text_size(tensors, values):
    values["kind"]["size"] = "large"


def _with_a_surplus(tensors, values):
    tensors["looks.more"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_looks, "its description does not name"),
        (_without_pixels, "lacks the pixels"),
        (_of_no_class, "are damaged"),
        (_half_an_object, "are damaged"),
        (_without_ground, "are damaged"),
        (_of_another_length, "are damaged"),
        (_of_two_channels, "48 features instead of 72"),
        (_with_nan, "NaN or infinity"),
        (_of_no_likelihood, "likelihood must be between"),
        (_of_endless_size, "log_side must be between"),
        (_of_text_size, "must be a table"),
        (_with_a_surplus, "which do not belong there"),
    ],
)
def test_damaged_kind_is_refused_in_a_sentence(change, words, tiny_taught, tmp_path):
    path = damaged(tiny_taught[2], change, tmp_path / "discs.safetensors")
    with pytest.raises(ValueError, match=words):
        load_model(path)


@pytest.mark.parametrize("given", ["large", [1.0], [1.0, -2.0], [1e9, 1.0], {"a": 1}, [None, 1]])
def test_damaged_expected_size_is_refused_in_a_sentence(given, assets, tmp_path):
    spec = read_spec(assets / "polarization.safetensors")
    spec = replace(spec, training={"expected size": given})
    path = tmp_path / "odd.safetensors"
    save_checkpoint(path, spec, read_tensors(assets / "polarization.safetensors"))
    with pytest.raises(ValueError, match="expected size of objects"):
        load_model(path)


@pytest.mark.slow
def test_sam_weights_can_be_taught(sam_file, lesson, tmp_path):
    predictor = Predictor(load_model(sam_file))
    image, _, five, ground = lesson
    finish(predictor.open_image_job(image))
    kind = learn_kind(predictor, five, ground)
    path = tmp_path / "discs.safetensors"
    from tests.model_files import import_file

    entry = import_file(sam_file, "mine")
    save_taught("mine", kind, path)
    assert path.stat().st_size < 10e6
    model = load_model(path)
    assert model.spec.base.architecture == "vit_b"
    assert ObjectKind.of_model(model).likelihood == kind.likelihood
    assert entry.is_base
