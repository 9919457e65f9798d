"""The form of channels: what it chooses, what it keeps, what it proposes."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers._source import layer_source
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.widgets import channels_form
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.segment.layers.images_in_view import is_black
from napari_simmat.widgets.segment.work.plane_status import BLACK, EVEN
from tests.annotation.test_channel_choice import (
    ANGLES,
    FIELDS,
    LAYERS,
    PHOTO,
    RGB,
    inputs,
    layer,
    parts,
    whole,
)
from tests.widgets.hands import Hands
from tests.widgets.scenes import CENTERS, discs, gray, iou


@pytest.fixture
def form(qtbot):
    form = ChannelsForm(asks_axis=True)
    qtbot.addWidget(form)
    qtbot.addWidget(form.details)
    form.set_inputs(ANGLES)
    form.set_layers(LAYERS)
    return form


@pytest.fixture
def training(qtbot):
    form = ChannelsForm(named=True)
    qtbot.addWidget(form)
    qtbot.addWidget(form.details)
    form.set_layers(FIELDS)
    return form


def choose(choice: Any, text: str) -> None:
    choice.setCurrentIndex(choice.findText(text))
    choice.activated.emit(choice.currentIndex())


def test_form_fills_itself_by_name(form):
    assert form.value() == whole(*ANGLES.names)
    assert [field.text() for field in form.name_fields] == list(ANGLES.names)
    assert form.problem() is None
    assert form.remark.isHidden()


def test_form_reads_back_what_is_set(form, qtbot):
    for order in permutations(whole(*ANGLES.names)):
        with qtbot.waitSignal(form.changed):
            form.set_value(order)
        assert form.value() == order
        shown = [f"key of {slot.currentText()}" for slot in form.slots]
        assert shown == [each.layer for each in order]


def test_form_with_a_gap_reads_back_and_has_a_problem(form):
    with_gap = (*form.value()[:3], None)
    form.set_value(with_gap)
    assert form.value() == with_gap
    assert "no open layer is chosen for 135 deg" in str(form.problem())
    with pytest.raises(ValueError, match="one entry for each"):
        form.set_value(with_gap[:2])


def test_form_keeps_a_choice_while_its_layers_are_open(form):
    by_hand = tuple(reversed(form.value()))
    form.set_value(by_hand)
    for layers in ([*LAYERS, layer("new")], LAYERS):
        form.set_layers(layers)
        assert form.value() == by_hand
    form.set_layers([each for each in LAYERS if each.name != "0 deg"])
    assert form.value() == (None, *whole("45 deg", "90 deg", "135 deg"))


def test_form_with_another_model_chooses_for_that(form):
    by_hand = tuple(reversed(form.value()))
    form.set_value(by_hand)
    form.set_inputs(RGB)
    assert len(form.value()) == len(form.slots) == 3
    assert form.problem() is None
    form.set_inputs(ANGLES)
    assert form.value() == by_hand, "it is remembered"
    form.set_inputs(None)
    assert form.problem() == "Choose a model."


def test_form_with_another_model_keeps_the_image(form):
    form.set_inputs(RGB)
    form.set_layers([layer(name, (3, 20, 30)) for name in "ab"])
    assert form.image.currentText() == "b", "the topmost"
    for title in ("a", "a (first axis = channels)"):
        choose(form.image, title)
        form.set_inputs(RGB)
        assert form.image.currentText() == title
        for model in (inputs("gray"), RGB):
            form.set_inputs(model)
            assert {each.layer for each in form.value() if each} == {"key of a"}


def test_form_without_an_image_says_so(form):
    form.set_layers([])
    assert form.image.currentText() == channels_form.NO_IMAGE
    assert form.section.isHidden()


@pytest.mark.parametrize("model", [RGB, ANGLES, inputs("thermal")])
def test_form_of_many_channels_offers_each(model, form):
    form.set_inputs(model)
    form.set_layers([layer("bands", (48, 8, 9), channels_first=True)])
    count = len(model.names)
    assert form.value() == parts("bands", *range(count))
    assert form.remark.text().startswith("The first of 48 channels are taken: 0 as ")
    assert not form.section.isHidden()
    assert form.first_axis.isChecked()
    choose(form.slots[0], "bands · 47")
    assert form.value() == parts("bands", 47, *range(1, count))
    assert form.problem() is None


def test_form_asks_about_the_first_axis_of_stacks_only(form):
    form.set_inputs(RGB)
    form.set_layers([PHOTO, layer("plane")])
    assert form.first_axis.isHidden()
    form.set_layers([layer("stack", (48, 8, 9))])
    assert form.value() == whole("stack", "stack", "stack")
    for model in (RGB, ANGLES):  # the second fits nothing yet
        form.set_inputs(model)
        assert not form.first_axis.isHidden()
        assert not form.first_axis.isChecked()


def test_form_for_training_takes_layers_of_one_size(training):
    assert training.names == ("DAPI", "GFP", "45 deg")
    assert training.value() == whole(*[each.name for each in FIELDS])
    assert training.problem() is None
    assert training.section.text().endswith("3 channels: DAPI, GFP, 45 deg")


def test_form_for_training_reads_back_what_is_set(training, qtbot):
    pairs = list(zip(training.names, training.value(), strict=True))
    for order in [*permutations(pairs, 2), (("a", None), pairs[0])]:
        names, sources = zip(*order, strict=True)
        with qtbot.waitSignal(training.changed):
            training.set_value(sources, names)
        assert (training.value(), training.names) == (sources, names)
        assert tuple(field.text() for field in training.name_fields) == names
    assert "No layer is chosen for channel a" in str(training.problem())


def test_form_for_training_adds_names_and_removes_channels(training):
    choose(training.image, "field 1 GFP")
    assert training.names == ("field 1 GFP",)
    QTest.mouseClick(training.add, Qt.MouseButton.LeftButton)
    assert training.names == ("field 1 GFP", "field 1 DAPI")
    training.name_fields[0].selectAll()
    QTest.keyClicks(training.name_fields[0], "GFP, new")
    assert training.names[0] == "GFP, new"
    assert "cannot be a channel's name" in str(training.problem())
    training.name_fields[0].selectAll()
    QTest.keyClicks(training.name_fields[0], "FIELD 1 DAPI")
    assert "Two channels are called field 1 dapi" in str(training.problem())
    QTest.mouseClick(training.removes[0], Qt.MouseButton.LeftButton)
    assert training.names == ("field 1 DAPI",)
    assert training.problem() is None


@pytest.fixture
def bands():
    """48 channels, three of which show the discs: 39, 41 and, best of all, 42."""
    noise = np.random.default_rng(0).normal(40, 20, (48, *gray().shape))
    for number, contrast in ((39, 0.5), (41, 0.7), (42, 1.0)):
        noise[number] = contrast * gray() + 0.05 * noise[number]
    return noise.clip(0, 255).astype(np.uint8)


def numbers(window: Hands) -> list[int]:
    """The numbers of the channels that are chosen."""
    return [each.part for each in window.tab.channels.value()]


def chosen(window: Hands) -> list[int]:
    """The numbers of the channels that are chosen, also as the lists show them."""
    form = window.tab.channels
    shown = [slot.currentText() for slot in form.slots]
    assert shown == [f"bands · {each.part}" for each in form.value()]
    return numbers(window)


def open_bands(window, bands, tmp_path, name="bands"):
    """Open them as napari does: nobody has said which are to be segmented."""
    path = tmp_path / f"{name}.tif"
    tifffile.imwrite(path, bands, metadata={"axes": "CYX"})
    with layer_source(path=str(path), reader_plugin="napari"):
        layer = window.viewer.add_image(tifffile.imread(path), name=name)
    if window.widget is None:
        window.start()
    window.idle()
    return layer


def choose_parts(window: Hands, *numbers: int) -> None:
    window.tab.channels.section.set_open(True)
    for slot, number in zip(window.tab.channels.slots, numbers, strict=True):
        choose(slot, f"bands · {number}")
        window.idle()


@pytest.mark.slow
def test_form_remembers_the_channels_of_each_image(window, bands):
    window.open(bands, name="bands", axis_labels=("channel", "y", "x"))
    assert chosen(window) == [42, 41, 39]
    choose_parts(window, 41, 42, 39)
    other = window.viewer.add_image(gray(), name="other")
    window.idle()
    assert window.tab.channels.image.currentText() == "other"
    window.viewer.layers.remove(other)
    window.idle()
    assert chosen(window) == [41, 42, 39]
    assert not window.tab.channels.remark.isVisible()
    window.viewer.add_image(gray(), name="third")
    window.idle()
    choose(window.tab.channels.image, "bands (first axis = channels)")
    window.idle()
    assert chosen(window) == [41, 42, 39]
    window.close_widget()
    window.viewer.layers.remove("third")
    window.start()
    assert chosen(window) == [41, 42, 39]
    window.click(*CENTERS[0])
    assert iou(window.mask, discs()[1] == 1) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in another window", "an alike image"])
def test_form_takes_the_channels_chosen_before(window, open_window, bands, how):
    window.open(bands, name="bands", axis_labels=("channel", "y", "x"))
    choose_parts(window, 42, 41, 39)
    window.viewer.layers.clear()
    if how == "in another window":
        window.release()
        window = open_window()
        window.open(gray(), name="other")
    alike = how == "an alike image"
    window.viewer.add_image(bands.copy() + alike, name="bands", axis_labels=("channel", "y", "x"))
    window.idle()
    assert chosen(window) == [42, 41, 39]
    said = channels_form.AS_BEFORE.format(parts="42, 41, 39")
    assert (window.tab.channels.remark.text() == said) == alike


def test_form_takes_the_one_stain_chosen_before(window):
    stains = np.stack([gray(), 255 - gray()])
    for number in range(2):
        added = window.viewer.add_image(
            stains + number, name="bands", axis_labels=("channel", "y", "x")
        )
        if number == 0:
            window.start()
            assert chosen(window) == [0, 0, 0]
            choose_parts(window, 1, 1, 1)
            window.viewer.layers.remove(added)
        window.idle()
    assert chosen(window) == [1, 1, 1]
    assert window.tab.channels.remark.text() == channels_form.AS_BEFORE.format(parts="1")


@pytest.mark.slow
def test_form_offers_the_channel_that_is_displayed(window, bands, tmp_path):
    open_bands(window, bands, tmp_path)
    form = window.tab.channels
    window.viewer.dims.set_current_step(0, 7)
    window.idle()
    assert form.shown.text().startswith("Displayed: bands · 7. Segmented: bands · 42, ")
    window.viewer.dims.set_current_step(0, 39)
    window.push(form.use_ranked)
    window.push(form.displayed)
    assert chosen(window) == [39, 39, 39]
    assert not form.displayed.isVisible()


def test_form_offers_layers_that_are_displayed_together(window):
    for name, color in (("b", "blue"), ("g", "green"), ("r", "red")):
        window.viewer.add_image(gray(), name=name, colormap=color, blending="additive")
    window.start()
    form = window.tab.channels
    window.choose(form.image, "g")
    window.push(form.displayed)
    layers = window.viewer.layers
    assert form.value() == tuple(LayerChannel(str(layers[name].unique_id)) for name in "rgb")


def test_form_of_an_unnamed_stack_points_to_its_box(window):
    layer = window.open(np.stack([gray()] * 5), name="stack")
    assert channels_form.FIRST_AXIS in window.tab.channels.hint.text()
    assert window.tab.channels.hint.isVisible()
    layer.axis_labels = ("z", "y", "x")
    window.viewer.add_image(gray(), name="other", visible=False)
    window.idle()
    assert not window.tab.channels.hint.isVisible()


def test_form_in_the_tab_takes_the_first_axis_for_channels(window, bands):
    window.open(bands, name="bands")
    form = window.tab.channels
    form.section.set_open(True)
    box, titles = form.first_axis, ["bands · 42", "bands · 41", "bands · 39"]
    assert [slot.currentText() for slot in form.slots] == ["bands"] * 3
    press = QPoint(8, box.height() // 2), Qt.MouseButton.LeftButton
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in form.slots] == titles
    choose_parts(window, 42, 42, 42)
    window.add_object(*CENTERS[0])
    objects = window.viewer.layers["SimMAT objects"].data
    assert objects.shape == gray().shape
    assert iou(objects > 0, discs()[1] == 1) > 0.85
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in form.slots] == ["bands"] * 3


def test_a_photo_in_use_stays_with_a_model_of_one_channel(qtbot):
    """The remark says which of its colors is read; the others are offered beside it."""
    form = ChannelsForm()
    qtbot.addWidget(form)
    qtbot.addWidget(form.details)
    form.set_inputs(RGB)
    form.set_layers([PHOTO, layer("gray", (4, 4))], PHOTO.key)
    assert form.value() == parts("photo", 0, 1, 2)
    form.set_inputs(inputs("thermal"))
    assert form.value() == parts("photo", 1)
    assert "green of photo" in form.remark.text()
    assert form.problem() is None
    assert form.image.findText("gray") >= 0
    form.set_inputs(RGB)
    assert {each.layer for each in form.value()} == {PHOTO.key}


def test_form_takes_and_shows_the_channels_that_show_something(window, bands, tmp_path):
    layer = open_bands(window, bands, tmp_path)
    form = window.tab.channels
    assert chosen(window) == [42, 41, 39], "in place of three empty ones"
    assert form.remark.text() == channels_form.PROPOSED.format(names="42, 41, 39")
    assert window.viewer.dims.current_step[0] == 42
    assert not is_black(layer)
    assert window.status.text.startswith("Ready")
    assert form.use_ranked.isVisible(), "to change them is one press, beside the warning"
    assert form.use_ranked.text() == "Use 0, 1, 2"
    window.click(*CENTERS[0])
    assert iou(window.mask, discs()[1] == 1) > 0.85
    window.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    window.push(form.use_ranked)
    assert chosen(window) == [0, 1, 2]
    window.push(form.use_ranked)
    assert chosen(window) == [42, 41, 39]


def test_form_keeps_the_channels_for_the_next_image_of_its_kind(window, bands, tmp_path):
    open_bands(window, bands, tmp_path)
    first = chosen(window)
    other = np.concatenate([bands, bands[:1]])
    open_bands(window, np.roll(bands, 1, axis=0), tmp_path, "next")
    assert numbers(window) == first, "of as many channels"
    open_bands(window, other, tmp_path, "another kind")
    assert window.tab.channels.remark.text().startswith("Channels 42, 41, 39 are taken: they")


def test_form_leaves_channels_alone_once_work_has_begun(window, bands, tmp_path):
    window.open_widget()
    ranking = window.tab.image_choice._ranking
    held = []
    ranking.returned.disconnect()
    ranking.returned.connect(held.append)
    open_bands(window, bands, tmp_path)
    window.click(*CENTERS[0])
    window.tab.image_choice._on_ranked(held[0])
    assert chosen(window) == [0, 1, 2]
    assert window.tab.channels.use_ranked.text() == "Use 42, 41, 39"


@pytest.mark.parametrize("even", [False, True])
def test_ready_is_not_said_of_a_black_canvas(window, even):
    image = np.full_like(gray(), 7) if even else gray()
    layer = window.open(image, name="dark", contrast_limits=(0, 100_000))
    if even:
        assert window.status.text.startswith(EVEN.format(image="dark"))
        assert not window.status.offer
        return
    assert window.status.text == BLACK.format(image="dark")
    window.push(window.tab.status.offer)
    assert layer.contrast_limits[1] < 300
    assert window.status.text.startswith("Ready")


def test_choice_by_hand_is_named_by_its_channels(form):
    form.set_inputs(RGB)
    form.set_layers([layer("bands", (48, 8, 9), channels_first=True)])
    choose(form.slots[0], "bands · 47")
    assert form.image.currentText() == "bands: 47, 1, 2"
