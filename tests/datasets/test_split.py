"""Data sets of arrays with labels, as open layers hold them."""

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from napari_simmat.datasets.dataset import DataConfig
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.datasets.split import from_arrays
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.models.spec import Normalization

RNG = np.random.default_rng(1)
RAW = Normalization(method="none")
LABELS = np.zeros((10, 16), np.int32)
LABELS[2:4, 2:4], LABELS[6:8, 11:13] = 1, 2


def test_from_arrays_takes_an_array_for_each_channel():
    red, infrared = RNG.random((10, 16)), RNG.integers(0, 255, (10, 16)).astype(np.uint8)
    pairs = [
        LabeledImage("one", [red, infrared], LABELS, channel_names=("red", "NIR")),
        LabeledImage("two", [da.from_array(infrared), red], LABELS, channel_names=("NIR", "red")),
    ]
    dataset = from_arrays(pairs, DataConfig(normalization=RAW), name="field")
    assert (dataset.name, dataset.channel_names) == ("field", ("red", "NIR"))
    for sample in (*dataset.train, *dataset.validation):
        values, labels = sample.load()
        assert values == pytest.approx(np.stack([red, infrared]))
        assert np.array_equal(labels, LABELS)


def test_from_arrays_takes_a_channel_axis_and_dask_labels():
    stack = RNG.random((3, 10, 16, 4))
    labels = da.from_array(np.stack([LABELS, LABELS * 0, LABELS]))
    pairs = [LabeledImage(name, stack, labels, channel_axis=-1) for name in ("a", "b")]
    dataset = from_arrays(
        pairs, DataConfig(selection=ChannelSelection(channels=(3, 1)), normalization=RAW)
    )
    assert dataset.train[0].name[1:] == " plane 0"
    assert len(dataset.train) == len(dataset.validation) == 2
    assert dataset.train[1].load()[0] == pytest.approx(np.moveaxis(stack[2], -1, 0)[[3, 1]])


def test_from_arrays_halves_a_lone_image():
    pair = LabeledImage("one", RNG.random((10, 16)), LABELS)
    halved = from_arrays([pair])
    assert [sample.name for sample in halved.validation] == ["one right half"]
    other = LabeledImage("two", RNG.random((10, 16)), LABELS)
    given = from_arrays([pair], validation=[other])
    assert [s.name for s in (*given.train, *given.validation)] == ["one", "two"]


def test_from_arrays_takes_a_bool_mask_as_one_object():
    pairs = [LabeledImage(name, RNG.random((10, 16)), LABELS > 0) for name in "ab"]
    assert np.array_equal(from_arrays(pairs).train[0].load()[1], LABELS > 0)


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
def test_from_arrays_refuses_unusable_images(pairs, error, sentence):
    with pytest.raises(error, match=sentence):
        from_arrays([LabeledImage(*pair) for pair in pairs])


def test_importing_datasets_loads_no_torch():
    modules = "napari_simmat.datasets.folder, napari_simmat.datasets.split"
    program = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
