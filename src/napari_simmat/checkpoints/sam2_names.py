"""Names of SAM 2's tensors: Meta's and the Hugging Face Hub's, turned into those of `models.sam2`.

Meta publishes ``.pt`` files with the names of https://github.com/facebookresearch/sam2, the Hub
safetensors with those of `transformers`. Both hold the same tensors; the four embeddings of points
are one tensor on the Hub, which holds the matrix of positions twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

META_PREFIX = "image_encoder.trunk."
HUB_PREFIX = "vision_encoder.backbone."
EDGETAM_PREFIX = "image_encoder.trunk.body."
POINTS = "prompt_encoder.point_embed.weight"
_EDGETAM_MEMORY = ("memory.", "spatial_perceiver.")
"""What its memory is made of, which `models.edgetam` leaves out."""
_SECOND_POSITIONS = "shared_image_embedding.positional_embedding"

Rules = tuple[tuple[str, str], ...]
_OF_META: Rules = (
    (r"^(image_encoder\.trunk\.patch_embed)\.proj\.", r"\1.projection."),
    (r"^(image_encoder\.trunk\.blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(image_encoder\.trunk\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"^(image_encoder\.trunk\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"^(image_encoder\.neck\.convs\.\d+)\.conv\.", r"\1."),
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
    (r"^memory_attention\.", "memory.attention."),
    (r"^(memory\.attention\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^memory\.attention\.norm\.", "memory.attention.layer_norm."),
    (r"^(memory\.attention\..+)\.out_proj\.", r"\1.o_proj."),
    (r"^memory_encoder\.", "memory.encoder."),
    (r"^(memory\.encoder\.mask_downsampler)\.encoder\.12\.", r"\1.final_conv."),
    (r"^(memory\.encoder)\.pix_feat_proj\.", r"\1.feature_projection."),
    (r"^(memory\.encoder)\.out_proj\.", r"\1.projection."),
    (r"^(memory\.encoder)\.fuser\.", r"\1.memory_fuser."),
    (r"(\.memory_fuser\.layers\.\d+)\.dwconv\.", r"\1.depthwise_conv."),
    (r"(\.memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"(\.memory_fuser\.layers\.\d+)\.pwconv(\d)\.", r"\1.pointwise_conv\2."),
    (r"(\.memory_fuser\.layers\.\d+)\.gamma$", r"\1.scale"),
    (r"^obj_ptr_proj\.layers\.0\.", "memory.pointer.proj_in."),
    (r"^obj_ptr_proj\.layers\.1\.", "memory.pointer.layers.0."),
    (r"^obj_ptr_proj\.layers\.2\.", "memory.pointer.proj_out."),
    (r"^obj_ptr_tpos_proj\.", "memory.pointer_times."),
    (r"^mask_downsample\.", "memory.mask_downsample."),
    (r"^maskmem_tpos_enc$", "memory.times"),
    (r"^no_mem_pos_enc$", "memory.no_memory_position"),
    (r"^no_obj_ptr$", "memory.no_pointer"),
    (r"^no_obj_embed_spatial$", "memory.absent"),
)
_DOWNSAMPLER = re.compile(r"^(memory\.encoder\.mask_downsampler)\.encoder\.(\d+)\.")
"""Of Meta: convolution, norm and activation of four layers, one after the other."""
_OF_HUB: Rules = (
    (r"^vision_encoder\.backbone\.timm_model\.", EDGETAM_PREFIX),
    (r"^vision_encoder\.backbone\.", META_PREFIX),
    (r"^vision_encoder\.neck\.", "image_encoder.neck."),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^(mask_decoder\.transformer)\.layer_norm_final_attn\.", r"\1.norm_final_attn."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_in\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_out\.", r"\1.lin2."),
    (r"^(mask_decoder\.transformer\..+)\.o_proj\.", r"\1.out_proj."),
    # The middle layer first: it takes the place of the first one.
    (r"^(mask_decoder\.(?!transformer)\w+(?:\.\d+)?)\.layers\.0\.", r"\1.layers.1."),
    (r"^(mask_decoder\.(?!transformer)\w+(?:\.\d+)?)\.proj_in\.", r"\1.layers.0."),
    (r"^(mask_decoder\.(?!transformer)\w+(?:\.\d+)?)\.proj_out\.", r"\1.layers.2."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^memory_attention\.", "memory.attention."),
    (r"^memory_encoder\.", "memory.encoder."),
    (r"^object_pointer_proj\.", "memory.pointer."),
    (r"^temporal_positional_encoding_projection_layer\.", "memory.pointer_times."),
    (r"^mask_downsample\.", "memory.mask_downsample."),
    (r"^memory_temporal_positional_encoding$", "memory.times"),
    (r"^no_memory_positional_encoding$", "memory.no_memory_position"),
    (r"^no_object_pointer$", "memory.no_pointer"),
    (r"^occlusion_spatial_embedding_parameter$", "memory.absent"),
)


def is_of_hub(names: Iterable[str]) -> bool:
    """Whether these are names of SAM 2's tensors on the Hub."""
    return any(name.startswith(HUB_PREFIX) for name in names)


def renamed_sam2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of `models.sam2`; others as they are."""
    renamed = dict(tensors)
    if is_of_hub(tensors):
        renamed = of_sam2_hub(tensors)
    elif any(name.startswith("sam_mask_decoder.") for name in tensors):
        renamed = {of_sam2_meta(name): each for name, each in tensors.items()}
    if any(name.startswith(EDGETAM_PREFIX) for name in renamed):
        return {
            name: each for name, each in renamed.items() if not name.startswith(_EDGETAM_MEMORY)
        }
    return renamed


def of_sam2_meta(name: str) -> str:
    """The name in `models.sam2` of a tensor of Meta's."""
    found = replaced(name, _OF_META)

    def layer(match: re.Match[str]) -> str:
        number, part = divmod(int(match[2]), 3)
        return f"{match[1]}.layers.{number}.{('conv', 'layer_norm', 'activation')[part]}."

    return _DOWNSAMPLER.sub(layer, found)


def of_sam2_hub(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of the Hub under the names of `models.sam2`."""
    renamed: dict[str, Any] = {}
    for name, each in tensors.items():
        if name == POINTS and each.ndim == 2:
            for kind, row in enumerate(each):
                renamed[f"prompt_encoder.point_embeddings.{kind}.weight"] = row[None]
        elif name == "prompt_encoder.not_a_point_embed.weight":
            renamed[name] = each
        elif name != _SECOND_POSITIONS:
            renamed[replaced(name, _OF_HUB)] = each
    return renamed


def replaced(name: str, rules: Rules) -> str:
    """A name after all rules, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
