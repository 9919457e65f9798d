"""Slides that OpenSlide reads: pixels, levels and sizes as tifffile finds them in the same file."""

import sys

import numpy as np
import pytest
import tifffile

from napari_simmat.io.image_file import ReadOptions
from napari_simmat.io.openslide import read_openslide
from napari_simmat.io.part import ImagePart
from napari_simmat.io.pyramid import read_part
from napari_simmat.io.readers import open_image
from tests.slides import drawn_slide, write_generic, write_svs

COLORS = drawn_slide()


@pytest.fixture(scope="module")
def openslide():
    return pytest.importorskip("openslide")


@pytest.mark.parametrize(("write", "name"), [(write_svs, "a.svs"), (write_generic, "a.tif")])
def test_levels_and_sizes_are_those_of_the_file(openslide, tmp_path, write, name):
    path = write(tmp_path / name, COLORS)
    ours, theirs = read_openslide(path, ReadOptions()), open_image(path)
    assert [level.shape for level in ours.levels] == [level.shape for level in theirs.levels]
    assert ours.scale == pytest.approx(theirs.scale)
    part = ImagePart(level=1, region="100,200,500,801")
    lazy = ReadOptions(part=part)
    mine = read_part(read_openslide(path, lazy), part)
    other = open_image(path, part=part)
    assert mine.data.shape == other.data.shape == (100, 151, 3)
    apart = np.abs(mine.data.astype(int) - other.data)
    assert apart.max() <= 2  # decoders of JPEG round


def test_level_takes_slices_and_numbers(openslide, tmp_path):
    path = write_generic(tmp_path / "a.tif", COLORS)
    level = read_openslide(path, ReadOptions(lazy_above=0)).data
    np.testing.assert_array_equal(level[280:320:3, 290:310, 1], COLORS[280:320:3, 290:310, 1])
    np.testing.assert_array_equal(level[300], COLORS[300])


def test_slide_without_openslide_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")  # a JPEG by its content
    with pytest.raises(
        ValueError, match=r"a\.mrxs is a slide .* \(pip install openslide-python openslide-bin\)"
    ):
        open_image(tmp_path / "a.mrxs")


def test_colors_that_tifffile_takes_for_others_are_left_to_it(tmp_path, monkeypatch):
    options = {"photometric": "rgb", "tile": (256, 256), "compression": 33003, "metadata": None}
    tifffile.imwrite(tmp_path / "a.svs", COLORS[:256, :256], **options)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ValueError, match=r"a\.svs is a slide that OpenSlide reads"):
        open_image(tmp_path / "a.svs")


def test_damaged_slide_is_refused_in_a_sentence(openslide, tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"a\.mrxs could not be read"):
        open_image(tmp_path / "a.mrxs")
