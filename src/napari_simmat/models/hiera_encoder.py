"""SAM 2's image encoder: Hiera and a pyramid of its features, built by `transformers`.

Sources: Hiera, arXiv 2306.00989; SAM 2, arXiv 2408.00714. The modules and their tensors are those
of `transformers.Sam2VideoModel`. Blocks and attentions are given a forward pass of their own, which
strategies can extend (`models.tuning`), and which leaves out what theirs computes and never uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from napari_simmat._text import import_problem
from napari_simmat.models.network import replace_module

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

SIDE = 1024
"""Pixels along each side of the input."""
EMBEDDING = 256
NEEDS_TRANSFORMERS = (
    'SAM 2 needs the package transformers; install it (pip install "transformers>=5.18,<6").'
)


class HieraVariant(NamedTuple):
    """The shape of an encoder, by its four stages.

    Attributes
    ----------
    width
        Of the tokens of the first stage; each further stage doubles it.
    heads
        Of the attentions of the first stage; each further stage doubles them.
    depths
        Number of blocks of each stage.
    windows
        Side of each stage's windows in tokens.
    global_blocks
        Those without windows, counted from 0.
    background
        Height and width of the table of positions, which is enlarged to the image.
    """

    width: int
    heads: int
    depths: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    background: tuple[int, int]


VARIANTS = {
    "hiera_tiny": HieraVariant(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), (7, 7)),
    "hiera_small": HieraVariant(96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13), (7, 7)),
    "hiera_base_plus": HieraVariant(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), (14, 14)),
    "hiera_large": HieraVariant(144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43), (7, 7)),
}
"""By architecture; from ``sam2/configs/sam2.1`` of https://github.com/facebookresearch/sam2."""


def build_video_model(architecture: str) -> Sam2VideoModel:
    """SAM 2.1 as `transformers` builds it, with random weights, on torch's default device.

    Raises ValueError if `transformers` is not installed.
    """
    try:
        from transformers import Sam2VideoConfig, Sam2VideoModel
    except ImportError as error:
        raise ValueError(import_problem(error, "transformers", NEEDS_TRANSFORMERS)) from error
    variant = VARIANTS[architecture]
    widths = [variant.width * 2**stage for stage in range(4)]
    trunk = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": variant.width,
        "num_attention_heads": variant.heads,
        "blocks_per_stage": list(variant.depths),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [variant.heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(variant.windows),
        "global_attention_blocks": list(variant.global_blocks),
        "window_positional_embedding_background_size": list(variant.background),
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": trunk,
        "backbone_channel_list": widths[::-1],
        "backbone_feature_sizes": [[SIDE // stride] * 2 for stride in (4, 8, 16)],
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": SIDE},
        image_size=SIDE,
        memory_attention_rope_feat_sizes=[SIDE // 16] * 2,
    )
    return Sam2VideoModel(config)


class HieraEncoder(nn.Module):
    """Hiera with the pyramid's projections to one width."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.img_size = SIDE  # SAM's attribute
        self.trunk, self.neck = vision.backbone, vision.neck
        for index, block in enumerate(self.blocks):
            self.blocks[index] = HieraBlock(block)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of all stages, in order."""
        blocks: nn.ModuleList = self.trunk.blocks
        return blocks

    @property
    def patch_embed(self) -> nn.Module:
        """The module with the first projection."""
        embed: nn.Module = self.trunk.patch_embed
        return embed

    @property
    def stage_ends(self) -> Sequence[int]:
        """The last block of each stage."""
        ends: Sequence[int] = self.trunk.stage_ends
        return ends

    def embed(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> tokens with their positions, (B, H/4, W/4, d)."""
        tokens: Tensor = self.patch_embed(image)
        window: Tensor = self.trunk.pos_embed_window
        height, width = tokens.shape[1:3]
        wide = functional.interpolate(self.trunk.pos_embed, size=(height, width), mode="bicubic")
        repeated = window.tile(1, 1, height // window.shape[2], width // window.shape[3])
        return tokens + (wide + repeated).permute(0, 2, 3, 1)

    def pyramid(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the four stages (B, h, w, d), finest first, in one width.

        Returns maps (B, 256, h, w) at strides 4, 8 and 16; the coarsest stage is a part of the
        last one.
        """
        maps = [stage.permute(0, 3, 1, 2) for stage in stages]
        return feature_pyramid(self.neck.convs, maps)


class HieraBlock(nn.Module):
    """A block of `transformers`, with or without windows; some go to the next stage."""

    layer_norm1: nn.Module
    layer_norm2: nn.Module
    attn: HieraAttention
    mlp: nn.Module
    proj: nn.Module
    window_size: int
    query_stride: Sequence[int] | None
    dim: int
    dim_out: int

    def __init__(self, block: nn.Module) -> None:
        replace_module(self, block)
        self.attn = HieraAttention(self.attn)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same, or half of H and W and twice d at the start of a stage."""
        normed = self.layer_norm1(tokens)
        if self.dim != self.dim_out:
            tokens = pooled(self.proj(normed), self.stride)
        tokens = tokens + self._attended(normed, (tokens.shape[1], tokens.shape[2]))
        return tokens + self.parallel_branch(tokens)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """The update of the tokens after their attention."""
        added: Tensor = self.mlp(self.layer_norm2(tokens))
        return added

    @property
    def stride(self) -> int:
        """Tokens per token of the output, along each side."""
        return 1 if self.query_stride is None else int(self.query_stride[0])

    def _attended(self, normed: Tensor, size: tuple[int, int]) -> Tensor:
        """The attention of normed tokens, cut to the `size` of the output."""
        side = self.window_size
        if not side:
            whole: Tensor = self.attn(normed)
            return whole
        batch, height, width, dim = normed.shape
        normed = functional.pad(normed, (0, 0, 0, -width % side, 0, -height % side))
        down, across = normed.shape[1] // side, normed.shape[2] // side
        split = normed.view(batch, down, side, across, side, dim).transpose(2, 3)
        mixed: Tensor = self.attn(split.reshape(-1, side, side, dim))
        side //= self.stride
        grid = mixed.view(batch, down, across, side, side, -1).transpose(2, 3)
        grid = grid.reshape(batch, down * side, across * side, -1)
        return grid[:, : size[0], : size[1]]


class HieraAttention(nn.Module):
    """Attention among the tokens of each grid; queries may be pooled."""

    qkv: nn.Linear
    proj: nn.Linear
    num_attention_heads: int
    query_stride: Sequence[int] | None

    def __init__(self, attention: nn.Module) -> None:
        replace_module(self, attention)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, h, w, d) -> (N, h, w, d'), h and w divided by the stride of the queries."""
        count, height, width, _ = tokens.shape
        heads = self.num_attention_heads
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        if self.query_stride:
            query = pooled(query, int(self.query_stride[0]))
            height, width = query.shape[1:3]
        split = [
            each.reshape(count, -1, heads, each.shape[-1] // heads).transpose(1, 2)
            for each in (query, key, value)
        ]
        key, value = self.extended(split[1], split[2])
        mixed = functional.scaled_dot_product_attention(split[0], key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, height, width, -1))
        return projected

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, n, c), with those of a tuning."""
        return key, value


def feature_pyramid(
    convs: nn.ModuleList, stages: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (B, 256, h, w) at strides 4, 8 and 16 of those of four stages (B, d, h, w).

    The projections `convs` begin with that of the coarsest stage, which is added to the one before.
    """
    projected = [conv(stage) for conv, stage in zip(list(convs)[::-1], stages, strict=True)]
    fine, middle, coarse, coarsest = projected
    above = functional.interpolate(coarsest.float(), scale_factor=2.0, mode="nearest")
    return fine, middle, coarse + above.to(coarse.dtype)


def pooled(tokens: Tensor, stride: int) -> Tensor:
    """Tokens (B, H, W, d) by their maxima over squares."""
    # Contiguous: torch on Apple's GPUs has pooled strided views wrongly.
    image = tokens.permute(0, 3, 1, 2).contiguous()
    return functional.max_pool2d(image, stride, stride).permute(0, 2, 3, 1)
