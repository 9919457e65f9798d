"""From trained weights to the file that ships: float16 tensors with their description."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_simmat.engine.checkpoints.checkpoint import save_checkpoint
from napari_simmat.learn.pool import MEAN, STD
from napari_simmat.learn.pretrain import Pretrained
from napari_simmat.learn.pretrain_step import PretrainConfig
from napari_simmat.model.foundation import architecture_of
from napari_simmat.model.spec import Base, Channel, InputSize, ModelSpec, Normalization

DESCRIPTION = (
    "Small network with SAM's prompts, for any kind of image: a convolutional stem, attention at "
    "stride 16, SAM's prompt encoder and mask decoder. Trained on drawn scenes only."
)


def tiny_spec(
    name: str,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    *,
    architecture: str = "tiny_local",
) -> ModelSpec:
    """What describes an embedded base called `name`."""
    return ModelSpec(
        name=name,
        modality="RGB or grey",
        channels=tuple(Channel(name=c, mean=MEAN, std=STD) for c in ("red", "green", "blue")),
        normalization=Normalization(method="percentile", low=0.5, high=99.9),
        input_size=InputSize(method="native", size=4096, minimum=128, multiple=32),
        base=Base(name=name, architecture=architecture, sha256=""),
        mask_choice="single",
        description=DESCRIPTION,
        training=dict(training or {}),
        metrics=dict(metrics or {}),
        license="BSD-3-Clause",
        author="The napari-simmat developers",
    )


def save_base(path: Path, pretrained: Pretrained, config: PretrainConfig) -> None:
    """Write a trained network as an embedded base, float16; the file's stem is its name."""
    training = {
        "command": "simmat pretrain",
        "data": "drawn scenes",
        "families": list(config.families) or "all",
        "steps": pretrained.step,
        "seed": config.seed,
    }
    metrics = {"drawn scenes, mean IoU %": pretrained.metrics}
    tensors = pretrained.network.state_dict()
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    spec = tiny_spec(path.stem, training, metrics, architecture=architecture_of(tensors))
    save_checkpoint(path, spec, half)
