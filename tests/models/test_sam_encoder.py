"""SAM's encoder without its large temporaries, against the stock blocks."""

import copy

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Block
from torch import Tensor

from napari_simmat.models import sam_encoder
from napari_simmat.models.sam import SamNetwork
from napari_simmat.models.sam_encoder import ViTAttention, ViTBlock
from napari_simmat.models.tuning import STRATEGIES, build_network, merge
from tests.small_sam import small_sam

WIDTH, HEADS = 48, 3
GRIDS = {
    "whole windows": (1, 14, 14, 7),
    "windows over both borders": (1, 24, 17, 7),
    "less than a window": (2, 4, 5, 7),
    "no windows": (2, 9, 13, 0),
}


def stock_block(high: int, wide: int, window: int) -> Block:
    """With numbers in every tensor, and attention far from even."""
    torch.manual_seed(0)
    block = Block(
        WIDTH, HEADS, use_rel_pos=True, window_size=window, input_size=(high, wide)
    ).eval()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if parameter.ndim == 1 or "rel_pos" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        block.attn.qkv.weight.mul_(3)
    return block


def ours_for(stock: Block) -> ViTBlock:
    block = ViTBlock(copy.deepcopy(stock))
    block.attn = ViTAttention(block.attn)
    return block


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs).norm() / theirs.norm())


@pytest.fixture(params=GRIDS)
def blocks(request):
    batch, high, wide, window = GRIDS[request.param]
    stock = stock_block(high, wide, window)
    return ours_for(stock), stock, torch.randn(batch, high, wide, WIDTH)


@pytest.mark.parametrize("piece", [2**20, 700])
@torch.no_grad()
def test_vit_block_equals_stock(blocks, piece, monkeypatch):
    monkeypatch.setattr(sam_encoder, "MAX_LOGITS", piece)
    ours, stock, tokens = blocks
    assert ours.state_dict().keys() == stock.state_dict().keys()
    assert relative(ours(tokens), stock(tokens)) < 1e-5


def test_vit_block_gradients_equal_stock(blocks):
    ours, stock, tokens = blocks
    for block in (ours, stock):
        block(tokens).square().sum().backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        assert relative(parameter.grad, theirs[name].grad) < 1e-4, name


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("many", [1024, 1])
@torch.no_grad()
def test_vit_block_in_half_precision_is_no_worse_than_stock(blocks, tiles, many, monkeypatch):
    """By every kernel: with and without tiles, for many keys and for few."""
    monkeypatch.setattr(sam_encoder, "_has_tiles", lambda: tiles)
    monkeypatch.setattr(sam_encoder, "MANY_KEYS", many)
    ours, stock, tokens = blocks
    exact = stock(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative(ours(tokens), exact) < 1.3 * relative(stock(tokens), exact)


@torch.no_grad()
def test_attention_of_any_sharpness_equals_stock():
    """Where most weights are too small for the numbers of float32, which then count as zero."""
    stock = stock_block(9, 13, 0)
    stock.attn.qkv.weight.mul_(20)
    tokens = torch.randn(1, 9, 13, WIDTH)
    assert relative(ours_for(stock)(tokens), stock(tokens)) < 1e-5


@torch.no_grad()
def test_attention_leaves_the_rounding_of_the_thread():
    ours, tokens = ours_for(stock_block(9, 13, 0)), torch.randn(1, 9, 13, WIDTH)
    tiny = torch.tensor(1e-30)
    ours(tokens)
    assert float(tiny * 1e-10) > 0
    torch.set_flush_denormal(True)
    try:
        ours(tokens)
        assert float(tiny * 1e-10) == 0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("strategy", STRATEGIES)
@torch.no_grad()
def test_strategies_compute_the_same_without_gradients(strategy, monkeypatch):
    """By different kernels; LoRA merged as it is where nothing is trained."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(160))
    size = 5 if STRATEGIES[strategy].size else None
    torch.manual_seed(0)
    network = build_network("vit_b", channels=4, transfer="simmat", strategy=strategy, size=size)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    image = torch.randn(1, 4, 160, 160)
    with torch.enable_grad():
        expected = network.encode(image).embedding.detach()
    merge(network)
    network.requires_grad_(False)
    assert relative(network.encode(image).embedding, expected) < 1e-5


def test_build_sam_loads_stock_weights_strictly():
    network = build_network("vit_b", initialize=False)
    assert isinstance(network, SamNetwork)
    assert all(type(block) is ViTBlock for block in network.image_encoder.blocks)
    with torch.device("meta"):
        stock = sam_model_registry["vit_b"]().state_dict()
    network.load_state_dict(stock, strict=True, assign=True)


@pytest.mark.gpu
@torch.no_grad()
def test_vit_block_on_a_gpu_equals_stock(blocks):
    ours, stock, tokens = (each.to("cuda") for each in blocks)
    assert relative(ours(tokens), stock(tokens)) < 1e-5
