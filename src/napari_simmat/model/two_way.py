"""SAM's mask decoder on one image, re-associated: stock numbers without projecting the image.

A cross-attention projects some thousand tokens of the image to meet a few tokens of the prompt.
``q (X Wk)^T = (q Wk^T) X^T``, so the few are projected instead, per head; the same holds for values
and for the way back. Biases that are equal for all keys drop out of the softmax. What is left are
products with the image's own tokens, and no copy of them. Without gradients only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.model.tuned import AdaptedTwoWayBlock, LoRALinear

AT_ONCE = 1024
"""Image tokens that are worked on at once, so that temporaries stay in a processor's cache."""


Pieces = tuple[Tensor, ...]


class ImageTokens(NamedTuple):
    """An image of k tokens for N prompts, or one for all of them; its type is that of products.

    On a processor it lies in pieces of `AT_ONCE` tokens, on a GPU in one.

    Attributes
    ----------
    content
        Pieces (N or 1, p, d).
    placed
        The same plus `positions`.
    positions
        Where the tokens lie, pieces (1, p, d).
    """

    content: Pieces
    placed: Pieces
    positions: Pieces

    @classmethod
    def of(cls, content: Tensor, positions: Tensor) -> ImageTokens:
        """Tokens (N or 1, k, d) with their positions (1, k, d)."""
        length = AT_ONCE if content.device.type == "cpu" else content.shape[1]
        positions = positions.to(content.dtype)
        return cls(
            _pieces(content, length),
            _pieces(content + positions, length),
            _pieces(positions, length),
        )

    @property
    def dtype(self) -> torch.dtype:
        """In which products are computed."""
        return self.content[0].dtype


def two_way(
    transformer: TwoWayTransformer, image: ImageTokens, tokens: Tensor
) -> tuple[Tensor, Pieces]:
    """What the transformer makes of the tokens of N prompts, and of the image for each of them.

    Parameters
    ----------
    image
        Stays as it is.
    tokens
        (N, n, d) float32.

    Returns
    -------
    tokens (N, n, d) float32, image in pieces (N, p, d)
    """
    queries = tokens
    for layer in transformer.layers:
        queries = _told_tokens(layer, queries, tokens, image)
        image = _told_image(layer, queries + tokens, queries, image)
    final = transformer.final_attn_token_to_image
    queries = queries + _seen(final, queries + tokens, image)
    return transformer.norm_final_attn(queries), image.content


def predicted_quality(decoder: MaskDecoder, queries: Tensor) -> Tensor:
    """Predicted IoU (N, 4) of the masks, before any is formed."""
    predicted: Tensor = decoder.iou_prediction_head(queries[:, 0])
    return predicted


def form_masks(
    decoder: MaskDecoder, queries: Tensor, image: Sequence[Tensor], size: tuple[int, int]
) -> Tensor:
    """Mask logits (4, 4 h, 4 w) of one prompt.

    Parameters
    ----------
    queries, image
        (n, d) and pieces (p, d) of one prompt, as `two_way` returns them.
    size
        Height and width of the image in tokens.
    """
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(queries[1 + i]) for i, head in enumerate(heads)])  # (4, d / 8)
    weights = weights.to(image[0].dtype)
    to_half, norm, act, to_quarter, last_act = decoder.output_upscaling
    first, second = _Enlarging.of(to_half, weights.dtype), _Enlarging.of(to_quarter, weights.dtype)
    parts = []
    for piece in image:
        fine = first.enlarged(piece)  # 4 rows for a token: 2 x 2 cells
        fine = act(_normalised(fine, norm.weight, norm.bias, norm.eps))
        fine = last_act(second.enlarged(fine))  # 16 rows for a token
        parts.append(weights @ fine.T)
    height, width = size
    # Masks, y, x, and twice: row and column within.
    cells = torch.cat(parts, dim=1).view(len(weights), height, width, 2, 2, 2, 2)
    logits = queries.new_empty(len(weights), height, 2, 2, width, 2, 2)
    for row, column, finer_row, finer_column in product(range(2), repeat=4):  # long copies only
        logits[:, :, row, finer_row, :, column, finer_column] = cells[
            ..., row, column, finer_row, finer_column
        ]
    return logits.view(-1, 4 * height, 4 * width)


def _told_tokens(
    layer: TwoWayAttentionBlock, queries: Tensor, tokens: Tensor, image: ImageTokens
) -> Tensor:
    """The first three quarters of a layer: what the tokens learn of each other and the image."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        own = queries + tokens
        queries = queries + layer.self_attn(q=own, k=own, v=queries)
    queries = layer.norm1(queries)
    queries = queries + _seen(layer.cross_attn_token_to_image, queries + tokens, image)
    beside = layer.adapter(queries) if isinstance(layer, AdaptedTwoWayBlock) else 0
    queries = layer.norm2(queries)
    told: Tensor = layer.norm3(queries + layer.mlp(queries) + beside)
    return told


def _told_image(
    layer: TwoWayAttentionBlock, keys: Tensor, values: Tensor, image: ImageTokens
) -> ImageTokens:
    """The last quarter: what each token of the image learns of the prompt's.

    No token of the image needs another, so it goes piece by piece.
    """
    norm, attention = layer.norm4, layer.cross_attn_image_to_token
    told = _Told(attention, keys, values, image.dtype)
    contents, placed = [], []
    for old, old_placed, positions in zip(*image, strict=True):
        learned = told.added(old, old_placed)
        contents.append(_normalised(learned, norm.weight, norm.bias, norm.eps))
        placed.append(contents[-1] + positions)
    return ImageTokens(tuple(contents), tuple(placed), image.positions)


class _Told:
    """An attention from the image to N prompts' tokens, ready for pieces of the image.

    Parameters
    ----------
    keys, values
        (N, n, d) float32.
    dtype
        Of the image.
    """

    def __init__(
        self, attention: Attention, keys: Tensor, values: Tensor, dtype: torch.dtype
    ) -> None:
        self._stock = attention, keys, values
        self._reassociated = _can_reassociate(attention, keys.shape[1])
        if not self._reassociated:
            return
        count, heads = keys.shape[1], attention.num_heads
        self._split = heads, count
        key = _heads(attention.k_proj(keys), heads)
        key = key / math.sqrt(key.shape[-1])  # (N, heads, n, c)
        bias = attention.q_proj.bias.view(heads, 1, -1)
        asked = key @ _by_head(_weight(attention.q_proj), heads)
        self._asked = asked.flatten(1, 2).to(dtype)  # (N, heads * n, d)
        self._constant = (key * bias).sum(-1, keepdim=True).flatten(1, 2).to(dtype)
        value = _heads(attention.v_proj(values), heads)
        told = value @ _by_head(_weight(attention.out_proj).T, heads)
        # A token's weights sum to one over each head, so each head brings its share of the bias.
        told = told + attention.out_proj.bias / heads
        self._told = told.flatten(1, 2).to(dtype)

    def added(self, content: Tensor, placed: Tensor) -> Tensor:
        """Image tokens (N or 1, p, d) plus what they learn, (N, p, d)."""
        if not self._reassociated:
            attention, keys, values = self._stock
            with _in(content.dtype, content.device):
                told: Tensor = attention(q=placed.expand(len(keys), -1, -1), k=keys, v=values)
            return content + told.to(content.dtype)
        logits = _product(self._asked, placed.mT) + self._constant  # (N, heads * n, p)
        weights = logits.view(-1, *self._split, logits.shape[-1]).softmax(2).flatten(1, 2)
        return torch.baddbmm(content, weights.mT, self._told)


def _seen(attention: Attention, queries: Tensor, image: ImageTokens) -> Tensor:
    """What tokens (N, n, d) see in the image, (N, n, d) float32."""
    if not _can_reassociate(attention, queries.shape[1]):
        placed, content = (
            torch.cat(each, dim=1).expand(len(queries), -1, -1)
            for each in (image.placed, image.content)
        )
        with _in(content.dtype, content.device):
            seen: Tensor = attention(q=queries, k=placed, v=content)
        return seen.float()
    heads = attention.num_heads
    query = _heads(attention.q_proj(queries), heads)
    query = query / math.sqrt(query.shape[-1])
    asked = query @ _by_head(_weight(attention.k_proj), heads)  # (N, heads, n, d)
    asked = asked.flatten(1, 2).to(image.dtype)
    logits = torch.cat([_product(asked, piece.mT) for piece in image.placed], dim=-1)
    weights = logits.softmax(-1)  # (N, heads * n, k)
    shares = torch.split(weights, [piece.shape[1] for piece in image.content], dim=-1)
    found = queries.new_zeros(*asked.shape)
    for share, piece in zip(shares, image.content, strict=True):
        found += _product(share, piece)
    value = (
        found.view(*query.shape[:3], -1) @ _by_head(_weight(attention.v_proj), heads).mT
    )  # (N, heads, n, c)
    value = value + attention.v_proj.bias.view(heads, 1, -1)
    told: Tensor = attention.out_proj(value.transpose(1, 2).flatten(2))
    return told


def _can_reassociate(attention: Attention, count: int) -> bool:
    """Whether it is exact, and less work than projecting the image for that many tokens."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    plain = type(attention) is Attention and all(
        type(each) in (nn.Linear, LoRALinear) for each in projections
    )
    return plain and count * attention.num_heads <= attention.internal_dim


def _weight(projection: nn.Linear) -> Tensor:
    """What a projection multiplies with, (d_out, d_in), its low-rank updates included."""
    if isinstance(projection, LoRALinear):
        return projection.effective_weight()
    return projection.weight


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """(N, n, heads * c) -> (N, heads, n, c)."""
    count, length, width = tokens.shape
    return tokens.view(count, length, heads, width // heads).transpose(1, 2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """A projection to or from an attention's inside, (heads * c, d) -> (heads, c, d)."""
    return weight.reshape(heads, -1, weight.shape[-1])


def _pieces(tokens: Tensor, length: int) -> Pieces:
    """(N, k, d) in pieces of that many tokens, each as if it were alone.

    A view of one image counts as contiguous, but has the stride of the whole: products copy it.
    """
    pieces = torch.split(tokens, length, dim=1)
    return (
        pieces
        if len(pieces) == 1
        else tuple(piece.clone(memory_format=torch.contiguous_format) for piece in pieces)
    )


def _product(rows: Tensor, image: Tensor) -> Tensor:
    """(N, r, a) @ (N or 1, a, b) -> (N, r, b), without repeating the image."""
    if len(image) == len(rows):
        return torch.bmm(rows, image)
    return (rows.flatten(0, 1) @ image[0]).view(*rows.shape[:2], -1)


class _Enlarging(NamedTuple):
    """A transposed convolution of 2 x 2 with stride 2 as a product: (c, 4 c') and (4 c',)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.ConvTranspose2d, dtype: torch.dtype) -> _Enlarging:
        assert layer.bias is not None
        weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
        return cls(weight.to(dtype), layer.bias.repeat(4).to(dtype))

    def enlarged(self, cells: Tensor) -> Tensor:
        """A row (c) per cell -> its 4 rows (c')."""
        return torch.addmm(self.bias, cells, self.weight).view(4 * len(cells), -1)


def _normalised(tokens: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    width = tokens.shape[-1:]
    return functional.layer_norm(tokens, width, weight.to(tokens.dtype), bias.to(tokens.dtype), eps)


def _in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A stock module computes in that type."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
