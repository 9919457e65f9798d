"""Shortcuts act wherever the focus is, except in text fields, and napari keeps its own."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from app_model.types import KeyCode
from napari.layers import Labels, Points
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractItemView, QApplication, QLabel, QMessageBox, QWidget

import napari_simmat
from napari_simmat.widgets.main import shortcuts_text
from napari_simmat.widgets.shortcuts import KEPT_BY_NAPARI, SHORTCUTS
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, gray

CTRL = Qt.KeyboardModifier.ControlModifier


def test_keys_that_napari_has_too_are_known_and_explained():
    """A later napari that takes another of our keys fails here."""
    ours = {each.text(): each.action for each in SHORTCUTS}
    both = {
        (action.removeprefix("napari:"), str(key))
        for action, keys in get_settings().shortcuts.shortcuts.items()
        for key in keys
        if str(key) in ours
    }
    assert both == {
        ("auto_contrast_once", "C"),
        ("activate_add_ellipse_mode", "E"),
        ("activate_labels_erase_mode", "E"),
        ("activate_points_select_mode", "S"),
        ("activate_select_mode", "S"),
        ("activate_add_path_mode", "T"),
        ("activate_points_add_mode", "P"),
        ("activate_add_polygon_mode", "P"),
        ("activate_labels_paint_mode", "P"),
        ("activate_add_line_mode", "L"),
        ("activate_labels_picker_mode", "L"),
        ("move_shapes_selection_to_back", "B"),
        ("toggle_preserve_labels", "B"),
    }
    assert len(ours) == len(SHORTCUTS), "no key means two things"
    assert all(each in shortcuts_text() for each in KEPT_BY_NAPARI)


LITERAL = re.compile(r"(?<![\w-])(?:(?:Ctrl|Shift|Alt)\+[A-Z?/]|[B-Z])(?![\w'-])")
NO_KEYS = {
    "radiological: R on the left",
    "neurological: L on the left",
    "%d %b %H:%M",
    "all; Z=12 for one, Z=max for a projection",
}
"""Sentences with a letter that stands for something else."""
SOURCE = Path(napari_simmat.__file__).parent


def sentences(file: Path) -> Iterator[str]:
    """The strings of several words in a file, without docstrings and remarks."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    remarks = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for each in ast.walk(tree):
        value = each.value if isinstance(each, ast.Constant) else None
        if isinstance(value, str) and " " in value and id(each) not in remarks:
            yield value


@pytest.mark.parametrize("room", ["annotation", "widgets"])
def test_no_sentence_spells_a_key(room):
    files = sorted((SOURCE / room).rglob("*.py"))
    spelled = [text for file in files for text in sentences(file) if LITERAL.search(text)]
    left = set(spelled) - NO_KEYS - set(KEPT_BY_NAPARI)
    assert not left, "write <key:action> for the key of an action"
    assert all(LITERAL.search(text) for text in ("Commit (C)", "clear (Shift+C)", "press T"))


def test_sentences_name_keys_of_actions_alone():
    actions = {each.action for each in SHORTCUTS}
    named = set()
    for room in ("annotation", "widgets"):
        for file in (SOURCE / room).rglob("*.py"):
            named |= set(re.findall("<key:([a-z ]+)>", " ".join(sentences(file))))
    assert named <= actions | {"action"}
    assert len(named) > 5


def test_window_names_the_key_that_an_action_has(window, monkeypatch):
    moved = [
        replace(each, key=KeyCode.KeyX) if each.action == "commit" else each for each in SHORTCUTS
    ]
    monkeypatch.setattr("napari_simmat.widgets.shortcuts.SHORTCUTS", tuple(moved))
    monkeypatch.setattr("napari_simmat.widgets.main.SHORTCUTS", tuple(moved))
    window.viewer.add_image(gray(), name="discs")
    window.open_widget()
    window.viewer.reset_view()
    window.idle()
    window.click(*CENTERS[0])
    assert window.tab.status.text.text().endswith("Commit (X), or click to correct it.")
    window.key(Qt.Key.Key_C)
    assert "SimMAT objects" not in window.viewer.layers
    assert "<b>X</b>" in shortcuts_text()
    told = [each.text() for each in window.tab.findChildren(QLabel)]
    told += [each.toolTip() for each in window.tab.findChildren(QWidget)]
    told += [each.text() for each in window.tab.findChildren(QAction)]
    assert not [each for each in told if re.search(r"\(C\)|\tC$|<key:", each)]
    window.key(Qt.Key.Key_X)
    assert window.objects.any()


@pytest.mark.all_tabs
def test_question_mark_shows_the_keys(ready, monkeypatch):
    said = []
    monkeypatch.setattr(QMessageBox, "open", lambda box: said.append(box.text()))
    ready.key(Qt.Key.Key_Question, Qt.KeyboardModifier.ShiftModifier)
    assert said == [shortcuts_text()]
    assert "<b>?</b>" in said[0]


def test_keys_on_image_or_no_layer_act(ready):
    for active in (ready.viewer.layers["discs"], None):
        ready.click(*CENTERS[0])
        ready.viewer.layers.selection.active = active
        ready.key(Qt.Key.Key_C)
        assert ready.viewer.layers["SimMAT objects"].data.any()
        ready.key(Qt.Key.Key_Z, CTRL)
        assert not ready.viewer.layers["SimMAT objects"].data.any()
        ready.key(Qt.Key.Key_Z, CTRL)


@pytest.mark.slow
@pytest.mark.real_window
def test_key_e_on_boxes_opens_the_object_under_the_mouse(ready):
    ready.add_object(*CENTERS[0])
    ready.push(ready.tab.buttons.tools["box"])
    boxes = ready.workspace.prompt_layers.boxes
    ready.key_over(*CENTERS[1], Qt.Key.Key_E)
    assert boxes.mode == "add_ellipse", "napari's own, where no object is"
    ready.push(ready.tab.buttons.tools["box"])
    boxes.mode = "add_rectangle"
    ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    assert ready.status.text.startswith("Editing object 1")
    assert boxes.mode == "add_rectangle"


@pytest.mark.slow
@pytest.mark.real_window
def test_key_c_with_nothing_to_commit_is_naparis(ready):
    image = ready.viewer.layers["discs"]
    ready.viewer.layers.selection.active = image
    image.contrast_limits = (3, 9)
    ready.key(Qt.Key.Key_C)
    assert tuple(image.contrast_limits) != (3, 9)
    image.contrast_limits = (3, 9)
    ready.click(*CENTERS[0])
    ready.viewer.layers.selection.active = image
    ready.key(Qt.Key.Key_C)
    assert tuple(image.contrast_limits) == (3, 9)
    assert ready.viewer.layers["SimMAT objects"].data.any()


@pytest.mark.real_window
@pytest.mark.parametrize("where", nightly_but(("layer list", "model", "table"), "table"))
def test_keys_while_a_list_has_the_focus_act(ready, where):
    ready.viewer.add_image(gray(), name="cc first by letter")
    ready.idle()
    ready.click(*CENTERS[0])
    ready.tab.sections["model"].set_open(True)
    ready.activate()
    widget = {
        "layer list": ready.viewer.window._qt_viewer.layers,
        "model": ready.tab.models.choice,
        "table": ready.tab.object_panel.table,
    }[where]
    assert where == "model" or isinstance(widget, QAbstractItemView)
    widget.setFocus()
    ready.qtbot.waitUntil(lambda: QApplication.focusWidget() is widget)
    active = ready.viewer.layers.selection.active
    chosen = ready.tab.models.value()
    QTest.keyClick(widget, Qt.Key.Key_C)
    ready.idle()
    assert ready.viewer.layers["SimMAT objects"].data.any()
    assert ready.viewer.layers.selection.active is active, "the list did not search by letter"
    assert ready.tab.models.value() == chosen
    QTest.keyClick(widget, Qt.Key.Key_Z, CTRL)
    ready.idle()
    assert not ready.viewer.layers["SimMAT objects"].data.any()


def test_class_field_takes_letters_then_gives_keys_back(ready):
    ready.click(*CENTERS[0])
    ready.activate()
    field = ready.tab.object_panel.category.lineEdit()
    field.setFocus()
    ready.qtbot.waitUntil(field.hasFocus)
    ready.key(Qt.Key.Key_C)  # as keys reach the canvas that a field does not want
    assert "SimMAT objects" not in ready.viewer.layers
    ready.type_class("sctz")
    assert ready.controller.objects.category == "sctz"
    assert "SimMAT objects" not in ready.viewer.layers
    assert not field.hasFocus()
    ready.key(Qt.Key.Key_C)
    assert ready.viewer.layers["SimMAT classes"].data.any()


@pytest.mark.real_window
@pytest.mark.usefixtures("window")  # napari fills its keymaps with the first one
def test_keys_clash_with_napari_only_as_documented():
    napari = {Points: set(Points.class_keymap), Labels: set(Labels.class_keymap)}
    ours = {each.action: each.binding() for each in SHORTCUTS}
    taken = {
        kind: {action for action, key in ours.items() if key in keys}
        for kind, keys in napari.items()
    }
    assert taken[Points] == {"segment", "point"}, "select mode: 3 does it too"
    tools = {"point", "box", "pen"}  # paint: 2, preserve labels: its box, pick: 5
    assert taken[Labels] == {"edit", "undo", "redo", *tools}, "erase: 1 does it too"


@pytest.mark.all_tabs
def test_keys_while_another_tab_is_shown_do_not_act(ready):
    ready.click(*CENTERS[0])
    before = len(ready.workspace.session.history)
    ready.widget.tabs.setCurrentWidget(ready.widget.train)
    for key in (Qt.Key.Key_C, Qt.Key.Key_T, Qt.Key.Key_Q):
        ready.key(key)
    assert len(ready.workspace.session.history) == before
    assert ready.workspace.prompt_layers.positive
    ready.widget.tabs.setCurrentWidget(ready.widget.segment)
    ready.commit()
    assert ready.objects.any()


def test_shift_on_a_selected_box_in_3d_raises_nothing(window):
    window.open(np.stack([gray()] * 3), name="stack")
    window.drag(20, 30, 80, 90)
    boxes, dims = window.workspace.prompt_layers.boxes, window.viewer.dims
    boxes.mode, boxes.selected_data = "select", {0}
    for ndisplay in (3, 2):
        dims.ndisplay = ndisplay
        boxes.selected_data = {0}
        window.viewer.layers.selection.active = boxes
        window._keys.keymap_providers = [boxes, window.viewer]
        window._keys.press_key("Shift")
        assert boxes._fixed_aspect is (ndisplay == 2)
        window._keys.release_key("Shift")
