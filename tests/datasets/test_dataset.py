"""The data set's own checks and measures."""

from typing import Any

import numpy as np
import pytest

from napari_simmat.datasets.dataset import DataConfig, Dataset, Sample, label_areas
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.models.spec import Channel, Normalization

RAW = Normalization(method="none")


def dataset_of(train: str, validation: str, test: str = "") -> Dataset:
    """Samples by letters; the letter is the group, upper case another sample of it."""

    def side(letters: str) -> tuple[Sample, ...]:
        return tuple(Sample(letter, letter.lower(), lambda: None) for letter in letters)

    return Dataset(
        name="set",
        modality="",
        channels=(Channel(name="x", mean=0, std=1),),
        normalization=RAW,
        train=side(train),
        validation=side(validation),
        test=side(test),
    )


def selected(channels: Any) -> dict[str, Any]:
    return {"selection": ChannelSelection(channels=channels)}


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        (("", "a"), "set has no labeled image to train on"),
        (("a", ""), "set has no labeled image to validate on"),
        (("aba", "c"), "set holds a twice"),
        (("ab", "B"), "set has b in training and in validation or test"),
        (("ab", "c", "A"), "set has a in training and in validation or test"),
    ],
)
def test_dataset_refuses_a_misleading_split(sides, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataset_of(*sides)


def test_dataset_may_test_on_its_validation():
    assert dataset_of("ab", "cd", "cd").test[0].name == "c"


@pytest.mark.parametrize("highest", [3, 2**40])
@pytest.mark.parametrize("lowest", [0, -3])
def test_label_areas_are_those_of_ids_above_0(lowest, highest):
    labels = np.array([[lowest, lowest, 0], [1, highest, highest], [1, 1, 0]], np.int64)
    assert label_areas(labels) == {1: 3, highest: 2}
    assert label_areas(np.zeros((0, 3), np.uint8)) == {}


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        (
            {"validation_fraction": 0.0},
            ValueError,
            "validation_fraction must be above 0 and below 1, got 0.0",
        ),
        ({"validation_fraction": 1.0}, ValueError, "must be above 0 and below 1, got 1.0"),
        (selected(()), ValueError, "No channel is chosen"),
        (selected(("DAPI", "dapi ")), ValueError, "Channel dapi is chosen twice"),
        (selected("DAPI"), TypeError, "Channels are names or indices"),
        (selected((1.5,)), TypeError, "Channels are names or indices"),
        ({"min_size": -1}, ValueError, "min_size must be at least 0, got -1"),
    ],
)
def test_data_config_refuses_bad_settings(values, error, sentence):
    with pytest.raises(error, match=sentence):
        DataConfig(**values)
