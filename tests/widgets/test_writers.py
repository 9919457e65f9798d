"""Labels that napari's *Save Selected Layers* writes."""

from importlib.metadata import version

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from npe2 import PluginManifest

from napari_simmat.io.readers import read_labels
from napari_simmat.widgets.writers import write_labels

LABELS = np.zeros((2, 6, 8), np.int32)
LABELS[0, 1:4, 2:5], LABELS[1, 3, 3] = 7, 300


@pytest.fixture
def both(npe2pm):
    """The plugin after napari's own readers and writers, which napari knows first."""
    if tuple(map(int, version("npe2").split(".")[:2])) < (0, 10):
        pytest.skip("npe2 looks at all of an ending since 0.10")
    own, plugin = map(PluginManifest.from_distribution, ("napari", "napari-simmat"))
    with npe2pm.tmp_plugin(own), npe2pm.tmp_plugin(plugin):
        yield


@pytest.mark.parametrize("ending", ["ome.tif", "ome.tiff", "OME.TIF"])
def test_labels_saved_by_napari_keep_their_pixel_size(both, tmp_path, ending):
    viewer = ViewerModel()
    layer = viewer.add_labels(
        LABELS, scale=(2, 0.5, 0.25), units=("um", "um", "um"), axis_labels=("z", "y", "x")
    )
    [path] = layer.save(str(tmp_path / f"cells.{ending}"))
    saved = read_labels(tmp_path / f"cells.{ending}")
    assert path.endswith(ending)
    np.testing.assert_array_equal(saved.data, LABELS)
    assert saved.axes == "ZYX"
    assert saved.reference.scale == {"Z": 2, "Y": 0.5, "X": 0.25}
    assert set(saved.reference.units.values()) == {"um"}


@pytest.mark.parametrize("name", ["cells", "cells.tif"])
def test_labels_saved_by_napari_as_tiff_stay_with_napari(both, tmp_path, name):
    layer = ViewerModel().add_labels(LABELS)
    layer.save(str(tmp_path / name))
    with tifffile.TiffFile(tmp_path / "cells.tif") as file:
        assert not file.is_ome


def test_labels_below_zero_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Layer 'a' holds the label -1; labels are whole numbers"):
        write_labels(str(tmp_path / "a.ome.tif"), -LABELS.clip(0, 1), {"name": "a"})
    assert not list(tmp_path.iterdir())
