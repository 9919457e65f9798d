"""Parts of slides: the pixels of numpy's slices and means, their size and their place."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_simmat.io.image_file import ImageFile, LazyArray
from napari_simmat.io.part import ImagePart
from napari_simmat.io.pyramid import CutArray, ReducedArray, level_factor, read_part
from napari_simmat.io.readers import open_image, read_image
from napari_simmat.io.tiff_writing import write_labels_tiff
from tests.slides import (
    MPP,
    drawn_slide,
    halved,
    write_generic,
    write_ndpi,
    write_ome,
    write_scn,
    write_svs,
    write_zarr,
)

COLORS = drawn_slide()
EXACT = {
    "a.ndpi": write_ndpi,
    "a.ome.tif": write_ome,
    "a.ome.zarr": write_zarr,
    "a.scn": write_scn,
    "a.tif": write_generic,
}
"""Files whose pixels are not packed with a loss."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return {
        name: write(folder / name, COLORS) for name, write in {**EXACT, "a.svs": write_svs}.items()
    }


def colors_of(file):
    """(Y, X, S)."""
    return np.moveaxis(np.asarray(file.data), file.channel_axis, -1)


@pytest.mark.parametrize("name", EXACT)
def test_region_of_a_level_is_that_of_the_array(slides, name):
    file = read_image(slides[name], part=ImagePart(level=1, region="100,200,500,801"))
    np.testing.assert_array_equal(colors_of(file), halved(COLORS, 4)[25:125, 50:201])
    assert file.scale == {"Y": 4 * MPP, "X": 4 * MPP}
    assert file.within.offset == (100, 200)
    assert file.within.factor == (4, 4)
    # The center of its first pixel is 1.5 pixels of level 0 behind that of pixel 100, 200.
    assert file.origin == pytest.approx({"Y": 101.5 * MPP, "X": 201.5 * MPP})
    assert file.units["Y"] == "um"


@pytest.mark.parametrize("name", EXACT)
def test_region_in_micrometers_is_that_in_pixels(slides, name):
    by_length = read_image(slides[name], part=ImagePart(region="25,50,75.25,100um"))
    by_pixels = read_image(slides[name], part=ImagePart(region="100,200,301,400"))
    np.testing.assert_array_equal(colors_of(by_length), colors_of(by_pixels))
    np.testing.assert_array_equal(colors_of(by_pixels), COLORS[100:301, 200:400])


def test_pixels_packed_with_a_loss_are_near(slides):
    file = read_image(slides["a.svs"], part=ImagePart(region="280,280,460,460"))
    apart = np.abs(colors_of(file).astype(int) - COLORS[280:460, 280:460])
    assert file.rgb
    assert apart.mean() < 3


def test_size_of_pixels_takes_the_nearest_finer_level(slides):
    exact = read_image(slides["a.tif"], part=ImagePart(mpp=1.0))
    assert (exact.within.level, exact.within.factor) == (1, (4, 4))
    np.testing.assert_array_equal(colors_of(exact), halved(COLORS, 4))
    near = read_image(slides["a.tif"], part=ImagePart(mpp=1.015))
    assert near.scale["X"] == 1.0  # as the level has it, not as it was asked for
    coarser = read_image(slides["a.tif"], part=ImagePart(mpp=2.0, region="0,0,512,1024"))
    assert (coarser.within.level, coarser.within.factor) == (1, (8, 8))
    assert coarser.data.shape == (64, 128, 3)
    assert coarser.scale == {"Y": 2.0, "X": 2.0}


def test_reduced_pixels_are_means_around_them(slides):
    file = read_image(slides["a.tif"], part=ImagePart(mpp=0.6))
    assert file.data.shape == (426, 640, 3)  # 1024 x 1536 over 2.4
    assert file.within.factor == pytest.approx((2.4, 2.4))
    y, x = 125, 125  # level 0: 300, 300, a nucleus
    around = COLORS[296:306, 296:306].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(file.data[y, x], around, atol=2)


def test_reduced_part_is_that_of_the_whole():
    values = np.random.default_rng(0).normal(size=(2, 90, 70)).astype(np.float32)
    whole = np.asarray(ReducedArray(values, "CYX", (2.5, 1.4))[...])
    assert whole.shape == (2, 36, 50)
    part = ReducedArray(values, "CYX", (2.5, 1.4))[1, 10:21, 7:33]
    np.testing.assert_allclose(part, whole[1, 10:21, 7:33], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "where",
    [
        (0,),
        (slice(None), 3, 4),
        (slice(None), slice(None, None, 2), slice(8, 1, -3)),
        (..., -1),
        (1, slice(5, 5), slice(2, 4)),
        (slice(0, 1), 2),
    ],
)
def test_cut_array_takes_what_numpy_takes(where):
    values = np.arange(2 * 20 * 30).reshape(2, 20, 30)
    cut = CutArray(values, "CYX", slice(5, 15), slice(10, 22))
    np.testing.assert_array_equal(cut[where], values[:, 5:15, 10:22][where])
    assert cut.shape == (2, 10, 12)


def test_only_the_tiles_of_a_region_are_read(slides, tmp_path):
    damaged = tmp_path / "damaged.tif"
    content = bytearray(slides["a.svs"].read_bytes())
    with tifffile.TiffFile(slides["a.svs"]) as tiff:
        page = tiff.pages[0]
        for number, (at, size) in enumerate(
            zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            if number != 7:  # of 4 x 6 tiles, the second of the second row
                content[at : at + size] = bytes(size)
    damaged.write_bytes(content)
    inside = read_image(damaged, part=ImagePart(region="256,256,512,512"))
    assert inside.data.shape == (256, 256, 3)
    with pytest.raises(ValueError, match="could not be read"):
        read_image(damaged, part=ImagePart(region="256,255,512,512"))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            ImagePart(level=3),
            r"has no level 3; its levels are 0 \(1024 x 1536, 0.25 um\), 1 .*, 2 \(64 x 96, 4 um",
        ),
        (ImagePart(mpp=0.2), r"0\.25 um at the finest level, larger than the 0\.2 um of --mpp"),
        (ImagePart(region="0,0,2000,10"), r"reaches beyond .* 1024 x 1536 pixels"),
        (ImagePart(region="0,0,1,1mm"), r"1024 x 1536 pixels \(0\.256 x 0\.384 mm\)"),
        (ImagePart(region="-1,0,9,9"), "reaches beyond"),
    ],
)
def test_part_that_is_not_there_is_refused(slides, part, words):
    with pytest.raises(ValueError, match=words):
        read_image(slides["a.svs"], part=part)


def test_image_without_a_pyramid_has_regions(tmp_path):
    values = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    tifffile.imwrite(tmp_path / "flat.tif", values)
    file = read_image(tmp_path / "flat.tif", part=ImagePart(region="10,20,30,70"))
    np.testing.assert_array_equal(file.data, values[10:30, 20:70])
    with pytest.raises(ValueError, match="does not say how large its pixels are"):
        read_image(tmp_path / "flat.tif", part=ImagePart(mpp=1))
    with pytest.raises(ValueError, match=r"it has level 0 .* alone, no pyramid"):
        read_image(tmp_path / "flat.tif", part=ImagePart(level=1))


def test_levels_whose_rest_is_cut_off_have_whole_factors():
    assert level_factor(33_001, 8_250) == 4
    assert level_factor(46_000, 2_875) == 16
    assert level_factor(1000, 300) == pytest.approx(10 / 3)


def test_map_keeps_the_place_of_a_region(tmp_path):
    from napari_simmat.io.reference import World

    affine = np.array(
        [[10.0, 0, 0, 500_005], [0, -10, 0, 8_000_000 - 5], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    file = ImageFile(
        tmp_path / "map.tif",
        np.zeros((40, 50), np.uint8),
        "YX",
        world=World(affine=affine, space="map", epsg=32633),
    )
    part = read_part(file, ImagePart(region="10,20,30,40"))
    np.testing.assert_allclose(part.world.affine[:2, 3], [500_205, 8_000_000 - 105])


def test_missing_pixels_of_a_region_are_nan(tmp_path):
    values = np.ones((20, 20), np.float32)
    values[5, 6] = -9999
    file = ImageFile(tmp_path / "a.tif", values, "YX", missing=-9999.0)
    part = read_part(file, ImagePart(region="4,4,10,10"))
    assert np.argwhere(np.isnan(part.data)).tolist() == [[1, 2]]
    masked = replace(file, missing=None, valid=values > 0)
    assert np.argwhere(
        np.isnan(read_part(masked, ImagePart(region="4,4,10,10")).data)
    ).tolist() == [[1, 2]]


def test_labels_of_a_region_say_where_they_lie(slides, tmp_path):
    file = read_image(slides["a.ome.tif"], part=ImagePart(region="100,200,300,500"))
    labels = np.ones(file.shape, np.uint16)
    write_labels_tiff(tmp_path / "l.tif", labels, axes="YX", reference=file.reference)
    known = read_image(tmp_path / "l.tif")
    assert known.scale == {"Y": MPP, "X": MPP}
    assert known.stage == {"Y": (25.0, "um"), "X": (50.0, "um")}


def test_slide_is_opened_with_its_levels_unread(slides):
    file = open_image(slides["a.svs"], in_parts=True, lazy_above=10**6)
    assert isinstance(file.data, LazyArray)
    assert [level.shape for level in file.levels] == [(256, 384, 3), (64, 96, 3)]


def test_repr_tells_size_and_levels_and_no_pixels(slides):
    said = repr(read_image(slides["a.scn"]))
    assert said == (
        "<ImageFile a.scn: YXS 1024 x 1536 x 3, uint8, pixels of 0.25 um x 0.25 um, "
        "coarser levels 256 x 384>"
    )
