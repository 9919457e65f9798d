from __future__ import annotations

from pathlib import Path

import pytest

from napari_simmat.widgets.train.runs import CurveHistory, TimeEstimator, TrainEvent, read_event


def test_lines_become_events() -> None:
    line = '{"done": 2, "total": 6, "message": "training", "figures": {"step": 2, "loss": 0.5}}'
    assert read_event(line) == TrainEvent(2, 6, "training", True, {"step": 2.0, "loss": 0.5})
    assert read_event('{"done": 0, "total": 1, "message": "reading"}') == TrainEvent(
        0, 1, "reading"
    )
    metrics = {"before": {"click": 50.0}, "after": {"click": 80.0}}
    line = '{"output": "a.safetensors", "metrics": {"before": {"click": 50.0}, '
    assert read_event(line + '"after": {"click": 80.0}}}') == TrainEvent(metrics=metrics)


@pytest.mark.parametrize("line", ["", "a warning", "3", "[]", '{"done": 1}', '{"done": "x"}'])
def test_what_a_library_prints_is_no_event(line: str) -> None:
    assert read_event(line) is None


def test_a_step_that_comes_again_replaces_what_was_there() -> None:
    history = CurveHistory()
    for step in range(5):
        assert history.add({"step": step, "loss": 1.0, "validation_iou": 10.0 * step})
    assert history.best == (4, 40)
    assert (history.step, CurveHistory().step) == (4, 0)
    assert history.add({"step": 2, "loss": 0.5})
    assert history.loss == [(0, 1), (1, 1), (2, 0.5)]
    assert history.add({"step": 2, "validation_iou": 30.0})
    assert history.iou == [(0, 0), (1, 10), (2, 30)]
    assert not history.add({"step": 3, "learning_rate": 0.1})
    assert not history.add({})
    assert not history.add({"step": 3, "loss": float("nan")})


def test_curves_of_a_log_that_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    assert CurveHistory.of(log).best is None
    log.write_text(
        "step,epoch,learning_rate,loss,train_iou,validation_iou\n"
        "0,0.0,,,,40.5\n5,1.0,0.0003,0.25,70,\n5,1.0,,,,60\n1x,"
    )
    history = CurveHistory.of(log)
    assert history.iou == [(0, 40.5), (5, 60)]
    assert history.loss == [(5, 0.25)]


def test_the_time_left_is_that_of_the_steps_so_far() -> None:
    pace = TimeEstimator()
    assert pace.left == ""
    pace.add(100.0, 20, 120)  # it went on at step 20
    assert pace.left == ""
    pace.add(130.0, 30, 120)
    assert pace.left == "about 4 min left"  # 90 steps of 3 s
