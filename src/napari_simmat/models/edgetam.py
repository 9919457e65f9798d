"""EdgeTAM on single images: SAM 2's prompts and decoder behind RepViT, a network of convolutions.

Sources: EdgeTAM, arXiv 2501.07256, https://github.com/facebookresearch/EdgeTAM; RepViT, arXiv
2307.09283, built by `timm`. On a processor it encodes several times as fast as SAM 2's smallest
encoder. Its memory resamples what it keeps by a network of its own, and is not built here.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn

from napari_simmat._text import import_problem
from napari_simmat.models import hiera_encoder
from napari_simmat.models.hiera_encoder import EMBEDDING, feature_pyramid
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam2 import Sam2ImageNetwork, build_prompts_and_masks
from napari_simmat.progress import Job, Progress

ARCHITECTURE = "edgetam"
TRUNK = "repvit_m1"
"""Its name in `timm`; the four stages are at strides 4, 8, 16 and 32."""
NEEDS_TIMM = 'EdgeTAM needs the package timm; install it (pip install "timm>=1.0").'


def build_edgetam(*, initialize: bool = True) -> EdgeTamNetwork:
    """EdgeTAM with random weights; `initialize` as in `models.sam.build_sam`.

    Raises ValueError if `timm` is not installed.
    """
    try:
        from timm import create_model
    except ImportError as error:
        raise ValueError(import_problem(error, "timm", NEEDS_TIMM)) from error
    with nullcontext() if initialize else torch.device("meta"):
        trunk = create_model(TRUNK, features_only=True, out_indices=(0, 1, 2, 3))
        encoder = RepVitEncoder(trunk)
        network = EdgeTamNetwork(encoder, *build_prompts_and_masks())
    network.eval()
    return network


class RepVitEncoder(nn.Module):
    """RepViT with the pyramid's projections to one width.

    Its batch norms keep the statistics of the pretrained network in training, too: batches are
    small, and a checkpoint holds no statistics.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.img_size = hiera_encoder.SIDE  # SAM's attribute
        widths: list[int] = trunk.feature_info.channels()  # type: ignore[union-attr, operator]
        self.trunk = nn.ModuleDict({"body": trunk})
        self.neck = nn.ModuleDict(
            {"convs": nn.ModuleList(nn.Conv2d(width, EMBEDDING, 1) for width in widths[::-1])}
        )

    @property
    def patch_embed(self) -> nn.Module:
        """The module with the first projection."""
        first: nn.Module = self.trunk["body"].stem.conv1  # type: ignore[assignment, union-attr]
        return first

    @property
    def stem(self) -> nn.Module:
        """Two convolutions: (B, C, H, W) -> (B, d, H/4, W/4)."""
        stem: nn.Module = self.trunk["body"]["stem"]  # type: ignore[index]
        return stem

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, each at half the resolution of the one before."""
        return [self.trunk["body"][f"stages_{n}"] for n in range(4)]  # type: ignore[index]

    def pyramid(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the stages as maps (B, 256, h, w) at strides 4, 8 and 16."""
        return feature_pyramid(self.neck["convs"], stages)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Self:
        """As `Module.train`, but for the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class EdgeTamNetwork(Sam2ImageNetwork):
    """EdgeTAM on single images."""

    slot = "image_encoder.trunk.body.stem.conv1.c"
    image_encoder: RepVitEncoder

    def _features_job(self, image: Tensor) -> Job[Encoded]:
        """The embedding, and maps ``fine`` and ``middle``, of (B, C, H, W)."""
        encoder = self.image_encoder
        maps = self.run_block(encoder.stem, image)
        found = []
        stages = encoder.stages
        for number, stage in enumerate(stages, start=1):
            maps = self.run_block(stage, maps)
            found.append(maps)
            yield Progress(number, len(stages) + 1, "encoding")
        return self.single_image(encoder.pyramid(found), image)
