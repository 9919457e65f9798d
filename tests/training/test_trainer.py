"""The loop, the run's folder and its devices: what resumes, what is refused."""

import errno
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.progress import Job, finish
from napari_simmat.training import devices, finetune, run_folder, trainer
from napari_simmat.training.devices import Devices, is_first_process
from napari_simmat.training.finetune import train_job
from napari_simmat.training.run_folder import BEST_FILE, LOG_FILE, STATE_FILE, RunFolder, read_state
from napari_simmat.training.trainer import TrainProgress
from tests.nightly import nightly_but
from tests.training.squares import pictures, read_log, short

LONG = {"steps": 6, "epochs": 6, "validate_every": 3}
RICH = {"strategy": "prompt", "augment": True, "prompts": ("click", "box"), "corrections": 1}


@pytest.fixture
def begin(base, dataset, tmp_path):
    """A training as a job."""

    def run(folder="run", data=dataset, **settings):
        return train_job(base, data, short(**LONG | settings), "squares", tmp_path / folder)

    return run


def interrupt(job: Job, step: int) -> None:
    """Close a training after a step, as Ctrl+C does."""
    for progress in job:
        if isinstance(progress, TrainProgress) and progress.done == step:
            break
    job.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("every", nightly_but((0.0, 60.0), 0.0))
@pytest.mark.parametrize("settings", [{}, pytest.param(RICH, marks=pytest.mark.slow)])
def test_resumed_training_ends_with_the_same_bits(every, settings, begin, tmp_path, monkeypatch):
    """Twice interrupted, saved after each step or at the validations alone."""
    monkeypatch.setattr(trainer, "SAVE_INTERVAL", every)
    unbroken = finish(begin("unbroken", **settings))
    interrupt(begin("broken", **settings), 2)
    interrupt(begin("broken", **settings), 5)
    seen: list = []
    broken = finish(begin("broken", **settings), seen.append)
    first = next(p for p in seen if p.message.startswith("resuming"))
    assert first.done == (5 if every == 0 else 3)
    one, two = (each.student.network.state_dict() for each in (unbroken, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert unbroken.spec == broken.spec
    files = [(tmp_path / name / BEST_FILE).read_bytes() for name in ("unbroken", "broken")]
    assert files[0] == files[1]
    logs = [(tmp_path / name / LOG_FILE).read_text() for name in ("unbroken", "broken")]
    assert logs[0] == logs[1]
    rows = read_log(tmp_path / "broken" / LOG_FILE)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert [row["step"] for row in rows if "validation_iou" in row] == [0, 3, 6]


@pytest.mark.slow
def test_save_interval_counts_from_the_end_of_a_save(begin, monkeypatch):
    """A minute passes between two savings, however long they take."""
    now, saved = [0.0], []

    def slow(folder, state, settings):
        saved.append(state["step"])
        now[0] += 2 * trainer.SAVE_INTERVAL

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(RunFolder, "save", slow)
    finish(begin())
    assert saved == [0, 3, 6]  # the validations


@pytest.mark.slow
def test_auto_precision_stays_what_it_was_at_first(begin, monkeypatch):
    """Whether half of it is quicker is measured, and may come out otherwise another time."""
    monkeypatch.setattr(devices, "half_precision_is_faster", lambda: True)
    unbroken = finish(begin("unbroken", precision="auto"))
    assert unbroken.spec.training["precision"] == "bf16-mixed"
    interrupt(begin("broken", precision="auto"), 3)
    monkeypatch.setattr(devices, "half_precision_is_faster", lambda: False)
    broken = finish(begin("broken", precision="auto"))
    assert broken.spec == unbroken.spec
    one, two = (each.student.network.state_dict() for each in (unbroken, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)
    exact = finish(begin("exact", precision="auto"))
    assert exact.spec.training["precision"] == "32-true"


def test_finished_training_is_not_repeated(begin):
    first = finish(begin())
    seen: list = []
    again = finish(begin(), seen.append)
    assert not any(isinstance(progress, TrainProgress) for progress in seen)
    assert again.spec == first.spec


@pytest.mark.slow
def test_training_killed_before_its_first_state_begins_anew(begin, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOG_FILE).write_text(
        "step,epoch,learning_rate,loss,train_iou,validation_iou\n0,0.0,,,,1.5\n"
    )
    finish(begin())
    rows = read_log(tmp_path / "run" / LOG_FILE)
    assert [row["step"] for row in rows if "validation_iou" in row] == [0, 3, 6]


def test_resume_from_removes_a_cut_row(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 30):
        folder.log({"step": step, "epoch": 1, "loss": 0.25})
    path = tmp_path / LOG_FILE
    path.write_text(path.read_text()[:-10])  # of step 30 stands "3" or more
    folder.resume_from(30)
    assert [row["step"] for row in read_log(path)] == [1, 2]
    folder.resume_from(1)
    assert [row["step"] for row in read_log(path)] == [1]
    folder.close()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seed": 5}, "holds a training with seed 0, not 5. Use its settings, choose"),
        pytest.param(
            {"strategy": "full"}, 'with strategy "lora", not "full".', marks=pytest.mark.slow
        ),
        pytest.param(
            {"prompts": ("box", "click")},
            'with prompts ["anywhere"], not ["box", "click"].',
            marks=pytest.mark.slow,
        ),
        pytest.param({"size": 3}, "with size null, not 3.", marks=pytest.mark.slow),
    ],
)
def test_read_state_refuses_other_settings(settings, sentence, begin, tmp_path):
    interrupt(begin(), 1)
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError) as caught:  # noqa: PT011, its words are compared
        finish(begin(**settings))
    assert sentence in str(caught.value)
    assert contents(tmp_path / "run") == before
    interrupt(begin(), 2)  # and it is not locked


def other_labels(dataset: Dataset) -> Dataset:
    """One label has one pixel less."""
    sample = dataset.train[0]

    def load():
        values, labels = sample.load()
        labels = labels.copy()
        places = np.flatnonzero(labels)
        labels.ravel()[places[0]] = 0
        return values, labels

    return replace(dataset, train=(replace(sample, load=load), *dataset.train[1:]))


@pytest.mark.parametrize(
    "change",
    [
        other_labels,
        lambda data: pictures(seed=3),
        lambda data: replace(data, train=data.train[:-1]),
        lambda data: replace(data, min_size=5),
        lambda data: replace(data, channels=(data.channels[0], replace(data.channels[1], std=7.0))),
    ],
    ids=["labels", "images", "fewer", "threshold", "statistics"],
)
def test_read_state_refuses_other_data(change, begin, dataset):
    interrupt(begin(), 1)
    with pytest.raises(ValueError, match=re.escape(run_folder.HAS_OTHER_DATA.format("")[1:])):
        finish(begin(data=change(dataset)))


@pytest.mark.parametrize("damage", ["cut", "foreign", "pickle", "empty"])
def test_read_state_refuses_a_damaged_state(damage, begin, tmp_path):
    interrupt(begin(), 1)
    path = tmp_path / "run" / STATE_FILE
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        torch.save({"step": 3}, path)
    elif damage == "pickle":
        torch.save({"settings": Path("x")}, path)  # an object is never loaded
    else:
        path.write_bytes(b"")
    with pytest.raises(ValueError) as caught:  # noqa: PT011, its words are compared
        finish(begin())
    assert str(caught.value).startswith(run_folder.IS_DAMAGED.split("(")[0].format(path))


def test_read_state_refuses_a_missing_best_checkpoint(begin, tmp_path):
    interrupt(begin(), 1)
    (tmp_path / "run" / BEST_FILE).unlink()
    with pytest.raises(
        ValueError, match=re.escape(run_folder.LACKS_FILE.format("", BEST_FILE)[1:])
    ):
        finish(begin())


def test_run_folder_holds_one_training_at_a_time(begin):
    running = begin()
    assert any(isinstance(progress, TrainProgress) for progress in running)
    with pytest.raises(ValueError, match=run_folder.IS_RUNNING.format(".*run")):
        finish(begin())
    running.close()
    finish(begin())


def test_run_folder_works_without_locks(tmp_path, monkeypatch):
    """As on the file systems of some clusters."""

    def cannot(self):
        raise NotImplementedError

    monkeypatch.setattr(run_folder.FileLock, "acquire", cannot)
    RunFolder(tmp_path).close()


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", nightly_but(("state", "best", "log"), "state"))
def test_full_disk_is_reported_and_keeps_what_was_saved(what, begin, tmp_path, monkeypatch):
    """At the validation of step 3, where the best so far is better than before."""
    unbroken = finish(begin("unbroken"))
    folder = tmp_path / "run"
    job = begin()
    assert any(getattr(p, "done", 0) == 2 for p in job if isinstance(p, TrainProgress))
    before = contents(folder)
    with monkeypatch.context() as patch:
        if what == "state":
            save = torch.save

            def cut(values, path):
                save(values, path)
                Path(path).write_bytes(Path(path).read_bytes()[:100])
                raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64")

            patch.setattr(torch, "save", cut)
            sentence = r"state\.pt could not be written; is the disk full\? The training can be"
        elif what == "best":
            import safetensors.torch

            def refuse(tensors, path, metadata):
                Path(path).write_bytes(b"half")
                raise full()

            patch.setattr(safetensors.torch, "save_file", refuse)
            patch.setattr(finetune, "validate_network_job", better)
            sentence = r"The disk is full: best\.safetensors could not be written to .*run, nothing"
        else:
            opened = Path.open

            def refuse_log(self, mode="r", *args, **named):
                if self.name == LOG_FILE and mode == "a":
                    raise full()
                return opened(self, mode, *args, **named)

            patch.setattr(Path, "open", refuse_log)
            sentence = r"The disk is full: log\.csv could not be written to .*run"
        with pytest.raises(OSError, match=sentence) as caught:
            finish(job)
    assert "\n" not in str(caught.value)
    after = contents(folder)
    assert after.keys() == before.keys()  # no temporary file
    assert after[STATE_FILE] == before[STATE_FILE]
    if what == "best":
        assert after[BEST_FILE] == before[BEST_FILE]
    assert read_tensors(folder / BEST_FILE)
    resumed = finish(begin())
    assert resumed.spec == unbroken.spec
    assert (folder / BEST_FILE).read_bytes() == (tmp_path / "unbroken" / BEST_FILE).read_bytes()


def better(network, planes, side, max_objects):
    from napari_simmat.training.validation import ValidationScores

    reached = ValidationScores()
    reached.ious.append(0.999)
    return reached
    yield


def test_read_state_of_an_empty_folder_is_none(tmp_path):
    assert read_state(tmp_path, {}) is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_on_one_cpu_announces_nothing(precision, capfd):
    fabric = Devices(device="cpu").fabric(precision)
    fabric.launch()
    assert (fabric.world_size, fabric.is_global_zero, fabric.device.type) == (1, True, "cpu")
    assert capfd.readouterr() == ("", "")  # nothing is announced


@pytest.mark.parametrize(
    ("settings", "precision", "sentence"),
    [
        ({"count": 0}, "32-true", "at least one device on one node, not 0 on 1"),
        ({"nodes": 0}, "32-true", "at least one device on one node, not 1 on 0"),
        ({"device": "cpu:0", "count": 2}, "32-true", "2 devices are requested, but cpu:0 is 1"),
        ({"device": "cpu"}, "16-mixed", devices.NO_16_MIXED),
        ({"device": "moon"}, "32-true", "Device 'moon' is unknown"),
    ],
)
def test_fabric_refuses_missing_devices_and_precisions(settings, precision, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Devices(**settings).fabric(precision)


@pytest.mark.parametrize(
    ("settings", "quicker", "precision"),
    [
        ({"device": "cpu"}, True, "bf16-mixed"),
        ({"device": "cpu"}, False, "32-true"),
        ({"device": "cpu", "count": 2}, True, "32-true"),
        ({"device": "cuda"}, True, "bf16-mixed"),
        ({"device": "cuda"}, False, "32-true"),
        ({"device": "mps"}, True, "32-true"),
    ],
)
def test_auto_precision_is_half_where_that_is_faster(settings, quicker, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: quicker)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "half_precision_is_faster", lambda: quicker)
    places = Devices(**settings)
    assert places.precision("auto") == precision
    assert places.precision("16-mixed") == "16-mixed"


@pytest.mark.parametrize("quicker", [True, False])
def test_fabric_warns_of_slow_half_precision(quicker, monkeypatch, caplog):
    monkeypatch.setattr(devices, "half_precision_is_faster", lambda: quicker)
    places = Devices(device="cpu")
    places.fabric("32-true")
    assert not caplog.messages
    places.fabric("bf16-mixed")
    assert caplog.messages == ([] if quicker else [devices.SLOW_HALF_PRECISION])


def test_fabric_refuses_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 devices are requested, but cuda is 2; request 2, or"):
        Devices(device="cuda", count=4).fabric("32-true")


def test_fabric_explains_slurm_tasks_counted_otherwise(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ValueError, match="--ntasks=2; use --ntasks-per-node instead"):
        Devices(device="cpu").fabric("32-true")


def test_fabric_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=re.escape(devices.NO_FABRIC)):
        Devices().fabric("32-true")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
    ],
)
def test_is_first_process_reads_the_environment(environment, first, monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
