"""The networks by name: SAM's three sizes and the embedded ones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from napari_simmat.model.network import Network
from napari_simmat.model.sam import build_sam
from napari_simmat.model.spec import EMBEDDED
from napari_simmat.model.tiny import build_tiny
from napari_simmat.model.transfer import transfer_layer
from napari_simmat.model.tuning import tune

ARCHITECTURES = (*EMBEDDED, "vit_b", "vit_l", "vit_h")

# Width and depth of the image encoder tell SAM's variants apart.
_SAM_SHAPES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}


def build_network(
    architecture: str,
    *,
    channels: int = 3,
    transfer: str = "zeroshot",
    strategy: str = "frozen",
    size: int | None = None,
    initialize: bool = True,
) -> Network:
    """A network in evaluation mode, with random weights.

    What is trained, and nothing else, requires a gradient.

    Parameters
    ----------
    architecture
        One of `ARCHITECTURES`.
    channels, transfer
        The transfer layer in the first projection's slot and its number of input channels.
    strategy, size
        What is trained beside it, as `tune` has them.
    initialize
        ``False`` leaves tensors on the meta device, to be assigned by
        ``load_state_dict(..., assign=True)``.

    Raises
    ------
    ValueError
        If the architecture, the transfer layer or the strategy is unknown, or the size wrong.
    """
    if architecture in EMBEDDED:
        local = architecture == "tiny_local"
        network: Network = build_tiny(local=local, initialize=initialize)
    elif architecture in ARCHITECTURES:
        network = build_sam(architecture, initialize=initialize)
    else:
        raise ValueError(
            f"Architecture {architecture!r} is unknown; choose from {', '.join(ARCHITECTURES)}."
        )
    network.replace_projection(transfer_layer(transfer, network.projection, channels))
    tune(network, strategy, size)
    network.eval()
    return network


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The architecture whose tensors these are, told from their shapes.

    Raises
    ------
    ValueError
        If they belong to none.
    """
    if "image_encoder.to_tokens.weight" in state:
        return "tiny_local" if "image_encoder.local.mix.weight" in state else "tiny"
    position = state.get("image_encoder.pos_embed")
    depth = 1 + max(
        (
            int(name.split(".")[2])
            for name in state
            if name.startswith("image_encoder.blocks.") and name.split(".")[2].isdigit()
        ),
        default=-1,
    )
    width = position.shape[-1] if position is not None and position.ndim == 4 else 0
    try:
        return _SAM_SHAPES[width, depth]
    except KeyError:
        raise ValueError(
            f"The file's tensors fit none of {', '.join(ARCHITECTURES)} (encoder width {width}, "
            f"{depth} blocks). Choose a checkpoint of the original Segment Anything."
        ) from None
