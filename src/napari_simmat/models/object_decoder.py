"""`tiny`'s decoder of all objects: from the features of an image to maps of its objects at once.

A small U-Net decoder on the frozen encoder. It predicts for each pixel whether it is part of an
object, how deep inside, and where objects end; a watershed on these maps separates the objects
(`engine.object_regions`). The depth is relative to the object's own, so that a long, bent object
has one ridge, as in Deep Watershed (Bai and Urtasun, CVPR 2017, arXiv 1611.08303).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.models.dense_prior import DENSE_CHANNELS
from napari_simmat.models.multiscale import level_tiles, place_tile
from napari_simmat.models.network import Encoded
from napari_simmat.models.tiny_encoder import ChannelNorm, Residual
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.models.tiny import TinyNetwork

EMBEDDING, FINE, TWO = 128, 64, 32
"""Channels of the encoder's features at strides 8, 4 and 2."""
WIDTHS = (96, 64, 48)
"""Channels of the decoder at strides 8, 4 and 2."""
INSIDE, DEPTH, OUTLINE, CONTACT, WIDTH = range(5)
"""Maps: logits of being in an object, of the depth relative to the object's largest, of being
within a pixel of an outline, of one between two objects; logarithm of the largest depth in pixels,
in units of `WIDTH_UNIT`."""
MAPS = 5
WIDTH_UNIT = 8.0
WIDTH_LIMITS = -3.0, 4.0
"""Of that logarithm where it is used."""
SHAPE_MEASURES = 9
"""Of a region, beside means inside, at the rim and beyond it (`engine.object_regions`)."""
MEASURES = 3 * (WIDTHS[-1] + 4) + SHAPE_MEASURES
SCORE_WIDTH = 64


class DecodedMaps(NamedTuple):
    """What the decoder says of images.

    Attributes
    ----------
    maps
        (B, 5, H, W) float32: see `INSIDE` and the following.
    features
        (B, 48, H / 2, W / 2), from which they are made, for the score of each object.
    """

    maps: Tensor
    features: Tensor


class RegionScore(nn.Module):
    """The chance that a region is an object, from what is measured of it.

    The measures are standardized by the means and deviations of those that it was trained on.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(MEASURES))
        self.register_buffer("deviation", torch.ones(MEASURES))
        self.layers = nn.Sequential(
            nn.Linear(MEASURES, SCORE_WIDTH),
            nn.ReLU(),
            nn.Linear(SCORE_WIDTH, SCORE_WIDTH // 2),
            nn.ReLU(),
            nn.Linear(SCORE_WIDTH // 2, 2),
        )

    def forward(self, measures: Tensor) -> Tensor:
        """Logits (N, 2) of an IoU of .75 and of .5 with an object; measures (N, `MEASURES`)."""
        standard = ((measures - self.mean) / self.deviation).clamp(-5, 5)
        logits: Tensor = self.layers(standard)
        return logits


class ObjectDecoder(nn.Module):
    """The decoder; 600,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        eight, four, two = WIDTHS
        self.lateral8 = nn.Conv2d(EMBEDDING, eight, 1)
        self.blocks8 = nn.Sequential(Residual(eight), Residual(eight))
        self.down4 = nn.Conv2d(eight, four, 1)
        self.norm4 = ChannelNorm(FINE, eps=1e-6)
        self.lateral4 = nn.Conv2d(FINE, four, 1)
        self.blocks4 = nn.Sequential(Residual(four), Residual(four))
        self.down2 = nn.Conv2d(four, two, 1)
        self.norm2 = ChannelNorm(TWO + DENSE_CHANNELS, eps=1e-6)
        self.lateral2 = nn.Conv2d(TWO + DENSE_CHANNELS, two, 3, padding=1)
        self.blocks2 = nn.Sequential(Residual(two), Residual(two))
        self.norm = ChannelNorm(two, eps=1e-6)
        self.head = nn.Conv2d(two, 4 * MAPS, 3, padding=1)
        self.score = RegionScore()

    @property
    def stored(self) -> dict[str, Tensor]:
        """Its tensors as a file holds them."""
        return {name: each.half().cpu() for name, each in self.state_dict().items()}

    def forward(self, encoded: Encoded) -> DecodedMaps:
        """The maps of images from their features (`TinyNetwork.features`).

        The image itself is no input: it may have any channels, the first features are the same.
        """
        maps = encoded.maps
        found = self.blocks8(self.lateral8(encoded.embedding))
        found = _enlarged(self.down4(found)) + self.lateral4(self.norm4(maps["fine"]))
        found = self.blocks4(found)
        beside = self.norm2(torch.cat([maps["two"], maps["dense"].to(maps["two"].dtype)], 1))
        found = self.blocks2(_enlarged(self.down2(found)) + self.lateral2(beside))
        features = self.norm(found)
        return DecodedMaps(functional.pixel_shuffle(self.head(features), 2).float(), features)


def _enlarged(values: Tensor) -> Tensor:
    return functional.interpolate(values, scale_factor=2.0, mode="bilinear", align_corners=False)


def decode_image_job(
    network: TinyNetwork, decoder: ObjectDecoder, image: Tensor
) -> Job[DecodedMaps]:
    """Encode an image (1, C, H, W) and decode its maps; a large one in tiles, for bounded memory.

    H and W are multiples of 32.
    """
    height, width = image.shape[-2:]
    tiles = level_tiles(height, width)
    whole: Encoded | None = None
    for done, tile in enumerate(tiles):
        here = Progress(done, len(tiles), "encoding")
        encoded = yield from with_progress(network.features_job(tile.cut(image)), here)
        found = decoder(encoded)
        part = Encoded(found.features, encoded.input_size, {"maps": found.maps})
        whole = place_tile(whole, tile, part, (height, width))
    assert whole is not None
    return DecodedMaps(whole.maps["maps"], whole.embedding)
