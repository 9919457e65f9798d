"""Sizes in the tags of instruments, in files made as rosettasciio's and tifffile's examples are."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_simmat.io.instrument_tags import instrument_pixel_size
from napari_simmat.io.readers import read_image
from napari_simmat.io.tiff import read_tiff_reference

ZEISS, FEI, TVIPS = 34118, 34682, 37706
MAKE = 271


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


@pytest.mark.parametrize(
    ("told", "sizes"),
    [
        ({"is_sis": True, "sis_metadata": {"pixelsizex": 2e-7, "pixelsizey": 1e-7}},
         {"Y": (1e-7, "m"), "X": (2e-7, "m")}),
        ({"is_tvips": True, "tvips_metadata": {"PixelSizeX": 2.0, "PixelSizeY": 1.0}},
         {"Y": (1.0, "nm"), "X": (2.0, "nm")}),
        ({"is_lsm": True, "lsm_metadata": {
            "VoxelSizeX": 2e-7, "VoxelSizeY": 1e-7, "VoxelSizeZ": 0, "TimeIntervall": 0.5}},
         {"Y": (1e-7, "m"), "X": (2e-7, "m"), "T": (0.5, "s")}),
    ],
)  # fmt: skip
def test_tags_that_tifffile_reads_and_does_not_write(told, sizes):
    page = SimpleNamespace(tags=tifffile.TiffTags(), description="")
    tiff = SimpleNamespace(pages=SimpleNamespace(first=page), **told)
    assert instrument_pixel_size(tiff) == sizes
