"""`simmat segment --children`: cells in one channel, their nuclei in another."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from napari_simmat.batch.documented import plan_schema, segment_schema
from napari_simmat.io.readers import read_labels

jsonschema = pytest.importorskip("jsonschema")

CENTERS = [(30, 30), (30, 90), (90, 30), (90, 90)]
WITH_NUCLEUS = CENTERS[:3]


def draw(path):
    """Four cells; three of them have a nucleus."""
    y, x = np.indices((120, 120))
    cells, nuclei = (
        sum((np.hypot(y - a, x - b) < radius) * 180.0 for a, b in centers)
        for centers, radius in ((CENTERS, 20), (WITH_NUCLEUS, 9))
    )
    values = np.stack([gaussian_filter(each, 1) + 20 for each in (nuclei, cells)])
    about = {"axes": "CYX", "Channel": {"Name": ("DAPI", "membrane")}}
    tifffile.imwrite(path, values.astype(np.uint8), metadata=about, photometric="minisblack")


@pytest.fixture
def stained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw("stained.ome.tif")
    return tmp_path


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


OPTIONS = ("--channels", "membrane", "--children", "DAPI", "--output", "out")


def test_children_are_counted_and_have_their_parent(stained, simmat):
    result = simmat("segment", "stained.ome.tif", *OPTIONS)
    assert result.status == 0, result.err
    cells = read_labels(Path("out/stained_labels.tif")).data
    nuclei = read_labels(Path("out/children/stained_labels.tif")).data
    outer, inner = rows_of("out/simmat-parents.csv"), rows_of("out/simmat-children.csv")
    held = {int(row["label"]): int(row["children"]) for row in outer}
    assert {at: held[cells[at]] for at in CENTERS} == {
        at: int(at in WITH_NUCLEUS) for at in CENTERS
    }
    parent = {int(row["label"]): int(row["parent"]) for row in inner}
    assert {parent[nuclei[at]] for at in WITH_NUCLEUS} == {cells[at] for at in WITH_NUCLEUS}
    assert {"mean_DAPI", "mean_membrane"} <= outer[0].keys() & inner[0].keys()
    assert "image" not in outer[0]
    assert str(Path("out/simmat-parents.csv")) in result.out


def test_children_of_a_folder_are_in_one_table(stained, simmat):
    Path("images/sub").mkdir(parents=True)
    for name in ("a.ome.tif", "sub/a.ome.tif"):
        draw(Path("images") / name)
    result = simmat("segment", "images", *OPTIONS, "--json")
    assert result.status == 0, result.err
    told = json.loads(result.out)
    jsonschema.Draft202012Validator(segment_schema()).validate(told)
    assert len(told["files"]) == len(told["children"]["files"]) == 2
    assert told["tables"] == ["out/simmat-parents.csv", "out/simmat-children.csv"]
    assert {row["image"] for row in rows_of("out/simmat-children.csv")} == {
        "a.ome.tif",
        "sub/a.ome.tif",
    }


def test_children_of_a_dry_run_are_checked_and_not_written(stained, simmat):
    result = simmat("segment", "stained.ome.tif", *OPTIONS, "--dry-run", "--json")
    assert result.status == 0, result.err
    told = json.loads(result.out)
    jsonschema.Draft202012Validator(plan_schema()).validate(told)
    assert told["children"]["output"] == str(Path("out/children"))
    assert not Path("out").exists()
    wrong = simmat("segment", "stained.ome.tif", *OPTIONS[:3], "GFP", "--output", "x", "--dry-run")
    assert wrong.status == 1
    assert "GFP" in wrong.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompts", "same-stem"), "takes no prompts"),
        (("--region", "0,0,64,64"), "on whole images"),
    ],
)
def test_children_are_refused_where_they_mean_nothing(stained, simmat, words, said):
    result = simmat("segment", "stained.ome.tif", *OPTIONS, *words)
    assert result.status != 0
    assert said in result.err
    assert not Path("out").exists()


def test_events_of_children_tell_of_both_runs(stained, simmat, monkeypatch):
    """As of one run of twice the images, so that whoever follows it needs to know nothing else."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    told = simmat("segment", "stained.ome.tif", *OPTIONS, "--events")
    assert told.status == 0, told.err
    plan, *steps, last = map(json.loads, told.out.splitlines())
    labels = [each["labels_file"] for each in plan["plan"]["files"]]
    assert labels == [f"out/{below}stained_labels.tif" for below in ("", "children/")]
    assert last == {"finished": 2}
    files = {each["number"]: each["file"]["labels_file"] for each in steps if each.get("file")}
    assert files == dict(enumerate(labels))
    fractions = [each["fraction"] for each in steps if each.get("fraction") is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert {each["total"] for each in steps if "number" in each} == {2}


def test_children_of_a_manifest_are_in_their_own_channels(stained, simmat):
    """Its column of channels is that of the first run."""
    Path("list.csv").write_text("image,channels\nstained.ome.tif,membrane\n")
    result = simmat("segment", "list.csv", *OPTIONS[2:])
    assert result.status == 0, result.err
    assert [int(row["children"]) for row in rows_of("out/simmat-parents.csv")].count(1) == 3
