"""Networks by name, and tuning strategies: what is trained besides the transfer layer.

Source of the strategies: https://github.com/mt-cly/SimMAT at a3f7d70, ``set_trainable_params`` of
``utils.py``, ``models/sam_*`` and ``conf/global_settings.py``. A strategy is one row of
`STRATEGIES`: the parts of a network that it trains, or a function that changes the network and
returns the parameters to be trained.
These are identified as objects, never by patterns in their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mode
from typing import Any, NamedTuple

import torch
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from napari_simmat.models import sam3_encoder
from napari_simmat.models.edgetam import ARCHITECTURE as EDGETAM
from napari_simmat.models.edgetam import RepVitEncoder, build_edgetam
from napari_simmat.models.hiera_encoder import (
    EMBEDDING,
    VARIANTS,
    HieraAttention,
    HieraBlock,
    HieraEncoder,
)
from napari_simmat.models.mobile_encoder import MobileEncoder, WindowAttention, WindowBlock
from napari_simmat.models.network import Network
from napari_simmat.models.peft_layers import (
    AdaptedBlock,
    AdaptedHieraBlock,
    AdaptedRotaryBlock,
    AdaptedTwoWayBlock,
    AdaptedWindowBlock,
    ExtendedAttention,
    ExtendedCrossAttention,
    ExtendedHieraAttention,
    ExtendedRotaryAttention,
    ExtendedTokenAttention,
    ExtendedWindowAttention,
    Extra,
    LearnedPrefix,
    LearnedTokens,
    LoRAConv2d,
    LoRAHeads,
    LoRALinear,
)
from napari_simmat.models.sam import build_sam
from napari_simmat.models.sam2 import build_sam2
from napari_simmat.models.sam3 import ARCHITECTURE as SAM3
from napari_simmat.models.sam3 import build_sam3
from napari_simmat.models.sam3_encoder import RotaryAttention, RotaryBlock
from napari_simmat.models.spec import EMBEDDED, ModelSpec, split_transfer
from napari_simmat.models.tiny import build_tiny
from napari_simmat.models.tiny_encoder import TokenAttention
from napari_simmat.models.transfer import transfer_layer

ARCHITECTURES = (*EMBEDDED, "vit_b", "vit_l", "vit_h", "vit_t", *VARIANTS, EDGETAM, SAM3)
_SAM_SHAPES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
"""Width and depth of the image encoder -> SAM's variant."""
NO_ATTENTION = (
    "EdgeTAM's image encoder has no attention, which strategy {} would change; use one of {}."
)
REFERENCE_WIDTH = 768
"""Token width to which the sizes of `STRATEGIES` refer: that of ViT-B."""
Parameters = Iterable[nn.Parameter]


def build_network(
    architecture: str,
    *,
    channels: int = 3,
    transfer: str = "zeroshot",
    strategy: str = "frozen",
    size: int | None = None,
    initialize: bool = True,
) -> Network:
    """A network in evaluation mode with random weights; only what is trained requires gradients.

    Parameters
    ----------
    architecture
        One of `ARCHITECTURES`.
    channels, transfer
        Number of input channels, and the transfer layer that takes them.
    strategy, size
        As for `tune`.
    initialize
        ``False`` leaves tensors on the meta device, to be assigned by
        ``load_state_dict(..., assign=True)``.

    Raises
    ------
    ValueError
        If the architecture, the transfer layer or the strategy is unknown, the size wrong, or a
        package missing.
    """
    if architecture in EMBEDDED:
        network: Network = build_tiny(architecture, initialize=initialize)
    elif architecture in VARIANTS:
        network = build_sam2(architecture, initialize=initialize)
    elif architecture == EDGETAM:
        network = build_edgetam(initialize=initialize)
    elif architecture == SAM3:
        network = build_sam3(initialize=initialize)
    elif architecture in ARCHITECTURES:
        network = build_sam(architecture, initialize=initialize)
    else:
        raise ValueError(
            f"Architecture {architecture!r} is unknown; choose from {', '.join(ARCHITECTURES)}."
        )
    parent, _, name = network.slot.rpartition(".")
    layer = transfer_layer(transfer, network.projection, channels)
    family, geometry = split_transfer(transfer)
    if architecture == SAM3 and family == "preattn" and sam3_encoder.SIDE % geometry[0]:
        raise ValueError(
            f"SAM 3 reads {sam3_encoder.SIDE} pixels a side, which {transfer} cannot cut into "
            f"patches of {geometry[0]}; use patches of 16."
        )
    setattr(network.get_submodule(parent), name, layer)
    tune(network, strategy, size)
    network.eval()
    return network


def network_of(spec: ModelSpec) -> Network:
    """The network that a description says, its tensors on the meta device."""
    return build_network(
        spec.base.architecture,
        channels=len(spec.channels),
        transfer=spec.transfer,
        strategy=spec.strategy,
        size=spec.strategy_size or None,
        initialize=False,
    )


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The architecture of these tensors, from their shapes; ValueError if it is unknown."""
    if "image_encoder.deep_tokens.weight" in state:
        return "tiny_lite"
    if "image_encoder.to_tokens.weight" in state:
        return "tiny_deep" if "image_encoder.local.mix.weight" in state else "tiny"
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return "vit_t"
    if "image_encoder.trunk.patch_embed.projection.weight" in state:
        return _hiera_of(state)
    if "image_encoder.trunk.body.stem.conv1.c.weight" in state:
        return EDGETAM
    if "image_encoder.patch_embed.projection.weight" in state:
        return SAM3
    position = state.get("image_encoder.pos_embed")
    depth = _count_blocks(state, "image_encoder.blocks.")
    width = position.shape[-1] if position is not None and position.ndim == 4 else 0
    try:
        return _SAM_SHAPES[width, depth]
    except KeyError:
        raise ValueError(
            f"The file's tensors fit none of {', '.join(ARCHITECTURES)} (encoder width {width}, "
            f"{depth} blocks). Choose a checkpoint of the original Segment Anything."
        ) from None


def _hiera_of(state: Mapping[str, Tensor]) -> str:
    width = len(state["image_encoder.trunk.patch_embed.projection.weight"])
    depth = _count_blocks(state, "image_encoder.trunk.blocks.")
    for architecture, variant in VARIANTS.items():
        if (variant.width, sum(variant.depths)) == (width, depth):
            return architecture
    raise ValueError(
        f"The file's tensors are of SAM 2, but of none of its sizes {', '.join(VARIANTS)} (width "
        f"{width}, {depth} blocks). Choose a published checkpoint of SAM 2.1, or one tuned from it."
    )


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """The highest number among the names that begin with a prefix and a number, plus 1."""
    numbers = (name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix))
    return 1 + max((int(each) for each in numbers if each.isdigit()), default=-1)


@dataclass(frozen=True)
class Strategy:
    """One way of tuning.

    Parameters
    ----------
    apply
        Changes a network for a size, and returns the parameters to train besides the transfer
        layer; None for a strategy that changes nothing.
    parts
        Modules of the network that it trains as they are.
    size
        Rank, bottleneck or number of tokens at `REFERENCE_WIDTH`; 0 if none.
    whole
        Whether a checkpoint contains all tensors of the network, including buffers.
    needs_attention
        Whether what it changes of an image encoder are attentions and their blocks.
    """

    apply: Callable[[Network, int], Parameters] | None = None
    parts: tuple[str, ...] = ()
    size: int = 0
    whole: bool = False
    needs_attention: bool = False


class TunedParameters(NamedTuple):
    """A strategy's size in a network, and the state-dict names of the trained tensors.

    The names include those of the transfer layer and are in the network's order.
    """

    size: int
    names: tuple[str, ...]


def tune(network: Network, strategy: str, size: int | None = None) -> TunedParameters:
    """Change a network with its transfer layer for a strategy, and train only its parameters.

    Parameters
    ----------
    strategy
        A name in `STRATEGIES`.
    size
        By default the paper's, scaled with the width of the encoder's tokens.

    Raises
    ------
    ValueError
        If the strategy is unknown, or the size is below 1, or given for a strategy without one.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Strategy {strategy!r} is unknown; use one of {', '.join(STRATEGIES)}.")
    row = STRATEGIES[strategy]
    if row.needs_attention and isinstance(network.image_encoder, RepVitEncoder):
        others = ", ".join(name for name, other in STRATEGIES.items() if not other.needs_attention)
        raise ValueError(NO_ATTENTION.format(strategy, others))
    if size is None:
        size = default_size(strategy, network)
    elif not row.size and size:
        raise ValueError(f"Strategy {strategy} has no size, {size} was given; leave it out.")
    elif row.size and size < 1:
        raise ValueError(f"The size of strategy {strategy} must be at least 1, got {size}.")
    with torch.device(network.projection.weight.device):
        chosen = {id(each) for each in (row.apply(network, size) if row.apply else ())}
    for part in row.parts:
        chosen |= {id(parameter) for parameter in network.get_submodule(part).parameters()}
    network.train(network.training)  # also the new modules
    transfer = network.transfer_names()
    names = []
    for name, parameter in network.named_parameters():
        trained = name in transfer or id(parameter) in chosen
        parameter.requires_grad_(trained)
        if trained:
            names.append(name)
    return TunedParameters(size, tuple(network.state_dict()) if row.whole else tuple(names))


def default_size(strategy: str, network: Network) -> int:
    """The paper's size, scaled from ViT-B's width to that of the network's tokens."""
    row = STRATEGIES[strategy]
    if isinstance(network.image_encoder, RepVitEncoder):
        return max(1, round(row.size * EMBEDDING / REFERENCE_WIDTH)) if row.size else 0
    widths = [block.attn.qkv.in_features for _, _, block in _blocks(network)]
    width = mode(widths) if isinstance(network.image_encoder, HieraEncoder) else widths[0]
    return max(1, round(row.size * width / REFERENCE_WIDTH)) if row.size else 0


def merge(network: Network) -> None:
    """Add low-rank updates to their weights: equal masks at no cost."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (LoRALinear, LoRAConv2d)):
                setattr(parent, name, child.merged())


def _linear(network: Network, size: int) -> Parameters:
    del size
    return (*network.projection.parameters(), *network.position_parameters())


def _lora(network: Network, size: int) -> Parameters:
    new: list[nn.Parameter] = []

    def replace(parent: nn.Module, name: str, parts: dict[str, tuple[int, int]]) -> None:
        layer = LoRALinear(getattr(parent, name), size, parts)
        setattr(parent, name, layer)
        new.extend((*layer.down.values(), *layer.up.values()))

    for _, _, block in _blocks(network):
        attention = block.attn
        if isinstance(attention, WindowAttention):
            attention.qkv = layer = LoRAHeads(attention.qkv, size, attention.num_heads)
            new.extend((*layer.down.values(), *layer.up.values()))
            continue
        width = attention.qkv.out_features // 3
        replace(attention, "qkv", {"q": (0, width), "v": (2 * width, 3 * width)})
    for parent, name in _decoder_attentions(network):
        attention = getattr(parent, name)
        for part in ("q", "v"):
            projection = getattr(attention, f"{part}_proj")
            replace(attention, f"{part}_proj", {part: (0, projection.out_features)})
    return new


def _lora_conv(network: Network, size: int) -> Parameters:
    """Also updates the encoder's convolutions, which are the greater part of `tiny`."""
    new = list(_lora(network, size))
    transfer = set(network.image_encoder.patch_embed.modules())
    for parent in list(network.image_encoder.modules()):
        for name, child in list(parent.named_children()):
            plain = isinstance(child, nn.Conv2d) and child.groups == 1
            if plain and child not in transfer:
                layer = LoRAConv2d(child, size)
                setattr(parent, name, layer)
                new.extend((layer.down, layer.up))
    return new


def _adapter(network: Network, size: int) -> Parameters:
    new: list[nn.Parameter] = []
    for blocks, index, block in _blocks(network):
        kind = next(ours for theirs, ours in _ADAPTED if isinstance(block, theirs))
        blocks[index] = adapted = kind(block, size)
        new.extend(adapted.adapter.parameters())
    layers = network.mask_decoder.transformer.layers
    for index, layer in enumerate(layers):
        layers[index] = adapted_layer = AdaptedTwoWayBlock(layer, size)
        new.extend(adapted_layer.adapter.parameters())
    return new


def _extended(network: Network, size: int, kind: type[Extra]) -> Parameters:
    """Adds learned tokens of a `kind` to every attention."""
    new: list[nn.Parameter] = []
    for _, _, block in _blocks(network):
        qkv = block.attn.qkv
        # Some attentions of Hiera project to another width.
        extra = kind(qkv.in_features if kind is LearnedTokens else qkv.out_features // 3, size)
        extended = next(ours for theirs, ours in _EXTENDED if isinstance(block.attn, theirs))
        block.attn = extended(block.attn, extra)
        new.extend(extra.parameters())
    for parent, name in _decoder_attentions(network):
        attention = getattr(parent, name)
        extra = kind(attention.embedding_dim, size)
        setattr(parent, name, ExtendedCrossAttention(attention, extra))
        new.extend(extra.parameters())
    return new


_EXTENDED: tuple[tuple[type[nn.Module], Callable[..., nn.Module]], ...] = (
    (WindowAttention, ExtendedWindowAttention),
    (TokenAttention, ExtendedTokenAttention),
    (HieraAttention, ExtendedHieraAttention),
    (RotaryAttention, ExtendedRotaryAttention),
    (Attention, ExtendedAttention),
)
"""Attention of an image encoder -> the same with learned tokens."""
_ADAPTED: tuple[tuple[type[nn.Module], Callable[..., Any]], ...] = (
    (WindowBlock, AdaptedWindowBlock),
    (HieraBlock, AdaptedHieraBlock),
    (RotaryBlock, AdaptedRotaryBlock),
    (nn.Module, AdaptedBlock),
)
"""Block of an image encoder -> the same with an adapter."""


def _blocks(network: Network) -> Iterator[tuple[nn.ModuleList, int, Any]]:
    """Every block of the image encoder that has attention, with its list and index."""
    encoder = network.image_encoder
    if isinstance(encoder, RepVitEncoder):
        lists = []
    elif isinstance(encoder, MobileEncoder):
        lists = [stage.blocks for stage in encoder.stages[1:]]
    else:
        lists = [encoder.blocks]
    for blocks in lists:
        for index, block in enumerate(blocks):
            yield blocks, index, block


def _decoder_attentions(network: Network) -> Iterator[tuple[nn.Module, str]]:
    transformer = network.mask_decoder.transformer
    for layer in transformer.layers:
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            yield layer, name
    yield transformer, "final_attn_token_to_image"


STRATEGIES: dict[str, Strategy] = {
    "frozen": Strategy(),
    "decoder": Strategy(parts=("mask_decoder",)),
    "linear": Strategy(_linear),
    "lora": Strategy(_lora, size=100, needs_attention=True),
    "lora_conv": Strategy(_lora_conv, size=100),
    "adapter": Strategy(_adapter, size=200, needs_attention=True),
    "prompt": Strategy(partial(_extended, kind=LearnedTokens), size=400, needs_attention=True),
    "prefix": Strategy(partial(_extended, kind=LearnedPrefix), size=200, needs_attention=True),
    "full": Strategy(parts=("image_encoder", "mask_decoder")),
    "scratch": Strategy(parts=("image_encoder", "prompt_encoder", "mask_decoder"), whole=True),
    "scratch_full": Strategy(parts=("image_encoder", "mask_decoder"), whole=True),
}
"""Titles are in `models.spec`. A new strategy is a new row; a test covers all rows."""
