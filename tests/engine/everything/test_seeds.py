"""Where the model is asked."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from segment_anything.utils.amg import build_point_grid

from napari_simmat import AutomaticSettings, Predictor, load_model
from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.everything.seeds import (
    MIN_FOREGROUND,
    SUFFICIENT_VOTES,
    SeedRounds,
    hematoxylin,
    local_maxima,
    point_grid,
    prompt_positions,
    prompts_at,
    prompts_from_labels,
    seed_prompts,
)
from napari_simmat.progress import finish
from tests.slides import NUCLEI, RADIUS, drawn_slide


def test_point_grid_on_a_square_is_that_of_sam():
    theirs = build_point_grid(5) * 40  # x, y from the edge of the first pixel
    ours = prompt_positions(point_grid((40, 40), 5))
    np.testing.assert_allclose(ours[:, ::-1] + 0.5, theirs)
    points = prompt_positions(point_grid((30, 60), 4))
    assert points.tolist() == [[y, x] for y in (7.0, 22.0) for x in (7.0, 22.0, 37.0, 52.0)]
    assert len(point_grid((1, 100), 10)) == 10


def test_local_maxima_of_blobs_are_one_each():
    y, x = np.mgrid[:60, :80]
    centers = [(10, 12), (10, 60), (45, 30)]
    image = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 50) for cy, cx in centers)
    image = np.clip(image + np.random.default_rng(0).normal(0, 0.05, image.shape), 0, 1)
    found = local_maxima(image, distance=8, height=0.2)
    assert len(found) == 3
    np.testing.assert_allclose(found, centers, atol=2)
    assert len(local_maxima(np.zeros((20, 20)))) == 0
    assert len(local_maxima(image, distance=8, height=0.95)) == 0


def test_prompts_from_labels_are_a_box_and_a_click():
    labels = np.zeros((20, 30), np.uint16)
    labels[5:15, 2:6] = 7
    labels[3:6, 20:29] = 2
    prompts = prompts_from_labels(labels)
    assert [prompt.object for prompt in prompts] == [2, 7]
    assert prompts[1].box == (5, 2, 15, 6)
    for prompt in prompts:
        y, x = prompt.points[0]
        assert labels[int(y), int(x)] == prompt.object
    [_, prompt] = prompts_from_labels(np.where(labels == 7, np.uint32(3_000_000_000), labels))
    assert (prompt.object, prompt.box) == (3_000_000_000, prompts[1].box)
    with pytest.raises(ValueError, match="holds no label"):
        prompts_from_labels(np.zeros((5, 5), int))


def test_prompt_positions_are_points_box_centers_or_nan():
    assert prompt_positions(prompts_at([(1, 2), (3.5, 4)])).tolist() == [[1, 2], [3.5, 4]]
    assert prompts_at(np.empty((0, 2))) == []


def test_seed_rounds_prompt_where_it_is_worth_it():
    positions = prompt_positions(point_grid((50, 50), 5))  # every 10 pixels
    foreground, size = np.zeros(25, np.float32), np.full(25, 60.0, np.float32)
    foreground[[0, 1, 2, 3]] = MIN_FOREGROUND - 1
    size[[3, 9, 23]] = 19.0
    rounds = SeedRounds(positions, foreground, size)
    assert rounds.first() == [4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]
    assert rounds.total == 21
    votes = np.zeros(25, int)
    assert rounds.second([], votes) == ([9, 23], [])  # small objects; nothing is seen at 3
    assert rounds.second([6, 12], votes) == ([5, 7, 9, 11, 13, 17, 23], [])
    votes[[9, 11, 15]] = SUFFICIENT_VOTES
    assert rounds.second([6, 12], votes) == ([5, 7, 9, 13, 17, 23], [11])


def test_seed_rounds_of_a_single_row_are_two():
    positions = prompt_positions(point_grid((10, 100), 10))
    assert (positions[:, 0] == positions[0, 0]).all()
    rounds = SeedRounds(positions, np.zeros(10, np.float32), np.full(10, 60.0, np.float32))
    assert rounds.first() == [0, 2, 4, 6, 8]
    assert rounds.second([4], np.zeros(10, int)) == ([3, 5], [])


@pytest.mark.parametrize("seeds", ["minima", "hematoxylin"])
def test_dark_nuclei_get_a_seed_each(seeds):
    predictor = Predictor(load_model("tiny"), "cpu")
    finish(predictor.open_image_job(drawn_slide()[:512, :512], channel_axis=-1))
    settings = AutomaticSettings(seeds=seeds, maxima_height=0.9 if seeds == "minima" else 0.2)
    found = prompt_positions(seed_prompts(predictor, settings, (), PixelBox(0, 0, 512, 512)))
    assert len(found) == 3
    assert (cdist(found, NUCLEI[:3]).min(axis=0) < RADIUS).all()


def test_hematoxylin_of_gray_is_refused():
    with pytest.raises(ValueError, match=r"red, green and blue of 8 bits.* 1 channel of uint8"):
        hematoxylin(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="3 channels of uint16"):
        hematoxylin(np.zeros((3, 4, 4), np.uint16))
