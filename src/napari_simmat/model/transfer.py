"""Transfer layers: how any number of channels enters a network made for three.

All stand in one slot, the network's first projection, and keep the names of the convolution
they replace: base weights load strictly, and a checkpoint holds what was trained, no name more.
Source: SimMAT, arXiv 2409.08083, section 3 (the modality-agnostic transfer layer, MAT).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

RGB = 3
HIDDEN = 64


class MAT(nn.Conv2d):
    """SimMAT's transfer layer before a pretrained projection; `weight` and `bias` keep their names.

    ``Conv 3x3 (C -> 64), ReLU, Conv 3x3 (64 -> 3)``, both with stride 1 and padding 1, then the
    projection from three channels.
    """

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(
            projection.in_channels,
            projection.out_channels,
            projection.kernel_size,  # type: ignore[arg-type]
            projection.stride,  # type: ignore[arg-type]
            projection.padding,  # type: ignore[arg-type]
            bias=projection.bias is not None,
            device="meta",
        )
        self.weight, self.bias = projection.weight, projection.bias
        self.mat = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, RGB, 3, padding=1),
        )

    @property
    def transfer_names(self) -> list[str]:
        """Names of the layer's own tensors, relative to the slot."""
        return [f"mat.{name}" for name in self.mat.state_dict()]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        return super().forward(self.mat(image))


def _zeroshot(projection: nn.Conv2d, channels: int) -> nn.Conv2d:
    if channels != RGB:
        raise ValueError(
            f"Without a transfer layer the network takes {RGB} channels, not {channels}; "
            "use the transfer layer 'simmat'."
        )
    return projection


TRANSFERS: dict[str, Callable[[nn.Conv2d, int], nn.Conv2d]] = {
    "zeroshot": _zeroshot,
    "simmat": MAT,
}
"""Name -> (the base's projection, channels) -> what stands in the slot instead."""


def transfer_layer(name: str, projection: nn.Conv2d, channels: int) -> nn.Conv2d:
    """What stands in the slot for the transfer layer `name` and that many `channels`.

    Raises
    ------
    ValueError
        If the name is unknown or the layer cannot take that many channels.
    """
    if name not in TRANSFERS:
        raise ValueError(f"Transfer layer {name!r} is unknown; choose from {', '.join(TRANSFERS)}.")
    if channels < 1:
        raise ValueError(f"A model needs at least one channel, got {channels}.")
    with torch.device(projection.weight.device):
        return TRANSFERS[name](projection, channels)
