from xml.etree import ElementTree

import numpy as np

from napari_simmat.engine.measuring.histogram import MOST_BINS, Histogram


def test_counts_are_those_of_numpy():
    values = np.random.default_rng(0).normal(50, 9, 500)
    found = Histogram.of([*values, float("nan"), float("inf")])
    counts, edges = np.histogram(values, len(found.counts))
    assert found.counts == tuple(counts)
    np.testing.assert_allclose(found.edges, edges)
    assert len(found.counts) == len(np.histogram_bin_edges(values, "auto")) - 1


def test_whole_numbers_have_bins_of_whole_widths():
    found = Histogram.of([1, 2, 2, 3, 3, 3, 9])
    assert sum(found.counts) == 7
    widths = np.diff(found.edges)
    assert (widths == np.rint(widths)).all()
    assert found.edges[0] == 0.5


def test_a_long_tail_does_not_make_endless_bins():
    found = Histogram.of([*np.random.default_rng(0).uniform(0, 1, 1000), 1e6])
    assert len(found.counts) <= MOST_BINS
    assert sum(found.counts) == 1001


def test_one_value_is_one_bar_and_none_is_none():
    assert Histogram.of([4.0, 4.0]) == Histogram((3.5, 4.5), (2,))
    assert Histogram.of([float("nan")]) is None


def test_the_picture_has_a_bar_for_each_bin():
    root = ElementTree.fromstring(Histogram.of([1.5, 1.5, 2.5]).svg("mean_<b>"))
    bars = root.findall("rect")
    assert len(bars) == sum(count > 0 for count in Histogram.of([1.5, 1.5, 2.5]).counts)
    assert "mean_<b>, up to 2" in [text.text for text in root.findall("text")]
