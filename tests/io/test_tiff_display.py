"""How a TIFF wants to be shown is said where its values are read otherwise."""

import numpy as np
import pytest
import tifffile

from napari_simmat.io.image_file import TURNED
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.io.tiff import INVERTED, PALETTE

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
RAMP = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
WITH_MARKS = RAMP.copy()
WITH_MARKS[:, 9::9] = [[65535], [0], [0]]
COLORS = RAMP * np.array([[1], [0], [1]], np.uint16)


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ({"photometric": "palette", "colormap": COLORS}, (PALETTE,)),
        ({"photometric": "palette", "colormap": RAMP}, ()),
        ({"photometric": "palette", "colormap": WITH_MARKS}, ()),
        ({"photometric": "miniswhite"}, (INVERTED,)),
        ({"extratags": [(274, 3, 1, 6, True)]}, (TURNED.format(6),)),
        ({"extratags": [(274, 3, 1, 1, True)]}, ()),
    ],
)
def test_values_are_as_stored_and_the_display_is_said(tmp_path, more, notes):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, **more)
    image = read_image(path)
    np.testing.assert_array_equal(image.data, PIXELS)
    assert image.notes == notes
    np.testing.assert_array_equal(read_labels(path).data, PIXELS)


def test_look_up_table_of_imagej_shows_intensities(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, colormap=COLORS)
    assert read_image(path).notes == ()
