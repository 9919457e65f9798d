"""Sizes in the tags of instruments, in files made as rosettasciio's and tifffile's examples are."""

import struct

import numpy as np
import pytest
import tifffile

from napari_simmat.io.readers import read_image
from napari_simmat.io.tiff import read_tiff_reference

ZEISS, FEI, SIS, TVIPS, LSM = 34118, 34682, 33560, 37706, 34412
MAKE = 271
PLANES = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)


def write(path, tag, text, width=512, **more):
    """A picture with a tag of text."""
    data = text.encode("latin-1")
    tags = [] if tag is None else [(tag, 2, len(data) + 1, text, True)]
    tifffile.imwrite(path, np.zeros((4, width), np.uint8), extratags=tags, metadata=None, **more)
    return path


def zeiss(*named: str, raw: float = 1e-9) -> str:
    lines = ["0", "0", "0", f"{raw:.6g}", "0", *named]
    return "\r\n".join(lines)


IMAGE_PIXEL = "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 11.65 nm"
PIXEL = "AP_PIXEL_SIZE\r\nPixel Size = 5.371 nm"


@pytest.mark.parametrize(
    ("width", "text", "size", "unit"),
    [
        (512, zeiss(PIXEL, IMAGE_PIXEL), 11.65, "nm"),  # the raw size means another image
        (512, zeiss(PIXEL, IMAGE_PIXEL, raw=5.824988e-9), 11.649976, "nm"),  # it is not rounded
        (1024, zeiss(PIXEL, raw=12.326e-9), 12.326, "nm"),
        (512, zeiss(PIXEL, raw=1.3e-6), 2.6, "um"),  # the raw size belongs to 1024 columns
    ],
)
def test_zeiss_sem(tmp_path, width, text, size, unit):
    path = write(tmp_path / "a.tif", ZEISS, text, width)
    image = read_image(path)
    assert image.scale == pytest.approx({"Y": size, "X": size}, rel=1e-5)
    assert image.units == {"Y": unit, "X": unit}
    assert read_tiff_reference(path).scale == pytest.approx(image.scale)


def test_fei_sem(tmp_path):
    text = "[User]\r\nUser=a\r\n[Scan]\r\nPixelWidth=1.8208e-009\r\nPixelHeight=2e-009\r\n"
    image = read_image(write(tmp_path / "a.tif", FEI, text))
    assert image.scale == pytest.approx({"Y": 2.0, "X": 1.8208})


JEOL = """<TemReporter><Eos><EosMode>eosTEM</EosMode></Eos><ImageFormingSystem>
<ModeString>{}</ModeString><SelectorValue>10000</SelectorValue></ImageFormingSystem></TemReporter>"""


@pytest.mark.parametrize(("mode", "scale"), [("MAG", {"Y": 2.0, "X": 1.0}), ("DIFF", {})])
def test_jeol_tem(tmp_path, mode, scale):
    """1000 and 500 pixels of the camera in a centimeter, magnified 10,000 times."""
    path = write(
        tmp_path / "a.tif", MAKE, "JEOL Ltd.", description=JEOL.format(mode),
        resolution=(1000, 500), resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert read_image(path).scale == pytest.approx(scale)


def test_export_of_digital_micrograph(tmp_path):
    tags = [(65003, 2, 3, "um", True), (65004, 2, 3, "um", True)]
    tags += [(65009, 12, 1, 0.25, True), (65010, 12, 1, 0.5, True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8), extratags=tags, metadata=None)
    assert read_image(path).scale == {"Y": 0.5, "X": 0.25}


def test_damaged_tags_give_no_size(tmp_path):
    for number, (tag, text) in enumerate([(ZEISS, "no"), (FEI, "[Scan]\r\nPixelWidth=no\r\n")]):
        assert read_image(write(tmp_path / f"{number}.tif", tag, text)).scale == {}


def test_metamorph(tmp_path):
    text = (
        '<MetaData><PlaneInfo><prop id="spatial-calibration-state" type="bool" value="on"/>'
        '<prop id="spatial-calibration-x" type="float" value="0.65"/>'
        '<prop id="spatial-calibration-y" type="float" value="0.5"/>'
        '<prop id="spatial-calibration-units" type="string" value="um"/></PlaneInfo></MetaData>'
    )
    image = read_image(write(tmp_path / "a.tif", None, "", description=text, software="MetaSeries"))
    assert image.scale == {"Y": 0.5, "X": 0.65}


def write_binary(path, tag, data, planes=PLANES[:1], thumbnails=False):
    """Planes of which the first has a tag of bytes; returns where in the file the bytes lie."""
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for number, plane in enumerate(planes):
            tags = [] if number else [(tag, 7, len(data), data, True)]
            file.write(plane, extratags=tags, metadata=None, contiguous=False)
            if thumbnails:
                file.write(np.ones((2, 2), np.uint8), subfiletype=1, metadata=None)
    with tifffile.TiffFile(path) as file:
        return file.pages.first.tags[tag].valueoffset


def record(kind, **values):
    """Bytes of a record as tifffile knows it, zero but for these values."""
    made = np.zeros((), np.dtype(kind))
    for name, value in values.items():
        made[name] = value
    return made.tobytes()


def test_olympus_sis(tmp_path):
    """A block, to which the tag points, has the sizes and the exponent of their unit in meters."""
    path = tmp_path / "a.tif"
    head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 1, 2, 3, 4, 120, b"image", 1)
    block = struct.pack("<10xhdd8xd2x34s32s", -6, 0.2, 0.1, 40.0, b"camera", b"picture")
    at = write_binary(path, SIS, head + struct.pack("<hhI", 1, 1, 0) + block)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, at + len(head) + 4, at + len(head) + 8)
    path.write_bytes(content)
    image = read_image(path)
    assert image.scale == pytest.approx({"Y": 0.1, "X": 0.2})
    assert image.units == {"Y": "um", "X": "um"}


def test_tvips(tmp_path):
    """Of the second version, in nanometers."""
    header = record(tifffile.TIFF.TVIPS_HEADER_V1, Version=2)
    more = {"Magic": 0xAAAAAAAA, "PixelSizeX": 2.0, "PixelSizeY": 1.0}
    path = tmp_path / "a.tif"
    write_binary(path, TVIPS, header + record(tifffile.TIFF.TVIPS_HEADER_V2, **more))
    image = read_image(path)
    assert image.scale == {"Y": 1.0, "X": 2.0}
    assert image.units == {"Y": "nm", "X": "nm"}


@pytest.mark.parametrize(("scan", "letter", "step"), [(0, "Z", 0.5), (3, "T", 1.5)])
def test_zeiss_lsm(tmp_path, scan, letter, step):
    """Meters and seconds; a thumbnail follows each plane."""
    axes, scale = f"{letter}YX", {letter: step, "Y": 0.1, "X": 0.2}
    extent = {"DimensionZ": 3 if letter == "Z" else 1, "DimensionTime": 3 if letter == "T" else 1}
    size = np.dtype(tifffile.TIFF.CZ_LSMINFO).itemsize
    values = {
        "MagicNumber": 67127628, "StructureSize": size, "DataType": 1,
        "DimensionY": 4, "DimensionX": 6, "DimensionChannels": 1, "ScanType": scan, **extent,
        "VoxelSizeX": 2e-7, "VoxelSizeY": 1e-7, "VoxelSizeZ": 5e-7, "TimeIntervall": 1.5,
    }  # fmt: skip
    path = tmp_path / "a.lsm"
    info = record(tifffile.TIFF.CZ_LSMINFO, **values)
    write_binary(path, LSM, info, PLANES, thumbnails=True)
    image = read_image(path)
    assert image.axes == axes
    assert np.array_equal(image.data, PLANES)
    assert image.scale == pytest.approx(scale)
    assert image.units == {letter: "s" if letter == "T" else "um" for letter in axes}
    of_file = read_tiff_reference(path).scale
    assert {letter: of_file[letter] for letter in axes} == pytest.approx(scale)
