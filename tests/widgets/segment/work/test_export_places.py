"""Where the pixels are: from a file dropped on napari to saved labels, read by other programs."""

from importlib.resources import files

import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels
from npe2 import PluginManifest
from qtpy.QtWidgets import QDoubleSpinBox
from skimage.io import imsave

from napari_simmat.annotation.channel_choice import LayerChannel, all_layer_channels
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.objects import write_objects
from napari_simmat.io.readers import read_image
from napari_simmat.io.reference import ImageReference
from napari_simmat.widgets.controls import ComboBox
from napari_simmat.widgets.layer_data import CHANNEL, channel_axis, layer_info
from napari_simmat.widgets.placement import level_matrix, reference_of
from napari_simmat.widgets.readers import get_reader
from napari_simmat.widgets.segment.work.arrangement import RESAMPLE
from tests.io.places import (
    CENTER,
    LEFT,
    PIXEL,
    PLACES,
    SAVED,
    TOP,
    check_geotiff,
    make_geotiff,
    make_map_in,
    make_masked,
    make_ome_zarr,
    plane,
    theirs,
)
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, gray
from tests.widgets.segment.noted import save_as

BANDS = ("blue", "green", "red", "nir", "swir")


@pytest.fixture(autouse=True)
def plugins(npe2pm):
    """napari knows its own readers and those of this package."""
    own = PluginManifest.from_file(str(files("napari_builtins") / "builtins.yaml"))
    this = PluginManifest.from_distribution("napari-simmat")
    with npe2pm.tmp_plugin(this), npe2pm.tmp_plugin(own):
        yield


def click_on(window, path):
    """Open a file as napari does for its name, click on its disc, commit."""
    plugin = "napari" if path.suffix == ".tif" else "napari-simmat"
    [layer] = window.viewer.open([path], plugin=plugin)
    window.start()
    at = np.array([*(1,) * (layer.ndim - 2), *CENTER])
    world = np.asarray(layer.data_to_world(at))
    window.viewer.dims.point = tuple(world)
    window.idle()
    window.add_object(*world[-2:])
    return layer


@pytest.mark.parametrize("name", nightly_but(SAVED, "nifti", "nrrd", "dicom"))
def test_save_keeps_the_place_of_the_image(window, tmp_path, monkeypatch, name):
    make, labels, check = SAVED[name]
    path = make(tmp_path)
    click_on(window, path)
    save_as(monkeypatch, tmp_path / labels)
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    check(path, tmp_path / labels)


def test_status_names_the_plane_of_a_patient(window, tmp_path):
    window.viewer.open([PLACES["nifti"][0](tmp_path)], plugin="napari-simmat")
    window.start()
    assert "Oblique axial plane, R on the left, A at the top." in window.status.text
    window.viewer.dims.order = (1, 0, 2)
    window.idle()
    assert "Oblique coronal plane, R on the left, S at the top." in window.status.text


def test_save_offers_a_name_that_keeps_the_place(window, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    path = PLACES["nifti"][0](tmp_path)
    click_on(window, path)
    offered = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *given: offered.extend(given[2:]) or ("", "")
    )
    window.tab.act("save")
    assert offered[0] == str(path.with_name("scan_labels.nii.gz"))
    assert offered[1].startswith("Label image (NIfTI) (*.nii.gz);;Label image (OME-TIFF)")


@pytest.mark.parametrize("name", ["discs.tif", "discs.png"])
def test_save_is_offered_beside_an_image_that_napari_read(window, tmp_path, monkeypatch, name):
    from qtpy.QtWidgets import QFileDialog

    imsave(tmp_path / name, gray())
    window.viewer.open(tmp_path / name, plugin="napari")
    window.start()
    window.add_object(*CENTERS[0])
    offered = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *given: offered.extend(given[2:]) or ("", "")
    )
    window.tab.act("save")
    assert offered[0] == str(tmp_path / "discs_labels.tif")


def test_channel_without_data_is_missing_in_the_window(window, tmp_path):
    values = plane().astype(np.int16)
    values[:, 50:] = -9999
    path = make_geotiff(tmp_path, dtype="int16", values=values[None], nodata=-9999)
    click_on(window, path)
    image = window.workspace.viewed_image()
    seen = np.asarray(image.all_arrays[0])
    assert np.isnan(seen[:, 50:]).all()
    np.testing.assert_array_equal(seen[:, :50], values[:, :50])


def test_save_of_an_ome_zarr_names_its_image(window, tmp_path, monkeypatch, npe2pm):
    image = tmp_path / "images" / "a.ome.zarr"
    root = zarr.open_group(image, mode="w", zarr_format=3)
    root.create_array("0", data=plane(), dimension_names=("y", "x"))
    axes = [{"name": name, "type": "space"} for name in "yx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    with npe2pm.tmp_plugin(PluginManifest.from_distribution("napari-ome-zarr")):
        window.viewer.open([image], plugin="napari-ome-zarr")
    window.start()
    window.add_object(*CENTER)
    save_as(monkeypatch, tmp_path / "results" / "a_labels.ome.zarr")
    (tmp_path / "results").mkdir()
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    [saved] = (tmp_path / "results").glob("*.ome.zarr")
    label = zarr.open_group(saved, mode="r").attrs["ome"]["image-label"]
    assert label["source"] == {"image": "../../images/a.ome.zarr"}


@pytest.mark.parametrize("version", nightly_but(("0.4", "0.5", "0.6"), "0.5"))
def test_save_of_ome_zarr_keeps_where_it_begins(window, tmp_path, monkeypatch, npe2pm, version):
    models = pytest.importorskip("ome_zarr_models.v05.image_label")
    # Its reader looks two folders up as well.
    image = make_ome_zarr(tmp_path / "images" / "deep" / "cells.ome.zarr", version)
    with npe2pm.tmp_plugin(PluginManifest.from_distribution("napari-ome-zarr")):
        [layer] = window.viewer.open([image], plugin="napari-ome-zarr")
    window.start()
    world = np.asarray(layer.data_to_world((1, *CENTER)))
    window.viewer.dims.point = tuple(world)
    window.idle()
    window.add_object(*world[-2:])
    save_as(monkeypatch, tmp_path / "cells_labels.ome.zarr")
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    group = zarr.open_group(tmp_path / "cells_labels.ome.zarr", mode="r")
    [multiscale] = models.ImageLabel.from_zarr(group).attributes.ome.multiscales
    scale, translation = multiscale.datasets[0].coordinateTransformations
    assert (scale.scale, translation.translation) == ([2, 0.5, 0.25], [10, 200, -30])
    inside = np.argwhere(np.asarray(group["0"])[1] > 0).mean(axis=0)
    np.testing.assert_allclose(inside, CENTER, atol=2)


def test_masked_pixels_are_missing_in_the_window(window, tmp_path):
    click_on(window, make_masked(tmp_path, 1))
    seen = np.asarray(window.workspace.viewed_image().all_arrays[0])
    assert np.isnan(seen[:20]).all()
    np.testing.assert_array_equal(seen[20:], plane()[20:])


@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".nrrd", ".mha", ".ome.zarr"])
def test_saved_labels_open_as_labels_with_classes(tmp_path, ending):
    labels = np.zeros((3, 40, 50), np.uint16)
    labels[1, 5:15, 5:20], labels[2, 20:30, 30:40] = 4, 9
    scale = {"Z": 3.0, "Y": 0.5, "X": 0.25}
    reference = ImageReference(scale=scale, units=dict.fromkeys("ZYX", "mm"))
    objects = ObjectSet.of_labels(labels, "ZYX", categories={4: "lesion"}, reference=reference)
    path = tmp_path / f"scan_labels{ending}"
    write_objects(path, objects)
    (tmp_path / "scan_objects.csv").write_text("label,class,score\n4,lesion,0.9\n")
    viewer = ViewerModel()
    [layer] = viewer.open([path], plugin="napari-simmat")
    assert isinstance(layer, Labels)
    np.testing.assert_array_equal(layer.data, labels)
    [unit] = {f"{unit:~}" for unit in layer.units}
    np.testing.assert_allclose(layer.scale, [3, 0.5, 0.25], rtol=1e-6)
    assert unit == "mm"
    classes = dict(zip(layer.features["index"], layer.features["class"], strict=True))
    assert classes == {0: "", 4: "lesion", 9: ""}


def test_label_tiff_of_another_program_opens_as_in_napari(tmp_path):
    path = str(tmp_path / "a_labels.tif")
    tifffile.imwrite(path, plane())
    [(data, _, kind)] = get_reader(path)(path)
    assert kind == "image"
    np.testing.assert_array_equal(data, plane())


def test_bands_are_listed_by_name_and_a_map_is_loaded_again(window, tmp_path):
    path = make_geotiff(tmp_path, 5, names=BANDS, interleave="band", photometric="minisblack")
    [layer] = window.viewer.open([path], plugin="napari")
    layer.axis_labels = (CHANNEL, "y", "x")
    titles = [title for title, _ in all_layer_channels([layer_info(layer)])]
    assert titles[1:] == [f"{layer.name} · {name}" for name in BANDS]
    window.start()
    labels = np.zeros((64, 72), np.uint16)
    labels[10:20, 30:50] = 4
    written = ObjectSet.of_labels(labels, "YX", reference=reference_of(layer))
    write_objects(tmp_path / "map_map.geojson", written)
    window.tab.loader.load(tmp_path / "map_map.geojson")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Loaded 1 object"))
    np.testing.assert_array_equal(window.objects > 0, labels > 0)


@pytest.mark.parametrize("made", ["derived", "moved"])
def test_channels_made_of_a_map_stay_on_it(window, tmp_path, monkeypatch, made):
    values = np.stack([plane(), 2 * plane()])
    path = make_geotiff(tmp_path, 2, values=values, interleave="band", photometric="minisblack")
    [layer] = window.viewer.open([path], plugin="napari")
    layer.axis_labels = (CHANNEL, "y", "x")
    window.start()
    if made == "derived":
        window.tab.channel_panel.derived.emit("ndvi")
        for number, field in enumerate(window.tab.channel_tools.dialog.findChildren(ComboBox)):
            field.setCurrentIndex(number + 1)  # the first is the whole layer
    else:
        channels = [LayerChannel(str(layer.unique_id), n) for n in (0, 1, 0)]
        window.tab.channels.set_value(channels)
        window.tab.channel_panel.registered.emit("shift")
        window.idle()
        fields = window.tab.channel_tools.dialog.findChildren(QDoubleSpinBox)
        fields[2].setValue(2)
    window.tab.channel_tools.dialog.accept()
    window.idle()
    window.viewer.layers.remove(layer)
    window.idle()
    [left] = [each for each in window.viewer.layers if isinstance(each, Image)]
    assert reference_of(left).world.epsg == 32633
    window.add_object(*CENTER)
    save_as(monkeypatch, tmp_path / "made_labels.tif")
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    check_geotiff(path, tmp_path / "made_labels.tif")


def test_labels_of_a_coarse_level_stay_on_the_map(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    world = read_image(make_geotiff(tmp_path)).world
    coarse = world.at_level(level_matrix(np.array([4, 2, 1])))
    objects = ObjectSet.of_labels(
        np.ones((32, 18), np.uint8), "YX", reference=ImageReference(world=coarse)
    )
    write_objects(tmp_path / "a_labels.tif", objects)
    with theirs(), rasterio.open(tmp_path / "a_labels.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == (4 * PIXEL, 0, LEFT, 0, -2 * PIXEL, TOP)


@pytest.mark.parametrize("bands", [4, 6])
def test_bands_along_the_last_axis_are_moved_to_the_front(window, tmp_path, bands):
    values = np.stack([plane() + n for n in range(bands)])
    path = make_geotiff(
        tmp_path, bands, values=values, interleave="pixel", photometric="minisblack"
    )
    [layer] = window.viewer.open([path], plugin="napari")
    window.start()
    assert channel_axis(layer) == 2
    assert ("for colors and transparency, mostly black" in window.status.text) == layer.rgb
    assert layer.rgb == (bands == 4)
    window.controller.arrangement.move_channels(layer, 2)
    window.idle()
    [moved] = [each for each in window.viewer.layers if each.name == layer.name]
    np.testing.assert_array_equal(np.asarray(moved.data), values)
    assert moved.axis_labels[0] == CHANNEL
    assert reference_of(moved).world.epsg == 32633


def test_maps_of_two_systems_are_not_resampled(window, tmp_path):
    first, second = make_geotiff(tmp_path), make_map_in(tmp_path, "other.tif", "EPSG:32632", LEFT)
    layers = window.viewer.open([first, second], plugin="napari")
    window.start()
    proposed = window.controller.arrangement.proposed(layers)
    assert proposed.offer == RESAMPLE
    assert "other lies elsewhere" in proposed.text
    proposed.act()
    window.qtbot.waitUntil(lambda: window.status.kind == "failed")
    assert "lies in EPSG:32632, but another in EPSG:32633; bring both" in window.status.text
    assert layers[1] in window.viewer.layers
