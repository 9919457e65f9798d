"""The network that is trained, and the description that its checkpoint gets."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_simmat.engine.checkpoints.checkpoint import save_checkpoint
from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.planes import as_rgb
from napari_simmat.model.foundation import build_network
from napari_simmat.model.network import Network
from napari_simmat.model.spec import Channel, InputSize, ModelSpec
from napari_simmat.model.transfer import MAT
from napari_simmat.model.tuning import STRATEGIES, tune
from napari_simmat.words import counted


class Student(NamedTuple):
    """A network to be trained, and what its checkpoint will hold.

    Attributes
    ----------
    spec
        Without metrics.
    network
        What is trained requires a gradient.
    names
        State-dict names of the checkpoint's tensors.
    """

    spec: ModelSpec
    network: Network
    names: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the checkpoint holds all of the network and needs no base."""
        return STRATEGIES[self.spec.strategy].whole

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the checkpoint's tensors as they are now."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    def save(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Write the checkpoint as the network is now."""
        spec = replace(self.spec, metrics=metrics)
        save_checkpoint(path, spec, self.tensors(), bundled=self.whole)


def student(base: Model, dataset: Dataset, config: TrainConfig, name: str) -> Student:
    """The base with its new transfer layer and strategy, initialised by the seed.

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
    if not STRATEGIES[config.strategy].whole:
        # Only what the base has: the transfer layer stays new, with what it keeps of the slot.
        own = network.transfer_names()
        weights = base.network.state_dict()
        fits = {n: w for n, w in weights.items() if n not in own or config.transfer == "baseline_b"}
        network.load_state_dict({**network.state_dict(), **fits})
    layer = network.projection
    if config.start == "zeroshot" and isinstance(layer, MAT):
        layer.pass_on(as_rgb(channels), *_as_base_expects(below, dataset))
    tuned = tune(network, config.strategy, config.size)
    network.recompute = config.recompute
    network.to(memory_format=torch.channels_last)
    spec = replace(
        below,
        name=name,
        modality=dataset.modality,
        channels=_channels(below, dataset, config),
        normalization=dataset.normalization,
        input_size=_input_size(below),
        transfer=config.transfer,
        strategy=config.strategy,
        strategy_size=tuned.size,
        mask_choice="single",
        description=description(below, dataset, config, len(dataset.train)),
        training=_plain(asdict(config)),
        metrics={},
        license="",
        author="",
        date=datetime.date.today().isoformat(),
    )
    return Student(spec, network, tuned.names)


def description(below: ModelSpec, dataset: Dataset, config: TrainConfig, planes: int) -> str:
    """What was trained on how many planes, in a sentence."""
    return (
        f"{dataset.modality}: transfer layer {config.transfer}, {config.strategy} on "
        f"{below.name}, trained on {counted(planes, 'labelled plane')} of {dataset.name}."
    )


def _as_base_expects(below: ModelSpec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Scale and shift (3,) from values standardised for the data set to those for the base."""
    taken = as_rgb(len(dataset.channels))
    range_ = below.normalization.scale / dataset.normalization.scale
    ours = [dataset.channels[index] for index in taken]
    pairs = list(zip(ours, below.channels, strict=True))
    scale = torch.tensor([range_ * our.std / base.std for our, base in pairs])
    shift = torch.tensor([(range_ * our.mean - base.mean) / base.std for our, base in pairs])
    return scale, shift


def _channels(below: ModelSpec, dataset: Dataset, config: TrainConfig) -> tuple[Channel, ...]:
    """The data set's; without a transfer layer the base's own, as its weights expect."""
    return below.channels if config.transfer == "zeroshot" else dataset.channels


def _input_size(below: ModelSpec) -> InputSize:
    """SAM's input is stretched, as in the paper; an embedded base sees images as they are."""
    if below.input_size.method == "native":
        return below.input_size
    return InputSize(method="stretch", size=below.input_size.size)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
