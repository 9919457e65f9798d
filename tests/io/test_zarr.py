from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_simmat.io import readers
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.io.zarr import holds_images

IMAGE = np.arange(2 * 3 * 8 * 10, dtype=np.uint16).reshape(2, 3, 8, 10)  # C, Z, Y, X


def ome(
    path: Path, data: np.ndarray, names: str = "czyx", version: int = 3, inside: str = "0"
) -> Path:
    """A minimal OME-Zarr image, as the specification has it."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    chunks = (1,) * (data.ndim - 2) + data.shape[-2:]
    zarr.create_array(group.store, name="0", data=data, chunks=chunks, zarr_format=version)
    kinds = {"c": "channel", "t": "time"}
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    for axis in axes:
        if axis["type"] == "space":
            axis["unit"] = "micrometer"
    scale = [1.0 if name in "ct" else 2.0 if name == "z" else 0.5 for name in names]
    dataset = {"path": inside, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    metadata = {
        "multiscales": [{"axes": axes, "datasets": [dataset]}],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
    }
    group.attrs.update(metadata if version == 2 else {"ome": {"version": "0.5", **metadata}})
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_zarr_ome_metadata_is_read(tmp_path, version, lazy_above):
    file = read_image(ome(tmp_path / "a.ome.zarr", IMAGE, version=version), lazy_above=lazy_above)
    assert isinstance(file.data, np.ndarray) == (lazy_above > 0)
    np.testing.assert_array_equal(np.asarray(file.data[...]), IMAGE)
    assert file.axes == "CZYX"
    assert file.channel_names == ("DAPI", "GFP")
    assert file.scale == {"Z": 2.0, "Y": 0.5, "X": 0.5}
    assert set(file.units.values()) == {"um"}
    assert file.shape == (3, 8, 10)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([{"label": "DAPI"}, {"label": ""}], ("DAPI", "channel1")),
        ([{"color": "FF0000"}, {"label": "1"}], ("channel0", "1")),
        ([{"label": ""}, {"label": None}], None),
        ([{"label": "DAPI"}], None),
    ],
)
def test_zarr_channels_keep_the_names_that_there_are(tmp_path, channels, expected):
    path = ome(tmp_path / "a.ome.zarr", IMAGE, version=2)
    zarr.open_group(path).attrs["omero"] = {"channels": channels}
    assert read_image(path).channel_names == expected


@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_zarr_labels_with_one_channel_are_labels(tmp_path, monkeypatch, lazy_above):
    """Programs that give each OME-Zarr its five axes give them to label images as well."""
    monkeypatch.setattr(readers, "LAZY_ABOVE", lazy_above)
    file = read_labels(ome(tmp_path / "a.ome.zarr", IMAGE[None, :1], "tczyx"))
    assert (file.axes, file.channel_axis, file.shape) == ("TZYX", None, (1, 3, 8, 10))
    np.testing.assert_array_equal(np.asarray(file.data), IMAGE[:1])
    with pytest.raises(ValueError, match="has 2 channels; a label image has none"):
        read_labels(ome(tmp_path / "b.ome.zarr", IMAGE))


def test_zarr_written_by_ome_zarr_is_read(tmp_path):
    writer = pytest.importorskip("ome_zarr.writer")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    image = np.arange(3 * 64 * 64, dtype=np.uint16).reshape(3, 64, 64)
    writer.write_image(image, group, axes="zyx", scale_factors=[2])
    file = read_image(tmp_path / "a.zarr")
    assert file.axes == "ZYX"
    np.testing.assert_array_equal(file.data, image)


def test_zarr_plain_array_is_an_image(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=IMAGE[0])
    file = read_labels(tmp_path / "a.zarr")
    assert file.axes == "QYX"
    np.testing.assert_array_equal(file.data, IMAGE[0])
    named = tmp_path / "b.zarr"
    zarr.create_array(named, data=IMAGE, dimension_names=("c", "z", "y", "x"))
    assert read_image(named).axes == "CZYX"


def test_zarr_hash_follows_names_and_bytes(tmp_path):
    first = read_image(ome(tmp_path / "a.zarr", IMAGE)).sha256()
    assert read_image(ome(tmp_path / "b.zarr", IMAGE)).sha256() == first
    changed = IMAGE.copy()
    changed[0, 0, 0, 0] = 7
    assert read_image(ome(tmp_path / "c.zarr", changed)).sha256() != first


def write_group_without_image(path: Path) -> None:
    zarr.create_array(zarr.open_group(path, mode="w").store, name="cells", data=IMAGE)


def write_path_outside(path: Path) -> None:
    ome(path.with_name("b.zarr"), IMAGE)
    ome(path, IMAGE, inside="../b.zarr/0")


def write_objects(path: Path) -> None:
    import json

    (path / "0").mkdir(parents=True)
    array = {
        "zarr_format": 2, "shape": [8, 10], "chunks": [8, 10], "dtype": "|O", "order": "C",
        "compressor": None, "fill_value": None, "filters": [{"id": "pickle"}],
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(array))
    (path / "0.0").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")


def write_no_yx(path: Path) -> None:
    ome(path, IMAGE[0], names="zcy")


def write_cut(path: Path) -> None:
    ome(path, IMAGE)
    (path / "0" / "zarr.json").write_text('{"zarr_format": 3')


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (write_group_without_image, r"not one OME-Zarr image \(it holds cells\)"),
        (write_path_outside, r"refers to \.\./b\.zarr/0, which is not within it"),
        (write_objects, r"(holds Python objects|could not be read)"),
        (write_no_yx, r"has the axes z, c, y; an image needs y and x"),
        (write_cut, r"could not be read"),
        (lambda path: path.mkdir(), r"is a folder, not an image file"),
    ],
)
def test_zarr_bad_folder_is_refused(tmp_path, write, sentence):
    write(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=sentence) as caught:
        read_image(tmp_path / "a.zarr")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert not Path("hacked").exists()


def test_zarr_of_bioformats2raw_reads_the_first_image(tmp_path, caplog):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    ome(tmp_path / "a.zarr" / "0", IMAGE, version=2)
    file = read_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(file.data, IMAGE)
    assert (file.path.name, file.axes) == ("a.zarr", "CZYX")
    assert caplog.text == ""
    before = file.sha256()
    ome(tmp_path / "a.zarr" / "1", IMAGE + 1, version=2)
    assert read_image(tmp_path / "a.zarr").sha256() == before
    assert "a.zarr: It holds several images; the first is read." in caplog.messages


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_plate_is_a_group_of_images(tmp_path, version):
    """Plate, row, well, fields, as in the specification."""
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=version)
    plate.attrs.update({"plate": {}} if version == 2 else {"ome": {"plate": {}}})
    plate.create_group("A").create_group("1")
    field = ome(tmp_path / "p.zarr" / "A" / "1" / "0", IMAGE, version=version)
    for folder in (field.parents[2], field.parents[1], field.parent):
        assert holds_images(folder)
        with pytest.raises(ValueError, match="is a Zarr group, but not one OME-Zarr image"):
            read_image(folder)
    for folder in (field, field / "0"):
        assert not holds_images(folder)
    np.testing.assert_array_equal(read_image(field).data, IMAGE)


def test_zarr_axis_without_name_is_unknown(tmp_path):
    ome(tmp_path / "a.zarr", IMAGE[0], ("", "y", "x"))
    assert read_image(tmp_path / "a.zarr").axes == "QYX"
