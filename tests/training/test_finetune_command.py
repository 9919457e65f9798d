"""`simmat train` from end to end: output, bad input, a full disk, kills, processes."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.cli import main
from napari_simmat.cli.train import WORSE
from napari_simmat.training.run_folder import BEST_FILE, LOG_FILE, STATE_FILE
from tests.training.squares import folder_of_pictures, read_log

SMALL = ("--steps", "2", "--epochs", "2", "--validate-every", "2", "--batch", "2")


@pytest.fixture
def images(tmp_path):
    """Four pictures of two channels with labels."""
    return folder_of_pictures(tmp_path / "images")


def words(images: Path, output: Path, *more: str, settings: tuple[str, ...] = SMALL) -> list[str]:
    return ["train", str(images), "--output", str(output), "--device", "cpu", *settings, *more]


def test_train_command_writes_a_checkpoint_with_metrics(images, tmp_path, capsys):
    path = tmp_path / "squares.safetensors"
    assert main(words(images, path)) == 0
    said = capsys.readouterr()
    worse = ("click", "box", "click, box")
    assert said.err in ("", *(f"Note: {WORSE.format(kinds)}\n" for kinds in worse))
    assert said.out.strip().endswith(f"Wrote {path}")
    table = dict(re.findall(r"^ *(\w+, \w+) +([\d.]+) *$", said.out, re.MULTILINE))
    metrics = read_spec(path).metrics
    assert set(metrics) == {"validation", "before", "after", "step"}
    shown = {
        f"{name}, {kind}": f"{figure:.1f}"
        for name in ("validation", "before", "after")
        for kind, figure in metrics[name].items()
    }
    assert table == shown
    assert len(shown) == 5
    folder = tmp_path / "squares-training"
    assert {BEST_FILE, STATE_FILE, LOG_FILE} <= {each.name for each in folder.iterdir()}
    assert read_tensors(path).keys() == read_tensors(folder / BEST_FILE).keys()

    before = path.read_bytes()
    assert main(words(images, path)) == 1
    assert f"{path} exists. Choose another name, or replace it" in capsys.readouterr().err
    assert main(words(images, path, "--overwrite")) == 0
    assert path.read_bytes() == before


def test_train_command_events_are_json_alone(images, tmp_path, capfd):
    """Whatever a library prints; half precision is announced by Lightning Fabric."""
    path = tmp_path / "squares.safetensors"
    more = ("--events", "--precision", "bf16-mixed", "--practical")
    assert main(words(images, path, *more)) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines[-1] == {"output": str(path), "metrics": dict(read_spec(path).metrics)}
    assert all({"done", "total", "message"} <= set(line) for line in lines[:-1])
    steps = [line for line in lines if "figures" in line]
    assert [line["done"] for line in steps] == [0, 1, 2, 2]
    assert {line["total"] for line in steps} == {2}
    table = read_log(tmp_path / "squares-training" / LOG_FILE)
    assert [line["figures"] for line in steps] == table
    spec = read_spec(path)
    assert (spec.training["corrections"], spec.training["augment"]) == (3, True)
    assert spec.training["precision"] == "bf16-mixed"


def test_train_command_refuses_unusable_data(images, tmp_path, capsys):
    (images / "0.tif").write_bytes((images / "0.tif").read_bytes()[:200])
    assert main(words(images, tmp_path / "squares.safetensors")) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.strip().splitlines() if not line.startswith("Note: ")]
    assert len(lines) == 1
    assert re.search(r"0\.tif claims .* so it is cut short or damaged; copy it again", lines[0])
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--strategy", "full", "--size", "8"), "Strategy full has no size, 8 was given"),
        (("--devices", "4"), "A batch of 2 cannot be divided among 4 devices in 1 parts each"),
        (("--channels", "0,5"), "5"),
        (("--base", "nonsense"), "nonsense"),
    ],
)
def test_train_command_refuses_unusable_settings(more, sentence, images, tmp_path, capsys):
    assert main(words(images, tmp_path / "squares.safetensors", *more)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert sentence in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_train_command_full_disk_at_the_end_loses_nothing(images, tmp_path, capsys, monkeypatch):
    """The output cannot be written; the same command writes it once there is room."""
    import safetensors.torch

    path = tmp_path / "out" / "squares.safetensors"
    save = safetensors.torch.save_file

    def refuse(tensors, target, metadata):
        if Path(target).parent == path.parent:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, target, metadata)

    more = ("--folder", str(tmp_path / "training"))
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", refuse)
        assert main(words(images, path, *more)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("The disk is full: squares.safetensors could not be written to ")
    assert len(said.err.strip().splitlines()) == 1
    assert list(path.parent.iterdir()) == []
    assert main(words(images, path, *more)) == 0
    assert f"Wrote {path}" in capsys.readouterr().out
    held = read_tensors(tmp_path / "training" / BEST_FILE)
    assert all(torch.equal(each, held[name]) for name, each in read_tensors(path).items())


def python(*arguments: str, **more) -> subprocess.Popen[str]:
    """Another Python, in which warnings are errors as here."""
    command = [sys.executable, "-W", "error", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **more)


def free_port() -> int:
    with socket.socket() as open_one:
        open_one.bind(("127.0.0.1", 0))
        return int(open_one.getsockname()[1])


def of_a_cluster(rank: int, port: int) -> dict[str, str]:
    """What SLURM tells a task of two nodes with a task each, here both on this machine."""
    one = {"NTASKS_PER_NODE": 1, "LOCALID": 0, "JOB_ID": 12345, "JOB_NAME": "train"}
    both = {"NTASKS": 2, "NNODES": 2, "NODELIST": "localhost", "PROCID": rank, "NODEID": rank}
    return {
        **os.environ,
        **{f"SLURM_{name}": str(value) for name, value in {**one, **both}.items()},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.mark.shipped_models
@pytest.mark.slow
def test_train_command_two_processes_train_as_one(images, tmp_path):
    """Two that Lightning Fabric starts, and two tasks that a cluster has started."""
    names = ("alone", "two", "cluster")
    alone, two, cluster = (tmp_path / f"{name}.safetensors" for name in names)
    module = ("-m", "napari_simmat")
    of_two = python(*module, *words(images, two, "--devices", "2", "--events"))
    nodes = words(images, cluster, "--nodes", "2", "--events")
    port = free_port()
    tasks = [python(*module, *nodes, env=of_a_cluster(rank, port)) for rank in range(2)]
    assert main(words(images, alone)) == 0
    ended = [(process, *process.communicate(timeout=300)) for process in (of_two, *tasks)]
    for process, _, err in ended:
        assert process.returncode == 0, err
        assert err == ""
    assert ended[2][1] == ""  # the second task is silent
    for (_, out, _), path in zip(ended[:2], (two, cluster), strict=True):
        events = [json.loads(line) for line in out.splitlines()]
        assert [event["done"] for event in events if "figures" in event] == [0, 1, 2, 2]
        assert [event["output"] for event in events if "output" in event] == [str(path)]
        one, other = read_tensors(alone), read_tensors(path)
        assert one.keys() == other.keys()
        apart = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
        # Adam moves a weight whose gradient is but rounding by any part of its step of 1e-3.
        assert float((apart > 1e-6).float().mean()) < 1e-4
        assert float(apart.max()) < 1e-3
        logs = [read_log(tmp_path / f"{name}-training" / LOG_FILE) for name in ("alone", path.stem)]
        for first, second in zip(*logs, strict=True):
            assert first == pytest.approx(second, rel=1e-4)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == set(names)
