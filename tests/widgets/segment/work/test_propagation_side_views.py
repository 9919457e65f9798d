"""Stacks seen from the side: time, lazy arrays, following along another axis, saving."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_simmat.widgets.segment.work.plane_status import PROPAGATED_HERE
from tests.widgets.scenes import iou
from tests.widgets.segment.work.test_workspace_views import (
    BLOBS,
    SHAPE,
    SHIFT,
    ZX,
    blobs,
    look,
    on_screen,
    open_blobs,
    plane_at,
)


@pytest.mark.slow
def test_propagate_along_y_is_seen_from_the_front(window):
    labels = open_blobs(window)
    middle = BLOBS[0][0]
    look(window, ZX, middle)
    panel = window.tab.stack_panel
    window.tab.sections["stack"].set_open(True)
    assert [panel.along.itemText(n) for n in range(panel.along.count())] == ["y"]
    window.click(*on_screen(window, middle))
    window.key(Qt.Key.Key_S, SHIFT)
    found = window.mask.copy()
    assert iou(found, labels == 1) > 0.8
    assert found.any(axis=(0, 2)).sum() > 20, "on many planes along y"
    look(window, (0, 1, 2), middle)
    assert [panel.along.itemText(n) for n in range(panel.along.count())] == ["z"]
    assert np.array_equal(window.mask, found), "seen from the front as well"
    look(window, ZX, (24, 12, 26))
    assert window.status.text.startswith(PROPAGATED_HERE)
    assert np.array_equal(window.mask, found)
    window.key(Qt.Key.Key_T)
    z, _, x = middle
    window.click(*on_screen(window, (z + 9, 12, x)))
    window.commit()  # followed again first
    made = window.objects.copy()
    assert set(np.unique(made)) == {0, 1}
    assert iou(made == 1, labels == 1) > 0.7
    assert not window.mask.any()
    window.undo()
    assert not window.objects.any(), "one step takes all of it back"
    window.redo()
    assert np.array_equal(window.objects, made)


@pytest.mark.slow
def test_propagation_from_one_side_is_committed_from_another(window):
    labels = open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    look(window, (0, 1, 2), first)
    window.click(*on_screen(window, first))
    window.key(Qt.Key.Key_S, SHIFT)
    found = window.mask.copy()
    assert iou(found, labels == 1) > 0.8
    look(window, ZX, second)
    assert np.array_equal(window.mask, found)
    window.click(*on_screen(window, second))
    at = plane_at(ZX, second)
    assert iou(window.mask[at], labels[at] == 2) > 0.85
    window.commit()  # what is open on the plane that is shown
    alone = window.objects.copy()
    assert alone.sum() == alone[at].sum()
    window.commit()  # what was followed
    assert set(np.unique(window.objects)) == {0, 1, 2}
    assert np.array_equal(window.objects == 2, found & (alone == 0))
    assert not window.mask.any()
    window.undo()
    assert np.array_equal(window.objects, alone)


@pytest.mark.slow
def test_everything_from_the_side_is_committed(window):
    labels = open_blobs(window)
    middle = (23, 38, 44)
    look(window, ZX, middle)
    window.tab.sections["everything"].set_open(True)
    window.tab.act("segment everything")
    window.idle()
    at = plane_at(ZX, middle)
    found = window.mask.copy()
    assert found.any()
    assert found.sum() == found[at].sum()
    look(window, (0, 1, 2), middle)
    assert not window.mask.any()
    look(window, ZX, middle)
    assert np.array_equal(window.mask, found)
    window.tab.controller.review.commit()
    window.idle()
    assert np.array_equal(window.objects > 0, found)
    for label in (1, 2):
        there = labels[at] == label
        number = np.bincount(window.objects[at][there]).argmax()
        assert iou(window.objects[at] == number, there) > 0.7


@pytest.mark.parametrize(
    "order", [(0, 2, 1, 3), pytest.param((2, 3, 0, 1), marks=pytest.mark.slow)]
)
def test_click_in_any_two_axes_of_time_and_depth_segments(window, order):
    size = np.array((20, 24, 40, 48))
    radii = np.array((7.0, 8.0, 13.0, 15.0))
    middle = size // 2
    at = np.indices(tuple(size))
    away = sum(((a - m) / r) ** 2 for a, m, r in zip(at, middle, radii, strict=True))
    image = np.where(away <= 1, 190, 40).astype(np.uint8)
    window.viewer.add_image(image, name="cells", scale=(1, 3, 0.5, 0.5), translate=(5, 0, 4, -6))
    window.open_widget()
    window.viewer.dims.order = order
    for axis in order[:2]:
        window.viewer.dims.set_current_step(axis, int(middle[axis]))
    window.idle()
    there = window.viewer.layers["cells"].data_to_world(middle)
    window.click(*(there[axis] for axis in window.viewer.dims.displayed))
    index: list[Any] = [slice(None)] * 4
    for axis in order[:2]:
        index[axis] = int(middle[axis])
    plane = tuple(index)
    assert iou(window.mask[plane], away[plane] <= 1) > 0.7
    assert window.mask.sum() == window.mask[plane].sum()
    shown = window.mask.copy()
    window.commit()
    assert np.array_equal(window.objects > 0, shown)
    assert window.objects.shape == tuple(size)
    window.undo()
    assert not window.objects.any()
    assert np.array_equal(window.mask, shown)


class Reads:
    """An array that takes slices, and notes which parts of it are read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.parts = values, list[tuple[int, ...]]()
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, index: Any) -> np.ndarray:
        part = self.values[index]
        if part.size > 1:  # dask asks for a first value, to learn its type
            self.parts.append(part.shape)
        return part


@pytest.mark.slow
def test_lazy_image_from_the_side_reads_a_plane_once(window):
    image, labels = blobs()
    middle = BLOBS[0][0]
    reads = Reads(image)
    chunks = (SHAPE[0], 1, SHAPE[2])  # so that a chunk is a plane of the view
    lazy = da.from_array(reads, chunks=chunks, asarray=False, meta=image[:0, :0, :0])
    read = reads.parts
    window.viewer.add_image(lazy, name="lazy", contrast_limits=(0, 255))
    window.open_widget()
    window.viewer.dims.order = ZX
    window.idle()
    window.viewer.dims.set_current_step(1, middle[1])
    window.idle()
    read.clear()
    window.click(middle[0], middle[2])
    window.click(middle[0] + 3, middle[2])
    at = plane_at(ZX, middle)
    assert iou(window.mask[at], labels[at] == 1) > 0.85
    assert 1 <= len(read) <= 2, "to look at, and to encode"
    assert all(np.prod(part) == SHAPE[0] * SHAPE[2] for part in read), "this plane alone"
    window.commit()
    assert len(read) <= 2


@pytest.mark.slow
def test_save_from_the_side_has_the_axes_of_the_image(window, tmp_path, monkeypatch):
    open_blobs(window)
    middle = BLOBS[0][0]
    look(window, ZX, middle)
    window.add_object(*on_screen(window, middle))
    answer = str(tmp_path / "mine_labels.tif"), ""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    QTest.mouseClick(window.tab.object_panel.save, Qt.MouseButton.LeftButton)
    window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"))
    with tifffile.TiffFile(tmp_path / "mine_labels.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert np.array_equal(file.asarray(), window.objects)
    table = (tmp_path / "mine_objects.csv").read_text().splitlines()
    assert "volume_um3" in table[0] or "area" in table[0]
    assert len(table) == 2
