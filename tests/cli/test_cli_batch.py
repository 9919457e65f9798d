"""`simmat segment` on many files, as a person and as a program use it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat.batch.record import read_record
from napari_simmat.cli import main

CLICK = "index,axis-0,axis-1\n0,50,45\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two images and clicks beside them, one with four channels; the current one."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    plane = coins()[:90, :130]
    tifffile.imwrite("data/a.tif", plane)
    tifffile.imwrite(
        "data/b.tif", np.stack([plane] * 4), metadata={"axes": "CYX"}, photometric="minisblack"
    )
    for name in "ab":
        Path(f"data/{name}.csv").write_text(CLICK)
    return tmp_path


def words(*more: str, image: str = "data") -> list[str]:
    options = ("--model", "tiny", "--prompts", "same-stem", "--output", "out")
    return ["segment", image, *options, *more]


def test_a_plan_is_shown_and_nothing_is_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite("data/c.tif", np.zeros((8, 8), np.uint8))
    assert main(words("--dry-run", "--pattern", "*.tif")) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "2 images -> out"
    assert f"{Path('data/a.tif')} -> {Path('out/a_labels.tif')}" in said.out
    assert "c.tif is left out. There are no prompts beside" in said.err
    assert not Path("out").exists()
    assert main(words("--dry-run", "--json")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [Path(file["image"]).name for file in planned["files"]] == ["a.tif", "b.tif"]
    assert [Path(one["image"]).name for one in planned["skipped"]] == ["c.tif"]


def test_a_manifest_gives_each_image_its_channels(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/list.csv").write_text("image,channels\na.tif,\nb.tif,2;1;3\n")
    assert main(words("--json", "--overlay", image="data/list.csv")) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["status"] for file in files] == ["written", "written"]
    assert Path(files[1]["overlay_file"]).is_file()
    assert json.loads(Path("out/b.json").read_text())["settings"]["channels"] == [2, 1, 3]
    assert json.loads(Path("out/a.json").read_text())["settings"]["channels"] is None
    with open("out/simmat-summary.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "done"]


def test_images_of_the_same_name_are_told_apart_by_their_folders(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As fields of a plate are, each called 0."""
    for name in ("x", "y"):
        Path("data", name).mkdir()
        Path("data", name, "0.tif").write_bytes(Path("data/a.tif").read_bytes())
    Path("data/y/0.tif").write_text("this is no image")
    Path("clicks.csv").write_text(CLICK)
    options = ("--pattern", "0.tif", "--model", "tiny", "--prompts", "clicks.csv")
    assert main(["segment", "data", *options, "--output", "out"]) == 1
    said = capsys.readouterr()
    assert "x/0.tif: 1 object, segmented" in said.out
    assert "\nCannot read y/0.tif: unsupported file type" in f"\n{said.err}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text_is_segmented_and_written_with_its_bytes_escaped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"10\xb5m.tif")  # as unzip leaves what Windows has packed
    Path("data/b.tif").rename(Path("data", name))
    Path("clicks.csv").write_text(CLICK)
    options = ("--model", "tiny", "--prompts", "clicks.csv", "--output", "out", "--channels", "0")
    assert main(["segment", "data", *options]) == 0
    assert "10\\udcb5m.tif: 1 object" in capsys.readouterr().out
    assert read_record(Path("out", os.fsdecode(b"10\xb5m.json"))).request.input.file == name
    assert "10\\udcb5m.tif,done,1" in Path("out/simmat-summary.csv").read_text("utf-8")
    assert main(["segment", "data", *options, "--resume"]) == 0
    assert "10\\udcb5m.tif: 1 object, kept" in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_print_is_escaped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ending in (".tif", ".csv"):
        Path(f"data/a{ending}").rename(f"data/細胞{ending}")
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, "cp1252", write_through=True))
    assert main(words("--dry-run")) == 0
    assert b"\\u7d30\\u80de.tif" in written.getvalue()


def test_one_file_with_too_many_channels_stops_itself_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 1
    said = capsys.readouterr()
    assert "b.tif: tiny-4 reads red, green and blue, but there are 4 channels" in said.err
    assert "1 of 2 images segmented" in said.out
    assert Path("out/a.json").is_file()


def test_events_are_lines_and_words_are_obeyed(folder: Path) -> None:
    Path("data/b.tif").unlink()
    line = [sys.executable, "-m", "napari_simmat", *words("--events")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, **pipes) as process:
        process.stdin.write("go\n")  # from now on the end of stdin stops it
        process.stdin.flush()
        events = [json.loads(text) for text in iter(process.stdout.readline, "")]
    assert process.returncode == 0
    assert "plan" in events[0]
    assert events[-1] == {"finished": 1}
    [file] = [event["file"] for event in events if "file" in event]
    assert file["status"] == "written"
    assert all({"done", "total", "message"} <= set(event) for event in events[1:-1])

    line.append("--overwrite")
    stopped = subprocess.run(line, input="pause\nstop\n", capture_output=True, text=True)
    assert stopped.returncode == 130
    assert "Canceled" in stopped.stderr
    assert Path("out/a.json").is_file(), "what was there stays"
