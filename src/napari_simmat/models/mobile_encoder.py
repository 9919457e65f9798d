"""MobileSAM's image encoder, TinyViT-5M, under the official parameter names.

Sources: TinyViT, arXiv 2207.10666; MobileSAM, arXiv 2306.14289, which keeps the stride of the last
stage at 16 and adds SAM's neck. Convolutions at strides 2 and 4, then three stages of attention in
windows. A convolution and its batch norm are one product: the statistics of the pretrained network
are kept in training too, since batches are small and a checkpoint holds no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
"""Of the four stages; the first has convolutions, and neither heads nor windows."""
EXPANSION = 4
"""Hidden channels per channel, in convolutions and MLPs."""
EMBEDDING = 256
CLASSES = 1000
"""Outputs of the classifier, which the published files contain and nothing uses."""


class MobileEncoder(nn.Module):
    """TinyViT-5M with SAM's neck: (B, 3, 1024, 1024) -> (B, 256, 64, 64)."""

    img_size = 1024  # SAM's attribute

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(WIDTHS[0])
        self.layers = nn.ModuleList(Stage(index) for index in range(len(WIDTHS)))
        self.norm_head = _Unused(WIDTHS[-1])
        self.head = _Unused(CLASSES, WIDTHS[-1])
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], EMBEDDING, 1, bias=False),
            LayerNorm2d(EMBEDDING),
            nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING),
        )

    def steps(self) -> Iterator[nn.Module]:
        """The modules that tokens (B, H, W, d) pass between patch embedding and neck, in order."""
        for stage in self.stages:
            yield from stage.blocks
            if stage.downsample is not None:
                yield stage.downsample

    @property
    def stages(self) -> list[Stage]:
        """The four stages; all but the first have attention."""
        return [stage for stage in self.layers if isinstance(stage, Stage)]


class Stage(nn.Module):
    """Blocks of one width, and the way to the next width, by the number of the stage."""

    downsample: Merging | None

    def __init__(self, index: int) -> None:
        super().__init__()
        width = WIDTHS[index]
        last = len(WIDTHS) - 1
        self.blocks = nn.ModuleList(
            WindowBlock(width, HEADS[index], WINDOWS[index]) if index else InvertedBottleneck(width)
            for _ in range(DEPTHS[index])
        )
        stride = 1 if index == last - 1 else 2
        self.downsample = None if index == last else Merging(width, WIDTHS[index + 1], stride)


class ConvNorm(nn.Module):
    """A convolution without bias and a batch norm with fixed statistics, as one convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        norm, conv = self.bn, self.c
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        tuned = getattr(conv, "effective_weight", None)
        if type(conv) is nn.Conv2d or tuned is not None:
            weight: Tensor = conv.weight if tuned is None else tuned()
            weight = weight * scale[:, None, None, None]
            return functional.conv2d(
                image, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups
            )
        outputs: Tensor = conv(image)  # of a transfer layer
        return outputs * scale[:, None, None] + shift[:, None, None]


class PatchEmbedding(nn.Module):
    """Two convolutions of stride 2; the first is the slot of the transfer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, width // 2, 3, stride=2),
            nn.GELU(),
            ConvNorm(width // 2, width, 3, stride=2),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H/4, W/4, d)."""
        tokens: Tensor = self.seq(image)
        return tokens.permute(0, 2, 3, 1)


class _Convolutions(nn.Module):
    """1 x 1, 3 x 3 for each channel, 1 x 1: with GELU in between."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, outputs)

    def _mixed(self, tokens: Tensor) -> Tensor:
        image = functional.gelu(self.conv1(tokens.permute(0, 3, 1, 2)))
        image = functional.gelu(self.conv2(image))
        mixed: Tensor = self.conv3(image)
        return mixed.permute(0, 2, 3, 1)


class InvertedBottleneck(_Convolutions):
    """A residual block of convolutions (MBConv) on tokens (B, H, W, d)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, EXPANSION * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        return functional.gelu(tokens + self._mixed(tokens))


class Merging(_Convolutions):
    """Convolutions to the next width, and with stride 2 to half the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, outputs, stride)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> (B, H', W', d')."""
        return self._mixed(tokens)


class WindowBlock(nn.Module):
    """Attention in windows, a convolution for each channel, and an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window)
        self.mlp = MLP(width)
        self.local_conv = ConvNorm(width, width, 3, groups=width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        tokens = tokens + self.attn(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return tokens + self.parallel_branch(tokens)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """The update of the tokens after their attention."""
        update: Tensor = self.mlp(tokens)
        return update


class MLP(nn.Module):
    """A norm and two projections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        outputs: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(tokens))))
        return outputs


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a bias for each distance in y and x.

    The projection's outputs are ordered by head, and within a head by query, key and value.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        batch, high, wide, _ = tokens.shape
        side, heads = self.window, self.num_heads
        qkv = self._pad_to_windows(self.qkv(self.norm(tokens)))
        down, across = qkv.shape[1] // side, qkv.shape[2] // side
        split = qkv.view(batch, down, side, across, side, heads, 3, -1)
        # (3, B, windows down, across, heads, tokens down, across, d / heads)
        split = split.permute(6, 0, 1, 3, 5, 2, 4, 7)
        query, key, value = split.reshape(3, -1, heads, side**2, split.shape[-1]).unbind(0)
        # The bias of each pair of tokens of a window, (heads, q, k), by their distances.
        place = torch.arange(side, device=self.attention_biases.device)
        apart = (place[:, None] - place).abs()
        index = apart[:, None, :, None] * side + apart[None, :, None, :]
        bias = self.attention_biases[:, index.flatten(2).flatten(0, 1)]
        key, value, bias = self.extended(key, value, bias)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype)
        )
        mixed = mixed.view(split.shape[1:]).permute(0, 1, 4, 2, 5, 3, 6)
        mixed = mixed.reshape(batch, down * side, across * side, -1)
        projected: Tensor = self.proj(mixed[:, :high, :wide])
        return projected

    def extended(self, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (n, heads, k, c) and bias (heads, q, k), with those of a tuning."""
        return key, value, bias

    def _pad_to_windows(self, qkv: Tensor) -> Tensor:
        """Extend to whole windows by tokens of zeros, which are seen: their norm is its bias."""
        batch, high, wide, width = qkv.shape
        whole = -(-high // self.window) * self.window, -(-wide // self.window) * self.window
        if whole == (high, wide):
            return qkv
        of_zeros: Tensor = self.qkv(self.norm.bias)
        filled = of_zeros.to(qkv.dtype).expand(batch, *whole, width).clone()
        filled[:, :high, :wide] = qkv
        return filled


class _Unused(nn.Module):
    """A layer of the classifier: in the files, but never computed and so never trained."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(shape))
        self.register_buffer("bias", torch.zeros(shape[0]))
