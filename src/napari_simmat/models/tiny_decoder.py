"""What `tiny` adds around SAM's prompt encoder and mask decoder.

Skips from strides 4 and 2 into the up-scaling (as SAM 2, arXiv 2408.00714, and HQ-SAM, arXiv
2306.01567), and a dense prior as mask prompt (`dense_prior.prompt_prior`), which is also added to
the mask logits. Positions are in pixels, so any input size works.

Without gradients the decoder runs in two steps: `TinyMaskDecoder.attend` predicts the IoU of the
four masks, `form` forms them. The first is a third of the work, and all that most of many clicks
decoded together need.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import ImageTokens, predict_iou, two_way

STRIDE = 8
"""Pixels per cell of the image embedding."""
POSITION_UNIT = 256.0
"""Unit of positions in pixels: the length that SAM's encoding maps to 0..1."""


class TinyPromptEncoder(PromptEncoder):
    """SAM's prompt encoder with positions in pixels instead of fractions of a fixed image."""

    def grid(self, height: int, width: int, origin: tuple[float, float] = (0, 0)) -> Tensor:
        """Positions of an embedding's cells, (1, C, height, width); `origin` is y, x in pixels."""
        device = self.pe_layer.positional_encoding_gaussian_matrix.device
        y = ((torch.arange(height, device=device) + 0.5) * STRIDE + origin[0]) / POSITION_UNIT
        x = ((torch.arange(width, device=device) + 0.5) * STRIDE + origin[1]) / POSITION_UNIT
        yx = torch.meshgrid(y, x, indexing="ij")
        with torch.autocast(device.type, enabled=False):
            encoded: Tensor = self.pe_layer._pe_encoding(torch.stack(yx[::-1], dim=-1))
        return encoded.permute(2, 0, 1)[None]


class AttendedPrompts(NamedTuple):
    """N prompts after the transformer, before their masks are formed.

    Attributes
    ----------
    queries
        Outputs of the prompts' tokens, (N, n, d).
    source
        Outputs of the image's tokens, (N, h * w, d).
    prior
        The first guess, (N, 1, 4 h, 4 w) logits.
    predicted_iou
        (N, 4) float32.
    """

    queries: Tensor
    source: Tensor
    prior: Tensor
    predicted_iou: Tensor

    def part(self, prompts: slice) -> AttendedPrompts:
        """Some of the prompts."""
        return AttendedPrompts(*(each[prompts] for each in self))


class TinyMaskDecoder(MaskDecoder):
    """SAM's mask decoder with high-resolution skips and the dense prior added to its logits."""

    def __init__(self, width: int) -> None:
        super().__init__(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=8, mlp_dim=512),
            iou_head_hidden_dim=width,
        )
        self.skip4 = nn.Conv2d(width // 2, width // 4, 1)
        self.skip2 = nn.Conv2d(width // 4, width // 8, 1)
        self.prior_gain = nn.Parameter(torch.tensor([1.0, 0.5, 0.5, 0.5]))

    def masks(
        self, encoded: Encoded, positions: Tensor, sparse: Tensor, dense: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 4, H/2, W/2) and predicted IoU (N, 4) of N prompts on B images, N / B each."""
        each = len(sparse) // len(encoded.embedding)
        if torch.is_grad_enabled():
            image = encoded.embedding.repeat_interleave(each, 0) + dense
            placed = positions.expand(len(image), -1, -1, -1)
            queries, source = self.transformer(image, placed, self._tokens(sparse))
        else:
            queries, source, _, _ = self.attend(encoded, positions, sparse, dense, prior)
        height, width = encoded.embedding.shape[-2:]
        grid = source.transpose(1, 2).reshape(len(source), -1, height, width)

        to4, norm, act4, to2, act2 = self.output_upscaling
        grid = to4(grid)
        grid = grid + encoded.maps["skip4"].repeat_interleave(each, 0)
        grid = to2(act4(norm(grid)))
        grid = act2(grid + encoded.maps["skip2"].repeat_interleave(each, 0))
        weights = self._weights(queries)
        logits = (weights @ grid.flatten(2)).reshape(len(source), -1, *grid.shape[-2:]).float()
        logits = logits + self.prior_gain[:, None, None] * prior
        return logits, self.iou_prediction_head(queries[:, 0]).float()

    def attend(
        self, encoded: Encoded, positions: Tensor, sparse: Tensor, dense: Tensor, prior: Tensor
    ) -> AttendedPrompts:
        """Everything but the masks, with less work than SAM's own modules; without gradients."""
        each = len(sparse) // len(encoded.embedding)
        source = (encoded.embedding.repeat_interleave(each, 0) + dense).flatten(2).mT.contiguous()
        with torch.autocast(source.device.type, enabled=False):
            image = ImageTokens.of(source, positions.flatten(2).mT)
            queries, pieces = two_way(self.transformer, image, self._tokens(sparse))
            quality = predict_iou(self, queries).float()
        source = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
        return AttendedPrompts(queries, source, prior, quality)

    def form(self, attended: AttendedPrompts, encoded: Encoded) -> Tensor:
        """The masks of N prompts on one image, logits (N, 4, H/2, W/2), as `masks` up to rounding.

        Transposed convolutions as products with the image's tokens, each followed by one pass that
        adds the skip and puts the rows in the order of the grid.
        """
        count, cells, width = attended.source.shape
        height8, width8 = encoded.embedding.shape[-2:]
        to4, norm, act4, to2, act2 = self.output_upscaling
        finer = attended.source.view(count * cells, width)
        size = (height8, width8)
        for enlarging, name in ((to4, "skip4"), (to2, "skip2")):
            skip = encoded.maps[name][0].permute(1, 2, 0)  # (y, x, c)
            finer = _enlarged(finer, size, enlarging, skip)
            size = (2 * size[0], 2 * size[1])
            if enlarging is to4:
                finer = layer_norm(finer, finer.shape[-1:], norm.weight, norm.bias, norm.eps)
                finer = act4(finer)
        finer = act2(finer).view(count, size[0] * size[1], -1)
        logits = torch.bmm(self._weights(attended.queries), finer.mT).view(count, -1, *size)
        return logits.addcmul_(self.prior_gain[:, None, None], attended.prior)

    def _tokens(self, sparse: Tensor) -> Tensor:
        """The decoder's own tokens and those of N prompts, (N, n, d)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        return torch.cat([own[None].expand(len(sparse), -1, -1), sparse], dim=1)

    def _weights(self, queries: Tensor) -> Tensor:
        """Weights of the upscaled features in each mask, (N, 4, d / 8)."""
        heads = self.output_hypernetworks_mlps
        return torch.stack([mlp(queries[:, 1 + i]) for i, mlp in enumerate(heads)], dim=1)


def _enlarged(
    cells: Tensor, size: tuple[int, int], layer: nn.ConvTranspose2d, skip: Tensor
) -> Tensor:
    """A 2 x 2 transposed convolution of stride 2, plus `skip`.

    Cells (N * h * w, c) of a grid of `size`, with `skip` (2 h, 2 w, c') -> (N * 4 * h * w, c').
    """
    height, width = size
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)  # (c, 2 * 2 * c')
    assert layer.bias is not None
    parts = torch.addmm(layer.bias.repeat(4), cells, weight)
    parts = parts.view(-1, height, width, 2, 2, skip.shape[-1]).permute(0, 1, 3, 2, 4, 5)
    grid = parts.new_empty(parts.shape)
    torch.add(parts, skip.view(height, 2, width, 2, -1), out=grid)
    return grid.view(-1, skip.shape[-1])
