"""`simmat channels` through the real entry point."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.cli import main
from napari_simmat.io.readers import open_image


@pytest.fixture
def angles(tmp_path, monkeypatch):
    """The current folder holds an image behind four polarizers, and a click on its disk."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:130, :140]
    disk = (y - 40) ** 2 + (x - 40) ** 2 < 15**2
    noise = np.random.default_rng(0).normal(0, 30, (4, 130, 140))
    image = 1000 + noise + disk * np.array([900, 500, 100, 500])[:, None, None]
    tifffile.imwrite("light.tif", image.astype(np.uint16), ome=True, metadata={"axes": "CYX"})
    (tmp_path / "clicks.csv").write_text("index,axis-0,axis-1\n0,40,40\n")
    return tmp_path


def test_channels_derive_writes_named_channels(angles, capsys):
    words = ["channels", "derive", "light.tif", "polarization", "--output", "derived.tif"]
    assert main(words) == 0
    made = open_image(angles / "derived.tif")
    assert made.channel_names == ("intensity", "AoLP", "DoLP")
    values = np.moveaxis(np.asarray(made.data), made.channel_axis, 0)
    assert (values.dtype, values.shape) == (np.float32, (3, 130, 140))
    assert values[2][40, 40] == pytest.approx(800 / 3000, abs=0.05)
    assert main(words) == 1
    assert "derived.tif exists already. Use --overwrite" in capsys.readouterr().err


def test_channels_derive_takes_chosen_channels(angles):
    command = "channels derive light.tif ndvi --channels 2,0 --output ndvi.tif"
    assert main(command.split()) == 0
    ndvi = tifffile.imread("ndvi.tif").squeeze()
    assert ndvi[40, 40] == pytest.approx(800 / 3000, abs=0.05)


def banded(*names):
    """A file whose bands have names, each of a value of its own: 1, 2, 3, ..."""
    values = np.arange(1, len(names) + 1, dtype=np.uint16)[:, None, None] * np.ones((20, 30), "u2")
    metadata = {"axes": "CYX", "Channel": {"Name": list(names)}}
    tifffile.imwrite("bands.ome.tif", values.astype(np.uint16), ome=True, metadata=metadata)


@pytest.mark.parametrize(
    ("names", "red", "infrared"),
    [
        (("nir", "red"), 2, 1),
        (("coastal", "blue", "green", "red", "nir1"), 4, 5),
        (("B2", "B3", "B4", "B8"), 3, 4),
    ],
)
def test_channels_derive_ndvi_takes_bands_by_their_names(angles, names, red, infrared):
    """Two bands in the other order once gave an NDVI of the wrong sign."""
    banded(*names)
    assert main(["channels", "derive", "bands.ome.tif", "ndvi", "--output", "ndvi.tif"]) == 0
    ndvi = (infrared - red) / (infrared + red)
    np.testing.assert_allclose(tifffile.imread("ndvi.tif"), ndvi, rtol=1e-6)


def test_channels_derive_refuses_to_guess_a_band(angles, capsys):
    banded("red", "red edge")
    assert main(["channels", "derive", "bands.ome.tif", "ndvi", "--output", "ndvi.tif"]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "of which none or several could be near infra-red; say which with --channels" in said


def test_channels_derive_hha_takes_a_focal_length(angles, capsys):
    tifffile.imwrite("depth.tif", np.full((60, 80), 2500, np.uint16))
    command = "channels derive depth.tif hha --output hha.tif"
    assert main(command.split()) == 1
    assert "hha needs the focal length" in capsys.readouterr().err
    assert main([*command.split(), "--focal", "70"]) == 0
    assert np.unique(tifffile.imread("hha.tif").squeeze()[0]) == 124


def test_channels_show_writes_picture_and_table(angles, capsys):
    command = "channels show light.tif --model polarization --prompts clicks.csv --output seen"
    assert main([*command.split(), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with Image.open("seen/light_seen.png") as picture:
        assert picture.size == (140, 130)
        assert np.ptp(np.asarray(picture)) > 100
    with open("seen/light_channels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["object"] for row in rows] == ["1"] * 4
    assert [float(row["mean"]) for row in rows] == pytest.approx([1900, 1500, 1100, 1500], abs=60)
    assert all(0 <= float(row["influence"]) <= 1 for row in rows)
    assert [row["channel"] for row in told["channels"]] == [row["channel"] for row in rows]


def test_channels_show_without_prompts_writes_the_picture(angles, capsys):
    command = "channels show light.tif --model polarization --output seen"
    assert main(command.split()) == 0
    assert [path.name for path in (angles / "seen").iterdir()] == ["light_seen.png"]


def test_channels_register_moves_and_repeats(angles, capsys):
    image = tifffile.imread("light.tif")
    image[3] = np.roll(image[3], (2, -3), (0, 1))
    tifffile.imwrite("rig.tif", image, ome=True, metadata={"axes": "CYX"})
    command = "channels register rig.tif --output registered.tif --json"
    assert main(command.split()) == 0
    told = json.loads(capsys.readouterr().out)
    found = [[float(value) for value in pair.split(",")] for pair in told["shifts"].split()]
    assert found[0] == [0, 0]
    assert found[3] == pytest.approx([-2, 3], abs=0.5)
    assert tifffile.imread("registered.tif").dtype == np.uint16
    with tifffile.TiffFile("registered.tif") as file:
        assert f"shifts: {told['shifts']}" in file.pages[0].description
    again = "channels register rig.tif --output again.tif --shifts"
    assert main([*again.split(), told["shifts"]]) == 0
    assert np.array_equal(tifffile.imread("again.tif"), tifffile.imread("registered.tif"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shifts", "1,2 x"], "is not one pair of numbers for each of 4 channels"),
        (["--shifts", "1,2"], "write them as 0,0 2.4,-3.1"),
        (["--shifts", "0,0 0,0 0,0 nan,0"], "write them as 0,0 2.4,-3.1"),
        (["--reference", "4"], "There is no channel 4; give --reference by name, or from 0 to 3."),
    ],
)
def test_channels_register_of_wrong_options_is_refused(angles, capsys, words, message):
    command = "channels register light.tif --output registered.tif"
    assert main([*command.split(), *words]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (angles / "registered.tif").exists()
