"""`simmat pretrain`, `simmat benchmark` and drawn data through the real entry point."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import OWN, app, main
from napari_simmat.cli.extensions import add_commands
from simmat_research.experiments import RGB_BASE, BenchmarkConfig, ExperimentName, read_rows
from tests.test_readme import simmat_commands


def test_benchmark_quick_writes_its_files(tmp_path, capsys):
    words = ["benchmark", "strategies", "--quick", "--steps", "1", "--modalities", "thermal"]
    small = ["--side", "64", "--images", "2", "--validation", "1", "--test", "1"]
    where = ["--output", str(tmp_path), "--device", "cpu"]
    assert main([*words, *small, *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == [str(tmp_path / f"quick-strategies.{e}") for e in ("csv", "md", "png")]
    assert "Quick form" in said["table"]
    rows = read_rows(tmp_path / "quick-strategies.csv")
    names = ["frozen", "linear", "lora", "lora_conv", "adapter", "prompt", "prefix", "full"]
    assert [row.run.strategy for row in rows] == names
    assert main([*words, *small, *where]) == 0  # nothing is left to do
    assert "| strategy | trained parameters | thermal |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["transfer", "--modalities", "sonar"], "Sensor 'sonar' is unknown; use one of rgb"),
        (["transfer", "--base", "polarization"], "polarization is a modality checkpoint, not a"),
        (["transfer", "--data", "nowhere", "--base", "tiny"], "There is no folder nowhere; check"),
        (["lr", "--shard", "3/2"], "--shard is '3/2'; give I/N, such as 2/4 for the second of"),
        (["lr", "--arms", "SimMAT"], "--arms chooses of transfer, pseudo; leave it out."),
        (["grid", "--transfer", "simcmf"], "grid compares transfer layers itself; leave --transf"),
        (["lr", "--workers", "-1"], "-1 threads cannot read images; choose 0 to 64."),
    ],
)
def test_benchmark_of_bad_settings_is_refused(words, sentence, tmp_path, capsys):
    small = ["--side", "64", "--images", "1", "--validation", "1", "--test", "1"]
    given = ["benchmark", *words, "--quick", "--output", str(tmp_path), "--device", "cpu", *small]
    assert main(given) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "unexpected" not in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrain", "--output", "x"], "Checkpoints must end in .safetensors; use x.safetensors."),
        (
            ["pretrain", "--families", "moon", "--output", "x.safetensors"],
            "No family of scenes is called moon; use some of",
        ),
        (
            ["pretrain", "--start", "gone.safetensors", "--output", "x.safetensors"],
            "gone.safetensors",
        ),
    ],
)
def test_pretrain_of_bad_settings_is_refused_and_writes_nothing(
    words, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_train_on_drawn_scenes_writes_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_simmat.training.validation.MAX_PLANES", 2)
    path = tmp_path / "angles.safetensors"
    small = ["--steps", "2", "--scenes", "4", "--scene-side", "64", "--prompts", "click", "box"]
    assert main(["train", "generated:polarization", *small, "--output", str(path)]) == 0
    spec = read_spec(path)
    assert (spec.modality, len(spec.channels)) == ("polarization", 4)


def test_train_on_an_unknown_sensor_leaves_nothing(tmp_path, capsys):
    path = tmp_path / "moon.safetensors"
    assert main(["train", "generated:moon", "--output", str(path)]) == 1
    assert "Sensor 'moon' is unknown; use one of rgb" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_each_caption_of_the_paper_has_a_command_and_a_figure():
    """The table of captions: its commands parse, and each writes a figure of its own."""
    page = Path(__file__).resolve().parents[2] / "docs/reports/benchmark.md"
    rows = re.findall(
        r"^\| ([^|]+) \| `simmat (benchmark [^`]+)` \| `([^`]+)` \|", page.read_text("utf-8"), re.M
    )
    captions = [caption for caption, _, _ in rows]
    figures = ["2", "4a", "4b", "4b", "4c", "5a", "5b"]
    assert [found[1] for each in captions if (found := re.match(r"Fig\. (\w+)", each))] == figures
    tiny = load_model(RGB_BASE).spec
    add_commands(app, OWN, "benchmark")
    drawn = []
    for _, words, figure in rows:
        command, bound, _ = app.parse_args(words.split(), exit_on_error=False, print_error=False)
        assert command.__name__ == "benchmark"
        config = bound.arguments.get("config", BenchmarkConfig())
        drawn.append(f"{config.stem_of(bound.arguments['experiment'], tiny)}.png")
        assert drawn[-1] == figure
    assert len({*drawn}) == len(drawn)
    assert {re.split(r"[-.]", name)[0] for name in drawn} == {*get_args(ExperimentName)}


@pytest.mark.parametrize("command", ["pretrain", "benchmark"])
def test_options_that_the_pages_name_exist(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal may break an option's name
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r'\[default:\s+(None|\(|""|\d\.\d{5})', shown)
    lines = [line for line in simmat_commands() if line.split()[1] == command]
    assert lines
    for option in set(re.findall(r"--[\w-]+", " ".join(lines))) - {"--help"}:
        assert re.search(rf"{option}\b", shown), option
