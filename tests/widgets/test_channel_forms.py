from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_simmat.widgets.channel_forms import ChannelsForm
from napari_simmat.widgets.channel_matching import LayerChannel, LayerInfo, first_taken
from tests.widgets.hands import Hands
from tests.widgets.scenes import CENTERS, discs, gray, iou
from tests.widgets.test_channel_matching import ANGLES, RGB, inputs, layer

LAYERS = [layer(name) for name in ("90 deg", "0 deg", "135 deg", "45 deg")]


@pytest.fixture
def form(qtbot: Any) -> ChannelsForm:
    form = ChannelsForm(asks_axis=True)
    qtbot.addWidget(form)
    qtbot.addWidget(form.details)
    form.set_inputs(ANGLES)
    form.set_layers(LAYERS)
    return form


def keys(form: ChannelsForm) -> list[str | None]:
    return [source and source.layer.removeprefix("key of ") for source in form.value()]


def test_it_fills_itself_by_name(form: ChannelsForm) -> None:
    assert keys(form) == list(ANGLES.names)
    assert form.problem() is None
    assert form._remark.isHidden()


def test_what_is_set_reads_back(form: ChannelsForm, qtbot: Any) -> None:
    for order in permutations(LayerChannel(each.key) for each in LAYERS):
        with qtbot.waitSignal(form.changed):
            form.set_value(order)
        assert form.value() == order
        assert [slot.currentText() for slot in form._slots] == keys(form)


def test_a_gap_reads_back_and_is_a_problem(form: ChannelsForm) -> None:
    with_gap = (*form.value()[:3], None)
    form.set_value(with_gap)
    assert form.value() == with_gap
    assert "no open layer is chosen for 135 deg" in str(form.problem())
    with pytest.raises(ValueError, match="one entry for each"):
        form.set_value(with_gap[:2])


def test_a_choice_by_hand_stays_while_other_layers_come_and_go(form: ChannelsForm) -> None:
    by_hand = tuple(reversed(form.value()))
    form.set_value(by_hand)
    form.set_layers([*LAYERS, layer("new")])
    assert form.value() == by_hand
    form.set_layers(LAYERS)
    assert form.value() == by_hand
    form.set_layers([each for each in LAYERS if each.name != "0 deg"])
    assert keys(form) == [None, "45 deg", "90 deg", "135 deg"], "one of it is gone: anew, by name"


def test_another_model_chooses_anew(form: ChannelsForm) -> None:
    form.set_value(tuple(reversed(form.value())))
    form.set_inputs(RGB)
    assert len(form.value()) == len(form._slots) == 3
    assert form.problem() is None
    form.set_inputs(ANGLES)
    assert keys(form) == list(ANGLES.names)
    form.set_inputs(None)
    assert form.problem() == "Choose a model."


def test_another_model_keeps_the_image_in_use(form: ChannelsForm) -> None:
    form.set_inputs(RGB)
    images = [layer(name, (3, 20, 30)) for name in "ab"]
    form.set_layers(images)
    assert form._image.currentText() == "b", "the topmost"
    for title in ("a", "a (first axis = channels)"):
        form._image.setCurrentIndex(form._image.findText(title))
        form._image.activated.emit(form._image.currentIndex())
        form.set_inputs(RGB)
        assert form._image.currentText() == title
        for model in (inputs("gray"), RGB):
            form.set_inputs(model)
            assert {each.layer for each in form.value() if each} == {"key of a"}


def test_layers_taken_in_their_order_are_remarked(form: ChannelsForm) -> None:
    form.set_layers([layer(name) for name in "abcd"])
    assert not form._remark.isHidden()
    assert "a as 0 deg" in form._remark.text()


def test_no_image(form: ChannelsForm) -> None:
    none: list[LayerInfo] = []
    form.set_layers(none)
    assert form._image.currentText() == "no image is open"
    assert form._fold.isHidden()


@pytest.mark.parametrize("model", [RGB, ANGLES, inputs("thermal")])
def test_of_more_channels_than_the_model_reads_any_can_be_chosen(
    model: Any, form: ChannelsForm
) -> None:
    bands = layer("bands", (48, 8, 9), channels_first=True)
    form.set_inputs(model)
    form.set_layers([bands])
    count = len(model.names)
    assert [each.part for each in form.value()] == list(range(count))
    assert form._remark.text() == first_taken(48, model)
    assert not form._fold.isHidden()
    assert form.first_axis.isChecked()
    form._slots[0].setCurrentText("bands · 47")
    form._slots[0].activated.emit(form._slots[0].currentIndex())
    assert [each.part for each in form.value()] == [47, *range(1, count)]
    assert form.problem() is None


def test_only_a_stack_has_an_axis_that_may_be_channels(form: ChannelsForm) -> None:
    form.set_inputs(RGB)
    form.set_layers([layer("photo", rgb=True), layer("plane")])
    assert form.first_axis.isHidden()
    form.set_layers([layer("stack", (48, 8, 9))])
    assert {each.part for each in form.value()} == {None}
    for model in (RGB, ANGLES):  # the second fits nothing yet
        form.set_inputs(model)
        assert not form.first_axis.isHidden()
        assert not form.first_axis.isChecked()


def test_the_user_says_that_an_axis_is_channels_and_picks_them(window: Hands) -> None:
    bands = np.random.default_rng(0).integers(0, 20, (48, *gray().shape)).astype(np.uint8)
    bands[40] = gray()
    window.viewer.add_image(bands, name="bands")
    window.open_widget()
    window.idle()
    channels = window.tab.channels
    channels._fold.set_open(True)
    box, titles = channels.first_axis, ["bands · 0", "bands · 1", "bands · 2"]
    assert [slot.currentText() for slot in channels._slots] == ["bands"] * 3
    press = QPoint(8, box.height() // 2), Qt.MouseButton.LeftButton
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in channels._slots] == titles
    for slot in channels._slots:
        window.choose(slot, "bands · 40")
    window.click(*CENTERS[0])
    window.key(Qt.Key.Key_C)
    objects = window.viewer.layers["SimMAT objects"].data
    assert objects.shape == gray().shape
    assert iou(objects > 0, discs()[1] == 1) > 0.85
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in channels._slots] == ["bands"] * 3
