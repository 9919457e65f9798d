"""SAM 2's masks against the model of `transformers`."""

import pytest
import torch

from tests.sam2_models import SIDE, library_masks

pytest.importorskip("transformers")

POINTS, LABELS = torch.tensor([[75.0, 100.0], [125.0, 25.0]]), torch.tensor([1, 0])
BOX = torch.tensor([25.0, 30.0, 100.0, 125.0])
MASK = torch.linspace(-3, 3, 64 * 64).view(1, 1, 64, 64)
PROMPTS = {
    "points": {"points": POINTS, "labels": LABELS},
    "box": {"box": BOX},
    "box and point": {"box": BOX, "points": POINTS[:1], "labels": LABELS[:1]},
    "point and mask": {"points": POINTS[:1], "labels": LABELS[:1], "mask": MASK},
}


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(3)
    return torch.randn(2, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def encoded(sam2_pair, image):
    with torch.no_grad():
        return sam2_pair.ours.encode(image[:1])


@pytest.mark.parametrize("name", PROMPTS)
@torch.no_grad()
def test_masks_equal_those_of_the_library(sam2_pair, encoded, name):
    expected, iou = library_masks(sam2_pair.library, encoded, PROMPTS[name])
    decoded = sam2_pair.ours.decode(encoded, PROMPTS[name])
    assert (decoded.logits - expected).abs().max() < 1e-2 * expected.std()
    torch.testing.assert_close(decoded.predicted_iou, iou, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_unstable_mask_gives_way_to_the_best_of_three(sam2_pair, encoded):
    """With these random numbers the first one is not stable."""
    ours = sam2_pair.ours
    decoded = ours.decode(encoded, PROMPTS["points"])
    best = 1 + int(decoded.predicted_iou[1:].argmax())
    assert torch.equal(decoded.logits[0], decoded.logits[best])
    certain = torch.where(decoded.logits > 0, 20.0, -20.0)
    kept, _ = ours.settled(certain, decoded.predicted_iou)
    assert torch.equal(kept, certain)


@torch.no_grad()
def test_clicks_at_once_equal_single_ones(sam2_pair, encoded):
    together = sam2_pair.ours.decode_clicks(encoded, POINTS)
    for point, found in zip(POINTS, together, strict=True):
        alone = sam2_pair.ours.decode(encoded, {"points": point[None], "labels": LABELS[:1]})
        torch.testing.assert_close(found.logits, alone.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.predicted_iou, alone.predicted_iou)


@torch.no_grad()
def test_mask_alone_is_a_prompt(sam2_pair, encoded):
    """As in ``SAM2ImagePredictor``: no token at all. The library would add an empty point."""
    logits = sam2_pair.ours.decode(encoded, {"mask": MASK}).logits
    assert logits.shape == (4, SIDE // 4, SIDE // 4)
    assert not torch.allclose(logits, sam2_pair.ours.decode(encoded, PROMPTS["points"]).logits)


def test_with_and_without_gradients_it_is_the_same(sam2_pair, image):
    """Batches of two images; the first mask as in training, whether stable or not."""
    ours = sam2_pair.ours
    points = torch.stack([POINTS, POINTS + 30])
    labels = LABELS.expand(2, -1)
    with torch.no_grad():
        encoded = ours.encode(image)
        alone = [
            ours.decode(encoded.image(i), {"points": points[i], "labels": labels[i]})
            for i in range(2)
        ]
    logits, quality = ours.decode_batch(encoded, points, labels)
    for found, iou, one in zip(logits, quality, alone, strict=True):
        torch.testing.assert_close(found[1:], one.logits[1:], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(iou[1:], one.predicted_iou[1:], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_box_in_a_batch_is_padded_as_alone(sam2_pair, encoded):
    corners, kinds = BOX.view(1, 2, 2), torch.tensor([[2, 3]])
    logits, _ = sam2_pair.ours.decode_batch(encoded, corners, kinds)
    alone = sam2_pair.ours.decode(encoded, {"box": BOX}).logits
    torch.testing.assert_close(logits[0], alone, rtol=1e-4, atol=1e-4)


def test_features_are_small_where_the_decoder_is_frozen(sam2_pair, image):
    """They are what training keeps of each image; trained projections are applied later."""
    ours = sam2_pair.ours
    with torch.no_grad():
        whole = ours.encode(image[:1])
        kept = ours.features(image[:1])
        assert {name: each.shape[1] for name, each in kept.maps.items()} == {"s0": 32, "s1": 64}
        ours.mask_decoder.conv_s0.requires_grad_(True)
        try:
            kept = ours.features(image[:1])
        finally:
            ours.mask_decoder.conv_s0.requires_grad_(False)
        assert kept.maps["fine"].shape[1] == 256
        for name, each in ours.with_decoder_maps(kept).maps.items():
            torch.testing.assert_close(each, whole.maps[name])
