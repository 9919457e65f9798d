"""Files that napari's reader plugins read through npe2, here by a plugin that the test makes."""

import json
from importlib.metadata import version

import dask.array as da
import numpy as np
import pytest

from napari_simmat.cli import main
from napari_simmat.io.image_file import package_of
from napari_simmat.io.readers import read_image

npe2 = pytest.importorskip("npe2")
PLANE = np.arange(30, dtype=np.uint16).reshape(5, 6)


@pytest.fixture
def reader(tmp_path):
    """What a plugin for ``.foreign`` returns is told by the test; the file it is to read."""
    from npe2 import DynamicPlugin

    path = tmp_path / "a.foreign"
    path.write_bytes(b"of another program")
    with DynamicPlugin("their-plugin") as plugin:

        def returns(*layers):
            @plugin.contribute.reader(filename_patterns=["*.foreign"])
            def get_reader(path):
                def read(path):
                    if layers and isinstance(layers[0], Exception):
                        raise layers[0]
                    return list(layers)

                return read

            return path

        yield returns


def test_axes_scale_and_units_are_those_of_the_layer(reader):
    stack = np.stack([PLANE, PLANE + 1, PLANE + 2])
    options = {"axis_labels": ("z", "y", "x"), "scale": (2, 0.5, 0.25), "units": ("um",) * 3}
    image = read_image(reader((stack, options, "image")))
    assert image.axes == "ZYX"
    assert (image.scale, image.units) == ({"Z": 2, "Y": 0.5, "X": 0.25}, dict.fromkeys("ZYX", "um"))
    assert np.array_equal(image.data, stack)
    assert image.read_by.startswith("their-plugin")


def test_layers_of_one_shape_are_channels_with_their_names(reader):
    lazy = da.from_array(PLANE + 1)
    image = read_image(reader((PLANE, {"name": "DAPI"}), (lazy, {"name": "GFP"})))
    assert (image.axes, image.channel_names) == ("CYX", ("DAPI", "GFP"))
    assert np.array_equal(np.asarray(image.data)[1], PLANE + 1)


def test_a_channel_axis_keeps_its_place_and_names(reader):
    stack = np.stack([PLANE, PLANE + 1], axis=-1)
    options = {"channel_axis": 2, "name": ["a", "b"], "scale": (0.5, 0.5), "units": "nm"}
    image = read_image(reader((stack, options)))
    assert (image.axes, image.channel_names) == ("YXC", ("a", "b"))
    assert (image.scale, image.units["X"]) == ({"Y": 0.5, "X": 0.5}, "nm")


def test_sizes_without_a_unit_are_told_and_left_out(reader):
    image = read_image(reader((PLANE, {"scale": (0.5, 0.5)})))
    assert image.scale == {}
    assert "pixels of 0.5 x 0.5 without a unit" in image.notes[0]


def test_units_in_a_table_of_axes_count(reader):
    axes = [{"name": "height", "units": "nm"}, {"name": "width", "units": "nm"}]
    options = {"axis_labels": ["height", "width"], "scale": (3, 3), "metadata": {"axes": axes}}
    image = read_image(reader((PLANE, options, "labels")))
    assert (image.axes, image.units) == ("YX", {"Y": "nm", "X": "nm"})


def test_images_of_other_shapes_are_left_out_and_counted(reader):
    image = read_image(reader((PLANE, {}), (PLANE[:2], {}), (np.zeros((3, 2)), {}, "points")))
    assert image.shape == (5, 6)
    assert "1 of other shapes is left out" in image.notes[0]


def test_a_spectrum_beside_an_image_is_left_out(reader):
    image = read_image(reader((np.zeros(512), {}), (PLANE, {})))
    assert image.shape == (5, 6)
    assert "1 of other shapes is left out" in image.notes[0]


def test_a_spectrum_alone_is_no_image(reader):
    with pytest.raises(ValueError, match=r"no image but a line of 512 values, such as a spectrum"):
        read_image(reader((np.zeros(512), {})))


def test_a_plugin_that_fails_is_named_in_a_sentence(reader):
    with pytest.raises(ValueError, match=r"a\.foreign: their-plugin failed \(no such table\)"):
        read_image(reader(RuntimeError("no such table")))


def test_what_a_plugin_returns_is_checked_as_any_file(reader):
    with pytest.raises(ValueError, match="no pixel"):
        read_image(reader((np.zeros((0, 4)), {})))


def test_the_record_says_which_package_read_the_file(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.zeros((64, 64), np.uint8)
    image[20:40, 20:40] = 200
    reader((image, {"scale": (0.5, 0.5), "units": ("um", "um")}))
    assert main(["segment", "a.foreign", "--output", "out"]) == 0
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["input"]["read_by"].startswith("their-plugin")


def test_a_package_is_named_with_its_version():
    assert package_of("PIL.Image") == f"pillow {version('pillow')}"
    assert package_of("nowhere.at_all") == "nowhere"
