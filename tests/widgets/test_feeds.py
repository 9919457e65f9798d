from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from napari_simmat.model.spec import InputChannels
from napari_simmat.widgets import feeds
from napari_simmat.widgets.feeds import LayerInfo, Source


def inputs(*names: str, is_rgb: bool = False) -> InputChannels:
    return InputChannels(names=names, is_rgb=is_rgb, reader="model")


RGB = inputs("red", "green", "blue", is_rgb=True)
ANGLES = inputs("0 deg", "45 deg", "90 deg", "135 deg")


def layer(name: str, shape: tuple[int, ...] = (8, 9), **more: object) -> LayerInfo:
    return LayerInfo(key=f"key of {name}", name=name, shape=shape, **more)


def chosen(sources: tuple[Source | None, ...]) -> list[str | None]:
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
        assert chosen(feeds.feeds(layers, ANGLES)[0].sources) == list(names)


def test_a_missing_channel_is_named_and_nothing_is_guessed() -> None:
    layers = [layer("135 deg"), layer("0 deg"), layer("45 deg"), layer("something")]
    assert feeds.feeds(layers, ANGLES) == []
    gaps = feeds.match_slots(layers, ANGLES)
    assert chosen(gaps) == ["0 deg", "45 deg", None, "135 deg"]
    problem = feeds.problem(gaps, layers, ANGLES)
    assert problem is not None
    assert "90 deg" in problem
    assert "no open layer is chosen for 90 deg" in problem


def test_ambiguous_names_match_nothing() -> None:
    layers = [layer("a 45"), layer("b 45"), layer("0 deg"), layer("135 deg")]
    assert chosen(feeds.match_slots(layers, ANGLES)) == ["0 deg", None, None, "135 deg"]


def test_nameless_layers_are_taken_in_their_order_with_a_remark() -> None:
    layers = [layer(name) for name in "abcd"]
    found = feeds.feeds(layers, ANGLES)[0]
    assert chosen(found.sources) == ["a", "b", "c", "d"]
    assert "a as 0 deg" in found.remark


def test_a_first_axis_of_the_right_length_feeds_the_model() -> None:
    found = feeds.feeds([layer("stack", (4, 8, 9))], ANGLES)[0]
    assert found.sources == tuple(Source("key of stack", n) for n in range(4))
    assert feeds.feeds([layer("stack", (5, 8, 9))], ANGLES) == []


def test_one_layer_feeds_all_three_slots_of_an_rgb_foundation() -> None:
    found = feeds.feeds([layer("grey")], RGB)[0]
    assert chosen(found.sources) == ["grey"] * 3
    assert feeds.problem(found.sources, [layer("grey")], RGB) is None


def test_three_layers_of_one_shape_feed_an_rgb_foundation_in_order() -> None:
    layers = [layer("a"), layer("b"), layer("c"), layer("other", (4, 4))]
    found = feeds.feeds(layers, RGB)
    assert chosen(found[0].sources) == ["a", "b", "c"]
    assert chosen(found[1].sources) == ["other"] * 3, "single layers follow, the topmost first"


def test_named_colours_are_sorted() -> None:
    layers = [layer("x_blue"), layer("x_red"), layer("x_green")]
    assert chosen(feeds.feeds(layers, RGB)[0].sources) == ["x_red", "x_green", "x_blue"]


def test_the_active_layer_is_preferred() -> None:
    layers = [layer("a", (4, 4)), layer("b", (5, 5))]
    assert feeds.feeds(layers, RGB)[0].title == "b"
    assert feeds.feeds(layers, RGB, "key of a")[0].title == "a"


def test_an_rgb_layer_gives_its_colours() -> None:
    photo = layer("photo", rgb=True)
    assert feeds.feeds([photo], RGB)[0].sources == tuple(Source(photo.key, n) for n in range(3))
    assert [title for title, _ in feeds.all_sources([photo])] == [
        "photo · red",
        "photo · green",
        "photo · blue",
    ]


def test_a_stack_of_three_planes_is_a_stack_unless_its_axis_says_channel() -> None:
    stack = layer("stack", (3, 8, 9))
    assert feeds.feeds([stack], RGB)[0].sources == (Source(stack.key),) * 3
    named = layer("stack", (3, 8, 9), channels_first=True)
    assert feeds.feeds([named], RGB)[0].sources == tuple(Source(stack.key, n) for n in range(3))


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([Source("key of a"), None, None, None], "no open layer is chosen for 45 deg, 90 deg"),
        ([Source("key of a")] * 4, "chosen twice"),
        (
            [Source("key of a"), Source("key of b"), Source("key of small"), Source("key of c")],
            "small has 4 x 4 pixels, but a has 8 x 9: choose layers of one size",
        ),
        ([Source("key of gone"), *[Source("key of a")] * 3], "no open layer is chosen for 0 deg"),
    ],
)
def test_what_is_wrong_is_one_sentence(sources: list[Source | None], words: str) -> None:
    layers = [layer("a"), layer("b"), layer("c"), layer("small", (4, 4))]
    problem = feeds.problem(sources, layers, ANGLES)
    assert problem is not None
    assert words in problem


def test_without_an_image_it_says_where_to_get_one() -> None:
    assert "No image is open" in str(feeds.problem([None] * 3, [], RGB))


def test_layers_that_lie_elsewhere_are_not_combined_by_themselves_and_are_remarked() -> None:
    here, there = (1.0,) * 9, (2.0,) * 9
    layers = [
        layer("a", placement=here),
        layer("b", placement=here),
        layer("c", placement=there),
    ]
    assert all(len(set(feed.sources)) == 1 for feed in feeds.feeds(layers, RGB))
    mixed = [Source(each.key) for each in layers]
    assert feeds.problem(mixed, layers, RGB) is None
    assert "c lies elsewhere than a" in feeds.remark(mixed, layers)


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
    assert feeds.lie_alike(placed["here"], placed["here"])
    assert not feeds.lie_alike(placed["here"], placed["there"])
    assert feeds.lie_alike(placed["here"], placed["plane"])
    assert feeds.lie_alike(placed["there"], placed["plane"]) == (axis == 0)
    assert bool(feeds.remark([Source(placed[n].key) for n in ("here", "there")], placed.values()))
