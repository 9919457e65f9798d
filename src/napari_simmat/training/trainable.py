"""A network that is trained: its description, its trained tensors, its checkpoint."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.checkpoints.loading import with_decoder_names
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.network import Network
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.spec import InputSize, Model, ModelSpec
from napari_simmat.models.transfer import MAT, Projected
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.labeled_planes import as_rgb, rgb_channels


class TrainableNetwork(NamedTuple):
    """A network, whose trained parameters require a gradient, and the content of its checkpoint.

    Attributes
    ----------
    spec
        Description without metrics.
    network
        The network.
    names
        State-dict names of the checkpoint's tensors.
    """

    spec: ModelSpec
    network: Network
    names: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the checkpoint's current tensors."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set some of the network's tensors."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    def save(
        self, path: Path, metrics: Mapping[str, Any], decoder: ObjectDecoder | None = None
    ) -> None:
        """Write the network's current state as a checkpoint, with a decoder if it has its own."""
        spec, whole = replace(self.spec, metrics=metrics), STRATEGIES[self.spec.strategy].whole
        tensors = self.tensors()
        if decoder is not None:
            spec = replace(spec, instance_decoder="here")
            tensors |= with_decoder_names(decoder.stored)
        save_checkpoint(path, spec, tensors, bundled=whole)


def make_trainable(
    base: Model, dataset: Dataset, config: TrainConfig, name: str
) -> TrainableNetwork:
    """The base with a new transfer layer and strategy, initialized by the seed.

    Raises
    ------
    ValueError
        If the base is not a foundation, or the channels do not suit the transfer layer.
    """
    below = base.spec
    check_foundation(below)
    channels = 3 if config.transfer == "zeroshot" else len(dataset.channels)
    torch.manual_seed(config.seed)
    network = build_network(below.base.architecture, channels=channels, transfer=config.transfer)
    layer = network.projection
    if not STRATEGIES[config.strategy].whole:
        # The transfer layer stays new, except for what it takes over from the base's projection.
        own = set() if isinstance(layer, Projected) else network.transfer_names()
        fits = {n: w for n, w in base.network.state_dict().items() if n not in own}
        network.load_state_dict({**network.state_dict(), **fits})
        if isinstance(layer, Projected):
            layer.start_from_base()
    if config.start == "zeroshot" and isinstance(layer, MAT):
        # Standardized values, as the base alone gets them (`rgb_channels`).
        layer.pass_on(as_rgb(channels), torch.ones(3), torch.zeros(3))
    if config.start == "uniform":
        start_uniformly(layer)
    tuned = tune(network, config.strategy, config.size)
    network.recompute = config.recompute
    network.to(memory_format=torch.channels_last)
    size = below.input_size
    spec = replace(
        below,
        name=name,
        modality=dataset.modality,
        channels=(
            rgb_channels(below, dataset) if config.transfer == "zeroshot" else dataset.channels
        ),
        normalization=dataset.normalization,
        # SAM's input is stretched, as in the paper; an embedded base takes images at their size.
        input_size=size if size.method == "native" else InputSize(method="stretch", size=size.size),
        transfer=config.transfer,
        strategy=config.strategy,
        strategy_size=tuned.size,
        mask_choice="single",
        description="",  # until it is known which planes are trained on
        training={n: list(v) if isinstance(v, tuple) else v for n, v in asdict(config).items()},
        metrics={},
        license=below.base.binding_license,
        author="",
        date=datetime.date.today().isoformat(),
    )
    return TrainableNetwork(spec, network, tuned.names)


def check_foundation(spec: ModelSpec) -> None:
    """Raise ValueError if a model is not a foundation, on which one can train."""
    if spec.transfer != "zeroshot" or spec.strategy != "frozen":
        raise ValueError(
            f"{spec.name} is a modality checkpoint, not a foundation; train on its base, "
            f"{spec.base.name}."
        )


@torch.no_grad()
def start_uniformly(layer: nn.Module) -> None:
    """Draw the weights of a layer's convolutions to three channels from 0..1; biases become zero.

    Source: ``uniform_init`` of ``models/projector.py``, https://github.com/mt-cly/SimCMF at
    0cdc5c1.
    """
    for module in layer.get_submodule("squeeze").modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.uniform_(module.weight)
            nn.init.zeros_(module.bias)
