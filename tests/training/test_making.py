"""From a data set to a file: what the figures before and after mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.checkpoints.checkpoint import read_model_card, read_tensors
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.engine.masks import interior_point, iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.training import finetune
from napari_simmat.training.finetune import compare_with_base_job, train_checkpoint_job
from napari_simmat.training.trainer import BEST_FILE
from tests.training.squares import pictures, short


def by_hand(model: Model, dataset: Dataset, channels: list[int]) -> dict[str, float]:
    """A click in the middle and the bounding box of every object, in percent."""
    given = replace(model.spec, normalization=Normalization(method="none"))
    predictor = Predictor(Model(given, model.network, "by hand"), "cpu")
    reached: dict[str, list[float]] = {"click": [], "box": []}
    for sample in dataset.validation:
        values, labels = sample.load()
        predictor.set_image(values[channels], channel_axis=0)
        for label in (1, 2):
            truth = labels == label
            y, x = np.nonzero(truth)
            box = (y.min(), x.min(), y.max() + 1, x.max() + 1)
            click = predictor.predict(points=[interior_point(truth, ties="median")])
            reached["click"].append(iou(click.mask, truth))
            reached["box"].append(iou(predictor.predict(box=box).mask, truth))
    return {kind: round(100 * float(np.mean(values)), 2) for kind, values in reached.items()}


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_before_is_the_base_alone_with_three_channels(channels: int, base: Model) -> None:
    dataset = pictures(2, channels)
    figures = finish(
        compare_with_base_job(base, base.spec, base.network, dataset, dataset.validation, "cpu")
    )
    assert figures["before"] == by_hand(
        base, dataset, {1: [0, 0, 0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])
    )
    assert figures["after"] == figures["before"]  # here the same network


def test_a_made_checkpoint_says_what_it_reached(
    base: Model, dataset: Dataset, tmp_path: Path
) -> None:
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


def test_what_was_trained_from_nothing_needs_no_base(
    base: Model, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "scratch.safetensors"
    finish(
        train_checkpoint_job(base, dataset, short(strategy="scratch"), path, tmp_path / "folder")
    )
    assert read_model_card(path).holds_all
    assert read_tensors(path).keys() >= set(load_model(path).network.state_dict())


def test_planes_without_objects_are_not_compared(
    base: Model, dataset: Dataset, tmp_path: Path, monkeypatch
) -> None:
    """Of many, some are, spread evenly over those that have an object; each is read once."""
    first = dataset.validation[0]

    def sample(number: int):
        def load():
            values, labels = first.load()
            read.append(number)
            return values, labels * (number % 2)

        return replace(first, name=f"plane {number}", group=f"{number}", load=load)

    read: list[int] = []
    data = replace(dataset, validation=tuple(sample(number) for number in range(8)))
    monkeypatch.setattr(finetune, "MAX_PLANES", 2)
    messages: list[str] = []
    job = train_checkpoint_job(base, data, short(), tmp_path / "x.safetensors", tmp_path / "folder")
    spec = finish(job, lambda progress: messages.append(progress.message))
    compared = [message for message in messages if message.startswith("comparing")]
    assert compared == ["comparing on plane 1", "comparing on plane 5"]
    assert read == [*range(8), 1, 5]
    assert spec.metrics["before"]["click"] > 0


@pytest.mark.parametrize(("pixels", "planes"), [(100, 4), (3, 3), (0, 2)])
def test_of_large_planes_fewer_are_compared(
    pixels: int, planes: int, base: Model, dataset: Dataset, monkeypatch
) -> None:
    """`pixels` in planes; two are looked at in any case."""
    samples = dataset.validation[:1] * 4
    monkeypatch.setattr(finetune, "MAX_PIXELS", pixels * samples[0].load()[1].size)
    seen: list[str] = []
    job = compare_with_base_job(base, base.spec, base.network, dataset, samples, "cpu")
    finish(job, lambda progress: seen.append(progress.message))
    assert len([message for message in seen if message.startswith("comparing")]) == planes


def test_a_checkpoint_is_no_base(base: Model, dataset: Dataset, tmp_path: Path) -> None:
    job = train_checkpoint_job(
        load_model("polarization"), dataset, short(), tmp_path / "x.safetensors", tmp_path / "f"
    )
    with pytest.raises(ValueError, match="is a modality checkpoint, not a foundation; train on"):
        finish(job)
    assert list(tmp_path.iterdir()) == []
