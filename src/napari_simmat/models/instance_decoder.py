"""micro-sam's decoder for automatic segmentation: SAM's image embedding to three maps at once.

The decoder of a UNETR without skip connections, as `torch_em.model.UNETR` builds it for micro-sam
(https://github.com/constantinpape/torch-em, ``torch_em/model/unetr.py`` and ``unet.py``;
https://github.com/computational-cell-analytics/micro-sam, ``DecoderAdapter`` of
``micro_sam/instance_segmentation.py``), written anew under the same names, so that its published
weights load strictly. Where it enlarges and then mixes channels (1 x 1), here the channels are
mixed first: both are linear, and each pixel's weights sum to one, so that the result is the same,
in a quarter of the work.

Source: Archit et al., Segment Anything for Microscopy, Nature Methods 2025,
doi:10.1038/s41592-024-02580-4.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.progress import Job, Progress, finish

EMBEDDED = 256
"""Channels of SAM's image embedding."""
FEATURES = (512, 256, 128, 64)
"""Channels at each of its scales, from that of the embedding to that of the input."""
MAPS = ("foreground", "center distance", "boundary distance")
"""What it predicts, each in 0..1."""
ENLARGED = 2 ** len(FEATURES)
"""Pixels of a map per cell of the embedding, along each side."""


class InstanceDecoder(nn.Module):
    """The decoder beside SAM's own: foreground, distance to the center, and to the boundary.

    Distances are relative to an object's size; that to the boundary is inverted: 0 is its middle,
    1 its outline.

    Parameters
    ----------
    transposed
        Whether it enlarges by transposed convolutions, as micro-sam's older files do, rather than
        by interpolation.
    """

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        enlarge = _transposed if transposed else _Enlarge
        inputs = (EMBEDDED, *FEATURES[:-1])
        self.base = _convolutions(EMBEDDED, FEATURES[0])
        for number, (below, above) in enumerate(zip(inputs, FEATURES, strict=True), start=1):
            setattr(self, f"deconv{number}", _enlarging(enlarge(below, above), above))
        steps = list(pairwise(FEATURES))
        blocks = nn.ModuleList(_convolutions(below, above) for below, above in steps)
        samplers = nn.ModuleList(enlarge(below, above) for below, above in steps)
        self.decoder = nn.ModuleDict({"blocks": blocks, "samplers": samplers})
        self.deconv_out = enlarge(FEATURES[-1], FEATURES[-1])
        self.decoder_head = _convolutions(2 * FEATURES[-1], FEATURES[-1])
        self.out_conv = nn.Conv2d(FEATURES[-1], len(MAPS), 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """The maps (B, 3, 16 h, 16 w) in 0..1 of an image embedding (B, 256, h, w); see `MAPS`."""
        return finish(self.decode_job(embedding))

    def decode_job(self, embedding: Tensor) -> Job[Tensor]:
        """`forward` as a job that yields after each scale."""
        total = 2 * len(FEATURES) + 1
        larger = [embedding]
        for number in range(1, len(FEATURES) + 1):
            larger.append(self.get_submodule(f"deconv{number}")(larger[-1]))
            yield Progress(number, total, "decoding")
        found = self.base(embedding)
        known = larger[1:]
        done = len(FEATURES)
        for number, beside in enumerate(known[:-1]):
            found = self.get_submodule(f"decoder.samplers.{number}")(found)
            # torch_em crops what it joins along all axes: the middle half of its channels counts.
            first = (beside.shape[1] - found.shape[1]) // 2
            found = torch.cat([found, beside[:, first : first + found.shape[1]]], dim=1)
            found = self.get_submodule(f"decoder.blocks.{number}")(found)
            done += 1
            yield Progress(done, total, "decoding")
        both = torch.cat([self.deconv_out(found), known[-1]], dim=1)
        del found, larger, known  # half a gigabyte
        yield Progress(done + 1, total, "decoding")
        maps: Tensor = self.out_conv(self.decoder_head(both)).float().sigmoid()
        yield Progress(total, total, "decoding")
        return maps


def is_transposed(names: Collection[str]) -> bool:
    """Whether tensors of these names enlarge by transposed convolutions (`get_unetr`)."""
    return any(".block." in name for name in names if name.startswith("decoder.samplers"))


class _Wrapped(nn.Module):
    """A layer, or several, under the name ``block``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.block(values)
        return result


class _Enlarge(nn.Module):
    """Twice the size by interpolation, and other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, values: Tensor) -> Tensor:  # (B, inputs, h, w) -> (B, outputs, 2 h, 2 w)
        return functional.interpolate(
            self.conv(values), scale_factor=2, mode="bilinear", align_corners=False
        )


def _transposed(inputs: int, outputs: int) -> nn.Module:
    return _Wrapped(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))


def _enlarging(enlarge: nn.Module, channels: int) -> nn.Module:
    convolution = _Wrapped(nn.Conv2d(channels, channels, 3, padding=1))
    return _Wrapped(enlarge, convolution, nn.BatchNorm2d(channels), nn.ReLU())


def _convolutions(inputs: int, outputs: int) -> nn.Module:
    return _Wrapped(
        nn.InstanceNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.InstanceNorm2d(outputs),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )
