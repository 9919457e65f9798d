"""The command itself: starting, help, faults and what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_simmat._text import CANCELED, CANCELED_MESSAGE, NO_SEGMENT_ANYTHING
from napari_simmat.cli.terminal import LOG_INTERVAL, Terminal
from napari_simmat.io.files import log_file
from napari_simmat.progress import Progress
from tests.cli.conftest import segment


def test_main_with_debug_prints_the_traceback(folder, simmat):
    result = simmat(*segment("--debug", image="b.tif"))
    assert result.status == 1
    assert "Traceback (most recent call last)" in result.err


def test_main_with_a_fault_of_the_program_says_so(folder, simmat, monkeypatch):
    def fail(*_, **__):
        raise KeyError("oops")

    monkeypatch.setattr("napari_simmat.batch.plan.plan", fail)
    result = simmat(*segment())
    assert result.status == 1
    said = "Something unexpected went wrong (KeyError: 'oops'). Run it again with --debug"
    assert said in result.err


def test_main_without_segment_anything_says_what_to_do(folder, simmat, monkeypatch):
    """As after `pip uninstall segment-anything-py`, which takes the shared files along."""

    def fail(*_, **__):
        raise ModuleNotFoundError("No module named ...", name="segment_anything.modeling")

    monkeypatch.setattr("napari_simmat.batch.plan.plan", fail)
    assert NO_SEGMENT_ANYTHING in simmat(*segment()).err


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a terminal does")
def test_main_after_ctrl_c_in_imports_is_one_sentence():
    program = """
import signal, sys

class PressesCtrlC:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, PressesCtrlC())
sys.argv = ["simmat", "models"]
from napari_simmat.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CANCELED, f"{CANCELED_MESSAGE}\n")


def in_a_fresh_interpreter(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        timeout=300,
    )


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["models"], ["--version"]])
def test_main_for_help_and_lists_loads_no_torch(tmp_path, words):
    done = in_a_fresh_interpreter(
        "import sys; from napari_simmat.cli import main; "
        f"status = main({words}); heavy = {{'torch', 'napari', 'qtpy'}} & set(sys.modules); "
        "sys.exit(status or len(heavy))",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_import_of_cli_loads_no_numpy(tmp_path):
    program = "import sys, napari_simmat.cli; sys.exit('numpy' in sys.modules)"
    assert in_a_fresh_interpreter(program, tmp_path).returncode == 0


@pytest.mark.parametrize(("logs", "lines"), [(True, ["50%, half"]), (False, [])])
def test_watch_into_a_file_prints_lines_of_progress(capsys, monkeypatch, logs, lines):
    def job():
        yield Progress(0, 2, "begun")
        now.append(LOG_INTERVAL)
        yield Progress(1, 2, "half")
        return 7

    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[-1])
    assert Terminal().watch(job(), logs=logs) == 7
    assert capsys.readouterr().err.splitlines() == lines


def test_main_with_short_options_reads_them(simmat):
    said = simmat("segment", "nowhere", "-m", "tiny", "--prompts", "auto", "-o", "out").err
    assert "nowhere" in said, "not: unknown option"


@pytest.mark.parametrize("command", ["segment", "evaluate", "train", "encode"])
def test_main_help_hides_defaults_that_say_nothing(command, simmat):
    assert not re.search(r'\[default:\s+(None|\(|""|\d\.\d{5})', simmat(command, "--help").out)


def test_main_installs_completion_of_options(tmp_path, monkeypatch, simmat):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert simmat("--install-completion", "--shell", "bash").status == 0
    script = tmp_path / ".local/share/bash-completion/completions/simmat"
    text = script.read_text("utf-8")
    assert "evaluate" in text
    assert "--max-objects" in text


def test_main_with_a_file_of_options_does_the_same(folder, simmat):
    words = ["--model=tiny", "--prompts=auto", "--auto.points-per-side=2", "--rois"]
    (folder / "options.toml").write_text(
        '[segment]\nmodel = "tiny"\nprompts = "auto"\nrois = true\noutput = "none"\n'
        "auto.points-per-side = 2\n[train]\nsteps = 3\n"
    )
    assert simmat("segment", "a.tif", "--config", "options.toml", "-o", "b").status == 0
    assert simmat("segment", "a.tif", *words, "-o", "a").status == 0
    for name in ("a_labels.tif", "a_rois.zip"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[segment]\nnomodel = 1", "nomodel"),
        ("[train]\nsteps = 1", "options.toml has no table [segment]"),
        ("segment", "options.toml is not a TOML file"),
        (f"[segment]\na = {'[' * 20_000}{']' * 20_000}", "nests its values too deep"),
        ("#" * (2 << 20), "but such a file has at most"),
        (None, "could not be used: No such file"),
    ],
)
def test_main_with_a_bad_file_of_options_says_why(text, message, folder, simmat):
    if text is not None:
        (folder / "options.toml").write_text(text)
    done = simmat(*segment(), "--config=options.toml")
    assert done.status != 0
    assert message in done.err.replace("\n", " ")
    assert simmat("models", "list").status == 0  # the file is not read again


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("path", ["options.toml", "/dev/zero"])
def test_main_waits_for_no_pipe_of_options(path, folder, simmat):
    os.mkfifo(folder / "options.toml")
    done = simmat(*segment(), f"--config={path}")
    assert done.status == 1
    assert "is a pipe or a device, not a file" in done.err.replace("\n", " ")


@pytest.mark.parametrize("option", ["output", "channel-files", "config"])
def test_main_with_a_null_character_says_so(option, folder, simmat):
    words = ["segment", "a.tif", "--model", "tiny", "--prompts", "a.csv", "--output", "out"]
    result = simmat(*words, f"--{option}", "wr\0ng")
    assert result.status == 1
    assert result.err.startswith(r"'wr\x00ng' has a null character, which no name of a file has")


def test_main_with_a_null_character_in_a_file_of_options_says_so(folder, simmat):
    Path("c.toml").write_text('[segment]\noutput = "wr\\u0000ng"\n')
    words = ["segment", "a.tif", "--model", "tiny", "--prompts", "a.csv", "--config", "c.toml"]
    result = simmat(*words)
    assert result.status == 1
    assert result.err.startswith(r"'wr\x00ng' has a null character, which no name of a file has")


def test_main_logs_commands_and_their_failures(folder, simmat):
    assert simmat(*segment(image="b.tif"), "--verbose").status == 1
    text = log_file().read_text()
    assert "INFO napari_simmat: simmat segment b.tif" in text
    assert "Traceback" in text
    assert str(log_file()) in simmat("info").out.replace("\n", "")
