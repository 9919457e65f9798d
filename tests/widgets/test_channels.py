from itertools import permutations
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets import channels
from napari_simmat.widgets.channels import (
    ChannelsForm,
    LayerChannel,
    LayerInfo,
    are_aligned,
    channel_mappings,
    channel_names,
    channels_problem,
    mapping_remark,
    match_slots,
)
from tests.widgets.scenes import CENTERS, discs, gray, iou


def inputs(*names: str, is_rgb: bool = False) -> InputChannels:
    return InputChannels(names=names, is_rgb=is_rgb, reader="model")


def layer(name: str, shape: tuple[int, ...] = (8, 9), **more: object) -> LayerInfo:
    return LayerInfo(key=f"key of {name}", name=name, shape=shape, **more)


def whole(*names: str) -> tuple[LayerChannel, ...]:
    return tuple(LayerChannel(f"key of {name}") for name in names)


def parts(name: str, *numbers: int) -> tuple[LayerChannel, ...]:
    return tuple(LayerChannel(f"key of {name}", number) for number in numbers)


def best(layers: list[LayerInfo], model: InputChannels | None) -> tuple[LayerChannel, ...]:
    return channel_mappings(layers, model)[0].sources


RGB = inputs("red", "green", "blue", is_rgb=True)
ANGLES = inputs("0 deg", "45 deg", "90 deg", "135 deg")
LAYERS = [layer(name) for name in ("90 deg", "0 deg", "135 deg", "45 deg")]
FIELDS = [layer(name) for name in ("field 1 DAPI", "field 1 GFP", "field 1 45 deg")]
PHOTO, STACK = layer("photo", rgb=True), layer("stack", (3, 8, 9))
SPECTRUM = layer("spectrum", (6, 8, 9), channels_first=True)


@pytest.mark.parametrize(
    "names",
    [
        ("0 deg", "45 deg", "90 deg", "135 deg"),
        ("I0", "I45", "I90", "I135"),
        ("scene_0", "scene_45", "scene_90", "scene_135"),
        ("car 0°", "car 45°", "car 90°", "car 135°"),
    ],
)
def test_channel_mappings_of_names_in_any_order_sorts_them(names):
    for order in permutations(names):
        assert best([layer(name) for name in order], ANGLES) == whole(*names)


def test_channel_mappings_with_a_missing_name_guesses_nothing():
    layers = [layer(name) for name in ("135 deg", "0 deg", "45 deg", "something")]
    assert channel_mappings(layers, ANGLES) == []
    gaps = match_slots(layers, ANGLES)
    assert gaps == (*whole("0 deg", "45 deg"), None, *whole("135 deg"))
    problem = channels_problem(ANGLES.names, gaps, layers, ANGLES)
    assert "no open layer is chosen for 90 deg" in str(problem)


def test_match_slots_with_ambiguous_names_leaves_gaps():
    layers = [layer(name) for name in ("a 45", "b 45", "0 deg", "135 deg")]
    assert match_slots(layers, ANGLES) == (*whole("0 deg"), None, None, *whole("135 deg"))


def test_channel_mappings_without_names_takes_the_order():
    found = channel_mappings([layer(name) for name in "abcd"], ANGLES)[0]
    assert found.sources == whole(*"abcd")
    assert "a as 0 deg" in found.remark


@pytest.mark.parametrize(
    ("layers", "model", "sources"),
    [
        ([layer("stack", (4, 8, 9))], ANGLES, parts("stack", 0, 1, 2, 3)),
        ([layer("gray")], RGB, whole("gray", "gray", "gray")),
        ([layer("a"), layer("b"), layer("c"), layer("other", (4, 4))], RGB, whole(*"abc")),
        ([layer("x_blue"), layer("x_red"), layer("x_green")], RGB,
         whole("x_red", "x_green", "x_blue")),
        ([PHOTO], RGB, parts("photo", 0, 1, 2)),
        ([STACK], RGB, whole("stack", "stack", "stack")),
        ([layer("stack", (3, 8, 9), channels_first=True)], RGB, parts("stack", 0, 1, 2)),
        ([SPECTRUM], inputs("thermal"), parts("spectrum", 0)),
        (FIELDS, None, whole(*[each.name for each in FIELDS])),
    ],
)  # fmt: skip
def test_channel_mappings_of_layers_begins_with_the_likeliest(layers, model, sources):
    assert best(layers, model) == sources


def test_channel_mappings_of_a_stack_of_other_length_is_empty():
    assert channel_mappings([layer("stack", (5, 8, 9))], ANGLES) == []


def test_channel_mappings_lists_single_layers_the_topmost_first():
    found = channel_mappings([layer("a", (4, 4)), layer("b", (5, 5))], RGB)
    assert [each.title for each in found] == ["b", "a"]


@pytest.mark.parametrize("model", [RGB, inputs("thermal"), None])
def test_channel_mappings_with_a_preferred_layer_begins_with_it(model):
    layers = [layer("a", (4, 4)), layer("b", (5, 5))]
    assert channel_mappings(layers, model, "key of a")[0].title == "a"


def test_channel_mappings_without_a_model_lists_all_images():
    titles = [each.title for each in channel_mappings([STACK, SPECTRUM, PHOTO], None)]
    assert titles == [
        "spectrum (first axis = channels)",
        "photo (RGB)",
        "stack",
        "stack (first axis = channels)",
    ]


def test_channel_mappings_of_layers_elsewhere_stay_single():
    here, there = (1.0,) * 9, (2.0,) * 9
    layers = [
        layer("a", placement=here),
        layer("b", placement=here),
        layer("c", placement=there),
    ]
    assert all(len(set(each.sources)) == 1 for each in channel_mappings(layers, RGB))
    mixed = whole(*"abc")
    assert channels_problem(RGB.names, mixed, layers, RGB) is None
    assert "c lies elsewhere than a" in mapping_remark(mixed, layers)


def test_all_layer_channels_of_a_photograph_are_its_colors():
    titles = [title for title, _ in channels.all_layer_channels([PHOTO])]
    assert titles == ["photo · red", "photo · green", "photo · blue"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ((*whole("a"), None, None, None), "no open layer is chosen for 45 deg, 90 deg"),
        (whole(*"aaaa"), "chosen twice"),
        (
            whole("a", "b", "small", "c"),
            "small has 4 x 4 pixels, but a has 8 x 9: choose layers of one size",
        ),
        (whole("gone", *"aaa"), "no open layer is chosen for 0 deg"),
    ],
)
def test_channels_problem_for_a_model_is_one_sentence(sources, words):
    layers = [layer("a"), layer("b"), layer("c"), layer("small", (4, 4))]
    assert words in str(channels_problem(ANGLES.names, sources, layers, ANGLES))
    assert channels_problem(RGB.names, (None,) * 3, [], RGB) == channels.NO_IMAGE_OPEN


@pytest.mark.parametrize(
    ("names", "sources", "problem"),
    [
        ((), (), channels.NO_CHANNEL),
        (("x", "y"), (*whole("a"), None), channels.NO_LAYER.format("y")),
        (("a_labels",), whole("a"), channels.NAME_REFUSED.format("a_labels")),
        (("GFP, new",), whole("a"), channels.NAME_REFUSED.format("GFP, new")),
        (("x", "X"), whole("a", "b"), channels.NAMED_TWICE.format("x")),
        (("x", "y"), whole("a", "a"), channels.CHOSEN_TWICE),
        (("x", "y"), whole("a", "b"), None),
    ],
)
def test_channels_problem_for_training_is_one_sentence(names, sources, problem):
    assert channels_problem(names, sources, [layer("a"), layer("b")]) == problem
    assert channels_problem(names, sources, []) == channels.NO_IMAGE_TO_TRAIN_ON


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("what", ["scale", "translate"])
def test_are_aligned_compares_the_axes_that_both_have(axis, what):
    here = np.diag([3.0, 0.5, 0.5, 1.0])
    there = here.copy()
    there[axis, axis if what == "scale" else -1] += 1
    first = layer("first", (4, 8, 9), placement=tuple(here.ravel()))
    other = layer("other", (4, 8, 9), placement=tuple(there.ravel()))
    plane = layer("plane", placement=tuple(here[1:, 1:].ravel()))
    assert are_aligned(first, first)
    assert not are_aligned(first, other)
    assert are_aligned(first, plane)
    assert are_aligned(other, plane) == (axis == 0)
    assert mapping_remark(whole("first", "other"), [first, other])


@pytest.mark.parametrize(
    ("layers", "sources", "names"),
    [
        (FIELDS, whole(*[each.name for each in FIELDS]), ("DAPI", "GFP", "45 deg")),
        (FIELDS, whole("field 1 GFP"), ("field 1 GFP",)),
        ([PHOTO], parts("photo", 0, 1, 2), ("red", "green", "blue")),
        ([SPECTRUM], parts("spectrum", 0, 1), ("channel 0", "channel 1")),
    ],
)
def test_channel_names_leave_out_what_all_share(layers, sources, names):
    assert channel_names(sources, layers) == names


@pytest.mark.parametrize(
    ("names", "made"),
    [
        (("a/b", "a:b", "labels", "  ", "x" * 200),
         ("a-b", "a-b 2", "channel labels", "channel", "x" * 60)),
        # A file of that name would be taken for objects.
        (("a_labels", "_labels", "x" * 60 + "_labels", "b_Labels_"),
         ("a labels", "channel labels", "x" * 60, "b_Labels_")),
    ],
)  # fmt: skip
def test_channel_names_are_names_that_files_can_have(names, made):
    assert channel_names(whole(*names), [layer(name) for name in names]) == made


# ------------------------------------------------------------------------ the form


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


def test_form_with_another_model_chooses_anew(form):
    form.set_value(tuple(reversed(form.value())))
    form.set_inputs(RGB)
    assert len(form.value()) == len(form.slots) == 3
    assert form.problem() is None
    form.set_inputs(ANGLES)
    assert form.value() == whole(*ANGLES.names)
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


def test_form_of_layers_in_their_order_shows_a_remark(form):
    form.set_layers([layer(name) for name in "abcd"])
    assert not form.remark.isHidden()
    assert "a as 0 deg" in form.remark.text()


def test_form_without_an_image_says_so(form):
    form.set_layers([])
    assert form.image.currentText() == channels.NO_IMAGE
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


def test_form_in_the_tab_takes_the_first_axis_for_channels(window):
    bands = np.random.default_rng(0).integers(0, 20, (48, *gray().shape)).astype(np.uint8)
    bands[40] = gray()
    window.viewer.add_image(bands, name="bands")
    window.open_widget()
    window.idle()
    form = window.tab.channels
    form.section.set_open(True)
    box, titles = form.first_axis, ["bands · 0", "bands · 1", "bands · 2"]
    assert [slot.currentText() for slot in form.slots] == ["bands"] * 3
    press = QPoint(8, box.height() // 2), Qt.MouseButton.LeftButton
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in form.slots] == titles
    for slot in form.slots:
        window.choose(slot, "bands · 40")
    window.click(*CENTERS[0])
    window.key(Qt.Key.Key_C)
    objects = window.viewer.layers["SimMAT objects"].data
    assert objects.shape == gray().shape
    assert iou(objects > 0, discs()[1] == 1) > 0.85
    QTest.mouseClick(box, press[1], pos=press[0])
    window.idle()
    assert [slot.currentText() for slot in form.slots] == ["bands"] * 3
