"""Where a slide holds tissue: drawn tissue is found, glass is neither measured nor looked at."""

import json

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.everything.tissue import TissueMask, find_tissue, tissue_by_color
from napari_simmat.io.part import ImagePart
from napari_simmat.io.readers import open_image
from tests.slides import GLASS, TISSUE, drawn_slide, write_svs

COLORS = drawn_slide()
DRAWN = np.zeros(COLORS.shape[:2], bool)
DRAWN[150:600, 150:700] = DRAWN[600:900, 780:1100] = True


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_svs(tmp_path_factory.mktemp("slide") / "a.svs", COLORS)


def test_tissue_is_found_by_its_color(slide):
    found = find_tissue("auto", slide, open_image(slide))
    assert found.share == pytest.approx(DRAWN.mean(), abs=0.01)
    assert found.holds([(300, 300), (50, 50), (700, 900), (700, 400)]).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert "Tissue is 22% of the slide; nothing else" in found.sentence()


def test_tissue_of_a_part_is_that_of_its_place(slide):
    part = open_image(slide, part=ImagePart(mpp=0.5, region="100,100,700,800"))
    found = find_tissue("auto", slide, part)
    assert found.shape == (300, 350)
    # y 100, x 100 of the part is 300, 300 of the slide; 10, 10 is 120, 120, on glass.
    assert found.holds([(100, 100), (10, 10)]).tolist() == [True, False]
    assert f"{DRAWN[100:700, 100:800].mean():.0%} of the part" in found.sentence()


def test_slide_of_tissue_alone_is_all_tissue():
    noise = np.random.default_rng(0).integers(-6, 7, (300, 300, 1))
    assert tissue_by_color((np.array(TISSUE) + noise).astype(np.uint8)).all()


def test_slide_of_glass_alone_is_refused(tmp_path):
    glass = np.full((512, 512, 3), GLASS, np.uint8)
    path = write_svs(tmp_path / "glass.svs", glass)
    with pytest.raises(ValueError, match=r"No tissue was found on glass\.svs"):
        find_tissue("auto", path, open_image(path))


def test_black_beside_the_scan_is_no_tissue():
    colors = drawn_slide((700, 800)).copy()
    colors[:, :100] = 0
    assert not tissue_by_color(colors)[:, :95].any()


def test_tissue_of_labels_or_outlines_is_that(slide, tmp_path):
    small = np.zeros((64, 96), np.uint8)
    small[10:30, 10:40] = 3
    tifffile.imwrite(tmp_path / "m.tif", small)
    by_labels = find_tissue(str(tmp_path / "m.tif"), slide, open_image(slide))
    ring = [[160, 160], [640, 160], [640, 480], [160, 480], [160, 160]]
    area = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "m.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [area]})
    )
    by_outline = find_tissue(str(tmp_path / "m.geojson"), slide, open_image(slide))
    inside = [(161, 161), (478, 638), (158, 300), (300, 642)]
    for found in (by_labels, by_outline):
        assert found.holds(inside).tolist() == [True, True, False, False]
        assert found.share == pytest.approx(320 * 480 / COLORS[..., 0].size, rel=0.01)


def test_mask_of_other_sides_is_refused(slide, tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.ones((64, 64), np.uint8))
    with pytest.raises(
        ValueError, match=r"m\.tif has 64 x 64 pixels, which are not the sides of a"
    ):
        find_tissue(str(tmp_path / "m.tif"), slide, open_image(slide))


def test_gray_image_has_no_color_to_tell_tissue_by(tmp_path):
    tifffile.imwrite(tmp_path / "g.tif", np.zeros((40, 40), np.uint8))
    with pytest.raises(ValueError, match="no RGB image"):
        find_tissue("auto", tmp_path / "g.tif", open_image(tmp_path / "g.tif"))


def test_little_tissue_is_said_with_two_digits():
    mask = np.zeros((100, 100), bool)
    mask[0, :12] = True
    assert "Tissue is 0.12% of the slide;" in TissueMask(mask, (1000, 1000)).sentence()


def test_blocks_to_measure_lie_on_tissue():
    mask = np.zeros((8, 12), bool)
    mask[2:4, 3:9] = True  # of cells of 256 pixels
    found = TissueMask(mask, (2048, 3072)).blocks()
    places = {(rows.start, columns.start) for _, rows, columns in found}
    assert places == {(y, x) for y in range(512, 1024, 64) for x in range(768, 2304, 64)}
    few = TissueMask(mask, (2048, 3072)).blocks(budget=3 * 64**2)
    assert len(few) == 3
    small = np.zeros((64, 96), bool)
    small[20:24, 30:34] = True  # of cells of 32 pixels: an area of half a block of the usual side
    assert len(TissueMask(small, (2048, 3072)).blocks()) == 4
    assert TissueMask(mask, (2048, 3072)).part(PixelBox(0, 0, 512, 3072)).any() == np.False_
