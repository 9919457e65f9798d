"""SAM 3's image encoder: a plain vision transformer and a pyramid of its features.

Source: https://github.com/facebookresearch/sam3 (arXiv 2511.16719). The modules and their tensors
are those of `transformers`, but queries, keys and values are one projection, as in Meta's code.
Blocks and attentions are given a forward pass of their own, which strategies can extend
(`models.tuning`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat._text import import_problem
from napari_simmat.models.network import replace_module

if TYPE_CHECKING:
    from transformers import Sam3Model, Sam3TrackerVideoModel

SIDE = 1008
"""Pixels along each side of the input."""
PATCH = 14
"""Pixels along each side of a token."""
LEVELS = 3
"""Of the pyramid that are used; the files hold a fourth, coarser one."""
ROTATION_BASE = 10000.0
NEEDS_TRANSFORMERS = (
    'SAM 3 needs the package transformers; install it (pip install "transformers>=5.18,<6").'
)


class Sam3Shape(NamedTuple):
    """The sizes of the parts that are not fixed by SAM's decoder.

    Attributes
    ----------
    width, hidden, depth, heads
        Of the image encoder: width of its tokens and of its MLPs, number of blocks and of heads.
    window
        Side of the windows in tokens, and of the table of positions, which is repeated.
    global_blocks
        Those without windows, counted from 0.
    text_width, text_hidden, text_depth, text_heads
        The same of the text encoder.
    vocabulary
        Number of pieces of words that it knows.
    detector_depth
        Number of layers of the detector's encoder and decoder.
    """

    width: int = 1024
    hidden: int = 4736
    depth: int = 32
    heads: int = 16
    window: int = 24
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    text_width: int = 1024
    text_hidden: int = 4096
    text_depth: int = 24
    text_heads: int = 16
    vocabulary: int = 49408
    detector_depth: int = 6


SHAPE = Sam3Shape()
"""Of the published model; from ``sam3/model_builder.py`` of Meta's code."""
MOST_PIECES = 32
"""Pieces of words that the text encoder reads, with those for start and end."""


def build_tracker() -> Sam3TrackerVideoModel:
    """The part of SAM 3 for clicks and memory as `transformers` builds it, with random weights.

    On torch's default device. Raises ValueError if `transformers` is not installed.
    """
    try:
        from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel
    except ImportError as error:
        raise ValueError(import_problem(error, "transformers", NEEDS_TRANSFORMERS)) from error
    config = Sam3TrackerVideoConfig(vision_config=_vision(SHAPE.depth))
    config.image_size = SIDE  # of all parts
    return Sam3TrackerVideoModel(config)


def build_detector() -> Sam3Model:
    """The part of SAM 3 for words and examples; its vision encoder has a neck, but no blocks.

    As `build_tracker`.
    """
    try:
        from transformers import Sam3Config, Sam3Model
    except ImportError as error:
        raise ValueError(import_problem(error, "transformers", NEEDS_TRANSFORMERS)) from error
    text = {
        "model_type": "clip_text_model",
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.text_width,
        "intermediate_size": SHAPE.text_hidden,
        "projection_dim": SHAPE.text_width // 2,
        "num_hidden_layers": SHAPE.text_depth,
        "num_attention_heads": SHAPE.text_heads,
        "max_position_embeddings": MOST_PIECES,
        "hidden_act": "gelu",
        "bos_token_id": SHAPE.vocabulary - 2,
        "eos_token_id": SHAPE.vocabulary - 1,
    }
    layers = {"num_layers": SHAPE.detector_depth}
    config = Sam3Config(
        vision_config=_vision(depth=0),
        text_config=text,
        detr_encoder_config=layers,
        detr_decoder_config=layers,
    )
    return Sam3Model(config)


def _vision(depth: int) -> dict[str, Any]:
    trunk = {
        "model_type": "sam3_vit_model",
        "hidden_size": SHAPE.width,
        "intermediate_size": SHAPE.hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": SHAPE.heads,
        "window_size": SHAPE.window,
        "global_attn_indexes": list(SHAPE.global_blocks),
        "image_size": SIDE,
        "patch_size": PATCH,
        "pretrain_image_size": SHAPE.window * PATCH,
    }
    return {"model_type": "sam3_vision_model", "backbone_config": trunk}


class Sam3Encoder(nn.Module):
    """The blocks and the pyramid, from the vision encoder of a `transformers.Sam3TrackerModel`."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.img_size = SIDE  # SAM's attribute
        trunk = vision.backbone
        self.patch_embed = trunk.embeddings.patch_embeddings
        self.pos_embed = trunk.embeddings.position_embeddings
        self.layer_norm = trunk.layer_norm
        self.blocks = nn.ModuleList(RotaryBlock(block) for block in trunk.layers)
        self.neck = used_neck(vision.neck)

    def embed(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> tokens with their positions, (B, H/14, W/14, d)."""
        tokens: Tensor = self.patch_embed.projection(image).permute(0, 2, 3, 1)
        height, width = tokens.shape[1:3]
        side = round(self.pos_embed.shape[1] ** 0.5)
        table = self.pos_embed.unflatten(1, (side, side))
        repeated = table.tile(1, -(-height // side), -(-width // side), 1)
        normed: Tensor = self.layer_norm(tokens + repeated[:, :height, :width])
        return normed

    def pyramid(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, h, w, d) -> maps (B, 256, ..) of 4 h, 2 h and h rows."""
        fine, middle, coarse = neck_levels(self.neck, tokens)
        return fine, middle, coarse


def used_neck(neck: Any) -> nn.Module:
    """A neck of `transformers` without the coarsest level."""
    neck.fpn_layers = neck.fpn_layers[:LEVELS]
    found: nn.Module = neck
    return found


def neck_levels(neck: Any, tokens: Tensor) -> list[Tensor]:
    """The maps (B, 256, ..) of a neck, the finest first, from tokens (B, h, w, d)."""
    image = tokens.permute(0, 3, 1, 2)
    return [layer(image) for layer in neck.fpn_layers]


class RotaryBlock(nn.Module):
    """A block of `transformers`, with or without windows."""

    layer_norm1: nn.Module
    layer_norm2: nn.Module
    attn: RotaryAttention
    mlp: nn.Module
    window_size: int

    def __init__(self, block: Any) -> None:
        replace_module(self, block)
        del self.rotary_emb, self.position_ids  # of no file, and on no meta device
        self.attn = RotaryAttention(block.attention, block.config.window_size)
        del self.attention

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        tokens = tokens + self._attended(self.layer_norm1(tokens))
        return tokens + self.parallel_branch(tokens)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """The update of the tokens after their attention."""
        added: Tensor = self.mlp(self.layer_norm2(tokens))
        return added

    def _attended(self, normed: Tensor) -> Tensor:
        side = self.window_size
        if not side:
            whole: Tensor = self.attn(normed)
            return whole
        batch, height, width, dim = normed.shape
        normed = functional.pad(normed, (0, 0, 0, -width % side, 0, -height % side))
        down, across = normed.shape[1] // side, normed.shape[2] // side
        split = normed.view(batch, down, side, across, side, dim).transpose(2, 3)
        mixed: Tensor = self.attn(split.reshape(-1, side, side, dim))
        grid = mixed.view(batch, down, across, side, side, dim).transpose(2, 3)
        return grid.reshape(batch, down * side, across * side, dim)[:, :height, :width]


class RotaryAttention(nn.Module):
    """Attention among the tokens of each grid, whose positions rotate queries and keys.

    Source: RoPE, arXiv 2104.09864, along two axes. `unit` is the side of the grid whose positions
    are 0, 1, 2, ...; those of a larger grid lie closer.
    """

    def __init__(self, attention: Any, unit: int) -> None:
        super().__init__()
        self.num_heads: int = attention.num_attention_heads
        self.unit = unit
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        width = attention.q_proj.in_features
        self.qkv = nn.Linear(width, 3 * width, device="meta")
        self.qkv.weight = nn.Parameter(torch.cat([each.weight for each in parts]).detach())
        self.qkv.bias = nn.Parameter(torch.cat([each.bias for each in parts]).detach())
        self.proj: nn.Linear = attention.o_proj

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, h, w, d) -> the same."""
        count, height, width, _ = tokens.shape
        heads = self.num_heads
        split = self.qkv(tokens).reshape(count, height * width, 3, heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (N, heads, n, c) each
        table = rotation(height, width, query.shape[-1], self.unit / width, tokens.device)
        key, value = self.extended(rotated(key, table), value)
        mixed = functional.scaled_dot_product_attention(rotated(query, table), key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        return projected

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, n, c), with those of a tuning, which have no position."""
        return key, value


def rotated(tokens: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Tokens (N, heads, n, c) with each pair of neighboring numbers rotated by its angle."""
    cos, sin = table
    pairs = tokens.float().view(*tokens.shape[:-1], -1, 2)
    one, other = pairs.unbind(-1)
    turned = torch.stack([one * cos - other * sin, one * sin + other * cos], dim=-1)
    return turned.flatten(-2).to(tokens.dtype)


@lru_cache(maxsize=8)
def rotation(
    height: int, width: int, size: int, step: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (h * w, size / 2) of the angles at all cells of a grid, row by row.

    The first half turns with the column, the second with the row; neighbors are `step` apart.
    """
    with torch.inference_mode(False):  # kept for later calls with gradients
        rates = ROTATION_BASE ** (-torch.arange(0, size // 2, 2, device=device) / (size // 2))
        rows, columns = (torch.arange(n, device=device) * step for n in (height, width))
        down = (rows[:, None] * rates)[:, None].expand(-1, width, -1)
        across = (columns[:, None] * rates)[None].expand(height, -1, -1)
        angles = torch.cat([across, down], dim=-1).flatten(0, 1)
        return angles.cos(), angles.sin()
