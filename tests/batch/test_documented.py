"""What is written for other programs is as the documented schemas say."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.batch.documented import SCHEMAS
from napari_simmat.checkpoints.checkpoint import read_header
from napari_simmat.cli import main
from napari_simmat.io.files import ASSETS

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]


def valid(name: str, value: object) -> None:
    """Raise the first thing that a schema forbids."""
    jsonschema.Draft202012Validator(SCHEMAS[name]()).validate(value)


@pytest.fixture
def folder(tmp_path):
    """Two images with prompts, and one that is none."""
    y, x = np.indices((64, 80))
    image = np.where(np.hypot(y - 20, x - 20) < 9, 200, 40).astype(np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        (tmp_path / f"{name}.csv").write_text("index,axis-0,axis-1\n0,20,20\n")
    (tmp_path / "c.tif").write_bytes(b"no image")
    (tmp_path / "c.csv").write_text("index,axis-0,axis-1\n0,20,20\n")
    return tmp_path


def command(folder: Path, *words: str) -> list[str]:
    plain = ["segment", str(folder), "--model", "tiny", "--prompts", "same-stem"]
    return [*plain, "--output", str(folder / "out"), *words]


@pytest.mark.parametrize("name", SCHEMAS)
def test_documented_schemas_are_current(name):
    """`python scripts/schemas.py` writes them."""
    written = json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text("utf-8"))
    assert written == SCHEMAS[name]()
    jsonschema.Draft202012Validator.check_schema(written)


def test_records_of_all_kinds_are_valid():
    """Those of the recorded outputs, whose `run` is left out."""
    count = 0
    for path in (ROOT / "tests" / "golden" / "outputs").rglob("*.json"):
        value = json.loads(path.read_text("utf-8"))
        if isinstance(value, dict) and value.get("format") == "napari-simmat record":
            valid("record", {**value, "run": {}})
            count += 1
    assert count >= 5


def test_descriptions_of_the_built_in_models_are_valid():
    paths = sorted(ASSETS.glob("*.safetensors"))
    assert len(paths) >= 5
    for path in paths:
        valid("model", json.loads(read_header(path).texts["simmat"]))


def test_segment_prints_what_is_documented(folder, capsys):
    assert main(command(folder, "--json")) == 1
    value = json.loads(capsys.readouterr().out)
    valid("segment", value)
    assert [each["status"] for each in value["files"]] == ["written", "written", "failed"]
    valid("record", json.loads((folder / "out" / "a.json").read_text("utf-8")))
    assert main(command(folder, "--json")) == 1
    valid("error", json.loads(capsys.readouterr().out))


def test_dry_run_prints_what_is_documented(folder, capsys):
    tifffile.imwrite(folder / "d.tif", np.zeros((8, 8), np.uint8))  # left out: it has no prompts
    assert main(command(folder, "--dry-run", "--json")) == 1
    value = json.loads(capsys.readouterr().out)
    valid("plan", value)
    assert len(value["files"]) == 3
    assert [Path(each).name for each in value["problems"]] == ["c.tif"]
    assert [Path(each["image"]).name for each in value["skipped"]] == ["d.tif"]


def test_events_are_as_documented(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(command(folder, "--events")) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        valid("event", line)
    assert "plan" in lines[0]
    assert lines[-1] == {"finished": 3}


@pytest.mark.parametrize(
    ("name", "entry", "wrong"),
    [
        ("record", "input", "a.tif"),
        ("record", "more", 1),
        ("record", "format_version", 99),
        ("event", "done", "two"),
        ("segment", "files", [{"image": "a.tif", "status": "failed"}]),
        ("plan", "files", [{"image": "a.tif"}]),
        ("plan", "problems", ["a.tif"]),
    ],
)
def test_schemas_refuse_what_is_otherwise(name, entry, wrong, folder):
    """So that a schema that allows anything would be noticed."""
    golden = ROOT / "tests" / "golden" / "outputs" / "points" / "discs.json"
    good = {
        "record": {**json.loads(golden.read_text("utf-8")), "run": {}},
        "event": {"done": 1, "total": 2, "message": ""},
        "segment": {"files": [], "skipped": []},
        "plan": {
            "output": "out",
            "files": [],
            "skipped": [],
            "problems": {},
            "remarks": {},
            "images": {},
        },
    }[name]
    valid(name, good)
    with pytest.raises(jsonschema.ValidationError):
        valid(name, {**good, entry: wrong})
