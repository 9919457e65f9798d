"""Whole slides opened in napari: levels by zoom, clicks at a level, masks where they belong."""

from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers._source import layer_source
from napari_builtins.io import napari_get_reader
from npe2 import PluginManager

from napari_simmat.widgets import placement, readers
from napari_simmat.widgets.placement import REFERENCE
from napari_simmat.widgets.readers import read_layers
from napari_simmat.widgets.segment.work.arrangement import FLAT, OPEN_LEVELS
from tests.slides import (
    MPP,
    NUCLEI,
    drawn_slide,
    write_generic,
    write_ndpi,
    write_ome,
    write_scn,
    write_svs,
)

COLORS = drawn_slide()
pytestmark = pytest.mark.usefixtures("plugin")


@pytest.mark.parametrize(
    ("write", "name", "shapes"),
    [
        (write_svs, "a.svs", [(1024, 1536), (256, 384), (64, 96)]),
        (write_ndpi, "a.ndpi", [(1024, 1536), (256, 384), (64, 96)]),
        (write_scn, "a.scn", [(1024, 1536), (256, 384)]),
        (write_ome, "a.ome.tif", [(1024, 1536), (256, 384), (64, 96)]),
        (write_ome, "a.b.OME.TIFF", [(1024, 1536), (256, 384), (64, 96)]),
    ],
)
def test_slide_is_a_layer_of_its_levels(tmp_path, write, name, shapes):
    viewer = ViewerModel()
    [layer] = viewer.open(write(tmp_path / name, COLORS), plugin="napari-simmat")
    assert layer.multiscale
    assert layer.rgb
    assert [level.shape[:2] for level in layer.data] == shapes
    assert layer.scale.tolist() == pytest.approx([MPP, MPP])
    assert [f"{unit:~}" for unit in layer.units] == ["µm", "µm"]
    part = np.asarray(layer.data[0][280:320, 280:320])
    assert np.abs(part.astype(int) - COLORS[280:320, 280:320]).mean() < 4
    assert layer.metadata[REFERENCE].scale["X"] == pytest.approx(MPP)


def write_stains(path, levels=3):
    """An OME-TIFF of two stains (C, Y, X), as MCMICRO writes them."""
    stains = np.moveaxis(COLORS[..., :2], -1, 0).astype(np.uint16) * 16
    with tifffile.TiffWriter(path, ome=True) as file:
        about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD45"]}}
        file.write(stains, subifds=levels - 1, metadata=about, tile=(256, 256))
        for level in range(1, levels):
            file.write(stains[:, :: 4**level, :: 4**level], subfiletype=1, tile=(256, 256))
    return path


def test_pyramid_of_stains_is_a_layer_of_channels_and_levels(tmp_path):
    viewer = ViewerModel()
    [layer] = viewer.open(write_stains(tmp_path / "a.ome.tif"), plugin="napari-simmat")
    assert layer.multiscale
    assert not layer.rgb
    assert [level.shape for level in layer.data] == [(2, 1024, 1536), (2, 256, 384), (2, 64, 96)]
    assert layer.axis_labels == ("channel", "y", "x")
    low, high = layer.contrast_limits
    assert 60 * 16 <= low < high <= 245 * 16
    assert layer.metadata[REFERENCE].channels == ("DAPI", "CD45")


@pytest.mark.parametrize("name", ["flat.ome.tif", "theirs_labels.tif"])
def test_file_that_is_given_to_this_reader_is_read(tmp_path, name):
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    tifffile.imwrite(tmp_path / name, values)
    [layer] = ViewerModel().open(tmp_path / name, plugin="napari-simmat")
    np.testing.assert_array_equal(layer.data, values)


def test_names_of_other_tiff_files_are_left_to_napari():
    manager = PluginManager.instance()
    assert not [*manager.iter_compatible_readers(["a.tif"])]
    assert [*manager.iter_compatible_readers(["a.ome.tif"])]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_pyramid_that_napari_has_read_is_opened_in_levels(window, tmp_path, name, monkeypatch):
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 400)
    write = write_ome if "ome" in name else write_generic
    path = str(write(tmp_path / name, COLORS))
    with layer_source(path=path, reader_plugin="napari"):
        [(data,)] = napari_get_reader(path)(path)
        layer = window.viewer.add_image(data, name="slide")
    window.start()
    assert FLAT.format(file=name, image="slide") in window.status.text
    assert window.status.offer == OPEN_LEVELS
    window.push(window.tab.status.offer)
    [whole] = window.viewer.layers[:1]
    assert whole.multiscale
    assert whole.name == layer.name
    assert layer not in window.viewer.layers
    assert "Level 1 of 0 to 2" in window.status.text
    assert window.workspace.session.geometry.shape == (256, 384)


def test_status_says_how_large_a_pixel_is(tmp_path, monkeypatch):
    viewer: Any = ViewerModel()
    monkeypatch.setattr(readers.napari, "current_viewer", lambda: viewer)
    read_layers(str(write_svs(tmp_path / "a.svs", COLORS)))
    assert viewer.status == "a.svs: A slide of Aperio, objective 40x, 0.25 um to a pixel."


def test_click_on_a_coarse_level_of_a_slide(window, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 400)
    [(data, options, _)] = read_layers(str(write_svs(tmp_path / "a.svs", COLORS, steps=(2, 4))))
    window.open(data, **options)
    assert "Level 2 of 0 to 2" in window.status.text
    window.choose(window.tab.level, "1: 512 x 768 pixels")
    y, x = NUCLEI[2]
    window.click(y * MPP, x * MPP)
    window.commit()
    objects = window.viewer.layers["SimMAT objects"]
    assert objects.data.shape == (512, 768)
    assert objects.get_value((y * MPP, x * MPP), world=True) == 1
    # The click means the piece of tissue, in whose middle it is not.
    found = np.argwhere(objects.data == 1).mean(0) * 2 + 0.5
    np.testing.assert_allclose(found, (375, 425), atol=3)


@pytest.mark.slow
@pytest.mark.real_window
def test_levels_of_a_slide_follow_the_zoom(window, tmp_path):
    [(data, options, _)] = read_layers(str(write_svs(tmp_path / "a.svs", COLORS)))
    viewer = window.viewer
    layer = viewer.add_image(data, **options)
    viewer.reset_view()
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    camera.zoom = 0.5
    window.qtbot.waitUntil(lambda: layer.data_level > 0, timeout=10_000)
    camera.center = (0, NUCLEI[0][0] * MPP, NUCLEI[0][1] * MPP)
    camera.zoom = 12
    window.qtbot.waitUntil(lambda: layer.data_level == 0, timeout=10_000)
