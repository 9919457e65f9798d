"""`tiny`: the embedded network, a small SAM that encodes an image at several scales.

Added around SAM's prompt encoder and mask decoder: skips from strides 4 and 2 into the up-scaling
(as SAM 2, arXiv 2408.00714, and HQ-SAM, arXiv 2306.01567) and a dense prior as mask prompt
(`tiny_encoder.prompt_prior`), which is also added to the mask logits. Positions are in pixels, so
any input size works. An image is encoded at several scales (`multiscale`); each prompt is decoded
on those that suit its object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn

from napari_simmat.models.lite_encoder import LITE_BLOCKS, LiteEncoder
from napari_simmat.models.multiscale import (
    BEST_OBJECT_SIDE,
    SUFFICIENT_TRUST,
    LevelWindow,
    box_iou,
    candidate_levels,
    coarseness_penalty,
    dense_at,
    join_tiles,
    level_tiles,
    levels_by_likelihood,
    prompt_extent,
    scaled_images,
    trust,
)
from napari_simmat.models.network import (
    ClickEstimates,
    DecodedMasks,
    Encoded,
    Network,
    PromptTensors,
)
from napari_simmat.models.sam import embed_points
from napari_simmat.models.tiny_decoder import AttendedPrompts, TinyMaskDecoder
from napari_simmat.models.tiny_encoder import (
    DENSE_CHANNELS,
    FOREGROUND,
    MASK_STRIDE,
    MAX_PRIOR_LOGIT,
    MIN_BLOCKS,
    SIZE,
    SIZE_UNIT,
    DensePixels,
    FusedEncoder,
    TinyEncoder,
    click_bumps,
    prompt_prior,
)
from napari_simmat.models.views import ALL_VIEWS, AVERAGED_VIEWS, View, encoded_views, joined_views
from napari_simmat.progress import Job, Progress, finish

WIDTH = 128
"""Channels of the image embedding and of the decoder's tokens."""
STRIDE = 8
"""Pixels per cell of the image embedding."""
POSITION_UNIT = 256.0
"""Unit of positions in pixels: the length that SAM's encoding maps to 0..1."""
SAME_MASK_IOU = 0.8
"""Two masks of at least this IoU count as one."""
MIN_BOX_FILL, MIN_BOX_QUALITY = 0.4, 0.35
"""IoU of a mask's bounding box with the box asked for, and predicted IoU of that mask. Below either
the box is tried in another way: on no source of the training's validation images does that lose."""
CLICKS_AT_ONCE = 8
"""Clicks that a CPU decodes together; its caches hold no more."""


def build_tiny(
    *,
    local: bool = True,
    blocks: int = MIN_BLOCKS,
    encoder: Literal["plain", "lite"] = "plain",
    initialize: bool = True,
) -> TinyNetwork:
    """The embedded network with random weights; ``initialize=False`` leaves them on meta.

    `local` adds local contrast to the first projection, as in all foundations since tiny-3;
    `blocks` is the number of attention blocks of the plain encoder; the lite one
    (`lite_encoder`) always has local contrast and `LITE_BLOCKS`.
    """
    with nullcontext() if initialize else torch.device("meta"):
        images: FusedEncoder
        if encoder == "lite":
            images = LiteEncoder(blocks=LITE_BLOCKS, embedding=WIDTH, dense=DENSE_CHANNELS)
        else:
            images = TinyEncoder(embedding=WIDTH, dense=DENSE_CHANNELS, local=local, blocks=blocks)
        prompts = TinyPromptEncoder(WIDTH, (32, 32), (256, 256), mask_in_chans=16)
        decoder = TinyMaskDecoder(WIDTH)
    network = TinyNetwork(images, prompts, decoder)
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

    def encode_job(self, image: Tensor) -> Job[Encoded]:
        """Encode (1, C, H, W) at all scales, finest first, as linked levels.

        A large level is encoded in overlapping tiles, to bound the memory for intermediate results.
        """
        return self._encode_job(image, ALL_VIEWS[:1])

    def encode_views_job(self, image: Tensor) -> Job[Encoded]:
        """`encode_job` of the image, two reflections and the transpose."""
        return self._encode_job(image, AVERAGED_VIEWS)

    def _encode_job(self, image: Tensor, views: Sequence[View]) -> Job[Encoded]:
        scaled = list(scaled_images(image))
        total = sum(len(level_tiles(*each.shape[-2:])) for _, each in scaled)
        total *= (len(self.image_encoder.blocks) + 2) * len(views)
        done, levels = 0, []
        for scale, each in scaled:
            parts = []
            for tile in level_tiles(*each.shape[-2:]):
                found = {}
                for view in views:
                    level = self._level(view.apply(tile.cut(each)))
                    while True:
                        try:
                            next(level)
                        except StopIteration as end:
                            found[view] = end.value
                            break
                        done += 1
                        yield Progress(done, total, "encoding")
                parts.append((tile, joined_views(found)))
            levels.append(replace(join_tiles(parts), scale=scale))
        encoded = levels.pop()
        while levels:
            encoded = replace(levels.pop(), coarser=encoded)
        return encoded

    def features(self, image: Tensor) -> Encoded:
        """Encode (B, C, H, W) at its own scale; maps: ``fine``, ``two`` and the ``dense`` head."""
        return finish(self._features(image))

    def with_decoder_maps(self, features: Encoded) -> Encoded:
        """The maps ``fine`` and ``two`` replaced by the decoder's ``skip4`` and ``skip2``."""
        maps, decoder = features.maps, self.mask_decoder
        skips = {"skip4": decoder.skip4(maps["fine"]), "skip2": decoder.skip2(maps["two"])}
        return replace(features, maps={**skips, "dense": maps["dense"]})

    def _level(self, image: Tensor) -> Job[Encoded]:
        return self.with_decoder_maps((yield from self._features(image)))

    def _features(self, image: Tensor) -> Job[Encoded]:
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
        mask of all levels is chosen (`multiscale.trust`), of a lone click with an `expected_size`
        of all masks on them. If a box or a mask gives the object's extent, two levels are tried,
        and the mask of the highest predicted IoU is chosen, reduced on a level that is too coarse
        for it (`coarseness_penalty`), and for a box increased by how well it fills the box
        (`_within_extent`). The chosen mask has index 0; the others of its level follow, for clicks
        those of other levels first (`with_alternatives`).
        """
        device = encoded.embedding.device
        none = {"points": torch.zeros(0, 2, device=device), "labels": torch.zeros(0, device=device)}
        prompt = {**none, **prompt}
        clicks, kinds = prompt["points"], prompt["labels"]
        positive = clicks[kinds == 1]
        located = positive if len(positive) else clicks
        extent = prompt_extent(positive, prompt.get("box"), prompt.get("mask"))
        if extent is None:
            x, y = located.mean(0).tolist() if len(located) else (0.0, 0.0)
        else:
            x, y = extent.middle
        whole = _input_size(encoded)
        height, width = (side // MASK_STRIDE for side in whole)
        is_extent_known = extent is not None and extent.whole
        # Several clicks say themselves how far the object reaches.
        lone = not is_extent_known and len(positive) < 2
        expected = self.expected_size if lone else None
        predictions: list[LevelPrediction] = []
        for level in candidate_levels(encoded.levels, extent, located):
            window = LevelWindow.around(level, (x, y))
            if is_extent_known:
                logits, quality, confidence = self._within_extent(level, window, prompt)
            else:  # the single-mask token is the answer, unless a size says what is meant
                logits, quality = self._in_window(level, window, prompt)
                trusted = [
                    trust(
                        predicted,
                        each,
                        window.is_left(each, level),
                        lone and window.is_filled(each, level.scale, whole),
                        expected,
                        level.scale,
                    )
                    for each, predicted in zip(
                        logits if expected else logits[:1], quality.tolist(), strict=False
                    )
                ]
                confidence = quality.new_tensor(trusted)
            best = int(confidence.argmax())
            order = [best, *(i for i in range(len(logits)) if i != best)]
            masks = logits[order], quality[order]
            predictions.append(
                LevelPrediction(float(confidence[best]), window, level.scale, *masks)
            )
            if is_extent_known or expected is not None:
                continue
            if predictions[-1].confidence >= SUFFICIENT_TRUST:
                break
        if is_extent_known:
            return max(predictions, key=lambda each: each.confidence).whole((height, width))
        return with_alternatives(predictions, (height, width))

    def decode_clicks(
        self, encoded: Encoded, clicks: Tensor, least: float = -math.inf
    ) -> list[DecodedMasks]:
        """Decode N single positive clicks (N, 2) x, y together; see `predict_clicks`.

        The masks are those of `decode` without an `expected_size`, as objects of all sizes are
        looked for; their alternatives are of the same level.
        """
        return predict_clicks(self, encoded, clicks, least)

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


class LevelPrediction(NamedTuple):
    """The masks of a prompt on one level.

    Attributes
    ----------
    confidence
        Trust in its best mask, comparable between levels.
    window, scale
        The window of the level, and the level's scale.
    logits
        (4, h, w) over the window, the best mask first.
    predicted_iou
        (4,) float32.
    """

    confidence: float
    window: LevelWindow
    scale: float
    logits: Tensor
    predicted_iou: Tensor

    def whole(self, shape: tuple[int, int]) -> DecodedMasks:
        """All masks on the whole of the input's mask grid of `shape`."""
        return DecodedMasks(self.window.paste(self.logits, self.scale, shape), self.predicted_iou)

    def placed(self, shape: tuple[int, int]) -> DecodedMasks:
        """All masks on the part of the input's mask grid of `shape` that the window covers."""
        logits, top, left = self.window.placed(self.logits, self.scale, shape)
        return DecodedMasks(logits, self.predicted_iou, top, left)

    def part(self, number: int, shape: tuple[int, int]) -> _MaskPart:
        """One mask on the part of the input's mask grid of `shape` that the window covers."""
        [logits], top, left = self.window.placed(
            self.logits[number : number + 1], self.scale, shape
        )
        return _MaskPart(logits, logits > 0, top, left, self.predicted_iou[number])


def with_alternatives(
    predictions: Sequence[LevelPrediction], shape: tuple[int, int]
) -> DecodedMasks:
    """The most trusted mask on the input's mask grid of `shape`, then three alternatives.

    A click may mean a part or a whole. The alternatives are the best masks of the other levels, by
    confidence, then the other masks of its own level. Empty masks, and those equal to an earlier
    one (`SAME_MASK_IOU`), come last.
    """
    best, *others = sorted(predictions, key=lambda each: -each.confidence)
    if not others:
        return best.whole(shape)
    count = len(best.predicted_iou)
    parts = [each.part(0, shape) for each in (best, *others)]
    parts += [best.part(number, shape) for number in range(1, count)]
    ordered = _distinct_first(parts)[:count]
    logits = best.logits.new_full((count, *shape), -MAX_PRIOR_LOGIT)
    for whole, part in zip(logits, ordered, strict=True):
        height, width = part.logits.shape
        whole[part.top : part.top + height, part.left : part.left + width] = part.logits
    return DecodedMasks(logits, torch.stack([part.predicted_iou for part in ordered]))


def _distinct_first(parts: Sequence[_MaskPart]) -> list[_MaskPart]:
    """The first mask, those that differ from all before them, then the rest."""
    kept: list[_MaskPart] = [parts[0]]
    rest: list[_MaskPart] = []
    for part in parts[1:]:
        repeated = any(_iou(part, other) >= SAME_MASK_IOU for other in kept)
        (rest if repeated or not part.inside.any() else kept).append(part)
    return kept + rest


class _MaskPart(NamedTuple):
    """Logits (h, w) of one mask over a part of the grid that begins at `top`, `left`."""

    logits: Tensor
    inside: Tensor
    top: int
    left: int
    predicted_iou: Tensor

    def within(self, rows: slice, columns: slice) -> Tensor:
        """The mask in rows and columns of the grid, which it must cover."""
        return self.inside[
            rows.start - self.top : rows.stop - self.top,
            columns.start - self.left : columns.stop - self.left,
        ]


def _iou(one: _MaskPart, other: _MaskPart) -> float:
    """IoU of masks over different parts of the grid; 0 if both are empty.

    `engine.masks.iou` would need both on one grid.
    """
    rows, columns = (
        slice(max(starts), max(*starts, min(a + b for a, b in zip(starts, sides, strict=True))))
        for starts, sides in (
            ((one.top, other.top), (len(one.inside), len(other.inside))),
            ((one.left, other.left), (one.inside.shape[1], other.inside.shape[1])),
        )
    )
    shared = int((one.within(rows, columns) & other.within(rows, columns)).sum())
    return shared / max(int(one.inside.sum()) + int(other.inside.sum()) - shared, 1)


def predict_clicks(
    network: TinyNetwork, encoded: Encoded, clicks: Tensor, least: float = -math.inf
) -> list[DecodedMasks]:
    """Decode single positive clicks (N, 2) x, y as `TinyNetwork.decode` does, but together.

    Each takes the level whose mask is trusted most. All clicks whose turn it is on a level are
    decoded as a batch, each in the window around it. Masks are formed only where they can be the
    most trusted of a click with a predicted IoU of at least `least` on some level. The alternatives
    are those of the same level, so that all masks of a click lie in one small window.
    """
    height, width = (side // MASK_STRIDE for side in _input_size(encoded))
    at_once = CLICKS_AT_ONCE if clicks.device.type == "cpu" else max(len(clicks), 1)
    found = []
    with torch.autocast(clicks.device.type, enabled=False):
        for some in torch.split(clicks, at_once):
            for attempts in _attempts(network, encoded, some):
                best = _most_trusted(attempts, least)
                if best is None:
                    predicted = max(attempts, key=lambda each: each.quality).predicted_iou
                    none = predicted.new_empty(0, height, width)
                    found.append(DecodedMasks(none, predicted))
                else:
                    found.append(best.placed((height, width)))
    return found


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).mean(0)


def _input_size(encoded: Encoded) -> tuple[int, int]:
    """Height and width of the network's input, from the finest level."""
    height, width = encoded.input_size
    return round(height / encoded.scale), round(width / encoded.scale)


@dataclass(eq=False)
class _Attempt:
    """A click on a level; `prediction` forms its masks when it is first read.

    `whole` is height and width of the network's input.
    """

    decoder: TinyMaskDecoder
    whole: tuple[int, int]
    level: Encoded
    window: LevelWindow
    attended: Sequence[AttendedPrompts]

    def __post_init__(self) -> None:
        self.predicted_iou = _mean([each.predicted_iou[0] for each in self.attended])
        predicted = self.predicted_iou.tolist()
        self.most_trust, self.quality = predicted[0], max(predicted)

    @cached_property
    def prediction(self) -> LevelPrediction:
        views = encoded_views(self.window.crop(self.level).to(dtype=torch.float32))
        logits = _mean(
            [
                view.undo(self.decoder.form(attended, crop)[0])
                for attended, (view, crop) in zip(self.attended, views, strict=True)
            ]
        )
        left = self.window.is_left(logits[0], self.level)
        filled = self.window.is_filled(logits[0], self.level.scale, self.whole)
        trusted = trust(self.most_trust, logits[0], left, filled)
        return LevelPrediction(trusted, self.window, self.level.scale, logits, self.predicted_iou)

    @property
    def suffices(self) -> bool:
        """Whether no other level needs to be tried."""
        possible = self.most_trust >= SUFFICIENT_TRUST
        return possible and self.prediction.confidence >= SUFFICIENT_TRUST


def _attempts(network: TinyNetwork, encoded: Encoded, clicks: Tensor) -> list[list[_Attempt]]:
    """Each click (N, 2) on one level after the other, until one suffices."""
    orders = [levels_by_likelihood(encoded.levels, click[None]) for click in clicks]
    attempts: list[list[_Attempt]] = [[] for _ in orders]
    waiting = list(range(len(orders)))
    for turn in range(len(encoded.levels)):
        for level in encoded.levels:
            due = [click for click in waiting if orders[click][turn] is level]
            if due:
                tried = _on_level(network, level, clicks[due], _input_size(encoded))
                for click, attempt in zip(due, tried, strict=True):
                    attempts[click].append(attempt)
        waiting = [click for click in waiting if not attempts[click][-1].suffices]
    return attempts


def _on_level(
    network: TinyNetwork, level: Encoded, clicks: Tensor, whole: tuple[int, int]
) -> list[_Attempt]:
    """Clicks (N, 2) on a level, each in the window around it; `whole` as in `_Attempt`."""
    windows = [LevelWindow.around(level, (x, y)) for x, y in clicks.tolist()]
    points = torch.stack(
        [window.points(click, level.scale) for window, click in zip(windows, clicks, strict=True)]
    )
    padded = torch.stack([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([1, -1], device=points.device).expand(len(points), 2)
    different = windows[:1] if len(set(windows)) == 1 else windows
    attended = []
    for seen in zip(*(encoded_views(each.crop(level)) for each in different), strict=True):
        view, crops = seen[0][0], [crop for _, crop in seen]
        batch = Encoded(
            torch.cat([each.embedding for each in crops]),
            crops[0].input_size,
            {"dense": torch.cat([each.maps["dense"] for each in crops])},
        ).to(dtype=torch.float32)
        here = view.points(padded, kinds, batch.input_size)
        attended.append(network.mask_decoder.attend(batch, *network.embedded(batch, here, kinds)))
    return [
        _Attempt(
            network.mask_decoder, whole, level, window, [e.part(slice(n, n + 1)) for e in attended]
        )
        for n, window in enumerate(windows)
    ]


def _most_trusted(attempts: Sequence[_Attempt], least: float) -> LevelPrediction | None:
    """The attempt of the most trusted mask; no mask is trusted more than its predicted IoU.

    None if all predicted IoUs are below `least`.
    """
    if max(each.quality for each in attempts) < least:
        return None
    best: LevelPrediction | None = None
    for each in sorted(attempts, key=lambda each: -each.most_trust):
        if best is not None and each.most_trust <= best.confidence:
            break
        if best is None or each.prediction.confidence > best.confidence:
            best = each.prediction
    return best
