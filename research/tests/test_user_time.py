"""Seconds by the keystroke-level model, as they are added up by hand."""

import pytest

from simmat_research.user_time import UserTime


def test_seconds_are_those_of_the_acts():
    time = UserTime()
    time.press(2)
    time.look()
    assert (time.actions, time.seconds) == (2, pytest.approx(2 * 1.2 + 0.5))
    time.box()
    time.line(300)
    assert (time.actions, time.drawn) == (4, 300)
    assert time.seconds == pytest.approx(2.9 + 2.5 + 0.7 + 3)


def test_line_is_slower_in_a_narrow_tunnel_alone():
    def seconds(tolerance):
        time = UserTime()
        time.line(100, tolerance)
        return time.seconds

    assert seconds(2) == pytest.approx(0.7 + 0.1 * 100 / 2)
    assert seconds(4) == pytest.approx(0.7 + 0.1 * 100 / 4)
    assert seconds(10) == seconds(50) == pytest.approx(0.7 + 1)


def test_waiting_is_by_the_clock_beyond_what_is_not_noticed(monkeypatch):
    ticks = iter([5.0, 7.0, 20.0, 20.2, 30.0, 31.0])
    monkeypatch.setattr("simmat_research.user_time.monotonic", lambda: next(ticks))
    time = UserTime()
    with time.waiting():
        pass
    assert time.waited == 2
    with time.waiting(unnoticed=0.24):
        pass
    assert time.waited == 2, "what comes at once gives no time back"
    with time.waiting(unnoticed=0.24):
        pass
    assert time.waited == pytest.approx(2 + 0.76)
    assert (time.actions, time.acting, time.seconds) == (0, 0, time.waited)
