"""Clicks that are decoded together get the masks of each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from napari_simmat.scenes.samples import draw_sample


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny").network


@pytest.fixture(scope="module")
def encoded(tiny):
    image, _ = draw_sample(3, (300, 420), ["fluorescence"])
    values = torch.tensor(np.broadcast_to(image, (1, 3, *image.shape)).copy())
    values = torch.nn.functional.pad((values - values.mean()) / values.std(), (0, 28, 0, 20))
    with torch.no_grad():
        return finish(tiny.encode_job(values))


@torch.no_grad()
def test_together_as_alone(tiny, encoded) -> None:
    clicks = torch.rand(7, 2, generator=torch.manual_seed(0)) * torch.tensor([420.0, 300.0])
    together = tiny.decode_clicks(encoded, clicks)
    assert len(together) == len(clicks)
    for click, placed in zip(clicks, together, strict=True):
        alone = tiny.decode(encoded, click[None], torch.ones(1))
        height, width = placed.logits.shape[1:]
        whole = alone.logits[0]
        part = whole[placed.top : placed.top + height, placed.left : placed.left + width].clone()
        torch.testing.assert_close(placed.logits[0], part, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            placed.predicted_iou[0], alone.predicted_iou[0], rtol=1e-4, atol=1e-5
        )
        outside = whole.clone()
        outside[placed.top : placed.top + height, placed.left : placed.left + width] = -1
        assert (outside < 0).all()


@torch.no_grad()
def test_the_order_of_clicks_does_not_matter(tiny, encoded) -> None:
    clicks = torch.rand(5, 2, generator=torch.manual_seed(1)) * 300
    forth, back = tiny.decode_clicks(encoded, clicks), tiny.decode_clicks(encoded, clicks.flip(0))
    for one, other in zip(forth, reversed(back), strict=True):
        assert one.top == other.top
        assert one.left == other.left
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_sam_answers_clicks_together_as_alone() -> None:
    torch.manual_seed(0)
    network = build_network("vit_b")
    from napari_simmat.models.network import Encoded

    encoded = Encoded(torch.randn(1, 256, 64, 64), (1024, 1024))
    clicks = torch.rand(2, 2) * 1024
    for click, placed in zip(clicks, network.decode_clicks(encoded, clicks), strict=True):
        alone = network.decode(encoded, click[None], torch.ones(1))
        torch.testing.assert_close(placed.logits, alone.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(placed.predicted_iou, alone.predicted_iou, rtol=1e-4, atol=1e-5)
        assert (placed.top, placed.left) == (0, 0)
