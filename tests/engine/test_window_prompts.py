"""Prompts on a plane that is not read: the masks of a crop, at the places of the plane."""

import numpy as np
import pytest

from napari_simmat import Predictor, load_model
from napari_simmat.engine import window_prompts
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.window_prompts import _moved, predict_in_windows_job
from napari_simmat.progress import finish

SIDE = 1000
WINDOW = 256


class Read:
    """(Y, X) of which is kept what was read: discs on dark ground."""

    shape, dtype, ndim = (SIDE, SIDE), np.dtype(np.uint8), 2

    def __init__(self, *centers):
        self.centers, self.rows, self.pixels = centers, [], 0

    def __getitem__(self, where):
        rows, columns = where[-2:]
        y, x = np.arange(SIDE)[rows, None], np.arange(SIDE)[None, columns]
        values = 40 + 5 * ((y * 7 + x * 13) % 5)
        for cy, cx in self.centers:
            values = np.where((y - cy) ** 2 + (x - cx) ** 2 <= 30**2, 200, values)
        self.pixels += values.size
        return values.astype(np.uint8)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(window_prompts, "PART_SIDE", WINDOW)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


def opened(model, image):
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(image))
    image.pixels = 0
    return predictor


def test_click_reads_its_window_alone(model):
    image = Read((700, 400))
    [found] = finish(predict_in_windows_job(opened(model, image), [Prompt(points=[(700, 400)])]))
    assert image.pixels == WINDOW**2
    top, left = found.mask.corner
    assert (top, left) == pytest.approx((670, 370), abs=3)
    assert found.mask.size == pytest.approx(np.pi * 30**2, rel=0.1)


def test_masks_come_in_the_order_of_their_prompts(model):
    image = Read((800, 800), (150, 150))
    prompts = [Prompt(points=[(800, 800)]), Prompt(box=(118, 118, 182, 182))]
    predictor = opened(model, image)
    late, early = finish(predict_in_windows_job(predictor, prompts))
    assert late.mask.corner[0] > 700
    assert early.mask.corner[0] < 150
    assert image.pixels == 2 * WINDOW**2


def test_prompt_larger_than_a_window_is_seen_whole(model):
    image = Read((500, 500))
    box = Prompt(box=(380, 380, 620, 620))
    finish(predict_in_windows_job(opened(model, image), [box]))
    assert image.pixels == 480**2  # half of its side around it


def test_click_beside_the_plane_is_refused(model):
    with pytest.raises(ValueError, match="outside"):
        finish(predict_in_windows_job(opened(model, Read()), [Prompt(points=[(1, SIDE + 5)])]))


def test_scribble_stays_one_line_in_its_window():
    lines = [(700.0, 400.0), (700.0, 410.0), (720.0, 410.0)]
    prompt = Prompt(points=lines, labels=[1, 1, 0], scribbles=[1, 1, 0])
    moved = _moved(prompt, (slice(600, 900), slice(300, 600)))
    assert moved.points == ((100, 100), (100, 110), (120, 110))
    assert moved.scribbles == (1, 1, 0)
