"""What is in an image, in words."""

import pytest

from napari_simmat.io.description import ImageDescription


def described(axes="YX", shape=(4, 6), **about):
    return ImageDescription(file="a.tif", axes=axes, shape=shape, dtype="uint8", **about)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (described(), "YX 4 x 6, uint8"),
        (
            described(pixel_size={"Y": 0.5, "X": 0.25}, units={"Y": "um", "X": "um"}),
            "YX 4 x 6, uint8, pixels of 0.5 um x 0.25 um",
        ),
        (
            described("TYX", (3, 4, 6), pixel_size={"T": 30}, units={"T": "s"}),
            "TYX 3 x 4 x 6, uint8, T 30 s",
        ),
        (described(levels=((2, 3), (1, 2))), "YX 4 x 6, uint8, coarser levels 2 x 3, 1 x 2"),
        (
            described("CYX", (14, 4, 6), channels=14, channel_names=tuple("ABCDEFGHIJKLMN")),
            "CYX 14 x 4 x 6, uint8, channels A, B, C, D, E, F, G, H, I, J, K, L and 2 more",
        ),
    ],
)
def test_sentence_says_what_is_known(told, sentence):
    assert told.sentence == sentence


@pytest.mark.parametrize(
    ("about", "channels"),
    [
        ({}, None),
        ({"axes": "CYX", "shape": (2, 4, 6), "channels": 2}, "2"),
        ({"axes": "YXS", "shape": (4, 6, 3), "channels": 3}, "red, green, blue"),
        ({"axes": "YXS", "shape": (4, 6, 4), "channels": 4}, "red, green, blue, alpha"),
    ],
)
def test_rows_count_channels_or_name_colors(about, channels):
    assert dict(described(**about).rows()).get("channels") == channels


def test_rows_hold_what_the_file_says_besides():
    rows = described(
        labels=True, place="EPSG:32632", format="TIFF", read_by="x 1.0", notes=("One.", "Two.")
    ).rows()
    assert dict(rows)["values"] == "uint8, labels"
    assert dict(rows)["pixel"] == "size unknown"
    assert dict(rows)["format"] == "TIFF, read by x 1.0"
    assert [text for name, text in rows if name == "note"] == ["One.", "Two."]
    assert ("place", "EPSG:32632") in rows
