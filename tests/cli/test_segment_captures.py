"""All commands take captures whose bands are files, by one pattern."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.io.captures import proposal_text
from tests.batch.folders import contents
from tests.cli.conftest import CLICKS, names_in

BANDS = ("1", "2", "3", "4", "5")
TABLE = "{band:1=blue,2=green,3=red,4=nir,5=rededge}"


@pytest.fixture
def flight(tmp_path, monkeypatch):
    """Three captures of five bands with clicks and labels beside them; the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "flight"
    folder.mkdir()
    truth = np.zeros((90, 130), np.uint8)
    truth[30:70, 25:65] = 1
    truth[30:70, 80:120] = 2
    for number in range(3):
        for band in BANDS:
            values = coins()[:90, :130] // int(band) + number
            tifffile.imwrite(folder / f"IMG_{number}_{band}.tif", values)
        write_points_csv(folder / f"IMG_{number}.csv", CLICKS)
        tifffile.imwrite(folder / f"IMG_{number}_labels.tif", truth)
    return folder


def segment(pattern, output="out", *more, prompts="same-stem", channels="red,green,blue"):
    words = ["segment", pattern, "--model", "tiny", "--prompts", prompts, "--output", output]
    return [*words, "--channels", channels, *more]


@pytest.mark.slow
def test_segment_takes_captures_as_images(flight, simmat):
    done = simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--json"))
    assert done.status == 0, done.err
    assert [each["objects"] for each in done.json["files"]] == [2, 2, 2]
    names = [f"IMG_{n}{end}" for n in range(3) for end in (".json", "_labels.tif", "_objects.csv")]
    assert set(names) < set(names_in(flight.parent / "out"))
    with open("out/simmat-objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"IMG_{n}" for n in range(3) for _ in CLICKS]
    means = [name for name in rows[0] if name.startswith("mean_")]
    assert means == ["mean_red", "mean_green", "mean_blue"], "no column is of one capture"
    with open("out/simmat-summary.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["IMG_0", "IMG_1", "IMG_2"]

    kept = simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--resume", "--json"))
    assert {each["status"] for each in kept.json["files"]} == {"kept"}
    (flight / "IMG_1_3.tif").write_bytes((flight / "IMG_0_3.tif").read_bytes())
    changed = simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--resume", "--json"))
    assert changed.status == 1
    assert "IMG_1" in changed.err
    assert "the input" in changed.err


@pytest.mark.slow
def test_one_capture_and_a_manifest_give_the_same(flight, simmat):
    pattern = f"flight/IMG_1_{TABLE}.tif"
    assert simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "all")).status == 0
    assert simmat(*segment(pattern, "one")).status == 0
    assert (flight.parent / "one/IMG_1_labels.tif").exists()
    (flight.parent / "list.csv").write_text(f'image\n"{pattern}"\n')
    assert simmat(*segment("list.csv", "listed")).status == 0
    one = contents(flight.parent / "one")
    listed = contents(flight.parent / "listed/flight")
    of_all = {k: v for k, v in contents(flight.parent / "all").items() if k.startswith("IMG_1")}
    assert one == listed == of_all
    replayed = segment(pattern, "replayed", prompts="one/IMG_1.json")
    assert simmat(*replayed).status == 0
    assert contents(flight.parent / "replayed")["IMG_1_labels.tif"] == one["IMG_1_labels.tif"]


def test_dry_run_of_a_folder_proposes_the_pattern(flight, simmat):
    words = segment("flight", "out", "--dry-run", channels="0,0,0")
    said = " ".join(simmat(*words).err.split())
    pattern = str(flight.relative_to(flight.parent) / "{capture}_{band}.tif")
    assert proposal_text(pattern) in said
    assert "The names look like 3 captures of the bands 1, 2, 3, 4, 5." in said
    dry = simmat(*segment(pattern, "out", "--dry-run"), "--json")
    assert "There is no channel called red; there are band1, band2" in str(dry.json["problems"])
    dry = simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--dry-run"), "--json")
    assert (dry.status, dry.json["problems"]) == (0, {})
    assert len(dry.json["files"]) == 3
    assert not (flight.parent / "out").exists()


def test_dry_run_names_the_models_that_fit(flight, simmat):
    words = segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--dry-run")
    words = words[: words.index("--channels")]
    words[words.index("tiny")] = "multispectral"
    said = " ".join(simmat(*words, "--dry-run").err.split())
    assert "1610 nm, 2200 nm are missing among blue, green, red, nir, rededge" in said
    assert "Of the channels blue, green, red, nir, rededge these models read theirs" in said
    assert "tiny" in said.split("these models read theirs by name:")[1]
    bands = ("band:1=a,2=b", "No model here knows the channels a, b. Choose three of them")
    words[1] = f"flight/{{capture}}_{{{bands[0]}}}.tif"
    assert bands[1] in " ".join(simmat(*words, "--dry-run").err.split())


def test_capture_that_lacks_a_band_is_reported(flight, simmat):
    (flight / "IMG_1_4.tif").unlink()
    done = simmat(*segment(f"flight/{{capture}}_{TABLE}.tif", "out", "--json"))
    assert done.status == 1
    assert [each["objects"] for each in done.json["files"]] == [2, 2]
    assert "The capture IMG_1 lacks IMG_1_4.tif" in done.json["skipped"][0]["why"]


def test_outputs_never_overwrite_a_band(flight, simmat):
    before = contents(flight)
    pattern = "flight/IMG_0_{band:1,2,labels}.tif"
    words = segment(pattern, "flight", "--overwrite", prompts="auto", channels="0,1,2")
    done = simmat(*words)
    assert done.status == 1
    assert "flight/IMG_0_labels.tif would be overwritten by an output" in done.err
    assert contents(flight) == before


def test_encode_takes_captures(flight, simmat):
    words = ("encode", f"flight/{{capture}}_{TABLE}.tif", "--channels", "red,green,blue", "--json")
    done = simmat(*words)
    assert done.status == 0
    assert [each["planes"] for each in done.json["files"]] == [1, 1, 1]
    assert all(each["new"] == 0 for each in simmat(*words).json["files"])


def test_evaluate_takes_captures_with_labels(flight, simmat):
    words = ("evaluate", f"flight/{{capture}}_{TABLE}.tif", "--channels", "red,green,blue")
    done = simmat(*words, "--model", "tiny", "--json")
    assert done.status == 0, done.err
    objects = {name: of_image["objects"] for name, of_image in done.json["images"].items()}
    assert objects == {"IMG_0": 2, "IMG_1": 2, "IMG_2": 2}


@pytest.mark.slow
def test_train_takes_captures_with_labels(flight, simmat):
    words = ("train", f"flight/{{capture}}_{TABLE}.tif", "--output", "rig.safetensors")
    done = simmat(*words, "--steps", "1", "--batch", "1", "--device", "cpu")
    assert done.status == 0, done.err
    inputs = read_spec(Path("rig.safetensors")).inputs
    assert inputs.names == ("blue", "green", "red", "nir", "rededge")
    used = segment("flight/IMG_2_{band:5=RedEdge,4=NIR,3=Red,2=Green,1=Blue}.tif", "five")
    used[used.index("tiny")] = "rig.safetensors"
    done = simmat(*used[: used.index("--channels")])
    assert done.status == 0, "bands are matched by their names"
    assert json.loads((flight.parent / "five/IMG_2.json").read_text())["input"]["shape"][0] == 5


def test_captures_that_are_not_registered_say_so(flight, simmat):
    pattern = f"flight/{{capture}}_{TABLE}.tif"
    assert "do not lie on each other" not in simmat(*segment(pattern, "out")).err
    for path in flight.glob("*_4.tif"):
        tifffile.imwrite(path, np.roll(tifffile.imread(path), (5, -3), (0, 1)))
    said = " ".join(simmat(*segment(pattern, "out", "--overwrite")).err.split())
    assert "Its bands do not lie on each other: nir is some 6 pixels from blue. Register" in said


def test_labels_beside_single_bands_are_no_images(flight, simmat):
    done = simmat(*segment("flight", "out", "--dry-run", prompts="auto", channels="0,0,0"))
    assert "15 images" in done.out
    assert "IMG_0_labels.tif is left out. It belongs to IMG_0, by its name." in done.err
