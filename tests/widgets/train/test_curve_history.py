"""The curves of a training, thinned out."""

from napari_simmat.widgets.train.curve_history import CurveHistory


def test_curves_replace_a_step_that_is_repeated():
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


def test_curves_of_a_log_that_was_cut_skip_its_end(tmp_path):
    log = tmp_path / "log.csv"
    assert CurveHistory.of(log).best is None
    log.write_text(
        "step,epoch,learning_rate,loss,train_iou,validation_iou\n"
        "0,0.0,,,,40.5\n5,1.0,0.0003,0.25,70,\n5,1.0,,,,60\n1x,"
    )
    history = CurveHistory.of(log)
    assert history.iou == [(0, 40.5), (5, 60)]
    assert history.loss == [(5, 0.25)]
