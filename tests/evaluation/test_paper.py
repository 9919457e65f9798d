"""The paper's protocol, with clicks and figures that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.prompting import (
    PaperProtocol,
    UserProtocol,
    center_clicks,
    resample_to_grid,
)
from napari_simmat.models.spec import Model
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from tests.scripted_predictor import Scripted


def test_the_click_is_the_middle_pixel_in_row_major_order() -> None:
    """Six pixels: the fourth begins the second row, at the region's left edge."""
    labels = np.zeros((1024, 1024), int)
    labels[10:12, 100:103] = 4
    assert center_clicks(labels) == {4: (11, 100)}


def test_the_middle_is_counted_at_1024_and_given_in_pixels_of_the_image() -> None:
    """2 x 2 pixels of 512 are 4 x 4: the ninth of 16 is in row 10, column 16."""
    labels = np.zeros((512, 512), int)
    labels[4:6, 8:10] = 1
    assert center_clicks(labels) == {1: (4.75, 7.75)}
    # Pixels twice as wide as high: the aspect is not kept.
    wide = np.zeros((1024, 512), int)
    wide[8:12, 8:10] = 1
    assert center_clicks(wide) == {1: (10, 7.75)}


@pytest.mark.parametrize("shape", [(37, 301), (1500, 1100), (256, 256), (7, 5)])
def test_a_click_lies_on_its_region(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 6, (7, 5))
    labels = np.kron(cells, np.ones((-(-shape[0] // 7), -(-shape[1] // 5)), int))
    labels = labels[: shape[0], : shape[1]]
    clicks = center_clicks(labels)
    assert list(clicks) == [label for label in np.unique(labels) if label]
    for label, (y, x) in clicks.items():
        assert labels[round(y), round(x)] == label


def test_regions_are_those_above_the_size_and_what_the_grids_see() -> None:
    """64 x 64 pixels of 512 count as 128 x 128; a lone pixel of 1024 lies between the cells."""
    labels = np.zeros((512, 512), int)
    labels[:64, :64] = 7
    assert list(center_clicks(labels, 128 * 128 - 1)) == [7]
    assert list(center_clicks(labels, 128 * 128)) == []
    speck = np.zeros((1024, 1024), int)
    speck[0, 0] = 1
    assert center_clicks(speck) == {}
    speck[2, 2] = 1
    assert list(center_clicks(speck)) == [1]


def test_masks_are_compared_on_256_cells() -> None:
    """Half of the answer is right: IoU 1/3, Dice 1/2. What no cell's center sees is not counted."""
    labels, answer = np.zeros((2, 512, 512), int)
    labels[100:164, 100:164] = 9
    answer[132:196, 100:164] = 1
    answer[::2] = 0  # cells see the odd rows
    seen = []
    predictor = Scripted(answer > 0)
    job = PaperProtocol().score_job(predictor, labels, show=lambda *each: seen.append(each))
    (score,) = finish(job)
    assert score.figures == {"paper": 1 / 3, "dice_paper": 0.5}
    assert (score.label, score.area) == (9, 64 * 64)
    ((column, prompt, mask, reached),) = seen
    assert (column, prompt.object, reached) == ("paper", 9, score.paper)
    assert (mask == (answer > 0)).all()


def test_planes_come_to_a_grid_by_their_nearest_pixels() -> None:
    plane = np.arange(12).reshape(3, 4)
    assert resample_to_grid(plane, 3).tolist() == [[0, 2, 3], [4, 6, 7], [8, 10, 11]]
    assert (resample_to_grid(plane, 6)[::2, 1] == plane[:, 1]).all()


def test_some_labels_alone_and_labels_of_another_size() -> None:
    labels = np.repeat([[1, 2, 3, 0]], 4, axis=0)
    predictor = Scripted(labels == 2)
    (score,) = finish(PaperProtocol().score_job(predictor, labels, {2}))
    assert (score.label, score.figures["paper"]) == (2, 1)
    with pytest.raises(ValueError, match="The labels have 3 x 4 pixels"):
        finish(PaperProtocol().score_job(Scripted(labels == 2), labels[:3]))


def test_stock_sam_is_measured_as_its_own_predictor_answers() -> None:
    """Random weights: the stock network's best of three masks, cut at 0, on the cells."""
    torch.manual_seed(0)
    network = build_network("vit_b")
    network.image_encoder.blocks = network.image_encoder.blocks[:1]  # enough, and quick
    y, x = np.mgrid[:300, :200]
    labels = np.where((y - 120) ** 2 + (x - 80) ** 2 < 50**2, 6, 0)
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)

    predictor = Predictor(Model(sam_spec("vit_b", "vit_b", ""), network, "random"), "cpu", "exact")
    predictor.set_image(image, channel_axis=-1)
    (score,) = finish(PaperProtocol().score_job(predictor, labels))
    theirs = sam_model_registry["vit_b"]().eval()
    theirs.image_encoder.blocks = theirs.image_encoder.blocks[:1]
    theirs.load_state_dict(network.state_dict())
    stock = SamPredictor(theirs)
    stock.set_image(image)
    ((down, right),) = center_clicks(labels).values()
    masks, quality, _ = stock.predict(np.array([[right, down]]), np.array([1]))
    answer, truth = (
        resample_to_grid(masks[quality.argmax()], 256),
        resample_to_grid(labels == 6, 256),
    )
    expected = (answer & truth).sum() / (answer | truth).sum()
    assert 0 < expected < 1
    assert score.paper.iou == pytest.approx(expected, abs=1e-6)

    (clicked,) = finish(UserProtocol(clicks=3).score_job(predictor, labels))
    assert list(clicked.answers) == ["click", "click+1", "click+2", "box"]
