"""What objects have in common: their size, and their looks beside known ground."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_simmat.engine.object_kind import ObjectKind, met_objects
from napari_simmat.progress import finish


def bright_and_striped():
    """Image (2, 100, 140) and labels: discs 1..8 are bright, 11..18 as large, and striped."""
    y, x = np.indices((100, 140))
    labels = np.zeros((100, 140), np.int32)
    for number, (row, column) in enumerate(np.ndindex(4, 4)):
        disc = (y - 14 - 24 * row) ** 2 + (x - 20 - 30 * column) ** 2 <= 8**2
        labels[disc] = number // 2 + (1 if number % 2 else 11)
    rng = np.random.default_rng(0)
    first = gaussian_filter(((labels > 0) & (labels < 10)) * 1.0, 1)
    second = (labels > 10) * (0.5 + 0.5 * np.sin(x * 2.0))
    image = np.stack([first, second]) + rng.normal(0, 0.05, (2, 100, 140))
    return image.astype(np.float32), labels


def lesson(labels):
    """Four bright discs, and a corner without objects."""
    objects = np.where(np.isin(labels, (1, 3, 5, 7)), labels, 0)
    ground = np.zeros(labels.shape, bool)
    ground[:, 125:] = True
    return objects, ground


def likeness(kind, image):
    return finish(kind.likeness_job(image))


def test_size_is_that_of_the_objects_in_the_networks_pixels():
    labels = np.zeros((60, 60), np.uint16)
    labels[:10, :10], labels[20:40, :20], labels[:10, 30:50] = 3, 40_000, 7
    kind = ObjectKind.of(labels, enlargement=4.0)
    assert kind.size.log_side == pytest.approx(np.mean(np.log([400, 1600, 800])) / 2)
    assert kind.side == pytest.approx(math.exp(kind.size.log_side))
    assert kind.looks is None
    assert likeness(kind, np.zeros((1, 60, 60), np.float32)) is None


def test_two_objects_are_no_kind():
    labels = np.zeros((30, 30), int)
    labels[:5, :5], labels[10:15, :5] = 1, 2
    with pytest.raises(ValueError, match=r"3 objects are needed .* 2 are here"):
        ObjectKind.of(labels)


def test_objects_of_other_looks_are_unlikely():
    image, labels = bright_and_striped()
    objects, ground = lesson(labels)
    kind = ObjectKind.of(objects, 1.0, image, ground)
    found = likeness(kind, image)
    for unseen in (2, 4, 6, 8):
        assert found[labels == unseen].mean() > 0.8
    for other in range(11, 19):
        assert found[labels == other].mean() < 0.5
    assert found[ground].mean() < 0.1


def test_the_same_objects_give_the_same_likeness():
    image, labels = bright_and_striped()
    objects, ground = lesson(labels)
    maps = [likeness(ObjectKind.of(objects, 1.0, image, ground), image) for _ in range(2)]
    np.testing.assert_array_equal(*maps)


@pytest.mark.slow
def test_ground_on_an_object_does_not_count():
    image, labels = bright_and_striped()
    objects, ground = lesson(labels)
    over = ground | (objects > 0)
    maps = [likeness(ObjectKind.of(objects, 1.0, image, each), image) for each in (ground, over)]
    np.testing.assert_array_equal(*maps)


def test_too_little_ground_teaches_no_looks():
    image, labels = bright_and_striped()
    objects, ground = lesson(labels)
    ground[:] = False
    ground[0, :20] = True
    assert ObjectKind.of(objects, 1.0, image, ground).looks is None


def test_known_objects_that_are_found_are_counted():
    known, found = np.zeros((40, 40), np.uint16), np.zeros((40, 40), np.int32)
    known[0:10, 0:10] = 60_000  # found with IoU 80 / 100
    found[0:10, 0:8] = 1
    known[20:30, 0:10] = 3  # 60 / 100
    found[20:30, 0:6] = 2
    known[0:10, 20:30] = 4  # as two halves
    found[0:10, 20:25], found[0:10, 25:30] = 5, 6
    known[20:30, 20:30] = 7  # within one that is larger: 100 / 130
    found[20:30, 20:33] = 9
    assert met_objects(found, known) == 2
    assert met_objects(np.zeros_like(found), known) == 0
    assert met_objects(found, np.zeros_like(known)) == 0
