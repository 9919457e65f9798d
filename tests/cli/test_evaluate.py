"""`simmat evaluate` through the real entry point, with the embedded model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.cli import main
from napari_simmat.evaluation.metrics import match_at_thresholds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `data` with one drawn image of two disks; the current folder holds it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.uint8)
    labels[(y - 30) ** 2 + (x - 30) ** 2 < 18**2] = 3
    labels[(y - 65) ** 2 + (x - 65) ** 2 < 15**2] = 7
    noise = np.random.default_rng(0).normal(20, 5, labels.shape)
    image = np.array([0, 0, 0, 200, 0, 0, 0, 120])[labels] + noise
    tifffile.imwrite("data/disks.tif", image.astype(np.uint16))
    tifffile.imwrite("data/disks_labels.tif", labels)
    return tmp_path


@pytest.fixture
def evaluate(capsys):
    """Run the command; its status and what it result on both streams."""

    def run(*words, data="data", model="tiny"):
        capsys.readouterr()
        status = main(["evaluate", data, "--model", model, *words])
        result = capsys.readouterr()
        return status, result.out, result.err

    return run


def test_evaluate_shows_a_name_in_brackets(folder, evaluate):
    for name in ("[dapi]", "[bold]"):
        for ending in (".tif", "_labels.tif"):
            data = Path(f"data/disks{ending}").read_bytes()
            Path(f"data/disks{name}{ending}").write_bytes(data)
    status, out, _ = evaluate("--prompts", "box", "--device", "cpu")
    assert status == 0
    assert [line.split()[0] for line in out.split("\n")[1:4]] == [
        "disks",
        "disks[bold]",
        "disks[dapi]",
    ]


def test_evaluate_with_many_clicks_fits_its_table(folder, evaluate):
    """With seven clicks the fourth and sixth are left out of the table."""
    status, out, _ = evaluate("--prompts", "iterative", "--clicks", "7", "--output", "out")
    assert status == 0
    heading = out.splitlines()[0].split()
    assert heading == ["mean", "IoU", "objects", "1", "click", "2", "3", "5", "7", "filled", "disk"]
    assert max(map(len, out.splitlines())) <= 80
    values = json.loads(Path("out/summary.json").read_text())["mean_over_objects"]
    failed = round(100 * values["failed@90"])
    assert (
        f"NoC@90: {values['noc@90']:.2f} clicks per object; {failed} % are below 90 % IoU after 7."
    ) in out
    assert {f"click+{n}" for n in range(1, 7)} < set(values)


@pytest.mark.slow
def test_evaluate_with_auto_agrees_with_segment(folder, evaluate):
    words = ("--prompts", "auto", "--auto.quality", "0.5")
    status, out, _ = evaluate(*words, "--output", "out")
    assert status == 0
    headings = ["segment", "everything", "objects", "found", "AP50", "AP75", "AP", "PQ"]
    assert out.splitlines()[0].split() == headings
    assert "Dice" not in out
    segment = ["segment", "data/disks.tif", "--model", "tiny", "--prompts", "auto"]
    assert main([*segment, "--auto.quality", "0.5", "--output", "segmented"]) == 0
    found = tifffile.imread("segmented/disks_labels.tif").astype(int)
    truth = tifffile.imread("data/disks_labels.tif").astype(int)
    values = json.loads(Path("out/summary.json").read_text())
    assert values["settings"]["automatic"]["quality"] == 0.5
    figures = values["images"]["disks"]
    assert (figures["objects"], figures["found"]) == (2, len(np.unique(found)) - 1)
    matchings = match_at_thresholds(found, truth)
    precision = np.mean([each.average_precision for each in matchings])
    assert figures["ap"] == pytest.approx(precision, abs=1e-5)
    assert figures["pq"] == pytest.approx(matchings[0].quality.pq, abs=1e-5)
    assert figures["ap@50"] > 0.3
    with open("out/results.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["ap"]) == pytest.approx(figures["ap"], abs=1e-5)


def empty_labels() -> None:
    tifffile.imwrite("data/disks_labels.tif", np.zeros((96, 96), np.uint8))


def results_exist() -> None:
    Path("out").mkdir()
    Path("out/summary.json").write_text("{}")


BAD = {
    "no folder": (lambda: None, ["--data", "none"], "There is no folder none"),
    "a file": (lambda: None, ["--data", "data/disks.tif"], "is a file; give the folder"),
    "nothing labeled": (empty_labels, [], "hold no object of at least 12 pixels"),
    "no model": (lambda: None, ["--model", "huge"], "huge"),
    "no click": (lambda: None, ["--clicks", "0"], "clicks must be between 1 and 20, got 0"),
    "nothing large": (lambda: None, ["--min-size", "999999"], "12 pixels and more than 999999"),
    "channel": (lambda: None, ["--channels", "5"], "disks.tif: There is no channel 5"),
    "into the images": (lambda: None, ["--output", "data"], "data holds the images"),
    "exists": (results_exist, ["--output", "out"], "exists already. Use --overwrite"),
}


@pytest.mark.parametrize("case", BAD)
def test_evaluate_with_bad_input_writes_nothing(folder, evaluate, case):
    break_it, words, sentence = BAD[case]
    break_it()
    before = sorted(folder.rglob("*"))
    data, model = "data", "tiny"
    if words and words[0] == "--data":
        data, words = words[1], []
    elif words and words[0] == "--model":
        model, words = words[1], []
    status, out, err = evaluate(*words, data=data, model=model)
    assert status == 1
    assert out == ""
    assert sentence in err
    result = [each for each in err.strip().splitlines() if not each.startswith("Note:")]
    assert len(result) == 1
    assert result[0].endswith(".")
    assert sorted(folder.rglob("*")) == before
