"""From a name or a file to a network ready for use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_simmat.engine.checkpoints.catalog import ModelEntry, find, list_models
from napari_simmat.engine.checkpoints.checkpoint import read_card, read_tensors, some_of
from napari_simmat.engine.checkpoints.header import kind_of
from napari_simmat.engine.checkpoints.sam_weights import OFFICIAL, read_sam_weights, sam_spec
from napari_simmat.engine.files import hashing, size_in_words
from napari_simmat.model.spec import EMBEDDED, Base, ModelSpec
from napari_simmat.progress import Job, Progress, finish, relayed

if TYPE_CHECKING:
    from torch import Tensor

    from napari_simmat.model.network import Network

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A network with what describes it.

    Parameters
    ----------
    spec
        The description; ``spec.base.sha256`` is that of the base's file, also if this is a base.
    network
        In evaluation mode, float32, on the CPU.
    fingerprint
        Of the content, the base's included: equal fingerprints give equal masks.
    """

    spec: ModelSpec
    network: Network
    fingerprint: str


class BaseMissingError(ValueError):
    """A checkpoint's base is not here, or another one of its name."""


@dataclass(frozen=True)
class Assembled:
    """The tensors of a whole network as they are stored, and the empty network they fit."""

    spec: ModelSpec
    network: Network
    tensors: Mapping[str, Tensor]
    fingerprint: str


def load_model(name_or_path: str | Path) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_path
        A name of `list_models`, ``"tiny"`` for the newest built-in ``tiny-N``, a checkpoint file,
        or a SAM ``.pth`` of any size.

    Raises
    ------
    ValueError
        If there is no such model, its file is damaged or foreign, or its base is not there.
    OSError
        If a file is missing or unreadable.
    """
    return finish(loading(name_or_path))


def loading(name_or_path: str | Path) -> Job[Model]:
    """Load a model as `load_model` does, step by step; progress is in percent."""
    whole = yield from assembling(name_or_path)
    import torch

    from napari_simmat.model.tuning import merge

    state: dict[str, Tensor] = {}
    for done, (name, tensor) in enumerate(whole.tensors.items()):
        state[name] = tensor.to(torch.float32).contiguous()
        if done % 50 == 0:
            percent = 85 + 14 * done // len(whole.tensors)
            yield Progress(percent, 100, f"Loading {whole.spec.name}")
    whole.network.load_state_dict(state, strict=True, assign=True)
    merge(whole.network)
    whole.network.requires_grad_(False)
    yield Progress(100, 100, f"{whole.spec.name} is ready")
    return Model(whole.spec, whole.network, whole.fingerprint)


def assembling(name_or_path: str | Path) -> Job[Assembled]:
    """Read a model's tensors, those of its base below them, and check that they fit a network."""
    entry = find(name_or_path)
    path = file_of(entry)
    yield Progress(0, 100, f"Reading {entry.name}")
    content = yield from percent(hashing(path), 0, 40)
    if kind_of(path) == "torch":
        return (yield from _assembling_sam(entry, path, content))
    card = read_card(path)
    spec = replace(card.spec, name=entry.name)
    if card.is_base:
        spec = replace(spec, base=replace(spec.base, sha256=content))
    yield Progress(40, 100, f"Reading {entry.name}")
    tensors = read_tensors(path)
    if card.holds_all:
        network = yield from _building(path, spec)
        _check_names(path, tensors, network)
        return Assembled(spec, network, tensors, content)
    base = yield from _finding_base(path, spec.base)
    yield Progress(60, 100, f"Reading {spec.base.name}")
    below = read_sam_weights(base) if kind_of(base) == "torch" else read_tensors(base)
    network = yield from _building(path, spec)
    _check_trained(path, tensors, network)
    wanted = network.state_dict()
    together = {name: each for name, each in {**below, **tensors}.items() if name in wanted}
    _check_names(base, together, network)
    both = hashlib.sha256(f"{content} on {spec.base.sha256}".encode()).hexdigest()
    return Assembled(spec, network, together, both)


def file_of(entry: ModelEntry) -> Path:
    """The file of a listed model, if it is there and nothing speaks against using it."""
    if entry.path is None:
        raise ValueError(
            f"{entry.name} is not downloaded yet ({size_in_words(entry.size_bytes)}). Run `simmat "
            f"models fetch {entry.name}`, or import its file with `simmat models import FILE`."
        )
    if entry.problem:
        raise ValueError(entry.problem)
    return entry.path


def _finding_base(path: Path, wanted: Base) -> Job[Path]:
    """Find the file of the base that the checkpoint `path` stands on, by name and by hash."""
    found = ""
    bases = [each for each in list_models() if each.is_base and not each.problem]
    for each in sorted(bases, key=lambda each: each.name != wanted.name):  # the namesake first
        if each.path is None or each.spec is None:
            continue
        is_namesake = each.name == wanted.name
        # A renamed base is found by its content, if it may be one of this architecture.
        if not is_namesake and each.spec.base.architecture != wanted.architecture:
            continue
        content = yield from percent(hashing(each.path), 40, 60)
        if content == wanted.sha256:
            return each.path
        if is_namesake:
            found = content
    raise BaseMissingError(_base_missing(path, wanted, found))


def _assembling_sam(entry: ModelEntry, path: Path, content: str) -> Job[Assembled]:
    """Weights of SAM's shape: known by their hash, or by the name of their file."""
    published = next((row for row in OFFICIAL.values() if row.sha256 == content), None)
    if entry.kind == "downloaded" and (published is None or published.name != entry.name):
        row = OFFICIAL[entry.name]
        raise ValueError(
            f"{path.name} is not the published file: its SHA-256 is {content[:12]}, that of "
            f"{entry.name} is {row.sha256[:12]}. Run `simmat models fetch {entry.name}` again, or "
            "give your own weights another name."
        )
    yield Progress(40, 100, f"Reading {entry.name}")
    tensors = read_sam_weights(path)
    from napari_simmat.model.foundation import architecture_of

    try:
        architecture = architecture_of(tensors)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    if architecture in EMBEDDED:
        raise ValueError(
            f"{path.name} holds weights of tiny without their description. "
            "Choose the .safetensors file that was written beside them."
        )
    spec = sam_spec(published.name if published else entry.name, architecture, content)
    network = yield from _building(path, spec)
    _check_names(path, tensors, network)
    return Assembled(spec, network, tensors, content)


def _building(path: Path, spec: ModelSpec) -> Job[Network]:
    """The network without numbers in it, so that none are drawn only to be replaced."""
    yield Progress(75, 100, f"Building {spec.base.architecture}")
    from napari_simmat.model.foundation import build_network

    try:
        network = build_network(
            spec.base.architecture,
            channels=len(spec.channels),
            transfer=spec.transfer,
            strategy=spec.strategy,
            size=spec.strategy_size or None,
            initialize=False,
        )
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    yield Progress(85, 100, f"Loading {spec.name}")
    return network


def _check_names(path: Path, tensors: Mapping[str, Tensor], network: Network) -> None:
    """Refuse tensors that are not exactly those of the network."""
    wanted = network.state_dict()
    faults = []
    if missing := [name for name in wanted if name not in tensors]:
        faults.append(f"lacks {some_of(missing)}")
    if surplus := [name for name in tensors if name not in wanted]:
        faults.append(f"has {some_of(surplus)} which do not belong there")
    if faults:
        raise ValueError(
            f"{path.name} does not fit its network: it {' and '.join(faults)}. "
            "Take another copy, or a file for this version of the program."
        )
    _check_shapes(path, tensors, network)


def _check_trained(path: Path, tensors: Mapping[str, Tensor], network: Network) -> None:
    """Refuse tensors that are not exactly those that the transfer layer and strategy train."""
    wanted = {name for name, tensor in network.named_parameters() if tensor.requires_grad}
    if surplus := sorted(set(tensors) - wanted):
        raise ValueError(
            f"{path.name} does not fit its network: it has {some_of(surplus)} which do not belong "
            "there. Take another copy, or a file for this version of the program."
        )
    if missing := sorted(wanted - set(tensors)):
        raise ValueError(
            f"{path.name} is incomplete: it lacks {some_of(missing)}, which was trained. "
            "Take another copy."
        )
    _check_shapes(path, tensors, network)


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], network: Network) -> None:
    wanted = network.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{path.name} does not fit its network: {name} has the shape "
                f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}. "
                "Take another copy, or a file for this version of the program."
            )


def _base_missing(path: Path, wanted: Base, found: str) -> str:
    needed = f"{path.name} stands on {wanted.name} with SHA-256 {wanted.sha256[:12]}"
    if found:
        return (
            f"{needed}, but the {wanted.name} here has {found[:12]}, on which it would give other "
            "masks. Import the base it was trained on, or a bundle that holds it."
        )
    known = wanted.name in OFFICIAL and OFFICIAL[wanted.name].sha256 == wanted.sha256
    command = f"simmat models fetch {wanted.name}" if known else "simmat models import FILE"
    return f"{needed}, which is not here. Get it with `{command}`, or take a bundle that holds it."


def percent(job: Job[T], start: int, stop: int) -> Job[T]:
    """Report the progress of a part of a job as `start` to `stop` percent of the whole."""

    def scaled(part: Progress) -> Progress:
        share = part.done / max(1, part.total)
        return Progress(start + int((stop - start) * share), 100, part.message)

    return relayed(job, scaled)
