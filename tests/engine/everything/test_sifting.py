"""Objects like the committed ones: kept or left out for a reason that is told."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_simmat.engine.everything.candidates import Instances
from napari_simmat.engine.everything.sifting import ALL_ALIKE, measure_properties, sift
from napari_simmat.engine.predictor import Predictor


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Eight bright disks of equal size, a wide one, a dark one, two striped; (1, 160, 160)."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 4, (160, 160))
    labels = np.zeros((160, 160), np.uint32)
    rows, columns = np.mgrid[:160, :160]
    for number in range(12):
        y, x = 22 + 40 * (number // 4), 20 + 40 * (number % 4)
        radius = 18 if number == 8 else 8 + number % 2
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        image[disk] += -70 if number == 9 else 70
        if number >= 10:
            image[disk] += 60 * np.sign(np.sin(rows[disk] * 2.0))
        labels[disk] = number + 1
    return image[None].clip(0, 255).astype(np.float32), labels


def properties(image: np.ndarray, labels: np.ndarray, embedding: np.ndarray | None = None):
    """With an embedding that tells stripes from even surfaces."""
    if embedding is None:
        cells = image[0].reshape(40, 4, 40, 4)
        embedding = np.stack([np.ones((40, 40)), cells.std((1, 3)) / 20])
    stack = SimpleNamespace(normalized=lambda index: image)
    return measure_properties(SimpleNamespace(stack=stack, embedding=embedding), labels)


def test_sift_leaves_out_unlike_objects_with_reasons():
    image, labels = scene()
    found = Instances(labels, np.linspace(0.5, 0.9, 12, dtype=np.float32))
    ours = properties(image, labels)
    committed = properties(image, np.where(labels <= 4, labels, 0))
    kept = sift(found, ours, committed)
    assert kept.kept == (1, 2, 3, 4, 5, 6, 7, 8)
    assert kept.left_out == {"size": 1, "intensity": 1, "appearance": 2}
    assert "8 of 12 objects" in kept.sentence
    assert "size 1, intensity 1, appearance 2" in kept.sentence
    np.testing.assert_array_equal(kept.instances.scores, found.scores[:8])
    np.testing.assert_array_equal(kept.instances.labels, np.where(labels <= 8, labels, 0))


def test_sift_keeps_the_committed_objects():
    image, labels = scene()
    everything = properties(image, labels)
    kept = sift(Instances(labels, np.ones(12, np.float32)), everything, everything)
    assert len(kept.kept) == 12
    assert kept.sentence == ALL_ALIKE.format("12 objects")


def test_sift_of_two_examples_is_refused():
    image, labels = scene()
    two = properties(image, np.where(labels <= 2, labels, 0))
    with pytest.raises(ValueError, match=r"Three committed objects are needed.*2 are here"):
        sift(Instances(labels, np.ones(12, np.float32)), properties(image, labels), two)


@pytest.mark.usefixtures("nano")
def test_embedding_covers_the_plane_without_padding(nano_base):
    image, labels = scene()
    predictor = Predictor(nano_base, "cpu")
    predictor.set_image(image[0, :150, :100])
    assert predictor.embedding.shape[1:] == (19, 12)  # cells of 8 pixels; 160 x 128 are encoded
    measured = measure_properties(predictor, labels[:150, :100])
    assert measured.vectors["appearance"].shape == (len(measured.ids), 32)
    np.testing.assert_allclose(np.linalg.norm(measured.vectors["appearance"], axis=1), 1, rtol=1e-6)
