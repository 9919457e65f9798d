"""`Network`, the interface of all networks: encode an image once, decode many prompts.

It keeps the three parts and all parameter names of `segment_anything.modeling.Sam`
(https://github.com/facebookresearch/segment-anything), so official weights load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.models.sam2_memory import Memories, ObjectMemory

PromptTensors = Mapping[str, Tensor]
"""One prompt in pixels of a network's input, x before y: a tensor for each part that it has.

``points`` are (K, 2) float as x, y, with ``labels`` (K,): 1 foreground, 0 background; ``box`` is
(4,) float as x0, y0, x1, y1; ``mask`` is (1, 1, h, w) float logits on the mask grid, e.g. of an
earlier result. Only `engine.prompt_decoder.prompt_tensors` makes it from a `Prompt`.
"""


class Network(Sam):
    """A SAM-shaped network: image encoder, prompt encoder, mask decoder.

    Subclasses define how to encode, as a job that can be interrupted between blocks, and how to
    decode one prompt. Inputs are standardized images (B, C, H, W); points and boxes are in pixels
    of that input, x before y, as in SAM.
    """

    slot = "image_encoder.patch_embed.proj"
    """Path of the first projection, which the transfer layer replaces."""
    mask_stride: float
    """Pixels of the input per pixel of the mask grid; a whole number but for SAM 3."""
    averages_views = False
    """Whether it can average the masks of several views of the image (`models.multiscale`)."""
    expected_size: ExpectedSize | None = None
    """Size of the objects that a lone click means, where `decode` heeds it."""
    prompt_kinds = frozenset({"points", "box", "mask"})
    """Kinds of prompts that `decode` reads; others are refused."""
    has_memory = False
    """Whether it finds an object on an image by what it remembers of it on others."""
    most_given = 0
    """Images outlined by the user that it recalls at once; 0 without a memory."""
    reads_words = False
    """Whether it finds all objects that words mean, or that are like examples."""
    recompute = False
    """Whether the backward pass recomputes the encoder's blocks (gradient checkpointing)."""

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode `image` (B, C, H, W); yields after every block.

        With `averaged`, which needs `averages_views`, also its other views, over which `decode`
        averages; that takes as many times as long as there are views.
        """
        raise NotImplementedError

    def decode(self, encoded: Encoded, prompt: PromptTensors) -> DecodedMasks:
        """Decode one prompt on the encoding of a single image."""
        raise NotImplementedError

    def decode_clicks(
        self,
        encoded: Encoded,
        clicks: Tensor,
        minimum: float = -math.inf,
        expected: ExpectedSize | None = None,
    ) -> list[DecodedMasks]:
        """Decode N single positive clicks (N, 2) x, y at once, with the results of `decode`.

        Callers pass as many as memory allows. A network may return no logits (0, h, w) for a click
        whose predicted IoUs are all below `minimum`, and may heed the `expected` size, by default
        its own.
        """
        del minimum, expected
        padded = torch.stack([clicks, torch.zeros_like(clicks)], dim=1)
        kinds = torch.tensor([1, -1], device=clicks.device).expand(len(clicks), 2)
        logits, quality = self.decode_batch(encoded, padded, kinds)
        return [DecodedMasks(*each) for each in zip(logits, quality, strict=True)]

    def estimate_clicks(self, encoded: Encoded, clicks: Tensor) -> ClickEstimates | None:
        """What is known about clicks (N, 2) x, y without decoding them; None for nothing."""
        del encoded, clicks
        return None

    def encode(self, image: Tensor) -> Encoded:
        """Encode (B, C, H, W) at one scale; gradients flow."""
        return self.with_decoder_maps(self.features(image))

    def features(self, image: Tensor) -> Encoded:
        """The image encoder's output for (B, C, H, W), for `with_decoder_maps`; gradients flow."""
        raise NotImplementedError

    def with_decoder_maps(self, features: Encoded) -> Encoded:
        """Add the mask decoder's maps that do not depend on prompts."""
        return features

    def decode_batch(
        self,
        encoded: Encoded,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        origin: tuple[float, float] = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """Decode N prompts on the B images of `encoded`, N / B each, in order; gradients flow.

        Parameters
        ----------
        points, labels
            (N, K, 2) as x, y and (N, K): 1 foreground, 0 background, 2 and 3 the corners of a
            box, -1 padding.
        mask
            (N, 1, h, w) logits, e.g. of an earlier result.
        origin
            y, x in pixels of the images' corner in a larger field, for training on crops.

        Returns
        -------
        logits (N, 4, h, w) float32, predicted IoU (N, 4) float32
        """
        raise NotImplementedError

    def run_block(self, block: nn.Module, tokens: Tensor) -> Tensor:
        """Apply a block of the encoder to its tokens; see `recompute`."""
        if self.recompute and torch.is_grad_enabled():
            output: Tensor = checkpoint(block, tokens, use_reentrant=False)
        else:
            output = block(tokens)
        return output

    def remember(self, encoded: Encoded, mask: Tensor) -> ObjectMemory:
        """What is kept of an object that the user outlined on an image, for `recall`.

        `mask` (1, 1, H, W) covers the network's input, in 0..1. Needs `has_memory`.
        """
        raise NotImplementedError

    def recall(self, encoded: Encoded, memories: Memories) -> tuple[DecodedMasks, ObjectMemory]:
        """Find an object on an image by what is known of it, and what is kept of it there.

        The four masks are the same one; without a cell above 0 if the object is not there. Needs
        `has_memory`.
        """
        raise NotImplementedError

    def find(self, encoded: Encoded, concept: Concept, minimum: float) -> FoundMasks:
        """Find all objects on an image that a concept means, with scores of at least `minimum`.

        Needs `reads_words`.
        """
        raise NotImplementedError

    def pieces_of(self, words: str, vocabulary: Path) -> list[int]:
        """The pieces of words for `find`, by a file with its vocabulary. Needs `reads_words`."""
        raise NotImplementedError

    @property
    def projection(self) -> nn.Conv2d:
        """The first projection, which the transfer layer replaces."""
        layer = self.get_submodule(self.slot)
        assert isinstance(layer, nn.Conv2d)
        return layer

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that encode the positions of the encoder's tokens."""
        raise NotImplementedError

    def transfer_names(self) -> set[str]:
        """Names of the transfer layer's own entries in the state dict."""
        layer: Any = self.projection
        own = layer.state_dict() if hasattr(layer, "base_names") else {}
        return {f"{self.slot}.{name}" for name in own if name not in layer.base_names}


@dataclass(frozen=True)
class Encoded:
    """A network's encoding of one image (or batch of images).

    Parameters
    ----------
    embedding
        The image embedding, (B, C, h, w).
    input_size
        Height and width of the (padded) input in pixels.
    maps
        Further maps for the decoder, each (B, C', h', w').
    scale
        Pixels of the encoded image per pixel of the network's input.
    coarser
        The same image encoded at half the scale, for a network that uses several.

    Attributes
    ----------
    cache
        Intermediate results that prompts share; not part of the value.
    """

    embedding: Tensor
    input_size: tuple[int, int]
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    scale: float = 1.0
    coarser: Encoded | None = None
    cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def tokens(self) -> Tensor:
        """The embedding as tokens row by row, (B, h * w, C)."""
        return self.embedding.flatten(2).mT.contiguous()

    def image(self, index: int) -> Encoded:
        """One image of the batch."""
        own = slice(index, index + 1)
        maps = {name: each[own] for name, each in self.maps.items()}
        return replace(self, embedding=self.embedding[own], maps=maps)

    @property
    def levels(self) -> list[Encoded]:
        """The level itself and all coarser ones, finest first."""
        return [self, *(self.coarser.levels if self.coarser is not None else ())]

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        tensors = [t for each in self.levels for t in (each.embedding, *each.maps.values())]
        return sum(t.numel() * t.element_size() for t in tensors)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Encoded:
        """The same on another device or in another precision."""
        return replace(
            self,
            embedding=self.embedding.to(device=device, dtype=dtype),
            maps={name: each.to(device=device, dtype=dtype) for name, each in self.maps.items()},
            coarser=None if self.coarser is None else self.coarser.to(device, dtype),
        )


class DecodedMasks(NamedTuple):
    """Four masks for a prompt and the network's own estimate of their IoU.

    Index 0 is the single-mask token, 1 to 3 are the candidates for an ambiguous prompt.

    Attributes
    ----------
    logits
        (4, h, w) float32 on the network's mask grid, which covers the padded input, or on a part
        of it; outside that part there is no object.
    predicted_iou
        (4,) float32, predicted IoU.
    top, left
        Row and column of the grid where the part begins.
    """

    logits: Tensor
    predicted_iou: Tensor
    top: int = 0
    left: int = 0


class Concept(NamedTuple):
    """A kind of objects to look for: words, examples, or both.

    Attributes
    ----------
    pieces
        (L,) numbers of the pieces of words in the network's vocabulary, with start and end.
    boxes
        (K, 4) of examples as x0, y0, x1, y1, in pixels of the input.
    alike
        (K,) whole numbers: 1 for an example, 0 for what is not meant.
    """

    pieces: Tensor
    boxes: Tensor
    alike: Tensor


class FoundMasks(NamedTuple):
    """The objects that a concept means, the likeliest first.

    Attributes
    ----------
    logits
        (N, h, w) float32 on the network's mask grid.
    scores
        (N,) float32 in 0..1: how likely each is one of them.
    """

    logits: Tensor
    scores: Tensor


class ClickEstimates(NamedTuple):
    """A network's cheap estimates for N clicks.

    Attributes
    ----------
    foreground
        (N,) logits of an object being there.
    size
        (N,) square root of its area in pixels, if there is one.
    """

    foreground: Tensor
    size: Tensor


def replace_module(new: nn.Module, old: nn.Module) -> None:
    """Give `new` the modules, parameters and buffers of `old`, under the same names."""
    state: dict[str, Any] = dict(old.__dict__)
    for table in ("_modules", "_parameters", "_buffers"):
        state[table] = dict(state[table])
    new.__dict__.update(state)


def conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """Arguments that construct a convolution of the same shape, with one group."""
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "bias": conv.bias is not None,
    }
