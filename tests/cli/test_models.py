"""`simmat models`."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.checkpoints import registry
from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.registry import find_model
from tests.cli.conftest import ANGLES

ROOT = Path(__file__).parents[2]


def test_models_lists_all_kinds(four_angles, simmat):
    result = simmat("models")
    assert result.status == 0
    assert simmat("models", "list").out == result.out
    for word in ("tiny-6", "built in", "vit_b", "downloadable", "375 MB", "angles", "own"):
        assert word in result.out
    listed = {model["name"]: model for model in simmat("models", "--json").json["models"]}
    assert listed["angles"]["path"] == str(four_angles)
    assert [channel["name"] for channel in listed["angles"]["spec"]["channels"]] == list(ANGLES)


def test_models_with_a_damaged_file_notes_its_problem(user_folder, simmat):
    (user_folder / "models").mkdir()
    (user_folder / "models" / "broken.safetensors").write_bytes(b"\x08" + bytes(40))
    result = simmat("models")
    assert result.status == 0
    assert "Note: broken.safetensors" in result.err
    assert simmat("models", "info", "broken").status == 1


def test_models_info_shows_a_card(four_angles, simmat):
    result = simmat("models", "info", "angles")
    assert result.status == 0
    for words in ("0 deg, 45 deg, 90 deg, 135 deg", "all channels together", "simmat", "tiny-6"):
        assert words in " ".join(result.out.split())
    by_path = simmat("models", "info", four_angles, "--json").json
    assert by_path["spec"]["base"]["architecture"] == "tiny_lite"
    unknown = simmat("models", "info", "angels")
    assert unknown.status == 1
    assert "There is no model called 'angels'. Did you mean angles?" in unknown.err


def test_models_info_shows_markup_as_it_is(simmat, monkeypatch):
    entry = find_model("tiny")
    spec = replace(entry.spec, metrics={"[bold] IoU [/box]": 1.5})
    monkeypatch.setattr(registry, "find_model", lambda _: replace(entry, spec=spec))
    result = simmat("models", "info", "tiny")
    assert (result.status, result.err) == (0, "")
    assert "metric [bold] IoU [/box] 1.5" in " ".join(result.out.split())


def test_models_export_then_import_gives_it_back(tmp_path, four_angles, simmat):
    exported = simmat("models", "export", "angles", tmp_path, "--json")
    assert exported.status == 0
    assert exported.json["path"] == str(tmp_path / "angles.safetensors")
    assert simmat("models", "export", "angles", tmp_path, "--overwrite").status == 0
    assert simmat("models", "remove", "angles").out.strip() == "Removed angles"
    assert not four_angles.exists()
    imported = simmat(
        "models", "import", tmp_path / "angles.safetensors", "--name", "mine", "--json"
    )
    assert imported.status == 0
    assert imported.json["name"] == "mine"


@pytest.mark.parametrize("words", [("fetch", "vit_x"), ("export", "x"), ("import", "x.pth")])
def test_models_with_an_unknown_name_is_one_sentence(words, simmat):
    result = simmat("models", *words)
    assert result.status == 1
    assert result.out == ""
    assert len(result.err.strip().splitlines()) == 1


def test_models_info_names_each_source_of_the_training(simmat):
    said = " ".join(simmat("models", "info", "tiny").out.split())
    with (ROOT / "docs/reports/data/tiny-5-sources.csv").open(newline="") as file:
        names = [row["folder"] for row in csv.DictReader(file)]
    assert len(names) == 36
    for name in names:
        assert f"training sources: {name} complete " in said, name


@pytest.fixture
def lesson(folder):
    """Five of the six coins, and the ground between them."""
    labels, ground = np.zeros((90, 130), np.uint16), np.zeros((90, 130), np.uint8)
    y, x = np.indices(labels.shape)
    for number, (row, column) in enumerate(COINS, start=1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= 14**2] = number
    ground[:12, :40] = 1
    tifffile.imwrite("five.tif", labels)
    tifffile.imwrite("ground.tif", ground)
    return folder


COINS = (50, 45), (51, 100), (20, 100)


def test_models_teach_finds_objects_of_the_kind(lesson, simmat):
    words = ("models", "teach", "a.tif", "--labels", "five.tif", "--name")
    result = simmat(*words, "coins", "--ground", "ground.tif", "--json")
    assert result.status == 0, result.err
    assert result.json["name"] == "coins"
    assert "ground" not in result.err, "much was marked, and the decoder learns from it"
    assert read_spec(result.json["path"]).kind.decoder
    # Of the labels one is on the ground, one is less than half of its coin, one more than half.
    assert result.json["labeled"] == 3
    shown = {"found": 1, "objects": 2}
    assert result.json["everything"]["before"] == shown
    after = result.json["everything"]["after"]
    assert 1 <= after["found"] <= 3
    sized = simmat(*words, "sized")
    assert "sized is ready" in sized.out
    said = " ".join(sized.out.split())
    words = r"Everything finds \d of the 3 labeled objects, of \d in all; without them it finds 1"
    assert re.search(words, said)
    assert find_model("sized").spec.kind.decoder
    out = simmat("segment", "a.tif", "--model", "coins", "--prompts", "auto", "--output", "out")
    assert out.status == 0, out.err
    replay = ("segment", "a.tif", "--model", "coins", "--prompts", "out/a.json")
    assert simmat(*replay, "--output", "again").status == 0
    first, second = (Path(name, "a_labels.tif").read_bytes() for name in ("out", "again"))
    assert first == second


@pytest.mark.usefixtures("brief_lessons")
def test_models_teach_refuses_in_a_sentence(lesson, simmat):
    words = ("models", "teach", "a.tif", "--labels", "five.tif", "--name")
    assert "name of a built-in model" in simmat(*words, "tiny").err
    tifffile.imwrite("two.tif", np.eye(90, 130, dtype=np.uint8))
    few = simmat("models", "teach", "a.tif", "--labels", "two.tif", "--name", "x")
    assert few.status == 1
    assert "3 objects are needed" in few.err
    tifffile.imwrite("small.tif", np.ones((3, 3), np.uint8))
    other = simmat(*words, "x", "--ground", "small.tif")
    assert "small.tif has the shape 3 x 3, the image a.tif without channels 90 x 130" in other.err
    tifffile.imwrite("below.tif", np.full((90, 130), -1, np.int16))
    below = simmat("models", "teach", "a.tif", "--labels", "below.tif", "--name", "x")
    assert "below.tif holds the id -1" in below.err
    tifffile.imwrite("none.tif", np.zeros((90, 130), np.uint8))
    nothing = simmat("models", "teach", "a.tif", "--labels", "none.tif", "--name", "x")
    assert "none.tif holds no object" in nothing.err
    little = simmat(*words, "few", "--ground", "none.tif")
    assert "none.tif marks 0 pixels of ground beside the objects" in little.err
    assert "Mark 30 at least, more than 2 from any object." in little.err
