"""Training the decoder of all objects: it resumes with the same bits, and learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_simmat import load_model
from napari_simmat.engine.object_regions import region_tree
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from napari_simmat.training.region_score import region_ious
from simmat_research import decoder_training, region_scores
from simmat_research.decoder_training import DecoderConfig, train_decoder_job
from simmat_research.region_scores import (
    Regions,
    collect_regions_job,
    maps_of,
    train_score,
)

CONFIG = DecoderConfig(steps=3, real_share=0.0, warmup=1)


@pytest.fixture(scope="module")
def network() -> TinyNetwork:
    network = load_model("tiny").network
    assert isinstance(network, TinyNetwork)
    return network


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_training, "CROPS", (160,))
    monkeypatch.setattr(decoder_training, "POOL", 4)
    monkeypatch.setattr(decoder_training, "LOG_EVERY", 1)


@pytest.mark.parametrize("along", [False, True])
def test_training_that_was_stopped_goes_on_as_if_not(
    tmp_path: Path, network: TinyNetwork, along: bool
) -> None:
    config = replace(CONFIG, encoder_along=along)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    whole = finish(train_decoder_job(config, network, tmp_path / "whole"))
    job = train_decoder_job(config, network, tmp_path / "parts")
    next(job)
    (tmp_path / "parts" / "stop").touch()
    for _ in job:
        pass
    parts = finish(train_decoder_job(config, network, tmp_path / "parts"))
    for ours, theirs in zip(whole, parts, strict=True):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    moved = {
        n for n, each in whole.network.state_dict().items() if not torch.equal(each, before[n])
    }
    assert bool(moved) == along
    assert all(name.startswith("image_encoder.") for name in moved)
    rows = [json.loads(row) for row in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_folder_of_other_settings_is_refused(tmp_path: Path, network: TinyNetwork) -> None:
    finish(train_decoder_job(DecoderConfig(steps=1, real_share=0.0), network, tmp_path))
    with pytest.raises(ValueError, match="settings"):
        finish(train_decoder_job(DecoderConfig(steps=1, seed=1), network, tmp_path))


def test_encoder_stays_as_it_is(tmp_path: Path, network: TinyNetwork) -> None:
    before = {name: each.clone() for name, each in network.state_dict().items()}
    finish(train_decoder_job(CONFIG, network, tmp_path))
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_regions_meet_the_objects_that_they_cover(network: TinyNetwork) -> None:
    decoder = load_model("tiny").decoder
    assert isinstance(decoder, ObjectDecoder)
    y, x = np.indices((96, 96))
    truth = ((y - 30) ** 2 + (x - 30) ** 2 < 144).astype(np.int32)
    image = np.broadcast_to(np.where(truth, 200, 60), (3, 96, 96)).astype(np.float32)
    tree = region_tree(maps_of(network, decoder, image, 1.0))
    best = int(region_ious(tree, truth).argmax())
    rows, columns = tree.window(best)
    mask = np.zeros(truth.shape, bool)
    mask[rows, columns] = tree.mask(best, (rows, columns))
    expected = (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum()
    assert region_ious(tree, truth)[best] == pytest.approx(expected)
    assert expected > 0.8


def test_score_learns_what_tells_regions_apart() -> None:
    decoder = ObjectDecoder()
    rng = np.random.default_rng(0)
    measures = rng.normal(size=(4000, len(decoder.score.mean))).astype(np.float32)
    iou = np.clip(0.5 + 0.3 * measures[:, 3], 0, 1).astype(np.float32)
    source = np.where(np.arange(4000) % 2, "one", "other")
    report = train_score(decoder.score, Regions(measures, iou, source, np.arange(4000) % 5 == 0))
    assert report.loss < 0.5 * report.constant_loss
    assert sum(report.regions) == 800
    assert "said" in str(report)


def test_collection_that_was_stopped_goes_on(
    tmp_path: Path, network: TinyNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_scores, "DRAWN", 2)
    decoder = ObjectDecoder().eval()
    first = finish(collect_regions_job(network, decoder, (), tmp_path))
    assert set(first.source) == {"drawn"}
    monkeypatch.setattr(region_scores, "_drawn", lambda _: pytest.fail("drawn again"))
    again = finish(collect_regions_job(network, decoder, (), tmp_path))
    assert np.array_equal(first.measures, again.measures)
