"""The script that finishes images: what it runs, resumes, refuses and prints."""

import importlib
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IMAGE = "6 bands, 1 dead, 1 noise"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("finish", "learn"):  # no other test's
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("finish")
    monkeypatch.setattr(module, "held_out_images", lambda: [("blood_smear", "smear_00")])
    return module


@pytest.fixture
def command(script, tmp_path, monkeypatch):
    """Runs the script on an image that is drawn."""

    def call(what, *more, ways=("by hand", "by hand, steering")):
        given = ["finish.py", what, "--output", str(tmp_path), "--ways", *ways, *more]
        monkeypatch.setattr(sys, "argv", given)
        script.main()
        return [json.loads(line) for line in (tmp_path / "finish.jsonl").read_text().splitlines()]

    return call


CHOSEN = ("--sources", "drawn", "--images", IMAGE)


def test_chosen_images_are_finished_once_and_shown_in_seconds(command, capsys, tmp_path):
    rows = command("run", *CHOSEN)
    assert [(row["image"], row["way"]) for row in rows] == [
        (IMAGE, "by hand"),
        (IMAGE, "by hand, steering"),
    ]
    assert rows[1]["seconds"] > rows[0]["seconds"] > 0.7 * rows[0]["objects"]
    assert command("run", *CHOSEN) == rows, "it resumes"
    capsys.readouterr()
    command("table", *CHOSEN)
    printed = capsys.readouterr().out
    assert "drawn: 1 images" in printed
    for row in rows:
        assert f"| {row['way']} | {row['seconds'] / row['objects']:.2f} | 1.00 |" in printed
    assert (tmp_path / "finish.csv").read_text().count(IMAGE) == 2


def test_rows_of_another_hand_or_of_actions_alone_are_refused(command, tmp_path):
    command("run", *CHOSEN)
    with pytest.raises(SystemExit, match=r"is of tiny-\d+ and hand 1; give another --output"):
        command("run", *CHOSEN, "--hand", "2")
    with pytest.raises(SystemExit, match="finished in all of these ways"):
        command("table", ways=("by hand", "clicks"))
    (tmp_path / "finish.jsonl").write_text('{"source": "drawn", "seconds": 3.0}\n')
    with pytest.raises(SystemExit, match="before seconds were counted"):
        command("table")


def test_images_are_chosen_by_source_and_name(script):
    assert script.images_of(["blood_smear"]) == [("blood_smear", "smear_00")]
    assert script.images_of(["drawn"], [IMAGE]) == [("drawn", IMAGE)]
    assert {source for source, _ in script.images_of(list(script.SOURCES))} == {
        "blood_smear",
        "development",
        "drawn",
    }
    with pytest.raises(SystemExit, match=r"No image is named moon; there are .*coins"):
        script.images_of(["development"], ["moon"])
