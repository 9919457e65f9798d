"""Load a model by name or file: find its base, check its tensors, build its network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.checkpoints.catalog import (
    PUBLISHED_WEIGHTS,
    PublishedWeights,
    identify_job,
    published_spec,
    sam_spec,
)
from napari_simmat.checkpoints.checkpoint import (
    file_kind,
    some_names,
)
from napari_simmat.checkpoints.model_file import ModelFile
from napari_simmat.checkpoints.registry import ModelEntry, find_model, list_models
from napari_simmat.checkpoints.sam_weights import (
    CHECKSUM_NAMES,
    read_decoder,
)
from napari_simmat.engine.pixel_forest import FEATURES_PER_CHANNEL
from napari_simmat.io.files import format_size, hash_job
from napari_simmat.models.spec import EMBEDDED, Base, Model, ModelSpec
from napari_simmat.models.taught_kind import FEATURES, OWNERS, TaughtPixels
from napari_simmat.progress import Job, Progress, as_part, finish

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_simmat.models.instance_decoder import InstanceDecoder
    from napari_simmat.models.network import Network
    from napari_simmat.models.object_decoder import ObjectDecoder

VOCABULARY = "tokenizer.json"
"""Name of the file with a vocabulary on the Hugging Face Hub."""
MISFIT = (
    "{name} does not fit its network: {fault}. Take another copy, or a file for this version of "
    "the program."
)


_DECODER = "instance_decoder."
"""Before the names of a decoder of all objects in a safetensors file."""


class BaseMissingError(ValueError):
    """The base of a checkpoint is missing, or another model has its name."""


@dataclass(frozen=True)
class AssembledModel:
    """The tensors of a whole network as stored, and the empty network that they fit."""

    spec: ModelSpec
    network: Network
    tensors: Mapping[str, Tensor]
    fingerprint: str
    published: PublishedWeights | None = None
    decoder: Mapping[str, Tensor] | None = None
    """Which finds all objects at once, by its own names, where the spec says so."""
    pixels: TaughtPixels | None = None
    """That tell how the objects look that it was taught to look for."""
    vocabulary: Path | None = None
    """Where the words belong that it reads."""


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
        If there is no such model, its file is damaged or foreign, or its base is missing.
    OSError
        If a file is missing or unreadable.
    """
    return finish(load_model_job(name_or_path))


def load_model_job(name_or_path: str | Path) -> Job[Model]:
    """Load a model like `load_model`, step by step."""
    whole = yield from assemble_job(name_or_path)
    import torch

    from napari_simmat.models.tuning import merge

    state: dict[str, Tensor] = {}
    for done, (name, tensor) in enumerate(whole.tensors.items()):
        number = torch.float32 if tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.to(number).contiguous()
        if done % 50 == 0:
            percent = 85 + 14 * done // len(whole.tensors)
            yield Progress(percent, 100, f"Loading {whole.spec.name}")
    whole.network.load_state_dict(state, strict=True, assign=True)
    merge(whole.network)
    whole.network.requires_grad_(False)
    decoder = None if whole.decoder is None else _loaded_decoder(whole.decoder)
    yield Progress(100, 100, f"{whole.spec.name} is ready")
    return Model(
        whole.spec,
        whole.network,
        whole.fingerprint,
        whole.pixels,
        whole.vocabulary,
        decoder,
        finder=partial(load_model_job, "tiny"),
    )


def assemble_job(name_or_path: str | Path) -> Job[AssembledModel]:
    """Read the tensors of a model and of its base, and check that they fit its network."""
    entry = find_model(name_or_path)
    path = model_file(entry)
    yield Progress(0, 100, f"Reading {entry.name}")
    content = yield from as_part(hash_job(path), 0, 0.4)
    file = ModelFile.read(path)
    card = file.card
    if card is None:
        return (yield from _assemble_sam_job(entry, file, content))
    spec = replace(card.spec, name=entry.name)
    if card.is_base:
        spec = replace(spec, base=replace(spec.base, sha256=content))
    yield Progress(40, 100, f"Reading {entry.name}")
    tensors, pixels = split_pixels(path, file.tensors(), spec)
    own: dict[str, Tensor] = {}
    if spec.finds_instances:
        tensors, own = split_decoder(tensors)
        is_tuned = spec.kind is not None and spec.kind.decoder
        if own or is_tuned or card.holds_all:
            check_decoder(path, own)
    if card.holds_all:
        decoder = own if spec.finds_instances else None
        network = yield from _build_network_job(path, spec)
        _check_fit(path, tensors, network)
        words = _vocabulary_of(spec, path)
        return AssembledModel(
            spec, network, tensors, content, decoder=decoder, pixels=pixels, vocabulary=words
        )
    base = yield from _find_base_job(path, spec.base)
    yield Progress(60, 100, f"Reading {spec.base.name}")
    below, decoder = split_decoder(ModelFile.read(base).tensors())
    if own:
        decoder = own
    elif decoder:
        spec = replace(spec, instance_decoder="here")
        check_decoder(base, decoder)
    elif spec.finds_instances:  # it holds but what was trained
        spec = replace(spec, instance_decoder="none")
    network = yield from _build_network_job(path, spec)
    _check_fit(path, tensors, network, trained=True)
    wanted = network.state_dict()
    together = {name: each for name, each in {**below, **tensors}.items() if name in wanted}
    _check_fit(base, together, network)
    both = hashlib.sha256(f"{content} on {spec.base.sha256}".encode()).hexdigest()
    words = _vocabulary_of(spec, base)
    finds = decoder if spec.finds_instances else None
    return AssembledModel(
        spec, network, together, both, decoder=finds, pixels=pixels, vocabulary=words
    )


def split_decoder(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a safetensors file without a decoder of objects, and its, by its own names."""
    others = {name: each for name, each in tensors.items() if not name.startswith(_DECODER)}
    own = {name.removeprefix(_DECODER): tensors[name] for name in tensors.keys() - others.keys()}
    return others, own


def with_decoder_names(decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a decoder of all objects as a safetensors file names them."""
    return {f"{_DECODER}{name}": each for name, each in decoder.items()}


def check_decoder(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not exactly those of micro-sam's or `tiny`'s decoder; ValueError."""
    _check_fit(path, tensors, _empty_decoder(tensors))


def split_pixels(
    path: Path, tensors: Mapping[str, Tensor], spec: ModelSpec
) -> tuple[dict[str, Tensor], TaughtPixels | None]:
    """The tensors of the network, and the pixels that tell how objects look; ValueError if damaged.

    `tensors` are all of the file, `spec` is its description.
    """
    given = {name: tensors[name].numpy() for name in (FEATURES, OWNERS) if name in tensors}
    try:
        pixels = TaughtPixels.read(given, spec.kind)
    except ValueError as error:
        raise ValueError(MISFIT.format(name=path.name, fault=error)) from None
    if pixels is not None and (fault := pixels_fault(pixels, spec)):
        raise ValueError(MISFIT.format(name=path.name, fault=fault))
    return {name: each for name, each in tensors.items() if name not in given}, pixels


def pixels_fault(pixels: TaughtPixels, spec: ModelSpec) -> str:
    """Why pixels cannot tell a model how objects look: they are of other channels; empty if not."""
    count = pixels.features.shape[1]
    wanted = FEATURES_PER_CHANNEL * len(spec.channels)
    return "" if count == wanted else f"its pixels have {count} features instead of {wanted}"


def vocabulary_beside(path: Path) -> Path:
    """Where the words belong that a foundation reads: the file of its name, or tokenizer.json."""
    own = path.with_name(f"{path.stem}.{VOCABULARY}")
    plain = path.with_name(VOCABULARY)
    return plain if plain.is_file() and not own.is_file() else own


def _vocabulary_of(spec: ModelSpec, path: Path) -> Path | None:
    return vocabulary_beside(path) if spec.base.reads_words else None


def model_file(entry: ModelEntry) -> Path:
    """Path of a registered model; raises if it is missing or unusable."""
    if entry.path is None:
        raise ValueError(
            f"{entry.name} is not downloaded yet ({format_size(entry.size_bytes)}). Run `simmat "
            f"models fetch {entry.name}`, or import its file with `simmat models import FILE`."
        )
    if entry.problem:
        raise ValueError(entry.problem)
    return entry.path


def _find_base_job(path: Path, wanted: Base) -> Job[Path]:
    """Find the file of the base of the checkpoint `path`, by name and hash."""
    found = ""
    bases = [each for each in list_models() if each.is_base and not each.problem]
    for each in sorted(bases, key=lambda each: each.name != wanted.name):  # the namesake first
        if each.path is None or each.spec is None:
            continue
        is_namesake = each.name == wanted.name
        # A renamed base is found by its content, if it may be one of this architecture; one that
        # only adds a decoder, by that of the base whose network it is.
        if not is_namesake and each.spec.base.architecture != wanted.architecture:
            continue
        content = yield from as_part(hash_job(each.path), 0.4, 0.6)
        if wanted.sha256 in (content, *each.spec.same_networks):
            return each.path
        if is_namesake:
            found = content
    raise BaseMissingError(_base_missing(path, wanted, found))


def _assemble_sam_job(entry: ModelEntry, file: ModelFile, content: str) -> Job[AssembledModel]:
    """Weights of SAM's shape, identified by their hash or else by their file name."""
    path = file.path
    published: PublishedWeights | None
    if entry.kind == "downloaded":
        published = PUBLISHED_WEIGHTS[entry.name]
        checking = _check_published_job(path, published.checksum, entry.name, content)
        yield from as_part(checking, 0.4, 0.45)
    else:
        published = yield from as_part(identify_job(path, content), 0.4, 0.45)
    yield Progress(45, 100, f"Reading {entry.name}")
    tensors = file.tensors()
    decoder, its_content = yield from _decoder_job(entry, path)
    from napari_simmat.models.tuning import architecture_of

    try:
        architecture = architecture_of(tensors)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    if architecture in EMBEDDED:
        raise ValueError(
            f"{path.name} holds weights of tiny without their description. "
            "Choose the .safetensors file that was written beside them."
        )
    has_decoder = decoder is not None
    spec = sam_spec(entry.name, architecture, content, with_decoder=has_decoder)
    if published is not None:
        spec = published_spec(published, content, with_decoder=has_decoder)
    network = yield from _build_network_job(path, spec)
    _check_fit(path, tensors, network)
    if its_content:
        content = hashlib.sha256(f"{content} with {its_content}".encode()).hexdigest()
    words = _vocabulary_of(spec, path)
    return AssembledModel(
        spec, network, tensors, content, published, decoder=decoder, vocabulary=words
    )


def _decoder_job(entry: ModelEntry, path: Path) -> Job[tuple[dict[str, Tensor] | None, str]]:
    """Micro-sam's decoder in a file of weights, or published beside it; None if there is none.

    Also the SHA-256 of a file of its own; empty if it is in that of the weights.
    """
    row = PUBLISHED_WEIGHTS[entry.name].decoder if entry.kind == "downloaded" else None
    beside = path if row is None else path.with_name(row.file)
    if not beside.exists() or file_kind(beside) != "torch":
        return None, ""
    content = ""
    if row is not None:
        content = yield from as_part(hash_job(beside), 0.45, 0.46)
        checking = _check_published_job(beside, row.checksum, entry.name, content)
        yield from as_part(checking, 0.46, 0.47)
    decoder = read_decoder(beside)
    if decoder is not None:
        check_decoder(beside, decoder)
    return decoder, content


def _check_published_job(path: Path, checksum: str, name: str, sha256: str) -> Job[None]:
    """Refuse a file that is not the one published for the model `name`; its SHA-256 is known."""
    algorithm, _, digest = checksum.partition(":")
    found = sha256
    if algorithm != "sha256":
        found = yield from hash_job(path, algorithm)
    if found != digest:
        raise ValueError(
            f"{path.name} is not the published file: its {CHECKSUM_NAMES[algorithm]} is "
            f"{found[:12]}, that of {name} is {digest[:12]}. Run `simmat models fetch "
            f"{name}` again, or give your own weights another name."
        )


def _empty_decoder(tensors: Mapping[str, Tensor]) -> InstanceDecoder | ObjectDecoder:
    """The decoder that these tensors are of, its own on the meta device."""
    import torch

    from napari_simmat.models.instance_decoder import InstanceDecoder, is_transposed
    from napari_simmat.models.object_decoder import ObjectDecoder

    with torch.device("meta"):
        if "lateral8.weight" in tensors:
            return ObjectDecoder()
        return InstanceDecoder(is_transposed(tensors))


def _loaded_decoder(tensors: Mapping[str, Tensor]) -> InstanceDecoder | ObjectDecoder:
    """The decoder in evaluation mode, in float32."""
    decoder = _empty_decoder(tensors)
    state = {
        name: each.float().contiguous() if each.is_floating_point() else each
        for name, each in tensors.items()
    }
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder.requires_grad_(False).eval()


def _build_network_job(path: Path, spec: ModelSpec) -> Job[Network]:
    """Build the network without initializing weights that would be replaced."""
    yield Progress(75, 100, "Building the network")
    from napari_simmat.models.expected_size import ExpectedSize
    from napari_simmat.models.tuning import network_of

    try:
        network = network_of(spec)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    network.expected_size = ExpectedSize.read(spec.training)
    yield Progress(85, 100, f"Loading {spec.name}")
    return network


def _check_fit(
    path: Path, tensors: Mapping[str, Tensor], network: nn.Module, trained: bool = False
) -> None:
    """Refuse tensors that are not exactly those of the network, or those that were trained."""
    state = network.state_dict()
    wanted = list(network.state_dict())
    if trained:
        wanted = sorted(n for n, each in network.named_parameters() if each.requires_grad)
        tensors = dict(sorted(tensors.items()))
    missing = [name for name in wanted if name not in tensors]
    faults = [f"lacks {some_names(missing)}"] if missing and not trained else []
    if surplus := [name for name in tensors if name not in wanted]:
        faults.append(f"has {some_names(surplus)} which do not belong there")
    if faults:
        raise ValueError(MISFIT.format(name=path.name, fault=f"it {' and '.join(faults)}"))
    if missing:
        raise ValueError(
            f"{path.name} is incomplete: it lacks {some_names(missing)}, which was trained. "
            "Take another copy."
        )
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(state[name].shape)}"
            fault = f"{name} has the shape {shapes}"
            raise ValueError(MISFIT.format(name=path.name, fault=fault))


def _base_missing(path: Path, wanted: Base, found: str) -> str:
    needed = f"{path.name} stands on {wanted.name} with SHA-256 {wanted.sha256[:12]}"
    if found:
        return (
            f"{needed}, but the {wanted.name} here has {found[:12]}, on which it would give other "
            "masks. Import the base it was trained on, or a bundle that holds it."
        )
    row = PUBLISHED_WEIGHTS.get(wanted.name)
    known = row is not None and row.sha256 in ("", wanted.sha256)
    command = f"simmat models fetch {wanted.name}" if known else "simmat models import FILE"
    return f"{needed}, which is not here. Get it with `{command}`, or take a bundle that holds it."
