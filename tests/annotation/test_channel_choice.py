from itertools import permutations

import numpy as np
import pytest

from napari_simmat.annotation import channel_choice as channels
from napari_simmat.annotation.channel_choice import (
    LayerChannel,
    LayerInfo,
    are_aligned,
    channel_mappings,
    channel_names,
    channels_problem,
    labels_problem,
    mapping_remark,
    match_slots,
    matching_channels,
    measured_names,
)
from napari_simmat.models.spec import InputChannels


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


@pytest.mark.parametrize("other", ["135 deg", "1"])
def test_an_order_is_guessed_only_where_no_name_matches(other):
    """Three layers of four that are named, and one that is not; four that nothing is named of."""
    some = [layer(name) for name in ("90 deg", "0 deg", "other", "45 deg")]
    assert channel_mappings(some, ANGLES) == []
    stack = [*some, layer("stack", (4, 8, 9), channels_first=True)]
    assert [each.sources for each in channel_mappings(stack, ANGLES)] == [
        parts("stack", 0, 1, 2, 3)
    ]
    none = [layer(name) for name in ("a", "b", "c", "d")]
    [guess] = channel_mappings(none, ANGLES)
    assert guess.sources == whole("a", "b", "c", "d")
    assert "in the order" in guess.remark
    banded = layer("b", (4, 8, 9), channels_first=True, bands=("0 deg", "45 deg", "x", other))
    assert channel_mappings([banded], ANGLES) == []


def test_one_group_with_a_name_keeps_another_from_being_guessed():
    named = [layer(name) for name in ("90 deg", "0 deg", "other", "45 deg")]
    elsewhere = [layer(name, (5, 6)) for name in ("a", "b", "c", "d")]
    assert channel_mappings([*named, *elsewhere], ANGLES) == []


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        (("45 deg", "0 deg"), [1, 0]),
        (("0 deg", "other"), [0, None]),
        (("a", "b"), [0, 1]),
        (("a", "b", "c"), [None, None]),
    ],
)
def test_matching_channels_go_by_order_where_no_name_matches(named, taken):
    layers = [layer(name) for name in named]
    assert matching_channels(["0 deg", "45 deg"], whole(*named), layers) == taken


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
        ([layer("stains", (2, 5, 8, 9), channels_first=True)], RGB, parts("stains", 0, 0, 0)),
        ([SPECTRUM], inputs("thermal"), parts("spectrum", 0)),
        (FIELDS, None, whole(*[each.name for each in FIELDS])),
    ],
)  # fmt: skip
def test_channel_mappings_of_layers_begins_with_the_likeliest(layers, model, sources):
    assert best(layers, model) == sources


@pytest.mark.parametrize(
    ("bands", "said"), [(("DAPI", "GFP"), "Only channel DAPI of 2 is read"), (("DAPI",), "")]
)
def test_channels_too_few_for_colors_are_not_taken_for_planes(bands, said):
    stains = layer("stains", (len(bands), 8, 9), channels_first=True, bands=bands)
    first = channel_mappings([stains], RGB)[0]
    assert first.sources == parts("stains", 0, 0, 0)
    assert first.remark.startswith(said)
    assert bool(first.remark) == bool(said)
    assert (
        channels.all_image_channels(first.sources, [stains]) == parts("stains", 0, 1)[: len(bands)]
    )


def test_channel_mappings_of_a_stack_of_other_length_is_empty():
    assert channel_mappings([layer("stack", (5, 8, 9))], ANGLES) == []


def test_channel_mappings_lists_single_layers_the_topmost_first():
    found = channel_mappings([layer("a", (4, 4)), layer("b", (5, 5))], RGB)
    assert [each.title for each in found] == ["b", "a"]


@pytest.mark.parametrize("model", [RGB, inputs("thermal"), None])
def test_channel_mappings_with_a_preferred_layer_begins_with_it(model):
    layers = [layer("a", (4, 4)), layer("b", (5, 5))]
    assert channel_mappings(layers, model, "key of a")[0].title == "a"


def test_colors_are_offered_to_a_model_of_one_channel():
    """Behind gray images, unless the photograph is in use."""
    layers, thermal = [layer("gray"), PHOTO], inputs("thermal")
    titles = ["photo · green", "photo · red", "photo · blue"]
    assert [each.title for each in channel_mappings(layers, thermal)] == ["gray", *titles]
    used = channel_mappings(layers, thermal, PHOTO.key)
    assert [each.title for each in used] == [*titles, "gray"]
    assert used[0].remark == (
        "Only channel green of photo is read, as gray. Choose others under Channels."
    )
    assert channels_problem(thermal.names, used[0].sources, layers, thermal) is None
    assert best([PHOTO], inputs("Red")) == parts("photo", 0)


def test_named_layers_do_not_displace_the_image_in_use():
    layers = [*LAYERS, layer("stack", (4, 5, 5))]
    assert channel_mappings(layers, ANGLES)[0].sources != parts("stack", 0, 1, 2, 3)
    assert channel_mappings(layers, ANGLES, "key of stack")[0].sources == parts("stack", 0, 1, 2, 3)


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


def test_labels_problem_says_why_labels_are_not_of_an_image():
    here = np.diag([0.5, 0.5, 1.0])
    image = layer("image", placement=tuple(here.ravel()))
    stack = layer("stack", (4, 8, 9))
    moved = layer("moved", placement=tuple((here + np.eye(3, k=2)).ravel()))
    found = {
        name: labels_problem(labels, whole("image"), [stack, image])
        for name, labels in {"none": None, "fits": image, "stack": stack, "moved": moved}.items()
    }
    assert found == {
        "none": channels.NO_LABELS.format("image"),
        "fits": None,
        "stack": channels.LABELS_SHAPE.format("stack", "4 x 8 x 9", "image", "8 x 9"),
        "moved": channels.LABELS_ELSEWHERE.format("moved", "image"),
    }


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


def test_measured_names_are_those_of_the_command_line():
    """Captures of single bands get the columns that `simmat segment` gives them."""
    names = ("IMG_0001_1", "IMG_0001_2", "IMG_0001_5")
    opened = [layer(name) for name in names]
    measured = measured_names(whole(*names), opened)
    assert [*measured.values()] == ["band1", "band2", "band5"]
    twice = [layer("t1"), LayerInfo(key="other", name="t1", shape=(8, 9))]
    both = measured_names([LayerChannel(each.key) for each in twice], twice)
    assert len(set(both.values())) == 2
    assert [*measured_names(whole("scan"), [layer("scan")]).values()] == ["channel0"]
    colors = [LayerChannel(PHOTO.key, part) for part in range(3)]
    assert [*measured_names(colors, [PHOTO]).values()] == ["red", "green", "blue"]
