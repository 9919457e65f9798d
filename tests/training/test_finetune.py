"""Fine-tuning: what is trained, kept, validated and compared with the base."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_anything.modeling.image_encoder import Block

from napari_simmat.checkpoints.checkpoint import read_model_card, read_spec, read_tensors
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.spec import Model
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.progress import finish
from napari_simmat.training import finetune, losses, validation
from napari_simmat.training.config import UNIFORM_STARTS, TrainConfig
from napari_simmat.training.finetune import train_checkpoint_job, train_job
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.run_folder import BEST_FILE, LOG_FILE, STOP_FILE
from napari_simmat.training.trainable import make_trainable
from napari_simmat.training.trainer import Trainer, TrainProgress
from napari_simmat.training.validation import ValidationScores
from tests.nightly import nightly_but
from tests.training.squares import by_hand, picture, pictures, read_log, short

PAIRS = [(strategy, "simmat") for strategy in STRATEGIES] + [
    ("lora", "baseline_a"),
    ("lora", "baseline_b"),
]
HEADS = "mask_decoder.output_hypernetworks_mlps."
UNREACHED = ("mask_decoder.iou_prediction_head.", *(f"{HEADS}{n}." for n in (1, 2, 3)))
"""The paper's loss trains no quality and only the single mask, which has the first head."""


def tensors(trained) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in trained.student.network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def differ(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def improving(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the validations find these values, one after the other."""
    left = list(values)

    def validating(network, planes, side, max_objects):
        reached = ValidationScores()
        reached.ious.append(left.pop(0))
        return reached
        yield

    monkeypatch.setattr(finetune, "validate_network_job", validating)


def always_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last step be the best of each training, so that it is what is kept."""
    improving(monkeypatch, *(number / 100 for number in range(1, 99)))


@pytest.mark.parametrize(
    ("strategy", "transfer"),
    nightly_but(PAIRS, *((name, "simmat") for name in ("lora", "full", "scratch", "frozen"))),
)
def test_checkpoint_holds_what_was_trained(strategy, transfer, train, base, tmp_path, monkeypatch):
    improving(monkeypatch, 0.1, 0.2)  # the last step is the best
    trained = train(strategy=strategy, transfer=transfer)
    network, names = trained.student.network, trained.student.names
    own = network.transfer_names()
    base_state = base.network.state_dict()
    changed = {
        name
        for name, each in network.state_dict().items()
        if name not in base_state
        or name in own
        or each.shape != base_state[name].shape
        or not torch.equal(each, base_state[name])
    }
    assert changed <= set(names)
    if not strategy.startswith("scratch"):
        assert all(name.startswith(UNREACHED) for name in set(names) - changed)

    path = tmp_path / "run" / BEST_FILE
    held = read_tensors(path)
    assert set(held) == set(names)
    assert all(torch.equal(each, network.state_dict()[name]) for name, each in held.items())
    spec = read_spec(path)
    assert (spec.transfer, spec.strategy, spec.metrics["step"]) == (transfer, strategy, 2)
    assert spec.metrics == trained.spec.metrics == {"validation": {"click": 20.0}, "step": 2}

    image, _ = picture(77)
    answers = []
    for model in (load_model(path), Model(trained.spec, network, "trained")):
        predictor = Predictor(model, "cpu")
        predictor.set_image(image, channel_axis=0)
        answers.append(torch.as_tensor(predictor.predict(points=[(30, 20)]).logits))
    torch.testing.assert_close(*answers, atol=2e-4, rtol=1e-4)  # LoRA is merged when loaded


def test_training_depends_on_the_seed_alone(train):
    rich = {"prompts": ("click", "box", "points"), "augment": True, "corrections": 1}
    settings = {"strategy": "prompt", "objects": 2, "auxiliary": True, **rich}  # with dropout
    one, two = train("one", **settings), train("two", **settings)
    assert equal(tensors(one), tensors(two))
    assert one.spec == two.spec
    other = train("other", **settings, seed=1)
    assert not equal(tensors(one), tensors(other))


def gradients(train, monkeypatch, folder: str, **settings) -> dict[str, torch.Tensor]:
    """Of the first step, by name."""
    seen: dict[str, torch.Tensor] = {}
    follow = Trainer._follow_gradient

    def watched(self) -> float:
        if not seen:
            named = self.module.network.named_parameters()
            seen.update({n: p.grad.clone() for n, p in named if p.grad is not None})
        return follow(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_follow_gradient", watched)
        train(folder, **settings)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("corrections", [0, 3])
def test_accumulate_changes_no_gradient(train, monkeypatch, corrections):
    """Images differ in size, and are padded; sums are taken in another order."""
    small = (replace(sample, name=f"small {sample.name}") for sample in pictures(3, side=48).train)
    data = pictures(3, seed=1)
    data = replace(data, train=(*data.train, *small))
    settings = {"data": data, "batch": 4, "objects": 2, "auxiliary": True, "steps": 1, "epochs": 1}
    settings["corrections"] = corrections
    whole = gradients(train, monkeypatch, "1", **settings)
    scale = max(float(each.abs().max()) for each in whole.values())
    for parts in (2, 4):
        divided = gradients(train, monkeypatch, f"{parts}", accumulate=parts, **settings)
        assert divided.keys() == whole.keys()
        assert differ(divided, whole) < 1e-5 * scale


def test_recompute_changes_nothing(train, base, monkeypatch):
    """Each block of the encoder once more for each of the two steps."""
    calls, blocks = [], len(base.network.image_encoder.blocks)
    forward = Block.forward

    def counted(self, x):
        if self.training:
            calls.append(self)
        return forward(self, x)

    monkeypatch.setattr(Block, "forward", counted)
    for strategy in ("lora", "prompt"):  # the latter's dropout is drawn as it was
        calls.clear()
        plain = train(f"{strategy} plain", strategy=strategy)
        once = len(calls)
        again = train(f"{strategy} again", strategy=strategy, recompute=True)
        assert (once, len(calls) - once) == (2 * blocks, 2 * 2 * blocks)
        assert differ(tensors(plain), tensors(again)) < 1e-6


def test_half_precision_keeps_the_clicks_exact(train, monkeypatch):
    """Rounded to 8 bits of precision, a click at 1001 would be one at 1000."""
    seen = []
    forward = losses.TrainingModule.forward

    def watched(self, batch):
        seen.append((torch.is_autocast_enabled("cpu"), batch.images, batch.prompts.points))
        return forward(self, batch)

    monkeypatch.setattr(losses.TrainingModule, "forward", watched)
    always_better(monkeypatch)
    exact, half = train("32"), train("bf16", precision="bf16-mixed")
    assert [autocast for autocast, _, _ in seen] == [False, False, True, True]
    for one, two in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(one[1], two[1])
        assert torch.equal(one[2], two[2])
    assert not equal(tensors(exact), tensors(half))
    assert differ(tensors(exact), tensors(half)) < 0.01


@pytest.mark.slow
def test_frozen_encoder_sees_each_plane_once(train, monkeypatch):
    """What is trained is the same, the decoder's skips from the encoder's maps included."""
    always_better(monkeypatch)
    settings = {"data": pictures(channels=3), "transfer": "zeroshot", "strategy": "decoder"}
    calls = []
    features = TinyNetwork.features

    def counted(self, image):
        if self.training:
            calls.append(tuple(image.shape))
        return features(self, image)

    monkeypatch.setattr(TinyNetwork, "features", counted)
    kept = train("kept", steps=9, **settings)
    assert calls == [(1, 3, 64, 64)] * 6  # six planes, nine steps of two
    before = load_model("tiny").network.state_dict()
    skips = [name for name in kept.student.names if ".skip" in name]
    assert len(skips) == 4
    assert all(not torch.equal(tensors(kept)[name], before[name]) for name in skips)

    monkeypatch.setattr(losses, "MAX_CACHED_BYTES", 0)
    assert equal(tensors(train("anew", steps=9, **settings)), tensors(kept))
    assert len(calls) == 6 + 18

    def together(self, images, keys):
        return self.network.encode(images)

    alone = gradients(train, monkeypatch, "alone", **settings)
    monkeypatch.setattr(losses.TrainingModule, "_encoded", together)
    assert differ(gradients(train, monkeypatch, "together", **settings), alone) < 1e-5


def test_best_checkpoint_is_kept_when_later_ones_are_worse(train, tmp_path, monkeypatch):
    settings = {"epochs": 4, "validate_every": 1}
    improving(monkeypatch, 0.1, 0.5, 0.9, 0.3, 0.8)
    trained = train("long", steps=4, **settings)
    assert trained.spec.metrics == {"validation": {"click": 90.0}, "step": 2}
    rows = read_log(tmp_path / "long" / LOG_FILE)
    assert [r["validation_iou"] for r in rows if "validation_iou" in r] == [10, 50, 90, 30, 80]
    improving(monkeypatch, 0.1, 0.5, 0.9, 1.0)
    monkeypatch.setattr(TrainConfig, "validations", lambda self, total: {1, 2})
    assert equal(tensors(train("short", steps=4, **settings)), tensors(trained))


def test_patience_ends_training_without_improvement(train, monkeypatch):
    """To be as good is not to be better."""
    improving(monkeypatch, 0.1, 0.5, 0.4, 0.6, 0.6, 0.2)
    steps: list[TrainProgress] = []
    trained = train(seen=steps, patience=2, steps=8, epochs=8, validate_every=1)
    assert (steps[-1].done, steps[-1].total) == (5, 8)
    assert trained.spec.metrics == {"validation": {"click": 60.0}, "step": 3}


def test_stop_file_ends_training_and_keeps_the_best(base, dataset, tmp_path, monkeypatch):
    improving(monkeypatch, 0.1, 0.7)
    folder, config = tmp_path / "run", short(steps=50, epochs=50, validate_every=50)
    job = train_job(base, dataset, config, "squares", folder)
    assert any(progress.message.startswith("training") for progress in job)  # the first step
    (folder / STOP_FILE).touch()
    trained = finish(job)
    assert trained.spec.metrics == {"validation": {"click": 70.0}, "step": 2}
    held = read_tensors(folder / BEST_FILE)
    assert equal(held, trained.student.tensors())
    # The same again goes on: the wish is forgotten, the state is not.
    again = train_job(base, dataset, config, "squares", folder)
    message = next(each.message for each in again if not each.message.startswith("reading"))
    assert message == "resuming at step 2"
    again.close()


def test_stop_file_during_validation_costs_no_step(base, dataset, tmp_path, monkeypatch):
    improving(monkeypatch, 0.1, 0.7, 0.9)
    folder, config = tmp_path / "run", short(steps=50, epochs=50, validate_every=1)
    measured = finetune.validate_network_job

    def stopping(*rest):
        if read_log(folder / LOG_FILE)[-1]["step"] == 1:
            (folder / STOP_FILE).touch()
        return (yield from measured(*rest))

    job = train_job(base, dataset, config, "squares", folder)
    assert any(progress.message.startswith("validation IoU") for progress in job)  # the untrained
    monkeypatch.setattr(finetune, "validate_network_job", stopping)
    trained = finish(job)
    assert trained.spec.metrics == {"validation": {"click": 70.0}, "step": 1}
    assert read_log(folder / LOG_FILE)[-1]["step"] == 1


def test_diverging_training_is_reported(train, tmp_path, monkeypatch):
    """What was best before is kept, and no figure of the log is no number."""
    forward = losses.TrainingModule.forward

    def broken(self, batch):
        loss, figures = forward(self, batch)
        return loss * torch.nan, figures

    monkeypatch.setattr(losses.TrainingModule, "forward", broken)
    monkeypatch.setattr("napari_simmat.training.trainer.MAX_NONFINITE_STEPS", 3)
    steps: list[TrainProgress] = []
    with pytest.raises(ValueError, match=r"diverged at step 2: for 3 steps .* Lower the learning"):
        train(seen=steps, steps=9, epochs=9, validate_every=9)
    assert len(read_tensors(tmp_path / "run" / BEST_FILE)) > 0
    figures = [each.figures for each in steps if isinstance(each, TrainProgress) and each.figures]
    assert len(figures) == 3
    assert all("loss" not in row for row in figures)
    json.dumps(figures, allow_nan=False)


def test_auxiliary_losses_train_the_other_heads(train, monkeypatch):
    always_better(monkeypatch)
    settings = {"strategy": "decoder", "steps": 4, "epochs": 4, "validate_every": 4}
    before = load_model("tiny").network.state_dict()
    for auxiliary in (False, True):
        after = tensors(train(f"{auxiliary}", auxiliary=auxiliary, **settings))
        changed = {
            name
            for name, each in after.items()
            if name.startswith(UNREACHED) and not torch.equal(each, before[name])
        }
        quality = {name for name in changed if "iou_prediction" in name}
        assert (len(quality) > 0, len(changed) > len(quality)) == (auxiliary, auxiliary)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@torch.no_grad()
def test_zeroshot_start_predicts_as_the_base_alone(channels, base):
    dataset = pictures(channels=channels)
    begun = make_trainable(base, dataset, short(start="zeroshot"), "mine")
    ours = LabeledPlanes(dataset, dataset.train, begun.spec, 256)[0].image
    theirs = LabeledPlanes(dataset, dataset.train, base.spec, 256)[0].image
    assert ours.shape[0] == channels
    assert theirs.shape[0] == 3
    torch.testing.assert_close(begun.network.projection.mat(ours[None])[0], theirs)
    click = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}
    begun.network.eval()
    answers = [
        network.decode(network.encode(image[None]), click).logits
        for network, image in ((begun.network, ours), (base.network, theirs))
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-3)
    random = make_trainable(base, dataset, short(), "mine").network.projection.mat(ours[None])[0]
    assert (random - theirs).abs().max() > 0.1


@pytest.mark.parametrize("transfer", UNIFORM_STARTS)
def test_uniform_start_is_that_of_the_authors(transfer, base):
    """Their -uniformInit: weights of the convolutions to three channels in 0..1, no bias."""
    dataset = pictures(channels=5)
    config = short(start="uniform", transfer=transfer)
    layer = make_trainable(base, dataset, config, "mine").network.projection
    again = make_trainable(base, dataset, config, "mine").network.projection
    named = dict(layer.squeeze.named_parameters())
    assert len(named) == (4 if transfer == "simcmf_b" else 2)
    for name, each in named.items():
        if name.endswith("bias"):
            assert not each.any()
        else:
            assert 0 <= each.min() < 0.3 < 0.7 < each.max() <= 1  # 15 numbers and more
            assert torch.equal(each, again.squeeze.get_parameter(name))
    assert torch.equal(layer.weight, base.network.projection.weight)


def test_zeroshot_start_has_gradients_in_all_units(base):
    dataset = pictures()
    begun = make_trainable(base, dataset, short(start="zeroshot"), "mine")
    layer = begun.network.projection.mat
    layer(
        LabeledPlanes(dataset, dataset.train, begun.spec, 256)[0].image[None]
    ).square().sum().backward()
    per_unit = layer[2].weight.grad.abs().amax((0, 2, 3))
    assert (per_unit > 0).float().mean() > 0.7  # those that some pixel makes positive


def test_train_checkpoint_calibrates_by_its_validation(base, dataset, tmp_path, monkeypatch):
    """Scores of prompts change, masks and what *Everything* filters by do not."""
    monkeypatch.setattr(validation, "MIN_CALIBRATED", 8)  # two planes of two objects, click and box
    path = tmp_path / "made.safetensors"
    spec = finish(train_checkpoint_job(base, dataset, short(), path, tmp_path / "run"))
    assert read_spec(path).iou_calibration == spec.iou_calibration is not None
    image = dataset.validation[0].load()[0]
    results = []
    for calibration in (None, spec.iou_calibration):
        model = load_model(path)
        model = replace(model, spec=replace(model.spec, iou_calibration=calibration))
        predictor = Predictor(model, "cpu")
        predictor.set_image(image, channel_axis=0)
        prompt = Prompt(points=((30.0, 16.0),), labels=(1,))
        results.append(
            (predictor.predict_many([prompt])[0], predictor.predict_low_res([prompt])[0])
        )
    (plain, low), (fitted, fitted_low) = results
    expected = spec.iou_calibration.apply(plain.predicted_iou)
    assert fitted.predicted_iou == pytest.approx(expected, abs=1e-6)
    assert fitted.predicted_iou != pytest.approx(plain.predicted_iou, abs=1e-3)
    assert fitted_low.predicted_iou.tolist() == low.predicted_iou.tolist()
    assert np.array_equal(plain.mask, fitted.mask)


@pytest.mark.slow
def test_train_checkpoint_writes_its_metrics(base, dataset, tmp_path):
    path = tmp_path / "made.safetensors"
    config = short(strategy="adapter", size=7)
    spec = finish(train_checkpoint_job(base, dataset, config, path, tmp_path / "folder"))
    card = read_model_card(path)
    assert card.spec == spec
    assert not card.holds_all
    assert (spec.name, spec.modality, spec.strategy_size) == ("made", "squares", 7)
    assert spec.base.sha256 == base.spec.base.sha256
    assert spec.channels == dataset.channels
    assert spec.normalization == dataset.normalization
    assert spec.training["learning_rate"] == config.learning_rate
    assert spec.metrics["before"] == by_hand(base, dataset, [0, 1, 1])
    assert spec.metrics["after"] == by_hand(load_model(path), dataset, [0, 1])
    assert set(spec.metrics) == {"before", "after", "validation", "step"}
    assert read_tensors(path).keys() == read_tensors(tmp_path / "folder" / BEST_FILE).keys()


@pytest.mark.slow
def test_train_checkpoint_from_scratch_needs_no_base(base, dataset, tmp_path):
    path = tmp_path / "scratch.safetensors"
    finish(
        train_checkpoint_job(base, dataset, short(strategy="scratch"), path, tmp_path / "folder")
    )
    assert read_model_card(path).holds_all
    assert read_tensors(path).keys() >= set(load_model(path).network.state_dict())


def test_make_trainable_refuses_a_modality_checkpoint(base, dataset, tmp_path):
    job = train_checkpoint_job(
        load_model("polarization"), dataset, short(), tmp_path / "x.safetensors", tmp_path / "f"
    )
    with pytest.raises(ValueError, match="is a modality checkpoint, not a foundation; train on"):
        finish(job)
    assert list(tmp_path.iterdir()) == []
