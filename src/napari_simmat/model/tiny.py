"""`tiny`: the embedded network, made of SAM's prompt encoder and mask decoder in small.

Added around SAM's decoder: skips from strides 4 and 2 into the up-scaling (as SAM 2, arXiv
2408.00714, and HQ-SAM, arXiv 2306.01567) and a dense prior as mask prompt (`prior.py`), which
also adds to the mask logits. Positions are in pixels, so any input size works; an image is
encoded at several scales (`pyramid.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from napari_simmat.model.alternatives import Tried, with_alternatives
from napari_simmat.model.clicks import answers
from napari_simmat.model.extent import (
    ENOUGH,
    agreement,
    candidates,
    doubt,
    extent_of,
    trust,
)
from napari_simmat.model.network import Decoded, Encoded, Network, Placed
from napari_simmat.model.prior import DENSE_CHANNELS, LIMIT, Pixels, bumps, prior_of
from napari_simmat.model.pyramid import MASK_STRIDE, images, joined, tiles
from napari_simmat.model.tiny_encoder import TinyEncoder
from napari_simmat.model.two_way import ImageTokens, two_way
from napari_simmat.model.window import Window
from napari_simmat.progress import Job, Progress, finish

WIDTH = 128
STRIDE = 8
REFERENCE = 256.0
"""Pixels in which positions are measured: SAM's encoding of 0..1 spans that many."""


class TinyPromptEncoder(PromptEncoder):
    """SAM's prompt encoder with positions in pixels instead of fractions of a fixed image."""

    def tokens(self, points: Tensor, labels: Tensor) -> Tensor:
        """Embed points (N, K, 2) as x, y with labels (N, K): 1, 0, 2/3 box corners, -1 none."""
        with torch.autocast(points.device.type, enabled=False):  # half a pixel is not for bfloat16
            position = self.pe_layer.forward_with_coords(points + 0.5, (REFERENCE, REFERENCE))
        kinds = torch.stack([each.weight[0] for each in self.point_embeddings])
        embedded = position + kinds[labels.clamp(min=0)]
        return torch.where((labels == -1)[..., None], self.not_a_point_embed.weight[0], embedded)

    def grid(self, height: int, width: int, origin: tuple[float, float] = (0, 0)) -> Tensor:
        """Positions of an embedding's cells, (1, C, height, width); `origin` is y, x in pixels."""
        device = self.pe_layer.positional_encoding_gaussian_matrix.device
        y = ((torch.arange(height, device=device) + 0.5) * STRIDE + origin[0]) / REFERENCE
        x = ((torch.arange(width, device=device) + 0.5) * STRIDE + origin[1]) / REFERENCE
        yx = torch.meshgrid(y, x, indexing="ij")
        with torch.autocast(device.type, enabled=False):
            encoded: Tensor = self.pe_layer._pe_encoding(torch.stack(yx[::-1], dim=-1))
        return encoded.permute(2, 0, 1)[None]


class TinyMaskDecoder(MaskDecoder):
    """SAM's mask decoder with high-resolution skips and the dense prior added to its logits."""

    def __init__(self) -> None:
        super().__init__(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=512),
            iou_head_hidden_dim=WIDTH,
        )
        self.skip4 = nn.Conv2d(WIDTH // 2, WIDTH // 4, 1)
        self.skip2 = nn.Conv2d(WIDTH // 4, WIDTH // 8, 1)
        self.prior_gain = nn.Parameter(torch.tensor([1.0, 0.5, 0.5, 0.5]))

    def masks(
        self, encoded: Encoded, positions: Tensor, sparse: Tensor, dense: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 4, H/2, W/2) and qualities (N, 4) of N prompts on B images, N / B each."""
        images = len(encoded.embedding)
        each = len(sparse) // images
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own[None].expand(len(sparse), -1, -1), sparse], dim=1)
        source = encoded.embedding.repeat_interleave(each, 0) + dense
        count, width, height8, width8 = source.shape
        if torch.is_grad_enabled():
            queries, source = self.transformer(source, positions.expand(count, -1, -1, -1), tokens)
        else:  # the same with less work
            image = ImageTokens.of(source.flatten(2).mT.contiguous(), positions.flatten(2).mT)
            with torch.autocast(source.device.type, enabled=False):
                queries, pieces = two_way(self.transformer, image, tokens)
                source = torch.cat(pieces, dim=1)
        grid = source.transpose(1, 2).reshape(count, width, height8, width8)

        to4, norm, act4, to2, act2 = self.output_upscaling
        grid = to4(grid)
        grid = grid + encoded.maps["skip4"].repeat_interleave(each, 0)
        grid = to2(act4(norm(grid)))
        grid = act2(grid + encoded.maps["skip2"].repeat_interleave(each, 0))
        weights = torch.stack(
            [mlp(queries[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = (weights @ grid.flatten(2)).reshape(count, -1, *grid.shape[-2:]).float()
        logits = logits + self.prior_gain[:, None, None] * prior
        return logits, self.iou_prediction_head(queries[:, 0]).float()


class TinyNetwork(Network):
    """Any input whose sides are multiples of 32 pixels; masks at stride 2."""

    mask_stride = MASK_STRIDE
    image_encoder: TinyEncoder
    prompt_encoder: TinyPromptEncoder
    mask_decoder: TinyMaskDecoder

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The depth-wise convolution that stands for a table of positions."""
        return self.image_encoder.position.parameters()

    def encoding(self, image: Tensor) -> Job[Encoded]:
        """Encode (1, C, H, W) at all scales of `pyramid`, finest first, as linked levels.

        A large level is encoded in overlapping tiles, so that the memory needed beside the result
        stays bounded.
        """
        scaled = list(images(image))
        total = sum(len(tiles(*each.shape[-2:])) for _, each in scaled)
        total *= len(self.image_encoder.blocks) + 2
        done, levels = 0, []
        for scale, each in scaled:
            parts = []
            for tile in tiles(*each.shape[-2:]):
                level = self._level(tile.cut(each))
                while True:
                    try:
                        next(level)
                    except StopIteration as end:
                        parts.append((tile, end.value))
                        break
                    done += 1
                    yield Progress(done, total, "encoding")
            levels.append(replace(joined(parts), scale=scale))
        encoded = levels.pop()
        while levels:
            encoded = replace(levels.pop(), coarser=encoded)
        return encoded

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, H, W) as it is; maps: ``fine``, ``two`` and the ``dense`` head."""
        return finish(self._features(image))

    def finished(self, features: Encoded) -> Encoded:
        """With the decoder's skips ``skip4`` and ``skip2`` instead of ``fine`` and ``two``."""
        maps, decoder = features.maps, self.mask_decoder
        skips = {"skip4": decoder.skip4(maps["fine"]), "skip2": decoder.skip2(maps["two"])}
        return replace(features, maps={**skips, "dense": maps["dense"]})

    def _level(self, image: Tensor) -> Job[Encoded]:
        return self.finished((yield from self._features(image)))

    def _features(self, image: Tensor) -> Job[Encoded]:
        encoder = self.image_encoder
        total = len(encoder.blocks) + 2
        two, four, eight, tokens = encoder.stages(image)
        yield Progress(1, total, "encoding")
        for done, block in enumerate(encoder.blocks, start=2):
            tokens = self.through(block, tokens)
            yield Progress(done, total, "encoding")
        embedding, fine, dense = encoder.fuse(four, eight, tokens)
        height, width = image.shape[-2:]
        maps = {"fine": fine, "two": two, "dense": dense.float()}
        yield Progress(total, total, "encoding")
        return Encoded(embedding, (height, width), maps)

    def decode(
        self,
        encoded: Encoded,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        box: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Decoded:
        """Decode one prompt on the level that suits it, in a window around it.

        A lone point or box gets SAM's padding token as in stock. Clicks are answered on the level
        whose answer can be trusted most (`extent.trust`). Where the extent is known from a box or
        a mask, the two levels that suit it are asked, and of all their masks that of the best
        predicted quality, less for a level too coarse for it (`extent.doubt`), is the answer, for a
        box together with how well it fills the box. The answer has index 0; the others of its level
        follow, for clicks those of other levels first (`with_alternatives`).
        """
        device = encoded.embedding.device
        clicks = torch.zeros(0, 2, device=device) if points is None else points
        kinds = torch.zeros(0, device=device) if labels is None else labels
        positive = clicks[kinds == 1]
        known = positive if len(positive) else clicks
        extent = extent_of(positive, box, mask)
        if extent is None:
            x, y = known.mean(0).tolist() if len(known) else (0.0, 0.0)
        else:
            x, y = extent.middle
        height, width = (round(side / encoded.scale) // MASK_STRIDE for side in encoded.input_size)
        placed = extent is not None and extent.whole
        tried: list[Tried] = []
        for level in candidates(encoded.levels, extent, known):
            window = Window.around(level, (x, y))
            logits, quality = self._in_window(level, window, clicks, kinds, box, mask)
            left = window.is_left(logits[0], level)
            worth = quality.detach() - float(left)
            if placed:  # a coarse level is as sure of its mask, whose border it does not know
                worth = worth - doubt(logits.detach())
            if box is not None:
                worth = worth + agreement(
                    logits.detach(), window.points(box.reshape(2, 2), level.scale)
                )
            elif not placed:
                worth = worth.new_tensor([trust(float(quality[0].detach()), logits[0], left)])
            best = int(worth.argmax())
            order = [best, *(i for i in range(len(logits)) if i != best)]
            tried.append(
                Tried(float(worth[best]), window, level.scale, logits[order], quality[order])
            )
            if not placed and tried[-1].worth >= ENOUGH:
                break
        if placed:
            return max(tried, key=lambda each: each.worth).whole((height, width))
        return with_alternatives(tried, (height, width))

    def decode_clicks(
        self, encoded: Encoded, clicks: Tensor, least: float = -math.inf
    ) -> list[Placed]:
        """Decode N lone positive clicks (N, 2) x, y, level by level together, all their masks.

        The answers are those of `decode`; their alternatives are of the same level.
        """
        del least
        return answers(self, encoded, clicks)

    def _in_window(
        self,
        level: Encoded,
        window: Window,
        points: Tensor,
        labels: Tensor,
        box: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (4, h, w) over the window and qualities (4,)."""
        clicks = window.points(points, level.scale)
        held = window.holds(clicks)
        clicks, kinds = clicks[held], labels[held]
        if box is None:
            more = clicks.new_zeros(1, 2)
        else:
            more = window.points(box.reshape(2, 2), level.scale)
        more_kinds = torch.tensor([-1] if box is None else [2, 3], device=clicks.device)
        logits, quality = self.decode_batch(
            window.crop(level),
            torch.cat([clicks, more])[None],
            torch.cat([kinds.long(), more_kinds])[None],
            None if mask is None else window.mask(mask, level.scale),
        )
        return logits[0], quality[0]

    def decode_batch(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts on the B images of `encoded`, N / B each, in order.

        Answers are in float32 whatever the precision: in half of it distances between pixels lose
        their meaning, and little would be won. Training follows the precision.
        """
        if torch.is_grad_enabled() or not torch.is_autocast_enabled(points.device.type):
            return self._decoded(encoded, points, labels, mask, origin)
        with torch.autocast(points.device.type, enabled=False):
            exact = encoded.to(dtype=torch.float32)
            return self._decoded(exact, points, labels, mask, origin)

    def _decoded(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        origin: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        prior = prior_of(Pixels(encoded.maps["dense"]), points, labels, mask)
        prior = prior + bumps(points, labels, prior.shape[-2:])
        shift = torch.tensor([origin[1], origin[0]], dtype=points.dtype, device=points.device)
        sparse = self.prompt_encoder.tokens(points + shift, labels)
        dense = self.prompt_encoder.mask_downscaling(prior / (LIMIT / 2))
        height, width = encoded.embedding.shape[-2:]
        positions = self.prompt_encoder.grid(height, width, origin)
        return self.mask_decoder.masks(encoded, positions, sparse, dense, prior)


def build_tiny(*, local: bool = True, initialize: bool = True) -> TinyNetwork:
    """The embedded network with random weights; ``initialize=False`` leaves them on meta.

    `local` adds local contrast to its first projection, as in all foundations since tiny-3.
    """
    with nullcontext() if initialize else torch.device("meta"):
        encoder = TinyEncoder(embedding=WIDTH, dense=DENSE_CHANNELS, local=local)
        prompts = TinyPromptEncoder(WIDTH, (32, 32), (256, 256), mask_in_chans=16)
        decoder = TinyMaskDecoder()
    network = TinyNetwork(encoder, prompts, decoder)
    if initialize:
        _attend_to_near_positions(network)
    network.eval()
    return network


@torch.no_grad()
def _attend_to_near_positions(network: TinyNetwork, sharpness: float = 2.5) -> None:
    """Start the cross-attentions as a kernel of similar positions, over a spread of scales.

    A small network trained for hours, not weeks, does not find this by itself.
    """
    frequencies = network.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies *= torch.logspace(-0.6, 0.5, frequencies.shape[1])
    transformer = network.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight *= sharpness
        attention.k_proj.weight.copy_(attention.q_proj.weight)
