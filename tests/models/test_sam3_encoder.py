"""What tuning and transfer layers do to SAM 3's image encoder."""

import pytest
import torch

from napari_simmat.models.peft_layers import ExtendedRotaryAttention, LearnedPrefix, LearnedTokens
from napari_simmat.models.sam3_encoder import RotaryAttention
from napari_simmat.models.tuning import STRATEGIES, architecture_of, build_network, merge, tune
from tests.nightly import nightly_but
from tests.sam3_models import SIDE, shrink_sam3

pytest.importorskip("transformers")
GRID = SIDE // 14
OWN = ("linear", "lora_conv", "adapter", "prefix")
"""Strategies that do something of their own to this encoder; the others are tried nightly."""


@pytest.fixture
def small(monkeypatch):
    shrink_sam3(monkeypatch)


def test_published_size_has_the_published_number_of_tensors():
    """860 million numbers are in the files; the coarsest level of two necks is not used."""
    network = build_network("sam3", initialize=False)
    state = network.state_dict()
    assert len(state) == 1663
    assert sum(each.numel() for each in state.values()) == 858_217_144
    assert architecture_of(state) == "sam3"
    assert network.mask_stride == 3.5


@pytest.mark.parametrize(
    "strategy",
    [each if each in OWN else pytest.param(each, marks=pytest.mark.slow) for each in STRATEGIES],
)
def test_sam3_trains_and_merges_each_strategy(strategy, small):
    size = 5 if STRATEGIES[strategy].size else None
    torch.manual_seed(0)
    network = build_network("sam3", channels=4, transfer="simmat")
    base = {name: each.clone() for name, each in network.state_dict().items()}
    tuned = tune(network, strategy, size)
    assert set(base) <= set(network.state_dict())
    network.train()
    trained = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    points, labels = torch.tensor([[[30.0, 40.0]], [[9.0, 100.0]]]), torch.tensor([[1], [0]])
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
    idle = ("memory.", "words.", "no_mem_embed", "prompt_encoder.", "pred_obj_score_head")
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


@pytest.mark.parametrize(
    "transfer",
    nightly_but(("simmat", "baseline_a", "baseline_b", "simcmf", "preconv"), "simmat", "preconv"),
)
def test_sam3_transfers_in_its_first_projection(transfer, small):
    network = build_network("sam3", channels=5, transfer=transfer)
    prefix = "image_encoder.patch_embed.projection."
    assert all(name.startswith(prefix) for name in network.transfer_names())
    encoded = network.encode(torch.randn(1, 5, SIDE, SIDE))
    assert encoded.embedding.shape == (1, 256, GRID, GRID)
    encoded.embedding.sum().backward()
    own = {name.removeprefix(prefix) for name in network.transfer_names()}
    named = dict(network.projection.named_parameters())
    assert all(named[name].grad is not None for name in own)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"1008 pixels a side, which preattnp32n1d64"):
        build_network("sam3", channels=5, transfer="preattnp32n1d64", initialize=False)


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@torch.no_grad()
def test_learned_tokens_have_no_position(kind, small):
    """By hand: angles of 0, 1, .. for columns in the first half of a head, rows in the second."""
    torch.manual_seed(0)
    plain = build_network("sam3").image_encoder.blocks[0].attn
    assert isinstance(plain, RotaryAttention)
    extra = kind(32, 4).eval()
    ours = ExtendedRotaryAttention(plain, extra)
    grid = torch.randn(1, 4, 4, 32)
    query, key, value = (each.reshape(16, 2, 16) for each in plain.qkv(grid)[0].chunk(3, dim=-1))
    rates = 10000.0 ** (-torch.arange(4) / 4)
    rows, columns = torch.arange(16) // 4, torch.arange(16) % 4
    angles = torch.cat([columns[:, None] * rates, rows[:, None] * rates], dim=1)[:, None]
    turn = torch.polar(torch.ones_like(angles), angles)

    def turned(tokens):
        pairs = torch.view_as_complex(tokens.reshape(16, 2, 8, 2).contiguous())
        return torch.view_as_real(pairs * turn).reshape(16, 2, 16)

    if kind is LearnedTokens:
        _, more_key, more_value = plain.qkv(extra.tokens).chunk(3, dim=-1)
    else:
        more_key, more_value = extra.key, extra.value
    keys = torch.cat([turned(key), more_key.view(4, 2, 16)])
    values = torch.cat([value, more_value.view(4, 2, 16)])
    logits = torch.einsum("qhc,khc->hqk", turned(query), keys) / 4
    mixed = torch.einsum("hqk,khc->qhc", logits.softmax(-1), values)
    torch.testing.assert_close(ours(grid), plain.proj(mixed.reshape(1, 4, 4, 32)))


@torch.no_grad()
def test_half_precision_is_near(sam3_trio):
    image = torch.randn(1, 3, SIDE, SIDE)
    exact = sam3_trio.ours.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        fast = sam3_trio.ours.encode(image)
    for one, other in ((exact.embedding, fast.embedding), (exact.maps["s1"], fast.maps["s1"])):
        assert other.dtype == torch.float32
        assert (other - one).norm() < 0.05 * one.norm()
