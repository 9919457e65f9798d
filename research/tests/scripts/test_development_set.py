"""The script of the development set: its outlines fit its images."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data as skimage_data
from skimage.draw import polygon2mask

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "development_set.py"
SHAPES = {
    "stereo_motorcycle": (500, 741),
    "depth_motorcycle": (500, 741),
    "thermal_flower": (480, 640),
    "polarization_camera": (512, 612),
    "polarization_parts": (512, 612),
    "coffee": skimage_data.coffee().shape[:2],
    "moon": skimage_data.moon().shape,
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("development_set", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_outlines_lie_in_their_images_without_overlap(script):
    assert set(script.OUTLINES) == set(SHAPES)
    assert set(SHAPES) <= set(script.ENTRIES)
    for name, polygons in script.OUTLINES.items():
        labels = script.drawn(name, SHAPES[name])
        for number, (called, polygon) in enumerate(polygons.items(), start=1):
            corners = np.array(polygon)
            assert corners.ndim == 2, (name, called)
            assert len(corners) >= 4
            assert (corners >= 0).all()
            assert (corners < SHAPES[name]).all()
            alone = polygon2mask(SHAPES[name], corners)
            assert (labels == number).sum() == pytest.approx(alone.sum(), rel=0.05), called
            assert alone.sum() >= 100


def test_entries_that_lend_textures_are_marked(script):
    from simmat_research.textures import PHOTOGRAPHS

    assert {name for name, entry in script.ENTRIES.items() if entry.texture} == {
        name for name in script.ENTRIES if name in PHOTOGRAPHS
    }
    assert script.readme().count("Texture seen in training.*") == 4


@pytest.mark.parametrize("name", ["cell", "shepp_logan_phantom", "stereo_motorcycle", "moon"])
def test_entry_of_scikit_image_has_labels_of_its_size(script, name):
    image, labels = script.ENTRIES[name].make()
    assert labels.shape == image.shape[:2]
    assert labels.dtype == np.uint16
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    assert ids.tolist() == list(range(1, len(ids) + 1))
    assert areas.min() >= 50
