"""The image encoder of `tiny`: convolutional stages, a few of SAM's attention blocks, fused.

MobileSAM's idea (arXiv 2306.14289) in small. Nothing depends on the input's size: no table of
positions (a depth-wise convolution gives them, after conditional positional encodings, arXiv
2102.10882), no normalisation over the batch or over the image.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from segment_anything.modeling.image_encoder import Attention, Block
from torch import Tensor, nn
from torch.nn import functional

# The number of tokens for which the attention's temperature is the plain one: a 256-pixel image.
REFERENCE_TOKENS = 256
SPAN = 32
"""Tokens a side that one token sees at most: 512 pixels."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel, (B, C, H, W) -> the same."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalise every pixel's channel vector."""
        return super().forward(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions on the normalised input, added to it."""

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


class FirstProjection(nn.Module):
    """The slot of the transfer layer, under the names that SAM has for it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 3, stride=2, padding=1)


class LocalContrast(nn.Module):
    """What stands out from its surroundings, added to the first projection.

    Each of its maps is taken less its mean, over the deviation of all maps, within about 50 pixels
    (local contrast normalisation, Jarrett et al. 2009, https://doi.org/10.1109/ICCV.2009.5459469),
    then mixed. So a dim object beside a very bright one, or on uneven ground, is not lost. Behind
    the projection it works with every transfer layer. Mixed by zeros it changes nothing, as before
    any training.
    """

    CELL = 8
    """Pixels of the map in which surroundings are measured; three cells a side are one's."""
    FLOOR = 0.03
    """Deviation that is no more than noise: one or two of 255 grey levels."""
    LIMIT = 5.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, d, h, w) -> the same shape; h and w are multiples of `CELL`."""
        with torch.autocast(maps.device.type, enabled=False):  # differences of like numbers
            values = maps.float()
            mean = self._around(values)
            square = self._around(values.square().mean(1, keepdim=True))
            variance = (square - mean.square().mean(1, keepdim=True)).clamp(min=0)
            spread = (variance + self.FLOOR**2).sqrt()  # has a slope where all is equal
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


class TokenAttention(Attention):
    """SAM's attention, computed with less memory, sharpened with the number of tokens.

    The logits grow with the logarithm of the number of tokens, so that a model trained on small
    crops attends as sharply in a large image (arXiv 2202.12172). Beyond `SPAN` tokens a side, a
    block of tokens attends to the span around it (as in HaloNet, arXiv 2103.12731), so that the
    cost grows with the image's area only.
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
        """Keys and values (B, heads, n, c) with what a tuned attention sees beside its tokens."""
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
    """Blocks of tokens along a side, and what each attends to."""
    if side <= SPAN:
        return [(slice(0, side), slice(0, side))]
    blocks = []
    for start in range(0, side, SPAN // 2):
        first = min(max(start - SPAN // 4, 0), side - SPAN)
        blocks.append((slice(start, min(start + SPAN // 2, side)), slice(first, first + SPAN)))
    return blocks


class TinyEncoder(nn.Module):
    """Stages at strides 2, 4, 8; attention at 16; fused down to an embedding at stride 8.

    Parameters
    ----------
    widths
        Channels at strides 2, 4 and 8.
    depths
        Residual blocks at strides 4 and 8.
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
        widths: tuple[int, int, int] = (32, 64, 128),
        depths: tuple[int, int] = (2, 3),
        tokens: int = 192,
        blocks: int = 4,
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
        self.stage2 = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(two, two, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.stage4 = nn.Sequential(
            nn.Conv2d(two, four, 3, stride=2, padding=1),
            *[Residual(four) for _ in range(depths[0])],
        )
        self.stage8 = nn.Sequential(
            ChannelNorm(four, eps=1e-6),
            nn.Conv2d(four, eight, 3, stride=2, padding=1),
            *[Residual(eight) for _ in range(depths[1])],
        )
        self.norm8 = ChannelNorm(eight, eps=1e-6)
        self.to_tokens = nn.Conv2d(eight, tokens, 3, stride=2, padding=1)
        self.position = nn.Conv2d(tokens, tokens, 3, padding=1, groups=tokens)
        self.blocks = nn.ModuleList(_block(tokens, heads) for _ in range(blocks))
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

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> maps at strides 2, 4, 8 and tokens (B, H/16, W/16, d)."""
        image = image.contiguous(memory_format=torch.channels_last)
        two = self.stage2(self.local(self.patch_embed.proj(image)))
        four = self.stage4(two)
        eight = self.norm8(self.stage8(four))
        tokens = self.to_tokens(eight)
        tokens = tokens + self.position(tokens)
        return two, four, eight, tokens.permute(0, 2, 3, 1)

    def fuse(self, four: Tensor, eight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding at stride 8, features at stride 4, dense map at stride 2."""
        top = self.top(self.norm(tokens).permute(0, 3, 1, 2))
        top = functional.interpolate(top, scale_factor=2.0, mode="nearest")
        embedding = self.neck(top + self.lateral8(eight))
        fine = functional.interpolate(self.down4(embedding), scale_factor=2.0, mode="nearest")
        fine = self.fuse4(fine + self.lateral4(self.norm4(four)))
        return embedding, fine, functional.pixel_shuffle(self.dense(fine), 2)


def _block(width: int, heads: int) -> Block:
    block = Block(width, heads, 4.0, True, partial(nn.LayerNorm, eps=1e-6))
    block.attn = TokenAttention(width, heads, qkv_bias=True)
    return block
