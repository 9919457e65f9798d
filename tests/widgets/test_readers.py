"""NIfTI and DICOM opened in napari by the package's reader."""

from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
from napari.components import ViewerModel

from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.widgets.layer_data import CHANNEL
from napari_simmat.widgets.readers import (
    ALREADY_OPEN,
    COMPLEX_VALUES,
    get_reader,
    image_layer_data,
)
from tests.io.test_dicom import VOLUME, write_slice
from tests.widgets.scenes import CENTERS, discs, gray

nibabel: Any = pytest.importorskip("nibabel")
PLUGIN = "napari-simmat"
pytestmark = pytest.mark.usefixtures("plugin")


def opened(*paths: Path, stack: bool = False) -> list[Any]:
    return ViewerModel().open([*paths], stack=stack, plugin=PLUGIN)


def write_nifti(path: Path, data: np.ndarray, zooms: tuple[float, ...], *units: str) -> Path:
    """Write (X, Y, ...) data."""
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units(*units)
    nibabel.save(image, path)
    return path


@pytest.fixture
def series(tmp_path):
    """A folder with four slices."""
    for z, plane in enumerate(VOLUME):
        write_slice(tmp_path / "head.1" / f"{9 - z}.dcm", plane, z + 1)
    return tmp_path / "head.1"


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII"])
def test_nifti_layer_has_voxel_size_units_and_axes(tmp_path, name):
    stored = np.arange(7 * 6 * 5 * 2, dtype=np.int16).reshape(7, 6, 5, 2)  # x, y, z, t
    [layer] = opened(write_nifti(tmp_path / name, stored, (2, 3, 4, 1.5), "mm", "sec"))
    assert isinstance(layer, napari.layers.Image)
    np.testing.assert_array_equal(layer.data, stored.T)
    assert isinstance(layer.data, np.memmap) == name.lower().endswith(".nii"), "read when shown"
    assert layer.name.lower() == "scan"
    assert layer.axis_labels == ("t", "z", "y", "x")
    assert layer.scale.tolist() == [1.5, 4, 3, 2]
    assert [f"{unit:~}" for unit in layer.units] == ["s", "mm", "mm", "mm"]
    low, high = layer.contrast_limits
    assert 0 <= low < 2
    assert stored.max() - 2 < high <= stored.max()


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("scan_seg.nii.gz", np.eye(6, dtype=np.uint8), "labels"),
        ("scan_mask.nii", 2.0 * np.eye(6, dtype=np.float32), "labels"),
        ("scan_mask.nii", 0.5 * np.eye(6, dtype=np.float32), "image"),
        ("segments.nii", np.eye(6, dtype=np.uint8), "image"),
    ],
)
def test_labels_of_another_program_lie_on_the_scan(tmp_path, name, values, kind):
    stored = np.stack([values, 0 * values], axis=2)  # x, y, z
    [layer] = opened(write_nifti(tmp_path / name, stored, (2, 3, 4), "mm"))
    assert layer._type_string == kind
    np.testing.assert_array_equal(layer.data, stored.T)
    assert layer.scale.tolist() == [4, 3, 2]
    assert {f"{unit:~}" for unit in layer.units} == {"mm"}


def test_nifti_without_voxel_size_has_pixels(tmp_path):
    [layer] = opened(write_nifti(tmp_path / "a.nii", np.eye(6, dtype=np.uint8), (1, 1), "unknown"))
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert layer.contrast_limits == [0, 1]


def test_nifti_channels_become_the_first_axis(tmp_path):
    stored = np.random.default_rng(0).normal(size=(7, 6, 5, 1, 3)).astype(np.float32)
    [layer] = opened(write_nifti(tmp_path / "a.nii", stored, (2, 3, 4, 1, 1), "mm"))
    assert layer.axis_labels == (CHANNEL, "z", "y", "x"), "one time is a placeholder"
    assert layer.data.shape == (3, 5, 6, 7)
    assert layer.scale.tolist() == [1, 4, 3, 2]


def test_contrast_of_outliers_and_nan_ignores_them(tmp_path):
    stored = np.random.default_rng(0).uniform(100, 200, (40, 40, 5)).astype(np.float32)
    stored[0, 0, :2], stored[1, 1, 0] = 1e6, np.nan
    [layer] = opened(write_nifti(tmp_path / "a.nii", stored, (1, 1, 1)))
    low, high = layer.contrast_limits
    assert 100 <= low < 101
    assert 199 < high <= 200


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_contrast_of_an_even_image_is_naparis(tmp_path, value):
    stored = np.full((4, 5, 3), value, dtype=np.float32)
    with np.errstate(all="ignore"):
        [layer] = opened(write_nifti(tmp_path / "a.nii", stored, (1, 1, 1)))
    assert layer.data.shape == (3, 5, 4)


def test_folder_with_one_series_becomes_one_layer(series):
    [layer] = opened(series)
    np.testing.assert_array_equal(layer.data, VOLUME)
    assert layer.name == "head.1"
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.scale.tolist() == [3, 0.5, 0.25]
    assert {f"{unit:~}" for unit in layer.units} == {"mm"}
    assert "Doe" not in repr(layer.metadata)


def test_series_is_shown_in_the_window_of_its_file(tmp_path, monkeypatch):
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    for z, plane in enumerate(VOLUME):
        window = {"WindowCenter": 400 + z, "WindowWidth": 200}
        write_slice(tmp_path / "ct" / f"{z}.dcm", plane, z + 1, **window)
    [layer] = viewer.open(tmp_path / "ct", plugin=PLUGIN)
    assert layer.contrast_limits == [302, 502], "of the middle slice"
    low, high = layer.contrast_limits_range
    assert low < 20, "the slider goes on"
    assert high > 980


def test_slice_stands_for_its_series_once(series):
    [layer] = opened(series / "7.dcm")
    np.testing.assert_array_equal(layer.data, VOLUME)
    assert layer.name == "7"
    [layer] = opened(*sorted(series.iterdir()), stack=True)
    np.testing.assert_array_equal(layer.data, VOLUME)


def test_large_series_is_read_when_shown(series):
    viewer = ViewerModel()
    layer = viewer._add_layer_from_data(*image_layer_data(read_image(series, lazy_above=0)))[0]
    assert not isinstance(layer.data, np.ndarray)
    assert layer.contrast_limits == opened(series)[0].contrast_limits
    viewer.dims.set_point(0, 6.0)
    np.testing.assert_array_equal(layer._data_view, VOLUME[2])


def test_folder_with_two_series_becomes_two_layers(series):
    write_slice(series / "other.dcm", VOLUME[0] + 1, series="1.2.4")
    layers = opened(series)
    assert [layer.name for layer in layers] == ["6", "other"]
    np.testing.assert_array_equal(layers[1].data, VOLUME[0] + 1)


def test_slices_dropped_together_become_one_layer(series, monkeypatch):
    """napari opens each of them on its own."""
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    slices = sorted(series.iterdir())
    assert len(viewer.open(slices, plugin=PLUGIN)) == 1
    viewer.add_image(VOLUME, name="another")
    assert viewer.open(slices[2], plugin=PLUGIN) == []
    assert viewer.status == ALREADY_OPEN.format("8.dcm", "6")
    assert viewer.layers.selection.active is viewer.layers["6"]
    viewer.layers.remove("6")
    assert len(viewer.open(slices[2], plugin=PLUGIN)) == 1


def test_dicom_with_colors_is_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    colors = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 6, "Columns": 8}
    write_slice(tmp_path / "skin.dcm", pixels, **colors, **bits)
    [layer] = opened(tmp_path / "skin.dcm")
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, pixels)
    assert layer.axis_labels == ("y", "x")
    assert layer.scale.tolist() == [0.5, 0.25]


def test_unreadable_file_is_refused_in_one_sentence(tmp_path, series):
    (tmp_path / "notes.dcm").write_text("no image")
    with pytest.raises(ValueError, match=r"^Cannot read notes\.dcm: unsupported file type"):
        opened(tmp_path / "notes.dcm")
    (series / "9.dcm").write_bytes((series / "9.dcm").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"^The pixels of 9\.dcm could not be read"):
        opened(series)
    waves = np.ones((4, 5, 3), dtype=np.complex64)
    with pytest.raises(ValueError, match=COMPLEX_VALUES.format("waves.nii")):
        opened(write_nifti(tmp_path / "waves.nii", waves, (1, 1, 1)))


def test_reader_for_foreign_folders_is_none(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    assert get_reader(str(tmp_path)) is None
    assert get_reader("https://example.org/scan.nii") is None


def test_objects_on_nifti_have_its_voxel_size(window, tmp_path):
    stack = np.stack([np.zeros_like(gray()), gray(), gray()])
    path = write_nifti(tmp_path / "scan.nii.gz", stack.T, (0.5, 0.5, 3), "mm")
    window.viewer.open(path, plugin=PLUGIN)
    window.open_widget()
    window.viewer.dims.set_point(0, 3.0)  # the second plane
    window.idle()
    window.add_object(*(np.array(CENTERS[0]) / 2))
    objects = window.viewer.layers["SimMAT objects"]
    assert objects.scale.tolist() == [3, 0.5, 0.5]
    assert [f"{unit:~}" for unit in objects.units] == ["mm"] * 3
    truth = discs()[1] == 1
    assert (objects.data[1] > 0)[truth].mean() > 0.9
    assert not objects.data[[0, 2]].any()
    session = window.workspace.session
    target = tmp_path / "mine_labels.tif"
    window.tab.exporter.save(target, session.geometry, session.editor, ())
    window.qtbot.waitUntil(lambda: window.tab.exporter.worker.idle)
    saved = read_labels(target)
    np.testing.assert_array_equal(saved.data, objects.data)
    assert saved.scale == {"Z": 3, "Y": 0.5, "X": 0.5}
    assert set(saved.units.values()) == {"mm"}


def test_a_dropped_file_of_an_instrument_names_what_reads_it(tmp_path):
    path = tmp_path / "a.dm3"
    path.write_bytes(b"\0\0\0\3 of a microscope")
    with pytest.raises(ValueError, match=r"pip install npe2 napari-rosettasciio"):
        get_reader(str(path))(str(path))


def test_a_micrograph_opens_without_the_spectrum_beside_it(tmp_path):
    """napari itself fails on a line, which a plugin gives as an image; units come along."""
    npe2 = pytest.importorskip("npe2")
    path = tmp_path / "a.dm3"
    path.write_bytes(b"\0\0\0\3 of a microscope")
    axes = [{"units": "nm"}, {"units": "nm"}]
    micrograph = {"name": "HAADF", "scale": (0.02, 0.02), "metadata": {"axes": axes}}
    with npe2.DynamicPlugin("their-plugin") as plugin:

        @plugin.contribute.reader(filename_patterns=["*.dm3"])
        def get_theirs(path):
            return lambda path: [(np.zeros(9), {}), (np.eye(6, dtype=np.uint8), micrograph)]

        [(data, options, kind)] = get_reader(str(path))(str(path))
    assert (data.shape, kind) == ((6, 6), "image")
    assert options["scale"] == [0.02, 0.02]
    assert options["units"] == ["nm", "nm"]
