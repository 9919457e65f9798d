"""Files of microscopes dropped on the window: their sizes, units, axes and names go through to the
objects that are saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_simmat.io.readers import read_labels
from tests.io.test_lif import image, lif, lines  # noqa: F401 - a fixture
from tests.widgets.scenes import CENTERS, discs, gray
from tests.widgets.segment.noted import save_as

pytestmark = pytest.mark.usefixtures("plugin")
HALF = 5e-7
"""Meters to a pixel."""


def check_dropped(
    window: Any, monkeypatch: Any, path: Path, names: tuple[str, ...], depth: float
) -> None:
    """Drop a stack of two channels, commit an object on its second plane, and save it."""
    [layer] = window.viewer.open([path], plugin="napari-simmat")
    window.open_widget()
    window.idle()
    assert layer.axis_labels == ("channel", "z", "y", "x")
    np.testing.assert_allclose(layer.scale[1:], (depth, 0.5, 0.5))
    assert [f"{unit:~}" for unit in layer.units[1:]] == ["\N{MICRO SIGN}m"] * 3
    window.viewer.dims.set_point(1, depth)  # the second plane
    window.idle()
    window.add_object(*(np.array(CENTERS[0]) / 2))
    objects = window.viewer.layers["SimMAT objects"]
    assert (objects.data[1] > 0)[discs()[1] == 1].mean() > 0.9
    target = path.parent / "mine_labels.tif"
    save_as(monkeypatch, target)
    window.tab.act("save")
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    saved = read_labels(target)
    assert saved.scale == pytest.approx({"Z": depth, "Y": 0.5, "X": 0.5})
    assert set(saved.units.values()) == {"um"}
    table = (target.with_name("mine_objects.csv")).read_text().splitlines()
    row = dict(zip(*(line.split(",") for line in table[:2]), strict=True))
    volume = np.count_nonzero(objects.data) * 0.5 * 0.5 * depth
    assert float(row["volume_um3"]) == pytest.approx(volume, rel=1e-6)
    assert f"mean_{names[0]}" in row


def stack() -> np.ndarray:
    """(Z, Y, X): discs on the second plane alone."""
    return np.stack([np.zeros_like(gray()), gray(), np.zeros_like(gray())])


def test_lif_dropped_keeps_sizes_axes_and_names(window, monkeypatch, lif):  # noqa: F811
    sizes = lines("Z", 3, 2e-6) | lines("Y", gray().shape[0], HALF)
    both = np.stack([stack()] * 2)
    cells = image("cells", tuple("CZYX"), both.shape, sizes | lines("X", gray().shape[1], HALF))
    cells.asarray = lambda: both.astype(np.uint8)
    check_dropped(window, monkeypatch, lif(cells), ("Green", "Red"), 2.0)


@pytest.mark.slow
def test_czi_dropped_keeps_sizes_axes_and_names(window, monkeypatch, tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    path = tmp_path / "cells.czi"
    with czi.create_czi(str(path)) as file:
        for channel in (0, 1):
            for z, plane in enumerate(stack()):
                at = {"C": channel, "T": 0, "Z": z}
                file.write(data=plane.astype(np.uint16)[..., None], plane=at)
        file.write_metadata(
            "cells", channel_names={0: "DAPI", 1: "GFP"}, scale_x=HALF, scale_y=HALF, scale_z=2e-6
        )
    check_dropped(window, monkeypatch, path, ("DAPI", "GFP"), 2.0)


# Of readlif (Arcadia Science), pims (soft-matter) and czitools (S. Rhode), laid beside the other
# real images that are not part of this project.
REAL = [
    ("cluster.nd2", ("channel", "t", "z", "y", "x"), (1, 1, 0.5, 0.167809, 0.167809)),
    ("xz-example.lif", ("channel", "t", "y", "x"), (1, 0.53, 0.140279, 0.140280)),
    ("LLS7_small.czi", ("channel", "t", "z", "y", "x"), (1, 1, 0.144992, 0.144992, 0.144992)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "axes", "scale"), REAL)
def test_real_file_dropped_has_size_and_axes(window, shared_folder, name, axes, scale):
    path = shared_folder / "instruments" / name
    package = {".nd2": "bioio_nd2", ".lif": "liffile", ".czi": "bioio_czi"}[path.suffix]
    pytest.importorskip(package)
    if not path.exists():
        pytest.skip(f"{name} is not in {path.parent} (NAPARI_SIMMAT_DATA names the folder)")
    [layer] = window.viewer.open([path], plugin="napari-simmat")
    window.open_widget()
    window.idle()
    assert layer.axis_labels == axes
    np.testing.assert_allclose(layer.scale, scale, rtol=1e-4)
    assert [f"{unit:~}" for unit in layer.units[-2:]] == ["\N{MICRO SIGN}m"] * 2
    assert layer.data.dtype.kind == "u"
    assert np.asarray(layer.data[(0,) * (layer.ndim - 2)]).any()
