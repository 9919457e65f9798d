"""Learning from a few committed objects: what is offered, kept, resumed and left out."""

import copy
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main
from napari_simmat.cli.train import FEW_TAKES
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.masks import iou, label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.sam import SamNetwork
from napari_simmat.models.sam_encoder import ViTBlock
from napari_simmat.models.spec import Model
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from napari_simmat.training import evidence, few_shot
from napari_simmat.training.adapting import WRONG_CHANNELS, AdaptedCheckpoint
from napari_simmat.training.annotations import (
    AnnotatedPlane,
    annotate,
    labels_at,
    scale_levels,
    separating_channels,
)
from napari_simmat.training.batches import UNKNOWN, CropBatches
from napari_simmat.training.few_shot import (
    LEFT_OUT,
    MIN_OBJECTS,
    SIZED,
    TOO_FEW,
    TRY,
    FewShotConfig,
    FewShotResult,
    LearnProgress,
    learn_objects,
    learn_objects_job,
)
from napari_simmat.training.labeled_planes import LabeledPlane
from napari_simmat.training.tries import Tries
from tests.model_files import shrink_tiny
from tests.pretended_gpu import pretended_gpu
from tests.sam2_models import sam2_model, shrink_sam2
from tests.small_sam import DEPTH
from tests.training.simulated_learning import OFFER_ANYTHING

SHORT = FewShotConfig(steps=2, crops=1, prompted=1, side=64, folds=2)


def squares(channels: int = 3, count: int = 4, seed: int = 0) -> AnnotatedPlane:
    """Bright squares of 16 pixels on a noisy plane (C, 96, 96), the last of them not labeled."""
    rng = np.random.default_rng(seed)
    values = rng.normal(60, 10, (channels, 96, 96)).astype(np.float32)
    labels = np.zeros((96, 96), np.uint16)
    for number in range(count + 1):
        y, x = 8 + 32 * (number // 3), 8 + 32 * (number % 3)
        values[:, y : y + 16, x : x + 16] += 120
        if number < count:
            labels[y : y + 16, x : x + 16] = number + 1
    names = tuple(f"channel {number}" for number in range(channels))
    return AnnotatedPlane(values.clip(0, 255), labels, channels=names)


def accept(monkeypatch):
    """Offer whatever was learned."""
    for name, value in OFFER_ANYTHING.items():
        monkeypatch.setattr(evidence, name, value)
    monkeypatch.setattr(few_shot, "STRENGTHS", (1.0, 0.5))


@pytest.fixture
def accepted(monkeypatch):
    accept(monkeypatch)


def learned(base: Model, *planes: AnnotatedPlane, **named: object) -> FewShotResult:
    return finish(learn_objects_job(base, planes, SHORT, **named))


def equal(one: AdaptedCheckpoint, other: AdaptedCheckpoint) -> bool:
    return one.digest == other.digest


@pytest.fixture(scope="module")
def of_squares(nano_base):
    """What `base` learns from `squares`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_tiny(monkeypatch)
        accept(monkeypatch)
        return learned(nano_base, squares(), name="squares")


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_learning_depends_on_objects_and_seed_alone(base, of_squares):
    weights = {name: each.clone() for name, each in base.network.state_dict().items()}
    random = torch.random.get_rng_state()
    first, second = of_squares, learned(base, squares(), name="squares")
    other = finish(learn_objects_job(base, [squares()], replace(SHORT, seed=1), name="squares"))
    assert equal(first.checkpoint, second.checkpoint)
    assert not equal(first.checkpoint, other.checkpoint)
    assert first.model.fingerprint == second.model.fingerprint != base.fingerprint
    # Another thread may predict with the base, or draw random numbers, meanwhile.
    assert torch.equal(random, torch.random.get_rng_state())
    after = base.network.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in weights.items())


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize("gpu", ["cuda:0", "mps:0"])
def test_learning_on_a_gpu_gives_the_model_of_a_cpu(gpu, base, monkeypatch):
    expected = learned(base, squares(), device="cpu")
    with pretended_gpu(monkeypatch):
        found = learned(base, squares(), device=gpu)
    assert equal(found.checkpoint, expected.checkpoint)


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_interrupted_learning_ends_with_the_same_model(base, tmp_path, monkeypatch):
    monkeypatch.setattr(few_shot, "SAVE_INTERVAL", -1.0)
    whole = learned(base, squares())
    for stop in (1, 3, 5):  # in the first fold, in the second, and at the end
        folder = tmp_path / str(stop)
        job = learn_objects_job(base, [squares()], SHORT, folder=folder)
        while next(job).done < stop:
            pass
        job.close()
        again = learn_objects_job(base, [squares()], SHORT, folder=folder)
        assert equal(finish(again).checkpoint, whole.checkpoint)


def test_adapted_model_is_a_checkpoint_like_any_other(base, of_squares, tmp_path):
    found = of_squares
    path = tmp_path / "kept.safetensors"
    found.checkpoint.save(path)
    masks = []
    for model in (found.model, load_model(path)):
        predictor = Predictor(model, "cpu")
        predictor.set_image(squares().values, channel_axis=0)
        masks.append(predictor.predict(points=[(15, 15)]).logits)
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-3)
    spec = load_model(path).spec
    assert spec.base == base.spec.base
    assert spec.training["objects"] == 4
    assert spec.metrics["after"]["click"] == pytest.approx(found.after.click, abs=0.01)
    assert found.sentence in spec.description
    assert AdaptedCheckpoint.load(path).seen == found.checkpoint.seen


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_adapted_model_expects_the_size_of_its_objects(base, tmp_path, monkeypatch):
    monkeypatch.setattr(few_shot, "STRENGTHS", (0.0,))  # nothing but the size
    found = learned(base, squares())
    assert base.network.expected_size is None
    assert found.sentence.endswith(SIZED.format(12, 22))
    found.checkpoint.save(tmp_path / "sized.safetensors")
    side = 16 * base.spec.input_size.minimum / 96
    for model in (found.model, load_model(tmp_path / "sized.safetensors")):
        assert model.network.expected_size == pytest.approx(ExpectedSize.of([side**2] * 4))


def test_lone_click_means_objects_of_the_expected_size(base):
    areas, others = [], []
    for side in (6, 40):
        network = copy.copy(base.network)
        network.expected_size = ExpectedSize(math.log(side), 0.1)
        predictor = Predictor(replace(base, network=network), "cpu")
        predictor.set_image(squares().values, channel_axis=0)
        areas.append(predictor.predict(points=[(15, 15)]).mask.sum())
        box = predictor.predict(box=(8, 8, 24, 24)).mask
        several = predictor.predict(points=[(15, 15), (20, 20)]).mask
        others.append((box, several))
    assert areas[0] < areas[1]
    for first, second in zip(*others, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_learning_again_needs_new_objects(base, tmp_path):
    first = learned(base, squares(count=3))
    first.checkpoint.save(tmp_path / "first.safetensors")
    start = AdaptedCheckpoint.load(tmp_path / "first.safetensors")
    with pytest.raises(ValueError, match=r"that the model has not learned from yet, 1 is here"):
        learned(base, squares(count=4), start=start)
    second = learned(base, squares(count=6), start=start)
    fresh = learned(base, squares(count=6))
    assert second.objects == 6
    assert start.seen < second.checkpoint.seen
    assert not equal(second.checkpoint, fresh.checkpoint)


def test_learning_ends_where_no_gain_is_left(base, monkeypatch):
    steps: list[LearnProgress] = []
    monkeypatch.setattr(evidence, "MIN_LEFT", 100.5)
    found = finish(learn_objects_job(base, [squares()], SHORT), steps.append)
    assert found.checkpoint is None
    assert found.model is None
    assert found.sentence.startswith("Nothing to learn")
    assert {step.done for step in steps} == {0}


def test_model_that_is_not_better_is_not_offered(base, monkeypatch):
    """Two steps teach a network of random weights nothing but the size."""
    monkeypatch.setattr(few_shot.FewShotRun, "size", lambda *_: None)
    found = learned(base, squares())
    assert found.gain < evidence.MIN_GAIN
    assert found.checkpoint is None
    assert found.sentence.startswith("Nothing changed")


def test_refusal_names_the_object_by_its_label(base, monkeypatch):
    def scored(self, *_):
        yield from ()
        return [[[0.48 if self.objects[n].label == 3 else 0.92] * 2 for n in self.new]]

    monkeypatch.setattr(evidence, "MIN_LEFT", 100.5)
    monkeypatch.setattr(few_shot.FewShotRun, "_score_job", scored)
    found = learned(base, squares())
    assert found.sentence.endswith(evidence.FITS_LEAST.format(3, 48, 92))


@pytest.mark.parametrize("count", [0, 2])
def test_learning_refuses_too_few_objects(base, count):
    with pytest.raises(ValueError, match=TOO_FEW.format(f"{MIN_OBJECTS} objects", count, "are")):
        learned(base, *([squares(count=count)] if count else []))


@pytest.mark.usefixtures("accepted")
def test_learning_takes_live_channels_and_names_dead_ones(base, tmp_path):
    plane = squares(channels=7)
    plane.values[1] = 7
    plane.values[3] = np.nan
    plane.values[4] = np.where(np.indices((96, 96)).sum(0) == 3, 9, 0)
    names = ("DNA", "empty", "CD3", "broken", "faulty pixels", "CD8", "CD4")
    found = finish_learning(base, plane, names)
    assert found.model.spec.channel_names == ("DNA", "CD3", "CD8", "CD4")
    assert found.model.spec.transfer == "simmat"
    assert found.sentence.endswith(LEFT_OUT.format("empty, broken, faulty pixels"))
    found.checkpoint.save(tmp_path / "kept.safetensors")
    predictor = Predictor(load_model(tmp_path / "kept.safetensors"), "cpu")
    predictor.set_image(plane.values, 0, channel_names=names)
    assert predictor.predict(points=[(15, 15)]).mask.shape == (96, 96)


def finish_learning(base: Model, plane: AnnotatedPlane, names: tuple[str, ...]) -> FewShotResult:
    labels = plane.labels
    return learn_objects(
        base, plane.values, labels, 0, channel_names=names, config=SHORT, device="cpu"
    )


def test_separating_channels_show_the_objects_best():
    plane = squares(channels=6)
    plane.values[[0, 1, 4]] = np.random.default_rng(1).uniform(0, 255, (3, 96, 96))
    plane.values[5] = plane.values[5] / 3 + plane.values[0] / 2
    assert set(separating_channels([plane.values], [plane.known(())])) == {2, 3, 5}
    assert separating_channels([plane.values[:1]], [plane.known(())]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_train_few_command_learns_from_one_image(tmp_path, capsys):
    plane, output = squares(), tmp_path / "mine.safetensors"
    (tmp_path / "images").mkdir()
    values = np.moveaxis(plane.values, 0, -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "images" / "one.tif", values, photometric="rgb")
    tifffile.imwrite(tmp_path / "images" / "one_labels.tif", plane.labels)
    words = ["train", str(tmp_path / "images"), "--output", str(output), "--few"]
    words += ["--device", "cpu", "--steps", "2", "--events"]
    assert main([*words, "--batch", "2"]) == 1
    assert FEW_TAKES.format("--batch") in capsys.readouterr().err
    assert main(words) == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert steps[-1]["output"] == str(output)
    assert set(steps[-2]["figures"]) == {"before", "after"}
    assert load_model(output).spec.description.endswith(steps[-1]["sentence"])


@pytest.mark.slow
def test_train_few_command_writes_only_a_better_model(tmp_path, capsys, monkeypatch):
    plane, output = squares(), tmp_path / "mine.safetensors"
    tifffile.imwrite(tmp_path / "one.tif", plane.values[0].astype(np.uint8))
    tifffile.imwrite(tmp_path / "one_labels.tif", plane.labels)
    words = ["train", str(tmp_path), "--output", str(output), "--few", "--steps", "2"]
    monkeypatch.setattr(evidence, "MIN_GAIN", 50.0)  # of the 62 points that are left
    monkeypatch.setattr(evidence, "TOTAL_CHANCE", 1e9)
    assert main([*words, "--device", "cpu"]) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_learning_sees_long_pixels_as_prediction_does(base, monkeypatch):
    seen, encode_job = [], TinyNetwork.encode_job
    monkeypatch.setattr(
        TinyNetwork, "encode_job", lambda self, image: seen.append(image) or encode_job(self, image)
    )
    values, labels = squares().values[:, ::2], squares().labels[::2]
    predictor = Predictor(base, "cpu")
    predictor.set_image(values, 0, pixel_size=(2.0, 1.0))
    content = LabeledImage("tall", values, labels, 0, pixel_size=(2.0, 1.0))
    (plane,) = annotate(content, base.spec)
    [(scale, image)] = [each for each in scale_levels(plane, base.spec) if each[0] == 1]
    assert torch.equal(seen[0][0], image)
    ids = labels_at(plane.known(()), plane.frame(base.spec), scale, image)
    for label, (rows, columns) in label_windows(ids.clip(0)):
        assert abs(rows.stop - rows.start - (columns.stop - columns.start)) <= 1, label
    result = learn_objects(
        base, values, labels, 0, pixel_size=(2.0, 1.0), config=SHORT, device="cpu"
    )
    assert result.checkpoint is not None
    assert {each.shape for each in seen} == {seen[0].shape}, "scored alike"


def test_expected_size_is_that_in_the_models_input(base):
    plane = squares()  # of 16 pixels
    tall = replace(
        plane, values=plane.values[:, ::2], labels=plane.labels[::2], pixel_size=(2.0, 1.0)
    )
    small = replace(plane, values=plane.values[:, :64, :64], labels=plane.labels[:64, :64])
    enlarged = base.spec.input_size.minimum / 64, base.spec.input_size.minimum / 96
    sides = []
    for each in (plane, tall, small):
        learning = few_shot.FewShotRun(base, [each], SHORT, None, "cpu", "sized")
        sides.append(math.exp(learning.size().log_side))
    assert sides == pytest.approx([16 * enlarged[1], 16 * enlarged[1], 16 * enlarged[0]], rel=0.01)


def test_adapted_spec_of_a_checkpoint_refuses_other_channels(base):
    spec = replace(base.spec, transfer="simmat")
    with pytest.raises(ValueError, match=re.escape(WRONG_CHANNELS.format(4, base.spec.name, 3))):
        learned(replace(base, spec=spec), squares(channels=4))


def test_known_is_a_ring_unless_all_objects_are_labeled():
    plane = squares(count=4)
    known = plane.known(())
    unlabeled = known[40 + 8 - 8 : 56, 40:56]
    assert (unlabeled == UNKNOWN).any()
    assert known[7, 15] == 0
    assert known[12, 12] == 1
    assert (plane.known([1])[8:24, 8:24] == UNKNOWN).all()
    assert (replace(plane, complete=True).known(()) != UNKNOWN).all()
    region = np.zeros((96, 96), bool)
    region[:, 64:] = True
    assert (replace(plane, complete=region).known(())[:, 64:] != UNKNOWN).all()


def test_crop_batches_show_hollow_and_thin_objects():
    rows, columns = np.mgrid[:300, :300]
    apart = np.hypot(rows - 150, columns - 150)
    labels = np.where((apart > 92) & (apart < 100), 1, 0).astype(np.int32)
    labels[149:151, 100:200], labels[3:7, 3:8] = 2, 3
    plane = LabeledPlane("p", torch.from_numpy(labels > 0).float()[None], labels, ())
    settings = {"side": 64, "count": 2, "prompted": 2, "kinds": ["box"], "corrections": 3}
    crops = CropBatches([[plane]], [(0, 1), (0, 2), (0, 3)], **settings, seed=0)
    for step in range(30):
        batch = crops.batch(step, slice(None))
        assert batch.masks.shape == (4, 64, 64)
        assert batch.masks.any((1, 2)).all()
        second = crops.batch(step, slice(1, 2))
        assert np.array_equal(second.masks, batch.masks[2:])
        assert torch.equal(second.prompts.points, batch.prompts.points[2:])


def calls_of(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[bool]:
    """Grows by each call of a method: whether with gradients."""
    calls, method = [], getattr(owner, name)

    def noted(self: object, *values: object) -> object:
        calls.append(torch.is_grad_enabled())
        return method(self, *values)

    monkeypatch.setattr(owner, name, noted)
    return calls


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_learning_on_sam_encodes_each_plane_once(sam, tmp_path, monkeypatch):
    blocks = calls_of(monkeypatch, ViTBlock, "forward")
    decoded = calls_of(monkeypatch, SamNetwork, "_decoded")
    planes, config = [squares(), squares(seed=1)], replace(SHORT, crops=2)
    job, at_once, before = learn_objects_job(sam, planes, config), [], (0, 0)
    while True:
        try:
            next(job)
        except StopIteration as end:
            found = end.value
            break
        now = len(blocks), sum(decoded)
        at_once.append(max(np.subtract(now, before)))
        before = now
    assert max(at_once) == 1
    assert blocks == [False] * 2 * DEPTH
    trained = {name.split(".")[0] for name in found.checkpoint.tensors}
    assert trained == {"mask_decoder"}
    before, after = sam.network.state_dict(), found.model.network.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"mask_decoder"}
    found.checkpoint.save(tmp_path / "kept.safetensors")
    masks = []
    for model in (
        found.model,
        AdaptedCheckpoint.load(tmp_path / "kept.safetensors").model(sam),
        sam,
    ):
        predictor = Predictor(model, "cpu")
        predictor.set_image(squares().values, channel_axis=0)
        masks.append(predictor.predict(points=[(15, 15)]).logits)
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


@pytest.mark.usefixtures("accepted")
def test_learning_on_sam_scores_each_folds_transfer_layer(sam, monkeypatch):
    """On other channels than it reads its encoder is trained: no embedding is that of another."""
    blocks = calls_of(monkeypatch, ViTBlock, "forward")
    found = learned(sam, squares(channels=5))
    assert found.model.spec.transfer == "simmat"
    encodings = 1 + SHORT.folds * len(few_shot.STRENGTHS)
    assert blocks.count(False) == encodings * DEPTH


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_learning_on_sam2_changes_its_decoder_alone(sam2_pair, tmp_path, monkeypatch):
    """The finer features of each plane are kept as the frozen projections give them."""
    shrink_sam2(monkeypatch)
    base = sam2_model(sam2_pair)
    found = learned(base, squares())
    before, after = base.network.state_dict(), found.model.network.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"mask_decoder"}
    found.checkpoint.save(tmp_path / "kept.safetensors")
    again = AdaptedCheckpoint.load(tmp_path / "kept.safetensors").model(base)
    masks = []
    for model in (found.model, again, base):
        predictor = Predictor(model, "cpu")
        predictor.set_image(squares().values, channel_axis=0)
        masks.append(predictor.predict(points=[(15, 15)]).logits)
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def textured() -> tuple[np.ndarray, np.ndarray]:
    """Sixteen disks (212, 212) that differ from the ground by the direction of stripes alone."""
    rows, columns = np.mgrid[:212, :212]
    rng = np.random.default_rng(0)
    image, labels = 128 + 60 * np.sin(columns * 1.3), np.zeros((212, 212), np.uint16)
    across = 128 + 60 * np.sin(rows * 1.3)
    for number in range(16):
        y, x = 28 + 52 * (number // 4), 28 + 52 * (number % 4)
        radius = rng.uniform(12, 17)
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        image[disk], labels[disk] = across[disk], number + 1
    return image + rng.normal(0, 8, image.shape), labels


@pytest.mark.slow
@pytest.mark.shipped_models
def test_learning_from_twelve_objects_outlines_others_better(base):
    image, labels = textured()
    found = learn_objects(base, image, np.where(labels % 4 > 0, labels, 0), device="cpu")
    assert found.objects == 12
    assert found.checkpoint is not None
    assert found.after.box > found.before.box + 5
    ious = {}
    for name, model in (("before", base), ("after", found.model)):
        predictor = Predictor(model, "cpu")
        predictor.set_image(image)
        reached = []
        for other in (4, 8, 12, 16):
            truth = labels == other
            (y0, x0), (y1, x1) = np.argwhere(truth).min(0), np.argwhere(truth).max(0) + 1
            reached.append(iou(predictor.predict(box=(y0, x0, y1, x1)).mask, truth))
        ious[name] = np.mean(reached)
    assert ious["after"] > ious["before"] + 0.03


@pytest.mark.slow
@pytest.mark.usefixtures("accepted")
def test_another_lesson_on_the_image_is_a_further_try(base):
    tries = Tries()
    first = learned(base, squares(), tries=tries)
    other = learned(base, squares(count=3), tries=tries)
    assert (first.number, other.number) == (1, 2)
    assert other.checkpoint.spec.training["try"] == 2
    assert TRY.format(2) in other.sentence
    assert TRY.format(1) not in first.sentence
    assert learned(base, squares(), tries=tries).number == 1, "the same lesson, the same result"
    moved = replace(squares(), labels=np.roll(squares().labels, 1, axis=0))
    anew = learned(base, moved, start=first.checkpoint, tries=tries)
    assert anew.number == 1, "it goes on from a model that was offered"
