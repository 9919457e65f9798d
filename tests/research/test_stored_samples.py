"""The stored samples are what the scenes draw, and small."""

import numpy as np
import pytest

from napari_simmat.io.files import SAMPLES
from napari_simmat.io.readers import read_image
from napari_simmat.research.stored_samples import STORED_SAMPLES


@pytest.mark.parametrize("name", STORED_SAMPLES)
def test_stored_sample_drawn_again_is_the_same(name):
    drawn, stored = STORED_SAMPLES[name](), read_image(SAMPLES / f"{name}.tif")
    assert (stored.channel_names or ()) == drawn.channels
    assert np.array_equal(read_image(SAMPLES / f"{name}_labels.tif").data, drawn.labels)
    # Another machine's arithmetic may round a few values to the next step.
    assert stored.data.shape == drawn.image.shape
    assert np.mean(stored.data != drawn.image) < 1e-3


def test_stored_samples_together_have_at_most_400_kilobytes():
    assert {path.stem.removesuffix("_labels") for path in SAMPLES.iterdir()} == set(STORED_SAMPLES)
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) <= 400_000
