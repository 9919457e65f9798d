"""`simmat channels` of captures whose bands are files: registered as a rig, and derived."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.io.readers import read_image
from tests.engine.channels.test_registration import seen_by, turned

NAMES = ("green", "red", "nir")


@pytest.fixture
def flight(tmp_path, shared_image):
    """Four captures of a rig: parts of a real scene, whose cameras lie apart as they do in all."""
    pytest.importorskip("SimpleITK")
    scene = shared_image("multispectral4_sentinel2.tif")[:3]
    size = (200, 220)
    cameras = [np.eye(2, 3), turned(size, 1, 1.01, (3, -4)), turned(size, -1, 0.99, (-2.5, 5))]
    folder = tmp_path / "flight"
    folder.mkdir()
    for number, (y, x) in enumerate([(0, 0), (0, 80), (100, 0), (100, 80)]):
        for name, band, camera in zip(NAMES, scene, cameras, strict=True):
            part = band[y : y + size[0], x : x + size[1]]
            values = np.rint(seen_by(part, camera)).astype(np.uint16)
            tifffile.imwrite(folder / f"IMG_{number}_{name}.tif", values)
    return folder


@pytest.mark.slow
def test_register_measures_once_and_moves_all(flight, tmp_path, simmat):
    pattern = flight / "{capture}_{band:green,red,nir}.tif"
    out = tmp_path / "registered"
    words = ("channels", "register", pattern, "--output", out, "--motion", "affine")
    done = simmat(*words, "--json")
    assert done.status == 0
    told = json.loads(done.out)
    assert [each["channels"] for each in told["files"]] == [list(NAMES)] * 4
    for name in NAMES[1:]:
        motion = told["motions"][name]
        assert motion["residual"] < 0.3 < 2 < motion["distance"]
        assert abs(motion["turn"]) == pytest.approx(1, abs=0.1)
    rig = json.loads((out / "rig.json").read_text("utf-8"))
    assert (rig["measured_on"], rig["reference"]) == ("IMG_2", "green")
    with Image.open(out / "rig.webp") as picture:
        assert picture.size == (2 * (220 + 4), 2 * (200 + 4 + 14)), "two rows, before and after"

    for number in range(4):
        made = read_image(out / f"IMG_{number}.tif")
        assert made.channel_names == NAMES
        values = np.asarray(made.data)
        for band in values[1:]:
            known = np.isfinite(band)
            assert 0.9 < known.mean() < 1, "what a camera does not see has no data"
            inner = np.s_[30:-30, 30:-30]
            assert np.corrcoef(band[inner].ravel(), values[0][inner].ravel())[0, 1] > 0.9
        assert tifffile.imread(out / f"IMG_{number}.tif").dtype == np.uint16

    assert simmat(*words).status == 1, "nothing is replaced unasked"
    later = simmat(
        "channels", "register", pattern, "--output", tmp_path / "more", "--rig", out / "rig.json"
    )
    assert later.status == 0
    for number in range(4):
        again = (tmp_path / f"more/IMG_{number}.tif").read_bytes()
        assert again == (out / f"IMG_{number}.tif").read_bytes()


def test_register_of_another_rig_and_of_a_gap_is_said(flight, tmp_path, simmat):
    pattern = flight / "{capture}_{band:green,red,nir}.tif"
    (flight / "IMG_1_red.tif").unlink()
    done = simmat("channels", "register", pattern, "--output", tmp_path / "out")
    assert done.status == 1
    assert "IMG_1: The capture IMG_1 lacks IMG_1_red.tif" in done.err
    assert (tmp_path / "out/IMG_3.tif").exists(), "the others are registered"
    assert "pixels apart in the median. Allow turns and scales, too" in done.err
    other = flight / "{capture}_{band:nir,green}.tif"
    words = ("channels", "register", other, "--output", tmp_path / "o", "--rig")
    done = simmat(*words, tmp_path / "out/rig.json")
    assert done.status == 1
    assert "The rig has the channels green, red, nir, but IMG_0 has nir, green" in done.err
    done = simmat(*words, tmp_path / "out/rig.json", "--shifts", "0,0 1,1")
    assert "--rig and --shifts say the same" in done.err
    done = simmat("channels", "register", pattern, "--output", tmp_path / "p", "--measure-on", "x")
    assert "There is no image x to measure on; give one of IMG_0" in done.err


def test_derive_makes_an_index_of_each_capture(flight, tmp_path, simmat):
    pattern = flight / "{capture}_{band}.tif"
    done = simmat("channels", "derive", pattern, "ndvi", "--output", tmp_path / "ndvi")
    assert done.status == 0
    made = read_image(tmp_path / "ndvi/IMG_3.tif").data
    red, nir = (tifffile.imread(flight / f"IMG_3_{n}.tif").astype(float) for n in ("red", "nir"))
    np.testing.assert_allclose(np.squeeze(made), (nir - red) / (nir + red), rtol=1e-5)


def test_band_that_shows_something_else_is_refused(flight, tmp_path, simmat):
    rng = np.random.default_rng(0)
    for path in flight.glob("*_nir.tif"):
        tifffile.imwrite(path, rng.poisson(3000, (200, 220)).astype(np.uint16))
    pattern = flight / "{capture}_{band:green,red,nir}.tif"
    done = simmat("channels", "register", pattern, "--output", tmp_path / "o", "--motion", "affine")
    assert done.status == 1
    assert "nir cannot be registered onto green: they show the same edges in too few" in done.err
    assert not (tmp_path / "o").exists()


def test_camera_that_was_knocked_is_named(flight, tmp_path, simmat):
    pattern = flight / "{capture}_{band:green,red,nir}.tif"
    words = ("channels", "register", pattern, "--output")
    assert simmat(*words, tmp_path / "day1", "--motion", "affine").status == 0
    path = flight / "IMG_1_red.tif"
    tifffile.imwrite(path, np.roll(tifffile.imread(path), 9, axis=1))
    done = simmat(*words, tmp_path / "day2", "--rig", tmp_path / "day1/rig.json")
    assert done.status == 0
    assert "IMG_1: red agrees with green less than on IMG_2, where the rig was measured" in done.err
    assert "IMG_3" not in done.err


def test_capture_to_measure_on_is_named_with_its_folder(flight, tmp_path, simmat):
    (tmp_path / "days/one").mkdir(parents=True)
    (tmp_path / "days/two").mkdir()
    for name in NAMES:
        for day in ("one", "two"):
            data = (flight / f"IMG_1_{name}.tif").read_bytes()
            (tmp_path / f"days/{day}/IMG_1_{name}.tif").write_bytes(data)
    pattern = tmp_path / "days/**/{capture}_{band:green,red,nir}.tif"
    words = ("channels", "register", pattern, "--output", tmp_path / "o", "--measure-on")
    done = simmat(*words, "IMG_1")
    assert done.status == 1
    assert "Several images are called IMG_1; say which with its folder" in done.err
    assert simmat(*words, "two/IMG_1", "--motion", "affine").status == 0
    assert (tmp_path / "o/one/IMG_1.tif").exists()


def test_results_of_a_rig_are_measured_as_a_folder(flight, tmp_path, simmat):
    """Its picture is no image, and the labels may lie beside the captures."""
    pattern = flight / "{capture}_{band:green,red,nir}.tif"
    words = ("channels", "register", pattern, "--output", tmp_path / "o", "--motion", "affine")
    assert simmat(*words).status == 0
    labels = np.zeros((200, 220), np.uint8)
    labels[20:60, 30:80] = 1
    for number in range(4):
        tifffile.imwrite(flight / f"IMG_{number}_labels.tif", labels)
    done = simmat("measure", tmp_path / "o", flight, "--output", tmp_path / "t.csv")
    assert done.status == 0, done.err
    with_pattern = simmat("measure", pattern, flight, "--output", tmp_path / "p.csv")
    assert with_pattern.status == 0, with_pattern.err
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["image", *(f"IMG_{n}" for n in range(4))]
    one = simmat(
        "measure", flight / "IMG_2_{band:green,red,nir}.tif", flight / "IMG_2_labels.tif",
        "--output", tmp_path / "one.csv",
    )  # fmt: skip
    assert one.status == 0, one.err
