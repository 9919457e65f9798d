"""Multiscale layers: a level is chosen and named, and all lies right in the whole image."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_simmat.widgets import placement
from napari_simmat.widgets.placement import ImageGeometry, layer_matrix, level_of
from tests.widgets.scenes import iou


def levels(shape: tuple[int, int] = (400, 520), count: int = 3) -> tuple[list[Any], np.ndarray]:
    """A bright disc as a pyramid of dask arrays, and its mask at full resolution."""
    y, x = np.indices(shape)
    mask = np.hypot(y - 250, x - 180) < 70
    image = np.where(mask, 200, 40).astype(np.uint8)
    pyramid = [image]
    for _ in range(count - 1):
        fine = pyramid[-1]
        half = fine.reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2).mean(axis=(1, 3))
        pyramid.append(half.astype(np.uint8))
    return [da.from_array(level, chunks=64) for level in pyramid], mask


def test_level_of_a_pyramid_is_the_finest_that_is_not_too_large(monkeypatch):
    pyramid, _ = levels()
    layer = Image(pyramid, multiscale=True)
    assert level_of(layer) == 0
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 300)
    assert level_of(layer) == 1
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 10)
    assert level_of(layer) == 2
    assert level_of(Image(np.zeros((400, 520)))) == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": (0.5, 0.25), "translate": (3, 4)},
        {"scale": (2, 3), "rotate": 20, "affine": [[1, 0, 3], [0.1, 1, 5], [0, 0, 1]]},
    ],
)
def test_geometry_of_a_coarse_level_centers_its_pixels(options):
    pyramid, _ = levels()
    layer = Image(pyramid, multiscale=True, **options)
    place = ImageGeometry(layer, level=2)
    assert place.shape == (100, 130)
    middle = np.asarray(layer.data_to_world((4 * 10 + 1.5, 4 * 20 + 1.5)))
    assert np.allclose((place.matrix @ (10, 20, 1))[:2], middle)
    labels = Labels(np.zeros(place.shape, int), **place.layer_options())
    assert np.allclose(layer_matrix(labels), place.matrix)
    assert place.lies_on(labels)
    assert "Level 2 of 0 to 2 is segmented: 100 x 130 of 400 x 520 pixels" in place.remark
    assert ImageGeometry(layer).remark == ""


def test_click_on_a_pyramid_masks_the_right_place(window, monkeypatch):
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 300)
    pyramid, mask = levels()
    window.open(pyramid, multiscale=True, name="slide", scale=(0.5, 0.5))
    assert "Level 1 of 0 to 2" in window.status.text
    window.click(125, 90)  # in the world, half a unit for each of the finest pixels
    window.commit()
    objects = window.viewer.layers["SimMAT objects"]
    assert objects.data.shape == (200, 260)
    fine = np.argwhere(mask)[::97]
    inside = [objects.get_value(tuple(0.5 * at), world=True) for at in fine]
    assert np.mean([value == 1 for value in inside]) > 0.9
    assert iou(np.kron(objects.data == 1, np.ones((2, 2), bool)), mask) > 0.85


@pytest.mark.slow
def test_level_chosen_by_the_user_is_segmented(window, monkeypatch):
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 300)
    pyramid, mask = levels()
    window.open(np.zeros((40, 40), np.uint8), name="flat")
    assert not window.tab.level.isVisible()
    window.viewer.add_image(pyramid, multiscale=True, name="slide")
    window.choose(window.tab.channels.image, "slide")
    assert window.tab.level.isVisible()
    assert window.tab.level.currentText() == "1: 200 x 260 pixels"
    window.add_object(250, 180)
    window.tab.level.setFocus()
    window.choose(window.tab.level, "0: 400 x 520 pixels")
    window.add_object(250, 180)
    finest = [layer for layer in window.viewer.layers if layer.name.startswith("SimMAT objects")]
    assert sorted(layer.data.shape for layer in finest) == [(200, 260), (400, 520)]
    (fine,) = (layer for layer in finest if layer.data.shape == (400, 520))
    assert iou(fine.data == 1, mask) > 0.85


@pytest.mark.slow
def test_tab_opened_again_continues_each_level(window, monkeypatch):
    monkeypatch.setattr(placement, "MAX_LEVEL_SIDE", 300)
    window.open(levels()[0], multiscale=True, name="slide")
    window.click(250, 180)
    sessions = [window.workspace.session]
    window.choose(window.tab.level, "0: 400 x 520 pixels")
    window.click(250, 180)
    sessions.append(window.workspace.session)
    window.close_widget()
    window.start()
    for session, title in zip(
        sessions, ("1: 200 x 260 pixels", "0: 400 x 520 pixels"), strict=True
    ):
        window.choose(window.tab.level, title)
        assert window.workspace.session is session
        assert session.prompts
