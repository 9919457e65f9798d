"""Names of SAM 3's tensors: Meta's and the Hugging Face Hub's, turned into those of `models.sam3`.

The Hub's ``model.safetensors`` has the names of `transformers`, Meta's ``sam3.pt`` those of
https://github.com/facebookresearch/sam3. Both hold a detector, which looks for words, and a tracker
for clicks and memory, which is SAM 2's; they share the image encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from napari_simmat.checkpoints.sam2_names import (
    Rules,
    of_sam2_hub,
    of_sam2_meta,
    replaced,
)

if TYPE_CHECKING:
    from torch import Tensor

HUB_PREFIX = "detector_model.vision_encoder."
META_PREFIX = "detector.backbone.vision_backbone."
PART_OF_SAM3 = (
    "It holds one part of SAM 3 alone, its tracker or its detector. Choose the file with both: "
    "model.safetensors of https://huggingface.co/facebook/sam3, or Meta's sam3.pt."
)
_PARTS_OF_SAM3 = ("vision_encoder.backbone.layers.", "backbone.vision_backbone.trunk.blocks.")

_NOT_USED = re.compile(
    r"""
    \.neck\.fpn_layers\.3\. | ^tracker_neck\.fpn_layers\.3\.  # the coarsest level of the pyramid
    | \.(sam2_)?convs\.3\.
    | ^tracker_model\.shared_image_embedding\.  # a second copy of the positions
    | \.attn\.freqs_cis$  # positions, which are computed
    | ^detector\.geometry_encoder\.points_  # points as examples, for which there are clicks
    | ^detector\.transformer\.decoder\.instance_
    """,
    re.VERBOSE,
)
"""What both files hold and nothing here reads."""

_OF_META: Rules = (
    (r"^tracker\.transformer\.encoder\.", "memory_attention."),
    (r"^tracker\.maskmem_backbone\.", "memory_encoder."),
    (r"^tracker\.", ""),
    (r"^detector\.backbone\.vision_backbone\.trunk\.", "image_encoder."),
    (r"^image_encoder\.patch_embed\.proj\.", "image_encoder.patch_embed.projection."),
    (r"^image_encoder\.ln_pre\.", "image_encoder.layer_norm."),
    (r"^(image_encoder\.blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^detector\.backbone\.vision_backbone\.sam2_convs\.", "image_encoder.neck.fpn_layers."),
    (r"^detector\.", "words.detector."),
    (r"\.backbone\.vision_backbone\.convs\.", ".vision_encoder.neck.fpn_layers."),
    (r"(\.fpn_layers\.\d)\.dconv_2x2(_0)?\.", r"\1.scale_layers.0."),
    (r"(\.fpn_layers\.\d)\.dconv_2x2_1\.", r"\1.scale_layers.2."),
    (r"(\.fpn_layers\.\d)\.conv_1x1\.", r"\1.proj1."),
    (r"(\.fpn_layers\.\d)\.conv_3x3\.", r"\1.proj2."),
    (r"\.backbone\.language_backbone\.resizer\.", ".text_projection."),
    (r"\.backbone\.language_backbone\.encoder\.", ".text_encoder."),
    (r"\.text_encoder\.token_embedding\.", ".text_encoder.text_model.embeddings.token_embedding."),
    (
        r"\.text_encoder\.positional_embedding$",
        ".text_encoder.text_model.embeddings.position_embedding.weight",
    ),
    (r"\.text_encoder\.ln_final\.", ".text_encoder.text_model.final_layer_norm."),
    (r"\.text_encoder\.text_projection$", ".text_encoder.text_projection.weight"),
    (r"\.text_encoder\.transformer\.resblocks\.", ".text_encoder.text_model.encoder.layers."),
    (r"(\.text_model\.encoder\.layers\.\d+)\.ln_(\d)\.", r"\1.layer_norm\2."),
    (r"(\.text_model\.encoder\.layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"(\.text_model\.encoder\.layers\.\d+\.mlp)\.c_fc\.", r"\1.fc1."),
    (r"(\.text_model\.encoder\.layers\.\d+\.mlp)\.c_proj\.", r"\1.fc2."),
    (r"\.geometry_encoder\.img_pre_norm\.", ".geometry_encoder.vision_layer_norm."),
    (r"\.geometry_encoder\.norm\.", ".geometry_encoder.prompt_layer_norm."),
    (r"\.geometry_encoder\.encode_norm\.", ".geometry_encoder.output_layer_norm."),
    (r"\.geometry_encoder\.encode\.", ".geometry_encoder.layers."),
    (r"\.detector\.transformer\.(en|de)coder\.", r".detector.detr_\1coder."),
    (r"\.presence_token_head\.", ".presence_head."),
    (r"\.presence_token_out_norm\.", ".presence_layer_norm."),
    (r"\.detr_decoder\.norm\.", ".detr_decoder.output_layer_norm."),
    (r"\.bbox_embed\.", ".box_head."),
    (r"\.boxRPB_embed_([xy])\.", r".box_rpb_embed_\1."),
    (r"(\.detr_decoder\.layers\.\d+)\.cross_attn\.", r"\1.vision_cross_attn."),
    (r"(\.detr_decoder\.layers\.\d+)\.ca_text\.", r"\1.text_cross_attn."),
    (r"(\.detr_decoder\.layers\.\d+)\.norm1\.", r"\1.vision_cross_attn_layer_norm."),
    (r"(\.detr_decoder\.layers\.\d+)\.catext_norm\.", r"\1.text_cross_attn_layer_norm."),
    (r"(\.detr_decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"(\.detr_decoder\.layers\.\d+)\.norm3\.", r"\1.mlp_layer_norm."),
    (r"(\.(?:geometry|detr)_encoder\.layers\.\d+)\.cross_attn_image\.", r"\1.cross_attn."),
    (r"(\.(?:geometry|detr)_encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"(\.(?:geometry|detr)_(?:en|de)coder\.layers\.\d+)\.linear(\d)\.", r"\1.mlp.fc\2."),
    (r"\.dot_prod_scoring\.prompt_mlp\.out_norm\.", ".dot_product_scoring.text_mlp_out_norm."),
    (r"\.dot_prod_scoring\.prompt_(mlp|proj)\.", r".dot_product_scoring.text_\1."),
    (r"\.dot_prod_scoring\.hs_proj\.", ".dot_product_scoring.query_proj."),
    (r"\.segmentation_head\.mask_predictor\.mask_embed\.", ".mask_decoder.mask_embedder."),
    (r"\.segmentation_head\.(instance|semantic)_seg_head\.", r".mask_decoder.\1_projection."),
    (r"\.segmentation_head\.cross_attend_prompt\.", ".mask_decoder.prompt_cross_attn."),
    (r"\.segmentation_head\.cross_attn_norm\.", ".mask_decoder.prompt_cross_attn_norm."),
    (r"\.segmentation_head\.pixel_decoder\.", ".mask_decoder.pixel_decoder."),
)
"""One after the other; the tracker's then have the names of SAM 2."""
_MLPS = re.compile(
    r"(\.(?:presence_head|box_head|ref_point_head|box_rpb_embed_[xy]|text_mlp))\.layers\.(\d)\."
)
"""Meta counts the layers of a perceptron from 0, `transformers` calls them layer1, layer2, ..."""
_OUT_PROJECTION = re.compile(
    r"^(words\.detector\.(?:geometry_encoder|detr_encoder|detr_decoder|mask_decoder)\..*)\.out_proj\."
)
_OF_HUB: Rules = (
    (
        r"^detector_model\.vision_encoder\.backbone\.embeddings\.position_embeddings$",
        "image_encoder.pos_embed",
    ),
    (
        r"^detector_model\.vision_encoder\.backbone\.embeddings\.patch_embeddings\.",
        "image_encoder.patch_embed.",
    ),
    (r"^detector_model\.vision_encoder\.backbone\.layer_norm\.", "image_encoder.layer_norm."),
    (r"^detector_model\.vision_encoder\.backbone\.layers\.", "image_encoder.blocks."),
    (r"^(image_encoder\.blocks\.\d+)\.attention\.o_proj\.", r"\1.attn.proj."),
    (r"^(image_encoder\.blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"^tracker_neck\.", "image_encoder.neck."),
    (r"^detector_model\.", "words.detector."),
)
_OF_ENCODER = re.compile(r"^(image_encoder\.blocks\.\d+\.attn)\.([qkv])_proj\.(weight|bias)$")


def is_of_sam3_hub(names: Iterable[str]) -> bool:
    """Whether these are names of SAM 3's tensors on the Hub."""
    return any(name.startswith((HUB_PREFIX, _PARTS_OF_SAM3[0])) for name in names)


def is_of_sam3(names: Iterable[str]) -> bool:
    """Whether these are names of SAM 3's tensors, Meta's or the Hub's, or of a part of it."""
    return any(name.startswith((HUB_PREFIX, META_PREFIX, *_PARTS_OF_SAM3)) for name in names)


def without_unused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of SAM 3 without those that nothing here reads."""
    return {name: each for name, each in tensors.items() if not _NOT_USED.search(name)}


def renamed_sam3(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of SAM 3 under the names of `models.sam3`.

    Raises ValueError if the file holds a part of SAM 3 alone.
    """
    if not any(name.startswith((HUB_PREFIX, META_PREFIX)) for name in tensors):
        raise ValueError(PART_OF_SAM3)
    used = without_unused(tensors)
    if any(name.startswith(META_PREFIX) for name in used):
        return _renamed_from_meta(used)
    of_tracker = {
        name.removeprefix("tracker_model."): each
        for name, each in used.items()
        if name.startswith("tracker_model.")
    }
    others = {
        replaced(name, _OF_HUB): each
        for name, each in used.items()
        if not name.startswith("tracker_model.")
    }
    return {**_joined(others), **of_sam2_hub(of_tracker)}


def _renamed_from_meta(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, each in tensors.items():
        found = replaced(name, _OF_META)
        if name.startswith("tracker."):
            renamed[of_sam2_meta(found)] = each
            continue
        found = _MLPS.sub(lambda match: f"{match[1]}.layer{int(match[2]) + 1}.", found)
        found = _OUT_PROJECTION.sub(r"\1.o_proj.", found)
        if found.endswith((".in_proj_weight", ".in_proj_bias")):
            stem, _, kind = found.rpartition(".in_proj_")
            for part, rows in zip("qkv", each.chunk(3), strict=True):
                renamed[f"{stem}.{part}_proj.{kind}"] = rows
        elif found == "image_encoder.pos_embed" and each.ndim == 3:
            renamed[found] = each[:, 1:]  # the first is of a token that is not used
        elif found.endswith(".text_encoder.text_projection.weight"):
            renamed[found] = each.T
        else:
            renamed[found] = each
    return renamed


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of the image encoder's attentions as one projection."""
    import torch

    parts: dict[str, dict[str, Tensor]] = {}
    joined: dict[str, Tensor] = {}
    for name, each in tensors.items():
        found = _OF_ENCODER.match(name)
        if found is None:
            joined[name] = each
        else:
            parts.setdefault(f"{found[1]}.qkv.{found[3]}", {})[found[2]] = each
    for name, three in parts.items():
        if len(three) == 3:  # else the name is missing, which is said
            joined[name] = torch.cat([three[part] for part in "qkv"])
    return joined
