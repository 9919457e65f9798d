"""The predictor against the stock `SamPredictor` on seeded random ViT-B weights."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.spec import Model
from napari_simmat.models.tuning import build_network

pytestmark = pytest.mark.slow

IMAGES = {
    "1 x 1 RGB": lambda rng: rng.integers(0, 256, (1, 1, 3), dtype=np.uint8),
    "1500 x 700 gray": lambda rng: rng.integers(0, 256, (1500, 700), dtype=np.uint8),
    "53 x 170 RGB": lambda rng: rng.integers(0, 256, (53, 170, 3), dtype=np.uint8),
}


@pytest.fixture(scope="module")
def networks():
    """The stock network, and the project's with the same numbers."""
    torch.manual_seed(0)
    stock = sam_model_registry["vit_b"]().eval()
    with torch.no_grad():  # the default start of these is 0, which would hide mistakes
        for name, parameter in stock.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    network = build_network("vit_b", initialize=False)
    network.load_state_dict(stock.state_dict(), strict=True, assign=True)
    return stock, network


@pytest.fixture(scope="module", params=IMAGES)
def pair(networks, request):
    """Both predictors with the same image, and its height and width."""
    image = IMAGES[request.param](np.random.default_rng(1))
    stock = SamPredictor(networks[0])
    stock.set_image(image if image.ndim == 3 else np.stack([image] * 3, axis=-1))
    model = Model(sam_spec("vit_b", "vit_b", ""), networks[1], "random vit_b")
    ours = Predictor(model, "cpu", "exact")
    ours.set_image(image, channel_axis=-1 if image.ndim == 3 else None)
    return ours, stock, image.shape[:2]


def prompts(shape):
    """Prompts for SamPredictor as fractions of the image, and the same for ours."""
    height, width = shape
    at = np.array([[0.3, 0.4], [0.8, 0.1], [0.6, 0.7]]) * [height - 1, width - 1]
    box = (0.1 * height, 0.2 * width, 0.7 * height, 0.9 * width)
    rng = np.random.default_rng(2)
    mask = rng.normal(0, 5, (256, 256)).astype(np.float32)
    return {
        "a click": Prompt(points=at[:1], labels=[1]),
        "a background click": Prompt(points=at[:1], labels=[0]),
        "clicks": Prompt(points=at, labels=[1, 0, 1]),
        "a box": Prompt(box=box),
        "a box and clicks": Prompt(points=at, labels=[1, 0, 1], box=box),
        "a mask": Prompt(mask=mask),
        "a mask and a click": Prompt(points=at[:1], labels=[1], mask=mask),
    }


def test_predict_equals_stock_sam(pair):
    ours, stock, shape = pair
    given = prompts(shape)
    results = dict(zip(given, ours.predict_many(list(given.values())), strict=True))
    for name, prompt in given.items():
        result = results[name]
        multimask = name in ("a click", "a background click")
        asked = {
            "point_coords": np.array(prompt.points)[:, ::-1] if prompt.points else None,
            "point_labels": np.array(prompt.labels) if prompt.points else None,
            "box": None if prompt.box is None else np.array(prompt.box)[[1, 0, 3, 2]],
            "mask_input": None if prompt.mask is None else prompt.mask[None].copy(),
        }
        fine, scores, logits = stock.predict(
            **asked, multimask_output=multimask, return_logits=True
        )
        best = int(scores.argmax())
        admitted, cells = np.ones(shape, bool), np.ones((256, 256), bool)
        if (bounds := prompt.bounds(shape)) is not None:  # stock's masks may exceed the box
            frame = ours._current().transform
            for inside, part in (admitted, bounds), (cells, frame.cells_within(*bounds, 4)):
                inside[...] = False
                inside[part] = True
        difference = np.linalg.norm((result.logits - logits[best])[cells])
        assert difference <= 1e-4 * np.linalg.norm(logits[best]), name
        assert (result.logits[~cells] < 0).all(), name
        assert result.score == pytest.approx(scores[best], rel=1e-4, abs=1e-5), name
        unsure = np.abs(fine[best]) <= 1e-4 * np.abs(fine[best]).max()
        assert ((result.mask == ((fine[best] > 0) & admitted)) | unsure).all(), name
        assert result.mask.shape == shape

        if not multimask:
            if name not in ("clicks", "a box"):  # two suffice for the candidates
                continue
            fine, scores, _ = stock.predict(**asked, multimask_output=True, return_logits=True)
        unsure = np.abs(fine) <= 1e-4 * np.abs(fine).max()
        assert ((result.masks == (fine > 0)) | unsure).all(), name
        np.testing.assert_allclose(result.scores, scores, rtol=1e-4, atol=1e-5)
