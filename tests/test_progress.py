import pytest

from napari_simmat.progress import JobEvent, time_left


def test_time_left_follows_the_pace_so_far():
    assert time_left(30.0, 10, 90) == "about 4 min left"
    assert time_left(30.0, 0, 90) == ""


def test_an_event_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match="An event is a step"):
        JobEvent(done=1, total=2)
