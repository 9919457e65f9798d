"""The decoder of all objects, trained along with a checkpoint: what is kept, and what it finds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_simmat import Predictor, load_model, segment_everything
from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.datasets.split import from_arrays
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import finish
from napari_simmat.training import decoder_along
from napari_simmat.training.finetune import train_checkpoint_job
from tests.training.squares import RAW, picture, short

SIDE = 128


def striped(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (3, H, W) of nine discs, each of which is three strips to its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(3, 3)):
        away = x - 22 - 42 * column
        disc = (y - 22 - 42 * row) ** 2 + away**2 <= 15**2
        for strip, inside in enumerate((away < -5, abs(away) <= 5, away > 5), start=1):
            labels[disc & inside] = 3 * number + strip
    values = 60 + 80 * (labels > 0) + rng.normal(0, 5, (3, SIDE, SIDE))
    return values.clip(0, 255).astype(np.uint8), labels


def data_of(draw: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> Dataset:
    images = [LabeledImage(f"image {n}", *draw(n), channel_axis=0) for n in range(6)]
    return from_arrays(
        images[:4], DataConfig(normalization=RAW), name="drawn", validation=images[4:]
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, count in {"CROPS": 24, "STEPS": 24, "SCORED": 4, "SCORE_STEPS": 150}.items():
        monkeypatch.setattr(decoder_along, name, count)


@pytest.fixture
def trained(base, tmp_path) -> Callable[..., tuple[ModelSpec, Path]]:
    def run(data: Dataset, **settings: object) -> tuple[ModelSpec, Path]:
        path = tmp_path / "made.safetensors"
        config = short(transfer="zeroshot", strategy="lora", steps=12, **settings)
        return finish(train_checkpoint_job(base, data, config, path, tmp_path / "run")), path

    return run


def found(path: Path, image: np.ndarray) -> int:
    predictor = Predictor(load_model(path), "cpu")
    predictor.set_image(image, 0)
    return len(segment_everything(predictor))


@pytest.mark.shipped_models
def test_decoder_learns_what_counts_as_an_object(trained):
    """Strips of discs, of which the base's decoder takes the whole."""
    spec, path = trained(data_of(striped), complete=True)
    everything = spec.metrics["everything"]
    assert everything["before"] < 20
    assert everything["after"] > everything["before"] + 20
    assert read_spec(path).metrics == spec.metrics
    assert isinstance(load_model(path).decoder, ObjectDecoder)
    assert found(path, striped(9)[0]) > 15


@pytest.mark.shipped_models
def test_decoder_that_is_no_better_is_not_kept(trained, base, monkeypatch):
    monkeypatch.setattr(decoder_along, "_f1", lambda *_: 0.5)
    monkeypatch.setattr(decoder_along, "STEPS", 3)
    spec, path = trained(data_of(striped), complete=True)
    assert spec.metrics["everything"] == {"before": 50.0, "after": 50.0}
    ours, theirs = (model.decoder.state_dict() for model in (load_model(path), base))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.shipped_models
def test_objects_without_a_label_are_no_ground(trained):
    """Of two squares one is labeled; the other is no ground unless one says so."""

    def half(seed: int) -> tuple[np.ndarray, np.ndarray]:
        image, labels = picture(seed, channels=3, side=SIDE)
        return image, np.where(labels == 1, labels, 0).astype(np.uint16)

    spec, path = trained(data_of(half))
    assert spec.metrics["everything"]["before"] > 90
    assert found(path, half(9)[0]) == 2


@pytest.mark.shipped_models
@pytest.mark.slow
def test_same_seed_gives_the_same_decoder(trained, tmp_path):
    decoders = []
    for _ in range(2):
        _, path = trained(data_of(striped), complete=True)
        decoders.append(load_model(path).decoder.state_dict())
        path.unlink()
    one, other = decoders
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.shipped_models
def test_canceled_training_leaves_no_file(base, tmp_path):
    path = tmp_path / "made.safetensors"
    config = replace(short(transfer="zeroshot", strategy="lora"), complete=True)
    job = train_checkpoint_job(base, data_of(striped), config, path, tmp_path / "run")
    for step in job:
        if "learning from the objects" in step.message:
            break
    job.close()
    assert not path.exists()
    assert (tmp_path / "run").is_dir(), "the training goes on there"
