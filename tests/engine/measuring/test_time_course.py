from xml.etree import ElementTree

import numpy as np

from napari_simmat.engine.measuring.time_course import TimeCourse, plot_svg


def test_counts_and_means_are_of_each_frame():
    course = TimeCourse(4, ["area_px", "mean_gfp"])
    for t, area, mean in [(0, "4", "1.5"), (0, "8", ""), (2, "6", "")]:
        course.add({"t": str(t), "area_px": area, "mean_gfp": mean})
    assert course.counts.tolist() == [2, 0, 1, 0]
    np.testing.assert_equal(course.mean("area_px"), [6, np.nan, 6, np.nan])
    np.testing.assert_equal(course.mean("mean_gfp"), [1.5, np.nan, np.nan, np.nan])


def test_a_plot_has_a_line_for_each_series_with_gaps():
    lines = [("a<b>", np.array([1, 2, np.nan, 4, 3])), ("c", np.array([0.0, 5]))]
    root = ElementTree.fromstring(plot_svg("mean_<x>", lines))
    assert [len(group.findall("polyline")) for group in root.findall("g")] == [2, 1]
    assert [len(group.findall("circle")) for group in root.findall("g")] == [4, 2]
    assert [group.find("title").text for group in root.findall("g")] == ["a<b>", "c"]
    texts = [text.text for text in root.findall("text")]
    assert texts == ["frame 0", "mean_<x>, 0 to 5", "4"]
    highest = min(float(dot.get("cy")) for dot in root.iter("circle"))
    assert [float(dot.get("cy")) for dot in root.iter("circle")].index(highest) == 5


def test_nothing_known_is_no_plot():
    assert plot_svg("mean", [("a", np.array([np.nan]))]) == ""
