"""A network that is trained: its description, its trained tensors, its checkpoint."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.network import Network
from napari_simmat.models.spec import (
    InputSize,
    Model,
    ModelSpec,
)
from napari_simmat.models.transfer import MAT, Projected
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.training.batches import (
    as_rgb,
)
from napari_simmat.training.config import TrainConfig

if TYPE_CHECKING:
    pass


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

    def save(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Write the network's current state as a checkpoint."""
        spec, whole = replace(self.spec, metrics=metrics), STRATEGIES[self.spec.strategy].whole
        save_checkpoint(path, spec, self.tensors(), bundled=whole)


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
    if below.transfer != "zeroshot" or below.strategy != "frozen":
        raise ValueError(
            f"{below.name} is a modality checkpoint, not a foundation; train on its base, "
            f"{below.base.name}."
        )
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
        layer.pass_on(as_rgb(channels), *_as_base_expects(below, dataset))
    tuned = tune(network, config.strategy, config.size)
    network.recompute = config.recompute
    network.to(memory_format=torch.channels_last)
    size = below.input_size
    spec = replace(
        below,
        name=name,
        modality=dataset.modality,
        # Without a transfer layer the base's channels, as its weights expect them.
        channels=below.channels if config.transfer == "zeroshot" else dataset.channels,
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


def _as_base_expects(below: ModelSpec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Scale and shift (3,) from values standardized for the data set to those for the base."""
    taken = as_rgb(len(dataset.channels))
    range_ = below.normalization.scale / dataset.normalization.scale
    ours = [dataset.channels[index] for index in taken]
    pairs = list(zip(ours, below.channels, strict=True))
    scale = torch.tensor([range_ * our.std / base.std for our, base in pairs])
    shift = torch.tensor([(range_ * our.mean - base.mean) / base.std for our, base in pairs])
    return scale, shift
