"""SAM 2 behind the project's interface: one image's embedding and masks, and a stack's memory.

Source: arXiv 2408.00714, https://github.com/facebookresearch/sam2 (``SAM2Base``,
``SAM2ImagePredictor``). Encoder and memory are built by `transformers`. Prompt encoder and mask
decoder are SAM's with a few more tensors, so they are `segment_anything`'s, as `models.sam`
computes them: strategies that tune SAM's decoder tune this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from napari_simmat.models import hiera_encoder
from napari_simmat.models.hiera_encoder import EMBEDDING, HieraEncoder, build_video_model
from napari_simmat.models.network import DecodedMasks, Encoded, PromptTensors
from napari_simmat.models.sam import (
    SamNetwork,
    embed_points,
    form_masks,
    full_precision,
    predict_iou,
    product_type,
)
from napari_simmat.models.sam2_memory import (
    ABSENT_LOGIT,
    Memories,
    ObjectMemory,
    Sam2Memory,
    full_mask,
    on_mask_grid,
)
from napari_simmat.progress import Job, Progress, finish

STABILITY_MARGIN = 0.05
"""Logits around 0 between which a mask's area must hardly change."""
PRESENCE = 5
"""Place of the token of the object's presence among the decoder's."""
STABLE = 0.98
"""Least ratio of the two areas of a stable mask."""


def build_sam2(architecture: str, *, initialize: bool = True) -> Sam2Network:
    """SAM 2.1 with random weights; `initialize` as in `models.sam.build_sam`.

    Raises ValueError if `transformers` is not installed.
    """
    with nullcontext() if initialize else torch.device("meta"):
        whole = build_video_model(architecture)
        prompts, masks = build_prompts_and_masks()
    encoder = HieraEncoder(whole.vision_encoder)
    network = Sam2Network(encoder, prompts, masks, Sam2Memory(whole))
    network.eval()
    return network


def build_prompts_and_masks() -> tuple[PromptEncoder, Sam2MaskDecoder]:
    """The prompt encoder and the mask decoder with random weights, on torch's default device."""
    side = hiera_encoder.SIDE
    prompts = PromptEncoder(EMBEDDING, (side // 16, side // 16), (side, side), 16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING, mlp_dim=2048, num_heads=8)
    return prompts, Sam2MaskDecoder(transformer)


class Sam2MaskDecoder(MaskDecoder):
    """SAM's mask decoder, with finer features of the image and a score of the object's presence."""

    def __init__(self, transformer: TwoWayTransformer) -> None:
        super().__init__(transformer_dim=EMBEDDING, transformer=transformer)
        self.iou_prediction_head = MLP(
            EMBEDDING, EMBEDDING, self.num_mask_tokens, 3, sigmoid_output=True
        )
        self.obj_score_token = nn.Embedding(1, EMBEDDING)
        self.pred_obj_score_head = MLP(EMBEDDING, EMBEDDING, 1, 3)
        self.conv_s0 = nn.Conv2d(EMBEDDING, EMBEDDING // 8, 1)
        self.conv_s1 = nn.Conv2d(EMBEDDING, EMBEDDING // 4, 1)

    @property
    def output_tokens(self) -> Tensor:
        """Tokens of IoU, masks and presence, (6, d).

        Meta's code begins with the presence; attention heeds no order, and here the others keep
        their places in SAM.
        """
        tokens = self.iou_token.weight, self.mask_tokens.weight, self.obj_score_token.weight
        return torch.cat(tokens)

    def predict_all(
        self, encoded: Encoded, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As stock ``predict_masks`` for N prompts on one image; gradients flow.

        `positions` are SAM's, (1, d, h, w); `sparse` and `dense` are from the prompt encoder.
        """
        count = len(sparse)
        tokens = torch.cat([self.output_tokens.expand(count, -1, -1), sparse], dim=1)
        image = encoded.embedding.expand(count, -1, -1, -1) + dense
        queries, keys = self.transformer(image, positions.expand(count, -1, -1, -1), tokens)
        to_half, norm, act, to_quarter, last_act = self.output_upscaling
        grid = keys.transpose(1, 2).view_as(image)
        grid = act(norm(to_half(grid) + encoded.maps["s1"]))
        grid = last_act(to_quarter(grid) + encoded.maps["s0"])
        heads = self.output_hypernetworks_mlps
        weights = torch.stack([head(queries[:, 1 + i]) for i, head in enumerate(heads)], dim=1)
        masks = (weights @ grid.flatten(2)).unflatten(2, grid.shape[-2:])
        return masks, self.iou_prediction_head(queries[:, 0])


class Sam2ImageNetwork(SamNetwork):
    """SAM 2's prompts and masks on single images, behind an encoder with a pyramid of features."""

    mask_decoder: Sam2MaskDecoder

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: Sam2MaskDecoder,
    ) -> None:
        super().__init__(image_encoder, prompt_encoder, mask_decoder)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, EMBEDDING))

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """None."""
        yield from ()

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode (B, C, 1024, 1024); maps: the decoder's ``s0`` and ``s1``."""
        del averaged
        return self.with_decoder_maps((yield from self._features_job(image)))

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, 1024, 1024); maps: ``fine`` and ``middle`` as the decoder's are trained."""
        features = finish(self._features_job(image))
        trained = self.mask_decoder.conv_s0.weight.requires_grad
        return features if trained else self.with_decoder_maps(features)

    def with_decoder_maps(self, features: Encoded) -> Encoded:
        """The maps ``fine`` and ``middle`` replaced by the decoder's ``s0`` and ``s1``."""
        if "s0" in features.maps:
            return features
        decoder, maps = self.mask_decoder, features.maps
        projected = {"s0": decoder.conv_s0(maps["fine"]), "s1": decoder.conv_s1(maps["middle"])}
        return replace(features, maps={name: each.float() for name, each in projected.items()})

    def _features_job(self, image: Tensor) -> Job[Encoded]:
        """The embedding, and maps ``fine`` and ``middle``, of (B, C, H, W)."""
        raise NotImplementedError

    def single_image(self, pyramid: tuple[Tensor, Tensor, Tensor], image: Tensor) -> Encoded:
        """What an encoder's maps at strides 4, 8 and 16 say of an image without a memory."""
        fine, middle, coarse = pyramid
        embedding = (coarse + self.no_mem_embed[0, :, :, None, None]).float()
        height, width = image.shape[-2:]
        return Encoded(embedding, (height, width), {"fine": fine, "middle": middle})

    def decode(self, encoded: Encoded, prompt: PromptTensors) -> DecodedMasks:
        """Decode one prompt as stock ``SAM2ImagePredictor`` does, all four masks.

        A box is two points, its corners; the first mask gives way to the best of the others where
        it is not stable.
        """
        mask = prompt.get("mask")
        with full_precision(encoded.embedding.device):
            sparse = self._embedded(prompt, encoded.embedding.device)
            dense = None if mask is None else self.prompt_encoder.mask_downscaling(mask)
        logits, quality = self._decoded(encoded, sparse, dense)
        return DecodedMasks(logits[0], quality[0])

    def _embedded(self, prompt: PromptTensors, device: torch.device) -> Tensor:
        """The tokens of box and points, (1, K, d); none for a mask alone."""
        places, kinds = [], []
        if "box" in prompt:
            places.append(prompt["box"].view(2, 2))
            kinds.append(torch.tensor([2, 3], device=device))
        if "points" in prompt:
            places.append(prompt["points"])
            kinds.append(prompt["labels"])
        if not places:
            return torch.zeros(1, 0, EMBEDDING, device=device)
        places.append(places[0].new_zeros(1, 2))
        kinds.append(torch.tensor([-1], device=device))
        points, labels = torch.cat(places)[None], torch.cat(kinds)[None]
        size = self.prompt_encoder.input_image_size
        return embed_points(self.prompt_encoder, points, labels.long(), size)

    def decode_batch(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """As `SamNetwork.decode_batch`; here a box is padded, too."""
        if not bool((labels == -1).any()):
            points = torch.cat([points, torch.zeros_like(points[:, :1])], dim=1)
            labels = torch.cat([labels, torch.full_like(labels[:, :1], -1)], dim=1)
        return super().decode_batch(encoded, points, labels, mask, origin)

    def predict_with_gradients(
        self, encoded: Encoded, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `SamNetwork.predict_with_gradients`."""
        positions = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder.predict_all(encoded, positions, sparse, dense)

    def output_tokens(self) -> Tensor:
        """As `SamNetwork.output_tokens`."""
        return self.mask_decoder.output_tokens

    def finer_cells(self, encoded: Encoded, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As `SamNetwork.finer_cells`."""
        key = "finer cells", dtype
        if key not in encoded.cache:
            height, width = encoded.embedding.shape[-2:]
            half, quarter = encoded.maps["s1"][0], encoded.maps["s0"][0]
            halves = half.view(-1, height, 2, width, 2).permute(1, 3, 2, 4, 0)
            quarters = quarter.view(-1, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
            encoded.cache[key] = tuple(
                each.flatten(0, -2).to(dtype, memory_format=torch.contiguous_format)
                for each in (halves, quarters)
            )
        found: tuple[Tensor, Tensor] = encoded.cache[key]
        return found

    def settled(self, logits: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Four masks (4, h, w) and IoUs (4,), the first replaced where it is not stable.

        Source: ``MaskDecoder._dynamic_multimask_via_stability``.
        """
        single = logits[0]
        area = (single > -STABILITY_MARGIN).sum()
        stable = (single > STABILITY_MARGIN).sum() >= STABLE * area
        if stable or self.training:
            return logits, quality
        best = 1 + int(quality[1:].argmax())
        order = torch.tensor([best, 1, 2, 3], device=logits.device)
        return logits[order], quality[order]


class Sam2Network(Sam2ImageNetwork):
    """SAM 2.1 on single images; `memory` carries an object on to other images."""

    slot = "image_encoder.trunk.patch_embed.projection"
    has_memory = True

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: Sam2MaskDecoder,
        memory: Sam2Memory,
    ) -> None:
        super().__init__(image_encoder, prompt_encoder, mask_decoder)
        self.memory = memory
        self.most_given = memory.most_given

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The two tables of positions: of the image and of each window."""
        yield from (self.image_encoder.trunk.pos_embed, self.image_encoder.trunk.pos_embed_window)

    def _features_job(self, image: Tensor) -> Job[Encoded]:
        encoder = self.image_encoder
        tokens = encoder.embed(image)
        blocks, stages = encoder.blocks, []
        for index, block in enumerate(blocks):
            tokens = self.run_block(block, tokens)
            if index in encoder.stage_ends:
                stages.append(tokens)
            yield Progress(index + 1, len(blocks) + 1, "encoding")
        return self.single_image(encoder.pyramid(stages), image)

    def remember(self, encoded: Encoded, mask: Tensor) -> ObjectMemory:
        """As ``add_new_mask`` of Meta's code."""
        image = self._without_memory(encoded)
        mask = self.memory.resized(mask, image)
        dense = self.prompt_encoder.mask_downscaling(self.memory.mask_downsample(mask)).float()
        decoded = self._track(replace(encoded, embedding=image), dense, several=False)
        presence = torch.full_like(decoded.presence, 1.0 if bool(mask.any()) else -1.0)
        pointer = decoded.pointer if presence > 0 else self.memory.no_pointer.detach()
        hard = full_mask(on_mask_grid(mask), mask.shape[-1]) > 0
        return ObjectMemory(self.memory.features(image, hard.float(), presence), pointer)

    def recall(self, encoded: Encoded, memories: Memories) -> tuple[DecodedMasks, ObjectMemory]:
        """As a step of ``propagate_in_video`` of Meta's code, with its logits where it is not."""
        image = self._without_memory(encoded)
        changed = self.memory.conditioned(image, memories)
        decoded = self._track(replace(encoded, embedding=changed), None, several=True)
        height, _ = encoded.input_size
        mask = full_mask(decoded.logits[None, None], height).sigmoid()
        mask = self.memory.resized(mask, image)
        features = self.memory.features(image, mask, decoded.presence)
        masks = DecodedMasks(decoded.logits.expand(4, -1, -1), decoded.predicted_iou.expand(4))
        return masks, ObjectMemory(features, decoded.pointer)

    def _without_memory(self, encoded: Encoded) -> Tensor:
        """The image's embedding without what marks it as a single image."""
        return encoded.embedding - self.no_mem_embed[0, :, :, None, None]

    def _track(self, encoded: Encoded, dense: Tensor | None, several: bool) -> _TrackedMask:
        """Decode without a click, as ``_forward_sam_heads``: the best of `several`, or the first.

        `encoded` has a cache of its own.
        """
        prompts, decoder = self.prompt_encoder, self.mask_decoder
        device = encoded.embedding.device
        # No click, and the padding that follows clicks.
        nothing = torch.zeros(1, 2, 2, device=device), torch.full((1, 2), -1, device=device)
        sparse = embed_points(prompts, *nothing, prompts.input_image_size)
        dtype = product_type(device)
        height, width = encoded.embedding.shape[-2:]
        with full_precision(device):
            queries, updated = self.attended(encoded, sparse, dense, dtype)
            quality = predict_iou(decoder, queries)[0]
            pieces = [piece[0] for piece in updated]
            finer = self.finer_cells(encoded, dtype)
            logits = form_masks(decoder, queries[0], pieces, (height, width), finer).float()
            chosen = 1 + int(quality[1:].argmax()) if several else 0
            presence = decoder.pred_obj_score_head(queries[:, PRESENCE])
            pointer = self.memory.pointer_of(queries[:, 1 + chosen], presence)
        seen, iou = logits[chosen], quality[chosen]
        if not several:
            settled, believed = self.settled(logits, quality)
            seen, iou = settled[0], believed[0]
        if float(presence) <= 0:
            seen = torch.full_like(seen, ABSENT_LOGIT)
        return _TrackedMask(seen, iou, pointer, presence)


class _TrackedMask(NamedTuple):
    """The mask (h, w) of an object, its predicted IoU, its pointer (1, d) and presence (1, 1)."""

    logits: Tensor
    predicted_iou: Tensor
    pointer: Tensor
    presence: Tensor
