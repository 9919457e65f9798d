"""What is measured on one capture of a sensor, saved, and applied to all."""

import numpy as np
import pytest

from napari_simmat.engine.channels.registration import IDENTITY, ChannelMotion, matrix_of_shift
from napari_simmat.engine.channels.rig import Rig, in_type

RIG = Rig(
    reference="red",
    motion="shift",
    shape=(4, 5),
    channels={
        "red": ChannelMotion(IDENTITY, 1.0, 1.0),
        "nir": ChannelMotion(matrix_of_shift(1, -1), 0.2, 0.9, 1.4, 0.1, 0.8),
    },
    measured_on="IMG_7",
)


def test_rig_is_read_as_it_was_saved(tmp_path):
    RIG.save(tmp_path / "rig.json")
    assert Rig.load(tmp_path / "rig.json") == RIG
    assert RIG.words == "shifts: 0,0 1,-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rig.json is not the file of a rig"),
        ("[]", "rig.json is not the file of a rig"),
        ('{"format": "other"}', "rig.json is not the file of a rig"),
        ('{"format": "napari-simmat rig", "format_version": 9}', "has format 9, this version"),
        ('{"format": "napari-simmat rig", "format_version": 1, "shape": [1]}', "rig.json"),
    ],
)
def test_file_that_is_no_rig_is_refused(tmp_path, text, message):
    (tmp_path / "rig.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Rig.load(tmp_path / "rig.json")


def test_rig_refuses_images_of_another_sensor():
    RIG.check("a.tif", ["red", "nir"], (4, 5))
    with pytest.raises(ValueError, match=r"has the channels red, nir, but a.tif has nir, red"):
        RIG.check("a.tif", ["nir", "red"], (4, 5))
    with pytest.raises(ValueError, match=r"of 4 x 5 pixels, but a.tif has 4 x 6"):
        RIG.check("a.tif", ["red", "nir"], (4, 6))


def test_registered_channels_keep_their_type():
    red = np.arange(20, dtype=np.uint16).reshape(4, 5) + 1
    same, moved = RIG.register([red, red])
    assert same is red
    channels, missing = in_type([same, moved], red.dtype)
    assert missing == 0
    assert [each.dtype for each in channels] == [np.uint16] * 2
    assert np.array_equal(channels[1][1:, :-1], red[:-1, 1:])
    assert (channels[1][0] == 0).all()
    assert (channels[1][:, -1] == 0).all()


def test_value_without_data_is_one_that_no_pixel_has():
    red = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert in_type(RIG.register([red, red]), red.dtype)[1] == 255
    red[0, 1] = 255
    red[0, 0] = 0
    assert in_type(RIG.register([red, red]), red.dtype)[1] == 1
    full = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gap = np.where(np.eye(16) > 0, np.nan, full.astype(np.float32))
    channels, missing = in_type([full, gap], full.dtype)
    assert missing is None
    assert channels[1] is gap, "rather float than a wrong value"
    whole, missing = in_type([full, full], full.dtype)
    assert (missing, whole[0].dtype) == (None, np.uint8)
