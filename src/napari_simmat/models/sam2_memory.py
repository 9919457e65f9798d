"""SAM 2's memory: what it keeps of an object on one image, and how it looks for it on another.

Source: ``SAM2Base`` of https://github.com/facebookresearch/sam2 (arXiv 2408.00714, section 4). The
modules are those of `transformers`. An image is remembered as features of its object at stride 16
and as one vector, the *pointer*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MASK_SCALE, MASK_OFFSET = 20.0, -10.0
"""From a mask in 0..1 to what the memory encoder reads; about its logits."""
ABSENT_LOGIT = -1024.0
"""Of every cell where the object is not on the image."""
FEATURES_BACK = 6
"""Images back of which the features are recalled."""
POINTERS_BACK = 15
"""Images back of which the pointers are recalled."""
MOST_GIVEN = 16
"""Outlined images that are recalled at once, where the network sets no bound: each adds its cells
to those that every cell attends to."""
STRIDE = 16
"""Pixels of a mask that the memory reads, per cell of the embedding."""
TIME_BASE = 10000.0


@dataclass(frozen=True, eq=False)
class ObjectMemory:
    """What is kept of an object on one image.

    Parameters
    ----------
    features
        (h * w, 1, c) in half precision; None of an image so far back that its pointer alone is
        recalled.
    pointer
        (1, d).
    """

    features: Tensor | None
    pointer: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of both in bytes."""
        kept = [each for each in (self.features, self.pointer) if each is not None]
        return sum(each.numel() * each.element_size() for each in kept)

    def to(self, device: torch.device) -> ObjectMemory:
        """The same on another device."""
        features = None if self.features is None else self.features.to(device)
        return ObjectMemory(features, self.pointer.to(device))

    def pointer_alone(self) -> ObjectMemory:
        """Without its features."""
        return replace(self, features=None)


@dataclass(frozen=True, eq=False)
class Memories:
    """What is known of an object, seen from one image.

    Parameters
    ----------
    given
        Of images on which the user outlined it, by the number of images back; negative for images
        ahead in the direction of the search. All with features.
    found
        Of images on which it was found, by the number of images back, at least 1; the last
        `FEATURES_BACK` with features.
    length
        Number of images that there are.
    """

    given: Mapping[int, ObjectMemory]
    found: Mapping[int, ObjectMemory]
    length: int


class Sam2Memory(nn.Module):
    """The modules of the memory, taken from `whole`, a `transformers.Sam2VideoModel` or SAM 3's."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        bound = whole.config.max_cond_frame_num  # -1 for none
        self.most_given: int = bound if bound > 0 else MOST_GIVEN
        self.attention = _with_positions(whole.memory_attention, whole.config)
        self.encoder = whole.memory_encoder
        self.pointer = whole.object_pointer_proj
        self.pointer_times = whole.temporal_positional_encoding_projection_layer
        self.mask_downsample = whole.mask_downsample
        self.times = whole.memory_temporal_positional_encoding  # (7, 1, 1, c); the last: given
        self.no_memory_position = whole.no_memory_positional_encoding
        self.no_pointer = whole.no_object_pointer
        self.absent = whole.occlusion_spatial_embedding_parameter
        self.sine = whole.vision_encoder.neck.position_encoding

    def features(self, image: Tensor, mask: Tensor, presence: Tensor) -> Tensor:
        """The features of an object, (h * w, 1, c).

        Parameters
        ----------
        image
            The image's embedding (1, d, h, w), not conditioned on any memory.
        mask
            (1, 1, 16 h, 16 w) in 0..1.
        presence
            (1, 1) logit of the object being there.
        """
        features, _ = self.encoder(image, mask * MASK_SCALE + MASK_OFFSET)
        if float(presence) <= 0:
            features = features + self.absent[..., None, None]
        # As Meta's code keeps them.
        return _as_sequence(features).to(torch.bfloat16)

    def resized(self, mask: Tensor, image: Tensor) -> Tensor:
        """A mask (1, 1, H, W) with `STRIDE` pixels per cell of an embedding; SAM 3's has fewer."""
        size = [STRIDE * side for side in image.shape[-2:]]
        if list(mask.shape[-2:]) == size:
            return mask
        return functional.interpolate(mask, size=size, mode="bilinear")

    def pointer_of(self, token: Tensor, presence: Tensor) -> Tensor:
        """The pointer (1, d) of the decoder's token (1, d) of a mask."""
        seen: Tensor = self.pointer(token) if float(presence) > 0 else self.no_pointer.detach()
        return seen

    def conditioned(self, image: Tensor, memories: Memories) -> Tensor:
        """The embedding (1, d, h, w) of an image, changed by what is known of the object."""
        kept = [(0, each.features) for each in memories.given.values()]
        for back in range(FEATURES_BACK, 0, -1):
            if back in memories.found:
                kept.append((back, memories.found[back].features))
        height, width = image.shape[-2:]
        grid = torch.Size((1, self.absent.shape[-1], height, width))
        place = _as_sequence(self.encoder.position_encoding(grid, image.device, image.dtype))
        parts = [each.to(image.dtype) for _, each in kept if each is not None]
        places = [place + self.times[back - 1] for back, each in kept if each is not None]
        pointers, times = self._pointers(memories)
        current = _as_sequence(self.sine(image.shape, image.device, image.dtype))
        attended = self.attention(
            current_vision_features=_as_sequence(image),
            current_vision_position_embeddings=current,
            memory=torch.cat([*parts, pointers]),
            memory_posision_embeddings=torch.cat([*places, times]),  # as the library spells it
            num_object_pointer_tokens=len(pointers),
        )
        changed: Tensor = attended.reshape(height * width, -1).T.reshape(image.shape)
        return changed.float()

    def _pointers(self, memories: Memories) -> tuple[Tensor, Tensor]:
        """Pointers in pieces as wide as features, (n, 1, c), and their times."""
        before = [(back, each) for back, each in memories.given.items() if back >= 0]
        most = min(memories.length, POINTERS_BACK + 1)
        before += [
            (back, memories.found[back]) for back in range(1, most) if back in memories.found
        ]
        width = self.absent.shape[-1]
        if not before:
            return self.absent.new_zeros(0, 1, width), self.absent.new_zeros(0, 1, width)
        pointers = torch.stack([each.pointer for _, each in before])  # (n, 1, d)
        back = torch.tensor([each for each, _ in before], device=pointers.device)
        times = self.pointer_times(_sine_of_time(back / max(most - 1, 1), pointers.shape[-1]))
        pieces = pointers.shape[-1] // width
        split = pointers.view(-1, 1, width)
        return split, times[:, None].repeat_interleave(pieces, dim=0)


def _with_positions(attention: Any, config: Any) -> nn.Module:
    """The memory attention with its positions, which are in no file, on no meta device."""
    with torch.device("cpu"):
        attention.rotary_emb = type(attention.rotary_emb)(config=config)
        attention.position_ids = attention.precompute_positions(config)
    found: nn.Module = attention
    return found


def full_mask(logits: Tensor, side: int) -> Tensor:
    """Logits (1, 1, h, w) of a mask enlarged to (1, 1, side, side)."""
    return functional.interpolate(logits.float(), size=(side, side), mode="bilinear")


def on_mask_grid(mask: Tensor) -> Tensor:
    """Logits (1, 1, H / 4, W / 4), as of the decoder, of a mask (1, 1, H, W) in 0..1."""
    logits = (mask * MASK_SCALE + MASK_OFFSET).cpu()  # MPS has no antialiased kernel
    reduced = functional.interpolate(logits, scale_factor=0.25, mode="bilinear", antialias=True)
    return reduced.to(mask.device)


def _as_sequence(image: Tensor) -> Tensor:
    """(1, d, h, w) -> (h * w, 1, d)."""
    return image.flatten(2).permute(2, 0, 1)


def _sine_of_time(time: Tensor, width: int) -> Tensor:
    """Sines and cosines (n, width) of n times, as of positions in text."""
    half = torch.arange(width // 2, device=time.device)
    period = TIME_BASE ** (2 * (half // 2) / (width // 2))
    angle = time[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
