import numpy as np
import pytest

from napari_simmat.engine.measuring.measurements import ValueColumns, measure_objects
from napari_simmat.engine.measuring.object_statistics import RING, ring, summarize

ALL = ("mean", "median", "std", "sum", "min", "max", "p0", "p5", "p37.5", "p95", "p100")


@pytest.mark.parametrize("count", [1, 2, 3, 8, 101])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_summarize_is_what_numpy_says(count, dtype):
    values = (np.random.default_rng(count).normal(50, 20, (3, count))).astype(dtype)
    found = summarize(values, ALL)
    assert list(found) == list(ALL)
    exact = values.astype(np.float64)
    for name in ("mean", "median", "std", "sum", "min", "max"):
        assert found[name] == pytest.approx(getattr(np, name)(exact, axis=1), rel=1e-12)
    for name in ("p0", "p5", "p37.5", "p95", "p100"):
        wanted = np.percentile(exact, float(name[1:]), axis=1)
        assert found[name] == pytest.approx(wanted, rel=1e-12)


def test_summarize_agrees_with_itk():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (30, 40)).astype(np.uint8)
    image = rng.integers(0, 256, (30, 40)).astype(np.uint8)
    itk = pytest.importorskip("SimpleITK")
    theirs = itk.LabelIntensityStatisticsImageFilter()
    theirs.SetNumberOfBins(256)
    both = itk.GetImageFromArray(labels), itk.GetImageFromArray(image)
    theirs.Execute(*both)
    for label in (1, 2, 3):
        values = image[labels == label][np.newaxis]
        found = {name: float(each[0]) for name, each in summarize(values, ALL).items()}
        assert found["mean"] == pytest.approx(theirs.GetMean(label))
        assert found["sum"] == theirs.GetSum(label)
        assert (found["min"], found["max"]) == (theirs.GetMinimum(label), theirs.GetMaximum(label))
        assert found["median"] == pytest.approx(theirs.GetMedian(label), abs=1)  # from a histogram
        # There the sum of squares is divided by one pixel less.
        less = np.sqrt((values.size - 1) / values.size)
        assert found["std"] == pytest.approx(theirs.GetStandardDeviation(label) * less)


def test_summarize_leaves_out_what_is_not_finite():
    values = np.array([[1.0, np.nan, 3.0, np.inf], [np.nan] * 4, [1, 2, 3, 4]], np.float32)
    found = summarize(values, ("mean", "median", "sum", "max", "std"))
    assert found["mean"].tolist()[::2] == [2, 2.5]
    assert found["median"].tolist()[::2] == [2, 2.5]
    assert found["sum"].tolist()[::2] == [4, 10]
    assert found["max"].tolist()[::2] == [3, 4]
    assert all(np.isnan(each[1]) for each in found.values())


def test_summarize_adds_large_numbers_without_overflow():
    values = np.full((1, 1000), 65535, np.uint16)
    assert summarize(values, ("sum",))["sum"].tolist() == [65_535_000]
    assert np.isnan(summarize(np.empty((1, 0)), ("mean",))["mean"][0])


def crowded():
    """Discs that are close to each other and to the border, and an image of two channels."""
    rng = np.random.default_rng(2)
    labels = np.zeros((60, 70), np.uint16)
    y, x = np.mgrid[:60, :70]
    for number, (top, left) in enumerate([(2, 3), (20, 20), (29, 20), (40, 60), (41, 44)], 1):
        labels[np.hypot(y - top, x - left) <= 4] = number
    image = rng.normal(100, 5, (2, 60, 70)) + 200 * (labels > 0) + x
    return labels, image


PLACES = ("background", "net_sum", "weighted_y", "weighted_x")


def measured_places(labels, image, statistics=PLACES):
    columns = ValueColumns(channels=("a", "b"), statistics=statistics)
    return measure_objects(labels, axes="YX", channels=columns, plane=lambda _: image)


def test_the_background_is_the_median_of_a_ring_without_objects():
    labels, image = crowded()
    y, x = np.mgrid[:60, :70]
    for row in measured_places(labels, image):
        inside = np.argwhere(labels == row["label"])
        away = np.min([np.hypot(y - top, x - left) for top, left in inside], axis=0)
        near = (away > RING[0]) & (away <= RING[1]) & (labels == 0)
        level = np.median(image[1][near])
        assert row["background_b"] == pytest.approx(level, rel=1e-12)
        net = (image[1][labels == row["label"]] - level).sum()
        assert row["net_sum_b"] == pytest.approx(net, rel=1e-12)


def test_the_weighted_place_is_that_of_scikit_image():
    from skimage.measure import regionprops

    labels, image = crowded()
    rows = measured_places(labels, image)
    for row, region in zip(rows, regionprops(labels, np.moveaxis(image, 0, -1)), strict=True):
        y, x = np.array(region.centroid_weighted)[:, 0]
        assert (row["weighted_y_a"], row["weighted_x_a"]) == pytest.approx((y, x), rel=1e-12)


def test_places_and_sums_are_those_of_photutils():
    segmentation = pytest.importorskip("photutils.segmentation")
    labels, image = crowded()
    found = segmentation.SourceCatalog(image[0], segmentation.SegmentationImage(labels))
    rows = measured_places(labels, image, ("sum", *PLACES))
    for row, theirs in zip(rows, found, strict=True):
        assert (row["weighted_x_a"], row["weighted_y_a"]) == pytest.approx(tuple(theirs.centroid))
        assert row["sum_a"] == pytest.approx(float(theirs.segment_flux))


def test_an_object_without_free_pixels_around_has_no_background():
    labels = np.ones((20, 20), np.uint8)
    labels[8:12, 8:12] = 2
    row = measured_places(labels, np.ones((2, 20, 20)))[1]
    assert np.isnan([row["background_a"], row["net_sum_a"]]).all()
    assert not ring(labels, 2).any()


def test_a_volume_has_its_ring_in_each_plane_and_a_depth():
    labels = np.zeros((3, 30, 30), np.uint8)
    labels[1:, 12:18, 12:18] = 1
    image = np.zeros((1, 3, 30, 30))
    image[:, 0], image[:, 1], image[:, 2] = 900, 10, 30
    columns = ValueColumns(channels=("a",), statistics=("background", "weighted_z"))
    [row] = measure_objects(labels, axes="ZYX", channels=columns, plane=lambda at: image[:, at[0]])
    assert row["background_a"] == 20, "the plane without the object does not count"
    assert row["weighted_z_a"] == pytest.approx((1 * 10 + 2 * 30) / 40)
