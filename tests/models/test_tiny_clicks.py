"""Clicks that are decoded together get the masks of each alone."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.models.dense_prior import FOREGROUND
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.multiscale import LevelWindow
from napari_simmat.models.prompt_levels import clicked_size, dense_at, levels_by_likelihood
from napari_simmat.progress import finish
from tests.nightly import nightly_but
from tests.widgets.scenes import discs


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny").network


@pytest.fixture(scope="module", params=nightly_but(("fast", "best"), "fast"))
def encoded(tiny, request):
    image, _ = discs((300, 420))
    values = torch.tensor(np.broadcast_to(image, (1, 3, *image.shape)), dtype=torch.float32)
    values = torch.nn.functional.pad((values - values.mean()) / values.std(), (0, 28, 0, 20))
    with torch.no_grad():
        return finish(tiny.encode_job(values, averaged=request.param == "best"))


@torch.no_grad()
@pytest.mark.parametrize(
    "learned",
    [None, (300.0, 420.0), pytest.param((9000.0, 12000.0), marks=pytest.mark.slow)],
)
def test_decode_clicks_together_equals_each_alone(tiny, encoded, monkeypatch, learned):
    """Also where the model has learned how large the objects are that a click means."""
    size = None if learned is None else ExpectedSize.of(learned)
    monkeypatch.setattr(tiny, "expected_size", size)
    clicks = torch.rand(7, 2, generator=torch.manual_seed(0)) * torch.tensor([420.0, 300.0])
    together = tiny.decode_clicks(encoded, clicks)
    assert len(together) == len(clicks)
    for click, placed in zip(clicks, together, strict=True):
        alone = tiny.decode(encoded, {"points": click[None], "labels": torch.ones(1)})
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


@pytest.mark.slow
@torch.no_grad()
def test_decode_clicks_forms_no_unwanted_masks(tiny, encoded):
    clicks = torch.rand(6, 2, generator=torch.manual_seed(2)) * torch.tensor([420.0, 300.0])
    with FlopCounterMode(display=False) as counter:
        every = tiny.decode_clicks(encoded, clicks)
    complete = counter.get_total_flops()
    least = sorted(float(each.predicted_iou.max()) for each in every)[3]
    for one, whole in zip(tiny.decode_clicks(encoded, clicks, least), every, strict=True):
        if float(whole.predicted_iou.max()) >= least:
            assert torch.equal(one.logits, whole.logits)
            assert (one.top, one.left) == (whole.top, whole.left)
        else:  # the masks of another level may be wanted
            assert not len(one.logits) or torch.equal(one.logits, whole.logits)
    with FlopCounterMode(display=False) as counter:
        none = tiny.decode_clicks(encoded, clicks, minimum=1e9)
    assert all(each.logits.shape[0] == 0 for each in none)
    assert counter.get_total_flops() < 0.95 * complete


@torch.no_grad()
def test_decode_batch_without_gradients_is_the_same(tiny, encoded):
    crop = LevelWindow.around(encoded, (200.0, 150.0)).crop(encoded)
    points = torch.tensor([[[60.0, 70.0], [0.0, 0.0]], [[120.0, 90.0], [200.0, 180.0]]])
    labels = torch.tensor([[1, -1], [2, 3]])
    for one in (slice(0, 1), slice(1, 2)):  # a call's prompts are of one kind
        fast = tiny.decode_batch(crop, points[one], labels[one])
        with torch.enable_grad():
            slow = tiny.decode_batch(crop, points[one], labels[one])
        for ours, theirs in zip(fast, slow, strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_estimate_clicks_reads_the_dense_head(tiny, encoded):
    clicks = torch.rand(5, 2, generator=torch.manual_seed(3)) * 300
    foreground, size = tiny.estimate_clicks(encoded, clicks)
    for number, click in enumerate(clicks):
        first = levels_by_likelihood(encoded.levels, click[None])[0]
        expected = clicked_size(first, click[None]) / first.scale
        assert float(size[number]) == pytest.approx(expected, rel=1e-5)
        logits = [dense_at(level, click[None])[0, FOREGROUND] for level in encoded.levels]
        assert float(foreground[number]) == max(float(each) for each in logits)
