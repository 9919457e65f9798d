"""Tries to learn on an image are counted, whichever session makes them, and after a crash."""

import numpy as np

from napari_simmat.io.files import user_folder
from napari_simmat.training.tries import Tries, Try

FIRST, SECOND, ADAPTED = Try("base", "one"), Try("base", "two"), Try("adapted", "three")


def test_each_further_lesson_has_the_next_number():
    tries = Tries()
    assert tries.number_of(FIRST) == 1
    tries.add(FIRST)
    assert tries.number_of(FIRST) == 1, "the same lesson has the same result"
    assert tries.number_of(SECOND) == 2
    tries.add(SECOND)
    tries.add(FIRST)
    assert tries.number_of(Try("base", "four")) == 3
    assert tries.number_of(ADAPTED) == 1, "from a model that was offered on, it begins anew"


def test_tries_outlive_their_session():
    Tries.of("image").add(FIRST)
    again = Tries.of("image")
    assert again.number_of(FIRST) == 1
    assert again.number_of(SECOND) == 2
    assert Tries.of("other").number_of(SECOND) == 1
    assert user_folder("sessions") in again.path.parents


def test_line_that_a_crash_cut_off_costs_no_other():
    tries = Tries.of("image")
    tries.add(FIRST)
    tries.path.write_text(tries.path.read_text() + '\n{"line": "base", "les')
    Tries.of("image").add(SECOND)
    assert Tries.of("image").number_of(SECOND) == 2
    assert Tries.of("image").number_of(Try("base", "four")) == 3


def test_tries_that_cannot_be_kept_say_so(caplog):
    path = user_folder("sessions") / "image.tries"
    path.mkdir(parents=True)
    Tries(path).add(FIRST)
    assert "cannot be counted" in caplog.text


def test_folder_and_image_are_known_by_place_and_content(tmp_path):
    assert Tries.of_folder(tmp_path / "a" / "..").path == Tries.of_folder(tmp_path).path
    assert Tries.of_folder(tmp_path / "a").path != Tries.of_folder(tmp_path).path
    plane = np.arange(12.0).reshape(3, 4)
    assert Tries.of_planes([plane.copy()]).path == Tries.of_planes([plane]).path
    assert Tries.of_planes([plane + 1]).path != Tries.of_planes([plane]).path
