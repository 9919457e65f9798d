"""Several runs at once in one output folder."""

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tifffile
from skimage.data import coins

from napari_simmat.batch import tasks
from napari_simmat.batch.folder_lock import LOCK, WORK
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.outputs import write_result
from napari_simmat.batch.plan import Plan, SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.batch.sharing import (
    EXCLUSIVE,
    OTHER_SETTINGS,
    OTHER_VERSION,
    Claim,
    join_job,
)
from napari_simmat.batch.summary import ALL_OBJECTS, SUMMARY_TABLE
from napari_simmat.engine.settings import Compute, Shard
from napari_simmat.io.files import OutputError
from napari_simmat.progress import finish
from tests.batch.folders import contents

CONFIG = SegmentConfig(model="tiny", compute=Compute(device="cpu"))
CLICK = "index,axis-0,axis-1,label,object\n0,20,20,1,1\n1,50,60,1,2\n"
NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Jobs that take steps in turn wait for each other's."""
    monkeypatch.setattr(tasks, "POLL", 0.001)


@pytest.fixture
def data(tmp_path):
    """Six photographs, and one file that is no image."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        tifffile.imwrite(folder / f"{name}.tif", coins()[25 * number :][:60, 20:100])
    (folder / "ca.tif").write_text("this is no image")
    (tmp_path / "clicks.csv").write_text(CLICK)
    return folder


def planned(data: Path, output: Path, existing: str = "refuse", **options) -> Plan:
    prompts = str(data.parent / "clicks.csv")
    pattern = options.pop("pattern", "")
    inputs = find_inputs([data], pattern=pattern)
    return plan(inputs, output=output, prompts=prompts, existing=existing, **options)


def run(made: Plan) -> list[TaskOutcome]:
    return finish(run_plan_job(made, CONFIG))


def together(*jobs):
    """The results of jobs that take steps in turn."""
    results, going = {}, dict(enumerate(jobs))
    while going:
        for number, job in list(going.items()):
            try:
                next(job)
            except StopIteration as end:
                results[number] = end.value
                del going[number]
    return [results[number] for number in range(len(jobs))]


def begun(job):
    """The job, which has begun to work on its images."""
    while getattr(next(job), "state", "") != "segmenting":
        pass
    return job


@pytest.fixture
def written(monkeypatch):
    """The images that are written, as that happens."""
    names = []

    def counted(segmented):
        names.append(segmented.loaded.task.name)
        return write_result(segmented)

    monkeypatch.setattr(tasks, "write_result", counted)
    return names


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def test_runs_at_once_do_each_image_once_to_equal_bytes(data, tmp_path, written):
    run(planned(data, tmp_path / "one"))
    written.clear()
    out = tmp_path / "out"
    made = planned(data, out)
    results = together(*(run_plan_job(made, CONFIG) for _ in range(3)))
    assert sorted(written) == [f"{name}.tif" for name in NAMES]
    for outcomes in results:
        assert [one.status == "failed" for one in outcomes] == [False] * 3 + [True] + [False] * 3
        assert outcomes[3].note.startswith("Cannot read ca.tif: unsupported file type")
    states = [[one.status for one in outcomes] for outcomes in results]
    assert sum(each.count("written") for each in states) == len(NAMES)
    assert min(each.count("written") for each in states) > 0
    assert contents(out) == contents(tmp_path / "one")
    assert left_in(out) == []


def test_run_begun_later_shares_what_is_there(data, tmp_path, written):
    first = run_plan_job(planned(data, tmp_path / "out"), CONFIG)
    while not (tmp_path / "out" / "a.json").exists():
        next(first)
    second = run_plan_job(planned(data, tmp_path / "out"), CONFIG)  # not refused
    together(first, second)
    assert len(written) == len(NAMES)
    with pytest.raises(ValueError, match=r"a_labels\.tif exists already"):
        planned(data, tmp_path / "out")


def test_run_takes_over_from_one_that_was_canceled(data, tmp_path, written):
    first = begun(run_plan_job(planned(data, tmp_path / "out"), CONFIG))
    second = begun(run_plan_job(planned(data, tmp_path / "out"), CONFIG))
    first.close()
    together(second)
    assert sorted(written) == [f"{name}.tif" for name in NAMES]
    assert left_in(tmp_path / "out") == []


def test_image_begun_by_a_killed_run_is_gone_on_with(data, tmp_path):
    made = planned(data, tmp_path / "out")
    killed, other = (finish(join_job(made, CONFIG)) for _ in range(2))
    task = made.tasks[0]
    begun_there = killed.take(task)
    assert isinstance(begun_there, Claim)
    assert not begun_there.resume
    task.files.record.write_text("{}")
    begun_there.give_back()  # as the system does with the locks of the dead
    taken = other.take(task)
    assert isinstance(taken, Claim)
    assert taken.resume, "what is complete there is kept, the rest made anew, and nothing refused"
    taken.give_back()
    killed.leave()
    other.leave()


def test_run_with_other_settings_for_an_image_is_refused(data, tmp_path):
    out = tmp_path / "out"
    first = begun(run_plan_job(planned(data, out), CONFIG))
    other = run_plan_job(planned(data, out), replace(CONFIG, model="thermal"))
    with pytest.raises(OutputError) as error:
        together(other)
    assert str(error.value) == OTHER_SETTINGS.format(folder=out, name="a")
    overwriting = run_plan_job(planned(data, out, "overwrite"), CONFIG)
    with pytest.raises(OutputError, match="makes a with other settings"):
        together(overwriting)
    with pytest.raises(OutputError) as error:
        finish(join_job(planned(data, out), CONFIG, alone=True))
    assert str(error.value) == EXCLUSIVE.format(folder=out)
    together(first)
    assert left_in(out) == []


def test_run_beside_one_of_another_version_is_refused(data, tmp_path):
    out = tmp_path / "out"
    first = begun(run_plan_job(planned(data, out), CONFIG))
    [file] = (out / WORK).glob("*.run")
    file.write_text(json.dumps({"pictures": []}))
    with pytest.raises(OutputError) as error:
        run(planned(data, out))
    assert str(error.value) == OTHER_VERSION.format(folder=out)
    first.close()


def test_runs_of_other_images_share_folder_and_summary(data, tmp_path):
    out = tmp_path / "out"
    first = begun(run_plan_job(planned(data, out, pattern="[ef].tif"), CONFIG))
    second = run_plan_job(planned(data, out, pattern="[ab].tif"), replace(CONFIG, model="thermal"))
    together(first, second)
    with (out / SUMMARY_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["state"]) for row in rows] == [
        (f"{name}.tif", "done") for name in ("a", "b", "e", "f")
    ]
    with (out / ALL_OBJECTS).open(newline="") as file:
        images = dict.fromkeys(row["image"] for row in csv.DictReader(file))
    assert list(images) == [f"{name}.tif" for name in ("a", "b", "e", "f")]


def test_overwriting_runs_at_once_replace_each_image_once(data, tmp_path, written):
    out = tmp_path / "out"
    run(planned(data, out))
    written.clear()
    made = planned(data, out, "overwrite")
    together(run_plan_job(made, CONFIG), run_plan_job(made, CONFIG))
    assert sorted(written) == [f"{name}.tif" for name in NAMES]


def test_overwriting_does_not_trust_a_run_that_has_ended(data, tmp_path, written):
    """Another run, of other images, has kept alive what is known of all."""
    out = tmp_path / "out"
    other = begun(run_plan_job(planned(data, out, "overwrite", pattern="[ef].tif"), CONFIG))
    for _ in range(2):
        run(planned(data, out, "overwrite", pattern="[ab].tif"))
    assert [name for name in written if name in ("a.tif", "b.tif")] == ["a.tif", "b.tif"] * 2
    together(other)


def test_shards_of_other_divisions_share_their_images(data, tmp_path, written):
    out = tmp_path / "out"
    halves = [planned(data, out, shard=Shard(number, 2)) for number in (1, 2)]
    third = planned(data, out, shard=Shard(1, 3))
    together(*(run_plan_job(each, CONFIG) for each in (*halves, third)))
    assert sorted(written) == [f"{name}.tif" for name in NAMES]
    with (out / "simmat-summary-1-of-2.csv").open(newline="") as file:
        rows = [row["image"] for row in csv.DictReader(file)]
    assert rows == ["a.tif", "c.tif", "d.tif", "f.tif"]


def test_last_images_are_not_read_ahead_beside_other_runs(data, tmp_path):
    """A run that reads ahead what it will do last leaves others without work."""
    out = tmp_path / "out"
    made = planned(data, out, pattern="[ab].tif")
    first = finish(join_job(made, CONFIG))
    second = begun(run_plan_job(made, CONFIG))
    claim = first.take(made.tasks[1])
    assert not isinstance(claim, TaskOutcome | None)
    claim.give_back()
    together(second)
    first.leave()


def test_damaged_note_of_an_image_is_not_believed(data, tmp_path):
    made = planned(data, tmp_path / "out")
    share = finish(join_job(made, CONFIG))
    share.note(TaskOutcome(made.tasks[0], "written", objects=7))
    [note] = (tmp_path / "out" / WORK / "images").glob("*.json")
    assert share.take(made.tasks[0]).objects == 7
    note.write_text('{"image": "a.tif", "objects": "many"}')
    claim = share.take(made.tasks[0])
    assert claim.resume is False
    claim.give_back()
    share.leave()
    assert not (tmp_path / "out").exists()


SCRIPT = """
import sys
from pathlib import Path
from tests.batch.test_sharing import CONFIG, planned, run
outcomes = run(planned(Path(sys.argv[1]), Path(sys.argv[2])))
print(*(one.status for one in outcomes))
"""


@pytest.mark.slow
def test_two_processes_do_each_image_once(data, tmp_path, written):
    run(planned(data, tmp_path / "one"))
    written.clear()
    out = tmp_path / "out"
    job = begun(run_plan_job(planned(data, out), CONFIG))
    words = [sys.executable, "-c", SCRIPT, str(data), str(out)]
    path = os.pathsep.join(("src", ".", *sys.path))
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as other:
        while len(list((out / WORK).glob("*.run"))) < 2:
            assert other.poll() is None
            time.sleep(0.05)
        [mine] = together(job)
        told = other.communicate()[0].split()
    for index, outcome in enumerate(mine):
        assert (outcome.status, told[index]) in (
            [("failed", "failed")] if index == 3 else [("written", "kept"), ("kept", "written")]
        )
    assert told.count("kept") == len(written)
    assert contents(out) == contents(tmp_path / "one")
    assert not (out / LOCK).exists()
