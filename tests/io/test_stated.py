"""What the user says of an image counts as if its file said it."""

from pathlib import Path

import numpy as np
import pytest

from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.reference import Within, World
from napari_simmat.io.stated import OTHER_SIZE, as_stated


def image(axes: str = "ZYX", **more):
    return ImageFile(Path("a.tif"), np.zeros((2, 4, 5)[-len(axes) :]), axes, **more)


def test_size_of_pixels_is_kept_with_its_unit():
    found = as_stated(image("YX"), pixel_size=[5.371], unit="nanometer")
    assert (found.scale, set(found.units.values())) == ({"Y": 5.371, "X": 5.371}, {"nm"})
    found = as_stated(image(), pixel_size=[2, 0.5, 0.25], unit="um")
    assert found.scale == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert found.pixel_size == (0.5, 0.25)
    assert found.notes == ()


def test_another_size_than_the_files_counts_and_is_told():
    known = image("YX", scale={"Y": 0.5, "X": 0.5}, units={"Y": "um", "X": "um"})
    found = as_stated(known, pixel_size=[0.25], unit="um")
    assert found.scale == {"Y": 0.25, "X": 0.25}
    assert found.notes == (OTHER_SIZE.format("0.5 um x 0.5 um", "0.25 um x 0.25 um"),)
    assert as_stated(known, pixel_size=[0.5], unit="µm").notes == ()


def test_size_is_of_the_finest_level():
    reduced = image("YX", within=Within(offset=(0, 0), factor=(4.0, 2.0), shape=(16, 10), level=1))
    found = as_stated(reduced, pixel_size=[0.5], unit="um")
    assert found.scale == {"Y": 2.0, "X": 1.0}


def test_axes_are_renamed_and_sizes_go_with_their_letters():
    known = image(scale={"Z": 3.0, "Y": 0.5, "X": 0.5}, units=dict.fromkeys("ZYX", "um"))
    found = as_stated(known, axes="tyx")
    assert (found.axes, found.scale) == ("TYX", {"Y": 0.5, "X": 0.5})
    assert as_stated(image(), axes="CYX").channel_axis == 0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"axes": "TY"}, "has 3 axes"),
        ({"axes": "YTX"}, "Y and X where they are"),
        ({"axes": "T1X"}, "a letter for each"),
        ({"pixel_size": [1.0, 1.0, 1.0], "unit": "um", "axes": "TYX"}, "none of them Z"),
    ],
)
def test_what_does_not_fit_is_refused(told, words):
    with pytest.raises(ValueError, match=words):
        as_stated(image(), **told)


def test_placed_images_keep_their_sizes_and_planes():
    placed = image(world=World(affine=np.eye(4), space="patient"))
    with pytest.raises(ValueError, match="would contradict it"):
        as_stated(placed, pixel_size=[1.0], unit="mm")
    with pytest.raises(ValueError, match="its axis Z stays depth"):
        as_stated(placed, axes="TYX")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"pixel_size": (0.5,)}, "has no unit; give one"),
        ({"pixel_size": (0.0,), "unit": "um"}, "give one number above 0"),
        ({"pixel_size": (1.0,) * 4, "unit": "um"}, "give one number above 0"),
        ({"pixel_size": (1.0,), "unit": "s"}, "is a length, not s"),
        ({"pixel_size": (1.0,), "unit": "furlong"}, "'furlong' is not known"),
        ({"unit": "um"}, "needs the pixel size"),
    ],
)
def test_selection_refuses_sizes_without_a_length(told, words):
    with pytest.raises(ValueError, match=words):
        ChannelSelection(**told)
