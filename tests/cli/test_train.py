"""`simmat train` through the real entry point."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main
from napari_simmat.cli.terminal import Terminal
from napari_simmat.cli.train import WORSE, say_metrics
from napari_simmat.engine.predictor import Predictor
from napari_simmat.training.config import PRACTICAL_SETTINGS, TrainConfig


def test_train_writes_a_checkpoint_that_segments(angles, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_simmat.training.validation.MAX_PLANES", 2)
    path = tmp_path / "angles.safetensors"
    small = ["--steps", "2", "--prompts", "click", "box"]
    words = ["train", str(angles), *small, "--output", str(path), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    spec = read_spec(path)
    assert (spec.name, spec.modality, len(spec.channels)) == ("angles", "polarization", 4)
    assert result["output"] == str(path)
    assert result["metrics"] == spec.metrics
    predictor = Predictor(load_model(path), "cpu")
    predictor.set_image(np.random.default_rng(0).random((4, 64, 64)), channel_axis=0)
    assert predictor.predict(points=[(30, 30)]).mask.shape == (64, 64)


@pytest.mark.parametrize(("click", "said"), [(70.0, ""), (60.0, WORSE.format("click"))])
def test_say_metrics_names_what_got_worse(click, said, tmp_path, capsys):
    metrics = {"before": {"click": 65.0, "box": 80.0}, "after": {"click": click, "box": 80.0}}
    say_metrics(Terminal(), tmp_path / "a.safetensors", metrics)
    assert capsys.readouterr().err == (f"Note: {said}\n" if said else "")


@pytest.mark.parametrize("practical", [False, True])
def test_train_with_a_typed_default_keeps_it(practical, labeled, tmp_path, monkeypatch):
    asked: list[TrainConfig] = []

    def making(_base, _data, config, *_):
        asked.append(config)
        yield from ()
        raise ValueError("Enough.")

    monkeypatch.setattr("napari_simmat.training.finetune.train_checkpoint_job", making)
    words = ["train", str(labeled), "--output", str(tmp_path / "a.safetensors")]
    words += ["--objects", "1", "--learning-rate", "3e-4", "--strategy", "lora"]
    assert main([*words, "--prompts", "box", *(["--practical"] if practical else [])]) == 1
    if practical:
        wanted = {**PRACTICAL_SETTINGS, "objects": 1, "learning_rate": 3e-4, "prompts": ("box",)}
        assert asked == [TrainConfig(**wanted)]
    else:
        assert asked == [TrainConfig(prompts=("box",))]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["train", "folder", "--output", "x.safetensors"],
            "There is no folder folder; check its name.",
        ),
        (["train", "folder", "--output", "x.pt"], "Checkpoints must end in .safetensors; use x"),
    ],
)
def test_train_with_bad_input_leaves_nothing(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    result = capsys.readouterr()
    assert result.out == ""
    assert sentence in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


ALLOCATE = """
import psutil
from napari_simmat.cli.train import keep_freed_memory

if {keep}:
    keep_freed_memory()
size, process = {size}, psutil.Process()
before = process.memory_info().rss
b"1" * size
print(process.memory_info().rss - before)
"""
ARRAY = 64 << 20
"""Bytes; twice as many as glibc ever takes for a block to be kept."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has the setting")
@pytest.mark.parametrize("keep", [True, False])
def test_keep_freed_memory_keeps_it_for_the_process(keep):
    code = ALLOCATE.format(keep=keep, size=ARRAY)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept = int(run.stdout)
    assert kept > 0.9 * ARRAY if keep else kept < 0.1 * ARRAY


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data --few --devices 2", "--devices has no meaning with --few"),
        ("data --few --practical", "--practical has no meaning with --few"),
        ("data --scenes 5", "--scenes has no meaning without generated:SENSOR"),
    ],
)
def test_train_refuses_options_that_it_would_ignore(tmp_path, capsys, words, sentence):
    output = str(tmp_path / "net.safetensors")
    assert main(["train", *words.split(), "--output", output]) == 1
    assert sentence in capsys.readouterr().err.replace("\n", " ")
