"""The authors' names of trained tensors, and what they say: transfer layer, strategy, sizes.

Source: https://github.com/mt-cly/SimMAT, where SAM's modules keep SAM's names and what is added
has names of its own. B = ``image_encoder.blocks.{i}``, L = ``mask_decoder.transformer.layers.{j}``,
A = ``B.attn`` or any attention of the mask decoder:

=============  ===================================================================
transfer       ``image_encoder.projector.{zip_proj.{0,2},zip_rgbx,patch_embedding}``
LoRA           ``A.lora_{q,v}_{a,b}.weight``, (r, d) and (d, r)
adapter        ``{B,L}.Adapter_mlp.{down,up}_proj``
prompt tuning  ``A.deep_prompt_embeddings``, (1, l, d)
prefix tuning  ``A.prefix_{key,value}_embeddings``, (1, l, d)
=============  ===================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]

NETWORKS = {
    "sam_full_finetune": "full",
    "sam_linear_probing": "linear",
    "sam_lora": "lora",
    "sam_mlp_adapter": "adapter",
    "sam_prompt": "prompt",
    "sam_prefix": "prefix",
}
"""The authors' names of networks -> our strategies."""

FROZEN = "prompt_encoder."
"""Start of the names of tensors that may be in a file although they are never trained."""

_PROJECTOR = "image_encoder.projector."
_SLOT = "image_encoder.patch_embed.proj."

# The tensor whose shape tells the size of a strategy, and which axis does.
_SIZES = {
    "lora": (r"\.lora_q_a\.weight", 0),
    "adapter": (r"\.Adapter_mlp\.down_proj\.weight", 0),
    "prompt": (r"\.deep_prompt_embeddings", 1),
    "prefix": (r"\.prefix_key_embeddings", 1),
}
# The tensors that have the width of the encoder's tokens, and which axis is it.
_WIDTHS = (
    (r"image_encoder\.blocks\.\d+\.attn\.lora_q_a\.weight", 1),
    (r"image_encoder\.blocks\.\d+\.Adapter_mlp\.down_proj\.weight", 1),
    (r"image_encoder\.blocks\.\d+\.attn\.(deep_prompt|prefix_key)_embeddings", 2),
    (r"image_encoder\.pos_embed", 3),
)
_RULES = (
    (re.escape(_PROJECTOR) + r"zip_proj\.([02])\.(weight|bias)", _SLOT + r"mat.\1.\2"),
    (re.escape(_PROJECTOR) + r"zip_rgbx\.(weight|bias)", _SLOT + r"squeeze.\1"),
    (re.escape(_PROJECTOR) + r"patch_embedding\.(weight|bias)", _SLOT + r"\1"),
    # One projection makes queries, keys and values in the encoder, three do in the decoder.
    (r"(image_encoder\..+)\.lora_([qv])_a\.weight", r"\1.qkv.down.\2"),
    (r"(image_encoder\..+)\.lora_([qv])_b\.weight", r"\1.qkv.up.\2"),
    (r"(mask_decoder\..+)\.lora_([qv])_a\.weight", r"\1.\2_proj.down.\2"),
    (r"(mask_decoder\..+)\.lora_([qv])_b\.weight", r"\1.\2_proj.up.\2"),
    (r"(.+)\.Adapter_mlp\.(down|up)_proj\.(weight|bias)", r"\1.adapter.\2.\3"),
    (r"(.+)\.deep_prompt_embeddings", r"\1.extra.tokens"),
    (r"(.+)\.prefix_(key|value)_embeddings", r"\1.extra.\2"),
)


@dataclass(frozen=True)
class Recognised:
    """What the names and shapes of a file's tensors say.

    Parameters
    ----------
    transfer, strategy
        Our names.
    channels
        Of the first layer.
    size
        Rank, bottleneck or number of tokens; 0 where there is none.
    width, depth
        Of the image encoder; 0 if the tensors do not tell.
    """

    transfer: str
    strategy: str
    channels: int
    size: int
    width: int
    depth: int


def recognise(shapes: Shapes) -> Recognised:
    """Tell what was trained from the shapes of tensors under the authors' names.

    Raises
    ------
    ValueError
        If the first layer has no channels.
    """
    transfer, first = _first_layer(shapes)
    if first is not None and len(first) != 4:
        raise ValueError(f"Its first layer has the shape {first} instead of four axes.")
    strategy = _strategy(shapes)
    pattern, axis = _SIZES.get(strategy, ("", 0))
    widths = (_axis(shapes, *each) for each in _WIDTHS)
    blocks = [re.match(r"image_encoder\.blocks\.(\d{1,4})\.", name) for name in shapes]
    return Recognised(
        transfer,
        strategy,
        channels=3 if first is None else first[1],
        size=_axis(shapes, f".+{pattern}", axis) if pattern else 0,
        width=next((width for width in widths if width), 0),
        depth=max((int(block[1]) + 1 for block in blocks if block), default=0),
    )


def translated(names: Iterable[str], transfer: str) -> dict[str, str]:
    """Our names of tensors -> the authors', without the frozen prompt encoder's.

    A baseline puts a projection of its own in the place of SAM's, which stays in the authors'
    network without being used, and in the files where it counts as trained: it is left out.

    Raises
    ------
    ValueError
        If two names stand for one tensor.
    """
    idle = _SLOT if transfer in ("baseline_a", "baseline_b") else None
    result: dict[str, str] = {}
    for name in names:
        if name.startswith(FROZEN) or (idle and name.startswith(idle)):
            continue
        ours = _ours(name)
        if ours in result:
            raise ValueError(f"Its tensors {result[ours]} and {name[:100]} are the same one.")
        result[ours] = name
    return result


def _ours(name: str) -> str:
    for pattern, replacement in _RULES:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    return name


def _first_layer(shapes: Shapes) -> tuple[str, tuple[int, ...] | None]:
    """The transfer layer, and the shape (out, channels, height, width) of its first part."""
    for transfer, layer in (
        ("simmat", "zip_proj.0"),
        ("baseline_b", "zip_rgbx"),
        ("baseline_a", "patch_embedding"),
    ):
        if (shape := shapes.get(f"{_PROJECTOR}{layer}.weight")) is not None:
            return transfer, shape
    return "zeroshot", None


def _strategy(shapes: Shapes) -> str:
    for strategy, (pattern, _) in _SIZES.items():
        if any(re.search(pattern, name) for name in shapes):
            return strategy
    if any(name.startswith(("image_encoder.blocks.", "mask_decoder.")) for name in shapes):
        return "full"
    return "linear" if "image_encoder.pos_embed" in shapes else "frozen"


def _axis(shapes: Shapes, pattern: str, axis: int) -> int:
    """The length of an axis of the first tensor whose name fits; 0 if there is none."""
    for name, shape in shapes.items():
        if re.fullmatch(pattern, name) and len(shape) > axis:
            return shape[axis]
    return 0
