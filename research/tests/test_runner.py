"""Runs of the benchmark: rows that are resumed, tables, plots and panels."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.progress import finish
from research.tests.aims_folders import write_layout
from simmat_research import runner
from simmat_research.experiments import (
    RGB_BASE,
    TRAINING_SHARES,
    BenchmarkConfig,
    ResultRow,
    Shard,
    append_row,
    make_runs,
    read_rows,
)
from simmat_research.generated import GeneratedConfig, generate_job
from simmat_research.runner import RunPlan, run_all_job, run_experiment_job, sensors_there

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
    plan = RunPlan(runs, {"thermal": thermal}, base, CONFIG, table, folder)
    job = run_all_job(plan)
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
    rows = finish(run_all_job(plan))
    assert begun == ["baseline B", "SimMAT", "SimMAT, full"]
    assert [row.run for row in rows] == runs
    assert rows[:3] == done or math.isnan(done[0].validation_iou)
    assert read_rows(table)[1:] == rows[1:]

    zero, scratch, baseline_a, baseline_b, simmat, full = rows
    assert (full.run.transfer, full.run.strategy) == ("simmat", "full")
    assert full.run.learning_rate == 3e-4
    assert full.parameters > 5 * simmat.parameters
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
    assert not runs[5].checkpoint(folder).exists()
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

    def counted(run, plan):
        begun.append(run)
        yield from ()
        return ResultRow(run, 9, 9, 9.0, 9.0, 9.0, 9.0, "tiny-rgb-1")

    def rows_of(runs, name):
        begun.clear()
        table = tmp_path / f"{name}.csv"
        finish(run_all_job(RunPlan(runs, {"thermal": thermal}, base, CONFIG, table, tmp_path)))
        return read_rows(table)

    monkeypatch.setattr(runner, "_run_one_job", counted)
    found = rows_of(lr, "lr")
    copied = [row for row in found if row.test_iou == 44.25]
    assert [(r.run.strategy, r.run.learning_rate) for r in copied] == [("lora", 1e-3)]
    assert copied[0].run in lr
    assert len(begun) == len(lr) - 1
    # Scratch at 1e-3 and full fine-tuning at 3e-4 were among the learning rates.
    rows_of(strategies, "strategies")
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
    rows_of(transfer, "transfer")
    assert [run.arm for run in begun if run.is_kept] == ["scratch", "SimMAT"]

    # All images are a part of both.
    rows_of(make_runs("size", ("thermal",), (0,), CONFIG), "size")
    assert {run.share for run in begun} == {*TRAINING_SHARES[:-1]}


def test_run_of_a_share_takes_the_first_images(base, thermal, tmp_path):
    runs = [r for r in make_runs("size", ("thermal",), (0,), CONFIG) if r.strategy == "lora"]
    table, folder = tmp_path / "s.csv", tmp_path / "runs"
    rows = finish(run_all_job(RunPlan(runs, {"thermal": thermal}, base, CONFIG, table, folder)))
    assert [row.images for row in rows] == [1, 1, 1, 2, 3]


def test_shards_divide_the_runs_and_their_tables_merge(base, thermal, tmp_path, monkeypatch):
    begun = []

    def counted(run, plan):
        begun.append((run.arm, plan.shard))
        yield from ()
        return ResultRow(run, 9, 9, 9.0, float(len(begun)), 9.0, 9.0, "tiny-rgb-1")

    monkeypatch.setattr(runner, "_run_one_job", counted)
    runs = make_runs("transfer", ("thermal",), (0, 1), CONFIG)
    table, said = tmp_path / "transfer.csv", []

    def done(shard):
        data = {"thermal": thermal}
        plan = RunPlan(runs, data, base, CONFIG, table, tmp_path / "runs", shard=shard)
        return finish(run_all_job(plan, said.append))

    assert [row.run for row in done(Shard(2, 3))] == runs[1::3]
    assert not table.exists()
    assert [row.run for row in read_rows(tmp_path / "transfer.2of3.csv")] == runs[1::3]
    assert len(done(Shard(1, 3))) == 8
    assert begun == [(run.arm, Shard(2, 3)) for run in runs[1::3]] + [
        (run.arm, Shard(1, 3)) for run in runs[::3]
    ]
    assert [row.run for row in done(None)] == runs  # the rest is done by one process
    assert begun[8:] == [(run.arm, None) for run in runs[2::3]]
    assert {row.run.key for row in read_rows(table)} == {run.key for run in runs}
    before = table.read_text()
    assert [row.run for row in done(None)] == runs  # nothing is left, nothing stands twice
    assert table.read_text() == before
    assert len(begun) == 12
    assert [sentence.partition(" with")[0] for sentence in said] == ["4 runs", "4 runs", "4 runs"]


def test_run_experiment_as_a_shard_writes_its_table_only(base, tmp_path, monkeypatch):
    def counted(run, plan):
        yield from ()
        return ResultRow(run, 9, 9, 9.0, 9.0, 9.0, 9.0, "tiny-rgb-1")

    monkeypatch.setattr(runner, "_run_one_job", counted)
    job = run_experiment_job("size", "generated", base, SMALL, tmp_path, shard=Shard(1, 4))
    report = finish(job)
    assert [path.name for path in report.files] == ["size.1of4.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["size.1of4.csv"]
    assert report.text.startswith("Part 1 of 4 is done; of all 10 runs 3 are. Once all are, the")
    with pytest.raises(ValueError, match=r"one process; leave --shard out"):
        finish(run_experiment_job("panels", "generated", base, SMALL, tmp_path, shard=Shard(1, 4)))


def test_table_of_another_foundation_is_refused(base, thermal, tmp_path):
    runs = make_runs("lr", ("thermal",), (0,), CONFIG)
    append_row(tmp_path / "lr.csv", ResultRow(runs[0], 9, 9, 9.0, 9.0, 9.0, 9.0, "vit_b"))
    for table in ("lr.csv", "size.csv"):
        plan = RunPlan(runs, {"thermal": thermal}, base, CONFIG, tmp_path / table, tmp_path)
        with pytest.raises(ValueError, match=r"lr\.csv holds runs on vit_b, not tiny-rgb-1;"):
            finish(run_all_job(plan))


def test_pseudo_full_keeps_the_other_table(base, tmp_path):
    """Figure 4b for both ways of tuning, in one folder; zero-shot is not measured again."""
    small = replace(SMALL, modalities=("rgb+thermal",))
    finish(run_experiment_job("pseudo", "generated", base, small, tmp_path))
    before = (tmp_path / "pseudo.csv").read_text(), (tmp_path / "pseudo.md").read_text("utf-8")
    full = replace(small, tuning="full")
    report = finish(run_experiment_job("pseudo", "generated", base, full, tmp_path))
    assert [path.suffix for path in report.files] == [".csv", ".md", ".png"]
    assert {path.stem for path in report.files} == {"pseudo-full"}
    assert report.text.startswith("| modality | zero-shot | baseline A, full | SimMAT, full |")
    after = (tmp_path / "pseudo.csv").read_text(), (tmp_path / "pseudo.md").read_text("utf-8")
    assert after == before
    first, second = read_rows(tmp_path / "pseudo.csv"), read_rows(tmp_path / "pseudo-full.csv")
    assert first[0].seconds == second[0].seconds


def test_aims_in_part_runs_the_sensors_that_are_there(base, tmp_path):
    said = []
    for name in ("IVRG_RGBNIR", "RGB-Thermal-Glass"):
        write_layout(name, tmp_path)
    data = str(tmp_path)
    assert sensors_there("transfer", data, BenchmarkConfig(), said.append) == ("nir", "t")
    assert said == [
        f"{data} holds nir, t; left out, as their folders are not there: pgsnet_p (pgsnet), "
        "zju-rgbp (zju-rgbp), d (NYUDepthv2), hha (NYUDepthv2)."
    ]
    named = BenchmarkConfig(modalities=("d",))
    assert sensors_there("transfer", data, named, said.append) == ("d",)  # its absence is an error
    with pytest.raises(ValueError) as caught:  # noqa: PT011, its words are compared
        sensors_there("lr", data, BenchmarkConfig(), said.append)
    assert str(caught.value) == (
        f"{data} has no folder pgsnet, which lr reads; of the benchmark's sensors it has nir, "
        "rgbnir, t, rgbt, t_500, rgbt_500. Download it, or name others with --modalities."
    )
    with pytest.raises(FileNotFoundError, match="no folder"):
        sensors_there("transfer", f"{data}/none", BenchmarkConfig(), said.append)


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
