"""Every strategy, every promise: what is trained, where it begins, what it computes."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from segment_anything.modeling.transformer import Attention as CrossAttention
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch.nn import functional as F

from napari_simmat.models.peft_layers import (
    AdaptedTwoWayBlock,
    ExtendedAttention,
    ExtendedCrossAttention,
    ExtendedTokenAttention,
    LearnedPrefix,
    LearnedTokens,
    LoRAConv2d,
)
from napari_simmat.models.tiny_encoder import TokenAttention
from napari_simmat.models.tuning import STRATEGIES, build_network, merge, tune

ADDED = ("lora", "lora_conv", "adapter", "prompt", "prefix")
SIZES = {"lora": 25, "lora_conv": 25, "adapter": 50, "prompt": 100, "prefix": 50}
"""Of `tiny`, whose tokens have a quarter of ViT-B's width."""
CLICK = {"points": torch.tensor([[40.0, 20.0]]), "labels": torch.tensor([1])}


def tuned_network(strategy, size=None, transfer="simmat", channels=2):
    torch.manual_seed(0)
    network = build_network("tiny", channels=channels, transfer=transfer)
    base = {name: each.clone() for name, each in network.state_dict().items()}
    torch.manual_seed(1)
    return network, base, tune(network, strategy, size)


def predict(network, channels=2):
    torch.manual_seed(2)
    return network.decode(network.encode(torch.randn(1, channels, 64, 64)), CLICK)


def disturb(network, names):
    """Give the new tensors numbers, so that what begins at zero shows."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in names:
                parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tune_trains_what_the_strategy_declares_alone(strategy):
    network, _, tuned = tuned_network(strategy)
    network.train()
    parameters = dict(network.named_parameters())
    declared = {name for name in tuned.names if name in parameters}
    if strategy == "scratch_full":  # stored, as it has random weights, but not trained
        declared -= {name for name in declared if name.startswith("prompt_encoder.")}
    assert {name for name, p in parameters.items() if p.requires_grad} == declared
    assert network.transfer_names() <= declared
    before = {name: each.clone() for name, each in network.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in parameters.values() if p.requires_grad], lr=1e-2)
    for prompt in (CLICK, {**CLICK, "box": torch.tensor([10.0, 12.0, 50.0, 41.0])}):
        encoded = network.encode(torch.randn(1, 2, 64, 64))
        decoded = network.decode(encoded, prompt)
        loss = decoded.logits.square().mean() + decoded.predicted_iou.square().mean()
        loss = loss + encoded.maps["dense"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {n for n, each in network.state_dict().items() if not torch.equal(each, before[n])}
    assert changed <= declared
    silent = declared - changed  # what these two prompts do not reach
    assert all(
        name.startswith(("prompt_encoder.", "mask_decoder.iou_")) or "no_mask" in name
        for name in silent
    ), silent


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tune_keeps_the_names_of_the_base(strategy):
    network, base, tuned = tuned_network(strategy)
    state = network.state_dict()
    assert set(base) <= set(state)
    for name, tensor in base.items():
        assert torch.equal(state[name], tensor), name
    assert set(state) - set(base) <= set(tuned.names)
    assert network.load_state_dict(base, strict=False).unexpected_keys == []


@pytest.mark.parametrize("strategy", ["frozen", "linear", "lora", "lora_conv", "adapter", "full"])
@torch.no_grad()
def test_tune_that_begins_at_zero_begins_as_the_base(strategy):
    network, base, _ = tuned_network(strategy)
    plain = build_network("tiny", channels=2, transfer="simmat")
    plain.load_state_dict(base)
    ours, theirs = predict(network), predict(plain)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.predicted_iou, theirs.predicted_iou)


@pytest.mark.parametrize("strategy", ADDED)
@torch.no_grad()
def test_tune_acts_in_encoder_and_decoder(strategy):
    network, _, tuned = tuned_network(strategy)
    image = torch.randn(1, 2, 64, 64)
    encoded = network.encode(image)
    before = network.decode(encoded, CLICK)
    disturb(network, [n for n in tuned.names if n.startswith("mask_decoder.")])
    assert not torch.equal(network.decode(encoded, CLICK).logits, before.logits)
    assert torch.equal(network.encode(image).embedding, encoded.embedding)
    own = network.transfer_names()
    disturb(network, [n for n in tuned.names if n.startswith("image_encoder.") and n not in own])
    assert not torch.equal(network.encode(image).embedding, encoded.embedding)


@pytest.mark.parametrize("strategy", ["lora", "lora_conv"])
@torch.no_grad()
def test_merge_of_lora_gives_the_same_masks(strategy):
    network, base, tuned = tuned_network(strategy)
    untouched = predict(network)
    disturb(network, tuned.names)
    ours = predict(network)
    assert not torch.allclose(ours.logits, untouched.logits, atol=0.1)
    merge(network)
    theirs = predict(network)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.predicted_iou, theirs.predicted_iou, rtol=1e-4, atol=1e-4)
    assert set(network.state_dict()) == set(base)


# Numbers of trained parameters on ViT-B: 12 blocks of width 768; in the decoder, of width 256, two
# attentions inside the prompt tokens and five of half the inner width between tokens and image.
BY_HAND = {
    "frozen": 0,
    "decoder": 4_058_340,  # as MedSAM (doi 10.1038/s41467-024-44824-z) says of SAM's decoder
    "linear": 768 * 3 * 16 * 16 + 768 + 64 * 64 * 768,
    "lora": 12 * 4 * 100 * 768 + 2 * 4 * 100 * 256 + 5 * 2 * 100 * (256 + 128),
    "adapter": 12 * (2 * 200 * 768 + 200 + 768) + 2 * (2 * 200 * 256 + 200 + 256),
    "prompt": 12 * 400 * 768 + 7 * 400 * 256,
    "prefix": 12 * 2 * 200 * 768 + 7 * 2 * 200 * 256,
    "full": 93_735_472 - 6_220,
    "scratch": 93_735_472,
    "scratch_full": 93_735_472 - 6_220,
}
# And of the neck a 1 x 1 and a 3 x 3 convolution.
BY_HAND["lora_conv"] = BY_HAND["lora"] + 100 * (768 + 256) + 100 * (9 * 256 + 256)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tune_on_vit_b_trains_as_many_as_counted_by_hand(strategy):
    network = build_network("vit_b", channels=4, transfer="simmat", initialize=False)
    tuned = tune(network, strategy)
    mat = 576 * 4 + 64 + 1731
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == BY_HAND[strategy] + mat
    sizes = {"lora": 100, "lora_conv": 100, "adapter": 200, "prompt": 400, "prefix": 200}
    assert tuned.size == sizes.get(strategy, 0)
    assert all(p.device.type == "meta" for p in network.parameters())


@pytest.mark.parametrize("strategy", ADDED)
def test_tune_sizes_scale_with_the_width(strategy):
    assert tuned_network(strategy)[2].size == SIZES[strategy]
    network, _, tuned = tuned_network(strategy, 3)
    assert tuned.size == 3
    few = sum(p.numel() for p in network.parameters() if p.requires_grad)
    other = tuned_network(strategy, 6)[0]
    more = sum(p.numel() for p in other.parameters() if p.requires_grad)
    mat = 576 * 2 + 64 + 1731
    biases = 0 if strategy != "adapter" else 4 * 192 + 2 * 128
    assert more - mat - biases == 2 * (few - mat - biases)


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@torch.no_grad()
def test_extended_attention_of_sam_has_no_position_bias(kind):
    torch.manual_seed(0)
    stock = Attention(8, 2, use_rel_pos=True, input_size=(3, 5)).eval()
    for table in (stock.rel_pos_h, stock.rel_pos_w):
        table.normal_()
    extra = kind(8, 4).eval()
    ours = ExtendedAttention(stock, extra)
    x = torch.randn(2, 3, 5, 8)
    qkv = stock.qkv(x)
    if kind is LearnedTokens:
        more_key, more_value = stock.qkv(extra.tokens)[0].split(8, dim=-1)[1:]
    else:
        more_key, more_value = extra.key[0], extra.value[0]
    expected = torch.zeros_like(x)
    for b in range(2):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            query, key, value = (each[b][..., part] for each in qkv.split(8, dim=-1))
            for i in range(3):
                for j in range(5):
                    logits = []
                    for k in range(3):
                        for n in range(5):
                            bias = query[i, j] @ stock.rel_pos_h[i - k + 2]
                            bias = bias + query[i, j] @ stock.rel_pos_w[j - n + 4]
                            logits.append(query[i, j] @ key[k, n] / 2 + bias)
                    logits += [query[i, j] @ each / 2 for each in more_key[:, part]]
                    values = torch.cat([value.reshape(15, 4), more_value[:, part]])
                    expected[b, i, j, part] = torch.stack(logits).softmax(0) @ values
    torch.testing.assert_close(ours(x), stock.proj(expected), rtol=1e-4, atol=1e-5)
    assert set(ours.state_dict()) > set(stock.state_dict())


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@torch.no_grad()
def test_extended_cross_attention_precedes_the_projections(kind):
    torch.manual_seed(0)
    stock, extra = CrossAttention(8, 2, downsample_rate=2).eval(), kind(8, 3).eval()
    ours = ExtendedCrossAttention(stock, extra)
    q, k, v = torch.randn(2, 4, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    key, value = (extra.tokens,) * 2 if kind is LearnedTokens else (extra.key, extra.value)
    keys, values = (
        torch.cat([k, key.expand(2, -1, -1)], 1),
        torch.cat([v, value.expand(2, -1, -1)], 1),
    )
    torch.testing.assert_close(ours(q, k, v), stock(q, keys, values))


@pytest.mark.parametrize("first", [True, False])
@torch.no_grad()
def test_adapted_two_way_block_reads_tokens_before_their_norm(first):
    torch.manual_seed(0)
    stock = TwoWayAttentionBlock(8, 2, mlp_dim=16, skip_first_layer_pe=first).eval()
    for norm in (stock.norm1, stock.norm2, stock.norm3, stock.norm4):
        norm.weight.normal_()
    tokens, image, here, there = (torch.randn(2, n, 8) for n in (3, 5, 3, 5))
    ours = AdaptedTwoWayBlock(stock, 4)
    for one, other in zip(
        ours(tokens, image, here, there), stock(tokens, image, here, there), strict=True
    ):
        torch.testing.assert_close(one, other)  # it begins as nothing
    seen = {}
    stock.norm2.register_forward_pre_hook(lambda _, given: seen.update(before=given[0]))
    stock.norm3.register_forward_pre_hook(lambda _, given: seen.update(sum=given[0]))
    stock(tokens, image, here, there)
    torch.nn.init.normal_(ours.adapter.up.weight)
    adapted = 0.1 * ours.adapter.up(F.relu(ours.adapter.down(seen["before"])))
    expected = ours.norm3(seen["sum"] + adapted)
    torch.testing.assert_close(ours(tokens, image, here, there)[0], expected)


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@pytest.mark.parametrize("side", [4, 40])
@torch.no_grad()
def test_extended_attention_of_tiny_is_in_every_block(kind, side):
    torch.manual_seed(0)
    stock, extra = TokenAttention(8, 2, qkv_bias=True).eval(), kind(8, 3).eval()
    ours = ExtendedTokenAttention(stock, extra)
    x = torch.randn(1, side, side, 8)
    assert not torch.allclose(ours(x), stock(x), atol=1e-5)
    if side > 4:  # beyond one block: what is far away changes nothing
        changed = x.clone()
        changed[:, -1, -1] += 1
        assert torch.equal(ours(changed)[:, 0, 0], ours(x)[:, 0, 0])
        return
    query, key, value = stock.qkv(x).reshape(16, 3, 2, 4).permute(1, 2, 0, 3)
    if kind is LearnedTokens:
        more_key, more_value = stock.qkv(extra.tokens)[0].split(8, dim=-1)[1:]
    else:
        more_key, more_value = extra.key[0], extra.value[0]
    key, value = (
        torch.cat([each, more.reshape(3, 2, 4).transpose(0, 1)], dim=1)
        for each, more in ((key, more_key), (value, more_value))
    )
    sharpness = torch.tensor(16.0).log() / torch.tensor(256.0).log()
    logits = sharpness * query @ key.transpose(1, 2) / 2
    mixed = (logits.softmax(-1) @ value).permute(1, 0, 2).reshape(1, 4, 4, 8)
    torch.testing.assert_close(ours(x), F.linear(mixed, stock.proj.weight, stock.proj.bias))


def test_learned_tokens_are_dropped_in_training_only():
    torch.manual_seed(0)
    extra = LearnedTokens(64, 50)
    assert (extra.raw()[0] == 0).float().mean() > 0.02
    assert torch.equal(extra.eval().raw()[0], extra.tokens)
    bound = (6 / (3 * 16 + 64)) ** 0.5
    assert 0.9 * bound < extra.tokens.abs().max() <= bound


def test_tune_refuses_what_it_does_not_know():
    network = build_network("tiny")
    with pytest.raises(
        ValueError, match="'magic' is unknown; use one of frozen, decoder, linear, lora"
    ):
        tune(network, "magic")
    with pytest.raises(ValueError, match="size of strategy lora must be at least 1, got 0"):
        tune(network, "lora", 0)
    with pytest.raises(ValueError, match="Strategy full has no size, 5 was given; leave it out"):
        tune(network, "full", 5)


@torch.no_grad()
def test_lora_conv_equals_its_weights_and_leaves_the_transfer():
    network, base, tuned = tuned_network("lora_conv", 3)
    disturb(network, tuned.names)
    layer = network.image_encoder.stage8[1]
    assert isinstance(layer, LoRAConv2d)
    assert layer.down.shape == (3, 64, 3, 3)
    assert layer.up.shape == (128, 3)
    image = torch.randn(2, 64, 10, 12)
    # Source: LoRA, arXiv 2106.09685: a convolution to three maps, then a 1 x 1 convolution.
    low = F.conv2d(image, layer.down, None, layer.stride, layer.padding)
    update = F.conv2d(low, layer.up[:, :, None, None])
    plain = F.conv2d(image, layer.weight, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(layer(image), plain + update, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.weight, base["image_encoder.stage8.1.weight"])
    updated = {name.rsplit(".", 1)[0] for name in tuned.names if name.endswith(".down")}
    convolutions = {
        name
        for name, module in network.image_encoder.named_modules(prefix="image_encoder")
        if isinstance(module, torch.nn.Conv2d) and module.groups == 1
    }
    transfer = {name for name in convolutions if ".patch_embed." in name}
    assert len(transfer) == 3
    assert updated == convolutions - transfer
