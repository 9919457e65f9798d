"""Runs over several images: what is written, what a kill leaves, who may write."""

import csv
import errno
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from filelock import FileLock
from skimage.data import coins

from napari_simmat.batch import tasks
from napari_simmat.batch.folder_lock import LOCK, WAITING, WORK
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.outputs import recover_partial, write_result
from napari_simmat.batch.plan import Plan, SegmentConfig, plan
from napari_simmat.batch.run_plan import REMOVED, check_plan_job, run_plan_job
from napari_simmat.batch.segment_image import TaskOutcome, segment_loaded_job
from napari_simmat.batch.summary import (
    ALL_OBJECTS,
    SUMMARY_PAGE,
    SUMMARY_TABLE,
    summary_rows,
    write_summary,
)
from napari_simmat.batch.tasks import NOT_STARTED, BatchProgress
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.settings import AutomaticSettings, Compute, PropagationSettings
from napari_simmat.io.files import DISK_FULL, DiskFullError
from napari_simmat.progress import Progress, finish
from tests.batch.folders import contents

CONFIG = SegmentConfig(model="tiny", compute=Compute(device="cpu"))
EXTRAS = ("overlay", "coco", "rois")
CLICK = "index,axis-0,axis-1,label,object\n0,20,20,1,1\n1,50,60,1,2\n"


@pytest.fixture
def data(tmp_path):
    """Three photographs, one in a subfolder, and one file that is no image."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.tif", "b.tif", "sub/a.tif")):
        top = 30 * number
        tifffile.imwrite(folder / name, coins()[top : top + 90, 20:150])
    (folder / "c.tif").write_text("this is no image")
    (tmp_path / "clicks.csv").write_text(CLICK)
    return folder


def planned(data: Path, output: Path, existing: str = "refuse") -> Plan:
    prompts = str(data.parent / "clicks.csv")
    return plan(
        find_inputs([data]), output=output, prompts=prompts, existing=existing, extras=EXTRAS
    )


def run(data: Path, output: Path, existing: str = "refuse") -> list[TaskOutcome]:
    return finish(run_plan_job(planned(data, output, existing), CONFIG))


def test_run_plan_folder_is_segmented_and_summarized(data, tmp_path):
    outcomes = run(data, tmp_path / "out")
    assert [one.status for one in outcomes] == ["written", "written", "failed", "written"]
    assert "Cannot read c.tif: unsupported file type" in outcomes[2].note
    out = tmp_path / "out"
    assert (out / "sub" / "a_labels.tif").is_file()
    assert not (out / LOCK).exists()
    with (out / SUMMARY_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["state"], row["labels"]) for row in rows] == [
        ("a.tif", "done", "a_labels.tif"),
        ("b.tif", "done", "b_labels.tif"),
        ("c.tif", "failed", ""),
        ("sub/a.tif", "done", "sub/a_labels.tif"),
    ]
    with (out / ALL_OBJECTS).open(newline="") as file:
        objects = list(csv.DictReader(file))
    with (out / "sub" / "a_objects.csv").open(newline="") as file:
        last = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["image"] for row in objects)) == ["a.tif", "b.tif", "sub/a.tif"]
    assert objects[-len(last) :] == [{"image": "sub/a.tif", **row} for row in last]
    page = (out / SUMMARY_PAGE).read_text("utf-8")
    assert "3 of 4 images segmented" in page
    assert page.count('<img alt="" src="data:image/png;base64,') == 3


def test_run_tasks_drops_embeddings_of_each_image(data, tmp_path, monkeypatch):
    put, kept = EmbeddingCache.put, []

    def counted(cache, *given, **how):
        put(cache, *given, **how)
        kept.append(len(cache))

    monkeypatch.setattr(EmbeddingCache, "put", counted)
    run(data, tmp_path / "out")
    assert kept == [1, 1, 1]


def test_summary_is_independent_of_the_folder(data, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "a_labels.tif").mkdir(parents=True)
        made = plan(find_inputs([data]), output=tmp_path / name, prompts="auto")
        write_summary(made, [], CONFIG)
    table = (tmp_path / "one" / SUMMARY_TABLE).read_text()
    assert "a_labels.tif is a folder, but a file of that name is to be written" in table
    assert table == (tmp_path / "other" / SUMMARY_TABLE).read_text()


@pytest.mark.parametrize(("images", "output"), [("cells-out", "out"), ("../cells", ".")])
def test_summary_keeps_names_of_other_folders(tmp_path, monkeypatch, images, output):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (Path(images) / "sub").mkdir(parents=True)
    for name in ("a.tif", "a.csv", "sub/b.tif"):
        (Path(images) / name).write_text("")
    made = plan(find_inputs([Path(images)]), output=Path(output))
    why = f"There are no prompts beside {Path(images, 'sub', 'b.tif')};"
    assert made.skipped[0].why.startswith(why)
    assert summary_rows(made, [])[0].message.startswith(why)


def test_summary_page_escapes_texts(data, tmp_path):
    (data / "c.tif").rename(data / "<img src=x onerror=alert(1)>.tif")
    run(data, tmp_path / "out")
    page = (tmp_path / "out" / SUMMARY_PAGE).read_text("utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.tif" in page


def test_run_progress_names_file_state_and_time_left(data, tmp_path):
    told: list[Any] = []
    finish(run_plan_job(planned(data, tmp_path / "out"), CONFIG), told.append)
    ended = [one for one in told if getattr(one, "outcome", None) is not None]
    assert sorted(one.number for one in ended) == [0, 1, 2, 3]
    assert [one.done for one in ended] == [1, 2, 3, 4]
    assert {one.total for one in ended} == {4}
    assert ended[-1].message == "3/4 (1 failed) sub/a.tif: written"
    assert ended[0].message.endswith(" left")
    states = [one.state for one in told if getattr(one, "number", None) == 0]
    assert list(dict.fromkeys(states)) in (
        ["reading", "segmenting", "writing", "written"],
        ["segmenting", "writing", "written"],
    )


def test_run_progress_tells_a_written_file_during_the_next(data, tmp_path, monkeypatch):
    """It once stayed *writing* until the next image was segmented."""
    told: list[Any] = []

    def slow(loaded, *more, **options):
        for _ in range(2000):
            if loaded.task.name == "b.tif" and not any(one.state == "written" for one in told):
                time.sleep(0.005)  # as long as the network computes
                yield Progress(0, 1, "encoding")
        return (yield from segment_loaded_job(loaded, *more, **options))

    monkeypatch.setattr(tasks, "segment_loaded_job", slow)
    job = run_plan_job(planned(data, tmp_path / "out"), CONFIG)
    finish(job, lambda step: told.append(step) if isinstance(step, BatchProgress) else None)
    states = [(one.number, one.state) for one in told]
    assert states.index((0, "written")) < states.index((1, "writing"))


def test_run_progress_does_not_count_failures_as_done(data, tmp_path):
    (data / "a.tif").write_text("nor is this")
    told: list[Any] = []
    finish(run_plan_job(planned(data, tmp_path / "out"), CONFIG), told.append)
    ended = [one for one in told if getattr(one, "outcome", None) is not None]
    assert ended[0].message.startswith("0/4 (1 failed) a.tif: failed")
    assert ended[-1].message == "2/4 (2 failed) sub/a.tif: written"
    assert ended[-1].fraction == 1


@pytest.mark.parametrize("prompts", ["auto", "clicks.csv", "propagate"])
def test_run_progress_counts_work_within_a_file(tmp_path, prompts):
    """A stack, the slow file, and one that cannot be read."""
    data = tmp_path / "data"
    data.mkdir()
    planes = np.stack([coins()[top : top + 64, 20:84] for top in (0, 2, 4)])
    tifffile.imwrite(data / "a.tif", planes, photometric="minisblack", metadata={"axes": "ZYX"})
    (data / "b.tif").write_text("this is no image")
    rows = "index,axis-0,axis-1,axis-2,label,object\n0,0,20,20,1,1\n1,2,40,40,1,2\n"
    (tmp_path / "clicks.csv").write_text(rows)
    config = replace(CONFIG, automatic=AutomaticSettings(points_per_side=4))
    if prompts == "propagate":
        config = replace(config, propagation=PropagationSettings())
    words = "auto" if prompts == "auto" else str(tmp_path / "clicks.csv")

    def shares(existing):
        """Of the whole run: all, and those before the first file was done."""
        made = plan(find_inputs([data]), output=tmp_path / "out", prompts=words, existing=existing)
        told: list[Progress] = []
        finish(run_plan_job(made, config), told.append)
        first = [one.fraction for one in told if getattr(one, "state", "") == "segmenting"]
        return [one.fraction for one in told], first

    every, first = shares("refuse")
    assert every == sorted(every)
    assert every[-1] == 1
    third = 0.5 / 3  # a plane of one of two files
    assert all(any(low < share < low + third for share in first) for low in (0, third, 2 * third))
    assert max(first) < 0.5
    every, first = shares("resume")
    assert (every, every[-1]) == (sorted(every), 1)
    assert not first


def test_run_canceled_leaves_whole_files_and_resumes(data, tmp_path):
    run(data, tmp_path / "whole")
    out = tmp_path / "out"
    job = run_plan_job(planned(data, out), CONFIG)
    for progress in job:
        if getattr(progress, "state", "") == "written":
            break
    job.close()
    left = contents(out)
    assert "a.json" in left
    assert SUMMARY_TABLE not in left
    assert all(data == contents(tmp_path / "whole")[name] for name, data in left.items())
    outcomes = run(data, out, "resume")
    assert outcomes[0].status == "kept"
    assert outcomes[0].objects == 2
    assert contents(out) == contents(tmp_path / "whole")


def test_run_canceled_still_writes_waiting_results(data, tmp_path, monkeypatch):
    (data / "c.tif").unlink()
    going_on = threading.Event()

    def slow(segmented):
        assert going_on.wait(60)
        return write_result(segmented)

    monkeypatch.setattr("napari_simmat.batch.tasks.write_result", slow)
    out = tmp_path / "out"
    job = run_plan_job(planned(data, out), CONFIG)
    for progress in job:
        if getattr(progress, "number", 0) == 2 and progress.state == "writing":
            break
    next(job)
    threading.Timer(0.3, going_on.set).start()
    job.close()
    names = sorted(path.name[0] for path in out.rglob("*_labels.tif"))
    assert names == ["a", "a", "b"]


def test_run_resumed_with_other_settings_is_refused(data, tmp_path):
    out = tmp_path / "out"
    run(data, out)
    before = contents(out)
    (tmp_path / "clicks.csv").write_text(CLICK.replace("50,60", "51,60"))
    outcomes = run(data, out, "resume")
    assert [one.status for one in outcomes] == ["failed"] * 4
    assert "was made differently; what differs: the prompts" in outcomes[0].note
    after = contents(out)
    made = SUMMARY_TABLE, ALL_OBJECTS
    assert all(after[name] == data for name, data in before.items() if name not in made)


def test_run_full_disk_stops_and_resumes(data, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_simmat.batch.outputs.write_table", full)
        patch.setattr("napari_simmat.batch.run_plan.write_summary", lambda *_: None)
        outcomes = run(data, out)
    assert [one.status for one in outcomes] == ["failed"] * 4
    assert DISK_FULL.format("a.json", out) in outcomes[0].note
    assert NOT_STARTED in outcomes[3].note
    assert contents(out) == {}
    run(data, out, "resume")
    run(data, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_run_full_disk_while_segmenting_stops(data, tmp_path, monkeypatch):
    def full(*_):
        raise DiskFullError("The disk is full.")

    monkeypatch.setattr("napari_simmat.batch.segment_image._segment_prompts_job", full)
    notes = [one.note for one in run(data, tmp_path / "out")]
    assert notes[0] == "a.tif: The disk is full."
    assert all(NOT_STARTED in note for note in notes[1:])


def test_run_in_a_locked_folder_waits(data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    job = run_plan_job(planned(data, out), CONFIG)
    with FileLock(out / LOCK):
        assert next(job).message == WAITING
    assert finish(job)[0].status == "written"


def test_run_after_one_that_was_killed_removes_what_it_left(data, tmp_path):
    out = tmp_path / "out"
    (out / WORK / "images").mkdir(parents=True)
    (out / LOCK).touch()
    (out / WORK / "0.run").write_text('{"images": {"a.json": ""}}')
    (out / ".simmat-objects.csv.0123abcd.part").touch()
    assert run(data, out)[0].status == "written"
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_run_without_results_removes_its_folder(data, tmp_path):
    made = plan(find_inputs([data]), output=tmp_path / "x" / "y", prompts="auto")
    with pytest.raises(ValueError, match="There is no model called 'tyni'"):
        finish(run_plan_job(made, SegmentConfig(model="tyni")))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("moment", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_run_killed_between_renames_is_finished(data, tmp_path, monkeypatch, moment):
    """The record is renamed first, so that what is left can be told from what was there."""
    run(data, tmp_path / "whole")
    out = tmp_path / "out"
    script = f"""
import os
from napari_simmat.batch.plan import SegmentConfig, plan
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import Progress, finish
from pathlib import Path
replace, calls = os.replace, []
def killed(source, target):
    if {WORK!r} in str(target):  # what runs know of each other
        return replace(source, target)
    if len(calls) == {moment}:
        os._exit(9)
    calls.append(target)
    replace(source, target)
os.replace = killed
made = plan(find_inputs([Path({str(data)!r})]), output=Path({str(out)!r}),
            prompts={str(tmp_path / "clicks.csv")!r}, extras={EXTRAS!r})
finish(run_plan_job(made, SegmentConfig(model="tiny", compute=Compute(device="cpu"))))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert list(out.rglob("*.part")), "something was left"
    outcomes = run(data, out, "resume")
    assert outcomes[0].status == "kept"
    assert contents(out) == contents(tmp_path / "whole")


def test_recover_partial_removes_what_was_never_renamed(data, tmp_path):
    made = plan([data / "a.tif"], output=tmp_path / "out", prompts="auto")
    [task] = made.tasks
    (tmp_path / "out").mkdir()
    part = tmp_path / "out" / ".a_labels.tif.0123abcd.part"
    foreign = tmp_path / "out" / ".a_labels.tif.something.part"
    for path in (part, foreign):
        path.write_bytes(b"half")
    recover_partial(task.files, finish=True)
    assert not part.exists()
    assert foreign.exists()
    assert os.listdir(tmp_path / "out") == [foreign.name]


def test_run_whose_folder_is_removed_meanwhile_fails(data, tmp_path):
    job = run_plan_job(planned(data, tmp_path / "out"), CONFIG)
    outcomes, removed = [], False
    try:
        while True:
            step = next(job)
            outcome = getattr(step, "outcome", None)
            if outcome is not None and outcome.status == "written" and not removed:
                (tmp_path / "out").rename(tmp_path / "elsewhere")
                removed = True
    except StopIteration as stop:
        outcomes = stop.value
    lost = [each for each in outcomes if each.status == "failed" and "c.tif" not in each.note]
    assert lost
    gone = lost[0].task.files.labels
    assert lost[0].note.endswith(REMOVED.format(gone))
    assert all(each.task.files.labels.exists() for each in outcomes if each.status == "written")


def test_summary_draws_a_series_over_time(tmp_path):
    frames = np.stack(
        [coins()[:90, 20:150], np.zeros((90, 130), np.uint8), coins()[90:180, 20:150]]
    )
    about = {"axes": "TYX"}
    series = tmp_path / "series.ome.tif"
    tifffile.imwrite(series, frames, ome=True, metadata=about, photometric="minisblack")
    made = plan([series], output=tmp_path / "out", prompts="auto", report=True)
    finish(run_plan_job(made, CONFIG))
    with (tmp_path / "out" / ALL_OBJECTS).open(newline="") as file:
        found = [row["t"] for row in csv.DictReader(file)]
    first, last = found.count("0"), found.count("2")
    assert min(first, last) > 0
    page = (tmp_path / "out" / SUMMARY_PAGE).read_text("utf-8")
    assert f"objects, 0 to {max(first, last)}<" in page
    assert ' aria-label="mean_channel0 over time"' in page
    assert page.index("Over time") < page.index("Sizes")


def test_summary_of_images_without_time_has_no_plots(data, tmp_path):
    run(data, tmp_path / "out")
    assert "Over time" not in (tmp_path / "out" / SUMMARY_PAGE).read_text("utf-8")


def test_summary_of_one_image_is_written_if_asked(data, tmp_path):
    for report in (False, True):
        out = tmp_path / f"out{report}"
        finish(
            run_plan_job(plan([data / "a.tif"], output=out, prompts="auto", report=report), CONFIG)
        )
        assert (out / SUMMARY_PAGE).exists() == report


def other_settings(folder: Path, out: Path, existing: str, **changes: Any) -> list[TaskOutcome]:
    made = plan(find_inputs([folder]), output=out, prompts="auto", existing=existing)
    return finish(run_plan_job(made, replace(CONFIG, **changes)))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def two(tmp_path):
    """A folder of two images, segmented into ``out``."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name, top in (("a.tif", 0), ("b.tif", 30)):
        tifffile.imwrite(folder / name, coins()[top : top + 90, 20:150])
    other_settings(folder, tmp_path / "out", "refuse")
    return folder


@pytest.mark.parametrize("existing", ["resume", "overwrite", "refuse"])
def test_summary_stays_where_no_image_was_segmented(two, tmp_path, existing):
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    if existing != "resume":  # resuming refuses other settings
        for path in two.iterdir():
            path.write_text("this is no image")
        if existing == "refuse":
            for path in list(two.iterdir()):
                path.rename(two / f"other_{path.name}")
    changed = AutomaticSettings(object_side=20)
    outcomes = other_settings(two, out, existing, automatic=changed)
    assert [one.status for one in outcomes] == ["failed"] * 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_summary_keeps_the_objects_of_refused_images(two, tmp_path):
    out = tmp_path / "out"
    before = rows_of(out / ALL_OBJECTS)
    tifffile.imwrite(two / "c.tif", coins()[60:150, 20:150])
    changed = AutomaticSettings(quality=0.4)
    outcomes = other_settings(two, out, "resume", automatic=changed)
    assert [one.status for one in outcomes] == ["failed", "failed", "written"]
    after = rows_of(out / ALL_OBJECTS)
    assert [row for row in after if row["image"] != "c.tif"] == before
    assert any(row["image"] == "c.tif" for row in after)
    rows = rows_of(out / SUMMARY_TABLE)
    counts = [sum(row["image"] == name for row in before) for name in ("a.tif", "b.tif")]
    assert [row["state"] for row in rows] == ["failed", "failed", "done"]
    assert [int(row["objects"]) for row in rows[:2]] == counts
    assert [row["labels"] for row in rows[:2]] == ["a_labels.tif", "b_labels.tif"]
    assert all("was made differently" in row["message"] for row in rows[:2])
    page = (out / SUMMARY_PAGE).read_text("utf-8")
    assert page.count('<img alt="" src="data:image/png;base64,') == 3


def test_summary_keeps_images_of_an_earlier_run(two, tmp_path):
    out, more = tmp_path / "out", tmp_path / "more"
    before = rows_of(out / ALL_OBJECTS)
    more.mkdir()
    for name, top in (("x.tif", 60), ("y.tif", 90)):
        tifffile.imwrite(more / name, coins()[top : top + 90, 20:150])
    other_settings(more, out, "refuse")
    after = rows_of(out / ALL_OBJECTS)
    assert {row["image"] for row in after} == {"a.tif", "b.tif", "x.tif", "y.tif"}
    assert [row for row in after if row["image"] in ("a.tif", "b.tif")] == before
    assert [row["image"] for row in rows_of(out / SUMMARY_TABLE)] == [
        "x.tif", "y.tif", "a.tif", "b.tif",
    ]  # fmt: skip
    page = (out / SUMMARY_PAGE).read_text("utf-8")
    assert page.count('<img alt="" src="data:image/png;base64,') == 4
    for name in ("a_labels.tif", "a_objects.csv", "a.json"):  # removed by the user
        (out / name).unlink()
    other_settings(more, out, "resume")
    assert {row["image"] for row in rows_of(out / ALL_OBJECTS)} == {"b.tif", "x.tif", "y.tif"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"automatic": AutomaticSettings(object_side=20)}, "automatic.object_side (0.0 then, 20"),
        ({"compute": Compute(device="cpu", quality="best")}, "quality (fast then, best now)"),
        ({"model": "thermal"}, "the model (tiny-"),
    ],
)
def test_resume_says_which_setting_differs(two, tmp_path, changes, words):
    [first, _] = other_settings(two, tmp_path / "out", "resume", **changes)
    assert words in first.note


def test_dry_run_says_what_resuming_refuses(two, tmp_path):
    out = tmp_path / "out"

    def problems(**changes: Any) -> dict[str, str]:
        made = plan(find_inputs([two]), output=out, prompts="auto", existing="resume")
        return finish(check_plan_job(made, replace(CONFIG, **changes)))

    assert problems() == {}
    told = problems(automatic=AutomaticSettings(object_side=20))
    assert len(told) == 2
    assert all("automatic.object_side (0.0 then, 20" in each for each in told.values())
    assert "the model (tiny-" in problems(model="thermal")[str(two / "a.tif")]
    (out / "a.json").unlink()
    assert "without a record" in problems()[str(two / "a.tif")]
