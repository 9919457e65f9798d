"""Runs of the benchmark: rows that are resumed, tables, plots and panels."""

import math

import numpy as np
import pytest
from PIL import Image

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.progress import finish
from simmat_research import runner
from simmat_research.experiments import (
    RGB_BASE,
    TRAINING_SHARES,
    BenchmarkConfig,
    ResultRow,
    append_row,
    make_runs,
    read_rows,
)
from simmat_research.generated import GeneratedConfig, generate_job
from simmat_research.runner import run_all_job, run_experiment_job, square_around

CONFIG = BenchmarkConfig(steps=1, tuning="lora")
SMALL = BenchmarkConfig(
    modalities=("thermal",), seeds=(0,), steps=1, side=64, images=2, validation=1, test=2
)


@pytest.fixture(scope="module")
def base():
    return load_model(RGB_BASE)


@pytest.fixture(scope="module")
def thermal():
    drawn = GeneratedConfig(
        sensor="thermal", kind="benchmark", side=64, train=3, validation=1, test=2
    )
    return finish(generate_job(drawn))


def test_runner_does_only_what_the_table_lacks(base, thermal, tmp_path, monkeypatch):
    runs = make_runs("transfer", ("thermal",), (0,), CONFIG)
    table, folder = tmp_path / "a" / "transfer.csv", tmp_path / "runs"
    job = run_all_job(runs, {"thermal": thermal}, base, CONFIG, table, folder)
    while len(read_rows(table)) < 3:
        progress = next(job)
        assert 0 <= progress.done <= progress.total
    job.close()
    done = read_rows(table)
    assert [row.run.arm for row in done] == ["zero-shot", "scratch", "baseline A"]

    begun: list[str] = []
    original = runner._run_one_job

    def counted(run, *rest):
        begun.append(run.arm)
        return original(run, *rest)

    monkeypatch.setattr(runner, "_run_one_job", counted)
    rows = finish(run_all_job(runs, {"thermal": thermal}, base, CONFIG, table, folder))
    assert begun == ["baseline B", "SimMAT"]
    assert [row.run for row in rows] == runs
    assert rows[:3] == done or math.isnan(done[0].validation_iou)
    assert read_rows(table)[1:] == rows[1:]

    zero, scratch, baseline_a, baseline_b, simmat = rows
    assert (zero.parameters, zero.images) == (0, 0)
    assert math.isnan(zero.validation_iou)
    total = sum(p.numel() for p in base.network.parameters())
    mat = 1 * 64 * 9 + 64 + 64 * 3 * 9 + 3
    assert scratch.parameters == total + mat
    assert simmat.parameters - mat == baseline_b.parameters - (3 + 3 + 32 * 27 + 32)
    assert baseline_a.parameters - (32 * 9 + 32) == simmat.parameters - mat
    assert all(row.images == 3 for row in rows[1:])
    assert all(0 <= row.test_iou <= row.test_dice <= 100 for row in rows)
    assert runs[1].checkpoint(folder).exists()
    assert runs[4].checkpoint(folder).exists()
    assert not runs[2].checkpoint(folder).exists()
    assert not [path for path in folder.iterdir() if path.name != "checkpoints"]


def test_runner_reuses_trainings_of_other_tables(base, thermal, tmp_path, monkeypatch):
    transfer, lr, strategies = (
        make_runs(name, ("thermal",), (0,), CONFIG) for name in ("transfer", "lr", "strategies")
    )
    tuned = next(run for run in transfer if run.arm == "SimMAT")
    append_row(
        tmp_path / "transfer.csv", ResultRow(tuned, 1, 2, 3.5, 44.25, 55.5, 6.0, "tiny-rgb-1")
    )
    begun = []

    def counted(run, *rest):
        begun.append(run)
        yield from ()
        return ResultRow(run, 9, 9, 9.0, 9.0, 9.0, 9.0, "tiny-rgb-1")

    def rows_of(runs, name, *beside):
        begun.clear()
        paths = [tmp_path / f"{other}.csv" for other in beside]
        table = tmp_path / f"{name}.csv"
        data = {"thermal": thermal}
        finish(run_all_job(runs, data, base, CONFIG, table, tmp_path, "auto", paths))
        return read_rows(table)

    monkeypatch.setattr(runner, "_run_one_job", counted)
    found = rows_of(lr, "lr", "transfer", "none")
    copied = [row for row in found if row.test_iou == 44.25]
    assert [(r.run.strategy, r.run.learning_rate) for r in copied] == [("lora", 1e-3)]
    assert copied[0].run in lr
    assert len(begun) == len(lr) - 1
    # Scratch at 1e-3 and full fine-tuning at 3e-4 were among the learning rates.
    rows_of(strategies, "strategies", "transfer", "lr")
    assert {run.strategy for run in begun} == {
        "frozen",
        "linear",
        "lora_conv",
        "adapter",
        "prompt",
        "prefix",
    }
    # The checkpoints of these are needed for the figure of panels, so both are trained.
    (tmp_path / "transfer.csv").unlink()
    rows_of(transfer, "transfer", "lr", "strategies")
    assert [run.arm for run in begun if run.is_kept] == ["scratch", "SimMAT"]

    # All images are a part of both.
    rows_of(make_runs("size", ("thermal",), (0,), CONFIG), "size", "transfer", "lr")
    assert {run.share for run in begun} == {*TRAINING_SHARES[:-1]}


def test_run_of_a_share_takes_the_first_images(base, thermal, tmp_path):
    runs = [r for r in make_runs("size", ("thermal",), (0,), CONFIG) if r.strategy == "lora"]
    rows = finish(
        run_all_job(runs, {"thermal": thermal}, base, CONFIG, tmp_path / "s.csv", tmp_path / "runs")
    )
    assert [row.images for row in rows] == [1, 1, 1, 2, 3]


def test_read_rows_of_foreign_table_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"is no table of this benchmark.*its columns are a, b"):
        read_rows(path)
    assert read_rows(tmp_path / "none.csv") == []


@pytest.mark.parametrize("left", [20, -20, -14])
def test_read_rows_of_cut_line_is_refused(left, tmp_path):
    run = make_runs("lr", ("hha",), (3,), CONFIG)[0]
    path = tmp_path / "t.csv"
    append_row(path, ResultRow(run, 12, 34, 55.125, 53.88, 60.5, 1.5, "tiny-rgb-1"))
    header, line = path.read_text().splitlines(keepends=True)
    path.write_text(header + line + line[:left])
    with pytest.raises(ValueError, match=r"Line 3 of .*t.csv is damaged; delete it, and its run"):
        read_rows(path)


def test_row_is_read_as_it_was_written(tmp_path):
    run = make_runs("lr", ("hha",), (3,), CONFIG)[0]
    row = ResultRow(run, 12, 34, 55.125, 53.88, 60.5, 1.5, "tiny-rgb-1")
    append_row(tmp_path / "t.csv", row)
    append_row(tmp_path / "t.csv", row)
    assert read_rows(tmp_path / "t.csv") == [row, row]


@pytest.fixture(scope="module")
def written(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark")
    report = finish(run_experiment_job("transfer", "generated", base, SMALL, output))
    assert [path.name for path in report.files] == ["transfer.csv", "transfer.md", "transfer.png"]
    assert "| thermal |" in report.text
    assert (output / "transfer.md").read_text("utf-8") == report.text
    return output


def test_draw_plot_writes_a_picture(written):
    picture = np.asarray(Image.open(written / "transfer.png").convert("RGB"))
    assert min(picture.shape[:2]) > 400
    for color in ((155, 160, 166), (27, 79, 114)):  # zero-shot's and SimMAT's bars are there
        assert (np.abs(picture.astype(int) - color).max(-1) < 3).sum() > 50


def test_panels_use_the_kept_checkpoints(base, written, monkeypatch):
    monkeypatch.setattr(runner, "_run_one_job", None)  # no run may begin
    report = finish(run_experiment_job("panels", "generated", base, SMALL, written))
    assert [path.name for path in report.files] == ["panels.png"]
    assert np.asarray(Image.open(written / "panels.png")).std() > 10


def test_square_around_shows_the_object_in_the_plane():
    truth = np.zeros((90, 120), bool)
    truth[40:50, 60:64] = True  # 10 pixels long: the square has a side of 40
    assert square_around(truth) == (25, 65, 42, 82)
    truth = np.zeros((90, 120), bool)
    truth[88:90, 0:3] = True  # small, and in a corner
    assert square_around(truth) == (60, 90, 0, 30)
    assert square_around(np.ones((90, 120), bool)) == (0, 90, 15, 105)
