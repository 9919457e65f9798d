"""SAM's networks behind the project's interface: stock numbers, computed with less work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from segment_anything import sam_model_registry
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from napari_simmat.model.network import Decoded, Encoded, Network, Placed
from napari_simmat.model.two_way import ImageTokens, form_masks, predicted_quality, two_way
from napari_simmat.model.vit import ViTAttention, ViTBlock
from napari_simmat.progress import Job, Progress, finish

AT_ONCE = 16
"""Prompts that a GPU decodes at once; a processor's cache holds the image for one."""


class SamNetwork(Network):
    """`segment_anything` 1.0 with the same tensors under the same names.

    The encoder runs block by block (`vit.py`). Without gradients the decoder is re-associated
    (`two_way.py`); with them it is the stock one.
    """

    mask_stride = 4
    glimpses = True

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The table of positions."""
        if self.image_encoder.pos_embed is not None:
            yield self.image_encoder.pos_embed

    def encoding(self, image: Tensor) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024); the arithmetic is that of stock ``ImageEncoderViT``."""
        embedding = yield from self._encoding(image, self.image_encoder.pos_embed)
        height, width = image.shape[-2:]
        return Encoded(embedding, (height, width))

    def glimpsing(self, image: Tensor) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024) at half its resolution: a quarter of the tokens.

        The tables of positions are interpolated, as SAM does for other sizes, and the embedding is
        enlarged to its usual size.
        """
        positions = self.image_encoder.pos_embed
        if positions is not None:
            turned = positions.permute(0, 3, 1, 2)
            half = interpolate(turned, scale_factor=0.5, mode="bilinear", align_corners=False)
            positions = half.permute(0, 2, 3, 1)
        coarse = yield from self._encoding(avg_pool2d(image, 2), positions)
        size = self.prompt_encoder.image_embedding_size
        height, width = image.shape[-2:]
        embedding = interpolate(coarse, size, mode="bilinear", align_corners=False)
        return Encoded(embedding, (height, width))

    def _encoding(self, image: Tensor, positions: Tensor | None) -> Job[Tensor]:
        encoder = self.image_encoder
        tokens = encoder.patch_embed(image)  # (B, h, w, d)
        if positions is not None:
            tokens = tokens + positions
        for done, block in enumerate(encoder.blocks, start=1):
            tokens = self.through(block, tokens)
            yield Progress(done, len(encoder.blocks) + 1, "encoding")
        embedding: Tensor = tokens.permute(0, 3, 1, 2)
        for part in encoder.neck:
            embedding = part(embedding).float()
        return embedding

    def decode(
        self,
        encoded: Encoded,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        box: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Decoded:
        """Decode one prompt as stock ``SamPredictor.predict_torch`` does, all four masks."""
        clicks = None if points is None or labels is None else (points[None], labels[None])
        with _exactly(encoded.embedding.device):
            sparse, dense = self.prompt_encoder(
                points=clicks, boxes=None if box is None else box[None], masks=mask
            )
        logits, quality = self._decoded(encoded, sparse, None if mask is None else dense)
        return Decoded(logits[0], quality[0])

    def decode_clicks(
        self, encoded: Encoded, clicks: Tensor, least: float = -math.inf
    ) -> list[Placed]:
        """Decode N lone positive clicks (N, 2) x, y; see `Network.decode_clicks`."""
        with _exactly(clicks.device):
            kinds = torch.ones(len(clicks), 1, device=clicks.device)
            sparse, _ = self.prompt_encoder(points=(clicks[:, None], kinds), boxes=None, masks=None)
        return [Placed(*each) for each in self._deciding(encoded, sparse, None, least)]

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, 1024, 1024) at once."""
        return finish(self.encoding(image))

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
        with _exactly(points.device):
            # As `PromptEncoder._embed_points` and `_embed_boxes`, but nothing changes in place.
            position = prompts.pe_layer.forward_with_coords(points + 0.5, prompts.input_image_size)
            kinds = torch.stack([each.weight[0] for each in prompts.point_embeddings])
            sparse = torch.where(
                (labels == -1)[..., None],
                prompts.not_a_point_embed.weight[0],
                position + kinds[labels.clamp(min=0)],
            )
            dense = None if mask is None else prompts.mask_downscaling(mask)
        images, count = len(encoded.embedding), len(sparse)
        if images == 1:
            return self._decoded(encoded, sparse, dense)
        answers = []
        for index in range(images):
            own = slice(index * count // images, (index + 1) * count // images)
            one = Encoded(encoded.embedding[index : index + 1], encoded.input_size)
            answers.append(self._decoded(one, sparse[own], None if dense is None else dense[own]))
        logits, quality = zip(*answers, strict=True)
        return torch.cat(logits), torch.cat(quality)

    def _decoded(
        self, encoded: Encoded, sparse: Tensor, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 4, h, w) and qualities (N, 4) of N prompts on one image.

        Parameters
        ----------
        sparse, dense
            As SAM's prompt encoder gives them; None instead of its "no mask".
        """
        if not torch.is_grad_enabled():
            answers = list(self._deciding(encoded, sparse, dense))
            logits, quality = zip(*answers, strict=True)
            return torch.stack(logits), torch.stack(quality)
        prompts = self.prompt_encoder
        if dense is None:
            nothing = prompts.no_mask_embed.weight[:, :, None, None]
            dense = nothing.expand(len(sparse), -1, *prompts.image_embedding_size)
        masks, predicted = self.mask_decoder.predict_masks(
            image_embeddings=encoded.embedding,
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return masks.float(), predicted.float()

    def _deciding(
        self,
        encoded: Encoded,
        sparse: Tensor,
        dense: Tensor | None,
        least: float = -math.inf,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and quality of each prompt, a few at once; no logits where all are below `least`.

        The estimates of quality need no mask, so they come first.
        """
        device, decoder = sparse.device, self.mask_decoder
        dtype = torch.float32
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        size = encoded.embedding.shape[-2:]
        at_once = 1 if device.type == "cpu" else AT_ONCE
        with _exactly(device):
            for start in range(0, len(sparse), at_once):
                some = slice(start, start + at_once)
                if dense is None:
                    image = self._image(encoded, dtype)
                else:
                    masked = (encoded.tokens + dense[some].flatten(2).mT).to(dtype)
                    image = ImageTokens.of(masked, self._positions())
                tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
                tokens = tokens.expand(len(sparse[some]), -1, -1)
                tokens = torch.cat([tokens, sparse[some]], dim=1)
                queries, seen = two_way(decoder.transformer, image, tokens)
                for index, quality in enumerate(predicted_quality(decoder, queries)):
                    if float(quality.max()) < least:
                        yield quality.new_empty(0, *(4 * side for side in size)), quality
                    else:
                        own = [piece[index] for piece in seen]
                        yield form_masks(decoder, queries[index], own, (size[0], size[1])), quality

    def _image(self, encoded: Encoded, dtype: torch.dtype) -> ImageTokens:
        """The image's tokens for prompts without a mask; made once for an image."""
        nothing = self.prompt_encoder.no_mask_embed.weight  # instead of a mask
        positions = self._positions()
        made_of = nothing, nothing._version, positions, dtype
        if made_of not in encoded.kept:
            content = (encoded.tokens + nothing).to(dtype)
            encoded.kept[made_of] = ImageTokens.of(content, positions)
        image: ImageTokens = encoded.kept[made_of]
        return image

    def _positions(self) -> Tensor:
        """Where the embedding's cells lie, as tokens (1, h * w, C); they depend on no image."""
        matrix = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        known: tuple[Tensor, int, Tensor] | None = getattr(self, "_known_positions", None)
        if known is None or known[0] is not matrix or known[1] != matrix._version:
            positions = self.prompt_encoder.get_dense_pe().flatten(2).mT.contiguous()
            known = self._known_positions = (matrix, matrix._version, positions)
        return known[2]


def _exactly(device: torch.device) -> torch.autocast:
    """Positions in pixels and few tokens are not for half precision."""
    return torch.autocast(device.type, enabled=False)


def build_sam(variant: str, *, initialize: bool = True) -> SamNetwork:
    """One of SAM's networks with random weights.

    Parameters
    ----------
    variant
        ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
    initialize
        ``False`` leaves the tensors on the meta device, to be assigned by ``load_state_dict``.
    """
    with nullcontext() if initialize else torch.device("meta"):
        stock = sam_model_registry[variant]()
    blocks = stock.image_encoder.blocks
    for index, block in enumerate(blocks):
        blocks[index] = ViTBlock(block)
        blocks[index].attn = ViTAttention(block.attn)
    network = SamNetwork(stock.image_encoder, stock.prompt_encoder, stock.mask_decoder)
    network.eval()
    return network
