"""The re-associated mask decoder against the stock one."""

import copy

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, Sam, TwoWayTransformer
from torch import Tensor

from napari_simmat.models import sam
from napari_simmat.models import sam as sam_module
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import build_sam
from napari_simmat.models.tuning import STRATEGIES, build_network, merge
from tests.small_sam import small_sam

SIDE, CELLS, WIDTH = 160, 10, 32
CLICKS = torch.tensor([[40.0, 30.0], [155.5, 0.0], [80.25, 120.0], [3.0, 70.0], [60.0, 90.0]])
PROMPTS = {
    "a click": {"points": CLICKS[:1], "labels": torch.tensor([1])},
    "a background click": {"points": CLICKS[:1], "labels": torch.tensor([0])},
    "a box": {"box": torch.tensor([20.0, 30.0, 90.5, 140.0])},
    "a mask": {"mask": 4 * torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(5))},
    "more clicks than it pays for": {"points": CLICKS, "labels": torch.tensor([1, 0, 1, 1, 0])},
}
PROMPTS["a box, a click and a mask"] = {
    **PROMPTS["a click"],
    **PROMPTS["a box"],
    **PROMPTS["a mask"],
}


def stock_sam() -> Sam:
    """Two heads, so that a click's tokens are few compared to the attentions' inner width."""
    stock = small_sam(SIDE)
    torch.manual_seed(0)
    stock.mask_decoder = MaskDecoder(
        transformer_dim=WIDTH, transformer=TwoWayTransformer(2, WIDTH, 2, mlp_dim=64)
    ).eval()
    with torch.no_grad():
        for parameter in stock.mask_decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return stock


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(sam_model_registry, "vit_b", stock_sam)
    torch.manual_seed(0)
    return build_sam("vit_b")


@pytest.fixture(scope="module")
def encoded():
    torch.manual_seed(1)
    return Encoded(torch.randn(1, WIDTH, CELLS, CELLS), (SIDE, SIDE))


@torch.no_grad()
def by_stock(
    network: Sam,
    encoded: Encoded,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    box: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    clicks = None if points is None else (points[None], labels[None])
    sparse, dense = network.prompt_encoder(clicks, None if box is None else box[None], mask)
    logits, quality = network.mask_decoder.predict_masks(
        encoded.embedding, network.prompt_encoder.get_dense_pe(), sparse, dense
    )
    return logits[0], quality[0]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("at_once", [1024, 7])
@torch.no_grad()
def test_decode_equals_stock(network, encoded, kind, at_once, monkeypatch):
    monkeypatch.setattr(sam_module, "TOKENS_AT_ONCE", at_once)
    logits, quality = by_stock(network, encoded, **PROMPTS[kind])
    ours = network.decode(encoded, PROMPTS[kind])
    assert ours.logits.shape == (4, 40, 40)
    assert relative(ours.logits, logits) < 1e-5
    assert relative(ours.predicted_iou, quality) < 1e-5


def test_reassociation_is_used_for_few_tokens_only(network):
    """Both ways are compared above: four own tokens and one for quality, a click, its padding."""
    attention = network.mask_decoder.transformer.final_attn_token_to_image
    assert sam_module._can_reassociate(attention, 5 + 2)
    assert not sam_module._can_reassociate(attention, 5 + len(CLICKS) + 1)


@torch.no_grad()
def test_decode_clicks_together_equals_each_alone(network, encoded):
    found = network.decode_clicks(encoded, CLICKS)
    for click, placed in zip(CLICKS, found, strict=True):
        logits, quality = by_stock(network, encoded, points=click[None], labels=torch.tensor([1]))
        assert (placed.top, placed.left) == (0, 0)
        assert relative(placed.logits, logits) < 1e-5
        assert relative(placed.predicted_iou, quality) < 1e-5


@torch.no_grad()
def test_decode_batch_with_a_shared_image_equals_each_alone(network):
    """As a GPU computes them: many at once, on one image."""
    torch.manual_seed(2)
    transformer = network.mask_decoder.transformer
    image, positions = torch.randn(1, 30, WIDTH), torch.randn(1, 30, WIDTH)
    tokens = torch.randn(3, 7, WIDTH)
    shared = sam_module.ImageTokens.of(image, positions)
    queries, pieces = sam_module.two_way(transformer, shared, tokens)
    together = queries, torch.cat(pieces, dim=1)
    turned = (each.mT.reshape(1, WIDTH, 5, 6) for each in (image, positions))
    shape = [each.expand(3, -1, -1, -1) for each in turned]
    for ours, theirs in zip(together, transformer(*shape, tokens), strict=True):
        assert relative(ours, theirs) < 1e-5


@torch.no_grad()
def test_decode_clicks_forms_no_poor_masks(network, encoded):
    every = network.decode_clicks(encoded, CLICKS)
    best = sorted(float(each.predicted_iou.max()) for each in every)
    found = network.decode_clicks(encoded, CLICKS, minimum=best[2])
    for one, whole in zip(found, every, strict=True):
        assert torch.equal(one.predicted_iou, whole.predicted_iou)
        if float(whole.predicted_iou.max()) >= best[2]:
            assert torch.equal(one.logits, whole.logits)
        else:
            assert one.logits.shape == (0, 40, 40)
    assert sum(len(each.logits) > 0 for each in found) == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@torch.no_grad()
def test_decode_with_each_strategy_equals_training(strategy, monkeypatch, encoded):
    monkeypatch.setitem(sam_model_registry, "vit_b", stock_sam)
    size = 3 if STRATEGIES[strategy].size else None
    network = build_network("vit_b", channels=3, strategy=strategy, size=size)
    for name, parameter in network.named_parameters():
        if name.startswith("mask_decoder"):
            parameter.add_(0.05 * torch.randn_like(parameter))
    for kind in ("a click", "a box, a click and a mask"):
        with torch.enable_grad():
            expected = network.decode(encoded, PROMPTS[kind])
        unmerged = network.decode(encoded, PROMPTS[kind])
        assert relative(unmerged.logits, expected.logits) < 1e-5
        merged = copy.deepcopy(network)
        merge(merged)
        result = merged.decode(encoded, PROMPTS[kind])
        assert relative(result.logits, expected.logits) < 1e-5
        assert relative(result.predicted_iou, expected.predicted_iou) < 1e-5


@pytest.mark.parametrize("kind", PROMPTS)
@torch.no_grad()
def test_decode_in_half_precision_is_no_worse_than_stock(network, encoded, kind):
    exact, _ = by_stock(network, encoded, **PROMPTS[kind])
    with torch.autocast("cpu", torch.bfloat16):
        ours = network.decode(encoded, PROMPTS[kind]).logits
        theirs, _ = by_stock(network, encoded, **PROMPTS[kind])
    assert ours.dtype == torch.float32
    assert 0 < relative(ours, exact) < 1.2 * relative(theirs, exact)


@torch.no_grad()
def test_decode_follows_changed_positions(network, encoded):
    """They are kept, but not beyond the numbers they were made of."""
    matrix = network.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    network.decode(encoded, PROMPTS["a click"])
    kept = network._positions()
    assert network._positions() is kept
    matrix.mul_(1.5)
    logits, _ = by_stock(network, encoded, **PROMPTS["a click"])
    assert relative(network.decode(encoded, PROMPTS["a click"]).logits, logits) < 1e-5
    other = copy.deepcopy(network)
    other.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
    logits, _ = by_stock(other, encoded, **PROMPTS["a click"])
    assert relative(other.decode(encoded, PROMPTS["a click"]).logits, logits) < 1e-5


@pytest.mark.gpu
@torch.no_grad()
def test_decode_on_a_gpu_equals_stock(network, encoded):
    network.to("cuda")
    there = encoded.to(torch.device("cuda"))
    clicks = CLICKS.repeat(sam.PROMPTS_AT_ONCE, 1).to("cuda")
    for click, placed in zip(clicks[:5], network.decode_clicks(there, clicks), strict=False):
        logits, _ = by_stock(
            network, there, points=click[None], labels=torch.ones(1, device="cuda")
        )
        assert relative(placed.logits, logits) < 1e-5
