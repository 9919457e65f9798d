"""Which part of an image is read, as options say it."""

import pytest

from napari_simmat.io.part import WHOLE, ImagePart


def test_region_is_four_numbers_with_a_unit_or_none():
    assert ImagePart(region="1,2,3.5,4").bounds == ((1, 2, 3.5, 4), "")
    assert ImagePart(region="0, 0, 1e3, 500 um").bounds == ((0, 0, 1000, 500), "um")
    assert ImagePart(region="0,0,1,1µm").bounds[1] == "um"


@pytest.mark.parametrize("region", ["1,2,3", "a,b,c,d", "0,0,1,1px", "0;0;1;1", "0,0,1,nan"])
def test_region_of_anything_else_is_refused(region):
    with pytest.raises(ValueError, match=r"is not four numbers; write Y0,X0,Y1,X1 in pixels"):
        ImagePart(region=region)


@pytest.mark.parametrize("region", ["5,0,5,9", "0,9,5,3"])
def test_region_without_a_pixel_is_refused(region):
    with pytest.raises(ValueError, match="ends before it begins"):
        ImagePart(region=region)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"level": 1, "mpp": 0.5}, "give --level or --mpp, not both"),
        ({"level": -1}, "there is no level -1"),
        ({"mpp": 0.0}, "above 0, not 0"),
        ({"mpp": float("nan")}, "above 0, not nan"),
    ],
)
def test_part_that_cannot_be_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ImagePart(**values)


def test_part_of_an_image_goes_over_that_of_the_run():
    run = ImagePart(mpp=0.5, region="0,0,9,9")
    assert WHOLE.over(run) == run
    assert ImagePart(level=1).over(run) == ImagePart(level=1, region="0,0,9,9")
    assert ImagePart(region="1,1,2,2").over(run) == ImagePart(mpp=0.5, region="1,1,2,2")
    assert [bool(part) for part in (WHOLE, ImagePart(level=0), ImagePart(level=1), run)] == [
        False,
        False,
        True,
        True,
    ]
