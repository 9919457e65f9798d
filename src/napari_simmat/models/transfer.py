"""Transfer layers: any number of channels into a network made for three.

All replace one module, the network's first projection, and keep its parameters' names: base weights
load strictly, and a checkpoint contains the trained parameters only.
Source: SimMAT, arXiv 2409.08083, section 3 (the modality-agnostic transfer layer, MAT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from napari_simmat.models.network import conv_arguments

RGB = 3
HIDDEN = 64
STRIP = 32
"""Rows of an image that a CPU processes at once."""


def transfer_layer(name: str, projection: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The replacement of the first projection by the transfer layer `name` for `channels`.

    Raises ValueError if the name is unknown or the layer cannot take that many channels.
    """
    if name not in TRANSFERS:
        raise ValueError(f"Transfer layer {name!r} is unknown; choose from {', '.join(TRANSFERS)}.")
    if channels < 1:
        raise ValueError(f"A model needs at least one channel, got {channels}.")
    layer = TRANSFERS[name]
    if layer is None and channels != RGB:
        raise ValueError(
            f"Without a transfer layer the network takes {RGB} channels, not {channels}; "
            "use the transfer layer 'simmat'."
        )
    with torch.device(projection.weight.device):
        return projection if layer is None else layer(projection, channels)


class _Projected(nn.Conv2d):
    """A pretrained projection behind further layers; `weight` and `bias` keep their names."""

    base_names: tuple[str, ...] = ("weight", "bias")
    """Tensors of the layer that belong to the base; see `Network.transfer_names`."""

    def __init__(self, projection: nn.Conv2d) -> None:
        super().__init__(**conv_arguments(projection), device="meta")
        self.weight, self.bias = projection.weight, projection.bias


class MAT(_Projected):
    """SimMAT's transfer layer before a pretrained projection.

    ``Conv 3x3 (C -> 64), ReLU, Conv 3x3 (64 -> 3)``, both with stride 1 and padding 1, then the
    projection from three channels.
    """

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(projection)
        self.mat = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, RGB, 3, padding=1),
        )

    @torch.no_grad()
    def pass_on(self, taken: Sequence[int], scale: Tensor, shift: Tensor) -> None:
        """Initialize the layer to pass on ``scale * channel + shift`` of three channels `taken`.

        Two hidden units carry a channel, one its positive and one its negative part; the others
        keep their random weights, so that training can use them. For 3 channels in order, with
        scale 1 and shift 0 (3,), the network then equals the foundation.
        """
        first, _, last = self.mat
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        assert first.bias is not None
        assert last.bias is not None
        first.weight[: 2 * RGB] = 0
        first.bias[: 2 * RGB] = 0
        last.weight.zero_()
        last.bias.copy_(shift)
        for output, channel in enumerate(taken):
            for unit, sign in ((2 * output, 1.0), (2 * output + 1, -1.0)):
                first.weight[unit, channel, 1, 1] = sign
                last.weight[output, unit, 1, 1] = sign * scale[output]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        if image.device.type == "cpu" and not torch.is_grad_enabled():
            return super().forward(self._in_strips(image))
        return super().forward(self.mat(image))

    def _in_strips(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W), a few rows at a time to save memory.

        The two 3x3 convolutions of a strip depend on two rows beyond it.
        """
        height = image.shape[-2]
        first_mix, _, last_mix = self.mat
        strips = []
        for start in range(0, height, STRIP):
            end = min(start + STRIP, height)
            first = max(start - 2, 0)
            strip = image[..., first : end + 2, :].contiguous(memory_format=torch.channels_last)
            hidden = first_mix(strip).relu_()  # in place: allocating takes longer than the ReLU
            strips.append(last_mix(hidden)[..., start - first : end - first, :])
        return torch.cat(strips, dim=-2)


class BaselineA(nn.Conv2d):
    """The paper's baseline A: a new projection from C channels in place of the pretrained one."""

    base_names: tuple[str, ...] = ()

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(**conv_arguments(projection) | {"in_channels": channels})


class BaselineB(_Projected):
    """The paper's baseline B: ``Conv 1x1 (C -> 3)``, then a copy of the projection, trained too."""

    base_names: tuple[str, ...] = ()

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(projection)
        self.squeeze = nn.Conv2d(channels, RGB, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        return super().forward(self.squeeze(image))


TRANSFERS: dict[str, Callable[[nn.Conv2d, int], nn.Conv2d] | None] = {
    "zeroshot": None,
    "simmat": MAT,
    "baseline_a": BaselineA,
    "baseline_b": BaselineB,
}
"""Name -> replacement of the base's projection for so many channels; None for none."""
