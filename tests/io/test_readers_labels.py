import numpy as np
import pytest
import tifffile

from napari_simmat.io.axes import label_dtype
from napari_simmat.io.nifti import write_labels_nifti
from napari_simmat.io.readers import read_labels
from napari_simmat.io.reference import ImageReference, World
from napari_simmat.io.tiff_writing import write_labels_tiff


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, "uint16"), (65535, "uint16"), (65536, "uint32")]
)
def test_label_dtype_is_uint16_until_they_do_not_fit(highest, dtype):
    assert label_dtype(highest) == dtype


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("YX", (5, 6)), ("ZYX", (3, 5, 6)), ("TZYX", (2, 3, 5, 6)), ("ZTYX", (2, 3, 5, 6))],
)
def test_write_labels_tiff_round_trips(tmp_path, axes, shape):
    labels = np.arange(np.prod(shape)).reshape(shape) * 1000
    path = tmp_path / "labels.tif"
    write_labels_tiff(
        path,
        labels,
        axes=axes,
        reference=ImageReference(
            scale={"Y": 0.25, "X": 0.5, "Z": 2.0, "T": 3.0},
            units={"Y": "um", "X": "um", "Z": "um", "T": "s"},
        ),
    )
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == axes
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert file.pages[0].tags["XResolution"].value == (20000, 1)  # per centimeter
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        np.testing.assert_array_equal(file.asarray(), labels)
        assert file.series[0].dtype == label_dtype(int(labels.max()))
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeZ"]) == (
        0.5,
        0.25,
        2,
    )
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"µm"}
    assert (pixels["TimeIncrement"], pixels["TimeIncrementUnit"]) == (3, "s")


@pytest.mark.parametrize(
    ("axes", "kept"),
    [("IYX", "QYX"), ("QQYX", "QRYX"), ("IQTYX", "QRTYX"), ("WTZYX", "QTZYX"), ("QQQYX", "QRPYX")],
)
def test_write_labels_tiff_renames_unknown_axes(tmp_path, axes, kept):
    shape = (*(2, 3, 2)[: len(axes) - 2], 3, 4)
    labels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    write_labels_tiff(tmp_path / "labels.tif", labels, axes=axes)
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.series[0].axes == kept
        np.testing.assert_array_equal(file.asarray(), labels)


def test_write_labels_tiff_size_without_unit_is_left_out(tmp_path):
    size = ImageReference(scale={"Y": 2.0, "X": 2.0})
    ones = np.ones((2, 2), np.uint16)
    write_labels_tiff(tmp_path / "labels.tif", ones, axes="YX", reference=size)
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert "PhysicalSize" not in file.ome_metadata


def test_write_labels_tiff_bytes_follow_content(tmp_path):
    labels = np.eye(7, dtype=np.uint16)
    for name, content in [("a", labels), ("b", labels.astype(np.int64)), ("c", labels * 2)]:
        write_labels_tiff(tmp_path / name, content, axes="YX")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    uuids = []
    for name in "ac":
        with tifffile.TiffFile(tmp_path / name) as file:
            uuids.append(tifffile.xml2dict(file.ome_metadata)["OME"]["UUID"])
    assert len(set(uuids)) == 2


def test_write_labels_nifti_keeps_affine_without_time(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    labels = np.arange(24).reshape(2, 3, 4)
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -120], [0, 0, 3, -70], [0, 0, 0, 1]])
    units = {**dict.fromkeys("XYZ", "mm"), "T": "s"}
    reference = ImageReference(units=units, world=World(affine=affine, space="patient"))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels_nifti(tmp_path / name, labels.T, axes="ZYX", reference=reference)
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), labels)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw[4:8] == b"\0\0\0\0"  # gzip's time
    assert raw[3] == 0  # and no file name
    assert raw == (tmp_path / "b.nii.gz").read_bytes()


def test_write_labels_nifti_of_a_long_side_is_nifti_2(tmp_path):
    labels = np.ones((40_000, 3, 2), np.uint16)
    reference = ImageReference(world=World(affine=np.diag([2.0, 3, 4, 1]), space="patient"))
    write_labels_nifti(tmp_path / "a.nii.gz", labels.T, axes="ZYX", reference=reference)
    nibabel = pytest.importorskip("nibabel")
    back = nibabel.load(tmp_path / "a.nii.gz")
    assert back.shape == (40_000, 3, 2)
    np.testing.assert_array_equal(back.affine, np.diag([2.0, 3, 4, 1]))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz").data, labels.T)
