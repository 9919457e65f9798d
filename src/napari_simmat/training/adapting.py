"""The network that few-shot learning adapts: its description, its training, its checkpoint."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from napari_simmat.checkpoints.checkpoint import read_model_card, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import split_pixels
from napari_simmat.io.plain import check_fields
from napari_simmat.models.expected_size import EXPECTED_SIZE, ExpectedSize
from napari_simmat.models.network import Encoded, Network
from napari_simmat.models.spec import Channel, Model, ModelSpec
from napari_simmat.models.taught_kind import TaughtPixels
from napari_simmat.models.transfer import MAT
from napari_simmat.models.tuning import build_network, default_size, merge, tune
from napari_simmat.training.annotations import AnnotatedPlane
from napari_simmat.training.batches import CropBatches, PlaneKey
from napari_simmat.training.losses import TrainingModule
from napari_simmat.training.run_folder import RunFolder
from napari_simmat.training.trainable import TrainableNetwork
from napari_simmat.training.trainer import Trainer

KINDS = ("click", "click", "box", "points")
"""Kinds of first prompts, one of which is drawn for each step."""
CORRECTIONS = 3
"""Maximum number of correcting clicks after the prompt."""
WARM_UP = 5
"""Steps in which the learning rate rises."""
MAX_NORM = 1.0
"""Gradients with a larger norm are scaled down to it."""
SEEN = "objects learned from"
"""Key of the digests of objects in `ModelSpec.training`."""
WRONG_CHANNELS = (
    "The image has {} channels, {} reads {}. Give those, or learn on a foundation, which gets a "
    "transfer layer for any number of channels."
)
CANNOT_GO_ON = "{} was tuned by {}, on which nothing can be learned; learn on its base, {}."
OTHER_CHANNELS = "All planes need the same channels in the same order, with their names."


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """Settings of few-shot learning.

    Parameters
    ----------
    steps
        Optimizer steps of each training.
    crops
        Crops per step.
    prompted
        Objects prompted in each crop.
    side
        Side of the crops of an embedded network in pixels.
    learning_rate
        Adam's; by default 1e-3 on an embedded network, 3e-4 on SAM.
    folds
        Into how many parts the objects are divided by place; each is left out once.
    seed
        Fixes all random numbers: the same input gives the same model on the same kind of machine.
    """

    steps: Annotated[int, {"min": 2}] = 24
    crops: Annotated[int, {"min": 1}] = 2
    prompted: Annotated[int, {"min": 1}] = 3
    side: Annotated[int, {"min": 64}] = 192
    learning_rate: float | None = None
    folds: Annotated[int, {"min": 2}] = 5
    seed: Annotated[int, {"min": 0}] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.side % 32:
            raise ValueError(f"side must be a multiple of 32, got {self.side}.")


@dataclass(frozen=True, eq=False)
class AdaptedCheckpoint:
    """What was learned: a checkpoint in memory.

    Parameters
    ----------
    spec
        Its description.
    tensors
        The trained tensors by name, or all of the network's.
    bundled
        Whether these are all, as for a model that learned on top of another checkpoint.
    pixels
        That tell how the objects look that the other was taught to look for; None if it was not.
    """

    spec: ModelSpec
    tensors: dict[str, Tensor]
    bundled: bool
    pixels: TaughtPixels | None = None

    @property
    def seen(self) -> frozenset[str]:
        """Digests of the objects it has learned from (`AnnotatedPlane.objects`)."""
        return frozenset(self.spec.training.get(SEEN, ()))

    @property
    def digest(self) -> str:
        """Hash of the tensors."""
        found = hashlib.sha256()
        for name in sorted(self.tensors):
            found.update(name.encode())
            found.update(self.tensors[name].contiguous().numpy().data)
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Write a checkpoint like any other, for `load_model` and for `load`.

        The file's stem becomes the model's name. See `save_checkpoint` for the errors.
        """
        spec = replace(self.spec, name=path.stem)
        save_checkpoint(path, spec, self.tensors, bundled=self.bundled, pixels=self.pixels)

    @classmethod
    def of(
        cls,
        student: TrainableNetwork,
        bundled: bool,
        config: FewShotConfig,
        seen: Sequence[str],
        training: Mapping[str, Any],
        metrics: Mapping[str, Any],
        description: str,
        pixels: TaughtPixels | None = None,
    ) -> AdaptedCheckpoint:
        """What a student learned, with what its card says."""
        network = student.network
        trained = {**asdict(config), **training, SEEN: list(seen)}
        if network.expected_size is not None:
            trained[EXPECTED_SIZE] = list(network.expected_size)
        spec = replace(student.spec, description=description, training=trained, metrics=metrics)
        if not bundled:
            return cls(spec, student.tensors(), bundled, pixels)
        tensors = {name: each.detach().cpu().clone() for name, each in network.state_dict().items()}
        # A bundled file holds the network alone.
        return cls(replace(spec, instance_decoder="none"), tensors, bundled, pixels)

    @classmethod
    def load(cls, path: Path) -> AdaptedCheckpoint:
        """Read what `save` wrote, to go on learning from it."""
        card = read_model_card(path)
        tensors, pixels = split_pixels(path, read_tensors(path), card.spec)
        return cls(card.spec, tensors, card.holds_all, pixels)

    def model(self, base: Model) -> Model:
        """The model for a `Predictor`; `base` is the one that it learned on."""
        network = _built(self.spec, base, self)
        with torch.random.fork_rng(devices=[]):  # plain layers are initialized before they are set
            merge(network)
        network.requires_grad_(False)
        network.expected_size = ExpectedSize.read(self.spec.training)
        both = hashlib.sha256(f"{self.digest} on {base.fingerprint}".encode()).hexdigest()
        decoder = base.decoder if self.spec.finds_instances else None
        return Model(self.spec, network, both, self.pixels, decoder=decoder)


def adapted_spec(base: ModelSpec, planes: Sequence[AnnotatedPlane], name: str) -> ModelSpec:
    """The description of a model that adapts `base` to planes.

    A foundation gets a transfer layer for other channels than its own. An embedded network is
    tuned by low-rank updates throughout; of SAM, whose encoder is too slow for that, the decoder.

    Raises
    ------
    ValueError
        If the channels do not fit.
    """
    counts = {len(plane.values) for plane in planes}
    names = planes[0].channels
    if len(counts) > 1 or any(plane.channels != names for plane in planes):
        raise ValueError(OTHER_CHANNELS)
    [count] = counts
    fits = count == len(base.channels)
    if not fits and not base.is_foundation:
        raise ValueError(WRONG_CHANNELS.format(count, base.name, len(base.channels)))
    channels = base.channels
    if not fits:
        if len(set(names)) < count:
            raise ValueError(OTHER_CHANNELS)
        like = base.channels[0]
        channels = tuple(Channel(name=each, mean=like.mean, std=like.std) for each in names)
    return replace(
        base,
        name=name,
        channels=channels,
        transfer=base.transfer if fits else "simmat",
        strategy="lora_conv" if base.base.embedded else "decoder",
        strategy_size=0,
        kind=base.kind if fits else None,
        mask_choice="single",
        metrics={},
        training={},
        author="",
        license=base.base.binding_license if base.is_foundation else base.license,
        date=datetime.date.today().isoformat(),
    )


def _built(spec: ModelSpec, base: Model, state: AdaptedCheckpoint | None, seed: int = 0) -> Network:
    """The network of a description, on the weights of `base` or of a state; the rest is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(
            spec.base.architecture, channels=len(spec.channels), transfer=spec.transfer
        )
        mine = network.state_dict()
        below = base.network.state_dict()
        if not below.keys() <= mine.keys():  # adapters or learned tokens, which cannot be merged
            strategy, foundation = base.spec.strategy, spec.base.name
            raise ValueError(CANNOT_GO_ON.format(base.spec.name, strategy, foundation))
        new = network.transfer_names() if spec.transfer != base.spec.transfer else set()
        mine |= {name: each.cpu() for name, each in below.items() if name not in new}
        network.load_state_dict(mine)
        tune(network, spec.strategy, spec.strategy_size or None)
    if state is not None:
        network.load_state_dict({**network.state_dict(), **state.tensors})
    network.eval()
    return network


def make_student(
    base: Model,
    spec: ModelSpec,
    start: AdaptedCheckpoint | None,
    shown: Sequence[int],
    config: FewShotConfig,
    device: torch.device,
) -> TrainableNetwork:
    """The network that learns: of `base` or, if there is one, of what was learned before.

    A new transfer layer passes on the three channels `shown` at first. For `spec` see
    `adapted_spec`.
    """
    network = _built(spec, base, start, config.seed)
    layer = network.projection
    if start is None and spec.transfer != base.spec.transfer and isinstance(layer, MAT):
        layer.pass_on(shown, torch.ones(len(shown)), torch.zeros(len(shown)))
    network = network.to(device)
    before = base if start is None else start
    network.expected_size = ExpectedSize.read(before.spec.training)
    network.to(memory_format=torch.channels_last)
    names = tuple(name for name, each in network.named_parameters() if each.requires_grad)
    spec = replace(spec, strategy_size=default_size(spec.strategy, network))
    return TrainableNetwork(spec, network, names)


def make_trainer(
    student: TrainableNetwork,
    crops: CropBatches,
    config: FewShotConfig,
    device: torch.device,
    features: Mapping[PlaneKey, Encoded] | None,
    folder: RunFolder | None,
    settings: Mapping[str, Any],
    state: Callable[[], dict[str, Any]],
) -> Trainer:
    """Trains the student on crops, with breaks; `features` are those of an untrained encoder.

    Images whose embeddings are not trained are decoded one by one, as SAM's decoder does.
    `state` is saved beside the trained tensors.
    """
    named = dict(student.network.named_parameters())
    rate = config.learning_rate or (1e-3 if student.spec.base.embedded else 3e-4)
    module = TrainingModule(student.network, auxiliary=True, smoothing=None)
    module.features.update(features or {})
    one_by_one = tuple(slice(number, number + 1) for number in range(config.crops))
    return Trainer(
        module=module,
        optimizer=torch.optim.Adam([named[name] for name in student.names], lr=rate),
        fabric=None,  # nothing global of torch changes beside a thread that predicts
        folder=folder,
        settings=settings,
        total=config.steps,
        max_norm=MAX_NORM,
        rate=lambda step: rate * min((step + 1) / WARM_UP, 1 - step / (config.steps + 1)),
        batch=lambda step, part: crops.batch(step, part).to(device),
        parts=(slice(0, config.crops),) if features is None else one_by_one,
        loss_job=lambda _, batch: module.loss_job(batch),
        state=lambda: {**state(), "tensors": student.tensors()},
        load=lambda saved: student.load(saved["tensors"]),
    )


@contextmanager
def at_strength(
    student: TrainableNetwork, initial: Mapping[str, Tensor], strength: float
) -> Iterator[None]:
    """Context in which the trained tensors lie between those at first (0) and now (1).

    Between them a network often generalizes better, and loses less of what it could before
    (Wortsman et al. 2022, arXiv 2109.01903).
    """
    now = student.tensors()
    try:
        student.load({name: torch.lerp(initial[name], now[name], strength) for name in now})
        yield
    finally:
        student.load(now)
