from typing import get_args

import pytest
from qtpy.QtWidgets import QLabel, QWidget

from napari_simmat.widgets import status_line
from napari_simmat.widgets.controls import vbox
from napari_simmat.widgets.status_line import STATUS_TONES, Status, StatusKind, StatusLine


@pytest.fixture
def line(qtbot):
    line = StatusLine()
    qtbot.addWidget(line)
    line.show()
    return line


@pytest.mark.parametrize("kind", get_args(StatusKind))
def test_status_line_shows_and_reads_back_every_kind(line, qtbot, kind):
    status = Status(kind, "A sentence", 0.5)
    line.set_value(status)
    assert line.value() == status
    qtbot.waitUntil(lambda: line.cancel.isVisible() is (kind == "working"))
    assert line.text.text().startswith("A sentence")
    assert line.bar.isVisible() is (kind == "working")
    assert line.offer.isHidden()


def test_status_tones_of_active_states_differ():
    assert set(STATUS_TONES) == set(get_args(StatusKind))
    busy = [STATUS_TONES[kind] for kind in ("ready", "working", "failed", "done")]
    assert len(set(busy)) == 4


def test_status_line_with_short_work_never_shows_it(line, qtbot):
    line.set_value(Status("ready", "Ready"))
    line.set_value(Status("working", "Segmenting"))
    assert line.text.text() == "Ready"
    line.set_value(Status("done", "1 object", seconds=0.03))
    qtbot.wait(300)  # longer than the delay after which work is shown
    assert line.text.text() == "1 object"
    assert line.time.text() == "0.0 s"


def test_status_line_while_working_shows_progress(line, qtbot):
    line.set_value(Status("working", "Encoding"))
    qtbot.waitUntil(line.cancel.isVisible)
    assert line.bar.maximum() == 0, "not known how far"
    line.set_value(Status("working", "Encoding", 0.25))
    assert line.bar.value() == 250
    assert line.time.text().endswith(" s")
    with qtbot.waitSignal(line.canceled):
        line.cancel.click()


def test_status_line_with_slow_work_shows_the_time_left(line, qtbot, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(status_line.time, "monotonic", lambda: now[0])
    line.set_value(Status("working", "Encoding", 0.0))
    qtbot.waitUntil(line.cancel.isVisible)
    assert not line.left.text(), "nothing is known yet"
    now[0] += 30
    line.set_value(Status("working", "Encoding", 0.25))
    assert line.left.text() == "about 2 min left"
    assert line.left.isVisible()
    line.set_value(Status("done", "1 object", seconds=120))
    assert not line.left.isVisible()


def test_status_line_with_an_offer_shows_a_button(line, qtbot):
    line.set_value(Status("failed", "That layer is full.", offer="New layer"))
    assert line.offer.text() == "New layer"
    with qtbot.waitSignal(line.accepted):
        line.offer.click()
    line.set_value(Status("ready", "Ready"))
    assert line.offer.isHidden()


def test_status_line_with_two_lines_keeps_its_height(qtbot):
    window, line, below = QWidget(), StatusLine(), QLabel("below")
    layout = vbox(line, below, parent=window)
    layout.addStretch(1)
    qtbot.addWidget(window)
    window.resize(250, 300)
    window.show()
    shown, places = line.text, []
    for text in ("Ready", "1 object, score 0.94. Commit, or click to correct."):
        line.set_value(Status("ready", text))
        qtbot.waitUntil(lambda: shown.height() >= shown.heightForWidth(shown.width()))
        places.append(below.y())
    assert shown.heightForWidth(shown.width()) > 1.5 * line.fontMetrics().height()
    assert places[0] == places[1]


def test_state_is_told_by_shape_too(qtbot):
    line = StatusLine()
    qtbot.addWidget(line)
    signs = []
    for kind in get_args(StatusKind):
        line.set_value(Status(kind, "A sentence"))
        line._show()
        signs.append(line.dot.text())
    assert len(set(signs)) == len(signs)
