from itertools import product

import numpy as np
import pytest
from scipy import ndimage as ndi
from scipy.special import ellipe
from skimage.measure import label, regionprops

from napari_simmat.engine.measuring.object_shape import ObjectShape

SQUARE, OBLONG = np.eye(2), np.diag([0.5, 0.2])
SHEARED = np.array([[2.0, 1.0], [0.0, 3.0]])


def blobs(shape, spread, threshold=0.02):
    """Objects of all shapes, labeled."""
    noise = np.random.default_rng(3).normal(size=shape)
    return label(ndi.gaussian_filter(noise, spread) > threshold)


def measured_by_itk(labels, spacing):
    """`LabelShapeStatisticsImageFilter`, with the size of a pixel along (Z,) Y, X."""
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(labels.astype(np.uint16))
    image.SetSpacing(spacing[::-1])
    found = itk.LabelShapeStatisticsImageFilter()
    found.ComputePerimeterOn()
    found.Execute(image)
    return found


def test_shape_of_square_pixels_is_that_of_scikit_image():
    labels = blobs((160, 200), 5)
    regions = [region for region in regionprops(labels) if region.area > 30]
    assert len(regions) > 10
    for region in regions:
        found = ObjectShape(region.image).measure(SQUARE)
        assert found["perimeter"] == pytest.approx(region.perimeter_crofton, rel=1e-12)
        assert found["major_axis"] == pytest.approx(region.axis_major_length, rel=1e-9)
        assert found["minor_axis"] == pytest.approx(region.axis_minor_length, rel=1e-9)
        assert found["eccentricity"] == pytest.approx(region.eccentricity, rel=1e-9)
        assert found["orientation_deg"] == pytest.approx(np.degrees(region.orientation), abs=1e-6)
        # There the hull is made of whole pixels, and ends in the middle of their sides.
        assert found["solidity"] == pytest.approx(region.solidity, abs=0.05)
        assert found["feret_max"] == pytest.approx(region.feret_diameter_max, abs=1)
        diameter = region.equivalent_diameter_area
        assert found["equivalent_diameter"] == pytest.approx(diameter, rel=1e-12)
        slender = region.axis_major_length / region.axis_minor_length
        assert found["aspect_ratio"] == pytest.approx(slender, rel=1e-9)
        round_area = region.perimeter_crofton**2 / (4 * np.pi)
        assert found["circularity"] == pytest.approx(region.area / round_area, rel=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.2), (3.0, 1.0)])
def test_shape_of_oblong_pixels_is_that_of_itk(spacing):
    labels = blobs((120, 160), 6)
    theirs = measured_by_itk(labels, spacing)
    for number, region in enumerate(regionprops(labels), start=1):
        found = ObjectShape(region.image).measure(np.diag(spacing))
        moments = [found["minor_axis"] ** 2 / 16, found["major_axis"] ** 2 / 16]
        assert moments == pytest.approx(theirs.GetPrincipalMoments(number), rel=1e-6, abs=1e-9)
        if spacing == (1.0, 1.0):  # there all directions count the same, whatever the spacing
            assert found["perimeter"] == pytest.approx(theirs.GetPerimeter(number), rel=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.2), (3.0, 1.0), (1.0, 5.0)])
@pytest.mark.parametrize("flatness", [1, 3])
def test_shape_perimeter_of_an_ellipse_is_right(spacing, flatness):
    radius = 30 * max(spacing)
    y, x = (np.arange(-radius // step - 2, radius // step + 3) * step for step in spacing)
    ellipse = np.hypot(y[:, np.newaxis], x * flatness) <= radius
    exact = 4 * radius * ellipe(1 - 1 / flatness**2)
    found = ObjectShape(ellipse).measure(np.diag(spacing))
    assert found["perimeter"] == pytest.approx(exact, rel=0.07 if flatness > 1 else 0.015)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.5)])
def test_shape_of_a_volume_is_that_of_itk(spacing):
    labels = blobs((24, 40, 40), 3, 0.05)
    theirs = measured_by_itk(labels, spacing)
    regions = [region for region in regionprops(labels) if region.area > 50]
    assert len(regions) > 2
    for region in regions:
        found = ObjectShape(region.image).measure(np.diag(spacing))
        axes = [found[f"{name}_axis"] ** 2 / 20 for name in ("minor", "middle", "major")]
        assert axes == pytest.approx(theirs.GetPrincipalMoments(region.label), rel=1e-6)
        if spacing == (1.0, 1.0, 1.0):
            assert found["surface"] == pytest.approx(theirs.GetPerimeter(region.label), rel=1e-9)
            assert found["major_axis"] == pytest.approx(region.axis_major_length, rel=1e-9)
            assert found["minor_axis"] == pytest.approx(region.axis_minor_length, rel=1e-9)


def test_shape_of_one_pixel_is_finite_and_without_direction():
    found = ObjectShape(np.ones((1, 1), bool)).measure(OBLONG)
    assert found["feret_max"] == pytest.approx(np.hypot(0.5, 0.2))
    assert (found["major_axis"], found["minor_axis"], found["eccentricity"]) == (0, 0, 0)
    assert found["solidity"] == 1
    assert found["perimeter"] > 0
    assert np.isnan(found["orientation_deg"])


def test_shape_of_a_row_counted_by_hand():
    row = np.ones((1, 5), bool)
    found = ObjectShape(row).measure(OBLONG)
    assert found["feret_max"] == pytest.approx(np.hypot(0.5, 1.0))
    assert found["major_axis"] == pytest.approx(4 * 0.2 * np.sqrt(2))  # 0, 1, .. 4 has variance 2
    assert found["minor_axis"] == 0
    assert (found["eccentricity"], found["solidity"]) == (1, 1)
    assert found["orientation_deg"] == 90
    assert ObjectShape(row.T).measure(OBLONG)["orientation_deg"] == 0


def test_shape_of_a_slanted_line_has_no_minor_axis():
    found = ObjectShape(np.eye(7, dtype=bool)).measure(SQUARE)
    assert found["minor_axis"] == 0
    assert found["major_axis"] == pytest.approx(4 * np.sqrt(2 * 4))
    assert found["eccentricity"] == 1
    assert found["orientation_deg"] == pytest.approx(45)
    block = ObjectShape(np.ones((5, 5), bool)).measure(SHEARED @ np.linalg.inv(SHEARED))
    assert block["eccentricity"] == 0


def test_shape_solidity_and_feret_of_an_l():
    corner = np.zeros((4, 4), bool)
    corner[:, 0] = corner[3] = True
    found = ObjectShape(corner).measure(SQUARE)
    # Its hull is the square of 16 without a triangle with sides of 3.
    assert found["solidity"] == pytest.approx(7 / (16 - 4.5))
    assert found["feret_max"] == pytest.approx(np.hypot(4, 4))


def test_shape_of_a_disc_is_right_whatever_its_pixels():
    y, x = np.indices((101, 251)) - np.array([50, 125])[:, np.newaxis, np.newaxis]
    disc = np.hypot(y * 0.5, x * 0.2) <= 20
    found = ObjectShape(disc).measure(OBLONG)
    assert found["perimeter"] == pytest.approx(40 * np.pi, rel=0.06)
    assert found["major_axis"] == pytest.approx(40, rel=0.01)
    assert found["minor_axis"] == pytest.approx(40, rel=0.01)
    assert found["feret_max"] == pytest.approx(40, rel=0.02)
    assert found["eccentricity"] < 0.15
    in_pixels = ObjectShape(disc).measure(SQUARE)
    assert in_pixels["major_axis"] == pytest.approx(200, rel=0.01)
    assert in_pixels["orientation_deg"] == 90


def test_shape_of_sheared_pixels_keeps_what_shear_keeps():
    square = np.ones((6, 6), bool)
    found = ObjectShape(square).measure(SHEARED)
    corners = SHEARED @ np.array([[0, 0, 6, 6], [0, 6, 0, 6]])
    apart = corners[:, :, None] - corners[:, None]
    assert found["feret_max"] == pytest.approx(np.linalg.norm(apart, axis=0).max())
    assert found["solidity"] == 1
    assert found["perimeter"] == pytest.approx(2 * (6 * 2 + 6 * np.hypot(1, 3)), rel=0.15)


def test_shape_of_a_ball_has_a_sphericity_near_1():
    z, y, x = np.indices((21, 41, 41)) - np.array([10, 20, 20])[:, None, None, None]
    ball = np.hypot(np.hypot(2 * z, y), x) <= 18
    found = ObjectShape(ball).measure(np.diag([2.0, 1.0, 1.0]))
    assert found["sphericity"] == pytest.approx(1, abs=0.04)
    for name in ("major_axis", "middle_axis", "minor_axis"):
        assert found[name] == pytest.approx(36, rel=0.03)
    rod = np.zeros((3, 3, 40), bool)
    rod[1, 1] = True
    assert ObjectShape(rod).measure(np.eye(3))["sphericity"] < 0.75


def test_shape_of_a_disc_and_a_line_is_as_expected():
    y, x = np.mgrid[-40:41, -40:41]
    disc = ObjectShape(np.hypot(y, x) <= 30).measure(SQUARE)
    assert disc["circularity"] == pytest.approx(1, abs=0.03)
    assert disc["aspect_ratio"] == pytest.approx(1, abs=1e-6)
    assert disc["equivalent_diameter"] == pytest.approx(60, abs=0.5)
    line = ObjectShape(np.ones((1, 9), bool)).measure(SQUARE)
    assert np.isnan(line["aspect_ratio"])
    ball = ObjectShape(np.ones((4, 4, 4), bool)).measure(np.eye(3))
    assert ball["equivalent_diameter"] == pytest.approx((6 * 64 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("edges", [SQUARE, OBLONG, SHEARED])
def test_shape_feret_min_is_the_narrowest_of_all_angles(edges):
    """Against the width across each of 7,200 angles, of the corners of all pixels."""
    angles = np.linspace(0, np.pi, 7200, endpoint=False)
    across = np.stack([np.sin(angles), np.cos(angles)])
    corners = np.array(list(product((-0.5, 0.5), repeat=2)))
    for region in regionprops(blobs((120, 160), 6)):
        places = (np.argwhere(region.image)[:, np.newaxis] + corners).reshape(-1, 2) @ edges.T
        widths = np.ptp(places @ across, axis=0)
        found = ObjectShape(region.image).measure(edges)
        assert found["feret_min"] == pytest.approx(widths.min(), rel=1e-3)
        assert found["feret_min"] <= widths.min()
        assert found["feret_max"] == pytest.approx(widths.max(), rel=1e-5)


def test_shape_feret_min_of_a_slanted_rod_is_its_width():
    y, x = np.indices((300, 300)) - 150
    along, over = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    rod = (abs(along) <= 100) & (abs(over) <= 10)
    found = ObjectShape(rod).measure(SQUARE)
    assert found["feret_min"] == pytest.approx(20, abs=1.5)
    assert ObjectShape(np.ones((1, 5), bool)).measure(OBLONG)["feret_min"] == pytest.approx(0.5)
