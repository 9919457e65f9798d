"""Size, shape and brightness of objects, against what can be said of them by hand."""

import numpy as np
import pytest

from napari_simmat.engine.measuring.object_properties import (
    OF_CHANNEL,
    OF_STACK,
    SHAPE,
    measure_features_job,
    object_intensities,
)
from napari_simmat.progress import finish


def squares() -> tuple[np.ndarray, np.ndarray]:
    """A square of 100 at 5 and a bar of 3 at 9, on 0; labels and an image of one channel."""
    labels = np.zeros((40, 60), np.int32)
    labels[5:15, 5:15], labels[20:23, 10:50] = 5, 9
    image = np.zeros((1, 40, 60))
    image[0][labels == 5], image[0][labels == 9] = 100, 3
    return labels, image


def test_shape_of_a_square_and_a_bar():
    labels, _ = squares()
    features = finish(measure_features_job(labels))
    assert features.ids == (5, 9)
    assert features.names == (*SHAPE, *OF_STACK)
    square, bar = (dict(zip(features.names, row, strict=True)) for row in features.values)
    assert np.exp(square["log area"]) == pytest.approx(100)
    assert np.exp(bar["log area"]) == pytest.approx(120)
    assert square["eccentricity"] == pytest.approx(0)
    assert bar["eccentricity"] > 0.99
    assert square["solidity"] == square["share of its box"] == 1
    assert square["log planes"] == 0
    assert features.appearance is None


def test_a_ring_fills_less_than_its_outline():
    labels, _ = squares()
    labels[8:12, 8:12] = 0
    features = finish(measure_features_job(labels))
    share = features.values[0][features.names.index("share of its filled outline")]
    assert share == pytest.approx(84 / 100)


def test_brightness_is_compared_with_the_plane_and_with_the_ring():
    labels, image = squares()
    square, bar = object_intensities(image, labels)
    assert (square.label, square.area, bar.label) == (5, 100, 9)
    assert square.mean[0] == pytest.approx((100 - image.mean()) / image.std(), rel=1e-4)
    assert square.difference[0] == pytest.approx(100 / image.std(), rel=1e-4)
    assert square.deviation[0] == pytest.approx(0)


def test_units_of_a_channel_do_not_matter():
    labels, image = squares()
    one, tiny = (
        finish(measure_features_job(labels, lambda _, scale=scale: scale * image, 1))
        for scale in (1.0, 1e-12)
    )
    np.testing.assert_allclose(one.values, tiny.values, atol=1e-6)
    assert one.names[len(SHAPE) : -len(OF_STACK)] == tuple(f"{each} 0" for each in OF_CHANNEL)


def test_features_of_planes_are_averaged_by_pixels():
    """Object 5 has 100 pixels at 100 on a plane and 50 at 10 on another, with a deviation of 1."""
    labels, _ = squares()
    stack = np.stack([labels, np.where(np.arange(60) < 10, labels, 0), 0 * labels])
    read: list[tuple[int, ...]] = []

    def plane(at: tuple[int, ...]) -> np.ndarray:
        read.append(at)
        return np.random.default_rng(at[0]).normal(size=(1, *labels.shape))

    features = finish(measure_features_job(stack, plane, 1))
    row = dict(zip(features.names, features.values[0], strict=True))
    assert read == [(0,), (1,)], "a plane without objects is not read"
    assert np.exp(row["log volume"]) == pytest.approx(150)
    assert np.exp(row["log planes"]) == pytest.approx(2)
    assert row["log area"] == pytest.approx((100 * np.log(100) + 50 * np.log(50)) / 150)


def test_a_pixel_has_all_features_without_a_warning():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4], labels[0, 2:6] = 1, 2
    features = finish(measure_features_job(labels, lambda _: np.ones((1, 9, 9)), 1))
    assert np.isfinite(features.values).all()


def test_no_objects_have_no_features():
    features = finish(measure_features_job(np.zeros((3, 9, 9), np.int32)))
    assert features.ids == ()
    assert features.values.shape == (0, len(features.names))
