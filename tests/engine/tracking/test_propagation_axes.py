"""Which axis of a file objects are followed along."""

import pytest

from napari_simmat.engine.tracking.propagation import axis_spacing, propagation_axis


@pytest.mark.parametrize(
    ("axes", "shape", "along"),
    [
        ("ZYX", (5, 20, 30), 0),
        ("TZYX", (3, 5, 20, 30), 1),
        ("ZTYX", (5, 3, 20, 30), 0),
        ("TZYX", (3, 1, 20, 30), 0),
        ("TZYX", (1, 5, 20, 30), 1),
        ("TQYX", (3, 4, 20, 30), 1),
        ("TZYX", (1, 1, 20, 30), None),
        ("YX", (20, 30), None),
    ],
)
def test_propagation_axis_is_depth_unless_it_is_one_plane(axes, shape, along):
    assert propagation_axis(axes, shape) == along


@pytest.mark.parametrize(
    ("axes", "scale", "spacing"),
    [
        ("ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.4}, (2.0, 0.5, 0.4)),
        ("ZYX", {"Y": 0.5, "X": 0.4}, (1.0, 1.0, 1.0)),
        ("ZYX", {"Z": 0.0, "Y": 0.5, "X": 0.4}, (1.0, 1.0, 1.0)),
        ("TZYX", {"T": 300.0, "Z": 2.0, "Y": 0.5, "X": 0.4}, (0.4, 2.0, 0.5, 0.4)),
        ("TYX", {"T": 300.0, "Y": 0.5, "X": 0.4}, (1.0, 1.0, 1.0)),
    ],
)
def test_axis_spacing_takes_time_for_no_distance(axes, scale, spacing):
    assert axis_spacing(axes, scale) == spacing
