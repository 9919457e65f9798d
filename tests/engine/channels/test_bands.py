"""Names of bands as files have them: a wrong band is worse than none."""

import pytest

from napari_simmat.engine.channels.bands import band_of, match_bands
from napari_simmat.engine.channels.matching import match_names

NDVI = ("red", "near infra-red")
LANDSAT = ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
SENTINEL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
MULTISPECTRAL = ("480 nm", "560 nm", "655 nm", "865 nm", "1610 nm", "2200 nm")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("coastal", "blue", "green", "red", "nir1"), ("red", "nir1")),
        (("coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2"), ("red", "nir1")),
        (("B2", "B3", "B4", "B8"), ("B4", "B8")),
        (SENTINEL, ("B04", "B08")),
        (("Band 2", "Band 3", "Band 4", "Band 8"), ("Band 4", "Band 8")),
        (("red", "nir08", "swir16", "swir22"), ("red", "nir08")),
        (("R 668 nm", "RE 717 nm", "NIR 842 nm", "G 560 nm"), ("R 668 nm", "NIR 842 nm")),
        (("0.665 um", "0.842 um", "1.61 um"), ("0.665 um", "0.842 um")),
        (
            ("field red", "field red edge", "field near-infrared"),
            ("field red", "field near-infrared"),
        ),
        (tuple(f"{center} nm" for center in range(400, 1000, 7)), ("666 nm", "841 nm")),
    ],
)
def test_red_and_near_infrared_are_known_by_any_of_their_names(offered, chosen):
    found = match_names(NDVI, offered)
    assert tuple(offered[found[name]] for name in NDVI) == chosen


@pytest.mark.parametrize(
    ("offered", "known"),
    [
        (LANDSAT, {}),  # B4 is red of Landsat 8, near infrared of Landsat 7
        ((*LANDSAT, "B8"), {}),  # its B8 is panchromatic
        (("B8", "B4"), {}),
        (("coastal", "blue", "green"), {}),
        (("near infrared", "red edge", "green"), {"near infra-red": 0}),
        (("nir a", "nir b", "red"), {"red": 2}),
        (("650", "850"), {}),  # numbers of what?
    ],
)
def test_band_of_which_nobody_can_be_sure_is_not_chosen(offered, known):
    assert match_names(NDVI, offered) == known


def test_wavelengths_of_a_model_take_named_bands_in_any_order():
    offered = ("red", "green", "blue", "nir", "swir1", "swir2")
    found = match_bands(MULTISPECTRAL, offered)
    assert [offered[found[name]] for name in MULTISPECTRAL] == [
        "blue",
        "green",
        "red",
        "nir",
        "swir1",
        "swir2",
    ]


@pytest.mark.parametrize("name", ["DAPI", "CD45", "0 deg", "temperature", "channel 3", "Infrared"])
def test_other_channels_are_no_bands(name):
    assert band_of(name, [name]) is None


@pytest.mark.parametrize("offered", ["nir b5", "nir b4", "red b8"])
def test_match_bands_takes_the_name_beside_a_number(offered):
    """Landsat's B5 is near infrared, Sentinel-2's a red edge: the word decides, not the number."""
    name = offered.split()[0]
    assert match_bands([name], [offered]) == {name: 0}
