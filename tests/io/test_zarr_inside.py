"""Labels within the OME-Zarr image that they are of, read by the models and readers of others."""

import json

import numpy as np
import pytest
import zarr

from napari_simmat.io.files import remove
from napari_simmat.io.ome_zarr import BEGINS
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.io.zarr_inside import (
    inside_problem,
    list_labels,
    place_inside,
    version_of,
    write_labels_inside,
)
from tests.io.test_ome_zarr import ORIGIN, SIZES, VOLUME, made, named

LABELS = (VOLUME[0] > 200).astype(np.uint16) * 7


def write_inside(image):
    file = read_image(image)
    path = place_inside(image)
    path.parent.mkdir(exist_ok=True)
    write_labels_inside(path, image, LABELS, "ZYX", file.reference, {7: {"class": "cell"}})
    list_labels(image)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_labels_lie_in_their_image_in_its_version(tmp_path, version):
    image = made(version, tmp_path / "a.zarr")
    before = read_image(image)
    assert inside_problem("ZYX", before.reference) == ""
    path = write_inside(image)
    assert path == image / "labels/simmat"
    assert version_of(path) == version
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.data, LABELS)
    assert (labels.axes, labels.scale, labels.origin) == ("ZYX", SIZES, ORIGIN)
    assert set(labels.units.values()) == {"um"}
    assert labels.notes == (BEGINS.format("z 10 um, y 200 um, x -30 um"),)
    after = read_image(image)
    assert after.sha256() == before.sha256(), "the image is as it was"
    np.testing.assert_array_equal(np.asarray(after.data), np.asarray(before.data))


@pytest.mark.parametrize(("version", "module"), [("0.4", "v04"), ("0.5", "v05")])
def test_labels_in_an_image_are_as_its_models_say(tmp_path, version, module):
    """Version 1.7 of ome-zarr-models has none of 0.6."""
    pytest.importorskip("ome_zarr_models")
    models = pytest.importorskip(f"ome_zarr_models.{module}.image_label")
    groups = pytest.importorskip(f"ome_zarr_models.{module}.labels")
    path = write_inside(made(version, tmp_path / "a.zarr"))
    group = zarr.open_group(path, mode="r")
    model = models.ImageLabel.from_zarr(group)
    attributes = model.attributes if version == "0.4" else model.attributes.ome
    assert attributes.image_label.source.image == "../../"
    [known] = attributes.image_label.properties
    assert known.label_value == 7
    listed = groups.Labels.from_zarr(zarr.open_group(path.parent, mode="r"))
    names = listed.attributes.labels if version == "0.4" else listed.attributes.ome.labels
    assert names == ["simmat"]


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_labels_in_an_image_open_with_it_in_napari(tmp_path, version):
    reader = pytest.importorskip("napari_ome_zarr._reader")
    image = made(version, tmp_path / "a.zarr")
    write_inside(image)
    kinds = [kind for *_, kind in reader.napari_get_reader(str(image))(str(image))]
    assert kinds == ["image", "labels"]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_consolidated_metadata_above_has_the_labels(tmp_path, version):
    """Zarr, xarray and others look into the copy alone where there is one."""
    kind = 2 if version == "0.4" else 3
    zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=kind)
    image = made(version, tmp_path / "plate.zarr/a")
    for place in (image, tmp_path / "plate.zarr"):
        zarr.consolidate_metadata(place)
    before = read_image(image).sha256()
    for _ in range(2):  # again, as when labels are replaced
        remove(place_inside(image))
        write_inside(image)
        for group, root in ((image, "labels"), (tmp_path / "plate.zarr", "a/labels")):
            opened = zarr.open_consolidated(group, mode="r")
            np.testing.assert_array_equal(opened[f"{root}/simmat/0"], LABELS)
            attributes = dict(opened[root].attrs)
            assert (attributes if kind == 2 else attributes["ome"])["labels"] == ["simmat"]
            assert "0" in (opened if root == "labels" else opened["a"]), "the rest is kept"
        assert read_image(image).sha256() == before, "the image is as it was"


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_do_not_change_the_image(tmp_path):
    image = made("0.5", tmp_path / "a.zarr")
    zarr.consolidate_metadata(image)
    file = image / "zarr.json"
    values = json.loads(file.read_text())
    first = read_image(image).sha256()
    values["consolidated_metadata"]["metadata"]["more"] = values["consolidated_metadata"][
        "metadata"
    ]["0"]
    file.write_text(json.dumps(values))
    assert read_image(image).sha256() == first
    values["attributes"]["ome"]["name"] = "another"
    file.write_text(json.dumps(values))
    assert read_image(image).sha256() != first


def test_labels_of_others_stay_in_the_list(tmp_path):
    image = made("0.4", tmp_path / "a.zarr")
    (image / "labels").mkdir()
    (image / "labels/.zattrs").write_text(json.dumps({"labels": ["nuclei"], "by": "others"}))
    write_inside(image)
    list_labels(image)
    found = json.loads((image / "labels/.zattrs").read_text())
    assert found == {"labels": ["nuclei", "simmat"], "by": "others"}


def test_old_versions_and_other_files_are_refused(tmp_path):
    old = read_image(made("0.2", tmp_path / "a.zarr"))
    problem = inside_problem("TZYX", old.reference)
    assert problem.startswith("Labels are written within OME-Zarr of the versions 0.4, 0.5, 0.6;")
    assert "a.zarr is of 0.2" in problem
    np.save(tmp_path / "a.npy", LABELS)
    plain = read_image(tmp_path / "a.npy")
    assert inside_problem("ZYX", plain.reference) == (
        "Labels are written within OME-Zarr images only; a.npy is none."
    )


def test_labels_have_the_order_of_axes_of_their_image(tmp_path):
    """Other programs show them on the image by the order in the file."""
    path = named(tmp_path / "a.zarr", "xy", (6, 4))
    image = read_image(path)
    assert image.axes == "YX"
    assert inside_problem("YX", image.reference) == ""
    labels = (np.asarray(image.data) % 3).astype(np.uint16)
    write_labels_inside(place_inside(path), path, labels, "YX", image.reference)
    stored = zarr.open_group(place_inside(path), mode="r")
    np.testing.assert_array_equal(stored["0"], zarr.open_group(path, mode="r")["0"][...] % 3)
    read = read_labels(place_inside(path))
    np.testing.assert_array_equal(read.data, labels)
    assert read.scale == image.scale == {"X": 1.0, "Y": 2.0}


def test_labels_are_refused_where_their_image_has_depth_last(tmp_path):
    image = read_image(named(tmp_path / "a.zarr", "yxz", (6, 4, 2)))
    assert "order" in inside_problem("ZYX", image.reference)
