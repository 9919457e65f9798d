"""The network that few-shot learning adapts: its description, one training step, its checkpoint."""

from __future__ import annotations

import copy
import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_simmat.checkpoints.checkpoint import read_model_card, read_tensors, save_checkpoint
from napari_simmat.evaluation.prompting import PromptBatch, draw_prompts
from napari_simmat.models.network import EXPECTED_SIZE, Encoded, ExpectedSize, Network
from napari_simmat.models.spec import Channel, Model, ModelSpec
from napari_simmat.models.tiny_encoder import DensePixels
from napari_simmat.models.transfer import MAT
from napari_simmat.models.tuning import build_network, default_size, merge, tune
from napari_simmat.progress import Job, Progress
from napari_simmat.training.annotations import AnnotatedPlane, CropSampler, LabeledCrops
from napari_simmat.training.batches import UNKNOWN
from napari_simmat.training.losses import (
    SIZE_LOSS_WEIGHT,
    dense_targets,
    mask_loss,
    size_loss,
    to_mask_grid,
    trained_answers,
)

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
        Into how many parts a few objects are divided by place; each is left out once.
    seed
        Fixes all random numbers: the same input gives the same model on the same kind of machine.
    """

    steps: int = 24
    crops: int = 2
    prompted: int = 3
    side: int = 192
    learning_rate: float | None = None
    folds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        smallest = {"steps": 2, "crops": 1, "prompted": 1, "side": 64, "folds": 2, "seed": 0}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.side % 32:
            raise ValueError(f"side must be a multiple of 32, got {self.side}.")


@dataclass(frozen=True, eq=False)
class LearnedState:
    """What was learned: a checkpoint in memory.

    Parameters
    ----------
    spec
        Its description.
    tensors
        The trained tensors by name, or all of the network's.
    bundled
        Whether these are all, as for a model that learned on top of another checkpoint.
    """

    spec: ModelSpec
    tensors: dict[str, Tensor]
    bundled: bool

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
        save_checkpoint(path, spec, self.tensors, bundled=self.bundled)

    @classmethod
    def load(cls, path: Path) -> LearnedState:
        """Read what `save` wrote, to go on learning from it."""
        card = read_model_card(path)
        return cls(card.spec, read_tensors(path), card.holds_all)

    def model(self, base: Model) -> Model:
        """The model for a `Predictor`; `base` is the one that it learned on."""
        network = _built(self.spec, base, self)
        with torch.random.fork_rng(devices=[]):  # plain layers are initialized before they are set
            merge(network)
        network.requires_grad_(False)
        network.expected_size = ExpectedSize.read(self.spec.training)
        both = hashlib.sha256(f"{self.digest} on {base.fingerprint}".encode()).hexdigest()
        return Model(self.spec, network, both)


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
        mask_choice="single",
        metrics={},
        training={},
        author="",
        license="" if base.is_foundation else base.license,
        date=datetime.date.today().isoformat(),
    )


def _built(spec: ModelSpec, base: Model, state: LearnedState | None, seed: int = 0) -> Network:
    """The network of a description, on the weights of `base` or of a state; the rest is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(
            spec.base.architecture, channels=len(spec.channels), transfer=spec.transfer
        )
        mine, below = network.state_dict(), base.network.state_dict()
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


class Learner:
    """Trains a network on the objects of `crops`.

    Parameters
    ----------
    base
        The model that is adapted.
    spec
        See `adapted_spec`.
    start
        What was learned before.
    crops
        To learn from.
    taken
        The three channels that a new transfer layer passes on at first.
    config
        Settings.
    features
        The encoder's output for each part of `crops`, if the encoder is not trained; else None.

    Attributes
    ----------
    step
        Steps done.
    """

    def __init__(
        self,
        base: Model,
        spec: ModelSpec,
        start: LearnedState | None,
        crops: CropSampler,
        taken: Sequence[int],
        config: FewShotConfig,
        device: torch.device,
        features: Mapping[int, Encoded] | None,
    ) -> None:
        self.base, self.crops, self.config, self.device = base, crops, config, device
        self._features = features
        network = _built(spec, base, start, config.seed)
        layer = network.projection
        if start is None and spec.transfer != base.spec.transfer and isinstance(layer, MAT):
            layer.pass_on(taken, torch.ones(len(taken)), torch.zeros(len(taken)))
        self.network: Network = network.to(device)
        before = base if start is None else start
        self.network.expected_size = ExpectedSize.read(before.spec.training)
        self.network.to(memory_format=torch.channels_last)
        named = dict(network.named_parameters())
        self.names = [name for name, each in named.items() if each.requires_grad]
        self.spec = replace(spec, strategy_size=default_size(spec.strategy, network))
        rate = config.learning_rate or (1e-3 if spec.base.embedded else 3e-4)
        self.rate, self.step = rate, 0
        self._trained = [named[name] for name in self.names]
        self.optimizer = torch.optim.Adam(self._trained, lr=rate)
        self._initial = self.tensors()

    def advance_job(self) -> Job[None]:
        """One step, which may be left after each answer of the decoder.

        Images whose embeddings are not trained are decoded one by one, as SAM's decoder does.
        """
        crops, rng = self.crops.crops(self.step, self.config.crops)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        rounds = int(rng.integers(CORRECTIONS + 1))
        share = min((self.step + 1) / WARM_UP, 1 - self.step / (self.config.steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * share
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        pieces = [crops] if self._features is None else crops.one_by_one()
        for done, piece in enumerate(pieces, start=1):
            loss = yield from self._loss_job(piece, kind, rounds, rng)
            torch.autograd.backward([loss / len(pieces)])
            yield Progress(done, len(pieces))
        torch.nn.utils.clip_grad_norm_(self._trained, MAX_NORM)
        self.optimizer.step()
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for `restore`."""
        return {
            "tensors": self.tensors(),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "step": self.step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict({**self.network.state_dict(), **state["tensors"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the trained tensors."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """Context in which the trained tensors lie between those at first (0) and now (1).

        Between them a network often generalizes better, and loses less of what it could before
        (Wortsman et al. 2022, arXiv 2109.01903).
        """
        now = self.tensors()
        between = {name: torch.lerp(self._initial[name], now[name], strength) for name in now}
        try:
            self.network.load_state_dict({**self.network.state_dict(), **between})
            yield
        finally:
            self.network.load_state_dict({**self.network.state_dict(), **now})

    def learned(
        self, seen: Sequence[str], description: str, training: Mapping[str, Any], metrics: Any
    ) -> LearnedState:
        """What was learned, with what its card says."""
        trained = {**asdict(self.config), **training, SEEN: list(seen)}
        if self.network.expected_size is not None:
            trained[EXPECTED_SIZE] = list(self.network.expected_size)
        spec = replace(self.spec, description=description, training=trained, metrics=metrics)
        bundled = not self.base.spec.is_foundation
        tensors = self.tensors()
        if bundled:
            state = self.network.state_dict()
            tensors = {name: each.detach().cpu().clone() for name, each in state.items()}
        return LearnedState(spec, tensors, bundled)

    def _loss_job(
        self, crops: LabeledCrops, kind: str, rounds: int, rng: np.random.Generator
    ) -> Job[Tensor]:
        """Of the first answer and of the one after correcting clicks, as in `TrainingModule`.

        Pixels of which nothing is known do not count.
        """
        network, stride = self.network, self.network.mask_stride
        encoded = self._encoded(crops)
        labels = torch.from_numpy(crops.labels)
        middle = stride // 2
        known = (labels[:, None, middle::stride, middle::stride] != UNKNOWN).float()
        known = known.repeat_interleave(len(crops.masks) // len(labels), 0).to(self.device)
        target = to_mask_grid(torch.from_numpy(crops.masks), stride).to(self.device)
        drawn = draw_prompts(kind, crops.masks, rng)
        prompts = PromptBatch(drawn.points.to(self.device), drawn.labels.to(self.device))
        loss = encoded.embedding.new_zeros(())
        if "dense" in encoded.maps:
            dense = encoded.maps["dense"]
            sizes = size_loss(dense, dense_targets(labels).to(self.device))
            loss = loss + SIZE_LOSS_WEIGHT * sizes.mean()
            if kind != "box":
                clicks = prompts.points[:, 0].reshape(len(dense), -1, 2)
                prior = DensePixels(dense).affinity(clicks).flatten(0, 1)[:, None]
                loss = loss + 0.5 * mask_loss(prior, target, known=known).loss.mean()

        def decode(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
            answer: tuple[Tensor, Tensor] = network.decode_batch(encoded, *prompts)
            return answer

        answers = trained_answers(decode, prompts, target, rounds, stride, known)
        for turn, _, logits, quality in answers:
            masks = mask_loss(logits, target, known=known)
            loss = loss + masks.loss[:, 0].mean() + (quality - masks.iou).square().mean()
            if kind == "click" and not turn:  # ambiguous: one of the other masks may be meant
                loss = loss + 0.5 * masks.loss[:, 1:].min(1).values.mean()
            yield Progress(turn, rounds + 1)
        return loss

    def _encoded(self, crops: LabeledCrops) -> Encoded:
        network: Network = self.network
        if self._features is None:
            return network.encode(crops.images.to(self.device))
        [part] = crops.parts
        return network.with_decoder_maps(self._features[part])
