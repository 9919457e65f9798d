"""MobileSAM's encoder against timm's TinyViT, and what tuning does to it."""

import re

import pytest
import torch
from torch import Tensor, nn

from napari_simmat.models.mobile_encoder import WindowAttention
from napari_simmat.models.peft_layers import ExtendedWindowAttention, LearnedPrefix, LearnedTokens
from napari_simmat.models.sam import build_sam
from napari_simmat.models.tuning import STRATEGIES, architecture_of, build_network, merge, tune
from tests.nightly import nightly_but

SIDE = 128


def with_random_numbers(network: nn.Module) -> nn.Module:
    """Also where networks start with zeros and ones, which would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, each in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                each.uniform_(0.5, 2)
            elif name.endswith(("attention_biases", "bn.weight", "bn.bias", "running_mean")):
                each.normal_(0.5 if name.endswith("weight") else 0, 0.3)
    return network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return with_random_numbers(build_sam("vit_t")).requires_grad_(False)


def timm_name(ours: str) -> str:
    """The name in timm, where a stage begins with what ends the stage before it in the files."""
    name = re.sub(r"\.c\.", ".conv.", ours)
    name = re.sub(r"^patch_embed\.seq\.0", "patch_embed.conv1", name)
    name = re.sub(r"^patch_embed\.seq\.2", "patch_embed.conv2", name)
    name = re.sub(
        r"^layers\.(\d)\.downsample", lambda m: f"stages.{int(m[1]) + 1}.downsample", name
    )
    return re.sub(r"^layers\.", "stages.", name)


class Reference(nn.Module):
    """timm's TinyViT at MobileSAM's last stride, with the neck of an encoder of ours."""

    img_size = 1024

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        timm = pytest.importorskip("timm")
        self.body = timm.create_model("tiny_vit_5m_224", num_classes=0).eval()
        state = {
            timm_name(name): each
            for name, each in encoder.state_dict().items()
            if not name.startswith(("neck.", "head.", "norm_head."))
        }
        theirs = self.body.state_dict()
        assert set(state) == {name for name in theirs if not name.startswith("head.")}
        self.body.load_state_dict({**theirs, **state})
        self.body.stages[-1].downsample.conv2.conv.stride = (1, 1)
        self.neck = encoder.neck

    def forward(self, image: Tensor) -> Tensor:
        body = self.body
        return self.neck(body.stages(body.patch_embed(image)))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (224, 160)])
@torch.no_grad()
def test_mobile_encoder_equals_timms(network, size):
    image = torch.randn(2, 3, *size)
    expected = Reference(network.image_encoder)(image)
    torch.testing.assert_close(network.encode(image).embedding, expected, rtol=1e-4, atol=1e-4)


def test_mobile_encoder_has_the_official_names():
    """As in `TinyViT` of MobileSAM; shapes of the published file, 10.1 M numbers with its head."""
    state = build_sam("vit_t", initialize=False).state_dict()
    shapes = {name: tuple(each.shape) for name, each in state.items()}
    encoder = "image_encoder."
    for name, shape in {
        "patch_embed.seq.0.c.weight": (32, 3, 3, 3),
        "patch_embed.seq.2.bn.num_batches_tracked": (),
        "layers.0.blocks.1.conv2.c.weight": (256, 1, 3, 3),
        "layers.0.downsample.conv3.bn.running_var": (128,),
        "layers.1.blocks.0.attn.attention_biases": (4, 49),
        "layers.2.blocks.5.attn.attention_biases": (5, 196),
        "layers.2.blocks.5.attn.qkv.weight": (480, 160),
        "layers.3.blocks.1.mlp.norm.weight": (320,),
        "layers.3.blocks.1.mlp.fc1.weight": (1280, 320),
        "layers.3.blocks.1.local_conv.c.weight": (320, 1, 3, 3),
        "norm_head.bias": (320,),
        "head.weight": (1000, 320),
        "neck.0.weight": (256, 320, 1, 1),
        "neck.3.bias": (256,),
    }.items():
        assert shapes[encoder + name] == shape
    assert architecture_of(state) == "vit_t"


@pytest.mark.parametrize("strategy", nightly_but(STRATEGIES, "lora", "prefix"))
def test_mobile_network_trains_and_merges_each_strategy(strategy):
    """Statistics included: training changes none, as a checkpoint holds none."""
    size = 5 if STRATEGIES[strategy].size else None
    torch.manual_seed(0)
    network = build_network("vit_t", channels=4, transfer="simmat")
    base = {name: each.clone() for name, each in network.state_dict().items()}
    tuned = tune(network, strategy, size)
    assert set(base) <= set(network.state_dict())
    assert network.transfer_names() <= set(tuned.names)
    network.train()
    trained = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(2):  # what begins at zero hides what is behind it from the first step
        optimizer.zero_grad()
        network.encode(torch.randn(1, 4, SIDE, SIDE)).embedding.square().mean().backward()
        optimizer.step()
    changed = {
        n for n, each in network.state_dict().items() if n in base and each.ne(base[n]).any()
    }
    assert changed <= set(tuned.names)
    named = dict(network.named_parameters())
    assert all(
        named[name].grad is not None
        for name in tuned.names
        if name.startswith("image_encoder.") and name in named
    )
    assert not any("running" in name or "head." in name for name in changed)
    network.eval()
    image = torch.randn(1, 4, SIDE, SIDE)
    expected = network.encode(image).embedding.detach()
    merge(network)
    assert set(network.state_dict()) == set(base) or strategy in ("adapter", "prompt", "prefix")
    with torch.no_grad():
        torch.testing.assert_close(network.encode(image).embedding, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transfer", ["simmat", "baseline_a", "baseline_b"])
def test_mobile_network_transfers_in_its_first_convolution(transfer):
    network = build_network("vit_t", channels=5, transfer=transfer)
    assert all(
        name.startswith("image_encoder.patch_embed.seq.0.c.") for name in network.transfer_names()
    )
    assert network.encode(torch.randn(1, 5, SIDE, SIDE)).embedding.shape == (1, 256, 8, 8)


@torch.no_grad()
def test_lora_heads_update_query_and_value_of_each_head():
    torch.manual_seed(0)
    network = build_network("vit_t", strategy="lora", size=3)
    attention = network.image_encoder.layers[1].blocks[0].attn
    layer, heads = attention.qkv, attention.num_heads
    layer.up["q"].normal_()
    layer.up["v"].normal_()
    tokens = torch.randn(2, 128)
    plain = nn.functional.linear(tokens, layer.weight, layer.bias).view(2, heads, 3, -1)
    ours = layer(tokens).view(2, heads, 3, -1)
    for place, name in ((0, "q"), (2, "v")):
        update = (tokens @ layer.down[name].T @ layer.up[name].T).view(2, heads, -1)
        torch.testing.assert_close(ours[:, :, place], plain[:, :, place] + update)
    torch.testing.assert_close(ours[:, :, 1], plain[:, :, 1])


@pytest.mark.parametrize("kind", [LearnedTokens, LearnedPrefix])
@torch.no_grad()
def test_window_attention_sees_learned_tokens_without_bias(kind):
    torch.manual_seed(0)
    stock, extra = WindowAttention(8, 2, 3).eval(), kind(8, 4).eval()
    stock.attention_biases.normal_()
    ours = ExtendedWindowAttention(stock, extra)
    x = torch.randn(1, 3, 3, 8)

    def parts(qkv):  # query, key, value; heads; tokens; c
        return qkv.reshape(-1, 2, 3, 4).permute(2, 1, 0, 3)

    query, key, value = parts(stock.qkv(stock.norm(x)))
    if kind is LearnedTokens:
        _, more_key, more_value = parts(stock.qkv(extra.tokens))
    else:
        more_key, more_value = (
            each.reshape(4, 2, 4).transpose(0, 1) for each in (extra.key, extra.value)
        )
    expected = torch.zeros(9, 2, 4)
    for head in range(2):
        for i in range(9):
            logits = [
                query[head, i] @ key[head, j] / 2
                + stock.attention_biases[head, abs(i // 3 - j // 3) * 3 + abs(i % 3 - j % 3)]
                for j in range(9)
            ]
            logits += [query[head, i] @ each / 2 for each in more_key[head]]
            values = torch.cat([value[head], more_value[head]])
            expected[i, head] = torch.stack(logits).softmax(0) @ values
    torch.testing.assert_close(
        ours(x), stock.proj(expected.reshape(1, 3, 3, 8)), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_mobile_encoder_in_half_precision_is_near(network):
    image = torch.randn(1, 3, SIDE, SIDE)
    exact = network.encode(image).embedding
    with torch.autocast("cpu", torch.bfloat16):
        fast = network.encode(image).embedding
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() < 0.05 * exact.norm()
