"""The overlay of a plane that is not in memory: what it shows, and what at full size."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_simmat.batch import overlays
from napari_simmat.batch.overlays import overlay, small_overlay
from napari_simmat.engine.drawing import YELLOW
from napari_simmat.engine.everything.tissue import TissueMask
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.image_file import ImageFile
from napari_simmat.models.spec import InputChannels

SHAPE = (512, 1024)
INPUTS = InputChannels(names=("gray",))


PLACES = ((200, 100), (300, 900))


def drawn(shape, places):
    """A plane of two levels, and squares of 10 x 10 pixels on it with their rows."""
    data = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    labels, rows = np.zeros(shape, np.uint32), []
    for number, (y, x) in enumerate(places, start=1):
        labels[y : y + 10, x : x + 10] = number
        box = {"bbox_y0_px": y, "bbox_x0_px": x, "bbox_y1_px": y + 10, "bbox_x1_px": x + 10}
        rows.append({"centroid_y_px": y + 4.5, "centroid_x_px": x + 4.5, **box})
    file = ImageFile(path=Path("a.tif"), data=data, axes="YX", levels=(data[::4, ::4],))
    loaded = SimpleNamespace(
        shape=shape,
        image=file,
        axis=None,
        channel_names=None,
        prompts=None,
        tissue=None,
        config=SimpleNamespace(selection=ChannelSelection()),
    )
    stack = ChannelStack.build(data, inputs=INPUTS, channel_axis=None)
    return loaded, stack, labels, rows


@pytest.fixture
def scene():
    return drawn(SHAPE, PLACES)


def colored(picture):
    """Pixels of objects, which alone are neither gray nor of a frame."""
    is_frame = (picture == YELLOW).all(axis=-1)
    return (picture.max(axis=-1) > picture.min(axis=-1)) & ~is_frame


def test_overlay_that_is_not_reduced_has_all_pixels(scene):
    picture = overlay(*scene, in_parts=True)
    assert picture.shape == (*SHAPE, 3)
    np.testing.assert_array_equal(colored(picture), scene[2] > 0)


def test_overlay_of_prompts_shows_the_part_around_them(scene):
    scene[0].prompts = ["a click"]
    picture = overlay(scene[0], scene[1], scene[2], scene[3][:1], in_parts=True)
    # The square at y 200, x 100 with 256 pixels around it, cut off at the edges.
    assert picture.shape == (466, 366, 3)
    assert colored(picture).sum() == 100


def test_overlay_within_tissue_shows_the_tissue(scene):
    mask = np.zeros((8, 16), bool)  # cells of 64 x 64 pixels
    mask[2:5, 1:3] = True
    scene[0].tissue = TissueMask(mask, SHAPE)
    picture = overlay(*scene, in_parts=True)
    assert picture.shape == (192, 128, 3)
    assert colored(picture).sum() == 100


def test_overlay_reduced_shows_samples_at_full_size(scene, monkeypatch):
    monkeypatch.setattr(overlays, "OVERLAY_SIDE", 256)
    picture = overlay(*scene, in_parts=True)
    assert picture.shape == (128 + 64, 256, 3)  # four samples of 64 pixels below
    below = colored(picture[128:])
    # An object in the first and in the last quarter, whole and at full size.
    assert [below[:, start : start + 64].sum() for start in range(0, 256, 64)] == [100, 0, 0, 100]
    assert (picture[:128] == YELLOW).all(axis=-1).any()
    assert not (small_overlay(*scene[:3], in_parts=True) == YELLOW).all(axis=-1).any()


def test_overlay_of_a_tall_plane_has_samples_at_its_right(monkeypatch):
    monkeypatch.setattr(overlays, "OVERLAY_SIDE", 256)
    tall = drawn(SHAPE[::-1], [place[::-1] for place in PLACES])
    picture = overlay(*tall, in_parts=True)
    assert picture.shape == (256, 128 + 64, 3)
    right = colored(picture[:, 128:])
    assert [right[start : start + 64].sum() for start in range(0, 256, 64)] == [100, 0, 0, 100]
