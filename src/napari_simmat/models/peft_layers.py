"""Layers of tuned networks. Each replaces a module of SAM and keeps its parameters' names.

So base weights load strictly into a tuned network, and the additional parameters are the trained
ones.
Source: ``models/sam_*/modeling`` of https://github.com/mt-cly/SimMAT at a3f7d70, the same in SimCMF
at 0cdc5c1. LoRA: arXiv 2106.09685, adapters: arXiv 1902.00751, prompt tuning: arXiv 2203.12119,
prefix tuning: arXiv 2101.00190.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from segment_anything.modeling.image_encoder import Attention, Block
from segment_anything.modeling.transformer import Attention as CrossAttention
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.hiera_encoder import HieraAttention, HieraBlock
from napari_simmat.models.mobile_encoder import WindowAttention, WindowBlock
from napari_simmat.models.network import conv_arguments, replace_module
from napari_simmat.models.sam3_encoder import RotaryAttention, RotaryBlock
from napari_simmat.models.sam_encoder import ViTAttention, ViTBlock
from napari_simmat.models.tiny_encoder import TokenAttention

ADAPTER_SCALE = 0.1
DROPOUT = 0.1
"""Dropout of learned tokens in training."""


class LoRALinear(nn.Linear):
    """A projection plus low-rank updates of parts of its output, without bias or scaling.

    Parameters
    ----------
    linear
        The projection; its `weight` and `bias` keep their names.
    rank
        Rank of each update.
    parts
        Name of each updated part -> its first output and last output + 1.
    """

    def __init__(self, linear: nn.Linear, rank: int, parts: Mapping[str, tuple[int, int]]) -> None:
        super().__init__(
            linear.in_features, linear.out_features, linear.bias is not None, device="meta"
        )
        self.weight, self.bias = linear.weight, linear.bias
        self.parts = dict(parts)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, (start, stop) in parts.items():
            self.down[name] = nn.Parameter(torch.empty(rank, linear.in_features))
            self.up[name] = nn.Parameter(torch.zeros(stop - start, rank))
            nn.init.kaiming_uniform_(self.down[name], a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out)."""
        outputs = super().forward(x)
        updates = []
        end = 0
        for name, (start, stop) in self.parts.items():
            update = functional.linear(functional.linear(x, self.down[name]), self.up[name])
            updates += [outputs[..., end:start], outputs[..., start:stop] + update]
            end = stop
        return torch.cat([*updates, outputs[..., end:]], dim=-1)

    def merged(self) -> nn.Linear:
        """An equivalent plain projection."""
        plain = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device=self.weight.device
        )
        plain.weight = nn.Parameter(self.effective_weight().detach())
        plain.bias = self.bias
        return plain

    def effective_weight(self) -> Tensor:
        """The projection with its updates, (d_out, d_in)."""
        weight = self.weight.clone()
        for name, (start, stop) in self.parts.items():
            weight[start:stop] += self.up[name] @ self.down[name]
        return weight


class LoRAHeads(LoRALinear):
    """The same for the q and v of `WindowAttention`, whose projection is ordered by head."""

    def __init__(self, linear: nn.Linear, rank: int, heads: int) -> None:
        width = linear.in_features
        super().__init__(linear, rank, {"q": (0, width), "v": (2 * width, 3 * width)})
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out); updating the weights is cheaper than the tokens."""
        return functional.linear(x, self.effective_weight(), self.bias)

    def effective_weight(self) -> Tensor:
        """The projection with its updates, (d_out, d_in)."""
        query, value = (
            (self.up[name] @ self.down[name]).unflatten(0, (self.heads, -1)) for name in "qv"
        )
        update = torch.stack([query, torch.zeros_like(query), value], dim=1)  # heads, q k v, c, d
        return self.weight + update.flatten(0, 2)


class LoRAConv2d(nn.Conv2d):
    """A convolution plus a low-rank update of its weights, without bias or scaling.

    LoRA (arXiv 2106.09685) with matrices over (d_out, d_in times the kernel), as in LyCORIS (arXiv
    2309.14859). `conv` has one group; its `weight` and `bias` keep their names.
    """

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__(**conv_arguments(conv), device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.down = nn.Parameter(torch.empty(rank, *conv.weight.shape[1:]))
        self.up = nn.Parameter(torch.zeros(conv.out_channels, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in, H, W) -> (B, d_out, h, w); updating the weights is cheaper than the pixels."""
        outputs: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return outputs

    def merged(self) -> nn.Conv2d:
        """An equivalent plain convolution."""
        plain = nn.Conv2d(**conv_arguments(self), device=self.weight.device)
        plain.weight = nn.Parameter(self.effective_weight().detach())
        plain.bias = self.bias
        return plain

    def effective_weight(self) -> Tensor:
        """The weights with their update, (d_out, d_in, k, k)."""
        return self.weight + (self.up @ self.down.flatten(1)).view_as(self.weight)


class Adapter(nn.Module):
    """A bottleneck parallel to an MLP: down, ReLU, up, scaled; initially zero."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        for zero in (self.down.bias, self.up.bias, self.up.weight):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        outputs: Tensor = self.up(functional.relu(self.down(x)))
        return ADAPTER_SCALE * outputs


class AdaptedBlock(ViTBlock):
    """A block of the image encoder with an adapter parallel to its MLP."""

    def __init__(self, block: Block, size: int) -> None:
        super().__init__(block)
        self.adapter = Adapter(self.mlp.lin1.in_features, size)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> its update; the adapter reads the input of the MLP's norm."""
        added: Tensor = super().parallel_branch(tokens) + self.adapter(tokens)
        return added


class AdaptedWindowBlock(WindowBlock):
    """A block of MobileSAM's image encoder with an adapter parallel to its MLP."""

    def __init__(self, block: WindowBlock, size: int) -> None:
        replace_module(self, block)
        self.adapter = Adapter(self.mlp.fc1.in_features, size)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> its update; the adapter reads the input of the MLP's norm."""
        added: Tensor = super().parallel_branch(tokens) + self.adapter(tokens)
        return added


class AdaptedHieraBlock(HieraBlock):
    """A block of SAM 2's image encoder with an adapter parallel to its MLP."""

    def __init__(self, block: HieraBlock, size: int) -> None:
        replace_module(self, block)
        self.adapter = Adapter(self.dim_out, size)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> its update; the adapter reads the input of the MLP's norm."""
        added: Tensor = super().parallel_branch(tokens) + self.adapter(tokens)
        return added


class AdaptedRotaryBlock(RotaryBlock):
    """A block of SAM 3's image encoder with an adapter parallel to its MLP."""

    def __init__(self, block: RotaryBlock, size: int) -> None:
        replace_module(self, block)
        self.adapter = Adapter(self.attn.qkv.in_features, size)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> its update; the adapter reads the input of the MLP's norm."""
        added: Tensor = super().parallel_branch(tokens) + self.adapter(tokens)
        return added


class AdaptedTwoWayBlock(TwoWayAttentionBlock):
    """A block of the mask decoder with an adapter parallel to its MLP.

    As in the encoder the adapter reads the sum of tokens and attention. Here the norm comes after
    that sum and changes the tokens themselves, so the adapter reads the tokens before it.
    """

    def __init__(self, block: TwoWayAttentionBlock, size: int) -> None:
        replace_module(self, block)
        self.adapter = Adapter(self.mlp.lin1.in_features, size)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, d), image (B, HW, d) and their positions -> tokens and image."""
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(q=placed, k=placed, v=queries)
        queries = self.norm1(queries)
        seen = self.cross_attn_token_to_image(q=queries + query_pe, k=keys + key_pe, v=keys)
        queries = queries + seen
        adapted = self.adapter(queries)
        queries = self.norm2(queries)
        queries = self.norm3(queries + self.mlp(queries) + adapted)
        update = self.cross_attn_image_to_token(q=keys + key_pe, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys + update)


class LearnedTokens(nn.Module):
    """Prompt tuning: further tokens for every attention, passed through its projections."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.tokens = _learned(width, length)
        self.dropout = nn.Dropout(DROPOUT)

    def projected(self, qkv: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values (1, l, d) for an attention of the image encoder."""
        _, key, value = qkv(self.dropout(self.tokens)).chunk(3, dim=-1)
        return key, value

    def raw(self) -> tuple[Tensor, Tensor]:
        """Inputs (1, l, d) of the key and value projections of the mask decoder."""
        tokens = self.dropout(self.tokens)
        return tokens, tokens


class LearnedPrefix(nn.Module):
    """Prefix tuning: further keys and values for every attention."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.key, self.value = _learned(width, length), _learned(width, length)

    def projected(self, qkv: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values (1, l, d) for an attention of the image encoder."""
        del qkv  # they bypass the projection
        return self.key, self.value

    def raw(self) -> tuple[Tensor, Tensor]:
        """Inputs (1, l, d) of the key and value projections of the mask decoder."""
        return self.key, self.value


Extra = LearnedTokens | LearnedPrefix


class ExtendedAttention(ViTAttention):
    """An attention of SAM's image encoder with learned tokens, which have no position bias."""

    def __init__(self, attention: Attention, extra: Extra) -> None:
        super().__init__(attention)
        self.extra = extra

    def extra_keys(self, batch: int) -> tuple[Tensor, Tensor]:
        """Keys and values (batch * heads, l, d / heads)."""
        projected = self.extra.projected(self.qkv)
        key, value = (_in_heads(each, batch, self.num_heads) for each in projected)
        return key.flatten(0, 1), value.flatten(0, 1)


class ExtendedTokenAttention(TokenAttention):
    """An attention of `tiny`'s image encoder with learned tokens."""

    def __init__(self, attention: TokenAttention, extra: Extra) -> None:
        replace_module(self, attention)
        self.extra = extra

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, n, c) -> (B, heads, n + l, c)."""
        return _with_learned(key, value, self.extra.projected(self.qkv))


class ExtendedHieraAttention(HieraAttention):
    """An attention of SAM 2's image encoder with learned tokens; pooled queries see them, too."""

    def __init__(self, attention: HieraAttention, extra: Extra) -> None:
        replace_module(self, attention)
        self.extra = extra

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, n, c) -> (N, heads, n + l, c)."""
        return _with_learned(key, value, self.extra.projected(self.qkv))


class ExtendedRotaryAttention(RotaryAttention):
    """An attention of SAM 3's image encoder with learned tokens, which have no position."""

    def __init__(self, attention: RotaryAttention, extra: Extra) -> None:
        replace_module(self, attention)
        self.extra = extra

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, n, c) -> (N, heads, n + l, c)."""
        return _with_learned(key, value, self.extra.projected(self.qkv))


class ExtendedWindowAttention(WindowAttention):
    """An attention of MobileSAM's image encoder with learned tokens, which have no bias."""

    def __init__(self, attention: WindowAttention, extra: Extra) -> None:
        replace_module(self, attention)
        self.extra = extra

    def extended(self, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (n, heads, k + l, c), and bias (heads, q, k + l)."""

        def by_part(tokens: Tensor) -> Tensor:
            """Projected tokens (1, l, 3 d), ordered by query, key and value as in SAM."""
            by_head: Tensor = self.qkv(tokens).unflatten(-1, (self.num_heads, 3, -1))
            return by_head.transpose(-3, -2).flatten(-3)

        more = (_in_heads(each, *key.shape[:2]) for each in self.extra.projected(by_part))
        more_key, more_value = more
        bias = functional.pad(bias, (0, more_key.shape[2]))
        key = torch.cat([key, more_key.to(key.dtype)], dim=2)
        return key, torch.cat([value, more_value.to(value.dtype)], dim=2), bias


class ExtendedCrossAttention(CrossAttention):
    """An attention of the mask decoder with learned tokens."""

    def __init__(self, attention: CrossAttention, extra: Extra) -> None:
        replace_module(self, attention)
        self.extra = extra

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, Nq, d), (B, Nk, d), (B, Nk, d) -> (B, Nq, d)."""
        key, value = (each.expand(len(k), -1, -1) for each in self.extra.raw())
        outputs: Tensor = super().forward(
            q=q, k=torch.cat([k, key], dim=1), v=torch.cat([v, value], dim=1)
        )
        return outputs


def _learned(width: int, length: int) -> nn.Parameter:
    """Tokens (1, length, width), initialized uniformly as a patch embedding of SAM's patches."""
    bound = math.sqrt(6 / (3 * 16 + width))
    return nn.Parameter(torch.empty(1, length, width).uniform_(-bound, bound))


def _with_learned(
    key: Tensor, value: Tensor, learned: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, n, c), and learned ones (1, l, d) -> (B, heads, n + l, c)."""
    more_key, more_value = (_in_heads(each, *key.shape[:2]).to(key.dtype) for each in learned)
    return torch.cat([key, more_key], dim=2), torch.cat([value, more_value], dim=2)


def _in_heads(tokens: Tensor, batch: int, heads: int) -> Tensor:
    """(1, l, d) -> (B, heads, l, d / heads)."""
    _, length, width = tokens.shape
    split = tokens.reshape(1, length, heads, width // heads).transpose(1, 2)
    return split.expand(batch, -1, -1, -1)
