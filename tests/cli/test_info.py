"""`simmat info`: what is in image files, and what is installed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat import __version__
from napari_simmat.cli.info import CPU_BUILD, NO_DRIVER, gpu_problem
from napari_simmat.io.readers import read_image

ABOUT = {"axes": "TZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "um", "PhysicalSizeY": 0.25,
         "PhysicalSizeYUnit": "um", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "um",
         "TimeIncrement": 30.0, "TimeIncrementUnit": "s",
         "Channel": {"Name": ["DAPI", "GFP"]}}  # fmt: skip
SAID = (
    "TZCYX 3 x 4 x 2 x 32 x 40, uint16, pixels of 0.25 um x 0.5 um, T 30 s, Z 2 um, channels DAPI, "
    "GFP"
)


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """A five-dimensional OME-TIFF with all that it can say; the folder is the current one."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("c.ome.tif", np.zeros((3, 4, 2, 32, 40), np.uint16), ome=True, metadata=ABOUT)
    return tmp_path


def test_info_of_an_image_is_a_table(cells, simmat):
    lines = [line.split() for line in simmat("info", "c.ome.tif").out.splitlines()]
    assert lines[0] == ["c.ome.tif"]
    assert {line[0]: " ".join(line[1:]) for line in lines[1:]} == {
        "size": "T 3, Z 4, C 2, Y 32, X 40",
        "values": "uint16",
        "channels": "0 DAPI, 1 GFP",
        "pixel": "T 30 s, Z 2 um, Y 0.25 um, X 0.5 um",
        "format": "TIFF",
    }


def test_info_says_the_same_to_programs_and_in_python(cells, simmat):
    [told] = simmat("info", "c.ome.tif", "--json").json["files"]
    assert (told["axes"], told["shape"]) == ("TZCYX", [3, 4, 2, 32, 40])
    assert told["channel_names"] == ["DAPI", "GFP"]
    assert told["pixel_size"] == {"T": 30.0, "Z": 2.0, "Y": 0.25, "X": 0.5}
    assert told["units"] == {"T": "s", "Z": "um", "Y": "um", "X": "um"}
    assert repr(read_image("c.ome.tif")) == f"<ImageFile c.ome.tif: {SAID}>"


def test_info_of_a_folder_is_a_line_for_each_image(cells, simmat):
    tifffile.imwrite("plain.tif", np.zeros((8, 9), np.uint8))
    Path("broken.tif").write_text("this is no image")
    done = simmat("info", ".")
    assert done.status == 1
    assert "Cannot read broken.tif" in done.err
    assert done.out.splitlines() == [
        f"c.ome.tif: {SAID}", "plain.tif: YX 8 x 9, uint8", "3 images"
    ]  # fmt: skip
    files = simmat("info", ".", "--json").json["files"]
    assert "Cannot read" in files[0]["error"]
    assert [each["file"] for each in files] == ["broken.tif", "c.ome.tif", "plain.tif"]


def test_info_is_of_what_options_say(cells, simmat):
    said = simmat("info", "c.ome.tif", "--plane", "T=0,Z=max", "--pixel-size", "3", "--unit", "nm")
    assert "C 2, Y 32, X 40" in said.out
    assert "Y 3 nm, X 3 nm" in said.out


def test_info_of_a_capture_names_its_bands(tmp_path, simmat, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for band in ("red", "nir"):
        tifffile.imwrite(f"IMG_1_{band}.tif", np.zeros((8, 9), np.uint8))
    done = simmat("info", "IMG_1_{band}.tif")
    assert "channels  0 nir, 1 red" in done.out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nix.tif", "There is no file nix.tif"), ("angles.safetensors", "simmat models info")],
)
def test_info_of_what_is_no_image_is_a_sentence(four_angles, simmat, name, sentence):
    done = simmat("info", name)
    assert done.status == 1
    assert sentence in done.err


def test_dry_run_says_what_is_in_the_images(cells, simmat):
    """Above all where one is refused."""
    words = ("segment", "c.ome.tif", "--output", "out", "--dry-run")
    refused = simmat(*words)
    assert refused.status == 1
    assert f"c.ome.tif: {SAID}" in refused.out
    taken = simmat(*words, "--channels", "0,0,1", "--json")
    assert taken.status == 0
    assert json.loads(taken.out)["images"]["c.ome.tif"]["channel_names"] == ["DAPI", "GFP"]
    assert not Path("out").exists()


def test_info_is_one_block_for_a_report(user_folder, simmat):
    import torch

    result = simmat("info")
    assert result.status == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0].split() == ["napari-simmat", __version__]
    for word in (f"torch {torch.__version__}", "cpu: CPU", str(user_folder), "precision"):
        assert any(word in line for line in lines), word
    values = simmat("info", "--json").json
    assert values["devices"][0] == "cpu: CPU"
    assert values["models"] == [str(user_folder / "models"), str(user_folder / "bases")]


@pytest.mark.parametrize(
    ("cuda", "found", "has_driver", "sentence"),
    [
        ("12.8", True, True, ""),
        (None, False, False, ""),
        (None, False, True, CPU_BUILD),
        ("12.8", False, True, NO_DRIVER.format(cuda="12.8")),
    ],
)
def test_gpu_problem_says_why_a_gpu_is_not_used(cuda, found, has_driver, sentence):
    assert gpu_problem(cuda, found, has_driver) == sentence


def test_info_with_gpus_lists_their_memory(monkeypatch, simmat):
    import torch

    class Properties:
        name, total_memory = "NVIDIA Quick", 24 * 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    values = simmat("info", "--json").json
    assert values["devices"][1:] == [f"cuda:{index}: NVIDIA Quick, 24 GB" for index in range(2)]
    assert values["in use"].startswith("cuda, fast precision")
