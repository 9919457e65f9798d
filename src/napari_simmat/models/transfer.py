"""Transfer layers: any number of channels into a network made for three.

All replace one module, the network's first projection, and keep its parameters' names: base weights
load strictly, and a checkpoint contains the trained parameters only.

Source: ``models/projector.py``, ``Pre_Callback_Post_Projector``, of the authors' two repositories:
https://github.com/mt-cly/SimMAT at a3f7d70 (arXiv 2409.08083), and its successor
https://github.com/mt-cly/SimCMF at 0cdc5c1 (arXiv 2411.18669). Their ``baseline_a`` is the same;
SimMAT's ``baseline_b`` is SimCMF's ``baseline_c``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.network import conv_arguments
from napari_simmat.models.spec import split_transfer

RGB = 3
HIDDEN = 64
EXPANSION = 4
HEADS = 8
PATCH_MULTIPLE = 32
"""Sides of a network's input are multiples of so many pixels, or more."""
STRIP = 32
"""Rows of an image that a CPU processes at once."""


def transfer_layer(name: str, projection: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The replacement of the first projection by the transfer layer `name` for `channels`.

    Raises ValueError if the name is unknown or the layer cannot take that many channels.
    """
    family, geometry = split_transfer(name)
    if channels < 1:
        raise ValueError(f"A model needs at least one channel, got {channels}.")
    layer = TRANSFERS[family]
    if layer is None and channels != RGB:
        raise ValueError(
            f"Without a transfer layer the network takes {RGB} channels, not {channels}; "
            "use the transfer layer 'simmat'."
        )
    with torch.device(projection.weight.device):
        return projection if layer is None else layer(projection, channels, *geometry)


class Projected(nn.Conv2d):
    """A pretrained projection behind further layers; `weight` and `bias` keep their names."""

    base_names: tuple[str, ...] = ("weight", "bias")
    """Tensors of the layer that belong to the base; see `Network.transfer_names`."""

    def __init__(self, projection: nn.Conv2d) -> None:
        super().__init__(**conv_arguments(projection), device="meta")
        self.weight, self.bias = projection.weight, projection.bias

    def colors(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W), what the pretrained projection is applied to."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        return super().forward(self.colors(image))

    def start_from_base(self) -> None:
        """Initialize what starts from the pretrained projection, once its weights are loaded."""


class MAT(Projected):
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

    def colors(self, image: Tensor) -> Tensor:
        """As `Projected`; on a CPU, without gradients, a few rows at a time to save memory.

        The two 3x3 convolutions of a strip depend on two rows beyond it.
        """
        if image.device.type != "cpu" or torch.is_grad_enabled():
            colors: Tensor = self.mat(image)
            return colors
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


class _Squeezed(Projected):
    """A projection behind `squeeze`, layers that turn C channels into three."""

    def __init__(self, projection: nn.Conv2d, squeeze: nn.Module) -> None:
        super().__init__(projection)
        self.squeeze = squeeze

    def colors(self, image: Tensor) -> Tensor:
        """As `Projected`."""
        height, width = image.shape[-2:]  # a few layers pad by more than they take away
        colors: Tensor = self.squeeze(image)[..., :height, :width]
        return colors


class BaselineB(_Squeezed):
    """The paper's baseline B: ``Conv 1x1 (C -> 3)``, then a copy of the projection, trained too."""

    base_names: tuple[str, ...] = ()

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(projection, nn.Conv2d(channels, RGB, 1))


class SimCMFBaselineB(_Squeezed):
    """SimCMF's baseline B: two convolutions, then a copy of the projection, trained too.

    ``Conv 3x3 (C -> 4 C), ReLU, Conv 1x1 (4 C -> 3)``; the second one is padded, too, which moves
    the image down and right by a pixel.
    """

    base_names: tuple[str, ...] = ()

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        wide = EXPANSION * channels
        first = nn.Conv2d(channels, wide, 3, padding=1)
        last = nn.Conv2d(wide, RGB, 1, padding=1)
        super().__init__(projection, nn.Sequential(first, nn.ReLU(), last))


class SimCMFBaselineD(_Squeezed):
    """SimCMF's baseline D: ``Conv 1x1 (C -> 3)`` before the pretrained projection."""

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(projection, nn.Conv2d(channels, RGB, 1))


class PreConv(_Squeezed):
    """SimCMF's ``preconv``: convolutions before the pretrained projection.

    One ``Conv k x k (C -> 3)``; or ``Conv k x k (C -> width)``, ``Conv k x k, ReLU`` so often that
    there are `layers` convolutions in all, ``Conv 1x1 (width -> 3)``. The first has no ReLU.
    """

    def __init__(
        self, projection: nn.Conv2d, channels: int, kernel: int, layers: int, width: int
    ) -> None:
        sizes = [channels, *[width] * (layers - 1)]
        convs: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(sizes)):
            convs.append(nn.Conv2d(before, after, kernel, padding=kernel // 2))
            convs += [nn.ReLU()] if number else []
        last = kernel if layers == 1 else 1
        convs.append(nn.Conv2d(sizes[-1], RGB, last, padding=last // 2))
        super().__init__(projection, nn.Sequential(*convs))


class PreAttention(_Squeezed):
    """SimCMF's ``preattn``: transformer blocks on patches before the pretrained projection.

    ``Conv p x p, stride p (C -> width)``, `layers` blocks of SAM's kind without positions, and a
    projection to the 3 p p values of a patch. As in the authors' code, these are laid out row by
    row of the image without being transposed to their patch.
    """

    def __init__(
        self, projection: nn.Conv2d, channels: int, patch: int, layers: int, width: int
    ) -> None:
        if width % HEADS or PATCH_MULTIPLE % patch:
            raise ValueError(
                f"preattn needs a width that is a multiple of {HEADS} and a patch that divides "
                f"{PATCH_MULTIPLE}, not {width} and {patch}."
            )
        blocks = [Block(width, num_heads=HEADS, norm_layer=nn.LayerNorm) for _ in range(layers)]
        first = nn.Conv2d(channels, width, patch, stride=patch)
        super().__init__(
            projection, _Patches(first, *blocks, nn.Linear(width, RGB * patch * patch))
        )


class _Patches(nn.Sequential):
    """An embedding of patches, blocks on them, and a projection to their pixels."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W)."""
        embed, *others = self
        tokens: Tensor = embed(image).permute(0, 2, 3, 1)
        for layer in others:
            tokens = layer(tokens)
        return tokens.reshape(len(image), *image.shape[-2:], RGB).permute(0, 3, 1, 2)


class SimCMF(Projected):
    """SimCMF's transfer layer: a gate divides each channel between an old and a new projection.

    The gate, one number per channel and image, is the sigmoid of the mean over the image of
    ``Conv 3x3 (C -> 4 C), LayerNorm, ReLU, Conv 3x3 (4 C -> C)``. Its share of a channel goes
    through ``Conv 1x1 (C -> 3)`` and the pretrained projection. The rest goes through a projection
    of the channel's own, which starts as the pretrained one summed over its colors; a linear
    combination of these, which starts at zero, is added.
    """

    def __init__(self, projection: nn.Conv2d, channels: int) -> None:
        super().__init__(projection)
        wide = EXPANSION * channels
        self.gate = nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1),
            LayerNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, channels, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
        )
        self.squeeze = nn.Conv2d(channels, RGB, 1)
        alone = conv_arguments(projection) | {"in_channels": 1}
        self.own = nn.ModuleList(nn.Conv2d(**alone) for _ in range(channels))
        self.mix = nn.Linear(channels, 1, bias=False)
        nn.init.zeros_(self.mix.weight)
        self.start_from_base()

    @torch.no_grad()
    def start_from_base(self) -> None:
        """Let each channel's own projection start from the pretrained one."""
        start = {"weight": self.weight.sum(1, keepdim=True)}
        if self.bias is not None:
            start["bias"] = self.bias
        for own in self.own:
            own.load_state_dict(start)

    def colors(self, image: Tensor, gate: Tensor | None = None) -> Tensor:
        """As `Projected`, with the gate (B, C, 1, 1) if it is known."""
        gate = self.gate(image).sigmoid() if gate is None else gate
        colors: Tensor = self.squeeze(image * gate)
        return colors

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        gate = self.gate(image).sigmoid()
        old = nn.Conv2d.forward(self, self.colors(image, gate))
        shares = self.mix.weight[0]
        own = [dict(each.named_parameters()) for each in self.own]
        weight = torch.cat([each["weight"] for each in own], dim=1) * shares[:, None, None]
        bias = None
        if self.bias is not None:
            bias = torch.stack([each["bias"] for each in own], dim=1) @ shares
        new = functional.conv2d(image * (1 - gate), weight, bias, self.stride, self.padding)
        return old + new


TRANSFERS: dict[str, Callable[..., nn.Conv2d] | None] = {
    "zeroshot": None,
    "simmat": MAT,
    "baseline_a": BaselineA,
    "baseline_b": BaselineB,
    "simcmf": SimCMF,
    "simcmf_b": SimCMFBaselineB,
    "simcmf_d": SimCMFBaselineD,
    "preconv": PreConv,
    "preattn": PreAttention,
}
"""Name -> replacement of the base's projection for so many channels; None for none.

`preconv` and `preattn` also take what follows their name (`models.spec.split_transfer`).
"""
