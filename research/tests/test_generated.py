"""Drawn scenes as a data set."""

import pickle

import numpy as np
import pytest

from napari_simmat.datasets.dataset import Dataset
from napari_simmat.progress import finish
from simmat_research.generated import GeneratedConfig, generate_job
from simmat_research.sensors import PSEUDO_SENSORS, SENSORS


def drawn(sensor: str, **changes: object) -> Dataset:
    settings = {"side": 64, "train": 3, "validation": 1, "test": 1, **changes}
    return finish(generate_job(GeneratedConfig(sensor=sensor, **settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("sensor", [*SENSORS, "rgb+depth"])
def test_generated_planes_are_normalized_and_repeatable(sensor):
    dataset = drawn(sensor)
    assert [s.name for s in dataset.train] == ["train 0", "train 1", "train 2"]
    assert dataset.name == f"generated:{sensor}"
    known = (SENSORS | PSEUDO_SENSORS)[sensor].channels
    assert dataset.channel_names == known
    values, labels = dataset.train[1].load()
    assert values.shape == (len(known), 64, 64)
    assert values.dtype == np.float32
    assert labels.max() >= 1
    assert 0 <= values.min() < values.max() <= 255
    again = pickle.loads(pickle.dumps(dataset.train[1])).load()  # noqa: S301, our own bytes
    assert np.array_equal(values, again[0])
    assert np.array_equal(labels, again[1])


def test_generated_statistics_are_of_the_training_planes():
    dataset = drawn("hha")
    values = np.concatenate([s.load()[0].reshape(3, -1) for s in dataset.train], axis=1)
    own = [(channel.mean, channel.std) for channel in dataset.channels]
    expected = np.stack([values.mean(axis=1), values.std(axis=1)], axis=1)
    assert np.array(own) == pytest.approx(expected, abs=1e-3)


def test_generated_sides_share_no_plane():
    few, many = drawn("thermal"), drawn("thermal", train=5)
    assert np.array_equal(few.train[2].load()[0], many.train[2].load()[0])
    images = [s.load()[0] for s in (*few.train, *few.validation, *few.test)]
    for index, image in enumerate(images):
        assert not any(np.array_equal(image, other) for other in images[index + 1 :])


def test_generated_benchmark_draws_other_scenes():
    everyday, benchmark = drawn("thermal"), drawn("thermal", kind="benchmark")
    assert benchmark.name == "benchmark:thermal"
    assert not np.array_equal(everyday.train[0].load()[0], benchmark.train[0].load()[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sensor": "sonar"}, "Sensor 'sonar' is unknown; use one of rgb, polarization"),
        ({"side": 32}, "Scenes of 32 pixels are too small"),
        ({"train": 0}, "at least one scene to train on and one to validate on, not 0 and 16"),
    ],
)
def test_generated_config_of_bad_values_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        GeneratedConfig(**{"sensor": "rgb", **changes})  # type: ignore[arg-type]
