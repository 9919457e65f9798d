"""Captures whose bands are files: found by a pattern, proposed from names, read as one image."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.io.captures import (
    band_files,
    capture_stem,
    find_captures,
    home_of,
    is_capture,
    names_captures,
    propose_pattern,
)
from napari_simmat.io.readers import open_image, read_image, stem_of

RIG = [f"IMG_{capture:04}_{band}.tif" for capture in (1, 2, 10) for band in range(1, 6)]


def write(folder, *names, shape=(6, 8)):
    """Files of one value each, which counts them from 1."""
    for value, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full(shape, value, np.uint16))
    return folder


def test_captures_are_read_as_images_of_their_bands(tmp_path):
    write(tmp_path, *RIG)
    found = find_captures(tmp_path / "{capture}_{band}.tif")
    assert found.root == tmp_path
    assert [stem_of(image) for image in found.images] == ["IMG_0001", "IMG_0002", "IMG_0010"]
    image = open_image(found.images[1])
    assert (image.axes, image.data.shape) == ("CYX", (5, 6, 8))
    assert image.channel_names == ("band1", "band2", "band3", "band4", "band5")
    assert image.data[:, 0, 0].tolist() == [6, 7, 8, 9, 10]
    assert [file.name for file in image.files] == RIG[5:10]


def test_capture_lists_and_names_its_bands(tmp_path):
    write(tmp_path, *RIG)
    path = tmp_path / "IMG_0001_{band:3=red,1=blue}.tif"
    assert is_capture(path)
    assert not names_captures(path)
    image = read_image(path)
    assert image.channel_names == ("red", "blue")
    assert image.data[:, 0, 0].tolist() == [3, 1]
    named = find_captures(tmp_path / "{capture}_{band:3=red,1=blue}.tif").images[0]
    assert named == path
    assert image.sha256() == open_image(named).sha256()
    assert image.sha256() != open_image(tmp_path / "IMG_0001_{band:1=blue,3=red}.tif").sha256()


@pytest.mark.parametrize(
    ("pattern", "names", "stems", "homes"),
    [
        ("{band}_{capture}.tif", ["nir_a_1.tif", "red_a_1.tif"], ["a_1"], [""]),
        ("{capture}-{band}-ref.tif", ["a-nir-ref.tif", "a-red-ref.tif"], ["a_ref"], [""]),
        ("{capture}/{band}.tif", ["a/nir.tif", "a/red.tif", "b/nir.tif", "b/red.tif"],
         ["a", "b"], ["a", "b"]),
        ("{band}/{capture}.tif", ["nir/a.tif", "red/a.tif"], ["a"], [""]),
        ("*/{capture}_{band}.tif", ["x/a_1.tif", "x/a_2.tif", "y/a_1.tif", "y/a_2.tif"],
         ["a", "a"], ["x", "y"]),
        ("**/{capture}_{band}.tif", ["a_1.tif", "a_2.tif", "y/z/b_1.tif", "y/z/b_2.tif"],
         ["a", "b"], ["", "y/z"]),
        ("run [2]/{capture}_{band}.tif", ["run [2]/a_1.tif", "run [2]/a_2.tif"],
         ["a"], ["run [2]"]),
    ],
)  # fmt: skip
def test_pattern_may_be_of_any_form(tmp_path, pattern, names, stems, homes):
    write(tmp_path, *names)
    images = find_captures(tmp_path / pattern).images
    assert [capture_stem(image) for image in images] == stems
    assert [home_of(image) for image in images] == [tmp_path / home for home in homes]
    found = [file for image in images for file in band_files(image).values()]
    assert found == [tmp_path / name for name in names]


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description {}>{}</rdf:Description>"""
ELEMENT = "<Camera:BandName>{}</Camera:BandName>"
LISTED = "<Camera:BandName><rdf:Seq><rdf:li>{}</rdf:li></rdf:Seq></Camera:BandName>"


@pytest.mark.parametrize("form", ["attribute", ELEMENT, LISTED])
def test_bands_are_called_as_the_camera_calls_them(tmp_path, form):
    for number, band in enumerate(("Blue", "Red edge"), 1):
        given = (
            (f'Camera:BandName="{band}"', "") if form == "attribute" else ("", form.format(band))
        )
        xmp = XMP.format(*given).encode()
        path = tmp_path / f"IMG_1_{number}.tif"
        tifffile.imwrite(path, np.ones((4, 5), "u2"), extratags=[(700, "B", len(xmp), xmp, True)])
    assert read_image(tmp_path / "IMG_1_{band}.tif").channel_names == ("Blue", "Red edge")
    named = read_image(tmp_path / "IMG_1_{band:1=b,2=re}.tif")
    assert named.channel_names == ("b", "re"), "what the user says counts more"


def test_pattern_is_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, *RIG))
    found = find_captures(Path("{capture}_{band}.tif"))
    assert read_image(found.images[0]).data.shape == (5, 6, 8)
    assert home_of(found.images[0]) == Path()


def test_files_of_few_captures_and_labels_are_no_bands(tmp_path):
    write(tmp_path, *RIG, "IMG_0001_labels.tif", "IMG_0002_thumb.tif")
    images, others = find_captures(tmp_path / "{capture}_{band}.tif")[1:]
    assert others == (tmp_path / "IMG_0002_thumb.tif",)
    assert [len(band_files(image)) for image in images] == [5, 5, 5]


def test_capture_that_lacks_a_band_is_refused(tmp_path):
    write(tmp_path, *RIG)
    (tmp_path / "IMG_0002_4.tif").unlink()
    images = find_captures(tmp_path / "{capture}_{band}.tif").images
    message = "The capture IMG_0002 lacks IMG_0002_4.tif; add the missing file, or list the bands"
    with pytest.raises(ValueError, match=message):
        read_image(images[1])
    assert read_image(images[2]).data.shape[0] == 5


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{capture}.tif", "has none of {band}; write it once"),
        ("{band}_{capture}_{band}.tif", "has two of {band}; write it once"),
        ("{capture}_{capture}_{band}.tif", "has {capture} twice"),
        ("{capture}_{band:1,1}.tif", "lists the bands '1,1'; write them as"),
        ("{capture}_{band:1=red,2=RED}.tif", "lists the bands"),
        ("{capture}_{band:}.tif", "lists no bands after its colon; write"),
        ("{capture}_{band: }.tif", "lists no bands after its colon; write"),
        ("{capture}_{band}.png", "No file matches"),
    ],
)
def test_wrong_pattern_is_refused_in_a_sentence(tmp_path, pattern, message):
    write(tmp_path, *RIG)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        find_captures(tmp_path / pattern)
    assert message in str(caught.value)


@pytest.mark.parametrize("pattern", ["{capture}_{band}.tif", "x_{band}.tif"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x_1.tif", "x_band1.tif"), "the bands 1 and band1, which would have one name"),
        (("x_R.tif", "x_r.tif"), "the bands R and r, which would have one name"),
        (("x_b.tif", "x_r,g.tif"), "the band 'r,g', which cannot be listed"),
        (("x_b.tif", "x_r=1.tif"), "the band 'r=1', which cannot be listed"),
        (("x_b.tif", "x_r .tif"), "the band 'r ', which cannot be listed"),
        (("x_b.tif", "x_a}.tif"), "the band 'a}', which cannot be listed"),
    ],
)
def test_bands_that_no_list_can_name_are_refused(tmp_path, pattern, names, message):
    """The user, who listed none, is not told of a list; and no file is left out in silence."""
    write(tmp_path, *names)
    for find in (find_captures, band_files):
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            find(tmp_path / pattern)
        assert "lists the bands" not in str(error.value)


def test_bands_of_one_name_are_read_if_they_are_named(tmp_path):
    """As the refusal advises."""
    write(tmp_path, "x_1.tif", "x_band1.tif")
    with pytest.raises(ValueError, match=r"{band:1=first,band1=second}"):
        band_files(tmp_path / "x_{band}.tif")
    assert list(band_files(tmp_path / "x_{band:1=first,band1=second}.tif")) == ["first", "second"]


def test_path_that_means_several_captures_is_refused(tmp_path):
    write(tmp_path, "x/a_1.tif", "x/a_2.tif", "y/a_1.tif", "y/a_2.tif")
    with pytest.raises(ValueError, match="means 2 captures, and one is read here"):
        read_image(tmp_path / "*" / "a_{band}.tif")


def test_file_of_that_name_is_a_file(tmp_path):
    write(tmp_path, "IMG_{band}.tif")
    assert not is_capture(tmp_path / "IMG_{band}.tif")
    assert read_image(tmp_path / "IMG_{band}.tif").axes == "YX"


def test_bands_of_other_sizes_and_broken_ones_are_named(tmp_path):
    write(tmp_path, "a_1.tif")
    write(tmp_path, "a_2.tif", shape=(6, 9))
    with pytest.raises(ValueError, match=r"a_2.tif has 6 x 9 pixels, but a_1.tif has 6 x 8"):
        read_image(tmp_path / "a_{band}.tif")
    (tmp_path / "a_2.tif").write_bytes(b"II*\0 and nothing more")
    with pytest.raises(ValueError, match=r"a_2\.tif"):
        read_image(tmp_path / "a_{band}.tif")


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (RIG, "{capture}_{band}.tif"),
        (["red_1.tif", "nir_1.tif", "red_2.tif", "nir_2.tif"], "{band}_{capture}.tif"),
        (["s1_red_ref.tif", "s1_nir_ref.tif", "s2_red_ref.tif", "s2_nir_ref.tif"],
         "{capture}_{band}_ref.tif"),
        ([f"DJI_{n}_MS_{b}.TIF" for n in (1, 2) for b in ("G", "R", "RE", "NIR")],
         "{capture}_{band}.TIF"),
        ([f"A{n}_f{f}_{c}.tif" for n in (1, 2) for f in (1, 2) for c in ("DAPI", "GFP")],
         "{capture}_{band}.tif"),
        (["plot_blue.tif", "plot_red.tif"], "{capture}_{band}.tif"),
        (["a_red.tif", "a_nir.tif", "b_red.tif", "b_nir.tif", "c_red.tif"],
         "{capture}_{band}.tif"),
        ([f"img_{n}.tif" for n in range(9)], ""),
        ([f"cells_t{n:02}.tif" for n in range(9)], ""),
        (["x_R.tif", "x_r.tif"], ""),
        (["a.tif", "a_labels.tif", "b.tif", "b_labels.tif"], ""),
        (["a.tif"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_pattern_is_proposed_where_names_look_like_captures(names, pattern):
    assert propose_pattern(names) == pattern
