"""Files of FITS, MRC and CZI, written by the packages of their formats and read by those that are
installed; an environment of its own has these."""

import numpy as np
import pytest

from napari_simmat.engine.measuring.measurements import measure_objects, table_columns
from napari_simmat.io.part import ImagePart
from napari_simmat.io.readers import read_image

PLANE = np.arange(48, dtype=np.float32).reshape(6, 8)


def test_fits_is_read_by_astropy(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])
    units = [fits.PrimaryHDU(), table, fits.ImageHDU(PLANE[None]), fits.ImageHDU(PLANE + 1)]
    fits.HDUList(units).writeto(tmp_path / "a.fits")
    image = read_image(tmp_path / "a.fits")
    assert (image.axes, image.data.dtype) == ("YX", np.float32)
    assert image.data.dtype.isnative
    assert np.array_equal(image.data, PLANE)
    assert image.read_by.startswith("astropy ")
    assert image.notes == ("Of its 2 images the first is read.",)


def test_unsigned_and_blank_values_of_fits_are_scaled(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(PLANE.astype(np.uint16) + 60_000).writeto(tmp_path / "a.fits")
    image = read_image(tmp_path / "a.fits")
    assert image.data.dtype == np.uint16
    assert np.array_equal(image.data, PLANE.astype(np.uint16) + 60_000)
    blank = fits.PrimaryHDU(PLANE.astype(np.int16))
    blank.header["BLANK"], blank.header["BSCALE"] = 5, 2.0
    blank.writeto(tmp_path / "b.fits")
    assert np.isnan(np.asarray(read_image(tmp_path / "b.fits").data)).sum() == 1


def test_fits_without_an_image_or_cut_short_is_refused(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="holds no image"):
        read_image(tmp_path / "a.fits")
    fits.PrimaryHDU(np.zeros((200, 200))).writeto(tmp_path / "b.fits")
    (tmp_path / "b.fits").write_bytes((tmp_path / "b.fits").read_bytes()[:5760])
    with pytest.raises(ValueError, match="cut short"):
        read_image(tmp_path / "b.fits")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves it open
def test_mrc_is_read_by_a_plugin(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    pytest.importorskip("napari_mrcfile_reader")
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.stack([PLANE, PLANE + 1]))
        file.voxel_size = 5.0
    image = read_image(tmp_path / "a.mrc")
    assert np.array_equal(np.asarray(image.data), np.stack([PLANE, PLANE + 1]))
    assert image.read_by.startswith(("napari-mrcfile-reader ", "napari-rosettasciio "))


@pytest.mark.slow
def test_czi_is_read_with_its_size_and_channels(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for channel in (0, 1):
            plane = (PLANE + channel).astype(np.uint16)[..., None]
            file.write(data=plane, plane={"C": channel, "T": 0, "Z": 0})
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=5e-7, scale_y=5e-7)
    image = read_image(tmp_path / "a.czi")
    data = np.asarray(image.data)
    assert image.channel_names == ("DAPI", "GFP")
    assert np.array_equal(data.reshape(2, 6, 8), np.stack([PLANE, PLANE + 1]))
    assert (image.axes, image.scale) == ("CYX", {"Y": 0.5, "X": 0.5})
    assert image.read_by.startswith("bioio-czi ")


def test_objects_of_fits_have_their_place_on_the_sky(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    wcs = pytest.importorskip("astropy.wcs")
    known = wcs.WCS(naxis=2)
    known.wcs.ctype = "RA---TAN", "DEC--TAN"
    known.wcs.crval, known.wcs.crpix, known.wcs.cdelt = (150.1, 2.2), (4, 3), (-1e-4, 1e-4)
    fits.PrimaryHDU(PLANE, known.to_header()).writeto(tmp_path / "a.fits")
    labels = np.zeros(PLANE.shape, np.uint8)
    labels[2, 3] = 1
    labels[0:2, 6:8] = 2
    image = read_image(tmp_path / "a.fits")
    rows = measure_objects(labels, axes="YX", size=image.reference)
    assert (rows[0]["ra_deg"], rows[0]["dec_deg"]) == pytest.approx((150.1, 2.2), abs=1e-12)
    theirs = known.pixel_to_world(6.5, 0.5)
    assert (rows[1]["ra_deg"], rows[1]["dec_deg"]) == pytest.approx((theirs.ra.deg, theirs.dec.deg))
    assert {"ra_deg", "dec_deg"} < set(table_columns("YX", (), image.reference))
    part = read_image(tmp_path / "a.fits", part=ImagePart(region="1,2,6,8"))
    [row] = measure_objects(labels[1:, 2:][:3, :3], axes="YX", size=part.reference)
    assert (row["ra_deg"], row["dec_deg"]) == pytest.approx((150.1, 2.2), abs=1e-12)
