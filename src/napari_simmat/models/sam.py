"""SAM behind the project's interface: stock numbers, computed with less work.

The image encoder is that of `sam_encoder`. The mask decoder is re-associated, without gradients
only: a cross-attention projects some thousand tokens of the image to meet a few tokens of the
prompt. But ``q (X Wk)^T = (q Wk^T) X^T``, so the few are projected instead, per head; the same
holds for values and for the way back. Biases that are equal for all keys drop out of the softmax.
What remains are products with the image's own tokens, without a copy of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from typing import NamedTuple

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.mobile_encoder import MobileEncoder
from napari_simmat.models.network import DecodedMasks, Encoded, Network, PromptTensors
from napari_simmat.models.peft_layers import AdaptedTwoWayBlock, LoRALinear
from napari_simmat.models.sam_encoder import ViTAttention, ViTBlock
from napari_simmat.progress import Job, Progress, finish

PROMPTS_AT_ONCE = 16
"""Prompts that a GPU decodes at once; a CPU's caches hold the image for one."""
TOKENS_AT_ONCE = 1024
"""Image tokens that a CPU processes at once, so that temporaries stay in its caches."""
TokenPieces = tuple[Tensor, ...]


def build_sam(variant: str, *, initialize: bool = True) -> SamNetwork:
    """One of SAM's networks, or MobileSAM's, with random weights.

    Parameters
    ----------
    variant
        ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``; ``"vit_t"`` for MobileSAM's.
    initialize
        ``False`` leaves the tensors on the meta device, to be assigned by ``load_state_dict``.
    """
    if variant == "vit_t":
        with nullcontext() if initialize else torch.device("meta"):
            # Prompt encoder and mask decoder are those of all variants.
            prompts = PromptEncoder(256, (64, 64), (1024, 1024), mask_in_chans=16)
            transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
            masks = MaskDecoder(transformer_dim=256, transformer=transformer)
            mobile = MobileSamNetwork(MobileEncoder(), prompts, masks)
        mobile.eval()
        return mobile
    with nullcontext() if initialize else torch.device("meta"):
        stock = sam_model_registry[variant]()
    blocks = stock.image_encoder.blocks
    for index, block in enumerate(blocks):
        blocks[index] = ViTBlock(block)
        blocks[index].attn = ViTAttention(block.attn)
    network = SamNetwork(stock.image_encoder, stock.prompt_encoder, stock.mask_decoder)
    network.eval()
    return network


class SamNetwork(Network):
    """`segment_anything` 1.0 with the same tensors under the same names.

    The encoder runs block by block. Without gradients the decoder is re-associated; with them it
    is the stock one.
    """

    mask_stride: float = 4

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The table of positions."""
        if self.image_encoder.pos_embed is not None:
            yield self.image_encoder.pos_embed

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024) as stock ``ImageEncoderViT``."""
        del averaged
        encoder = self.image_encoder
        tokens = encoder.patch_embed(image)  # (B, h, w, d)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for done, block in enumerate(encoder.blocks, start=1):
            tokens = self.run_block(block, tokens)
            yield Progress(done, len(encoder.blocks) + 1, "encoding")
        embedding: Tensor = tokens.permute(0, 3, 1, 2)
        for part in encoder.neck:
            embedding = part(embedding).float()
        height, width = image.shape[-2:]
        return Encoded(embedding, (height, width))

    def decode(self, encoded: Encoded, prompt: PromptTensors) -> DecodedMasks:
        """Decode one prompt as stock ``SamPredictor.predict_torch`` does, all four masks."""
        box, mask = prompt.get("box"), prompt.get("mask")
        clicks = (prompt["points"][None], prompt["labels"][None]) if "points" in prompt else None
        with full_precision(encoded.embedding.device):
            sparse, dense = self.prompt_encoder(
                points=clicks, boxes=None if box is None else box[None], masks=mask
            )
        logits, quality = self._decoded(encoded, sparse, None if mask is None else dense)
        return DecodedMasks(logits[0], quality[0])

    def decode_clicks(
        self,
        encoded: Encoded,
        clicks: Tensor,
        minimum: float = -math.inf,
        expected: ExpectedSize | None = None,
    ) -> list[DecodedMasks]:
        """Decode N single positive clicks (N, 2) x, y; see `Network.decode_clicks`.

        No size is heeded.
        """
        del expected
        with full_precision(clicks.device):
            kinds = torch.ones(len(clicks), 1, device=clicks.device)
            sparse, _ = self.prompt_encoder(points=(clicks[:, None], kinds), boxes=None, masks=None)
        return [DecodedMasks(*each) for each in self._decode_each(encoded, sparse, None, minimum)]

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, 1024, 1024) at once."""
        return finish(self.encode_job(image))

    def decode_batch(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts on B images; positions are fractions of the image, so `origin` is 0."""
        if any(origin):
            raise ValueError("SAM encodes positions in its whole input; a crop has no origin.")
        prompts = self.prompt_encoder
        sparse = embed_points(prompts, points, labels, prompts.input_image_size)
        with full_precision(points.device):
            dense = None if mask is None else prompts.mask_downscaling(mask)
        images = len(encoded.embedding)
        count = len(sparse)
        if images == 1:
            return self._decoded(encoded, sparse, dense)
        decoded = []
        for index in range(images):
            own = slice(index * count // images, (index + 1) * count // images)
            one = encoded.image(index)
            decoded.append(self._decoded(one, sparse[own], None if dense is None else dense[own]))
        logits, quality = zip(*decoded, strict=True)
        return torch.cat(logits), torch.cat(quality)

    def _decoded(
        self, encoded: Encoded, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 4, h, w) and predicted IoU (N, 4) of N prompts on one image.

        `sparse` and `dense` are from SAM's prompt encoder, with None instead of its "no mask".
        """
        if not torch.is_grad_enabled():
            logits, quality = zip(*self._decode_each(encoded, sparse, dense), strict=True)
            return torch.stack(logits), torch.stack(quality)
        prompts = self.prompt_encoder
        if dense is None:
            no_mask = prompts.no_mask_embed.weight[:, :, None, None]
            dense = no_mask.expand(len(sparse), -1, *prompts.image_embedding_size)
        masks, predicted = self.predict_with_gradients(encoded, sparse, dense)
        return masks.float(), predicted.float()

    def predict_with_gradients(
        self, encoded: Encoded, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and predicted IoU of N prompts on one image by the stock decoder."""
        masks, predicted = self.mask_decoder.predict_masks(
            image_embeddings=encoded.embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return masks, predicted

    def output_tokens(self) -> Tensor:
        """The decoder's own tokens, (5 or more, d): of the IoU, of the four masks, and others."""
        decoder = self.mask_decoder
        return torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])

    def finer_cells(self, encoded: Encoded, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """What is added to the upscaled embedding of an image at its two scales; None for nothing.

        Rows of (h * w * 4, d / 4) and (h * w * 16, d / 8) in the order of `form_masks`.
        """
        del encoded, dtype
        return None

    def settled(self, logits: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """The four masks of a prompt (4, h, w) and their IoUs, as they are answered."""
        return logits, quality

    def _decode_each(
        self,
        encoded: Encoded,
        sparse: Tensor,
        dense: Tensor | None,
        minimum: float = -math.inf,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and predicted IoU of each prompt; no logits if all IoUs are below `minimum`.

        The IoU is predicted without forming a mask, so it comes first.
        """
        device, decoder = sparse.device, self.mask_decoder
        dtype = product_type(device)
        size = encoded.embedding.shape[-2:]
        at_once = 1 if device.type == "cpu" else PROMPTS_AT_ONCE
        with full_precision(device):
            for start in range(0, len(sparse), at_once):
                some = slice(start, start + at_once)
                masks = None if dense is None else dense[some]
                queries, updated = self.attended(encoded, sparse[some], masks, dtype)
                for index, quality in enumerate(predict_iou(decoder, queries)):
                    if float(quality.max()) < minimum:
                        yield quality.new_empty(0, *(4 * side for side in size)), quality
                    else:
                        own = [piece[index] for piece in updated]
                        finer = self.finer_cells(encoded, dtype)
                        logits = form_masks(decoder, queries[index], own, (size[0], size[1]), finer)
                        yield self.settled(logits, quality)

    def attended(
        self, encoded: Encoded, sparse: Tensor, dense: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, TokenPieces]:
        """The outputs of `two_way` for prompts on one image, all at once, without gradients.

        `sparse` and `dense` are as for `_decoded`; products are computed in `dtype`.
        """
        if dense is None:
            image = self._image(encoded, dtype)
        else:
            masked = (encoded.tokens + dense.flatten(2).mT).to(dtype)
            image = ImageTokens.of(masked, self._positions())
        tokens = self.output_tokens().expand(len(sparse), -1, -1)
        return two_way(self.mask_decoder.transformer, image, torch.cat([tokens, sparse], dim=1))

    def _image(self, encoded: Encoded, dtype: torch.dtype) -> ImageTokens:
        """The image's tokens for prompts without a mask; computed once for an image."""
        no_mask = self.prompt_encoder.no_mask_embed.weight
        positions = self._positions()
        # In-place changes of a parameter, as by an optimizer, raise its version.
        key = no_mask, no_mask._version, positions, dtype
        if key not in encoded.cache:
            content = (encoded.tokens + no_mask).to(dtype)
            encoded.cache[key] = ImageTokens.of(content, positions)
        image: ImageTokens = encoded.cache[key]
        return image

    def _positions(self) -> Tensor:
        """Positions of the embedding's cells, as tokens (1, h * w, C); the same for all images."""
        matrix = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        cached: tuple[Tensor, int, Tensor] | None = getattr(self, "_cached_positions", None)
        if cached is None or cached[0] is not matrix or cached[1] != matrix._version:
            positions = self.prompt_encoder.get_dense_pe().flatten(2).mT.contiguous()
            cached = self._cached_positions = (matrix, matrix._version, positions)
        return cached[2]


class MobileSamNetwork(SamNetwork):
    """MobileSAM: SAM with a small image encoder (arXiv 2306.14289), under the official names."""

    slot = "image_encoder.patch_embed.seq.0.c"

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The biases for the distances between tokens."""
        for stage in self.image_encoder.stages[1:]:
            yield from (block.attn.attention_biases for block in stage.blocks)

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024)."""
        del averaged
        encoder = self.image_encoder
        steps = [encoder.patch_embed, *encoder.steps()]
        tokens = image
        for done, step in enumerate(steps, start=1):
            tokens = self.run_block(step, tokens)
            yield Progress(done, len(steps) + 1, "encoding")
        embedding = encoder.neck(tokens.permute(0, 3, 1, 2)).float()
        height, width = image.shape[-2:]
        return Encoded(embedding, (height, width))


def embed_points(
    prompts: PromptEncoder, points: Tensor, labels: Tensor, size: tuple[float, float]
) -> Tensor:
    """Embed points (N, K, 2) as x, y with labels (N, K): 1, 0, 2/3 box corners, -1 padding.

    Positions are in units of `size`, height and width. The numbers are those of
    `PromptEncoder._embed_points` and `_embed_boxes`, but nothing changes in place.
    """
    with full_precision(points.device):
        position = prompts.pe_layer.forward_with_coords(points + 0.5, size)
        kinds = torch.stack([each.weight[0] for each in prompts.point_embeddings])
        embedded = position + kinds[labels.clamp(min=0)]
        padding = prompts.not_a_point_embed.weight[0]
        return torch.where((labels == -1)[..., None], padding, embedded)


def full_precision(device: torch.device) -> torch.autocast:
    """Half precision is too coarse for positions in pixels, and saves nothing on a few tokens."""
    return torch.autocast(device.type, enabled=False)


def product_type(device: torch.device) -> torch.dtype:
    """The type in which products are computed on a device: that of autocast, where it is on."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32


class ImageTokens(NamedTuple):
    """The k tokens of an image, one set for each of N prompts or one for all.

    On a CPU they are in pieces of `TOKENS_AT_ONCE` tokens, on a GPU in one. Their type is that in
    which products are computed.

    Attributes
    ----------
    content
        Pieces (N or 1, p, d).
    placed
        The same plus `positions`.
    positions
        Positional encodings, pieces (1, p, d).
    """

    content: TokenPieces
    placed: TokenPieces
    positions: TokenPieces

    @classmethod
    def of(cls, content: Tensor, positions: Tensor) -> ImageTokens:
        """Tokens (N or 1, k, d) with their positions (1, k, d)."""
        length = TOKENS_AT_ONCE if content.device.type == "cpu" else content.shape[1]
        positions = positions.to(content.dtype)
        return cls(
            _pieces(content, length),
            _pieces(content + positions, length),
            _pieces(positions, length),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type in which products are computed."""
        return self.content[0].dtype


def two_way(
    transformer: TwoWayTransformer, image: ImageTokens, tokens: Tensor
) -> tuple[Tensor, TokenPieces]:
    """The transformer's output for N prompts' tokens (N, n, d) float32; `image` is not changed.

    Returns
    -------
    tokens (N, n, d) float32, image in pieces (N, p, d)
    """
    queries = tokens
    for layer in transformer.layers:
        queries = _update_tokens(layer, queries, tokens, image)
        image = _update_image(layer, queries + tokens, queries, image)
    final = transformer.final_attn_token_to_image
    queries = queries + _attend_to_image(final, queries + tokens, image)
    return transformer.norm_final_attn(queries), image.content


def predict_iou(decoder: MaskDecoder, queries: Tensor) -> Tensor:
    """Predicted IoU (N, 4) of the masks, before any is formed."""
    predicted: Tensor = decoder.iou_prediction_head(queries[:, 0])
    return predicted


def form_masks(
    decoder: MaskDecoder,
    queries: Tensor,
    image: Sequence[Tensor],
    size: tuple[int, int],
    finer: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mask logits (4, 4 h, 4 w) of one prompt, from its outputs of `two_way`.

    These are queries (n, d) and pieces (p, d); `size` is height and width of the image in tokens,
    `finer` is what `SamNetwork.finer_cells` gives.
    """
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(queries[1 + i]) for i, head in enumerate(heads)])  # (4, d / 8)
    weights = weights.to(image[0].dtype)
    to_half, norm, act, to_quarter, last_act = decoder.output_upscaling
    first, second = _Enlarging.of(to_half, weights.dtype), _Enlarging.of(to_quarter, weights.dtype)
    parts = []
    start = 0
    for piece in image:
        end = start + len(piece)
        fine = first.enlarged(piece)  # 4 rows for a token: 2 x 2 cells
        if finer is not None:
            fine += finer[0][4 * start : 4 * end]
        fine = act(_normalized(fine, norm.weight, norm.bias, norm.eps))
        fine = second.enlarged(fine)  # 16 rows for a token
        if finer is not None:
            fine += finer[1][16 * start : 16 * end]
        parts.append(weights @ last_act(fine).T)
        start = end
    height, width = size
    # Masks, y, x, and twice: row and column within the cell.
    cells = torch.cat(parts, dim=1).view(len(weights), height, width, 2, 2, 2, 2)
    logits = queries.new_empty(len(weights), height, 2, 2, width, 2, 2)
    for row, column, finer_row, finer_column in product(range(2), repeat=4):  # few long copies
        logits[:, :, row, finer_row, :, column, finer_column] = cells[
            ..., row, column, finer_row, finer_column
        ]
    return logits.view(-1, 4 * height, 4 * width)


def _update_tokens(
    layer: TwoWayAttentionBlock, queries: Tensor, tokens: Tensor, image: ImageTokens
) -> Tensor:
    """The first three parts of a layer: the tokens attend to each other and to the image."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        own = queries + tokens
        queries = queries + layer.self_attn(q=own, k=own, v=queries)
    queries = layer.norm1(queries)
    queries = queries + _attend_to_image(layer.cross_attn_token_to_image, queries + tokens, image)
    adapted = layer.adapter(queries) if isinstance(layer, AdaptedTwoWayBlock) else 0
    queries = layer.norm2(queries)
    updated: Tensor = layer.norm3(queries + layer.mlp(queries) + adapted)
    return updated


def _update_image(
    layer: TwoWayAttentionBlock, keys: Tensor, values: Tensor, image: ImageTokens
) -> ImageTokens:
    """The last part: the image's tokens attend to the prompt's, piece by piece."""
    norm, attention = layer.norm4, layer.cross_attn_image_to_token
    update = _ImageUpdate(attention, keys, values, image.dtype)
    contents, placed = [], []
    for old, old_placed, positions in zip(*image, strict=True):
        updated = update.added(old, old_placed)
        contents.append(_normalized(updated, norm.weight, norm.bias, norm.eps))
        placed.append(contents[-1] + positions)
    return ImageTokens(tuple(contents), tuple(placed), image.positions)


class _ImageUpdate:
    """An attention from the image to N prompts' tokens (N, n, d), applied piece by piece."""

    def __init__(
        self, attention: Attention, keys: Tensor, values: Tensor, dtype: torch.dtype
    ) -> None:
        self._stock = attention, keys, values
        self._reassociated = _can_reassociate(attention, keys.shape[1])
        if not self._reassociated:
            return
        count = keys.shape[1]
        heads = attention.num_heads
        self._split = heads, count
        key = _heads(attention.k_proj(keys), heads)
        key = key / math.sqrt(key.shape[-1])  # (N, heads, n, c)
        bias = attention.q_proj.bias.view(heads, 1, -1)
        rows = key @ _by_head(_weight(attention.q_proj), heads)
        self._query_rows = rows.flatten(1, 2).to(dtype)  # (N, heads * n, d)
        self._constant = (key * bias).sum(-1, keepdim=True).flatten(1, 2).to(dtype)
        value = _heads(attention.v_proj(values), heads)
        rows = value @ _by_head(_weight(attention.out_proj).T, heads)
        # The weights of each head sum to one, so each head contributes its share of the bias.
        rows = rows + attention.out_proj.bias / heads
        self._value_rows = rows.flatten(1, 2).to(dtype)

    def added(self, content: Tensor, placed: Tensor) -> Tensor:
        """Image tokens (N or 1, p, d) plus their update, (N, p, d)."""
        if not self._reassociated:
            attention, keys, values = self._stock
            with _autocast(content.dtype, content.device):
                update: Tensor = attention(q=placed.expand(len(keys), -1, -1), k=keys, v=values)
            return content + update.to(content.dtype)
        logits = _product(self._query_rows, placed.mT) + self._constant  # (N, heads * n, p)
        weights = logits.view(-1, *self._split, logits.shape[-1]).softmax(2).flatten(1, 2)
        return torch.baddbmm(content, weights.mT, self._value_rows)


def _attend_to_image(attention: Attention, queries: Tensor, image: ImageTokens) -> Tensor:
    """The output of an attention from tokens (N, n, d) to the image, (N, n, d) float32."""
    if not _can_reassociate(attention, queries.shape[1]):
        placed, content = (
            torch.cat(each, dim=1).expand(len(queries), -1, -1)
            for each in (image.placed, image.content)
        )
        with _autocast(content.dtype, content.device):
            attended: Tensor = attention(q=queries, k=placed, v=content)
        return attended.float()
    heads = attention.num_heads
    query = _heads(attention.q_proj(queries), heads)
    query = query / math.sqrt(query.shape[-1])
    rows = query @ _by_head(_weight(attention.k_proj), heads)  # (N, heads, n, d)
    rows = rows.flatten(1, 2).to(image.dtype)
    logits = torch.cat([_product(rows, piece.mT) for piece in image.placed], dim=-1)
    weights = logits.softmax(-1)  # (N, heads * n, k)
    shares = torch.split(weights, [piece.shape[1] for piece in image.content], dim=-1)
    sums = queries.new_zeros(*rows.shape)
    for share, piece in zip(shares, image.content, strict=True):
        sums += _product(share, piece)
    sums = sums.view(*query.shape[:3], -1)
    value = sums @ _by_head(_weight(attention.v_proj), heads).mT  # (N, heads, n, c)
    value = value + attention.v_proj.bias.view(heads, 1, -1)
    output: Tensor = attention.out_proj(value.transpose(1, 2).flatten(2))
    return output


def _can_reassociate(attention: Attention, count: int) -> bool:
    """Whether re-association is exact, and cheaper for `count` tokens than projecting the image."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    plain = type(attention) is Attention and all(
        type(each) in (nn.Linear, LoRALinear) for each in projections
    )
    return plain and count * attention.num_heads <= attention.internal_dim


def _weight(projection: nn.Linear) -> Tensor:
    """The weight (d_out, d_in) of a projection, including low-rank updates."""
    if isinstance(projection, LoRALinear):
        return projection.effective_weight()
    return projection.weight


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """(N, n, heads * c) -> (N, heads, n, c)."""
    count, length, width = tokens.shape
    return tokens.view(count, length, heads, width // heads).transpose(1, 2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """The weight of a projection to or from the heads, (heads * c, d) -> (heads, c, d)."""
    return weight.reshape(heads, -1, weight.shape[-1])


def _pieces(tokens: Tensor, length: int) -> TokenPieces:
    """Split (N, k, d) into pieces of `length` tokens, each in its own memory.

    A view would count as contiguous for N = 1, but has the stride of the whole: products copy it.
    """
    pieces = torch.split(tokens, length, dim=1)
    if len(pieces) == 1:
        return pieces
    return tuple(piece.clone(memory_format=torch.contiguous_format) for piece in pieces)


def _product(rows: Tensor, image: Tensor) -> Tensor:
    """(N, r, a) @ (N or 1, a, b) -> (N, r, b), without repeating the image."""
    if len(image) == len(rows):
        return torch.bmm(rows, image)
    return (rows.flatten(0, 1) @ image[0]).view(*rows.shape[:2], -1)


class _Enlarging(NamedTuple):
    """A 2 x 2 transposed convolution of stride 2 as a matrix product: (c, 4 c') and (4 c',)."""

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


def _normalized(tokens: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    width = tokens.shape[-1:]
    return functional.layer_norm(tokens, width, weight.to(tokens.dtype), bias.to(tokens.dtype), eps)


def _autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Context in which a stock module computes in that type."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
