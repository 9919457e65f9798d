"""Stock SAM in small: the reference of what a network of its shape computes."""

from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

WIDTH, DEPTH = 48, 3


def small_sam(side: int = 160, global_blocks: tuple[int, ...] = (1,)) -> Sam:
    """SAM's network with three narrow blocks and random numbers.

    The middle block is global, but where the image is as large as SAM's.
    """
    grid, width = side // 16, 32
    sam = Sam(
        ImageEncoderViT(
            img_size=side,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=3,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            out_chans=width,
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=global_blocks if side < 1024 else (),
        ),
        PromptEncoder(width, (grid, grid), (side, side), 16),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=4, mlp_dim=64),
        ),
    )
    if sam.prompt_encoder.no_mask_embed.weight.device.type != "meta":
        with torch.no_grad():
            for name, parameter in sam.named_parameters():
                if "rel_pos" in name or "pos_embed" in name:
                    parameter.normal_(std=0.3)
                elif parameter.ndim > 1 and "embed" not in name and "token" not in name:
                    parameter.mul_(3)  # so that every attention is far from even
    return sam.eval()
