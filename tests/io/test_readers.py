import gc
import pickle
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.engine.image_stack import ArraySource
from napari_simmat.io import elsewhere, memory, readers
from napari_simmat.io.image_file import ImageFile, LazyArray
from napari_simmat.io.readers import read_image, read_labels, stem_of

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 60000, (3, 2, 20, 30)).astype(np.uint16)  # Z, C, Y, X


def write_tiff(path, data, **options):
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, data, **options)
    return path


@pytest.mark.parametrize(
    ("data", "options", "axes", "channel_axis"),
    [
        (STACK[0, 0], {}, "YX", None),
        (STACK[0, 0], {"metadata": None}, "YX", None),
        (STACK, {"metadata": {"axes": "ZCYX"}}, "ZCYX", 1),
        (STACK[0], {"metadata": {"axes": "CYX"}}, "CYX", 0),
        (STACK[:, 0], {"metadata": {"axes": "TYX"}}, "TYX", None),
        (STACK.transpose(0, 2, 3, 1), {"metadata": {"axes": "ZYXC"}}, "ZYXC", 3),
        (STACK[:, 0].astype(np.float32), {"compression": "zlib"}, "QYX", None),
        (STACK[0, 0], {"compression": "lzw", "byteorder": ">"}, "YX", None),
        (STACK[0, 0].astype(np.uint8), {"tile": (16, 16), "compression": "zstd"}, "YX", None),
        (STACK, {"imagej": True, "metadata": {"axes": "ZCYX"}}, "ZCYX", 1),
        (STACK, {"ome": True, "metadata": {"axes": "ZCYX"}}, "ZCYX", 1),
        (STACK[:, 0, :1, :1], {}, "QYX", None),
        (STACK, {}, "QRYX", None),
        (STACK, {"metadata": {"axes": "QZYX"}}, "QZYX", None),
        (STACK[:1, 0, :1], {}, "QYX", None),
        (np.array([[7]], dtype=np.uint8), {}, "YX", None),
    ],
)
@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_tiff_axes_are_read(tmp_path, data, options, axes, channel_axis, lazy_above):
    path = write_tiff(tmp_path / "image.tif", data, **options)
    file = read_image(path, lazy_above=lazy_above)
    assert file.axes == axes
    assert file.channel_axis == channel_axis
    assert file.data.dtype == data.dtype.newbyteorder(file.data.dtype.byteorder)
    assert isinstance(file.data, LazyArray if lazy_above == 0 else np.ndarray)
    assert np.array_equal(file.data[...], data)
    assert file.plane_axes == axes.replace("C", "")
    assert file.shape == tuple(
        size for axis, size in enumerate(file.data.shape) if axis != channel_axis
    )
    assert not file.rgb


@pytest.mark.parametrize("lazy_above", [0, 2**28])
@pytest.mark.parametrize(
    ("shape", "planar", "axes"),
    [((20, 30, 3), "contig", "YXS"), ((20, 30, 4), "contig", "YXS"), ((3, 20, 30), "separate", 0)],
)
def test_tiff_in_color_is_rgb(tmp_path, shape, planar, axes, lazy_above):
    image = RNG.integers(0, 255, shape).astype(np.uint8)
    path = write_tiff(tmp_path / "rgb.tif", image, photometric="rgb", planarconfig=planar)
    file = read_image(path, lazy_above=lazy_above)
    assert file.axes == (axes or "SYX")
    assert file.rgb
    assert file.plane_axes == "YX"
    assert np.array_equal(file.data[...], image)


def test_tiff_lazy_is_read_by_planes_and_closed(tmp_path):
    path = write_tiff(tmp_path / "stack.tif", STACK, metadata={"axes": "ZCYX"}, compression="zlib")
    data = read_image(path, lazy_above=1000).data
    assert data.chunks == (1, 1, 20, 30)
    assert np.array_equal(data[1, 0], STACK[1, 0])
    del data
    gc.collect()  # an open file would raise a ResourceWarning, which fails the test
    path.unlink()


@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_tiff_y_and_x_come_last(tmp_path, lazy_above):
    path = write_tiff(tmp_path / "odd.tif", STACK, metadata={"axes": "YCXZ"})
    file = read_image(path, lazy_above=lazy_above)
    assert file.axes == "CZYX"
    assert isinstance(file.data, da.Array if lazy_above == 0 else np.ndarray)
    assert np.array_equal(np.asarray(file.data), STACK.transpose(1, 3, 0, 2))


def test_tiff_ome_names_and_sizes_are_read(tmp_path):
    metadata = {
        "axes": "ZCYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 250,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 1.5,
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    path = write_tiff(tmp_path / "cells.ome.tif", STACK, metadata=metadata)
    file = read_image(path)
    assert file.channel_names == ("DAPI", "GFP")
    assert file.scale == pytest.approx({"X": 0.25, "Y": 0.25, "Z": 1.5})
    assert file.pixel_size == pytest.approx((0.25, 0.25))
    assert file.units == {"X": "um", "Y": "um", "Z": "um"}


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_tiff_imagej_sizes_are_read(tmp_path, unit):
    metadata = {"axes": "TCYX", "finterval": 2.5, "unit": unit}
    path = write_tiff(
        tmp_path / "cells.tif", STACK, imagej=True, resolution=(4, 2), metadata=metadata
    )
    file = read_image(path)
    assert file.scale == pytest.approx({"X": 0.25, "Y": 0.5, "T": 2.5})
    assert file.pixel_size == pytest.approx((0.5, 0.25))
    assert file.units == {"X": "um", "Y": "um", "T": "s"}


@pytest.mark.parametrize(
    ("scale", "units", "known"),
    [
        ({}, {}, None),
        ({"Y": 2.0}, {"Y": "um"}, None),
        ({"Y": 2.0, "X": 2.0}, {"Y": "um", "X": "mm"}, None),
        ({"Y": 0.0, "X": 1.0}, {}, None),
        ({"Y": np.inf, "X": 1.0}, {}, None),
        ({"Y": 2.0, "X": 0.5}, {}, (2.0, 0.5)),
    ],
)
def test_pixel_size_unknown_uses_the_given_ratio(scale, units, known):
    file = ImageFile(Path("a"), np.zeros((2, 2)), "YX", scale=scale, units=units)
    assert file.pixel_size == known
    assert replace(file, pixel_ratio=3.0).pixel_size == (known or (3.0, 1.0))


def test_tiff_imagej_labels_name_channels(tmp_path):
    labels = {"axes": "CYX", "Labels": ["DAPI", "GFP"], "spacing": 3, "unit": "nm"}
    path = write_tiff(tmp_path / "cells.tif", STACK[0], imagej=True, metadata=labels)
    file = read_image(path)
    assert file.channel_names == ("DAPI", "GFP")
    assert "Z" not in file.scale  # an axis that the image does not have
    assert (file.scale["X"], file.units["X"]) == (pytest.approx(1.0), "nm")


@pytest.mark.parametrize(
    ("unit", "expected"), [("CENTIMETER", 100), ("INCH", None), ("NONE", None)]
)
def test_tiff_resolution_counts_only_in_centimeters(tmp_path, unit, expected):
    path = write_tiff(
        tmp_path / "image.tif", STACK[0, 0], resolution=(100, 100), resolutionunit=unit
    )
    assert read_image(path).scale == ({} if expected is None else {"Y": expected, "X": expected})


def test_tiff_of_several_images_reads_the_first(tmp_path, caplog):
    path = tmp_path / "several.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0, 0], photometric="minisblack")
        writer.write(STACK[0, 0, :10].astype(np.float32), photometric="minisblack")
    assert np.array_equal(read_image(path).data, STACK[0, 0])
    assert "several.tif: It holds 2 images; the first is read." in caplog.messages


def test_tiff_pyramid_reads_the_finest_level(tmp_path):
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "minisblack", "tile": (16, 16)}
        writer.write(STACK[0, 0], subifds=1, **options)
        writer.write(STACK[0, 0, ::2, ::2], subfiletype=1, **options)
    for lazy_above in (0, 2**28):
        assert np.array_equal(read_image(path, lazy_above=lazy_above).data[...], STACK[0, 0])


OME = '<?xml version="1.0"?>{0}<OME><Image><Pixels DimensionOrder="XYCZT" {1}/></Image></OME>'


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (
            OME.format('<!DOCTYPE x [<!ENTITY a "aaaa">]>', ""),
            "The description of image.tif declares XML entities, which no microscope writes",
        ),
        (
            OME.format("", 'SizeX="30" SizeY="20" SizeC="99999" SizeZ="99999" SizeT="1"'),
            "image.tif claims 9,999,800,001 planes, more than the 262,144",
        ),
        (OME.format("", 'SizeC="1"><TiffData PlaneCount="99999999"'), "claims 99,999,999 planes"),
    ],
)
def test_tiff_hostile_description_is_refused(tmp_path, description, sentence):
    path = write_tiff(tmp_path / "image.tif", STACK[0, 0], description=description, metadata=None)
    with pytest.raises(ValueError, match=sentence):
        read_image(path)


def test_tiff_colors_within_channels_are_refused(tmp_path):
    image = np.zeros((2, 20, 30, 3), dtype=np.uint8)
    path = write_tiff(tmp_path / "image.tif", image, photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(ValueError, match=r"has colors within channels .axes CYXS.; save each"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "mode", "dtype", "shape"),
    [
        ("gray.png", "L", np.uint8, (20, 30)),
        ("gray.bmp", "L", np.uint8, (20, 30)),
        ("gray.jpg", "L", np.uint8, (20, 30)),
        ("deep.png", "I;16", np.uint16, (20, 30)),
        ("rgb.png", "RGB", np.uint8, (20, 30, 3)),
        ("rgb.jpeg", "RGB", np.uint8, (20, 30, 3)),
        ("rgba.png", "RGBA", np.uint8, (20, 30, 4)),
        ("cmyk.jpg", "CMYK", np.uint8, (20, 30, 3)),
        ("palette.png", "P", np.uint8, (20, 30, 3)),
        ("ink.png", "1", np.bool_, (20, 30)),  # as in all formats, and refused as an image
        ("ink.bmp", "1", np.bool_, (20, 30)),
        ("alpha.png", "LA", np.uint8, (20, 30)),
    ],
)
def test_picture_mode_gives_type_and_axes(tmp_path, name, mode, dtype, shape):
    if mode == "I;16":
        picture = Image.fromarray(STACK[0, 0])
    else:
        colors = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
        picture = Image.fromarray(colors).convert(mode)
    picture.save(tmp_path / name)
    file = read_image(tmp_path / name)
    assert (file.data.dtype, file.data.shape) == (dtype, shape)
    assert file.axes == ("YXS" if len(shape) == 3 else "YX")
    assert file.rgb == (len(shape) == 3)
    if name.endswith("png") and mode not in ("P", "1", "LA"):
        assert np.array_equal(file.data, np.asarray(picture))


def deep_png(path, image):
    """Write uint16 (Y, X, C) as PNG by hand, since Pillow cannot."""
    height, width, channels = image.shape
    color = {2: 4, 3: 2, 4: 6}[channels]

    def piece(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    pieces = piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(rows)) + piece(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + pieces)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_in_color_keeps_them(tmp_path, channels):
    image = RNG.integers(0, 65535, (20, 30, channels)).astype(np.uint16)
    deep_png(tmp_path / "deep.png", image)
    file = read_image(tmp_path / "deep.png")
    assert file.data.dtype == np.uint16
    assert np.array_equal(file.data, image[..., 0] if channels == 2 else image)


def test_npy_is_read_whole_or_mapped(tmp_path):
    np.save(tmp_path / "stack.npy", STACK)
    for lazy_above in (0, 2**28):
        file = read_image(tmp_path / "stack.npy", lazy_above=lazy_above)
        assert np.array_equal(file.data, STACK)
        assert isinstance(file.data, np.memmap) == (lazy_above == 0)
        assert (file.axes, file.channel_axis) == ("QRYX", None)  # no letter stands twice
    np.save(tmp_path / "rgb.npy", np.zeros((20, 30, 3), dtype=np.uint8))
    file = read_image(tmp_path / "rgb.npy")
    assert (file.axes, file.rgb) == ("YXS", True)


class Payload:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_npy_with_objects_is_not_unpickled(tmp_path):
    trace = tmp_path / "was-executed"
    np.save(tmp_path / "evil.npy", np.array([Payload(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"evil.npy holds Python objects, which can run code"):
        read_image(tmp_path / "evil.npy")
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(ValueError, match="unsupported file type"):
        read_image(tmp_path / "bare.npy")
    assert not trace.exists()


@pytest.fixture
def nibabel():
    return pytest.importorskip("nibabel")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_nifti_axes_are_reversed(nibabel, tmp_path, name):
    data = RNG.integers(0, 999, (7, 6, 5, 2)).astype(np.int16)  # x, y, z, t
    affine = np.array([[-2, 0, 0, 10], [0, 3, 0, -5], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 3, 4, 1.5))
    nibabel.save(image, tmp_path / name)
    file = read_image(tmp_path / name)
    assert (file.axes, file.shape) == ("TZYX", (2, 5, 6, 7))
    assert file.data.dtype == np.int16
    assert file.data[1, 4, 3, 2] == data[2, 3, 4, 1]
    assert np.array_equal(file.affine, affine)
    assert file.scale == {"X": 2, "Y": 3, "Z": 4, "T": 1.5}
    assert file.units == {"X": "mm", "Y": "mm", "Z": "mm", "T": "s"}


@pytest.mark.parametrize(("size", "origin", "unit"), [(0.5, 0, "mm"), (1, -98, "mm"), (1, 0, None)])
def test_nifti_without_a_unit_has_millimeters_if_placed(nibabel, tmp_path, size, origin, unit):
    affine = np.diag([size, size, size, 1.0])
    affine[0, 3] = origin
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine)
    nibabel.save(image, tmp_path / "a.nii")
    file = read_image(tmp_path / "a.nii")
    assert file.units == (dict.fromkeys("XYZ", unit) if unit else {})
    assert bool(file.notes) == bool(unit)


def test_nifti_values_are_scaled(nibabel, tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "scan.nii")
    assert np.allclose(
        read_image(tmp_path / "scan.nii").data.T, np.arange(24).reshape(2, 3, 4) * 0.5 + 10
    )


def test_nifti_without_nibabel_is_refused(tmp_path, monkeypatch):
    (tmp_path / "scan.nii").write_bytes(b"\x5c\x01\0\0" + bytes(400))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ValueError, match=r"needs the package nibabel; install it \(pip"):
        read_image(tmp_path / "scan.nii")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.npy"])
def test_a_mask_is_label_1_in_all_formats_and_no_image_in_any(tmp_path, name):
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    if name == "a.npy":
        np.save(tmp_path / name, mask)
    else:
        Image.fromarray(mask).save(tmp_path / name)
    np.testing.assert_array_equal(read_labels(tmp_path / name).data, mask.astype(np.uint8))
    with pytest.raises(TypeError, match="values of type bool; images are integers or floats"):
        ArraySource.of(read_image(tmp_path / name).data, None, name)


def test_read_labels_palette_gives_indices(tmp_path):
    labels = RNG.integers(0, 5, (20, 30)).astype(np.uint8)
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    picture.save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png").data, labels)
    assert read_image(tmp_path / "labels.png").rgb


@pytest.mark.parametrize("lazy_above", [0, 2**28])
def test_read_labels_mask_is_label_1(tmp_path, monkeypatch, lazy_above):
    mask = STACK[0, 0] > 30000
    path = write_tiff(tmp_path / "mask.tif", mask)
    monkeypatch.setattr(readers, "LAZY_ABOVE", lazy_above)
    labels = read_labels(path).data
    assert labels.dtype == np.uint8
    assert np.array_equal(np.asarray(labels), mask)


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        (STACK[0, 0].astype(np.float32), {}, "labels.tif holds float32 values; labels are integer"),
        (
            np.zeros((20, 30, 3), dtype=np.uint8), {"photometric": "rgb"},
            "labels.tif has 3 channels; a label image has none; save the labels as integers in",
        ),
    ],
)  # fmt: skip
def test_read_labels_of_another_image_is_refused(tmp_path, data, options, sentence):
    path = write_tiff(tmp_path / "labels.tif", data, **options)
    with pytest.raises(ValueError, match=sentence):
        read_labels(path)


@pytest.mark.parametrize("value", [4.0, -1.0, 4.5, np.nan, np.inf, 2.0**31])
def test_read_labels_nifti_whole_floats_are_labels(nibabel, tmp_path, value):
    labels = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    labels[0, 0, 0] = value
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii.gz")
    if value in (4.0, -1.0):
        read = read_labels(tmp_path / "a.nii.gz").data
        assert read.dtype == np.int32
        assert np.array_equal(read, labels.T)
    else:
        with pytest.raises(ValueError, match=r"a\.nii\.gz holds float64 values; labels are integ"):
            read_labels(tmp_path / "a.nii.gz")


def test_read_image_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.tif; check its name"):
        read_image(tmp_path / "none.tif")
    with pytest.raises(ValueError, match=r"is a folder, not an image file; give one of TIFF, PNG"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.tif", b"", r"Cannot read empty\.tif: the file is empty; give one of TIFF, PNG"),
        ("text.tif", b"this is no image at all", r"text\.tif: unsupported file type"),
        ("short.tif", b"II*\0\x08\0\0\0", r"short\.tif could not be read \(.*\); it may be damag"),
        ("text.tif", b"II*\0garbage", r"text\.tif could not be read \(IndexError\); it may be"),
        ("short.png", b"\x89PNG\r\n\x1a\n", r"short\.png could not be read"),
        ("short.jpg", b"\xff\xd8\xff\xe0", r"short\.jpg could not be read"),
        ("short.npy", b"\x93NUMPY\x01\0", r"short\.npy could not be read"),
        ("short.nii", b"\x5c\x01\0\0" + bytes(200), r"short\.nii could not be read"),
        ("short.nii.gz", b"\x1f\x8b\x08\0", r"short\.nii\.gz could not be read"),
        ("a.czi", b"ZISRAWFILE", r"\(pip install bioio bioio-czi\); part .* GPL-3\.0\.$"),
        ("a.ND2", b"\xda\xce\xbe\x0a", r"\(pip install bioio bioio-nd2\)\.$"),
        ("a.oib", b"\xd0\xcf\x11\xe0", r"\(pip install bioio bioio-bioformats\); part .* GPL-2"),
        ("foreign.tif", b"ZISRAWFILE", r"OME-Zarr, DICOM[^(]*\.$"),
        ("empty.czi", b"", r"the file is empty; give .* FITS\.$"),
        ("a.dm4", b"\0\0\0\4", r"Gatan .* \(pip install npe2 napari-rosettasciio\); .*GPL"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", r"script\.eps: unsupported file type"),
    ],
)
def test_read_image_broken_or_foreign_file_is_refused(
    tmp_path, monkeypatch, name, content, sentence
):
    for reader in ("read_with_plugins", "read_with_bioio"):
        monkeypatch.setattr(elsewhere, reader, lambda path, options: None)
    if ".nii" in name:
        pytest.importorskip("nibabel")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refusal:
        read_image(tmp_path / name)
    assert "\n" not in str(refusal.value)


def written(path: Path, image: np.ndarray) -> Path:
    """The image in the format of its name."""
    if path.suffix == ".tif":
        write_tiff(path, image, compression="zlib")
    elif path.suffix == ".png":
        Image.fromarray(image).save(path)
    elif path.suffix == ".npy":
        np.save(path, image)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), path)
    return path


@pytest.mark.parametrize("name", ["image.tif", "image.png", "image.npy"])
def test_read_image_cut_short_is_refused(tmp_path, name):
    path = written(tmp_path / name, RNG.integers(0, 255, (200, 300)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(ValueError, match=f"{name} .*cut short"):
        read_image(path)


@pytest.mark.parametrize("name", ["image.tif", "image.png", "image.npy", "image.nii.gz"])
def test_read_image_larger_than_memory_is_refused(tmp_path, monkeypatch, name):
    path = written(tmp_path / name, np.zeros((2000, 3000), dtype=np.uint8))
    monkeypatch.setattr(memory, "available_memory", lambda: 5_000_000)
    smaller = r"read a region .*--region" if name.endswith(".tif") else "crop it"
    with pytest.raises(
        ValueError, match=rf"{name} needs \d+ MB of memory unpacked, 5 MB are free; {smaller}"
    ):
        read_image(path)


def test_read_image_large_stack_is_read_by_planes(tmp_path, monkeypatch):
    stack = np.zeros((10, 500, 600), dtype=np.uint8)
    path = write_tiff(tmp_path / "stack.tif", stack, compression="zlib")
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    assert read_image(path, lazy_above=1_000_000).data[3].shape == (500, 600)
    with pytest.raises(ValueError, match=r"needs 3 MB"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("coins.tif", "coins"),
        ("HEAD.NII.GZ", "HEAD"),
        ("cells.ome.tif", "cells"),
        ("cells.v2.ome.tiff", "cells.v2"),
        ("a.b.png", "a.b"),
    ],
)
def test_stem_of_drops_known_endings(name, stem):
    assert stem_of(Path("folder") / name) == stem


def test_read_labels_three_planes_are_no_colors(tmp_path):
    """tifffile takes an array of three or four planes for the colors of one, unless told."""
    labels = np.zeros((3, 20, 30), np.uint16)
    labels[1, 4:8, 5:9] = 7
    colors = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "labels.tif", labels, **colors)
    assert read_image(tmp_path / "labels.tif").rgb
    file = read_labels(tmp_path / "labels.tif")
    assert (file.channel_axis, file.shape, file.rgb) == (None, (3, 20, 30), False)
    np.testing.assert_array_equal(file.data, labels)
    tifffile.imwrite(tmp_path / "colors.tif", np.moveaxis(labels, 0, -1), photometric="rgb")
    with pytest.raises(ValueError, match="has 3 channels; a label image has none"):
        read_labels(tmp_path / "colors.tif")


def test_picture_that_is_called_otherwise_says_so(tmp_path):
    path = tmp_path / "scan.svs"
    Image.new("RGB", (8, 6)).save(path, format="JPEG")
    note = "It is a picture in the format JPEG, though its name ends in .svs."
    assert read_image(path).notes == (note,)
    path = tmp_path / "scan.jpg"
    Image.new("RGB", (8, 6)).save(path)
    assert read_image(path).notes == ()
