"""The stock SAM networks behind the project's interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from segment_anything import sam_model_registry
from torch import Tensor, nn

from napari_simmat.model.network import Decoded, Encoded, Network
from napari_simmat.progress import Job, Progress, finish


class SamNetwork(Network):
    """`segment_anything` 1.0 unchanged, its encoder run block by block."""

    mask_stride = 4

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The table of positions."""
        if self.image_encoder.pos_embed is not None:
            yield self.image_encoder.pos_embed

    def encoding(self, image: Tensor) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024); the arithmetic is that of stock ``ImageEncoderViT``."""
        encoder = self.image_encoder
        tokens = encoder.patch_embed(image)  # (B, h, w, d)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for done, block in enumerate(encoder.blocks, start=1):
            tokens = self.through(block, tokens)
            yield Progress(done, len(encoder.blocks) + 1, "encoding")
        embedding = encoder.neck(tokens.permute(0, 3, 1, 2))
        height, width = image.shape[-2:]
        return Encoded(embedding, (height, width))

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
        sparse, dense = self.prompt_encoder(
            points=clicks, boxes=None if box is None else box[None], masks=mask
        )
        logits, quality = self.mask_decoder.predict_masks(
            image_embeddings=encoded.embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return Decoded(logits[0].float(), quality[0].float())

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
        # As `PromptEncoder._embed_points` and `_embed_boxes`, without changing tensors in place.
        position = prompts.pe_layer.forward_with_coords(points + 0.5, prompts.input_image_size)
        kinds = torch.stack([each.weight[0] for each in prompts.point_embeddings])
        sparse = torch.where(
            (labels == -1)[..., None],
            prompts.not_a_point_embed.weight[0],
            position + kinds[labels.clamp(min=0)],
        )
        images, count = len(encoded.embedding), len(sparse)
        if mask is None:
            nothing = prompts.no_mask_embed.weight[:, :, None, None]
            dense = nothing.expand(count, -1, *prompts.image_embedding_size)
        else:
            dense = prompts.mask_downscaling(mask)
        logits, quality = [], []
        for index in range(images):  # stock repeats one image for all its prompts
            own = slice(index * count // images, (index + 1) * count // images)
            answers = self.mask_decoder.predict_masks(
                image_embeddings=encoded.embedding[index : index + 1],
                image_pe=prompts.get_dense_pe(),
                sparse_prompt_embeddings=sparse[own],
                dense_prompt_embeddings=dense[own],
            )
            logits.append(answers[0].float())
            quality.append(answers[1].float())
        return torch.cat(logits), torch.cat(quality)


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
    network = SamNetwork(stock.image_encoder, stock.prompt_encoder, stock.mask_decoder)
    network.eval()
    return network
