from __future__ import annotations

from typing import Any, get_args

import pytest
from qtpy.QtWidgets import QLabel, QWidget

from napari_simmat.widgets import controls
from napari_simmat.widgets.controls import STATUS_TONES, Status, StatusKind, StatusLine, vbox


@pytest.fixture
def line(qtbot: Any) -> StatusLine:
    line = StatusLine()
    qtbot.addWidget(line)
    line.show()
    return line


@pytest.mark.parametrize("kind", get_args(StatusKind))
def test_every_state_has_a_look_and_reads_back(
    line: StatusLine, qtbot: Any, kind: StatusKind
) -> None:
    status = Status(kind, "A sentence", 0.5)
    line.set_value(status)
    assert line.value() == status
    qtbot.waitUntil(lambda: line._cancel.isVisible() is (kind == "working"))
    assert line._text.text().startswith("A sentence")
    assert line._bar.isVisible() is (kind == "working")
    assert line._offer.isHidden()


def test_no_two_states_look_alike_but_those_in_which_nothing_happens() -> None:
    assert set(STATUS_TONES) == set(get_args(StatusKind))
    busy = [STATUS_TONES[kind] for kind in ("ready", "working", "failed", "done")]
    assert len(set(busy)) == 4


def test_work_that_is_over_at_once_is_not_shown_as_work(line: StatusLine, qtbot: Any) -> None:
    line.set_value(Status("ready", "Ready"))
    line.set_value(Status("working", "Segmenting"))
    assert line._text.text() == "Ready"
    line.set_value(Status("done", "1 object", seconds=0.03))
    assert line._text.text() == "1 object"
    assert line._time.text() == "0.0 s"
    assert not line._clock.isActive()
    assert not line._late.isActive()


def test_progress_cancel_and_time(line: StatusLine, qtbot: Any) -> None:
    line.set_value(Status("working", "Encoding"))
    qtbot.waitUntil(line._cancel.isVisible)
    assert line._bar.maximum() == 0, "not known how far"
    line.set_value(Status("working", "Encoding", 0.25))
    assert line._bar.value() == 250
    assert line._time.text().endswith(" s")
    with qtbot.waitSignal(line.canceled):
        line._cancel.click()


def test_slow_work_says_how_long_it_still_takes(
    line: StatusLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(controls.time, "monotonic", lambda: now[0])
    line.set_value(Status("working", "Encoding", 0.0))
    line._late.timeout.emit()
    assert not line._left.text(), "nothing is known yet"
    now[0] += 30
    line.set_value(Status("working", "Encoding", 0.25))
    line._tick()
    assert line._left.text() == "about 2 min left"
    assert line._left.isVisible()
    line.set_value(Status("done", "1 object", seconds=120))
    assert not line._left.isVisible()


def test_an_offer_is_a_button(line: StatusLine, qtbot: Any) -> None:
    line.set_value(Status("failed", "That layer is full.", offer="New layer"))
    assert line._offer.text() == "New layer"
    with qtbot.waitSignal(line.accepted):
        line._offer.click()
    line.set_value(Status("ready", "Ready"))
    assert line._offer.isHidden()


def test_a_sentence_that_wraps_takes_no_more_room(qtbot: Any) -> None:
    window, line, below = QWidget(), StatusLine(), QLabel("below")
    layout = vbox(line, below, parent=window)
    layout.addStretch(1)
    qtbot.addWidget(window)
    window.resize(250, 300)
    window.show()
    shown, places = line._text, []
    for text in ("Ready", "1 object, score 0.94. Commit, or click to correct."):
        line.set_value(Status("ready", text))
        qtbot.waitUntil(lambda: shown.height() >= shown.heightForWidth(shown.width()))
        places.append(below.y())
    assert shown.heightForWidth(shown.width()) > 1.5 * line.fontMetrics().height()
    assert places[0] == places[1]
