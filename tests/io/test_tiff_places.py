"""What a TIFF says about places, masks and sizes beside its pixels: read, or said in a sentence."""

import numpy as np
import pytest
import tifffile

from napari_simmat.io.channel_files import write_channels
from napari_simmat.io.geotiff import BY_POINTS, BY_WORLD_FILE, MASK_BESIDE
from napari_simmat.io.readers import read_image
from napari_simmat.io.tiff import read_tiff_reference
from napari_simmat.io.tiff_metadata import STAGE_DIFFERS
from napari_simmat.io.tiff_writing import write_labels_tiff
from tests.io.places import CRS, LEFT, PIXEL, TOP, make_map_in, make_masked, plane, theirs


@pytest.mark.parametrize("lazy_above", [0, 2**28])
@pytest.mark.parametrize(("bands", "interleave"), [(1, "pixel"), (2, "pixel"), (2, "band")])
def test_masked_pixels_of_a_geotiff_are_missing(tmp_path, bands, interleave, lazy_above):
    path = make_masked(tmp_path, bands, interleave=interleave)
    image = read_image(path, lazy_above=lazy_above)
    assert image.notes == ()
    found = np.asarray(image.data)
    planes = [found] if bands == 1 else list(np.moveaxis(found, image.channel_axis, 0))
    for values in planes:
        assert np.isnan(values[:20]).all()
        np.testing.assert_array_equal(values[20:], plane()[20:])
    if not isinstance(image.data, np.ndarray):
        part = (slice(15, 25), slice(0, 9))
        axis = image.channel_axis
        where = part if axis is None else (0, *part) if axis == 0 else (*part, 0)
        read = image.data[where]
        assert np.isnan(read[:5]).all()
        assert not np.isnan(read[5:]).any()


def test_masked_pixels_of_a_picture_are_black(tmp_path):
    values = np.full((3, 64, 72), 200)
    path = make_masked(tmp_path, 3, dtype="uint8", values=values, photometric="RGB")
    image = read_image(path)
    assert (image.rgb, image.data.dtype) == (True, np.uint8)
    found = np.moveaxis(np.asarray(image.data), image.channel_axis, -1)
    assert not found[:20].any()
    assert (found[20:] == 200).all()


def test_mask_beside_a_tiff_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", plane())
    tifffile.imwrite(tmp_path / "a.tif.msk", plane().astype(np.uint8))
    assert read_image(tmp_path / "a.tif").notes == (MASK_BESIDE.format("a.tif.msk"),)


@theirs()
def test_ground_control_points_are_named(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    control = pytest.importorskip("rasterio.control").GroundControlPoint
    corners = [(0, 0), (0, 72), (64, 0)]
    points = [control(y, x, LEFT + PIXEL * x, TOP - PIXEL * y, 0) for y, x in corners]
    shape = {"height": 64, "width": 72, "count": 1, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", gcps=points, crs=CRS, **shape
    ) as file:
        file.write(plane()[None])
    image = read_image(tmp_path / "a.tif")
    assert image.world is None
    assert image.notes == (BY_POINTS.format("ground control points"),)


@pytest.mark.parametrize("name", ["a.tfw", "a.TFW", "a.wld"])
def test_world_file_places_a_tiff(tmp_path, name):
    rasterio = pytest.importorskip("rasterio")
    tifffile.imwrite(tmp_path / "a.tif", plane(), photometric="minisblack")
    (tmp_path / name).write_text("10\n1\n-2\n-12\n500005\n5299995\n")
    image = read_image(tmp_path / "a.tif")
    assert image.notes == (BY_WORLD_FILE.format(name),)
    assert (image.world.epsg, image.scale) == (None, {})
    write_labels_tiff(
        tmp_path / "labels.tif", np.ones((64, 72), np.uint8), axes="YX", reference=image.reference
    )
    with theirs(), rasterio.open(tmp_path / "labels.tif") as ours:
        np.testing.assert_allclose(ours.transform[:6], (10, -2, 500001, 1, -12, 5300000.5))
    if name == "a.tfw":  # GDAL looks for this one
        with theirs(), rasterio.open(tmp_path / "a.tif") as image:
            np.testing.assert_allclose(image.transform[:6], (10, -2, 500001, 1, -12, 5300000.5))


def test_world_file_maps_the_centers_of_pixels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 7), np.uint8))
    (tmp_path / "a.tfw").write_text("10\n1\n2\n-20\n300\n400\n")
    world = read_image(tmp_path / "a.tif").reference.world
    assert world is not None
    assert (world.affine @ (3, 4, 0, 1)).tolist() == [300 + 30 + 8, 400 + 3 - 80, 0, 1]


def test_world_file_that_is_none_is_ignored(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", plane(), photometric="minisblack")
    (tmp_path / "a.tfw").write_text("10 0 zero -10 1 2")
    image = read_image(tmp_path / "a.tif")
    assert (image.world, image.notes) == (None, ())


def make_on_stage(path, positions):
    known = {"PositionX": positions, "PositionXUnit": ["mm"] * len(positions)}
    known |= {"PositionY": [-2.5] * len(positions)}
    metadata = {"axes": "ZYX", "Plane": known}
    stack = np.stack([plane()] * len(positions))
    tifffile.imwrite(path, stack, ome=True, metadata=metadata, photometric="minisblack")
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263"])  # degrees, feet
def test_map_without_meters_has_no_size_of_a_print(tmp_path, crs):
    rasterio = pytest.importorskip("rasterio")
    path = make_map_in(tmp_path, "map.tif", crs, 13.0)
    with theirs(), rasterio.open(path, "r+") as file:
        unit = "3 (pixels/cm)"
        file.update_tags(
            TIFFTAG_XRESOLUTION=72, TIFFTAG_YRESOLUTION=72, TIFFTAG_RESOLUTIONUNIT=unit
        )
    image = read_image(path)
    assert image.scale == {}
    assert read_tiff_reference(path).scale == {}
    [note] = image.notes
    assert note.startswith(f"{crs} does not count in meters, so sizes are in pixels alone")


def test_stage_position_stays_with_labels_and_channels(tmp_path):
    ome_types = pytest.importorskip("ome_types")
    image = read_image(make_on_stage(tmp_path / "a.ome.tif", [12.5] * 3))
    assert image.stage == {"X": (12.5, "mm"), "Y": (-2.5, "reference frame")}
    assert read_tiff_reference(tmp_path / "a.ome.tif").stage == image.stage
    labels = np.ones((3, 64, 72), np.uint8)
    write_labels_tiff(tmp_path / "l.tif", labels, axes="ZYX", reference=image.reference)
    channels = {"a": labels, "b": labels}
    write_channels(tmp_path / "c.tif", channels, "ZYX", image.reference)
    for name, count in (("l.tif", 3), ("c.tif", 6)):
        planes = ome_types.from_tiff(tmp_path / name).images[0].pixels.planes
        assert len(planes) == count
        assert {(each.position_x, each.position_x_unit.value) for each in planes} == {(12.5, "mm")}
        assert {each.position_y_unit.value for each in planes} == {"reference frame"}


def test_stage_positions_that_differ_are_named(tmp_path):
    image = read_image(make_on_stage(tmp_path / "a.ome.tif", [1.0, 2.0, 3.0]))
    assert (image.stage, image.notes) == ({}, (STAGE_DIFFERS,))


def test_slide_of_aperio_has_its_pixel_size(tmp_path):
    description = "Aperio Image Library v12.0.15\r\n64x72 (256x256) J2K|AppMag = 20|MPP = 0.4990|"
    tifffile.imwrite(tmp_path / "a.svs", plane(), description=description, metadata=None)
    image = read_image(tmp_path / "a.svs")
    assert (image.scale, image.units) == ({"X": 0.499, "Y": 0.499}, {"X": "um", "Y": "um"})
    reference = read_tiff_reference(tmp_path / "a.svs")
    area, unit = reference.voxel("YX")
    assert (area, unit) == (pytest.approx(0.499**2), "um")


def test_area_of_a_sheared_map_is_that_of_its_pixels(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.Affine(10, 2, LEFT, 0, -10, TOP)
    shape = {"height": 64, "width": 72, "count": 1, "dtype": "uint16"}
    with (
        theirs(),
        rasterio.open(
            tmp_path / "a.tif", "w", crs="EPSG:32633", transform=transform, **shape
        ) as file,
    ):
        file.write(plane()[None])
    area, unit = read_image(tmp_path / "a.tif").reference.voxel("YX")
    assert (area, unit) == (pytest.approx(100), "m")
