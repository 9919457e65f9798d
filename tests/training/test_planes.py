"""Planes as the network gets them."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import finish
from napari_simmat.training import batches
from napari_simmat.training.batches import LabeledPlane, LabeledPlanes, as_rgb


def sample(name: str, values: np.ndarray, labels: np.ndarray) -> Sample:
    return Sample(name, name, lambda: (values.astype(np.float32), labels.astype(np.int32)))


def dataset_of(*samples: Sample, channels: int = 2, smallest: int = 0) -> Dataset:
    return Dataset(
        name="data",
        modality="data",
        channels=tuple(Channel(name=f"c{n}", mean=10.0 * n, std=n + 1) for n in range(channels)),
        normalization=Normalization(method="none"),
        train=samples,
        validation=(sample("v", np.zeros((channels, 8, 8)), np.ones((8, 8))),),
        smallest=smallest,
    )


def spec_of(dataset: Dataset, method: str = "native", transfer: str = "simmat") -> ModelSpec:
    return ModelSpec(
        name="m",
        modality="",
        channels=dataset.channels,
        normalization=dataset.normalization,
        input_size=InputSize(method=method, size=64),  # type: ignore[arg-type]
        base=Base(name="", architecture="", sha256=""),
        transfer=transfer,
    )


def found(dataset: Dataset, spec: ModelSpec, side: int = 64) -> LabeledPlanes:
    planes = LabeledPlanes(dataset, dataset.train, spec, side)
    finish(planes.scan_job("train on"))
    return planes


def test_values_are_standardized_by_channel_and_keep_their_size() -> None:
    values = np.stack([np.full((8, 6), 4.0), np.full((8, 6), 16.0)])
    labels = np.zeros((8, 6), int)
    labels[:4, :4], labels[6:, 4:] = 3, 5
    dataset = dataset_of(sample("a", values, labels))
    planes = found(dataset, spec_of(dataset))
    assert planes.native
    plane = planes[0]
    assert plane.image.dtype == torch.float32
    assert plane.image[:, 0, 0].tolist() == [4.0, 3.0]  # (4 - 0) / 1, (16 - 10) / 2
    assert np.array_equal(plane.labels, labels)
    assert plane.objects == (3,)  # of the other's 4 pixels nothing can be learned


def test_one_input_size_stretches_image_and_labels_alike() -> None:
    """Each of the 4 x 8 pixels becomes 16 x 8."""
    labels = np.zeros((4, 8), int)
    labels[1:3, 2:6] = 7
    values = np.stack([labels * 1.0, np.zeros((4, 8))])
    dataset = dataset_of(sample("a", values, labels))
    planes = found(dataset, spec_of(dataset, "stretch"), side=64)
    assert not planes.native
    plane = planes[0]
    assert plane.image.shape == (2, 64, 64)
    expected = np.zeros((64, 64), int)
    expected[16:48, 16:48] = 7
    assert np.array_equal(plane.labels, expected)
    # The image runs evenly from one pixel's middle to the next one's: half at the outline.
    for line in ((0, 32), (0, slice(None), 32)):
        assert np.array_equal(plane.image[line].numpy() > 3.5, expected[line[1:]] > 0)
    assert (plane.image[0, 32, 32], plane.image[0, 0, 0]) == (pytest.approx(7), 0)


def test_labels_are_resized_to_the_nearest() -> None:
    labels = np.array([[1, 2, 3], [4, 5, 6]])
    assert resize_nearest(labels, (2, 3)).tolist() == labels.tolist()
    assert resize_nearest(labels, (4, 3)).tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]
    assert resize_nearest(labels, (1, 1)).tolist() == [[5]]
    assert resize_nearest(np.array([[1, 2, 3, 4]]), (1, 2)).tolist() == [[2, 4]]


@pytest.mark.parametrize(
    ("channels", "taken"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])]
)
def test_without_a_transfer_layer_three_channels_are_given(channels: int, taken: list[int]) -> None:
    """They are standardized by the base's numbers, not the data set's."""
    assert as_rgb(channels) == taken
    values = np.arange(channels)[:, None, None] * np.ones((1, 8, 8))
    dataset = dataset_of(sample("a", values, np.ones((8, 8))), channels=channels)
    rgb = tuple(Channel(name=name, mean=1.0, std=2.0) for name in ("red", "green", "blue"))
    spec = replace(spec_of(dataset, transfer="zeroshot"), channels=rgb)
    image = found(dataset, spec)[0].image
    assert image[:, 0, 0].tolist() == [(index - 1) / 2 for index in taken]


def test_planes_without_objects_are_left_out_and_said(caplog) -> None:
    one = np.ones((8, 8))
    samples = [sample("a", np.zeros((2, 8, 8)), one * 0), sample("b", np.ones((2, 8, 8)), one)]
    dataset = dataset_of(*samples)
    with caplog.at_level(logging.WARNING):
        planes = found(dataset, spec_of(dataset))
    assert (len(planes), planes[0].name) == (1, "b")
    assert "1 of 2 planes hold no object of at least 16 pixels of the network's in" in caplog.text
    nothing = dataset_of(samples[0], smallest=9)
    sentence = "data has no object to train on of at least 16 pixels .* and more than 9 pixels"
    with pytest.raises(ValueError, match=sentence):
        found(nothing, spec_of(nothing))


def test_only_regions_above_the_threshold_are_objects() -> None:
    """32 of 64 pixels are half of 1024 x 1024."""
    labels = np.ones((8, 8))
    labels[:4] = 2
    labels[4:, :4] = 3
    just_below = dataset_of(sample("a", np.zeros((2, 8, 8)), labels), smallest=1024 * 1024 // 4)
    assert found(just_below, spec_of(just_below))[0].objects == (2,)


def test_what_does_not_fit_into_memory_is_read_again(monkeypatch) -> None:
    times = {"a": 0, "b": 0}

    def counted(name: str) -> Sample:
        def load():
            times[name] += 1
            return np.ones((2, 8, 8), np.float32), np.ones((8, 8), np.int32)

        return Sample(name, name, load)

    monkeypatch.setattr(batches, "CACHE_BYTES", 1000)  # a plane has 2 * 256 + 256 bytes
    dataset = dataset_of(counted("a"), counted("b"))
    planes = found(dataset, spec_of(dataset))
    for index in (0, 1, 0, 1):
        assert planes[index].name == "ab"[index]
    assert times == {"a": 1, "b": 3}


def test_a_digest_tells_data_apart() -> None:
    def digest(values: np.ndarray, labels: np.ndarray) -> str:
        dataset = dataset_of(sample("a", values, labels))
        return found(dataset, spec_of(dataset)).digest

    values, labels = np.ones((2, 8, 8)), np.ones((8, 8))
    other = labels.copy()
    other[0, 0] = 0
    assert digest(values, labels) == digest(values.copy(), labels.copy())
    assert (
        len({digest(*each) for each in ((values, labels), (values * 2, labels), (values, other))})
        == 3
    )


def test_half_the_size_is_the_average_and_every_second_label() -> None:
    image = torch.tensor([[[1.0, 3.0, 5.0], [5.0, 7.0, 9.0], [2.0, 2.0, 8.0]]])
    labels = np.array([[1, 0, 2], [0, 0, 0], [3, 0, 4]], np.int32)
    half = LabeledPlane("a", image, labels, (1, 2)).halved()
    assert half.image.tolist() == [[[4.0, 7.0], [2.0, 8.0]]]
    assert half.labels.tolist() == [[1, 2], [3, 4]]
