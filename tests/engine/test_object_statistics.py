import numpy as np
import pytest

from napari_simmat.engine.object_statistics import summarize

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
