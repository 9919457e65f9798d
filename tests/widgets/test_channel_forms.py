from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from napari_simmat.widgets.channel_forms import ChannelsForm
from napari_simmat.widgets.channel_matching import LayerChannel, LayerInfo
from tests.widgets.test_channel_matching import ANGLES, RGB, inputs, layer

LAYERS = [layer(name) for name in ("90 deg", "0 deg", "135 deg", "45 deg")]


@pytest.fixture
def form(qtbot: Any) -> ChannelsForm:
    form = ChannelsForm()
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
        for model in (inputs("grey"), RGB):
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
