"""Commands and data sets of other distributions, where they are installed and where not."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from napari_simmat.cli import OWN, app, extensions
from napari_simmat.cli.extensions import COMMANDS, DATASETS, NOT_INSTALLED

HEAVY = {"torch", "numpy", "napari", "simmat_research"}


def measure(path: str, /, *, depth: int = 3) -> None:
    """Measure a file deeply.

    Parameters
    ----------
    path
        The file.
    depth
        How deep.
    """
    sys.stdout.write(f"{path} at {depth}\n")


def draw_job(sensor, *, scenes=200, side=256):
    """Draw nothing, but say what was asked for."""
    yield from ()
    raise ValueError(f"{scenes} scenes of {sensor}, {side} pixels wide.")


def read_job(said):
    """Read nothing, but say what was asked for."""
    yield from ()
    raise ValueError(f"{said} was to be read.")


@pytest.fixture
def installed(monkeypatch):
    """Let these entry points, NAME = function of this file, be all that are installed."""
    groups = {"measure": COMMANDS, "draw_job": DATASETS, "read_job": DATASETS}
    added = []

    def install(**functions):
        entries = [
            EntryPoint(name, f"{__name__}:{function}", groups[function])
            for name, function in functions.items()
        ]
        added.extend(functions)
        monkeypatch.setattr(
            extensions,
            "entry_points",
            lambda group: [each for each in entries if each.group == group],
        )

    yield install
    for name in added:
        if name in app and name not in OWN:
            del app[name]


@pytest.mark.parametrize(
    "words", ["benchmark transfer --output x", "pretrain --help", "convert a.pth"]
)
def test_command_of_the_research_says_how_to_install_it(words, installed, simmat):
    installed()
    name = words.split()[0]
    result = simmat(*words.split())
    assert (result.status, result.out) == (1, "")
    assert result.err.replace("\n", " ").strip() == NOT_INSTALLED.format(f"simmat {name}")


@pytest.mark.parametrize(
    ("data", "name"),
    [("generated:thermal", "generated:SENSOR"), ("aims:rgbd:AIMS", "aims:KEY:FOLDER")],
)
def test_data_of_the_research_say_how_to_install_it(data, name, installed, simmat, tmp_path):
    installed()
    result = simmat("train", data, "--output", tmp_path / "a.safetensors")
    assert (result.status, result.out) == (1, "")
    said = NOT_INSTALLED.format(f"The data set {name}")
    assert result.err.replace("\n", " ").strip() == said


@pytest.mark.parametrize("functions", [{}, {"benchmark": "measure", "deeper": "measure"}])
def test_help_lists_commands_of_the_research_in_any_case(functions, installed, simmat):
    installed(**functions)
    shown = simmat("--help").out
    assert "Rerun a comparison of SimMAT's paper." in shown
    assert "Train an embedded foundation" in shown
    assert all(name in shown for name in functions)


def test_installed_command_runs_and_has_its_own_help(installed, simmat):
    installed(deeper="measure")
    assert simmat("deeper", "a.tif", "--depth", "7").out == "a.tif at 7\n"
    assert "Measure a file deeply." in simmat("deeper", "--help").out
    assert simmat("deeper", "a.tif", "--width", "7").status == 2


def test_command_of_the_product_is_not_replaced(installed, simmat, tmp_path, monkeypatch):
    """Completion of a shell loads all commands, to know their options."""
    installed(encode="measure")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert simmat("--install-completion", "--shell", "bash").status == 0
    assert "Encode images ahead" in simmat("encode", "--help").out


def test_installed_data_set_gets_sensor_scenes_and_side(installed, simmat, tmp_path):
    installed(toy="draw_job")
    where = ["--output", tmp_path / "a.safetensors"]
    said = simmat("train", "toy:sonar", "--scenes", "5", "--scene-side", "64", *where).err
    assert said == "5 scenes of sonar, 64 pixels wide.\n"
    said = simmat("train", "toy:sonar", *where).err
    assert said == "200 scenes of sonar, 256 pixels wide.\n"


@pytest.mark.parametrize("option", ["--complete", "--channels 0"])
def test_drawn_data_know_all_objects_and_channels(option, installed, simmat, tmp_path):
    installed(toy="draw_job")
    where = ["--output", tmp_path / "a.safetensors"]
    said = simmat("train", "toy:sonar", *option.split(), *where).err
    assert said == f"{option.split()[0]} has no meaning for drawn scenes; leave it out.\n"


def test_installed_data_set_that_is_read_has_no_scenes(installed, simmat, tmp_path):
    installed(toy="read_job")
    where = ["--output", tmp_path / "a.safetensors"]
    assert simmat("train", "toy:d:a folder", *where).err == "d:a folder was to be read.\n"
    refused = simmat("train", "toy:d:a folder", "--scenes", "5", *where)
    assert (refused.status, refused.err) == (
        1,
        "--scenes has no meaning without generated:SENSOR; leave it out.\n",
    )
    refused = simmat("train", "toy:d:a folder", "--min-size", "5", *where)
    assert (refused.status, refused.err) == (
        1,
        "--min-size has no meaning for a named data set; leave it out.\n",
    )


def test_help_imports_neither_torch_nor_another_distribution():
    program = (
        "import sys; from napari_simmat.cli import main; main(['--help']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "napari_simmat.cli" in loaded
    assert not loaded & HEAVY
