"""How many controls each step of the work shows, and what is always in sight."""

from typing import Any

import numpy as np
import pytest
from napari._qt.qt_resources import get_stylesheet
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QScrollBar,
    QWidget,
)
from tifffile import imwrite

from napari_simmat.engine.settings import AutomaticSettings
from tests.widgets.scenes import CENTERS, gray, nucleus_in_cell

MOST = 13
"""Controls at a time, without the door to the settings and what the user opened behind it."""
ROOM = (380, 690)
"""Of the tab in a window of 1280 x 800."""


def controls(tab: Any) -> list[QWidget]:
    """What a user sees in the tab to press, choose or type into.

    The pictures of the candidates are one choice, as the entries of a list are.
    """
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox, QAbstractSlider, QLineEdit)
    seen = [each for kind in (*kinds, QAbstractItemView) for each in tab.findChildren(kind)]
    parts = (QAbstractItemView, QAbstractSpinBox, QComboBox)
    pictures = tab.candidates.buttons[1:]
    return [
        each
        for each in seen
        if each.isVisible()
        and each is not tab.menu
        and each not in pictures
        and not isinstance(each, (QScrollBar, QHeaderView))
        and not isinstance(each.parentWidget(), parts)
    ]


def names(tab: Any) -> list[str]:
    """What they are called."""
    return [
        (each.text() if isinstance(each, QAbstractButton) else "") or type(each).__name__
        for each in controls(tab)
    ]


def in_sight(window: Any) -> bool:
    """Whether four rows of the table, Save and the status are seen, whole."""
    tab = window.tab
    parts = (tab.object_panel.table, tab.object_panel.save, tab.status.text, tab.buttons.commit)
    whole = [part.visibleRegion().boundingRect().size() == part.size() for part in parts]
    return all(whole) and tab.object_panel.table.height() > 4 * 22


def reject_one(window: Any) -> None:
    """Take away the least certain draft, all of which count as doubtful."""
    session = window.workspace.session
    window.workspace.propose(session, session.drafts.found._replace(doubt=1.0))
    window.push(window.tab.review_panel.next)
    before = len(session.drafts.open)
    window.push(window.tab.review_panel.reject)
    assert len(session.drafts.open) == before - 1


@pytest.fixture
def narrow(window):
    """The tab as wide and as high as it is in a window of 1280 x 800, without an image."""
    window.open_widget().setStyleSheet(get_stylesheet("dark"))
    window.widget.resize(*ROOM)
    window.idle()
    return window


def test_an_empty_tab_offers_images_and_a_tour(narrow):
    assert names(narrow.tab) == ["Coins", "A cell", "Retina", "Tour in five steps"]


@pytest.mark.parametrize(
    "data",
    [gray(), pytest.param([gray(), gray()[::2, ::2]], marks=pytest.mark.slow)],
    ids=["one plane", "a pyramid"],
)
def test_each_step_shows_thirteen_controls_at_most(narrow, data):
    tab = narrow.tab
    shown = {}

    def note(step: str) -> None:
        shown[step] = names(tab)
        narrow.qtbot.waitUntil(lambda: in_sight(narrow))  # once Qt has laid it out

    narrow.viewer.add_image(data, name="discs")
    narrow.idle()
    note("ready")
    narrow.click(*CENTERS[0])
    note("a click")
    narrow.undo()
    note("undone")
    narrow.redo()
    narrow.commit()
    note("an object")
    narrow.click_row(0)
    note("a row")
    narrow.type_class("disc")
    narrow.click(*CENTERS[1])
    note("a click, with classes")
    narrow.commit()
    narrow.undo(2)
    narrow.click_row(0)
    narrow.push(tab.buttons.everything)
    note("everything, something undone")
    tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    narrow.push(tab.automatic_panel.start)
    assert tab.review_panel.isVisible()
    assert not tab.sections["everything"].isVisible(), "what is done with drafts is shown instead"
    note("drafts")
    reject_one(narrow)
    narrow.undo()
    assert tab.buttons.redo.isEnabled()
    note("drafts, something undone")
    narrow.click(*CENTERS[2])
    assert not tab.review_panel.accept.isVisible(), "they wait for the prompts"
    note("drafts, a click")
    narrow.push(tab.buttons.clear)
    assert tab.review_panel.accept.isVisible()
    narrow.push(tab.buttons.clear)
    assert not tab.review_panel.isVisible()
    note("drafts are offered back")
    narrow.push(tab.status.offer)
    assert tab.review_panel.isVisible(), "they are brought back"
    narrow.push(tab.buttons.commit)
    narrow.pick(tab.entries["learn"])
    note("learning")
    too_many = {step: found for step, found in shown.items() if len(found) > MOST}
    assert not too_many


@pytest.mark.slow
def test_a_stack_shows_thirteen_controls_at_most(narrow):
    narrow.viewer.add_image(np.stack([gray()] * 3), name="stack")
    narrow.idle()
    narrow.add_object(*CENTERS[0])
    narrow.type_class("disc")
    narrow.click(*CENTERS[1])
    assert len(controls(narrow.tab)) <= MOST, names(narrow.tab)
    narrow.push(narrow.tab.stack_panel.start)
    assert narrow.controller.propagation.result is not None
    assert len(controls(narrow.tab)) <= MOST, names(narrow.tab)
    narrow.qtbot.waitUntil(lambda: in_sight(narrow))


@pytest.mark.slow
def test_a_folder_of_stacks_shows_thirteen_controls_at_most(narrow, tmp_path):
    stack = np.stack([gray()] * 3).astype(np.uint8)
    for name in ("0.tif", "1.tif"):
        imwrite(tmp_path / name, stack, imagej=True, metadata={"axes": "ZYX"})
    tab, shown = narrow.tab, {}

    def note(step: str) -> None:
        shown[step] = names(tab)

    narrow.pick(tab.entries["folder"])
    tab.folder_panel.folder.set_value(str(tmp_path))
    narrow.idle()
    note("ready")
    assert tab.folder_panel.empty.isVisible()
    narrow.add_object(*CENTERS[0])
    narrow.click_row(0)
    note("a row")
    where = tab.object_panel.table.mapTo(tab, tab.object_panel.table.rect().topLeft())
    narrow.click(*CENTERS[1])
    note("a click")
    assert not tab.folder_panel.next.isVisible(), "the object is committed or discarded first"
    assert tab.object_panel.table.mapTo(tab, tab.object_panel.table.rect().topLeft()) == where
    narrow.push(tab.stack_panel.start)
    note("planes")
    narrow.commit()
    narrow.undo()
    narrow.click_row(0)
    narrow.push(tab.buttons.clear)
    narrow.push(tab.buttons.everything)
    note("everything")
    tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    narrow.push(tab.automatic_panel.start)
    note("drafts")
    reject_one(narrow)
    narrow.undo()
    note("drafts, something undone")
    narrow.commit()
    narrow.push(tab.folder_panel.next)
    assert tab.folder_panel.place.text().startswith("2 of 2")
    narrow.pick(tab.folder_panel.previous)
    assert tab.folder_panel.place.text().startswith("1 of 2")
    too_many = {step: found for step, found in shown.items() if len(found) > MOST}
    assert not too_many


def test_the_level_is_named_while_it_cannot_be_chosen(narrow):
    narrow.viewer.add_image([gray(), gray()[::2, ::2]], name="slide")
    narrow.idle()
    level = narrow.tab.level
    assert level.isVisible()
    assert not level.stated.isVisible()
    narrow.click(*CENTERS[0])
    assert not level.isVisible()
    assert level.stated.isVisible()
    assert level.stated.text() == level.currentText() != ""
    narrow.commit()
    assert level.isVisible()


@pytest.mark.slow
def test_an_image_alone_is_named_and_not_chosen(narrow):
    narrow.viewer.add_image(gray(), name="discs")
    narrow.idle()
    channels = narrow.tab.channels
    assert channels.lone.isVisible()
    assert channels.lone.text() == "discs"
    assert not channels.image.isVisible()
    narrow.viewer.add_image(gray(), name="others")
    narrow.idle()
    assert channels.image.isVisible()
    assert not channels.lone.isVisible()


def test_table_save_and_status_are_seen_with_any_section(narrow):
    narrow.viewer.add_image(np.stack([gray()] * 3), name="stack")
    narrow.idle()
    narrow.add_object(*CENTERS[0])
    for name, section in narrow.tab.sections.items():
        section.set_open(True)
        narrow.idle()
        narrow.qtbot.waitUntil(lambda: in_sight(narrow))
        assert section.isVisible(), name
    assert [each for each in narrow.tab.sections.values() if each.is_open] == [section]


def test_a_section_is_opened_and_closed_in_the_menu(narrow):
    narrow.viewer.add_image(gray(), name="discs")
    narrow.idle()
    tab = narrow.tab
    assert not tab.entries["stack"].isVisible(), "the image has no planes"
    assert not tab.entries["learn"].isVisible(), "there are no objects"
    narrow.pick(tab.entries["settings"])
    assert tab.compute.isVisible()
    narrow.pick(tab.entries["model"])
    assert not tab.compute.isVisible(), "one at a time"
    assert tab.models.isVisible()
    QTest.mouseClick(tab.sections["model"].toggleButton(), Qt.MouseButton.LeftButton)
    assert not tab.models.isVisible()
    assert not tab.entries["model"].isChecked()


def test_settings_are_closed_when_marking_begins(narrow):
    narrow.viewer.add_image(gray(), name="discs")
    narrow.idle()
    narrow.pick(narrow.tab.entries["model"])
    narrow.click(*CENTERS[0])
    assert not narrow.tab.sections["model"].is_open
    narrow.pick(narrow.tab.entries["model"])
    narrow.click(*CENTERS[1])
    assert narrow.tab.sections["model"].is_open, "a further click is no new work"


@pytest.mark.slow
def test_while_an_object_is_made_nothing_moves(narrow):
    narrow.viewer.add_image(nucleus_in_cell(), name="cell")
    narrow.idle()
    tab = narrow.tab
    parts = [*tab.buttons.tools.values(), tab.buttons.commit, tab.object_panel.table]

    def places() -> list[int]:
        return [part.mapTo(tab, part.rect().topLeft()).y() for part in parts]

    before = places()
    narrow.click(100, 90)
    assert len([each for each in tab.candidates.buttons if each.isVisible()]) > 1
    assert places() == before
    narrow.commit()
    assert not tab.candidates.isVisible()
    assert places() == before


def test_a_shape_of_the_list_is_the_tool_of_its_button(narrow):
    narrow.viewer.add_image(gray(), name="discs")
    narrow.idle()
    shapes = narrow.tab.buttons.shapes
    narrow.pick(shapes.entries["polygon"])
    assert narrow.workspace.prompt_layers.tool == "polygon"
    assert shapes.isChecked()
    narrow.take(narrow.tab.buttons.tools["point"])
    assert not shapes.isChecked()
    narrow.take(shapes)
    assert narrow.workspace.prompt_layers.tool == "polygon", "a press takes what it shows"


def test_save_loads_as_long_as_there_are_no_objects(narrow, monkeypatch):
    narrow.viewer.add_image(gray(), name="discs")
    narrow.idle()
    asked = []
    for name in ("load", "save"):
        monkeypatch.setitem(narrow.tab.actions, name, lambda name=name: asked.append(name))
    narrow.push(narrow.tab.object_panel.save)
    narrow.add_object(*CENTERS[0])
    narrow.push(narrow.tab.object_panel.save)
    assert asked == ["load", "save"]


@pytest.mark.slow
def test_what_is_displayed_is_not_offered_among_drafts(narrow):
    nuclei = narrow.viewer.add_image(gray(), name="nuclei", colormap="blue", blending="additive")
    narrow.viewer.add_image(gray()[::-1], name="cells", colormap="green", blending="additive")
    narrow.idle()
    channels = narrow.tab.channels
    assert channels.displayed.isVisible()
    narrow.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    narrow.push(narrow.tab.buttons.everything)
    narrow.push(narrow.tab.automatic_panel.start)
    assert narrow.controller.review.has_drafts
    assert not channels.displayed.isVisible()
    assert len(controls(narrow.tab)) <= MOST, names(narrow.tab)
    narrow.push(narrow.tab.buttons.clear)
    assert channels.displayed.isVisible()
    assert nuclei.visible
