"""Small objects of images that are larger than the network's input."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_simmat import Predictor, Prompt, load_model
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.detail_windows import DetailWindows
from napari_simmat.engine.masks import iou
from napari_simmat.engine.refinement import Refiner
from napari_simmat.models.spec import InputSize

SIDE, INPUT = 1200, 400
SMALL = ((300, 420), (640, 1105), (1010, 75))
"""y, x of discs with a radius of 6 pixels, which the network's input shows with 2."""
LARGE = (760, 560)
RADIUS, LARGE_RADIUS = 6, 150


@pytest.fixture(scope="module")
def reduced():
    """An image that is reduced to a third, as one of 12,000 pixels is by `tiny`."""
    model = load_model("tiny")
    size = replace(model.spec.input_size, size=INPUT)
    model = replace(model, spec=replace(model.spec, input_size=size))
    predictor = Predictor(model)
    predictor.set_image(image())
    return predictor


def image() -> np.ndarray:
    y, x = np.indices((SIDE, SIDE), dtype=np.float32)
    values = 40 + 90 * (np.hypot(y - LARGE[0], x - LARGE[1]) < LARGE_RADIUS)
    for cy, cx in SMALL:
        values += 110 * (np.hypot(y - cy, x - cx) < RADIUS)
    values = ndi.gaussian_filter(values, 1) + np.random.default_rng(0).normal(0, 4, values.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def disc(center: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.indices((SIDE, SIDE))
    return np.hypot(y - center[0], x - center[1]) < radius


def test_predict_on_a_reduced_plane_finds_small_and_large(reduced):
    encodes = reduced.encodes
    for center in SMALL:
        result = reduced.predict(points=[center])
        assert result.mask.shape == (SIDE, SIDE)
        assert iou(result.mask, disc(center, RADIUS)) > 0.7
        assert all(result.original(n).mask.shape == (SIDE, SIDE) for n in result.distinct)
        assert result.masks.shape == (3, SIDE, SIDE)
    assert reduced.encodes == encodes + 3, "a window each"
    large = reduced.predict(points=[LARGE])
    assert iou(large.mask, disc(LARGE, LARGE_RADIUS)) > 0.9
    box = (LARGE[0] - 155, LARGE[1] - 155, LARGE[0] + 155, LARGE[1] + 155)
    assert iou(reduced.predict(box=box).mask, disc(LARGE, LARGE_RADIUS)) > 0.9
    assert reduced.encodes == encodes + 3, "the plane is encoded already"
    again = reduced.predict(points=[SMALL[0]])
    assert iou(again.mask, disc(SMALL[0], RADIUS)) > 0.7
    assert reduced.encodes == encodes + 3, "windows are kept"


def test_predict_refines_in_a_window_and_beyond_it(reduced):
    (y, x), refiner = SMALL[0], Refiner()
    prompt = Prompt(points=[(y, x), (y, x + 12)], labels=[1, 0])
    [result] = refiner.refine(reduced, [prompt])
    assert result.mask[y, x]
    assert not result.mask[y, x + 12]
    [again] = Refiner().refine(reduced, [prompt])
    assert np.array_equal(result.mask, again.mask), "it follows from the prompt alone"
    far = Prompt(points=[(y, x), LARGE], labels=[1, 1])
    [whole] = refiner.refine(reduced, [far])
    assert whole.mask.shape == (SIDE, SIDE)
    assert whole.mask[LARGE]


def windows_of(side: int, size: int) -> DetailWindows:
    """Windows of 100 pixels of a plane of `side` pixels that is reduced to `size`."""
    input_size = InputSize(method="native", size=size)
    plane = InputTransform.of((side, side), input_size)
    windows = DetailWindows.of(plane, input_size, 2)
    assert windows is not None
    return windows


@pytest.mark.parametrize(
    ("prompt", "window"),
    [
        (Prompt(points=[(300, 420)]), (slice(250, 350), slice(375, 475))),
        (Prompt(points=[(303, 424)]), (slice(250, 350), slice(375, 475))),  # a neighbor shares it
        (Prompt(points=[(0, SIDE - 1)]), (slice(0, 100), slice(SIDE - 100, SIDE))),
        (Prompt(points=[(300, 420), (310, 440)]), (slice(250, 350), slice(375, 475))),
        (Prompt(points=[(300, 420), (600, 420)]), None),
        (Prompt(box=(0, 0, 400, 400)), None),
    ],
)
def test_detail_windows_around_a_prompt_follow_from_it(prompt, window):
    assert windows_of(SIDE, INPUT).around(prompt) == window


@pytest.mark.parametrize(
    ("prompt", "lost"),
    [
        (Prompt(points=[(9, 9)]), True),
        (Prompt(points=[(9, 9), (0, 0)], labels=[1, 0]), False),
        (Prompt(box=(0, 0, 60, 60)), False),
    ],
)
def test_detail_windows_with_a_mask_of_everything_doubt_a_click(prompt, lost):
    assert windows_of(SIDE, INPUT).lost_detail(prompt, np.ones((SIDE, SIDE), bool)) == lost
