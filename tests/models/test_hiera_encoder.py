"""SAM 2's image encoder against `transformers`, and what tuning does to it."""

import sys

import pytest
import torch

from napari_simmat.models.hiera_encoder import VARIANTS, HieraAttention
from napari_simmat.models.peft_layers import ExtendedHieraAttention, LearnedPrefix, LearnedTokens
from napari_simmat.models.tuning import (
    STRATEGIES,
    architecture_of,
    build_network,
    default_size,
    merge,
    tune,
)
from tests.nightly import nightly_but
from tests.sam2_models import SIDE, shrink_sam2

pytest.importorskip("transformers")


@pytest.fixture
def small(monkeypatch):
    shrink_sam2(monkeypatch)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 160)])
@torch.no_grad()
def test_hiera_encoder_equals_that_of_the_library(sam2_pair, size):
    image = torch.randn(2, 3, *size)
    expected = sam2_pair.library.vision_encoder(image).fpn_hidden_states
    encoder, ours = sam2_pair.ours.image_encoder, sam2_pair.ours
    tokens, stages = encoder.embed(image), []
    for index, block in enumerate(encoder.blocks):
        tokens = block(tokens)
        if index in encoder.stage_ends:
            stages.append(tokens)
    for found, wanted in zip(encoder.pyramid(stages), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    decoder = ours.mask_decoder
    encoded = ours.encode(image)
    torch.testing.assert_close(
        encoded.maps["s0"], decoder.conv_s0(expected[0]), rtol=1e-4, atol=1e-4
    )
    no_memory = sam2_pair.library.no_memory_embedding.view(1, -1, 1, 1)
    torch.testing.assert_close(encoded.embedding, expected[2] + no_memory, rtol=1e-4, atol=1e-4)


def test_four_sizes_have_the_published_numbers_of_tensors():
    """Names and millions of numbers as in ``build_sam2_video_predictor`` of Meta's code."""
    published = {
        "hiera_tiny": (471, 38.96),
        "hiera_small": (519, 46.06),
        "hiera_base_plus": (615, 80.85),
        "hiera_large": (903, 224.45),
    }
    for architecture, (tensors, millions) in published.items():
        network = build_network(architecture, initialize=False)
        state = network.state_dict()
        assert len(state) == tensors
        count = sum(each.numel() for each in network.parameters())
        # Meta's positions of prompts are a buffer, and so are ours.
        assert count / 1e6 == pytest.approx(millions, abs=0.01)
        assert architecture_of(state) == architecture


def test_tensors_of_no_published_size_are_refused(small):
    state = build_network("hiera_tiny", initialize=False).state_dict()
    VARIANTS["hiera_tiny"] = VARIANTS["hiera_tiny"]._replace(width=16)
    with pytest.raises(ValueError, match=r"none of its sizes .*\(width 8, 5 blocks\)"):
        architecture_of(state)


@pytest.mark.parametrize("strategy", nightly_but(STRATEGIES, "lora"))
def test_hiera_trains_and_merges_each_strategy(strategy, small):
    size = 5 if STRATEGIES[strategy].size else None
    torch.manual_seed(0)
    network = build_network("hiera_tiny", channels=4, transfer="simmat")
    base = {name: each.clone() for name, each in network.state_dict().items()}
    tuned = tune(network, strategy, size)
    assert set(base) <= set(network.state_dict())
    assert network.transfer_names() <= set(tuned.names)
    network.train()
    trained = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    points, labels = torch.tensor([[[60.0, 80.0]], [[9.0, 200.0]]]), torch.tensor([[1], [0]])
    for _ in range(2):  # what begins at zero hides what is behind it from the first step
        optimizer.zero_grad()
        encoded = network.encode(torch.randn(2, 4, SIDE, SIDE))
        logits, quality = network.decode_batch(encoded, points, labels)
        (logits.square().mean() + quality.square().mean()).backward()
        optimizer.step()
    changed = {
        n for n, each in network.state_dict().items() if n in base and each.ne(base[n]).any()
    }
    assert changed <= set(tuned.names)
    idle = ("memory.", "no_mem_embed", "prompt_encoder.", "pred_obj_score_head")
    named = dict(network.named_parameters())
    assert all(
        named[name].grad is not None
        for name in tuned.names
        if name in named and not any(each in name for each in idle)
    )
    network.eval()
    image = torch.randn(1, 4, SIDE, SIDE)
    expected = network.encode(image).embedding.detach()
    merge(network)
    assert set(network.state_dict()) == set(base) or strategy in ("adapter", "prompt", "prefix")
    with torch.no_grad():
        torch.testing.assert_close(network.encode(image).embedding, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transfer", ["simmat", "baseline_a", "baseline_b", "simcmf", "preconv"])
def test_hiera_transfers_in_its_first_projection(transfer, small):
    network = build_network("hiera_tiny", channels=5, transfer=transfer)
    prefix = "image_encoder.trunk.patch_embed.projection."
    assert all(name.startswith(prefix) for name in network.transfer_names())
    encoded = network.encode(torch.randn(1, 5, SIDE, SIDE))
    assert encoded.embedding.shape == (1, 256, SIDE // 16, SIDE // 16)
    encoded.embedding.sum().backward()
    layer = network.projection
    own = {name.removeprefix(prefix) for name in network.transfer_names()}
    assert all(dict(layer.named_parameters())[name].grad is not None for name in own)


def test_default_sizes_follow_the_width_of_most_blocks():
    network = build_network("hiera_tiny", initialize=False)
    assert default_size("lora", network) == 50  # 7 of 12 blocks are 384 wide, ViT-B's 768


@torch.no_grad()
def test_lora_updates_query_and_value_where_the_width_changes(small):
    torch.manual_seed(0)
    network = build_network("hiera_tiny", strategy="lora", size=3)
    layer = network.image_encoder.blocks[1].attn.qkv  # 8 -> 3 * 16
    assert layer.parts == {"q": (0, 16), "v": (32, 48)}
    layer.up["q"].normal_()
    tokens = torch.randn(2, 8)
    plain = torch.nn.functional.linear(tokens, layer.weight, layer.bias)
    difference = (layer(tokens) - plain).abs().sum(0)
    assert difference[:16].all()
    assert not difference[16:].any()


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@torch.no_grad()
def test_pooled_queries_see_learned_tokens(kind, small):
    torch.manual_seed(0)
    network = build_network("hiera_tiny")
    plain = network.image_encoder.blocks[1].attn
    assert isinstance(plain, HieraAttention)
    extra = kind(8 if kind is LearnedTokens else 16, 4).eval()
    ours = ExtendedHieraAttention(plain, extra)
    heads, grid = plain.num_attention_heads, torch.randn(1, 4, 4, 8)
    query, key, value = plain.qkv(grid).chunk(3, dim=-1)
    if kind is LearnedTokens:
        _, more_key, more_value = plain.qkv(extra.tokens).chunk(3, dim=-1)
    else:
        more_key, more_value = extra.key, extra.value
    query = query.view(2, 2, 2, 2, -1).amax((1, 3)).view(4, heads, -1)  # of 2 x 2 tokens
    keys = torch.cat([key.flatten(1, 2), more_key], dim=1).view(20, heads, -1)
    values = torch.cat([value.flatten(1, 2), more_value], dim=1).view(20, heads, -1)
    logits = torch.einsum("qhc,khc->hqk", query, keys) / query.shape[-1] ** 0.5
    mixed = torch.einsum("hqk,khc->qhc", logits.softmax(-1), values)
    torch.testing.assert_close(ours(grid), plain.proj(mixed.reshape(1, 2, 2, -1)))


@torch.no_grad()
def test_hiera_in_half_precision_is_near(sam2_pair):
    image = torch.randn(1, 3, SIDE, SIDE)
    exact = sam2_pair.ours.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        fast = sam2_pair.ours.encode(image)
    for one, other in ((exact.embedding, fast.embedding), (exact.maps["s1"], fast.maps["s1"])):
        assert other.dtype == torch.float32
        assert (other - one).norm() < 0.05 * one.norm()


@pytest.mark.parametrize("architecture", ["hiera_tiny", "sam3"])
def test_missing_package_is_named(monkeypatch, architecture):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match='pip install "transformers'):
        build_network(architecture, initialize=False)
