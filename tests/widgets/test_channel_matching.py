from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets import channel_matching
from napari_simmat.widgets.channel_matching import LayerChannel, LayerInfo


def inputs(*names: str, is_rgb: bool = False) -> InputChannels:
    return InputChannels(names=names, is_rgb=is_rgb, reader="model")


RGB = inputs("red", "green", "blue", is_rgb=True)
ANGLES = inputs("0 deg", "45 deg", "90 deg", "135 deg")


def layer(name: str, shape: tuple[int, ...] = (8, 9), **more: object) -> LayerInfo:
    return LayerInfo(key=f"key of {name}", name=name, shape=shape, **more)


def chosen(sources: tuple[LayerChannel | None, ...]) -> list[str | None]:
    return [None if source is None else source.layer.removeprefix("key of ") for source in sources]


@pytest.mark.parametrize(
    "names",
    [
        ("0 deg", "45 deg", "90 deg", "135 deg"),
        ("I0", "I45", "I90", "I135"),
        ("scene_0", "scene_45", "scene_90", "scene_135"),
        ("car 0°", "car 45°", "car 90°", "car 135°"),
    ],
)
def test_layers_in_any_order_are_sorted_by_name(names: tuple[str, ...]) -> None:
    for order in permutations(names):
        layers = [layer(name) for name in order]
        assert chosen(channel_matching.channel_mappings(layers, ANGLES)[0].sources) == list(names)


def test_a_missing_channel_is_named_and_nothing_is_guessed() -> None:
    layers = [layer("135 deg"), layer("0 deg"), layer("45 deg"), layer("something")]
    assert channel_matching.channel_mappings(layers, ANGLES) == []
    gaps = channel_matching.match_slots(layers, ANGLES)
    assert chosen(gaps) == ["0 deg", "45 deg", None, "135 deg"]
    problem = channel_matching.mapping_problem(gaps, layers, ANGLES)
    assert problem is not None
    assert "90 deg" in problem
    assert "no open layer is chosen for 90 deg" in problem


def test_ambiguous_names_match_nothing() -> None:
    layers = [layer("a 45"), layer("b 45"), layer("0 deg"), layer("135 deg")]
    assert chosen(channel_matching.match_slots(layers, ANGLES)) == ["0 deg", None, None, "135 deg"]


def test_nameless_layers_are_taken_in_their_order_with_a_remark() -> None:
    layers = [layer(name) for name in "abcd"]
    found = channel_matching.channel_mappings(layers, ANGLES)[0]
    assert chosen(found.sources) == ["a", "b", "c", "d"]
    assert "a as 0 deg" in found.remark


def test_a_first_axis_of_the_right_length_feeds_the_model() -> None:
    found = channel_matching.channel_mappings([layer("stack", (4, 8, 9))], ANGLES)[0]
    assert found.sources == tuple(LayerChannel("key of stack", n) for n in range(4))
    assert channel_matching.channel_mappings([layer("stack", (5, 8, 9))], ANGLES) == []


def test_one_layer_feeds_all_three_slots_of_an_rgb_foundation() -> None:
    found = channel_matching.channel_mappings([layer("gray")], RGB)[0]
    assert chosen(found.sources) == ["gray"] * 3
    assert channel_matching.mapping_problem(found.sources, [layer("gray")], RGB) is None


def test_three_layers_of_one_shape_feed_an_rgb_foundation_in_order() -> None:
    layers = [layer("a"), layer("b"), layer("c"), layer("other", (4, 4))]
    found = channel_matching.channel_mappings(layers, RGB)
    assert chosen(found[0].sources) == ["a", "b", "c"]
    assert chosen(found[1].sources) == ["other"] * 3, "single layers follow, the topmost first"


def test_named_colors_are_sorted() -> None:
    layers = [layer("x_blue"), layer("x_red"), layer("x_green")]
    assert chosen(channel_matching.channel_mappings(layers, RGB)[0].sources) == [
        "x_red",
        "x_green",
        "x_blue",
    ]


def test_the_active_layer_is_preferred() -> None:
    layers = [layer("a", (4, 4)), layer("b", (5, 5))]
    assert channel_matching.channel_mappings(layers, RGB)[0].title == "b"
    assert channel_matching.channel_mappings(layers, RGB, "key of a")[0].title == "a"


def test_an_rgb_layer_gives_its_colors() -> None:
    photo = layer("photo", rgb=True)
    assert channel_matching.channel_mappings([photo], RGB)[0].sources == tuple(
        LayerChannel(photo.key, n) for n in range(3)
    )
    assert [title for title, _ in channel_matching.all_layer_channels([photo])] == [
        "photo · red",
        "photo · green",
        "photo · blue",
    ]


def test_a_stack_of_three_planes_is_a_stack_unless_its_axis_says_channel() -> None:
    stack = layer("stack", (3, 8, 9))
    assert (
        channel_matching.channel_mappings([stack], RGB)[0].sources == (LayerChannel(stack.key),) * 3
    )
    named = layer("stack", (3, 8, 9), channels_first=True)
    assert channel_matching.channel_mappings([named], RGB)[0].sources == tuple(
        LayerChannel(stack.key, n) for n in range(3)
    )


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (
            [LayerChannel("key of a"), None, None, None],
            "no open layer is chosen for 45 deg, 90 deg",
        ),
        ([LayerChannel("key of a")] * 4, "chosen twice"),
        (
            [
                LayerChannel("key of a"),
                LayerChannel("key of b"),
                LayerChannel("key of small"),
                LayerChannel("key of c"),
            ],
            "small has 4 x 4 pixels, but a has 8 x 9: choose layers of one size",
        ),
        (
            [LayerChannel("key of gone"), *[LayerChannel("key of a")] * 3],
            "no open layer is chosen for 0 deg",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(sources: list[LayerChannel | None], words: str) -> None:
    layers = [layer("a"), layer("b"), layer("c"), layer("small", (4, 4))]
    problem = channel_matching.mapping_problem(sources, layers, ANGLES)
    assert problem is not None
    assert words in problem


def test_without_an_image_it_says_where_to_get_one() -> None:
    assert "No image is open" in str(channel_matching.mapping_problem([None] * 3, [], RGB))


def test_layers_that_lie_elsewhere_are_not_combined_by_themselves_and_are_remarked() -> None:
    here, there = (1.0,) * 9, (2.0,) * 9
    layers = [
        layer("a", placement=here),
        layer("b", placement=here),
        layer("c", placement=there),
    ]
    assert all(
        len(set(feed.sources)) == 1 for feed in channel_matching.channel_mappings(layers, RGB)
    )
    mixed = [LayerChannel(each.key) for each in layers]
    assert channel_matching.mapping_problem(mixed, layers, RGB) is None
    assert "c lies elsewhere than a" in channel_matching.mapping_remark(mixed, layers)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("what", ["scale", "translate"])
def test_layers_lie_alike_if_no_axis_that_both_have_says_otherwise(axis: int, what: str) -> None:
    here = np.diag([3.0, 0.5, 0.5, 1.0])
    there = here.copy()
    there[axis, axis if what == "scale" else -1] += 1
    placed = {
        "here": layer("here", (4, 8, 9), placement=tuple(here.ravel())),
        "there": layer("there", (4, 8, 9), placement=tuple(there.ravel())),
        "plane": layer("plane", placement=tuple(here[1:, 1:].ravel())),
    }
    assert channel_matching.are_aligned(placed["here"], placed["here"])
    assert not channel_matching.are_aligned(placed["here"], placed["there"])
    assert channel_matching.are_aligned(placed["here"], placed["plane"])
    assert channel_matching.are_aligned(placed["there"], placed["plane"]) == (axis == 0)
    assert bool(
        channel_matching.mapping_remark(
            [LayerChannel(placed[n].key) for n in ("here", "there")], placed.values()
        )
    )
