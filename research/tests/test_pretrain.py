"""Training learns, touches only what it declares, and resumes exactly."""

import json

import numpy as np
import pytest
import tifffile
import torch

import simmat_research.pretrain as module
from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.evaluation.drawn_prompts import PromptBatch
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from napari_simmat.training.devices import Devices
from napari_simmat.training.trainer import Trainer
from simmat_research.pretrain import (
    PretrainConfig,
    PretrainedFoundation,
    Pretraining,
    export_base,
    mean_over_views,
    pretrain_job,
)
from simmat_research.real_scenes import read_sources
from tests.training.squares import picture

pytestmark = pytest.mark.usefixtures("small_training")


@pytest.fixture(autouse=True)
def small_networks(request):
    """Trainings of a shrunk `tiny`, except where a test is about the shipped models."""
    if not request.node.get_closest_marker("shipped_models"):
        request.getfixturevalue("nano")


def config(**changes):
    values = {"steps": 12, "warmup": 2, "families": ("plain",), "save_every": 5}
    return PretrainConfig(**{**values, "validate_every": 1000, **changes})


def trainer(task: Pretraining) -> Trainer:
    fabric = Devices(device="cpu").fabric("32-true")
    fabric.launch()
    return task.trainer(fabric, None)


@pytest.mark.slow
def test_pretraining_interrupted_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "validate_on_scenes", lambda *_: {"click": 0.0})
    whole = finish(pretrain_job(config(), tmp_path / "whole"))
    job = pretrain_job(config(), tmp_path / "cut")
    for progress in job:
        if progress.done == 7:  # saved at 5: two steps are lost and done again
            break
    job.close()
    resumed = finish(pretrain_job(config(), tmp_path / "cut"))
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


@pytest.mark.shipped_models
@pytest.mark.slow
def test_pretraining_learns_and_writes_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "validate_on_scenes", lambda *_: {"click": 0.0})
    losses = []
    # On crops of its scale, as those off scale are too few here for a steady mean.
    task = Pretraining(config(steps=80, dense_only=1.0, off_scale=0.0))
    stepping = trainer(task)
    stepping.log_every = 1
    stepping.log = lambda _, rate, means: losses.append(means["dense"]) or {}
    for _ in range(60):
        finish(stepping.advance_job())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    finish(pretrain_job(config(steps=50, dense_only=1.0), tmp_path))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert entries[0]["step"] == 50
    assert entries[0]["loss"] > 0
    assert entries[-1]["validation"] == {"click": 0.0}


def test_rate_rises_stays_and_falls():
    settings = PretrainConfig(steps=1000, warmup=10, decay=0.2, learning_rate=1.0)
    rates = [settings.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[10:800]) == {1.0}
    assert rates[900] == pytest.approx(0.5)
    assert 0 < rates[999] < 0.01


def test_export_base_is_small_described_and_loads(tmp_path):
    network = load_model("tiny").network
    path = tmp_path / "tiny-9.safetensors"
    export_base(path, PretrainedFoundation(network, 12, {"click": 1.5}), config())
    assert path.stat().st_size < 20e6
    spec = read_spec(path)
    assert (spec.name, spec.training["steps"]) == ("tiny-9", 12)
    assert spec.metrics == {"drawn scenes, mean IoU %": {"click": 1.5}}
    again = load_model(path).network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_pretraining_goes_on_from_a_base(tmp_path):
    network, path = load_model("tiny").network, tmp_path / "tiny-9.safetensors"
    export_base(path, PretrainedFoundation(network, 12, {}), config())
    state = Pretraining(config(steps=13, encoder="lite"))
    state.begin(path)
    assert state.begun == 12
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state.network.state_dict()[name]), name
    with pytest.raises(ValueError, match="was trained for 12 steps; 12 in all"):
        Pretraining(config(steps=12, encoder="lite")).begin(path)
    settings = PretrainConfig(steps=1000, warmup=10, learning_rate=1.0)
    assert settings.rate(12, begun=12) == pytest.approx(0.1)
    assert settings.rate(22, begun=12) == 1.0


def test_begin_from_another_architecture_is_refused(tmp_path):
    path = tmp_path / "tiny-9.safetensors"
    export_base(path, PretrainedFoundation(build_network("tiny"), 3, {}), config())
    assert read_spec(path).base.architecture == "tiny"
    with pytest.raises(ValueError, match=r"tiny-9\.safetensors is a network tiny, but this train"):
        Pretraining(config()).begin(path)


def test_crops_off_scale_train_the_predicted_iou_alone(tmp_path):
    norms = {}
    for share in (0.0, 1.0):
        task = Pretraining(config(off_scale=share, dense_only=0.0, corrections=0.0))
        loss, _ = task.module(task.batch(6))
        loss.backward()
        for name, parameter in task.network.mask_decoder.named_parameters():
            part = name.split(".")[0]
            grown = 0.0 if parameter.grad is None else float(parameter.grad.norm())
            norms[part, share] = max(norms.get((part, share), 0.0), grown)
    assert norms["output_hypernetworks_mlps", 0.0] > 0
    assert norms["output_hypernetworks_mlps", 1.0] == 0
    assert norms["iou_prediction_head", 1.0] > 0


def test_mean_over_views_agrees_where_the_network_does():
    """The mean over reflections and rotations is the answer of a network that is equivariant."""

    class Equivariant:
        def encode(self, images):
            return images

        def decode_batch(self, images, points, labels):
            ticks = torch.arange(images.shape[-1] // 2) * 2 + 0.5
            places = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)
            masks = []
            for own, kinds in zip(points, labels, strict=True):
                low, high = own[0] - 5, own[0] + 5
                if (kinds == 2).any():
                    low, high = own[kinds == 2][0], own[kinds == 3][0]
                masks.append(((places > low) & (places < high)).all(-1) * 20.0 - 10)
            return torch.stack(masks)[:, None].expand(-1, 4, -1, -1), None

    images = torch.zeros(2, 3, 64, 64)
    clicks = [[[30.0, 10.0], [0.0, 0.0]], [[7.0, 50.0], [0.0, 0.0]]]
    boxes = [[[10.0, 20.0], [4.5, 9.5], [29.5, 39.5]]]
    for points, labels in ((clicks, [[1, -1]] * 2), (boxes, [[1, 2, 3]])):
        prompts = PromptBatch(torch.tensor(points), torch.tensor(labels))
        own = Equivariant().decode_batch(images, *prompts[:2])[0][:, :1].sigmoid()
        for seed in range(12):
            mean = mean_over_views(Equivariant(), images, prompts, np.random.default_rng(seed))
            torch.testing.assert_close(mean, own)


def test_real_sources_are_trained_on_measured_and_named(tmp_path):
    folder = tmp_path / "images" / "squares"
    folder.mkdir(parents=True)
    rows = ["file,split"]
    for number in range(3):
        image, labels = picture(number, channels=1, side=96)
        tifffile.imwrite(folder / f"{number}.tif", image[0])
        tifffile.imwrite(folder / f"{number}_labels.tif", labels)
        rows.append(f"{number}.tif,{'train' if number else 'validation'}")
    (folder / "split.csv").write_text("\n".join(rows))
    sources = read_sources(tmp_path / "images")
    settings = config(steps=2, sources=sources, real_share=1.0, consistency=1.0, dense_only=0.0)
    trained = finish(pretrain_job(settings, tmp_path / "run"))
    assert set(trained.by_source) == {"squares"}
    assert set(trained.by_source["squares"]) == set(trained.metrics)
    [row] = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert row["by_source"] == trained.by_source
    path = tmp_path / "tiny-9.safetensors"
    export_base(path, trained, settings)
    spec = read_spec(path)
    assert spec.training["sources"]["squares"]["images"] == 2
    assert spec.metrics["squares, validation images, mean IoU %"] == trained.by_source["squares"]
    assert "real images" in spec.training["data"]
    with pytest.raises(ValueError, match="Use its settings"):
        finish(pretrain_job(config(steps=2), tmp_path / "run"))


def test_pretrain_config_of_bad_values_is_refused():
    with pytest.raises(ValueError, match="No family of scenes is called moon; use some of fluor"):
        PretrainConfig(families=("plain", "moon"))
    with pytest.raises(ValueError, match="at least one step, got 0"):
        PretrainConfig(steps=0)
