import logging
from dataclasses import replace

import pytest

from napari_simmat.engine.channels.matching import GAP, match_channels, match_names
from napari_simmat.models.spec import InputChannels

ANGLES = ("0 deg", "45 deg", "90 deg", "135 deg")


def inputs_of(names, is_rgb=False):
    return InputChannels(names=tuple(names), is_rgb=is_rgb, reader="sam" if is_rgb else "polar")


POLAR = inputs_of(ANGLES)
RGB = inputs_of(("red", "green", "blue"), is_rgb=True)
COLORS = inputs_of(RGB.names)
DEPTH = inputs_of(("depth",))


@pytest.mark.parametrize(
    ("available", "inputs", "options", "expected"),
    [
        # an RGB foundation
        (1, RGB, {}, (0, 0, 0)),
        (3, RGB, {}, (0, 1, 2)),
        (3, RGB, {"names": ["Blue", "green ", "RED"]}, (2, 1, 0)),
        (3, RGB, {"names": ["a", "b", "c"]}, (0, 1, 2)),
        (4, RGB, {"names": ["near infra-red", "blue", "green", "red"]}, (3, 2, 1)),
        (4, RGB, {"rgba": True}, (0, 1, 2)),
        (4, COLORS, {"rgba": True}, (0, 1, 2)),  # trained on such pictures, without alpha
        (4, POLAR, {"rgba": True}, (0, 1, 2, 3)),
        (2, RGB, {"channels": [0, 1, 1]}, (0, 1, 1)),
        (5, RGB, {"channels": [4]}, (4, 4, 4)),
        (5, RGB, {"channels": ["4", " 0", 2]}, (4, 0, 2)),
        (3, RGB, {"names": ["DAPI", "GFP", "RFP"], "channels": ["gfp", 0, "RFP"]}, (1, 0, 2)),
        # named channels
        (4, POLAR, {}, (0, 1, 2, 3)),
        (4, POLAR, {"names": ["90 deg", "0 deg", "135 deg", "45 deg"]}, (1, 3, 0, 2)),
        (5, POLAR, {"names": ["mask", *reversed(ANGLES)]}, (4, 3, 2, 1)),
        (4, POLAR, {"channels": [3, 2, 1, 0]}, (3, 2, 1, 0)),
        (4, POLAR, {"names": ANGLES[::-1], "channels": [0, 1, 2, 3]}, (3, 2, 1, 0)),
        (4, POLAR, {"names": [*ANGLES[:3], "I135"], "channels": [0, 1, 2, 3]}, (0, 1, 2, 3)),
        (4, POLAR, {"names": ["2", "1", "0", "3"], "channels": ["2", "1", "0", "3"]}, (0, 1, 2, 3)),
        (1, DEPTH, {"names": ["some layer"]}, (0,)),
        (2, DEPTH, {"names": ["color", "depth"]}, (1,)),
    ],
)
def test_match_channels_gives_the_models_order(available, inputs, options, expected):
    assert match_channels(available, inputs, **options) == expected


@pytest.mark.parametrize(
    ("available", "inputs", "options", "sentence"),
    [
        (
            2, RGB, {},
            r"sam reads red, green and blue, but there are 2 channels\. Choose one for all three, "
            r"e\.g\. --channels 0, or three of them\.",
        ),
        (
            2, RGB, {"names": ["GFP", "my DAPI"], "clearest": lambda: 1},
            r'e\.g\. --channels "my DAPI", where my DAPI shows most, or three of them\.',
        ),
        (
            2, RGB, {"names": ["x", "x"], "clearest": lambda: 1},
            r"e\.g\. --channels 1, where 1 shows most",
        ),
        (4, RGB, {}, r"there are 4 channels\. Choose one"),
        (4, COLORS, {}, "but 4 are given. Select 3"),
        (4, inputs_of("abc"), {"rgba": True}, "but 4 are given. Select 3"),
        (4, RGB, {"names": list("abcd"), "rgba": True}, r"there are 4 channels \(a, b, c, d\)"),
        (4, RGB, {"channels": [0, 1]}, r"trained on 3 channels .* but 2 are selected\. Select one"),
        (3, RGB, {"channels": [0, 1, 3]}, "no channel 3; the image has 3 channels, counted from 0"),
        (3, RGB, {"channels": [-1]}, "There is no channel -1"),
        (
            3, RGB, {"names": ["DAPI", "GFP", "RFP"], "channels": ["CFP"]},
            r"no channel called CFP; there are DAPI, GFP, RFP\. Select one of them by name, or by",
        ),
        (3, RGB, {"channels": ["CFP"]}, "no channel called CFP; the channels here have no names"),
        (3, RGB, {"names": ["a", "A", "b"], "channels": ["a"]}, "Two channels are called a; ren"),
        (4, RGB, {"names": ["red", "green", "blue", "red"]}, "Two channels are called red"),
        (3, RGB, {"names": ["a", "b"]}, r"3 channels but 2 names \(a, b\); give one name for each"),
        (3, RGB, {"channels": []}, "but 0 are selected"),
        (
            3, POLAR, {},
            r"polar was trained on 4 channels \(0 deg, 45 deg, 90 deg, 135 deg\), but 3 are given\."
            r" Select 4, or load another model\.",
        ),
        (1, POLAR, {}, "but 1 is given. Select 4"),
        (5, POLAR, {"channels": [0, 1, 2]}, "but 3 are selected. Select 4"),
        (4, POLAR, {"channels": [0, 1, 1, 2]}, r"Channel 1 is selected twice, but polar reads 4 d"),
        (
            4, POLAR, {"names": [*ANGLES[:3], "depth"]},
            "polar reads the channels .* but 135 deg is missing among 0 deg, 45 deg, 90 deg, depth",
        ),
        (5, POLAR, {"names": [*ANGLES[:2], "a", "b", "c"]}, "90 deg, 135 deg are missing among"),
        (
            4, POLAR, {"names": ["45 deg", "0 deg", "x", "y"], "channels": [0, 1, 2, 3]},
            "Channel 45 deg is selected for 0 deg; polar reads its channels in the order 0 deg, 45",
        ),
    ],
)  # fmt: skip
def test_match_channels_refuses_a_wrong_choice(available, inputs, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        match_channels(available, inputs, **options)


@pytest.mark.parametrize(
    ("channels", "sentence"),
    [
        ("DAPI", r"list of names or indices, not 'DAPI'; write \['DAPI'\]"),
        (2, r"list of names or indices, not 2; write \[2\]"),
        ([True], "A channel is a name or an index, not True"),
        ([1.0], r"A channel is a name or an index, not 1\.0"),
        ([None], "A channel is a name or an index, not None"),
    ],
)
def test_match_channels_refuses_what_names_no_channel(channels, sentence):
    with pytest.raises(TypeError, match=sentence):
        match_channels(3, RGB, channels=channels)


def test_match_channels_of_rgba_says_alpha_is_left_out(caplog):
    match_channels(4, RGB, rgba=True)
    assert "its alpha channel is left out" in caplog.text


def test_match_channels_without_known_names_says_the_order(caplog):
    with caplog.at_level(logging.WARNING):
        match_channels(4, POLAR, names=list("abcd"))
        assert "in their order: a as 0 deg, b as 45 deg, c as 90 deg, d as 135 deg" in caplog.text
        caplog.clear()
        match_channels(1, DEPTH, names=["x"])  # there is only one order
        match_channels(4, POLAR, names=ANGLES)
        match_channels(4, POLAR)
        assert not caplog.text


def test_match_names_compares_words():
    angles = ["car 45°", "car 0°", "car 135°", "car 90°"]
    assert match_names(ANGLES, angles) == dict(zip(ANGLES, (1, 0, 3, 2), strict=True))
    assert match_names(["DAPI", "GFP"], ["f1_gfp", "f1_dapi", "f2_dapi"]) == {"GFP": 0}
    assert match_names(["red"], ["infra red", "red"]) == {"red": 1}  # the same words go first


LACKING = replace(POLAR, may_lack=True)


@pytest.mark.parametrize(
    ("available", "options", "expected", "lacks"),
    [
        (3, {"names": ["135 deg", "0 deg", "90 deg"]}, (1, GAP, 2, 0), "45 deg"),
        (4, {"names": ["135 deg", "0 deg", "90 deg", "x"]}, (1, GAP, 2, 0), "45 deg"),
        (3, {"channels": ["-", 0, 1, 2]}, (GAP, 0, 1, 2), "0 deg"),
        (1, {"channels": ["-", "-", 0, "-"]}, (GAP, GAP, 0, GAP), "0 deg, 45 deg, 135 deg"),
        (4, {}, (0, 1, 2, 3), ""),
    ],
)
def test_match_channels_leaves_gaps_and_says_so(available, options, expected, lacks, caplog):
    assert match_channels(available, LACKING, **options) == expected
    said = f"The image lacks {lacks}, which polar reads" if lacks else ""
    assert said in caplog.text
    assert bool(caplog.text) == bool(lacks)
    if lacks:
        with pytest.raises(ValueError, match=r"add or rename it|no channel called -"):
            match_channels(available, POLAR, **options)


@pytest.mark.parametrize(
    ("available", "options", "message"),
    [
        (2, {"channels": ["-", "-", "-", "-"]}, "No channel is left for polar"),
        (3, {}, "but 3 are given"),
        (3, {"channels": ["-", 0, 1]}, "but 3 are selected"),
    ],
)
def test_match_channels_refuses_what_gaps_do_not_explain(available, options, message):
    with pytest.raises(ValueError, match=message):
        match_channels(available, LACKING, **options)


CAMERA = ("blue", "green", "red", "nir", "red edge")
LANDSAT = replace(POLAR, names=("480 nm", "560 nm", "655 nm", "865 nm", "1610 nm", "2200 nm"))


@pytest.mark.parametrize("names", [CAMERA, ("475 nm", "560 nm", "668 nm", "842 nm", "717 nm")])
def test_bands_of_another_camera_are_known_in_part(names, caplog):
    message = "but 1610 nm, 2200 nm are missing among .*; that is another camera: let a model learn"
    with pytest.raises(ValueError, match=message):
        match_channels(5, LANDSAT, names=names)
    assert match_channels(5, replace(LANDSAT, may_lack=True), names=names) == (0, 1, 2, 3, GAP, GAP)
    assert "The image lacks 1610 nm, 2200 nm" in caplog.text
