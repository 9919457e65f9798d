"""Train the decoder of all objects on a frozen foundation: an hour of one core.

The encoder sees crops of real images and of drawn scenes (`object_scenes`); the decoder alone is
trained, by the loss of `object_targets`, and the average of its weights is the result. For
comparison a copy of the encoder is trained along. A worker process draws the crops of the next
steps; those of a step depend on seed and number alone, so that a resumed training continues like an
unbroken one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.object_targets import MapTargets, map_loss, map_targets
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.models.tiny_encoder import FusedEncoder
from napari_simmat.progress import Job
from napari_simmat.training.devices import Devices
from napari_simmat.training.run_folder import STATE_FILE, RunFolder, read_state
from napari_simmat.training.trainer import Trainer
from simmat_research.object_scenes import draw_object_scene
from simmat_research.pretrain import MuonAdamW
from simmat_research.real_scenes import RealSource, real_drawer
from simmat_research.scene_pool import MEAN, STD, ScenePool, augment_scene, scene_drawer, with_glare

CROPS = (160, 192, 256)
"""Sides of crops in pixels: a decoder sees some context."""
POOL = 320
"""Scenes from which the crops of a step are cut."""
AHEAD = 8
"""Steps whose crops wait."""
LOG, LOG_EVERY = "log.jsonl", 50


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Settings of a training.

    Parameters
    ----------
    sources
        Of real images.
    steps, seed
        Optimizer steps, and the seed of all random numbers.
    real_share, own_share
        Shares of real scenes, and of the drawn ones those of `object_scenes`.
    learning_rate, weight_decay, average, warmup
        Of `MuonAdamW`; the rate falls to zero as a cosine. The decay of the averaged weights.
    encoder_along
        A copy of the encoder is trained, too, at `PRETRAINED_RATE` times the rate.
    """

    sources: tuple[RealSource, ...] = ()
    steps: int = 12_000
    seed: int = 0
    real_share: float = 0.5
    own_share: float = 0.6
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    average: float = 0.998
    warmup: int = 100
    encoder_along: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that must not change when a run resumes."""
        own = {name: value for name, value in vars(self).items() if name != "sources"}
        return {**own, "sources": {each.name: each.recipe for each in self.sources}}

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rising = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * rising * 0.5 * (1 + float(np.cos(np.pi * step / self.steps)))


class ObjectBatch(NamedTuple):
    """Images (B, 3, S, S) as the encoder sees them, and their targets."""

    images: Tensor
    targets: MapTargets


class ObjectCrops(Dataset[ObjectBatch]):
    """The crops of each step."""

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config
        self._pool: ScenePool | None = None

    def __getitem__(self, step: int) -> ObjectBatch:
        if self._pool is None:
            self._pool = ScenePool(self.config.seed, self._drawer(), augment_scene, size=POOL)
        crops = self._pool.crops(step, 0, sizes=CROPS)
        return ObjectBatch((crops.images - MEAN) / STD, map_targets(crops.labels.numpy()))

    def _drawer(self) -> Any:
        config = self.config
        general = scene_drawer()
        real = real_drawer(config.sources) if config.sources else general

        def draw(rng: np.random.Generator) -> Any:
            if rng.random() < config.real_share:
                return real(rng)
            return (draw_object_scene if rng.random() < config.own_share else general)(rng)

        return with_glare(draw)


class TrainedDecoder(NamedTuple):
    """The averaged decoder, and the network whose features it reads."""

    decoder: ObjectDecoder
    network: TinyNetwork


def train_decoder_job(
    config: DecoderConfig, network: TinyNetwork, folder: Path
) -> Job[TrainedDecoder]:
    """Train in `folder`, resuming what it holds; `network` stays as it is.

    A file called ``stop`` in it ends the training early.

    Raises
    ------
    ValueError
        If the folder holds a training with other settings, or another process trains in it.
    """
    fabric = Devices(device="cpu").fabric("32-true")
    fabric.launch()
    with closing(RunFolder(folder)) as run_folder:
        state = read_state(folder, config.identity) if (folder / STATE_FILE).exists() else None
        task = DecoderTraining(config, network)
        trainer = task.trainer(fabric, run_folder)
        if state is not None:
            trainer.restore(state)
        task.begin(trainer.step)
        if trainer.step < config.steps:
            yield from trainer.run_job()
            trainer.save()
        encoder = task.averaged.encoder
        if encoder is not None:
            network = copy.deepcopy(network)
            network.image_encoder = encoder
        return TrainedDecoder(task.averaged.decoder, network)


class DecoderTraining:
    """A new decoder on a frozen network, and its running average."""

    def __init__(self, config: DecoderConfig, network: TinyNetwork) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        network = copy.deepcopy(network).eval().requires_grad_(False)
        encoder = network.image_encoder if config.encoder_along else None
        trained: nn.Module = _Trained(ObjectDecoder().train(), encoder)
        trained = trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]
        assert isinstance(trained, _Trained)
        self.trained = trained
        self.averaged = copy.deepcopy(trained).eval().requires_grad_(False)
        pretrained: list[nn.Parameter] = []
        if encoder is not None:
            pretrained = list(encoder.requires_grad_(True).parameters())
        self.module = _Loss(trained, network)
        ends = (trained.decoder.lateral8, trained.decoder.head)
        self.optimizer = MuonAdamW(
            trained, config.learning_rate, config.weight_decay, ends, pretrained
        )
        self._crops: Iterator[ObjectBatch] = iter(())

    def begin(self, step: int) -> None:
        """Have the crops drawn from a step on."""
        loader = DataLoader(
            ObjectCrops(self.config),
            batch_size=None,
            sampler=range(step, self.config.steps),
            num_workers=1,
            prefetch_factor=AHEAD,
        )
        self._crops = iter(loader)

    def trainer(self, fabric: Any, folder: RunFolder) -> Trainer:
        """A trainer on a launched `fabric`; the folder gets the state and ``log.jsonl``."""
        return Trainer(
            module=self.module,
            optimizer=self.optimizer,
            fabric=fabric,
            folder=folder,
            settings=self.config.identity,
            total=self.config.steps,
            seed=self.config.seed,
            max_norm=1.0,
            rate=self.config.rate,
            batch=lambda *_: next(self._crops),
            after_step=self.average,
            state=self.state,
            load=self.load,
            log=self.log,
            log_every=LOG_EVERY,
            save_every=250,
        )

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Update the averaged weights."""
        decay = min(self.config.average, (1 + step) / (10 + step))
        ours: list[Tensor] = [*self.averaged.parameters()]
        theirs: list[Tensor] = [*self.trained.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def state(self) -> dict[str, Any]:
        """The weights and their average."""
        return {"trained": self.trained.state_dict(), "averaged": self.averaged.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.trained.load_state_dict(state["trained"])
        self.averaged.load_state_dict(state["averaged"])

    def log(self, trainer: Trainer, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write the mean losses."""
        row = {"step": trainer.step, "learning_rate": rate}
        row |= {name: round(mean, 4) for name, mean in means.items()}
        if trainer.folder is not None:
            with (trainer.folder.path / LOG).open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row


class _Trained(nn.Module):
    """What is trained: the decoder, and a copy of the encoder unless that is frozen (None)."""

    def __init__(self, decoder: ObjectDecoder, encoder: FusedEncoder | None) -> None:
        super().__init__()
        self.decoder = decoder
        self.encoder = encoder


class _Loss(nn.Module):
    """What is trained, as a function from a batch to its loss; the network is no part of it."""

    def __init__(self, trained: _Trained, network: TinyNetwork) -> None:
        super().__init__()
        self.trained = trained
        self._network = (network,)

    def forward(self, batch: ObjectBatch) -> tuple[Tensor, dict[str, float]]:
        [network] = self._network
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(self.trained.encoder is not None):
                encoded = network.features(batch.images)
            found = self.trained.decoder(encoded)
        return map_loss(found.maps, batch.targets)
