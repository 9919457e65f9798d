"""What the makers of slide scanners write: sizes of pixels, objectives, directories."""

import numpy as np
import pytest
import tifffile

from napari_simmat.io.readers import open_image
from tests.slides import APERIO, drawn_slide, write_generic, write_ndpi, write_scn, write_svs

COLORS = drawn_slide((320, 480))
PHILIPS = """<?xml version="1.0" encoding="UTF-8" ?>
<DataObject ObjectType="DPUfsImport">
<Attribute Name="PIM_DP_SCANNED_IMAGES" PMSVR="IDataObjectArray"><Array>
<DataObject ObjectType="DPScannedImage"><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE">
<Array>{}</Array></Attribute></DataObject></Array></Attribute></DataObject>"""
SPACING = (
    '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">'
    '"{}" "{}"</Attribute></DataObject>'
)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_svs, "A slide of Aperio, objective 40x, 0.23 um to a pixel."),
        (write_ndpi, "A slide of Hamamatsu, objective 40x, 0.23 um to a pixel."),
        (write_scn, "A slide of Leica, objective 20x, 0.23 um to a pixel."),
        (write_generic, None),
    ],
)
def test_pixel_size_and_objective_are_read(tmp_path, write, said):
    names = {write_svs: "a.svs", write_ndpi: "a.ndpi", write_scn: "a.scn", write_generic: "a.tif"}
    file = open_image(write(tmp_path / names[write], COLORS, mpp=0.23))
    assert file.scale == pytest.approx({"Y": 0.23, "X": 0.23}, rel=1e-4)
    assert file.units == {"Y": "um", "X": "um"}
    assert file.shape == (320, 480)
    assert said is None or said in file.notes


def test_philips_gives_rows_and_columns_in_millimeters(tmp_path):
    path = tmp_path / "philips.tiff"
    levels = "".join(SPACING.format(0.00025 * step, 0.00024 * step) for step in (1, 2))
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "software": "Philips DP"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(COLORS, description=PHILIPS.format(levels), **options)
        file.write(COLORS[::2, ::2], **options)
    file = open_image(path)
    assert file.scale == pytest.approx({"Y": 0.25, "X": 0.24})
    assert [level.shape for level in file.levels] == [(160, 240, 3)]


def test_resolution_for_printing_is_no_pixel_size(tmp_path):
    path = tmp_path / "scan.tif"
    with tifffile.TiffWriter(path) as file:
        for page in (COLORS, COLORS[::2, ::2]):
            kind = {} if page is COLORS else {"subfiletype": 1}
            tile = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
            file.write(page, resolution=(300, 300), resolutionunit="INCH", **tile, **kind)
    assert open_image(path).scale == {}


def test_resolution_in_inches_of_a_slide_is_one(tmp_path):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            kind = {} if step == 1 else {"subfiletype": 1}
            tile = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
            per_inch = 25_400 / (0.5 * step)
            page = COLORS[::step, ::step]
            options = {"resolution": (per_inch, per_inch), "resolutionunit": "INCH"}
            file.write(page, **options, **tile, **kind)
    assert open_image(path).scale == pytest.approx({"Y": 0.5, "X": 0.5})


def test_aperio_without_a_size_has_none(tmp_path):
    path = tmp_path / "a.svs"
    described = APERIO.format(320, 480, "unknown")
    tifffile.imwrite(path, COLORS, photometric="rgb", tile=(64, 64), description=described)
    file = open_image(path)
    assert file.scale == {}
    assert "A slide of Aperio, objective 40x." in file.notes


def test_ndpi_directories_in_a_circle_are_refused(tmp_path):
    content = bytearray(write_ndpi(tmp_path / "a.ndpi", COLORS).read_bytes())
    first = int.from_bytes(content[4:12], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    link = first + 2 + 12 * count
    content[link : link + 8] = content[4:12]
    (tmp_path / "a.ndpi").write_bytes(content)
    with pytest.raises(ValueError, match="lists its pages in a circle"):
        open_image(tmp_path / "a.ndpi")


def test_colors_packed_as_luminance_are_rgb(tmp_path):
    file = open_image(write_svs(tmp_path / "a.svs", COLORS))
    with tifffile.TiffFile(tmp_path / "a.svs") as tiff:
        assert tiff.pages.first.photometric.name == "YCBCR"
    assert file.rgb
    assert np.abs(np.asarray(file.data).astype(int) - COLORS).mean() < 3
