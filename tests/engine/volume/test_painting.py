"""Which axis of a file objects are followed along."""

from __future__ import annotations

import pytest

from napari_simmat.engine.volume.painting import along_of


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
def test_depth_comes_first_unless_it_is_one_plane(
    axes: str, shape: tuple[int, ...], along: int | None
) -> None:
    assert along_of(axes, shape) == along
