"""`tiny`: the embedded network, a small SAM that encodes an image at several scales.

Its encoder is in `tiny_encoder`, what it adds around SAM's prompt encoder and mask decoder in
`tiny_decoder`. An image is encoded at several scales (`multiscale`); each prompt is decoded on
those that suit its object (`prompt_levels`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_simmat.models.dense_prior import (
    DENSE_CHANNELS,
    FOREGROUND,
    MASK_STRIDE,
    MAX_PRIOR_LOGIT,
    SIZE,
    SIZE_UNIT,
    DensePixels,
    click_bumps,
    prompt_prior,
)
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.multiscale import (
    LevelPrediction,
    LevelWindow,
    level_tiles,
    place_tile,
    scaled_images,
    with_alternatives,
)
from napari_simmat.models.network import (
    ClickEstimates,
    DecodedMasks,
    Encoded,
    Network,
    PromptTensors,
)
from napari_simmat.models.prompt_levels import (
    BEST_OBJECT_SIDE,
    SUFFICIENT_TRUST,
    box_iou,
    candidate_levels,
    coarseness_penalty,
    dense_at,
    levels_by_likelihood,
    prompt_extent,
    trust,
)
from napari_simmat.models.sam import embed_points
from napari_simmat.models.symmetric_views import (
    ALL_VIEWS,
    AVERAGED_VIEWS,
    encoded_views,
    joined_views,
)
from napari_simmat.models.tiny_decoder import (
    POSITION_UNIT,
    AttendedPrompts,
    TinyMaskDecoder,
    TinyPromptEncoder,
)
from napari_simmat.models.tiny_encoder import (
    LITE_BLOCKS,
    MAX_BLOCKS,
    MIN_BLOCKS,
    FusedEncoder,
    LiteEncoder,
    TinyEncoder,
)
from napari_simmat.progress import Job, Progress, finish, map_progress

WIDTH = 128
"""Channels of the image embedding and of the decoder's tokens."""
MIN_BOX_FILL, MIN_BOX_QUALITY = 0.4, 0.35
"""IoU of a mask's bounding box with the box asked for, and predicted IoU of that mask. Below either
the box is tried in another way: on no source of the training's validation images does that lose."""
CLICKS_AT_ONCE = 8
"""Clicks that a CPU decodes together; its caches hold no more."""


def build_tiny(architecture: str = "tiny_deep", *, initialize: bool = True) -> TinyNetwork:
    """The embedded network with random weights; ``initialize=False`` leaves them on meta.

    `architecture` is one of `models.spec.EMBEDDED`.
    """
    with nullcontext() if initialize else torch.device("meta"):
        encoder: FusedEncoder
        if architecture == "tiny_lite":
            encoder = LiteEncoder(blocks=LITE_BLOCKS, embedding=WIDTH, dense=DENSE_CHANNELS)
        else:
            deep = architecture == "tiny_deep"
            blocks = MAX_BLOCKS if deep else MIN_BLOCKS
            encoder = TinyEncoder(local=deep, blocks=blocks, embedding=WIDTH, dense=DENSE_CHANNELS)
        prompts = TinyPromptEncoder(WIDTH, (32, 32), (256, 256), mask_in_chans=16)
        decoder = TinyMaskDecoder(WIDTH)
    network = TinyNetwork(encoder, prompts, decoder)
    if initialize:
        _attend_to_near_positions(network)
    network.eval()
    return network


@torch.no_grad()
def _attend_to_near_positions(network: TinyNetwork, sharpness: float = 2.5) -> None:
    """Initialize the cross-attentions as kernels of near positions, over a range of scales.

    A small network trained for hours, not weeks, does not learn this by itself.
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


class TinyNetwork(Network):
    """Any input whose sides are multiples of 32 pixels; masks at stride 2."""

    mask_stride = MASK_STRIDE
    averages_views = True
    image_encoder: FusedEncoder
    prompt_encoder: TinyPromptEncoder
    mask_decoder: TinyMaskDecoder

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The depth-wise convolution that replaces a table of positions."""
        return self.image_encoder.position.parameters()

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode (1, C, H, W) at all scales, finest first, as linked levels.

        With `averaged` also two reflections and the transpose of each level. A large level is
        encoded in overlapping tiles, to bound the memory for intermediate results.
        """
        views = AVERAGED_VIEWS if averaged else ALL_VIEWS[:1]
        scaled = list(scaled_images(image))
        tiles = sum(len(level_tiles(*pixels.shape[-2:])) for _, pixels in scaled)
        total = tiles * len(views) * (len(self.image_encoder.blocks) + 2)
        done = 0
        levels = []

        def count(_: Progress) -> Progress:
            nonlocal done
            done += 1
            return Progress(done, total, "encoding")

        for scale, pixels in scaled:
            height, width = pixels.shape[-2:]
            level = None
            for tile in level_tiles(height, width):
                seen = {}
                for view in views:
                    job = self.features_job(view.apply(tile.cut(pixels)))
                    seen[view] = self.with_decoder_maps((yield from map_progress(job, count)))
                level = place_tile(level, tile, joined_views(seen), (height, width))
            assert level is not None
            levels.append(replace(level, scale=scale))
        encoded = levels.pop()
        while levels:
            encoded = replace(levels.pop(), coarser=encoded)
        return encoded

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, H, W) at its own scale; maps: ``fine``, ``two`` and the ``dense`` head."""
        return finish(self.features_job(image))

    def with_decoder_maps(self, features: Encoded) -> Encoded:
        """The maps ``fine`` and ``two`` replaced by the decoder's ``skip4`` and ``skip2``."""
        maps = features.maps
        decoder = self.mask_decoder
        skips = {"skip4": decoder.skip4(maps["fine"]), "skip2": decoder.skip2(maps["two"])}
        return replace(features, maps={**skips, "dense": maps["dense"]})

    def features_job(self, image: Tensor) -> Job[Encoded]:
        """`features` as a job that yields after each block."""
        encoder = self.image_encoder
        total = len(encoder.blocks) + 2
        two, four, eight, tokens = encoder.stages(image)
        yield Progress(1, total, "encoding")
        for done, block in enumerate(encoder.blocks, start=2):
            tokens = self.run_block(block, tokens)
            yield Progress(done, total, "encoding")
        embedding, fine, dense = encoder.fuse(four, eight, tokens)
        height, width = image.shape[-2:]
        maps = {"fine": fine, "two": two, "dense": dense.float()}
        yield Progress(total, total, "encoding")
        return Encoded(embedding, (height, width), maps)

    def decode(self, encoded: Encoded, prompt: PromptTensors) -> DecodedMasks:
        """Decode one prompt on the levels that suit it, in a window around it.

        A lone point or box gets SAM's padding token as in stock SAM. For clicks, the most trusted
        mask of all levels is chosen (`prompt_levels.trust`), of a lone click with an
        `expected_size` of all masks on them; the ``area`` of a prompt is weaker and leaves those of
        the single-mask token. If a box or a mask gives the object's extent, two levels are tried,
        and the mask of the highest predicted IoU is chosen, reduced on a level that is too coarse
        for it (`coarseness_penalty`), and for a box increased by how well it fills the box
        (`_within_extent`). The chosen mask has index 0; the others of its level follow, for clicks
        those of other levels first (`with_alternatives`).
        """
        device = encoded.embedding.device
        none = {"points": torch.zeros(0, 2, device=device), "labels": torch.zeros(0, device=device)}
        prompt = {**none, **prompt}
        positive = prompt["points"][prompt["labels"] == 1]
        clicks = positive if len(positive) else prompt["points"]
        extent = prompt_extent(positive, prompt.get("box"), prompt.get("mask"))
        is_extent_known = extent is not None and extent.whole
        # Several clicks say themselves how far the object reaches.
        is_lone = not is_extent_known and len(positive) < 2
        size = _MeantSize.of(prompt, self.expected_size) if is_lone else _MeantSize()
        middle = (0.0, 0.0)
        if extent is not None:
            middle = extent.middle
        elif len(clicks):
            x, y = clicks.mean(0).tolist()
            middle = (x, y)
        whole = _input_size(encoded)
        height, width = (side // MASK_STRIDE for side in whole)
        predictions: list[LevelPrediction] = []
        for level in candidate_levels(encoded.levels, extent, clicks):
            window = LevelWindow.around(level, middle)
            if is_extent_known:
                judged = self._within_extent(level, window, prompt)
            else:
                judged = self._at_clicks(level, window, prompt, size, whole if is_lone else None)
            predictions.append(_best_first(window, level.scale, *judged))
            if is_extent_known or size.learned is not None:
                continue  # all levels are compared
            if predictions[-1].confidence >= SUFFICIENT_TRUST:
                break
        if is_extent_known:
            return max(predictions, key=lambda on_level: on_level.confidence).whole((height, width))
        return with_alternatives(predictions, (height, width))

    def decode_clicks(
        self,
        encoded: Encoded,
        clicks: Tensor,
        minimum: float = -math.inf,
        expected: ExpectedSize | None = None,
    ) -> list[DecodedMasks]:
        """Decode N single positive clicks (N, 2) x, y as `decode` does, but together.

        Each takes the level whose mask is trusted most, of all its masks with an `expected` size.
        All clicks whose turn it is on a level are decoded as a batch, each in the window around it.
        Masks are formed only where they can be the most trusted of a click with a predicted IoU of
        at least `minimum` on some level. The alternatives are those of the same level, so that all
        masks of a click lie in one small window.
        """
        height, width = (side // MASK_STRIDE for side in _input_size(encoded))
        at_once = CLICKS_AT_ONCE if clicks.device.type == "cpu" else max(len(clicks), 1)
        decoded = []
        with torch.autocast(clicks.device.type, enabled=False):
            for some in torch.split(clicks, at_once):
                for tried in _try_levels(self, encoded, some, expected or self.expected_size):
                    likeliest = max(tried, key=lambda each: each.quality)
                    if likeliest.quality >= minimum:
                        decoded.append(_most_trusted(tried).placed((height, width)))
                    else:
                        predicted = likeliest.predicted_iou
                        none = predicted.new_empty(0, height, width)
                        decoded.append(DecodedMasks(none, predicted))
        return decoded

    def estimate_clicks(self, encoded: Encoded, clicks: Tensor) -> ClickEstimates:
        """The dense head under clicks (N, 2) x, y.

        Foreground is the largest of all levels; the size is that of the level tried first.
        """
        values = torch.stack([dense_at(level, clicks) for level in encoded.levels])  # (L, N, 15)
        scales = clicks.new_tensor([level.scale for level in encoded.levels])
        sizes = SIZE_UNIT * values[..., SIZE].exp()
        first = (sizes / BEST_OBJECT_SIDE).log().abs().argmin(0, keepdim=True)
        size = (sizes / scales[:, None]).gather(0, first)[0]
        return ClickEstimates(values[..., FOREGROUND].amax(0), size)

    def _at_clicks(
        self,
        level: Encoded,
        window: LevelWindow,
        prompt: PromptTensors,
        size: _MeantSize,
        fillable: tuple[int, int] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `_in_window` where clicks alone tell the object, and the trust in its masks.

        The single-mask token counts, unless a learned size says which one is meant. A mask that
        fills the window is trusted less where the input is `fillable` (its size): for a lone click.
        """
        logits, quality = self._in_window(level, window, prompt)
        judged = logits if size.learned is not None else logits[:1]
        trusted = []
        for mask, predicted in zip(judged, quality.tolist(), strict=False):
            left = window.is_left(mask, level)
            filled = fillable is not None and window.is_filled(mask, level.scale, fillable)
            trusted.append(trust(predicted, mask, left, filled, size.expected, level.scale))
        return logits, quality, quality.new_tensor(trusted)

    def _within_extent(
        self, level: Encoded, window: LevelWindow, prompt: PromptTensors
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `_in_window` where box or mask tell the object's extent, and the confidence (4,).

        A box alone that its best mask does not fill, or of which the network is hardly sure, is
        tried again with a click in its middle.
        """
        logits, quality = self._in_window(level, window, prompt)
        sure, masks = quality.detach(), logits.detach()
        # A coarse level predicts as high an IoU, but its outline is less accurate.
        confidence = sure - float(window.is_left(masks[0], level)) - coarseness_penalty(masks)
        if "box" in prompt:
            corners = prompt["box"].reshape(2, 2)
            filled = box_iou(masks, window.points(corners, level.scale))
            confidence = confidence + filled
            best = int(confidence.argmax())
            poor = float(filled[best]) < MIN_BOX_FILL or float(sure[best]) < MIN_BOX_QUALITY
            if poor and "mask" not in prompt and not len(prompt["points"]):
                middle = corners.mean(0, keepdim=True)
                clicked = {**prompt, "points": middle, "labels": prompt["labels"].new_ones(1)}
                again = self._within_extent(level, window, clicked)
                if float(again[-1].max()) > float(confidence.max()):
                    return again
        return logits, quality, confidence

    def _in_window(
        self, level: Encoded, window: LevelWindow, prompt: PromptTensors
    ) -> tuple[Tensor, Tensor]:
        """Logits (4, h, w) over the window and predicted IoU (4,)."""
        box, mask = prompt.get("box"), prompt.get("mask")
        clicks = window.points(prompt["points"], level.scale)
        inside = window.holds(clicks)
        clicks, kinds = clicks[inside], prompt["labels"][inside]
        if box is None:
            corners = clicks.new_zeros(1, 2)  # SAM's padding
        else:
            corners = window.points(box.reshape(2, 2), level.scale)
        corner_kinds = torch.tensor([-1] if box is None else [2, 3], device=clicks.device)
        points = torch.cat([clicks, corners])[None]
        labels = torch.cat([kinds.long(), corner_kinds])[None]
        prior = None if mask is None else window.mask(mask, level.scale)
        masks, ious = [], []
        for view, crop in encoded_views(window.crop(level)):
            logits, quality = self.decode_batch(
                crop,
                view.points(points, labels, crop.input_size),
                labels,
                None if prior is None else view.apply(prior),
            )
            masks.append(view.undo(logits[0]))
            ious.append(quality[0])
        return _mean(masks), _mean(ious)

    def decode_batch(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts on the B images of `encoded`, N / B each, in order.

        Inference is in float32 at any precision: half precision is too coarse for distances between
        pixels, and would save little. Training follows the precision.
        """
        if torch.is_grad_enabled() or not torch.is_autocast_enabled(points.device.type):
            embedded = self.embedded(encoded, points, labels, mask, origin)
            return self.mask_decoder.masks(encoded, *embedded)
        with torch.autocast(points.device.type, enabled=False):
            exact = encoded.to(dtype=torch.float32)
            return self.decode_batch(exact, points, labels, mask, origin)

    def embedded(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The decoder's input for prompts as for `decode_batch`.

        Returns
        -------
        Positions of the image's tokens, sparse and dense embeddings, and the prior.
        """
        prior = prompt_prior(DensePixels(encoded.maps["dense"]), points, labels, mask)
        prior = prior + click_bumps(points, labels, prior.shape[-2:])
        shift = torch.tensor([origin[1], origin[0]], dtype=points.dtype, device=points.device)
        unit = (POSITION_UNIT, POSITION_UNIT)
        sparse = embed_points(self.prompt_encoder, points + shift, labels, unit)
        dense = self.prompt_encoder.mask_downscaling(prior / (MAX_PRIOR_LOGIT / 2))
        height, width = encoded.embedding.shape[-2:]
        return self.prompt_encoder.grid(height, width, origin), sparse, dense, prior


class _MeantSize(NamedTuple):
    """How large the object of a lone click probably is."""

    learned: ExpectedSize | None = None
    """As the network expects it."""
    expected: ExpectedSize | None = None
    """The same, or else as the prompt's ``area`` says, which is weaker."""

    @classmethod
    def of(cls, prompt: PromptTensors, learned: ExpectedSize | None) -> _MeantSize:
        if learned is None and "area" in prompt:
            return cls(None, ExpectedSize.of([float(prompt["area"])]))
        return cls(learned, learned)


def _best_first(
    window: LevelWindow, scale: float, logits: Tensor, quality: Tensor, confidence: Tensor
) -> LevelPrediction:
    """The masks of a level with the one of the highest confidence first."""
    best = int(confidence.argmax())
    order = [best, *(number for number in range(len(logits)) if number != best)]
    return LevelPrediction(float(confidence[best]), window, scale, logits[order], quality[order])


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).mean(0)


def _input_size(encoded: Encoded) -> tuple[int, int]:
    """Height and width of the network's input, from the finest level."""
    height, width = encoded.input_size
    return round(height / encoded.scale), round(width / encoded.scale)


@dataclass(eq=False)
class _ClickOnLevel:
    """A click after the transformer on one level; its masks are formed when they are first read.

    `whole` is height and width of the network's input. With a size that is `expected` any mask may
    be the one that is meant, else that of the single-mask token.
    """

    expected: ExpectedSize | None
    decoder: TinyMaskDecoder
    whole: tuple[int, int]
    level: Encoded
    window: LevelWindow
    attended: Sequence[AttendedPrompts]

    def __post_init__(self) -> None:
        self.predicted_iou = _mean([each.predicted_iou[0] for each in self.attended])
        predicted = self.predicted_iou.tolist()
        self.quality = max(predicted)
        # No mask is trusted more than its predicted IoU.
        self.max_trust = predicted[0] if self.expected is None else self.quality

    @cached_property
    def prediction(self) -> LevelPrediction:
        views = encoded_views(self.window.crop(self.level).to(dtype=torch.float32))
        logits = _mean(
            [
                view.undo(self.decoder.form(attended, crop)[0])
                for attended, (view, crop) in zip(self.attended, views, strict=True)
            ]
        )
        judged = logits[:1] if self.expected is None else logits
        trusted = []
        for each, predicted in zip(judged, self.predicted_iou.tolist(), strict=False):
            left = self.window.is_left(each, self.level)
            filled = self.window.is_filled(each, self.level.scale, self.whole)
            scale = self.level.scale
            trusted.append(trust(predicted, each, left, filled, self.expected, scale))
        best = max(range(len(trusted)), key=trusted.__getitem__)
        order = [best, *(number for number in range(len(logits)) if number != best)]
        masks = logits[order], self.predicted_iou[order]
        return LevelPrediction(trusted[best], self.window, self.level.scale, *masks)

    @property
    def suffices(self) -> bool:
        """Whether no other level needs to be tried."""
        possible = self.expected is None and self.max_trust >= SUFFICIENT_TRUST
        return possible and self.prediction.confidence >= SUFFICIENT_TRUST


def _try_levels(
    network: TinyNetwork, encoded: Encoded, clicks: Tensor, expected: ExpectedSize | None
) -> list[list[_ClickOnLevel]]:
    """Each click (N, 2) on its likeliest level, then on the next one, until one suffices."""
    orders = [levels_by_likelihood(encoded.levels, click[None]) for click in clicks]
    tried: list[list[_ClickOnLevel]] = [[] for _ in orders]
    waiting = list(range(len(orders)))
    for turn in range(len(encoded.levels)):
        for level in encoded.levels:
            due = [click for click in waiting if orders[click][turn] is level]
            if due:
                whole = _input_size(encoded)
                together = _on_level(network, level, clicks[due], whole, expected)
                for click, one in zip(due, together, strict=True):
                    tried[click].append(one)
        waiting = [click for click in waiting if not tried[click][-1].suffices]
    return tried


def _on_level(
    network: TinyNetwork,
    level: Encoded,
    clicks: Tensor,
    whole: tuple[int, int],
    expected: ExpectedSize | None,
) -> list[_ClickOnLevel]:
    """Clicks (N, 2) on a level as one batch, each in the window around it."""
    windows = [LevelWindow.around(level, (x, y)) for x, y in clicks.tolist()]
    points = torch.stack(
        [window.points(click, level.scale) for window, click in zip(windows, clicks, strict=True)]
    )
    padded = torch.stack([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([1, -1], device=points.device).expand(len(points), 2)
    different = windows[:1] if len(set(windows)) == 1 else windows
    attended = []
    for seen in zip(*(encoded_views(each.crop(level)) for each in different), strict=True):
        view = seen[0][0]
        crops = [crop for _, crop in seen]
        batch = Encoded(
            torch.cat([each.embedding for each in crops]),
            crops[0].input_size,
            {"dense": torch.cat([each.maps["dense"] for each in crops])},
        ).to(dtype=torch.float32)
        here = view.points(padded, kinds, batch.input_size)
        attended.append(network.mask_decoder.attend(batch, *network.embedded(batch, here, kinds)))
    decoder = network.mask_decoder
    return [
        _ClickOnLevel(
            expected, decoder, whole, level, window, [e.part(slice(n, n + 1)) for e in attended]
        )
        for n, window in enumerate(windows)
    ]


def _most_trusted(tried: Sequence[_ClickOnLevel]) -> LevelPrediction:
    """The most trusted mask of a click, forming as few masks as possible."""
    first, *others = sorted(tried, key=lambda each: -each.max_trust)
    best = first.prediction
    for each in others:
        if each.max_trust <= best.confidence:
            break
        if each.prediction.confidence > best.confidence:
            best = each.prediction
    return best
