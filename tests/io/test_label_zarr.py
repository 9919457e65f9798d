"""Label images as OME-Zarr: whole or not at all, and read back with their pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_simmat.io.readers import read_image
from napari_simmat.io.zarr import label_zarr


def test_what_was_written_is_read_with_its_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.zarr"
    with label_zarr(path, (1500, 1200), pixel=(0.5, 0.25), unit="micrometer") as labels:
        labels[1000:1400, 100:200] = 70_000
    image = read_image(path)
    assert image.axes == "YX"
    assert (image.scale["Y"], image.scale["X"]) == (0.5, 0.25)
    values = np.asarray(image.data)
    assert values.shape == (1500, 1200)
    assert (values == 70_000).sum() == 400 * 100
    assert len(list((path / "0" / "c").rglob("*"))) < 5 + 4, "empty chunks take no space"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with label_zarr(tmp_path / "a.ome.zarr", (10, 10)) as labels:
            labels[0, 0] = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    with (
        pytest.raises(FileExistsError, match="exists already"),
        label_zarr(tmp_path / "a.ome.zarr", (10, 10)),
    ):
        pass
