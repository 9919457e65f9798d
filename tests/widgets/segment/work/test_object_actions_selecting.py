"""A click on a committed object selects it; a second one opens it; Shift begins another."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.widgets.scenes import CENTERS


@pytest.fixture
def committed(ready):
    """Two committed objects."""
    ready.add_object(*CENTERS[0])
    ready.add_object(*CENTERS[1])
    ready.tab.object_panel.table.choose(())
    return ready


def edited(hands):
    return [each.label for each in hands.workspace.session.prompt_state.edited]


@pytest.mark.parametrize("tool", ["point", "pen", "box"])
def test_click_selects_and_a_second_one_opens(committed, tool):
    steps = len(committed.workspace.session.history)
    committed.take(committed.tab.buttons.tools[tool])
    committed.press(*CENTERS[1])
    committed.idle()
    assert committed.tab.object_panel.table.value() == (2,)
    assert committed.controller.objects.chosen == (2,)
    assert not committed.workspace.prompted
    assert len(committed.workspace.session.history) == steps, "it is nothing to undo"
    assert committed.status.text.startswith("Object 2 is selected")
    committed.press(*CENTERS[0])
    committed.idle()
    assert committed.tab.object_panel.table.value() == (1,)
    committed.press(*CENTERS[0])
    committed.idle()
    assert edited(committed) == [1]


def test_selected_object_opens_by_its_key(committed):
    committed.click(*CENTERS[0])
    committed.key_over(*CENTERS[0], Qt.Key.Key_E)
    assert edited(committed) == [1]


def test_double_click_opens_at_once(committed):
    committed.double_click(*CENTERS[1])
    assert edited(committed) == [2]


def test_click_where_something_is_open_corrects_that(committed):
    committed.click(*CENTERS[2])
    committed.click(*CENTERS[0])
    assert committed.tab.object_panel.table.value() == ()
    assert len(committed.workspace.session.prompts.points) == 2


def test_click_beside_all_objects_begins_a_new_one(committed):
    committed.click(*CENTERS[2])
    assert len(committed.workspace.session.prompts.points) == 1


def test_shift_click_begins_a_new_object_there(committed):
    committed.click(*CENTERS[0], Qt.KeyboardModifier.ShiftModifier)
    assert len(committed.workspace.session.prompts.points) == 1
    assert not edited(committed)


def test_objects_clicked_one_beside_the_other_are_merged(committed):
    committed.click(*CENTERS[0])
    committed.click(*CENTERS[1], Qt.KeyboardModifier.ControlModifier)
    assert committed.tab.object_panel.table.value() == (1, 2)
    committed.key(Qt.Key.Key_G)
    assert sorted(np.unique(committed.objects)) == [0, 1]


def test_class_of_a_row_is_not_that_of_new_objects(committed):
    committed.type_class("cell")
    committed.click_row(0)
    assert committed.tab.object_panel.category.value() == "", "that of the row"
    committed.type_class("nucleus")
    committed.tab.object_panel.table.choose(())
    assert committed.tab.object_panel.category.value() == "cell", "that of new ones"
    committed.add_object(*CENTERS[2])
    entries = committed.workspace.editor.register.entries
    assert [entries[label].category for label in (1, 2, 3)] == ["nucleus", "", "cell"]
