"""`simmat evaluate --labels` through the real entry point, with figures counted by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.cli import main
from tests.evaluation.test_label_scores import labels_of_three, squares


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Image a of three squares and b of two in `data`, labels of another program in `other`."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("other").mkdir()
    for name, count in (("a", 3), ("b", 2)):
        tifffile.imwrite(f"data/{name}.tif", (100 * (squares(count) > 0)).astype(np.uint8))
        tifffile.imwrite(f"data/{name}_labels.tif", squares(count))
    tifffile.imwrite("other/a_cp_masks.tif", labels_of_three().astype(np.int64))
    Image.fromarray(squares(2).astype(np.uint8)).save("other/b_seg.png")
    return tmp_path


@pytest.fixture
def evaluate(capsys):
    def run(*words, labels="other"):
        capsys.readouterr()
        status = main(["evaluate", "data", "--labels", labels, *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_labels_are_scored_by_image_and_in_the_mean(folder, evaluate):
    status, out, err = evaluate()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        *("labels", "objects", "labels", "found", "at", ".5", "wrong", "IoU"),
        *("AP50", "AP75", "actions"),
    ]
    a, b, mean, together = (line.split() for line in lines[1:])
    perfect = ["1.000"] * 3
    assert a == ["a", "3", "3", "0.333", "0.667", "0.667", "0.533", "0.500", "0.200", "1.000"]
    assert b == ["b", "2", "2", "1.000", "1.000", "0.000", *perfect, "0.000"]
    assert (mean[:3], mean[3]) == (["mean", "over", "images"], "0.667")
    assert together[:5] == ["all", "objects", "5", "5", "0.600"]
    assert together[-1] == "0.600"
    assert max(map(len, lines)) <= 80


def test_labels_are_written_as_tables_and_pictures(folder, evaluate):
    status, out, _ = evaluate("--output", "out", "--json")
    assert status == 0
    names = ["a_overlay.png", "b_overlay.png", "results.csv", "summary.json"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    values = json.loads(Path("out/summary.json").read_text())
    printed = json.loads(out)
    assert len(printed.pop("files")) == 4
    assert printed == values
    assert values["images"]["a"]["actions"] == 1
    assert values["mean_over_objects"]["objects"] == 5
    assert values["settings"]["done"] == 0.75
    with open("out/results.csv", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["image"], first["objects"], first["labels"]) == ("a", "3", "3")
    assert float(second["found@75"]) == 1


def test_taught_objects_are_left_out_of_the_count(folder, evaluate):
    Path("five").mkdir()
    made = np.where(squares() == 1, 5, 0).astype(np.uint8)
    made[14] = made[15]  # it spills over
    tifffile.imwrite("five/a.tif", made)
    status, out, _ = evaluate("--taught", "five", "--json")
    assert status == 0
    values = json.loads(out)
    assert values["images"]["a"]["objects"] == 2
    assert values["images"]["a"]["labels"] == 2
    assert values["images"]["a"]["found@75"] == 0
    assert values["images"]["b"]["objects"] == 2
    assert "taught" in values


def test_image_whose_objects_were_all_taught_is_left_out(folder, evaluate):
    Path("five").mkdir()
    tifffile.imwrite("five/b.tif", squares(2))
    status, out, err = evaluate("--taught", "five", "--json")
    assert status == 0
    assert list(json.loads(out)["images"]) == ["a"]
    assert "b_labels.tif has no object to evaluate" in err


def test_planes_of_a_stack_are_scored_one_by_one(folder, evaluate):
    stack = np.stack([squares(2), np.zeros((40, 40), np.uint16), squares(2)])
    about = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite("data/b.tif", stack, **about)
    tifffile.imwrite("data/b_labels.tif", stack, **about)
    Path("other/b_seg.png").unlink()
    found = stack.copy()
    found[2] = 0
    tifffile.imwrite("other/b.tif", found[:, None], imagej=True)
    status, out, _ = evaluate("--json", "--output", "out")
    assert status == 0
    assert json.loads(out)["images"]["b"]["found@75"] == 0.5
    with open("out/results.csv", newline="") as stream:
        planes = [row["plane"] for row in csv.DictReader(stream) if row["image"] == "b"]
    assert planes == ["0", "2"]


def wrong_size():
    tifffile.imwrite("other/a_cp_masks.tif", squares(2))


def no_numbers():
    tifffile.imwrite("other/a_cp_masks.tif", labels_of_three().astype(np.float32))


def negative():
    Path("other/b_seg.png").unlink()
    tifffile.imwrite("other/b.tif", squares(2).astype(np.int16) - 1)


def two_files():
    tifffile.imwrite("other/a_labels.tif", squares())


def one_missing():
    Path("other/b_seg.png").unlink()


def results_exist():
    Path("out").mkdir()
    Path("out/summary.json").write_text("{}")


OUTPUT = ["--output", "out"]
BAD = {
    "wrong size": (wrong_size, OUTPUT, "has the shape 40 x 40, the image a without channels 40"),
    "floats": (no_numbers, OUTPUT, "a_cp_masks.tif holds float32 values; labels are integers"),
    "negative": (negative, OUTPUT, "b.tif holds the id -1; ids of objects are positive"),
    "two files": (two_files, OUTPUT, "may both be the labels of a; keep one of them."),
    "missing": (one_missing, OUTPUT, "other has no label image of 1 image of 2 (b)"),
    "no folder": (lambda: None, ["--labels", "none"], "There is no folder none"),
    "nothing": (lambda: Path("empty").mkdir(), ["--labels", "empty"], "No file in empty is named"),
    "exists": (results_exist, OUTPUT, "exists already. Use --overwrite"),
    "into images": (lambda: None, ["--output", "data"], "data holds the images"),
    "into labels": (lambda: None, ["--output", "other"], "other holds the labels"),
    "a model": (lambda: None, ["--model", "tiny"], "--model has no meaning; leave it out"),
    "short": (lambda: None, ["-m", "tiny"], "-m has no meaning; leave it out"),
    "clicks": (lambda: None, ["--clicks=3"], "--clicks has no meaning; leave it out"),
    "auto": (lambda: None, ["--auto.quality", "0.5"], "--auto.quality has no meaning"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_get_one_sentence_and_write_nothing(folder, evaluate, case):
    break_it, words, sentence = BAD[case]
    break_it()
    before = sorted(folder.rglob("*"))
    given = {"labels": words[1]} if words[:1] == ["--labels"] else {}
    status, out, err = evaluate(*([] if given else words), **given)
    assert (status, out) == (1, "")
    said = [line for line in err.strip().splitlines() if not line.startswith("Note:")]
    assert len(said) == 1
    assert sentence in said[0]
    assert said[0].endswith(".")
    assert sorted(folder.rglob("*")) == before


def test_evaluate_without_a_subject_says_what_to_give(folder, capsys):
    assert main(["evaluate", "data"]) == 1
    assert "Give --model" in capsys.readouterr().err
    assert main(["evaluate", "data", "--model", "tiny", "--taught", "other"]) == 1
    assert "--taught belongs to --labels" in capsys.readouterr().err
