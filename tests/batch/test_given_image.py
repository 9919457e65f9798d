from types import SimpleNamespace

import numpy as np
import pytest

from napari_simmat.batch.given_image import image_of

PIXELS = np.zeros((4, 5), np.uint8)


def layer(units: tuple[str, ...]):
    return SimpleNamespace(data=PIXELS, scale=(0.5, 0.25), ndim=2, units=units)


@pytest.mark.parametrize(
    ("units", "known"),
    [
        (("micrometer", "micrometer"), {"Y": "um", "X": "um"}),
        (("nanometer", "nanometer"), {"Y": "nm", "X": "nm"}),
        (("pixel", "pixel"), {}),
    ],
)
def test_units_of_a_layer_are_taken(units, known):
    """napari's layers hold units of pint, whose text is a whole word."""
    image = image_of(layer(units))
    assert image.scale == {"Y": 0.5, "X": 0.25}
    assert image.units == known


def test_given_unit_is_read_in_any_spelling():
    assert image_of(PIXELS, pixel_size=0.5, unit="µm").units == {"Y": "um", "X": "um"}
    assert image_of(layer(("pixel", "pixel")), unit="micron").units == {"Y": "um", "X": "um"}
    with pytest.raises(ValueError, match="'furlong' is not known"):
        image_of(PIXELS, pixel_size=0.5, unit="furlong")
