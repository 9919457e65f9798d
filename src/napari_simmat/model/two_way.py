"""SAM's mask decoder on one image, re-associated: stock numbers without projecting the image.

A cross-attention projects some thousand tokens of the image to meet a few tokens of the prompt.
``q (X Wk)^T = (q Wk^T) X^T``, so the few are projected instead, per head; the same holds for values
and for the way back. Biases that are equal for all keys drop out of the softmax. What is left are
products with the image's own tokens, and no copy of them. Without gradients only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.model.tuned import AdaptedTwoWayBlock, LoRALinear

AT_ONCE = 1024
"""Image tokens that are worked on at once, so that temporaries stay in a processor's cache."""


class ImageTokens(NamedTuple):
    """An image of k tokens for N prompts, or one for all of them; its type is that of products.

    Attributes
    ----------
    content
        (N or 1, k, d).
    placed
        The same plus `positions`.
    positions
        Where the tokens lie, (1, k, d).
    """

    content: Tensor
    placed: Tensor
    positions: Tensor

    @classmethod
    def of(cls, content: Tensor, positions: Tensor) -> ImageTokens:
        """Tokens (N or 1, k, d) with their positions (1, k, d)."""
        positions = positions.to(content.dtype)
        return cls(content, content + positions, positions)


def two_way(
    transformer: TwoWayTransformer, image: ImageTokens, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """What the transformer makes of the tokens of N prompts, and of the image for each of them.

    Parameters
    ----------
    image
        Stays as it is.
    tokens
        (N, n, d) float32.

    Returns
    -------
    tokens (N, n, d) float32, image (N, k, d)
    """
    queries = tokens
    shape = (len(tokens), *image.content.shape[1:])
    own = image.content.new_empty(shape), image.content.new_empty(shape)
    for layer in transformer.layers:
        queries = _told_tokens(layer, queries, tokens, image)
        image = _told_image(layer, queries + tokens, queries, image, own)
    final = transformer.final_attn_token_to_image
    queries = queries + _seen(final, queries + tokens, image)
    return transformer.norm_final_attn(queries), image.content


def predicted_quality(decoder: MaskDecoder, queries: Tensor) -> Tensor:
    """Predicted IoU (N, 4) of the masks, before any is formed."""
    predicted: Tensor = decoder.iou_prediction_head(queries[:, 0])
    return predicted


def form_masks(
    decoder: MaskDecoder, queries: Tensor, image: Tensor, size: tuple[int, int]
) -> Tensor:
    """Mask logits (4, 4 h, 4 w) of one prompt.

    Parameters
    ----------
    queries, image
        (n, d) and (k, d) of one prompt, as `two_way` returns them.
    size
        Height and width of the image in tokens.
    """
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(queries[1 + i]) for i, head in enumerate(heads)])  # (4, d / 8)
    weights = weights.to(image.dtype)
    first, norm, act, second, last_act = decoder.output_upscaling
    height, width = size
    logits = image.new_empty(len(weights), len(image), 16)
    for start in range(0, len(image), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        fine = _enlarged(image[part], first)  # 4 rows for a token: 2 x 2 cells
        fine = act(_normalised(fine, norm.weight, norm.bias, norm.eps))
        fine = last_act(_enlarged(fine, second))  # 16 rows for a token
        logits[:, part] = (weights @ fine.T).view(len(weights), -1, 16)
    cells = logits.view(-1, height, width, 2, 2, 2, 2)  # masks, y, x, and twice: row, column
    cells = cells.permute(0, 1, 3, 5, 2, 4, 6)
    return cells.reshape(-1, 4 * height, 4 * width).float()


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
    layer: TwoWayAttentionBlock,
    keys: Tensor,
    values: Tensor,
    image: ImageTokens,
    room: tuple[Tensor, Tensor],
) -> ImageTokens:
    """The last quarter: what each token of the image learns of the prompt's.

    No token of the image needs another, so it goes piece by piece into `room`, which may be where
    it comes from.
    """
    norm, attention = layer.norm4, layer.cross_attn_image_to_token
    told = _Told(attention, keys, values, image.content.dtype)
    for start in range(0, image.content.shape[1], AT_ONCE):
        part = (slice(None), slice(start, start + AT_ONCE))
        learned = told.added(image.content[part], image.placed[part])
        room[0][part] = _normalised(learned, norm.weight, norm.bias, norm.eps)
        torch.add(room[0][part], image.positions[part], out=room[1][part])
    return ImageTokens(*room, image.positions)


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
    content = image.content
    if not _can_reassociate(attention, queries.shape[1]):
        with _in(content.dtype, content.device):
            whole = (each.expand(len(queries), -1, -1) for each in (image.placed, content))
            placed, content = whole
            seen: Tensor = attention(q=queries, k=placed, v=content)
        return seen.float()
    count, heads = queries.shape[1], attention.num_heads
    query = _heads(attention.q_proj(queries), heads)
    query = query / math.sqrt(query.shape[-1])
    asked = query @ _by_head(_weight(attention.k_proj), heads)  # (N, heads, n, d)
    asked = asked.flatten(1, 2).to(content.dtype)
    weights = _product(asked, image.placed.mT).softmax(-1)  # (N, heads * n, k)
    found = _product(weights, content).float().view(-1, heads, count, content.shape[-1])
    value = found @ _by_head(_weight(attention.v_proj), heads).mT  # (N, heads, n, c)
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


def _product(rows: Tensor, image: Tensor) -> Tensor:
    """(N, r, a) @ (N or 1, a, b) -> (N, r, b), without repeating the image."""
    if len(image) == len(rows):
        return torch.bmm(rows, image)
    return (rows.flatten(0, 1) @ image[0]).view(*rows.shape[:2], -1)


def _enlarged(cells: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of 2 x 2 with stride 2, a row (c) per cell -> its 4 rows (c')."""
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1).to(cells.dtype)
    assert layer.bias is not None
    bias = layer.bias.repeat(4).to(cells.dtype)
    return torch.addmm(bias, cells, weight).view(4 * len(cells), -1)


def _normalised(tokens: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    width = tokens.shape[-1:]
    return functional.layer_norm(tokens, width, weight.to(tokens.dtype), bias.to(tokens.dtype), eps)


def _in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A stock module computes in that type."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
