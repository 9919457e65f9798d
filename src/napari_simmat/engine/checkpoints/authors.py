"""Checkpoints of SimMAT's authors' code as ours: description and tensors.

The file holds what was trained and says neither on what nor for which sensor: the base has to be
here, and the modality is named by whoever imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_simmat.engine.checkpoints.authors_file import AuthorsFile, read_authors_file
from napari_simmat.engine.checkpoints.authors_names import (
    FROZEN,
    NETWORKS,
    Recognised,
    recognise,
    translated,
)
from napari_simmat.engine.checkpoints.catalog import ModelEntry, find, list_models
from napari_simmat.engine.checkpoints.checkpoint import some_of
from napari_simmat.engine.checkpoints.loading import Assembled, assembling, percent
from napari_simmat.engine.checkpoints.modalities import MODALITIES, find_modality
from napari_simmat.engine.checkpoints.sam_weights import OFFICIAL
from napari_simmat.engine.files import size_in_words
from napari_simmat.model.spec import InputSize, ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.words import counted

if TYPE_CHECKING:
    from torch import Tensor

BASE = "vit_b"
"""What the paper's checkpoints stand on."""
INPUT = InputSize(method="stretch", size=1024)


class Adopted(NamedTuple):
    """A checkpoint of ours: its description and its trained tensors by state-dict name."""

    spec: ModelSpec
    tensors: dict[str, Tensor]


def adopting(path: Path, modality: str, base: str | None = None) -> Job[Adopted]:
    """Read a file of the authors' code as a checkpoint of ours, step by step; nothing is written.

    Parameters
    ----------
    path
        The file.
    modality
        The authors' key of the sensor, one of `MODALITIES`: it says which channels there are and
        how they are standardised.
    base
        The name of the SAM weights it was trained on; SAM's published ViT-B by default.

    Raises
    ------
    ValueError
        If the file is damaged, foreign or of another modality or base, or the base is not here.
    """
    sensor = find_modality(modality)
    yield Progress(0, 100, f"Reading {path.name}")
    file = read_authors_file(path)
    found = _recognised(path, file)
    _check_channels(path, found, modality)
    below = yield from percent(_finding_base(path, base or BASE), 5, 80)
    _check_encoder(path, found, below)
    _check_frozen(path, file.tensors, below)
    tensors = _fitted(path, file, found, below)
    training = {"network": file.network, "modality": modality}
    known = {"epoch": file.epoch, "best_iou": file.best_iou}
    metrics = {"best_iou": file.best_iou}
    yield Progress(90, 100, f"Checking {path.name}")
    spec = ModelSpec(
        name=path.stem,
        modality=sensor.words,
        channels=sensor.channels,
        normalization=sensor.normalization,
        input_size=INPUT,
        base=below.spec.base,
        transfer=found.transfer,
        strategy=found.strategy,
        strategy_size=found.size,
        mask_choice="single",
        description=(
            f"Imported from a checkpoint of SimMAT's authors' code ({file.network}, modality "
            f"{modality})."
        ),
        training={**training, **{k: value for k, value in known.items() if value is not None}},
        metrics={name: value for name, value in metrics.items() if value is not None},
    )
    return Adopted(spec, tensors)


def _recognised(path: Path, file: AuthorsFile) -> Recognised:
    """What was trained, told by the tensors; the network's name must say the same."""
    if file.network not in NETWORKS:
        raise ValueError(
            f"{path.name} names its network {file.network[:100]!r}, which is unknown; known are "
            f"{', '.join(NETWORKS)}. Take a checkpoint of the published code."
        )
    try:
        found = recognise({name: tuple(each.shape) for name, each in file.tensors.items()})
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error} Take another copy.") from None
    if found.strategy != NETWORKS[file.network]:
        names = {strategy: network for network, strategy in NETWORKS.items()}
        like = names.get(found.strategy)
        raise ValueError(
            f"{path.name} names its network {file.network}, but its tensors are those of "
            f"{like or 'a transfer layer alone'} ({some_of(sorted(file.tensors))}). Take another "
            "copy."
        )
    return found


def _check_channels(path: Path, found: Recognised, modality: str) -> None:
    names = [channel.name for channel in MODALITIES[modality].channels]
    if found.channels == len(names):
        return
    fitting = [key for key, row in MODALITIES.items() if len(row.channels) == found.channels]
    advice = f"Name the right one with --modality: {', '.join(fitting)}."
    raise ValueError(
        f"{path.name} reads {counted(found.channels, 'channel')}, but modality {modality} has "
        f"{counted(len(names), 'channel')} ({', '.join(names)}). "
        f"{advice if fitting else 'No modality has so many.'}"
    )


def _finding_base(path: Path, name: str) -> Job[Assembled]:
    """The tensors of the base, which is one of the listed models and of SAM's shape."""
    entry = _listed(find(name))
    if entry is None:
        raise ValueError(
            f"{name} cannot be the base of {path.name}: it is not among your models, where the "
            "result would look for it. Import it first with `simmat models import`."
        )
    if entry.path is None:
        raise ValueError(
            f"{path.name} holds only what was trained on {entry.name}, which is not here. Get it "
            f"with `simmat models fetch {entry.name}` ({size_in_words(entry.size_bytes)}), or name "
            "another base that is here with --base."
        )
    if entry.spec is not None and not entry.is_base:
        raise ValueError(
            f"{entry.name} cannot be the base of {path.name}: it is a checkpoint itself. Give the "
            "name of the SAM weights that the file was trained on."
        )
    below = yield from assembling(entry.name)
    architecture = below.spec.base.architecture
    if architecture not in OFFICIAL:
        raise ValueError(
            f"{entry.name} cannot be the base of {path.name}: its architecture is {architecture}, "
            f"and the authors tuned SAM. Give {', '.join(OFFICIAL)} or weights of that shape."
        )
    return below


def _listed(entry: ModelEntry) -> ModelEntry | None:
    """The entry of the list with the same file: only there a checkpoint looks for its base."""
    if entry.path is None:
        return entry
    here = entry.path.resolve()
    return next((e for e in list_models() if e.path and e.path.resolve() == here), None)


def _check_encoder(path: Path, found: Recognised, below: Assembled) -> None:
    """Refuse a base of another width or depth than the file's image encoder."""
    encoder = below.network.image_encoder
    width, depth = encoder.patch_embed.proj.out_channels, len(encoder.blocks)
    if (found.width or width, found.depth or depth) != (width, depth):
        raise ValueError(
            f"{path.name} was trained on an image encoder with {found.depth or depth} blocks of "
            f"width {found.width or width}, but {below.spec.base.name} has {depth} of width "
            f"{width}. Name the base it was trained on with --base."
        )


def _check_frozen(path: Path, tensors: Mapping[str, Tensor], below: Assembled) -> None:
    """Refuse a prompt encoder, which is never trained, that is not the base's."""
    import torch

    other = [
        name
        for name, tensor in tensors.items()
        if name.startswith(FROZEN)
        and name in below.tensors
        and not torch.equal(tensor.float(), below.tensors[name].float())
    ]
    if other:
        raise ValueError(
            f"{path.name} was not trained on {below.spec.base.name}: {some_of(other)} differ, and "
            "training leaves those as they are in the base. Name the right base with --base; what "
            "was trained from scratch cannot be imported."
        )


def _fitted(
    path: Path, file: AuthorsFile, found: Recognised, below: Assembled
) -> dict[str, Tensor]:
    """The file's trained tensors under our names, exactly those that belong to its strategy."""
    from napari_simmat.model.foundation import build_network

    network = build_network(
        below.spec.base.architecture,
        channels=found.channels,
        transfer=found.transfer,
        strategy=found.strategy,
        size=found.size or None,
        initialize=False,
    )
    wanted = {name: each for name, each in network.named_parameters() if each.requires_grad}
    try:
        names = translated(file.tensors, found.transfer)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error} Take another copy.") from None
    surplus = [name for ours, name in names.items() if ours not in wanted]
    surplus += [n for n in file.tensors if n.startswith(FROZEN) and n not in below.tensors]
    if surplus:
        raise ValueError(
            f"{path.name} holds {some_of(sorted(surplus))}, which do not belong to {file.network}. "
            "Take a checkpoint of the published code."
        )
    if missing := sorted(set(wanted) - set(names)):
        raise ValueError(
            f"{path.name} is incomplete: of what {file.network} trains, {len(missing)} of "
            f"{len(wanted)} tensors are missing (here called {some_of(missing)}). Take another "
            "copy."
        )
    for ours, name in names.items():
        if file.tensors[name].shape != wanted[ours].shape:
            raise ValueError(
                f"{path.name} contradicts itself or its base {below.spec.base.name}: {name} has "
                f"the shape {tuple(file.tensors[name].shape)} instead of "
                f"{tuple(wanted[ours].shape)}. Take another copy, or name the right base."
            )
    return {ours: file.tensors[name] for ours, name in names.items()}
