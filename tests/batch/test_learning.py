"""One call learns or trains as `simmat train` does."""

import numpy as np
import pytest
import tifffile

from napari_simmat import learn, load_model, segment, train
from napari_simmat.batch.given_image import NO_LABELS
from napari_simmat.batch.learning import EXISTS, NO_CHECKPOINT
from napari_simmat.cli import main
from napari_simmat.training import evidence
from napari_simmat.training.few_shot import TRY, LearnProgress
from tests.training.simulated_learning import OFFER_ANYTHING

pytest.importorskip("pandas")
PLACES = [(20, 20, 9), (22, 70, 8), (60, 30, 11), (66, 90, 12), (40, 110, 8), (80, 60, 8)]


@pytest.fixture
def discs():
    """An image (Y, X) with six discs, and their labels."""
    y, x = np.indices((96, 128))
    image, labels = np.full(y.shape, 40, np.uint8), np.zeros(y.shape, np.uint8)
    for number, (row, column, radius) in enumerate(PLACES, start=1):
        disc = np.hypot(y - row, x - column) < radius
        image[disc], labels[disc] = 120 + 15 * number, number
    return image, labels


@pytest.fixture
def pairs(discs):
    image, labels = discs
    return [
        (image[::down, ::right], labels[::down, ::right]) for down in (1, -1) for right in (1, -1)
    ]


def test_learn_says_what_it_brought_and_saves_what_is_better(discs, tmp_path):
    steps = []
    result = learn(*discs, complete=True, steps=2, progress=steps.append)
    assert any(isinstance(step, LearnProgress) for step in steps)
    assert result.table["prompt"].tolist() == ["click", "box"]
    assert result.sentence in result._repr_html_() or "&" in result._repr_html_()
    assert repr(result) == f"<Learned from 6 objects: {'' if result.better else 'not '}better>"
    path = tmp_path / "discs.safetensors"
    if not result.better:
        with pytest.raises(ValueError, match="Nothing was learned that could be saved"):
            result.save(path)
        return
    assert result.save(path) == path
    assert segment(discs[0], [(20, 20)], model=path, progress=False).labels.any()
    with pytest.raises(ValueError, match="exists already"):
        result.save(path)


def test_learn_of_a_folder_is_learn_of_its_image(discs, tmp_path):
    for name, array in zip(("a.tif", "a_labels.tif"), discs, strict=True):
        tifffile.imwrite(tmp_path / name, array)
    by_arrays = learn(*discs, steps=2, progress=False)
    files = tmp_path / "a.tif", tmp_path / "a_labels.tif"
    for given in ((tmp_path,), tuple(map(str, files))):
        assert learn(*given, steps=2, progress=False).sentence == by_arrays.sentence


@pytest.mark.slow
def test_learn_counts_the_tries_on_an_image_and_on_a_folder(discs, tmp_path, monkeypatch):
    for name, value in OFFER_ANYTHING.items():
        monkeypatch.setattr(evidence, name, value)
    for name, array in zip(("a.tif", "a_labels.tif"), discs, strict=True):
        tifffile.imwrite(tmp_path / name, array)
    short = {"steps": 2, "crops": 1, "prompted": 1, "side": 64, "folds": 2, "progress": False}
    for given in (discs, (tmp_path,)):
        said = [learn(*given, **short, seed=seed).sentence for seed in (0, 1)]
        assert [TRY.format(2) in sentence for sentence in said] == [False, True]
    output = tmp_path / "mine.safetensors"
    words = ["train", str(tmp_path), "--output", str(output), "--few", "--steps", "2"]
    assert main([*words, "--device", "cpu"]) == 0
    assert TRY.format(3) in load_model(output).spec.description, "the command counts with it"


def test_learn_without_labels_is_refused(discs, tmp_path):
    with pytest.raises(ValueError, match="Give the labels") as error:
        learn(discs[0], progress=False)
    assert str(error.value) == NO_LABELS


def test_train_of_pairs_is_a_model_for_segment(pairs, tmp_path):
    pytest.importorskip("lightning_fabric")
    path = tmp_path / "sensor.safetensors"
    options = {"steps": 2, "batch": 2, "device": "cpu", "progress": False}
    result = train(pairs[:3], path, validation=pairs[3:], **options)
    assert load_model(str(path)).spec.name == "sensor"
    assert result.table["prompt"].tolist() == ["click", "box"]
    after = result.spec.metrics["after"]
    assert result.table["after"].tolist() == [after["click"], after["box"]]
    assert result.log["step"].max() == 2
    assert repr(result).startswith("<Trained sensor.safetensors: sensor on tiny-")
    assert "<table>" in result._repr_html_()
    with pytest.raises(ValueError, match="exists already") as error:
        train(pairs, path, **options)
    assert str(error.value) == EXISTS.format(path)
    with pytest.raises(ValueError, match="ends in") as error:
        train(pairs, tmp_path / "sensor.pt", **options)
    assert str(error.value) == NO_CHECKPOINT.format(".safetensors", "sensor.safetensors")


@pytest.mark.slow
def test_train_of_a_folder_writes_what_the_command_does(pairs, tmp_path):
    pytest.importorskip("lightning_fabric")
    (tmp_path / "data").mkdir()
    for number, (image, labels) in enumerate(pairs):
        tifffile.imwrite(tmp_path / "data" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "data" / f"{number}_labels.tif", labels)
    words = ["--steps", "2", "--batch", "2", "--practical", "--device", "cpu"]
    other, mine = tmp_path / "a" / "s.safetensors", tmp_path / "b" / "s.safetensors"
    other.parent.mkdir()
    mine.parent.mkdir()
    assert main(["train", str(tmp_path / "data"), "--output", str(other), *words]) == 0
    train(tmp_path / "data", mine, steps=2, batch=2, device="cpu", progress=False)
    assert mine.read_bytes() == other.read_bytes()
