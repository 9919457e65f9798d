"""Channels derived from others, and how each channel moves a mask."""

import dask.array as da
import numpy as np
import pytest

from napari_simmat.engine.channels.derivation import DERIVATIONS, derive_channels

ANGLES = np.deg2rad([0, 45, 90, 135])[:, None, None]


def behind_polarizers(intensity, angle, degree):
    """Light of Malus' law behind four polarizers, (4, 1, 1)."""
    wave = 1 + degree * np.cos(2 * (ANGLES - np.deg2rad(angle)))
    return np.asarray(intensity * wave / 2, np.float32)


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array])
@pytest.mark.parametrize(("angle", "degree"), [(0, 1), (30, 0.5), (100, 0.25), (170, 0.75)])
def test_polarization_of_known_light_is_found(angle, degree, wrap):
    made = derive_channels("polarization", list(wrap(behind_polarizers(200, angle, degree))))
    found = {name: float(np.asarray(each)[0, 0]) for name, each in made.items()}
    assert found == pytest.approx({"intensity": 200, "AoLP": angle, "DoLP": degree}, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("polarization", [0, 0, 0, 0], [0, 0, 0]),  # darkness has no angle
        ("ndvi", [100, 300], [0.5]),
        ("ndvi", [0, 0], [0]),
        ("ct-windows", [-600], [0, 0.5, 0]),
        ("ct-windows", [50], [0.5, 14 / 15, 0.5 - 350 / 1800]),
        ("ct-windows", [3000], [1, 1, 1]),
    ],
)
def test_derive_channels_of_known_pixels(kind, values, expected):
    made = derive_channels(kind, [np.full((2, 3), value, np.int16) for value in values])
    assert tuple(made) == DERIVATIONS[kind].outputs
    assert [float(each[1, 2]) for each in made.values()] == pytest.approx(expected, abs=1e-6)
    assert {each.dtype for each in made.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        ("ndvi", [(4, 4)], r"ndvi needs 2 channels: red, near infra-red; 1 of 1 shape were given"),
        ("ndvi", [(4, 4), (4, 5)], r"2 of 2 shapes were given\. Choose them in this order"),
        ("hsv", [(4, 4)], "Channels 'hsv' are unknown; use polarization, ndvi"),
        ("hha", [(4, 4)], "hha needs the focal length of the depth camera in pixels, above 0"),
    ],
)
def test_derive_channels_from_wrong_ones_is_refused(kind, shapes, message):
    with pytest.raises(ValueError, match=message):
        derive_channels(kind, [np.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("focal", [0, -5, float("nan"), float("inf")])
def test_hha_of_an_impossible_focal_length_is_refused(focal):
    with pytest.raises(ValueError, match="hha needs the focal length"):
        derive_channels("hha", [np.ones((4, 4))], focal)


FOCAL = 120.0


def room(pitch):
    """Depth in meters (120, 160) of a floor 1.5 m below a camera, and a wall 2.5 m before it.

    The camera looks down by `pitch` degrees. With it the height of each pixel above the floor.
    """
    rows, columns = np.mgrid[:120, :160]
    rays = np.stack([(columns - 79.5) / FOCAL, (rows - 59.5) / FOCAL, np.ones((120, 160))])
    sine, cosine = np.sin(np.deg2rad(pitch)), np.cos(np.deg2rad(pitch))
    down, ahead = rays[1] * cosine + sine, cosine - rays[1] * sine
    depth = np.minimum(1.5 / np.maximum(down, 1e-9), 2.5 / ahead)
    return depth, 1.5 - down * depth


@pytest.mark.parametrize("pitch", [20, 30, 40])
def test_hha_of_a_room_has_its_heights_and_angles(pitch):
    depth, height = room(pitch)
    depth[5, 5] = np.nan
    made = derive_channels("hha", [depth], FOCAL)
    read = np.isfinite(depth)
    assert [each[5, 5] for each in made.values()] == [0, 0, 0]
    assert np.array_equal(made["disparity"][read], np.rint(310 / depth[read].clip(1)))
    assert made["height"][read] == pytest.approx(100 * height[read], abs=2)
    floor, wall = height < 0.01, height > 0.5
    assert np.median(made["angle"][floor]) == 38
    assert np.median(made["angle"][wall & read]) == 128


def test_hha_of_other_types_and_stacks_is_the_same():
    planes = np.stack([room(20)[0], room(30)[0]])
    millimeters = np.rint(planes * 1000).astype(np.uint16)
    millimeters[1, :9] = 0
    expected = derive_channels("hha", [millimeters], FOCAL)
    lazy = derive_channels("hha", [da.from_array(millimeters, chunks=(1, 30, 40))], FOCAL)
    alone = derive_channels("hha", [millimeters[1] / 1000], FOCAL)
    for name, values in expected.items():
        assert (values.shape, values.dtype) == ((2, 120, 160), np.float32)
        computed = np.asarray(lazy[name])
        assert computed.dtype == np.float32
        assert np.array_equal(computed, values)
        assert np.array_equal(alone[name], values[1])
        assert not values[1, :9].any()
    nothing = derive_channels("hha", [np.zeros((4, 5), np.uint16)], FOCAL)
    assert not any(each.any() for each in nothing.values())


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array])
def test_stains_are_those_that_a_color_was_mixed_of(wrap):
    from skimage.color import rgb_from_hed

    amounts = np.array([0.12, 0.05, 0.0])  # hematoxylin, eosin, no DAB
    absorbed = np.exp(amounts @ rgb_from_hed * np.log(1e-6))
    colors = np.rint(255 * absorbed).astype(np.uint8)
    planes = [wrap(np.full((4, 5), value, np.uint8)) for value in colors]
    made = derive_channels("stains", planes)
    assert tuple(made) == ("hematoxylin", "eosin", "DAB")
    found = [float(np.asarray(each)[1, 2]) for each in made.values()]
    assert found == pytest.approx(amounts, abs=0.003)
    glass = derive_channels("stains", [wrap(np.full((2, 2), 255, np.uint8))] * 3)
    assert [float(np.asarray(each).max()) for each in glass.values()] == [0, 0, 0]


def test_stains_of_other_numbers_are_refused():
    with pytest.raises(ValueError, match="8 or 16 bits, not by values of type float64"):
        derive_channels("stains", [np.zeros((4, 4))] * 3)
