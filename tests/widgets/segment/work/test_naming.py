"""*Name the others*: a few objects are classed with the mouse, the button names the rest."""

import csv
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.naming import ALL_BY_HAND, LEFT_ALONE
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.form.object_panel import NAME_OTHERS
from napari_simmat.widgets.segment.form.object_table import NAMED_TIP
from napari_simmat.widgets.segment.work.naming import CANCELED, OTHER_IMAGE
from tests.widgets.conftest import SECONDS
from tests.widgets.segment.noted import crash, open_image, replayed, restore, save_as

DISK, BAR = "disk", "bar"
BY_HAND = {1: BAR, 2: DISK, 3: DISK, 4: BAR, 5: DISK, 7: BAR}
SENTENCE = "Named 10 objects by 3 bar, 3 disk; left out one by one, 6 of these 6 are named right."


def shapes() -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """16 objects in rows of four, every third a bar, the others disks, and their classes."""
    rows, columns = np.mgrid[:160, :160]
    labels, classes = np.zeros((160, 160), np.int32), {}
    for number in range(16):
        y, x = 20 + 40 * (number // 4), 20 + 40 * (number % 4)
        is_bar = number % 3 == 0
        bar = (np.abs(rows - y) <= 3) & (np.abs(columns - x) <= 14 - number % 2)
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= (7 + number % 2) ** 2
        labels[bar if is_bar else disk] = number + 1
        classes[number + 1] = BAR if is_bar else DISK
    noise = np.random.default_rng(0).normal(0, 4, labels.shape)
    return (60 + 120 * (labels > 0) + noise).astype(np.uint8), labels, classes


def paint_all(window: Any, labels: np.ndarray) -> None:
    """Paint each object by hand, as napari's own tools do."""
    layer = window.objects_layer()
    for label in np.unique(labels[labels > 0]).tolist():
        layer.data_setitem(np.nonzero(labels == label), label)
    window.idle()


def class_by_hand(window: Any, classes: dict[int, str]) -> None:
    """Choose a row with the mouse and type a class, for each object."""
    for label, name in classes.items():
        numbers = [row.label for row in window.tab.object_panel.table.model().rows]
        window.click_row(numbers.index(label))
        window.type_class(name)


def classed(window: Any) -> dict[int, str]:
    """The classes in the table."""
    rows = window.tab.object_panel.table.model().rows
    return {row.label: row.category for row in rows if row.category}


def by_program(window: Any) -> set[int]:
    rows = window.tab.object_panel.table.model().rows
    return {row.label for row in rows if row.certainty is not None}


def name_others(window: Any) -> None:
    window.pick(window.tab.object_panel.entries[NAME_OTHERS])


@pytest.fixture
def few(open_window):
    """A viewer in which six of 16 objects are classed by hand."""
    window = open_image(open_window(), shapes()[0])
    paint_all(window, shapes()[1])
    class_by_hand(window, BY_HAND)
    return window


class Held:
    """Holds the worker while it names, until it is released."""

    def __init__(self, window: Any) -> None:
        self.window, self.open, self.reached = window, threading.Event(), threading.Event()
        service = window.controller.inference.service
        original = service.name_job

        def waiting(*given: Any) -> Any:
            self.reached.set()
            while not self.open.wait(0.01):
                yield Progress(0, 1, "waiting")
            return (yield from original(*given))

        service.name_job = waiting
        window.tab.object_panel.entries[NAME_OTHERS].trigger()
        assert self.reached.wait(SECONDS / 1000)

    def release(self) -> None:
        self.open.set()
        self.window.idle()


@pytest.mark.slow
def test_button_names_the_others_as_one_command(few):
    classes = shapes()[2]
    assert classed(few) == BY_HAND
    name_others(few)
    assert few.status.text == SENTENCE
    assert classed(few) == classes
    assert by_program(few) == set(classes) - set(BY_HAND)
    shown = few.viewer.layers["SimMAT classes"].data
    names = few.workspace.classes.names
    numbers = np.array([0, *(names.index(classes[n]) + 1 for n in range(1, 17))])
    assert np.array_equal(shown, numbers[few.objects])

    few.undo()
    assert classed(few) == BY_HAND
    assert by_program(few) == set()
    few.redo()
    assert classed(few) == classes
    assert by_program(few) == set(classes) - set(BY_HAND)
    few.undo(2)
    assert len(classed(few)) == len(BY_HAND) - 1, "one step took all names back"


@pytest.mark.slow
def test_offer_takes_the_names_back(few):
    name_others(few)
    few.push(few.tab.status.offer)
    assert classed(few) == BY_HAND


def test_table_tells_what_the_program_named(few):
    name_others(few)
    model = few.tab.object_panel.table.model()
    for number, row in enumerate(model.rows):
        cell = model.index(number, 1)
        font, tip = (
            cell.data(role) for role in (Qt.ItemDataRole.FontRole, Qt.ItemDataRole.ToolTipRole)
        )
        assert cell.data() == row.category
        if row.label in BY_HAND:
            assert (font, tip) == (None, None)
        else:
            assert font.italic()
            assert tip == NAMED_TIP.format(row.certainty)
    model.sort(1)
    firsts = [row.certainty for row in model.rows if row.category == DISK]
    known = [each for each in firsts if each is not None]
    assert firsts == [*sorted(known), None, None, None], "the least certain first"


@pytest.mark.slow
def test_corrections_stay_when_the_others_are_named_again(few):
    name_others(few)
    class_by_hand(few, {6: BAR, 8: DISK})  # one against the shape, one as it was named
    assert by_program(few) == set(range(9, 17)), "both are by hand now"
    name_others(few)
    assert "by 4 bar, 4 disk" in few.status.text
    assert classed(few)[6] == BAR
    assert classed(few)[8] == DISK
    assert not by_program(few) & {6, 8}


@pytest.mark.slow
def test_doubtful_objects_get_no_class(few):
    layer = few.viewer.layers["SimMAT objects"]
    rows, columns = np.mgrid[:160, :160]
    inside = ((rows - 140) / 5) ** 2 + ((columns - 140) / 10) ** 2 <= 1  # neither disk nor bar
    layer.data_setitem(np.nonzero(few.objects == 16), 0)
    layer.data_setitem(np.nonzero(inside), 16)
    few.idle()
    name_others(few)
    certain = {row.label: row.certainty for row in few.tab.object_panel.table.model().rows}
    assert 16 not in classed(few)
    assert certain[16] is None
    assert "1 is doubtful and stays without a class." in few.status.text


def test_too_few_by_hand_are_refused_in_a_sentence(open_window):
    window = open_image(open_window(), shapes()[0])
    assert not window.tab.object_panel.entries[NAME_OTHERS].isEnabled(), "there is no object"
    paint_all(window, shapes()[1])
    class_by_hand(window, {1: BAR, 2: DISK, 3: DISK, 4: BAR, 5: DISK})
    name_others(window)
    assert window.status.kind == "failed"
    assert window.status.text.endswith("so far there are 2 bar, 3 disk.")
    class_by_hand(window, {n: name for n, name in shapes()[2].items() if n > 5})
    name_others(window)
    assert window.status.text == ALL_BY_HAND


def test_objects_that_change_meanwhile_are_left_alone(few):
    held = Held(few)
    layer = few.viewer.layers["SimMAT objects"]
    layer.data_setitem(np.nonzero(few.objects == 9), 0)  # erased
    layer.data_setitem((np.array([2, 2]), np.array([60, 61])), 6)  # painted
    class_by_hand_while_held(few, 8, "odd")
    held.release()
    after = classed(few)
    assert 9 not in after
    assert 6 not in after
    assert after[8] == "odd"
    assert LEFT_ALONE.format(objects="3 objects", are="are") in few.status.text
    assert {n: after[n] for n in range(10, 17)} == {n: shapes()[2][n] for n in range(10, 17)}


def class_by_hand_while_held(window: Any, label: int, name: str) -> None:
    """As the mouse would, without waiting for the worker."""
    window.controller.objects.chosen = (label,)
    window.tab.object_panel.class_chosen.emit(name)


def test_cancel_names_nothing(few):
    held = Held(few)
    assert few.status.kind == "working"
    few.take(few.tab.status.cancel)
    assert few.status.text == CANCELED
    held.release()
    assert classed(few) == BY_HAND
    name_others(few)
    assert classed(few) == shapes()[2]


def test_names_do_not_land_on_another_image(few):
    held = Held(few)
    few.viewer.add_image(255 - shapes()[0], name="other")
    few.qtbot.waitUntil(lambda: few.workspace.session.geometry.name == "other")
    held.release()
    assert few.status.text == OTHER_IMAGE


def test_names_are_saved_with_their_certainty(few, tmp_path, monkeypatch):
    def saved(name: str) -> list[dict[str, str]]:
        save_as(monkeypatch, tmp_path / f"{name}_labels.tif")
        few.tab.act("save")
        few.qtbot.waitUntil(lambda: few.status.text.startswith(f"Saved {name}"))
        with (tmp_path / f"{name}_objects.csv").open() as stream:
            return list(csv.DictReader(stream))

    assert "class_certainty" not in saved("before")[0], "nothing was named yet"
    name_others(few)
    for row in saved("after"):
        label = int(row["label"])
        assert row["class"] == shapes()[2][label]
        assert (row["class_certainty"] == "") is (label in BY_HAND)
        assert label in BY_HAND or 0.6 <= float(row["class_certainty"]) <= 1
    session = replayed(tmp_path / "after_session.jsonl")
    (entries,) = session.entries.values()
    assert {n for n, entry in entries.items() if not entry.classed_by_hand} == by_program(few)


@pytest.mark.slow
def test_merged_and_split_objects_stay_named_by_the_program(few):
    name_others(few)
    entry = few.workspace.editor.register.entry
    certain = entry(9).certainty
    few.controller.objects.chosen = (9, 11)
    few.pick(few.tab.object_panel.entries["merge"])
    assert (entry(9).category, entry(9).certainty) == (DISK, certain)
    few.controller.objects.chosen = (9,)
    few.pick(few.tab.object_panel.entries["split"])
    parts = [label for label in few.workspace.editor.labels if label in (9, 11, 17)]
    assert len(parts) == 2
    assert {entry(label).certainty for label in parts} == {certain}


@pytest.mark.slow
def test_all_planes_of_a_stack_are_named(open_window):
    image, labels, classes = shapes()
    upper = np.where(labels > 10, labels, 0)
    lower = np.where(labels <= 10, labels, 0)
    window = open_image(open_window(), np.stack([image, image]))
    paint_all(window, np.stack([lower, upper]))
    class_by_hand(window, BY_HAND)
    name_others(window)
    assert window.status.text == SENTENCE
    assert classed(window) == classes


@pytest.mark.slow
def test_names_come_back_after_a_crash(few, open_window: Callable[[], Any]):
    name_others(few)
    crash(few)
    second = open_image(open_window(), shapes()[0])
    restore(second)
    assert classed(second) == shapes()[2]
    assert by_program(second) == by_program(few)
    second.undo()
    assert classed(second) == BY_HAND, "the undo list came back"
