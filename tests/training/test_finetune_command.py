"""`simmat train` from end to end: output, bad input, a full disk, kills, processes."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.cli import main
from napari_simmat.training.trainer import BEST_FILE, LOG_FILE, STATE_FILE
from tests.training.squares import folder_of_pictures, read_log

SMALL = ("--steps", "2", "--epochs", "2", "--validate-every", "2", "--batch", "2")
LONG = ("--steps", "12", "--epochs", "12", "--validate-every", "4", "--batch", "2")


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
    assert said.err == ""
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


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes; only the administrator can make one."""
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("a small file system needs Linux and the right to mount it")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_train_command_on_a_full_file_system_resumes(images, tmp_path, capsys):
    """It holds the first state, which knows nothing of the optimizer yet, but no second one."""
    disk, path = tmp_path / "disk", tmp_path / "squares.safetensors"
    folder = disk / "training"
    assert main(words(images, path)) == 0
    whole = tmp_path / "squares-training"
    room = (whole / BEST_FILE).stat().st_size + (whole / STATE_FILE).stat().st_size // 2
    whole_output = path.read_bytes()
    path.unlink()
    capsys.readouterr()
    with small_disk(disk, room):
        assert main(words(images, path, "--folder", str(folder))) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert re.search(r"disk (is )?full", said.err)
        lines = [line for line in said.err.strip().splitlines() if not line.startswith("Note: ")]
        assert len(lines) == 1
        left = {each.name for each in folder.iterdir() if each.is_file()}
        assert left == {BEST_FILE, LOG_FILE, STATE_FILE, ".lock"}
        moved = shutil.copytree(folder, tmp_path / "moved")
    assert not path.exists()
    assert main(words(images, path, "--folder", str(moved))) == 0
    assert path.read_bytes() == whole_output
    assert (moved / LOG_FILE).read_text() == (whole / LOG_FILE).read_text()


def python(*arguments: str, **more) -> subprocess.Popen[str]:
    """Another Python, in which warnings are errors as here."""
    command = [sys.executable, "-W", "error", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **more)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"It ended: {process.communicate()}")
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(folder: Path) -> int:
    path = folder / LOG_FILE
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


ALWAYS_SAVING = """
import sys
import napari_simmat.training.trainer as run
from napari_simmat.cli import main
run.SAVE_INTERVAL = 0.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.shipped_models
@pytest.mark.slow
def test_train_command_killed_resumes_with_the_same_bits(images, tmp_path):
    """Resumed after every second kill. As it saves all the time, most hit it while it writes."""
    whole, broken = (tmp_path / name / "m.safetensors" for name in ("whole", "broken"))
    for output in (whole, broken):
        output.parent.mkdir()
    folder, command = broken.parent / "m-training", words(images, broken, settings=LONG)

    def finish(*arguments):
        process = python("-m", "napari_simmat", *arguments)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    finish(*words(images, whole, settings=LONG))
    random = np.random.default_rng(0)
    for number in range(1, int(os.environ.get("SIMMAT_KILLS", 2)) + 1):
        process = python("-c", ALWAYS_SAVING, *command)
        reached = random.integers(2, 5) if number % 2 else random.integers(5, 9)
        wait_for(lambda: rows(folder) >= reached, process)  # noqa: B023, called at once
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        for path in folder.iterdir():
            if path.name == STATE_FILE:
                torch.load(path, weights_only=True)
            elif path.name == BEST_FILE:
                read_tensors(path)
            else:
                assert path.name in (LOG_FILE, ".lock", "tensorboard") or path.suffix == ".part"
        assert not broken.exists()
        if number % 2 == 0:
            finish(*command)
            assert broken.read_bytes() == whole.read_bytes()
            assert not list(folder.glob(".*.part"))
            log = (whole.parent / "m-training" / LOG_FILE).read_text()
            assert (folder / LOG_FILE).read_text() == log
            shutil.rmtree(folder)
            broken.unlink()


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
        assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5
        logs = [read_log(tmp_path / f"{name}-training" / LOG_FILE) for name in ("alone", path.stem)]
        for first, second in zip(*logs, strict=True):
            assert first == pytest.approx(second, rel=1e-4)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == set(names)
