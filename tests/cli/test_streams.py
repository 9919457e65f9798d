"""A full disk under what a command prints does not end what it does."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from napari_simmat.cli import main
from tests.cli.conftest import segment

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a disk that is always full")
SAID = "stdout could not be written (No space left on device)"


@pytest.fixture
def two(folder):
    """A folder with two photographs and their clicks."""
    for ending in (".tif", ".csv"):
        shutil.copy(f"a{ending}", f"b{ending}")
    return folder


def words(*more):
    return [str(word) for word in segment("b.tif", *more, prompts="same-stem")]


@pytest.mark.parametrize("more", [(), ("--json",), ("--events",)])
def test_stdout_on_a_full_disk_stops_no_run(two, monkeypatch, capsys, more):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words(*more)) == 1, "what was asked for is not there"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(SAID) == 1
    assert "Traceback" not in said
    assert (two / "out/a_labels.tif").exists()
    assert (two / "out/b_labels.tif").exists()


def test_stderr_on_a_full_disk_stops_no_run(two, monkeypatch, capsys):
    (two / "b.tif").write_bytes(b"no image")  # which stderr would tell
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(words("--json")) == 1
    told = [each["status"] for each in json.loads(capsys.readouterr().out)["files"]]
    assert told == ["written", "failed"]


def test_lost_notes_are_no_success(folder, monkeypatch, capsys):
    """One cannot know what they said."""
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main([*map(str, segment()), "--pixel-ratio", "1", "--verbose"]) == 1
    assert (folder / "out/a_labels.tif").exists()


@pytest.mark.parametrize("given", [["models", "--json"], ["--version"], ["nonsense", "--json"]])
def test_program_with_a_full_stdout_ends_in_a_sentence(given, tmp_path):
    """Also when the interpreter flushes at its end."""
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "napari_simmat", *given],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == (2 if "nonsense" in given else 1)
    assert " ".join(done.stderr.split()).count(SAID) == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell's >&-")
def test_program_with_a_closed_stdout_does_its_work(tmp_path):
    program = f'"{sys.executable}" -m napari_simmat models --json >&-'
    done = subprocess.run(program, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("given", [["models"], ["nonsense", "--json"]])
def test_program_whose_reader_is_gone_ends_in_silence(given, tmp_path):
    """As in `simmat models | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "napari_simmat", *given]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
