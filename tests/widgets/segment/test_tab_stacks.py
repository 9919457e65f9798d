"""Images of many axes: what is read, what is encoded, what is followed, how far it is undone."""

import csv
from typing import Any

import numpy as np
import pytest
import zarr
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.batch.options import SegmentTableOptions
from napari_simmat.widgets.segment.work.plane_status import PROPAGATED_HERE
from tests.nightly import nightly_but
from tests.widgets.scenes import iou
from tests.widgets.segment.noted import save_as

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
SIDE = (72, 88)
CENTER = (36, 40)


def moving(times: int = 3, depth: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A ball that drifts to the right with time: uint8 and its mask (T, Z, Y, X)."""
    t, z, y, x = np.indices((times, depth, *SIDE))
    radius = np.array([0, 14, 18, 15, 0])[z]
    mask = np.hypot(y - CENTER[0], x - CENTER[1] - 2 * t) < radius
    image = np.where(mask, 190, 40) + 3 * np.sin(y / 3) * np.cos(x / 4)
    return image.astype(np.uint8), mask


def encoded(window: Any) -> list[str]:
    """Grows with each plane that is encoded."""
    puts: list[str] = []
    cache = window.controller.inference.service.cache
    original = cache.put

    def put(key: str, embedding: Any, **named: Any) -> None:
        puts.append(key)
        original(key, embedding, **named)

    cache.put = put
    return puts


def test_points_without_planes_follow_the_slider_undone_at_once(window):
    image, mask = moving(times=1)
    window.viewer.add_image(image[0], name="ball")
    points = window.viewer.add_points(ndim=2, name="mine")
    window.open_widget()
    window.tab.points.set_value(points)
    window.tab.points.chosen.emit(points)
    window.show_plane(1)
    points.add([CENTER])
    window.idle()
    for plane in (2, 3, 2):
        window.show_plane(plane)
        assert iou(window.mask[plane], mask[0, plane]) > 0.85
        assert not np.delete(window.mask, plane, axis=0).any()
    window.undo()
    assert len(points.data) == 0
    assert not window.mask.any()
    window.redo()
    assert iou(window.mask[2], mask[0, 2]) > 0.85


def test_propagate_along_depth_and_time_follows_one_click(window):
    image, mask = moving()
    whole = np.stack([image, image, image], axis=2)
    window.open(
        whole,
        axis_labels=("t", "z", "channel", "y", "x"),
        scale=(1, 3, 1, 0.5, 0.5),
        translate=(0, 0, 0, 4, -6),
        units=("s", "um", "pixel", "um", "um"),
        name="cells",
    )
    assert window.status.offer == "Move channels"
    window.push(window.tab.status.offer)
    layer = window.viewer.layers["cells"]
    assert layer.data.shape == (3, 3, 5, *SIDE)
    assert np.shares_memory(layer.data, whole), "nothing is copied"
    window.viewer.dims.set_current_step(1, 1)
    window.viewer.dims.set_current_step(2, 2)
    window.viewer.reset_view()
    window.idle()
    assert [source.part for source in window.tab.channels.value()] == [0, 1, 2]
    world = 4 + 0.5 * CENTER[0], -6 + 0.5 * (CENTER[1] + 2)
    window.click(*world)
    assert iou(window.mask[1, 2], mask[1, 2]) > 0.85
    assert not np.delete(window.mask.reshape(15, *SIDE), 7, axis=0).any(), "on its plane alone"
    window.choose(window.tab.stack_panel.along, "z, then t")
    window.key(Qt.Key.Key_S, SHIFT)
    window.commit()
    assert iou(window.objects == 1, mask) > 0.8
    made = window.viewer.layers["SimMAT objects"]
    assert made.axis_labels == ("t", "z", "y", "x")
    assert np.allclose(made.scale, (1, 3, 0.5, 0.5))
    assert np.allclose(made.translate, (0, 0, 4, -6))
    assert [str(unit) for unit in made.units] == [str(unit) for unit in layer.units[1:]]
    window.undo()
    assert not window.objects.any(), "one step takes all of it back"


def test_two_stains_of_a_stack_are_measured_not_planes(window, tmp_path, monkeypatch):
    image, mask = moving(times=1)
    stains = np.stack([image[0], np.full_like(image[0], 7)], axis=1)
    window.open(stains, axis_labels=("z", "channel", "y", "x"), name="cells")
    window.show_plane(3, 0)
    window.push(window.tab.status.offer)
    assert [source.part for source in window.tab.channels.value()] == [0, 0, 0]
    dims = window.viewer.dims
    assert dims.axis_labels == ("channel", "z", "y", "x")
    assert dims.current_step[:2] == (0, 3), "the same plane is in sight"
    window.click(*CENTER)
    window.commit()
    assert window.objects.shape == (5, *SIDE)
    assert iou(window.objects[3] == 1, mask[0, 3]) > 0.85
    table = window.tab.object_panel.saved_table
    for whole in (False, True):
        table.set_value(SegmentTableOptions(index=("twice=2*channel1",), all_channels=whole))
        save_as(monkeypatch, tmp_path / f"{whole}_labels.tif")
        window.tab.act("save")
        window.qtbot.waitUntil((tmp_path / f"{whole}_objects.csv").exists, timeout=30_000)
        window.qtbot.waitUntil(lambda: window.status.text.startswith("Saved"), timeout=30_000)
        assert ("measures 1 of 2 channels" in window.status.text) != whole
        with (tmp_path / f"{whole}_objects.csv").open() as file:
            [row] = csv.DictReader(file)
        assert "t" not in row
        assert float(row["mean_channel0"]) > 150
        assert float(row["mean_twice"]) == 14, "of a channel that the model does not read"
        assert ("mean_channel1" in row) == whole
    assert float(row["mean_channel1"]) == 7


def test_lazy_stack_is_read_where_it_is_prompted(window, monkeypatch):
    image, mask = moving(times=1)
    stack = np.concatenate([image[0], np.zeros((20, *SIDE), np.uint8)])
    lazy = zarr.create_array({}, shape=stack.shape, chunks=(1, *SIDE), dtype="u1")
    lazy[:] = stack
    read, original = set(), zarr.Array.__getitem__

    def noted(self, index):
        first = index[0] if isinstance(index, tuple) else index
        if first is not Ellipsis:
            read.update(np.atleast_1d(np.arange(self.shape[0])[first]).tolist())
        return original(self, index)

    monkeypatch.setattr(zarr.Array, "__getitem__", noted)
    window.viewer.add_image(lazy, name="lazy", contrast_limits=(0, 255))
    window.open_widget()
    window.show_plane(2)
    read.clear()
    window.click(*CENTER)
    assert iou(window.mask[2], mask[0, 2]) > 0.85
    assert read <= {2}
    window.key(Qt.Key.Key_S, SHIFT)
    assert iou(window.mask[:5], mask[0]) > 0.8
    assert read <= set(range(6)), "none beyond the object's ends"


def test_data_changed_on_one_plane_encodes_that_plane_again(window):
    image, mask = moving(times=1)
    layer = window.viewer.add_image(image[0], name="stack")
    window.open_widget()
    puts = encoded(window)
    window.show_plane(2)
    panel, cache = window.tab.encoding_panel, window.controller.inference.service.cache
    window.push(panel.whole)
    assert len(cache) == 4, "the first and the last plane are equal"
    puts.clear()
    changed = layer.data.copy()
    changed[1] = np.roll(changed[1], 12, axis=1)
    layer.data = changed
    window.idle()
    window.push(panel.whole)
    assert len(puts) == 1
    window.show_plane(1)
    window.click(CENTER[0], CENTER[1] + 12)
    assert iou(window.mask[1], np.roll(mask[0, 1], 12, axis=1)) > 0.8
    assert len(puts) == 1


@pytest.mark.slow
def test_encode_whole_stack_canceled_continues_where_it_was(window, qtbot):
    stack = np.random.default_rng(0).integers(0, 255, (30, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    puts = encoded(window)
    window.show_plane(0)
    panel, cache = window.tab.encoding_panel, window.controller.inference.service.cache
    QTest.mouseClick(panel.whole, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(cache) >= 3)
    window.push(panel.whole)  # which says Cancel now
    assert panel.whole.text() == "Encode whole stack"
    window.idle()
    assert 3 <= len(cache) < 30
    window.push(panel.whole)
    assert len(cache) == 30
    assert len(set(puts)) == len(puts), "none twice"


@pytest.mark.parametrize("what", nightly_but(("another", "none"), "another"))
def test_encode_whole_stack_ends_with_its_image(window, qtbot, what):
    stack = np.random.default_rng(0).integers(0, 255, (60, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    window.show_plane(0)
    panel, cache = window.tab.encoding_panel, window.controller.inference.service.cache
    QTest.mouseClick(panel.whole, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(cache) >= 2)
    if what == "another":
        window.viewer.add_image(stack[:40, :40], name="another")
        choice = window.tab.channels.image
        qtbot.waitUntil(lambda: choice.findText("another") >= 0)
        choice.setCurrentIndex(choice.findText("another"))
        choice.activated.emit(choice.currentIndex())
    else:
        window.viewer.layers.remove("stack")
    window.idle()
    assert panel.whole.text() == "Encode whole stack"
    assert len(cache) < 40


@pytest.mark.slow
def test_propagate_between_box_and_click_is_one_object(window):
    image, mask = moving(times=1, depth=5)
    stack, truth = np.repeat(image[0], 2, axis=0)[1:9], np.repeat(mask[0], 2, axis=0)[1:9]
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    window.show_plane(2)
    window.viewer.reset_view()
    y, x = CENTER
    window.drag(y - 15, x - 15, y + 15, x + 15)
    window.show_plane(6)
    window.click(*CENTER)
    window.key(Qt.Key.Key_S, SHIFT)
    asked = window.mask[[2, 6]].copy()
    window.commit()
    assert set(np.unique(window.objects)) == {0, 1}, "both mean the same object"
    assert iou(window.objects == 1, truth) > 0.8
    assert np.array_equal(window.objects[[2, 6]] == 1, asked)


@pytest.mark.slow
def test_propagate_a_mask_names_what_was_found(window):
    image, mask = moving(times=1)
    window.viewer.add_image(image[0], name="stack")
    known = np.zeros(mask[0].shape, np.int32)
    known[2] = mask[0, 2]
    window.viewer.add_labels(known, name="known", visible=False)
    window.open_widget()
    window.show_plane(2)
    window.tab.masks.chosen.emit(window.viewer.layers["known"])
    window.idle()
    assert iou(window.mask[2], mask[0, 2]) > 0.85
    window.key(Qt.Key.Key_S, SHIFT)
    window.show_plane(3)
    assert window.status.text.startswith(PROPAGATED_HERE)
    window.commit()
    assert iou(window.objects == 1, mask[0]) > 0.8
    assert not window.mask.any()
