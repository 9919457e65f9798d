import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.models.tiny_encoder import LiteEncoder, efficientnet_tensors
from napari_simmat.models.tuning import architecture_of, build_network

MEAN, STD = 127.5, 64.0
# Channels of the published blocks: input, output, kernel and expansion.
BLOCKS = (
    *((32, 16, 3, 1), (16, 24, 3, 6), (24, 24, 3, 6), (24, 40, 5, 6), (40, 40, 5, 6)),
    *((40, 80, 3, 6), (80, 80, 3, 6), (80, 80, 3, 6), (80, 112, 5, 6), (112, 112, 5, 6)),
    *((112, 112, 5, 6), (112, 192, 5, 6), (192, 192, 5, 6), (192, 192, 5, 6), (192, 192, 5, 6)),
)


def with_norm(name: str, norm: str, weight: Tensor) -> dict[str, Tensor]:
    width = len(weight)
    values = {"weight": torch.rand(width) + 0.5, "bias": torch.randn(width)}
    values |= {"running_mean": torch.randn(width), "running_var": torch.rand(width) + 0.5}
    return {f"{name}.weight": weight} | {f"{norm}.{key}": value for key, value in values.items()}


@pytest.fixture(scope="module")
def published():
    """Random tensors under the published names."""
    torch.manual_seed(0)
    tensors = with_norm("_conv_stem", "_bn0", torch.randn(32, 3, 3, 3) / 5)
    for number, (inner, outer, kernel, expansion) in enumerate(BLOCKS):
        block, width = f"_blocks.{number}.", inner * expansion
        if expansion > 1:
            weight = torch.randn(width, inner, 1, 1) / inner**0.5
            tensors |= with_norm(f"{block}_expand_conv", f"{block}_bn0", weight)
        weight = torch.randn(width, 1, kernel, kernel) / kernel
        tensors |= with_norm(f"{block}_depthwise_conv", f"{block}_bn1", weight)
        weight = torch.randn(outer, width, 1, 1) / width**0.5
        tensors |= with_norm(f"{block}_project_conv", f"{block}_bn2", weight)
    return tensors


def normed(image: Tensor, tensors: dict[str, Tensor], norm: str) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    values = [tensors[f"{norm}.{name}"] for name in names]
    return functional.batch_norm(image, *values, eps=1e-3)


def plain_blocks(image: Tensor, tensors: dict[str, Tensor], last: int) -> Tensor:
    """The published network with its batch norms, up to a block; `image` in 0..255."""
    image = (image - 127) / 128
    image = functional.conv2d(image, tensors["_conv_stem.weight"], stride=2, padding=1)
    image = functional.relu6(normed(image, tensors, "_bn0"))
    for number, (inner, outer, kernel, expansion) in enumerate(BLOCKS[: last + 1]):
        block, before = f"_blocks.{number}.", image
        if expansion > 1:
            image = functional.conv2d(image, tensors[f"{block}_expand_conv.weight"])
            image = functional.relu6(normed(image, tensors, f"{block}_bn0"))
        stride = 2 if number in (1, 3, 5, 11) else 1
        weight = tensors[f"{block}_depthwise_conv.weight"]
        image = functional.conv2d(
            image, weight, stride=stride, padding=kernel // 2, groups=len(weight)
        )
        image = functional.relu6(normed(image, tensors, f"{block}_bn1"))
        image = functional.conv2d(image, tensors[f"{block}_project_conv.weight"])
        image = normed(image, tensors, f"{block}_bn2")
        if stride == 1 and inner == outer:
            image = image + before
    return image


def test_published_tensors_fold_into_the_same_stages(published):
    encoder = LiteEncoder(blocks=1).eval()
    tensors = efficientnet_tensors(published, MEAN, STD)
    assert not encoder.load_state_dict(tensors, strict=False).unexpected_keys
    set_parameters = {id(parameter) for parameter in encoder.pretrained()}
    names = {name for name, p in encoder.named_parameters() if id(p) in set_parameters}
    assert names == set(tensors)

    image = torch.rand(1, 3, 64, 64) * 255
    middle = slice(2, -2)  # a border of zeros is another gray for another standardization
    with torch.no_grad():
        first = functional.relu6(encoder.patch_embed.proj((image - MEAN) / STD))
        wanted = plain_blocks(image, published, -1)
        torch.testing.assert_close(first[..., middle, middle], wanted[..., middle, middle])
        # From there on, both see the same values.
        stages = (encoder.stage2, encoder.stage4, encoder.stage8, encoder.stage16, encoder.stage32)
        deep = nn.Sequential(*stages)(wanted)
    torch.testing.assert_close(deep, plain_blocks(image, published, len(BLOCKS) - 1))


def test_lite_network_masks_have_the_size_of_the_input():
    network = build_network("tiny_lite")
    assert isinstance(network, TinyNetwork)
    assert architecture_of(network.state_dict()) == "tiny_lite"
    with torch.no_grad():
        encoded = network.encode(torch.randn(2, 3, 96, 64))
        points, labels = torch.tensor([[[40.0, 30.0]]] * 2), torch.tensor([[1]] * 2)
        masks, quality = network.decode_batch(encoded, points, labels)
    assert masks.shape == (2, 4, 48, 32)
    assert quality.shape == (2, 4)


@pytest.mark.parametrize("strategy", ["lora", "lora_conv", "adapter", "prompt", "full"])
def test_lite_network_trains_with_each_strategy(strategy):
    network = build_network("tiny_lite", channels=5, transfer="simmat", strategy=strategy)
    encoded = network.encode(torch.randn(1, 5, 64, 64))
    encoded.embedding.sum().backward()
    trained = [p for p in network.image_encoder.parameters() if p.requires_grad]
    assert trained
    assert any(p.grad is not None and bool(p.grad.any()) for p in trained)


@pytest.mark.parametrize("trains", [True, False])
def test_depthwise_kernels_train_in_float32(trains):
    encoder = LiteEncoder(blocks=1)
    kernels = [module for name, module in encoder.named_modules() if name.endswith("depthwise")]
    seen = set()
    for kernel in kernels:
        kernel.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    with torch.set_grad_enabled(trains), torch.autocast("cpu", torch.bfloat16):
        encoder.stages(torch.randn(1, 3, 64, 64))
    assert seen == {torch.float32 if trains else torch.bfloat16}
    assert len(kernels) == len(BLOCKS)
