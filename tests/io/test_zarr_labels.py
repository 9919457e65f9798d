"""Label images as OME-Zarr: valid, opened as labels by others, and read back with pixel size."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_simmat.io.readers import read_image
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import complete_labels, create_labels, label_zarr, write_labels_zarr

LABELS = np.zeros((2, 700, 530), np.uint32)
LABELS[0, 100:140, 10:20] = 70_000
LABELS[1, 300:600, 200:301] = 3
MICRONS = {"Z": 2.0, "Y": 0.5, "X": 0.25}


def written(folder: Path) -> Path:
    path = folder / "cells_labels.ome.zarr"
    reference = ImageReference(scale=MICRONS, units=dict.fromkeys("ZYX", "um"))
    known = {3: {"class": "cell", "score": 0.5}}
    write_labels_zarr(path, LABELS, "ZYX", reference, known)
    return path


def test_write_labels_zarr_round_trips(tmp_path):
    image = read_image(written(tmp_path))
    assert (image.axes, dict(image.scale), set(image.units.values())) == ("ZYX", MICRONS, {"um"})
    assert image.data.dtype == np.uint32
    np.testing.assert_array_equal(image.data, LABELS)


def test_write_labels_zarr_fits_the_specification(tmp_path):
    image_label = pytest.importorskip("ome_zarr_models.v05.image_label")
    read = image_label.ImageLabel.from_zarr(zarr.open_group(written(tmp_path), mode="r"))
    ome = read.attributes.ome
    assert [axis.name for axis in ome.multiscales[0].axes] == ["z", "y", "x"]
    assert [axis.unit for axis in ome.multiscales[0].axes] == ["micrometer"] * 3
    [known] = ome.image_label.properties
    assert (known.label_value, known.model_extra["class"]) == (3, "cell")


def test_write_labels_zarr_opens_in_napari_ome_zarr(tmp_path):
    reader = pytest.importorskip("napari_ome_zarr._reader")
    # It opens the folder two above as well, in case that is the image.
    path = written(tmp_path / "results" / "today")
    [(levels, options, kind)] = reader.napari_get_reader(str(path))(str(path))
    assert kind == "labels"
    assert [level.shape for level in levels] == [(2, 700, 530), (2, 350, 265), (2, 175, 133)]
    np.testing.assert_allclose(options["scale"], [2, 0.5, 0.25])
    assert options["properties"]["class"] == ["cell"]
    for step, level in zip((1, 2, 4), levels, strict=True):
        np.testing.assert_array_equal(level, LABELS[:, ::step, ::step])


def test_create_labels_stores_no_empty_chunk(tmp_path):
    path = tmp_path / "slide.ome.zarr"
    labels = create_labels(path, path.name, (2500, 1200))
    labels[2100:2400, 100:200] = 7
    complete_labels(path)
    root = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(root["1"][...], np.asarray(labels)[::2, ::2])
    assert sum(each.is_file() for each in (path / "1" / "c").rglob("*")) == 1
    assert len(list((path / "0" / "c").rglob("*"))) == 2, "a row of chunks, and a chunk in it"


def test_label_image_of_empty_chunks_is_no_hole(tmp_path):
    path = tmp_path / "slide.ome.zarr"
    create_labels(path, path.name, (2**17 + 1, 2**17 + 1))
    image = read_image(path, lazy_above=0)
    assert not image.data[:1, :1].any()


def test_write_labels_zarr_unknown_axes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="axes T, one other, Z, Y, X in this order"):
        write_labels_zarr(tmp_path / "a.ome.zarr", LABELS[None], "ZTYX")
    assert list(tmp_path.iterdir()) == []


def test_label_zarr_success_places_the_folder(tmp_path):
    path = tmp_path / "cells.ome.zarr"
    with label_zarr(path, (600, 400), pixel=(0.5, 0.25), unit="micrometer") as labels:
        labels[100:200, 100:200] = 70_000
        assert not path.exists()
    image = read_image(path)
    assert (dict(image.scale), set(image.units.values())) == ({"Y": 0.5, "X": 0.25}, {"um"})
    assert (image.data == 70_000).sum() == 10_000
    assert zarr.open_group(path, mode="r")["1"].shape == (300, 200)
    with pytest.raises(FileExistsError, match="exists already"), label_zarr(path, (10, 10)):
        pass


def test_label_zarr_failure_leaves_nothing(tmp_path):
    def interrupted():
        with label_zarr(tmp_path / "a.ome.zarr", (10, 10)) as labels:
            labels[0, 0] = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_write_labels_zarr_of_zarr_names_its_source(tmp_path):
    image_label = pytest.importorskip("ome_zarr_models.v05.image_label")
    image = tmp_path / "data" / "cells.ome.zarr"
    image.parent.mkdir()
    zarr.save_array(image, LABELS)
    path = tmp_path / "out" / "cells_labels.ome.zarr"
    path.parent.mkdir()
    write_labels_zarr(path, LABELS, "ZYX", ImageReference(file=image))
    read = image_label.ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
    source = read.attributes.ome.image_label.source.image
    assert (path / source).resolve() == image.resolve()
    write_labels_zarr(
        tmp_path / "b.ome.zarr", LABELS, "ZYX", ImageReference(file=tmp_path / "a.tif")
    )
    assert "source" not in zarr.open_group(tmp_path / "b.ome.zarr").attrs["ome"]["image-label"]
