"""Arrays with labels, as open layers hold them."""

from __future__ import annotations

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from napari_simmat.datasets.dataset import DataConfig, Dataset, Sample
from napari_simmat.datasets.split import LabeledArray, from_arrays, read_arrays_job
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.models.spec import Channel, Normalization

RNG = np.random.default_rng(1)
RAW = Normalization(method="none")
LABELS = np.zeros((10, 16), np.int32)
LABELS[2:4, 2:4], LABELS[6:8, 11:13] = 1, 2


def test_a_list_with_an_array_for_each_channel() -> None:
    red, infrared = RNG.random((10, 16)), RNG.integers(0, 255, (10, 16)).astype(np.uint8)
    pairs = [
        LabeledArray("one", [red, infrared], LABELS, channel_names=("red", "NIR")),
        LabeledArray("two", [da.from_array(infrared), red], LABELS, channel_names=("NIR", "red")),
    ]
    dataset = from_arrays(pairs, DataConfig(normalization=RAW), name="field")
    assert (dataset.name, dataset.channel_names) == ("field", ("red", "NIR"))
    for sample in (*dataset.train, *dataset.validation):
        values, labels = sample.load()
        assert values == pytest.approx(np.stack([red, infrared]))
        assert np.array_equal(labels, LABELS)


def test_an_array_with_a_channel_axis_and_dask_labels() -> None:
    stack = RNG.random((3, 10, 16, 4))
    labels = da.from_array(np.stack([LABELS, LABELS * 0, LABELS]))
    pairs = [LabeledArray(name, stack, labels, channel_axis=-1) for name in ("a", "b")]
    dataset = from_arrays(
        pairs, DataConfig(selection=ChannelSelection(channels=(3, 1)), normalization=RAW)
    )
    assert dataset.train[0].name[1:] == " plane 0"
    assert len(dataset.train) == len(dataset.validation) == 2
    assert dataset.train[1].load()[0] == pytest.approx(np.moveaxis(stack[2], -1, 0)[[3, 1]])


def test_one_layer_is_halved_and_given_validation_is_taken() -> None:
    pair = LabeledArray("one", RNG.random((10, 16)), LABELS)
    halved = from_arrays([pair])
    assert [sample.name for sample in halved.validation] == ["one right half"]
    other = LabeledArray("two", RNG.random((10, 16)), LABELS)
    given = from_arrays([pair], validation=[other])
    assert [s.name for s in (*given.train, *given.validation)] == ["one", "two"]


def test_masks_of_true_and_false_are_one_object() -> None:
    pairs = [LabeledArray(name, RNG.random((10, 16)), LABELS > 0) for name in "ab"]
    assert np.array_equal(from_arrays(pairs).train[0].load()[1], LABELS > 0)


def test_work_reports_and_can_be_stopped() -> None:
    pairs = [LabeledArray(name, RNG.random((10, 16)), LABELS) for name in "ab"]
    job = read_arrays_job(pairs)
    assert next(job).message == "a: checking"
    job.close()


@pytest.mark.parametrize(
    ("pairs", "error", "sentence"),
    [
        ([], ValueError, "There is no labeled image"),
        ([("a", np.ones((10, 16)), LABELS)] * 2, ValueError, "Two labeled images are called a"),
        ([("a", np.ones((10, 15)), LABELS)], ValueError, "labels of a have the shape 10 x 16"),
        ([("a", [np.ones((10, 16))] * 2, LABELS, 0)], ValueError, "so it has no channel axis 0"),
        ([("a", [], LABELS)], ValueError, "a has no channel"),
        ([("a", np.ones((10, 16)), LABELS * 1.0)], ValueError, "labels of a are float64 values"),
        ([("a", np.ones((10, 16)), LABELS.tolist())], TypeError, "labels of a are a list"),
        ([("a", "image", LABELS)], TypeError, "a is a str, not an array"),
        ([("a", np.ones((10, 16)), LABELS, None, ("x", "y"))], ValueError, "1 channels but 2"),
        ([("a", [np.ones((10, 16))] * 2, LABELS, None, ("x",))], ValueError, "2 channels but 1"),
        ([("a", np.ones((10, 16)), LABELS)], ValueError, "Channel intensity is constant"),
        (
            [("a", [np.ones((10, 16)), np.ones((10, 15))], LABELS)],
            ValueError,
            "Channel 1 of a has the shape 10 x 15, Channel 0 of a has 10 x 16",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(pairs, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        from_arrays([LabeledArray(*pair) for pair in pairs])


def test_data_sets_need_no_torch() -> None:
    modules = "napari_simmat.datasets.folder, napari_simmat.datasets.split"
    program = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


# ------------------------------------------------------------------ the data set's own checks


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
def test_a_data_set_that_would_mislead_is_refused(sides, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataset_of(*sides)


def test_validation_may_be_the_test() -> None:
    assert dataset_of("ab", "cd", "cd").test[0].name == "c"
