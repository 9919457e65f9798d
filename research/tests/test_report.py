"""Tables of the benchmark, with numbers by hand."""

import numpy as np
import pytest

from simmat_research.experiments import BenchmarkConfig, ResultRow, make_runs
from simmat_research.report import markdown_table, square_around, summarize

REACHED = {
    "zero-shot": 20.0, "scratch": 10.0, "baseline A": 12.0, "baseline B": 25.0, "SimMAT": 40,
    "SimMAT, full": 42,
}  # fmt: skip


def rows(experiment: str = "transfer", seeds: tuple[int, ...] = (0, 1)) -> list[ResultRow]:
    """On modality b everything is 10 points better; with seed 1 one point."""
    runs = make_runs(experiment, ("a", "b"), seeds, BenchmarkConfig(steps=5, tuning="lora"))
    return [
        ResultRow(
            run,
            parameters=100 if run.modality == "a" else 200,
            images=round(40 * run.share),
            validation_iou=0.0,
            test_iou=REACHED.get(run.arm, 30.0) + 10 * (run.modality == "b") + run.seed,
            test_dice=0.0,
            seconds=1.0,
            base="tiny-rgb-1",
        )
        for run in runs
    ]


def test_summarize_gives_mean_and_deviation_over_seeds():
    some = [row for row in rows() if row.run.modality == "a" and row.run.arm == "SimMAT"]
    found = summarize(some)
    assert (found.mean, found.seeds) == (40.5, 2)
    assert found.deviation == pytest.approx(0.7071, abs=1e-4)
    assert str(found) == "40.5 ± 0.7"
    assert str(summarize(some[:1])) == "40.0"


def test_markdown_table_of_transfer_compares_arms():
    lines = markdown_table("transfer", rows()).splitlines()
    assert lines[0] == (
        "| modality | zero-shot | scratch | baseline A | baseline B | SimMAT | SimMAT, full |"
    )
    assert lines[2].startswith("| a | 20.5 ± 0.7 | 10.5 ± 0.7 |")
    assert lines[4] == (
        "| **average** | **25.5** | **15.5** | **17.5** | **30.5** | **45.5** | **47.5** |"
    )
    assert lines[-1] == (
        "SimMAT over scratch: 2.94. SimMAT above zero-shot: +20.0 points on average."
    )


def test_averages_take_complete_modalities_only():
    some = [r for r in rows() if not (r.run.modality == "b" and r.run.arm == "SimMAT")]
    assert "| **average** | **20.5** | **10.5** |" in markdown_table("transfer", some)
    alone = [r for r in some if r.run.arm != "scratch"]
    assert "over scratch" not in markdown_table("transfer", alone)


def test_markdown_table_of_settings_has_a_column_each():
    text = markdown_table("lr", rows("lr", (0,)))
    assert text.splitlines()[0] == ("| learning rate | 1e-5 | 3e-5 | 1e-4 | 3e-4 | 1e-3 | 3e-3 |")
    assert "| a, lora | 30.0 |" in text
    assert markdown_table("size", rows("size", (0,))).startswith(
        "| images | 2 | 4 | 10 | 20 | 40 |"
    )
    text = markdown_table("strategies", rows("strategies", (0,)))
    assert "| adapter | 100 to 200 | 30.0 | 40.0 |" in text


def test_markdown_table_without_rows_says_so():
    assert markdown_table("transfer", []) == "No run is done yet.\n"


def test_markdown_table_of_quick_form_says_so():
    assert markdown_table("transfer", rows(), quick=True).startswith("**Quick form")


def test_square_around_shows_the_object_in_the_plane():
    truth = np.zeros((90, 120), bool)
    truth[40:50, 60:64] = True  # 10 pixels long: the square has a side of 40
    assert square_around(truth) == (25, 65, 42, 82)
    truth = np.zeros((90, 120), bool)
    truth[88:90, 0:3] = True  # small, and in a corner
    assert square_around(truth) == (60, 90, 0, 30)
    assert square_around(np.ones((90, 120), bool)) == (0, 90, 15, 105)
