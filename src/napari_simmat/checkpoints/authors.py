"""Convert checkpoints of SimMAT's authors' code (https://github.com/mt-cly/SimMAT) to ours.

A file is a ``torch.save`` of a dict: ``model`` (the network's name), ``state_dict`` (what was
trained), ``epoch``, ``best_iou``, and ``optimizer``, ``scheduler``, ``path_helper``, which only
resume training and are ignored (``train.py``). It holds neither its base nor its sensor: the base
must be installed, and the user names the modality.

The tensor names reveal transfer layer, strategy and sizes. SAM's modules keep their names, and
additions have new ones. B = ``image_encoder.blocks.{i}``, L =
``mask_decoder.transformer.layers.{j}``, A = ``B.attn`` or any attention of the mask decoder:

=============  ===================================================================
transfer       ``image_encoder.projector.{zip_proj.{0,2},zip_rgbx,patch_embedding}``
LoRA           ``A.lora_{q,v}_{a,b}.weight``, (r, d) and (d, r)
adapter        ``{B,L}.Adapter_mlp.{down,up}_proj``
prompt tuning  ``A.deep_prompt_embeddings``, (1, l, d)
prefix tuning  ``A.prefix_{key,value}_embeddings``, (1, l, d)
=============  ===================================================================

The modalities of the AIMS benchmark by their keys: channels, published statistics, value ranges.

Source: arXiv 2409.08083 and its authors' public code. Besides its tensors, an authors' checkpoint
needs only a key.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_simmat._text import pluralize
from napari_simmat.checkpoints.catalog import SAM_ARCHITECTURES, sam_spec
from napari_simmat.checkpoints.checkpoint import check_numbers, some_names
from napari_simmat.checkpoints.loading import AssembledModel, assemble_job, percent_job
from napari_simmat.checkpoints.registry import ModelEntry, find_model, list_models
from napari_simmat.checkpoints.sam_weights import named_tensors, read_torch_file
from napari_simmat.io.files import format_size
from napari_simmat.models.spec import Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EIGHT_BITS = Normalization(low=0, high=100, keep_uint8=True)
"""8-bit images stay 0..255, others (depth, thermal) are stretched from minimum and maximum to
0..255. The published statistics are for 0..1; times 255 they standardize to the same numbers."""
AS_COMPUTED = Normalization(method="none", scale=510)

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class ModalityPart:
    """One of the images that a modality stacks.

    Parameters
    ----------
    channels
        Names.
    mean, std
        As published, for values in 0..1; for zju-rgbp for raw values.
    unit
        Unit of the raw values.
    """

    channels: tuple[str, ...]
    mean: Numbers
    std: Numbers
    unit: str = ""


@dataclass(frozen=True)
class Modality:
    """A modality of the benchmark.

    Parameters
    ----------
    words
        What the sensor measures, for the user.
    parts
        The stacked images in order, with their statistics.
    normalization
        How raw values are scaled.
    """

    words: str
    parts: dict[str, ModalityPart]
    normalization: Normalization = EIGHT_BITS

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels with statistics of the normalized values."""
        scale = 255.0 if self.normalization == EIGHT_BITS else 1.0
        return tuple(
            Channel(name=name, mean=scale * mean, std=scale * std, unit=part.unit)
            for part in self.parts.values()
            for name, mean, std in zip(part.channels, part.mean, part.std, strict=True)
        )


def _rgb(mean: Sequence[float], std: Sequence[float]) -> dict[str, ModalityPart]:
    return {"RGB": ModalityPart(("red", "green", "blue"), tuple(mean), tuple(std))}


def _three(name: str) -> tuple[str, ...]:
    return tuple(f"{name} {color}" for color in ("red", "green", "blue"))


# No statistics are published for NYU: SAM's are used, for depth their mean over the colors.
_SAM = sam_spec("vit_b", "vit_b", "").channels
_SAM_RGB = _rgb([c.mean / 255 for c in _SAM], [c.std / 255 for c in _SAM])
_DEPTH = {
    "depth": ModalityPart(
        ("depth",), (sum(_SAM_RGB["RGB"].mean) / 3,), (sum(_SAM_RGB["RGB"].std) / 3,)
    )
}
_HHA = {
    "HHA": ModalityPart(
        ("horizontal disparity", "height above ground", "angle with gravity"),
        _SAM_RGB["RGB"].mean,
        _SAM_RGB["RGB"].std,
    )
}
_NIR = {"NIR": ModalityPart(("NIR",), (0.50381,), (0.20590,))}
_NIR_RGB = _rgb((0.43031, 0.43243, 0.41996), (0.25076, 0.24733, 0.26631))
_THERMAL = {"thermal": ModalityPart(("thermal",), (0.35633,), (0.21658,))}
_THERMAL_RGB = _rgb((0.37961, 0.39143, 0.38458), (0.22784, 0.23296, 0.23524))
_PGSNET = {
    "AoLP": ModalityPart(_three("AoLP"), (0.47199, 0.46374, 0.48603), (0.28202, 0.28334, 0.25938)),
    "DoLP": ModalityPart(_three("DoLP"), (0.10264, 0.10432, 0.11925), (0.11682, 0.11885, 0.12313)),
}
_PGSNET_RGB = _rgb((0.20545, 0.21863, 0.15605), (0.19210, 0.20712, 0.18405))
_ZJU = {
    "intensity": ModalityPart(
        _three("intensity"), (141.125, 141.375, 138.996), (139.955, 140.576, 141.135)
    ),
    "AoLP": ModalityPart(
        _three("AoLP"), (-0.01453, -0.01415, -0.01653), (0.38504, 0.38248, 0.38348), "rad"
    ),
    "DoLP": ModalityPart(_three("DoLP"), (0.15173, 0.14899, 0.17018), (0.13345, 0.13081, 0.14261)),
}

_RGBT = {**_THERMAL_RGB, **_THERMAL}

MODALITIES: dict[str, Modality] = {
    "zju-rgbp": Modality("polarization, computed", _ZJU, AS_COMPUTED),
    "pgsnet_p": Modality("polarization", _PGSNET),
    "pgsnet_rgbp": Modality("RGB and polarization", {**_PGSNET_RGB, **_PGSNET}),
    "d": Modality("depth", _DEPTH),
    "rgbd": Modality("RGB and depth", {**_SAM_RGB, **_DEPTH}),
    "hha": Modality("HHA depth code", _HHA),
    "rgbhha": Modality("RGB and HHA depth code", {**_SAM_RGB, **_HHA}),
    "nir": Modality("near infra-red", _NIR),
    "rgbnir": Modality("RGB and near infra-red", {**_NIR_RGB, **_NIR}),
    "t": Modality("thermal", _THERMAL),
    "rgbt": Modality("RGB and thermal", _RGBT),
    "t_500": Modality("thermal", _THERMAL),
    "rgbt_500": Modality("RGB and thermal", _RGBT),
}
"""The modalities by the authors' keys."""


def find_modality(key: str) -> Modality:
    """The modality of a key.

    Raises ValueError if there is none.
    """
    if key not in MODALITIES:
        raise ValueError(f"Modality {key[:100]!r} is unknown; give one of {', '.join(MODALITIES)}.")
    return MODALITIES[key]


TensorShapes = Mapping[str, tuple[int, ...]]

PAPER_BASE = "vit_b"
"""The base of the paper's checkpoints."""
PAPER_INPUT_SIZE = InputSize(method="stretch", size=1024)


class ConvertedCheckpoint(NamedTuple):
    """A converted checkpoint: description and trained tensors by state-dict name."""

    spec: ModelSpec
    tensors: dict[str, Tensor]


def convert_authors_file_job(
    path: Path, modality: str, base: str | None = None
) -> Job[ConvertedCheckpoint]:
    """Convert a file of the authors' code in memory, step by step.

    Parameters
    ----------
    path
        The file.
    modality
        The authors' key of the sensor, one of `MODALITIES`; gives channels and standardization.
    base
        Name of the SAM weights that it was trained on; SAM's published ViT-B by default.

    Raises
    ------
    ValueError
        If the file is damaged, foreign or of another modality or base, or the base is missing.
    """
    sensor = find_modality(modality)
    yield Progress(0, 100, f"Reading {path.name}")
    file = read_authors_file(path)
    found = _detect(path, file)
    _check_channels(path, found, modality)
    below = yield from percent_job(_load_base_job(path, base or PAPER_BASE), 5, 80)
    _check_encoder(path, found, below)
    _check_frozen(path, file.tensors, below)
    tensors = _matching_tensors(path, file, found, below)
    training = {"network": file.network, "modality": modality}
    known = {"epoch": file.epoch, "best_iou": file.best_iou}
    metrics = {"best_iou": file.best_iou}
    yield Progress(90, 100, f"Checking {path.name}")
    spec = ModelSpec(
        name=path.stem,
        modality=sensor.words,
        channels=sensor.channels,
        normalization=sensor.normalization,
        input_size=PAPER_INPUT_SIZE,
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
    return ConvertedCheckpoint(spec, tensors)


def _detect(path: Path, file: AuthorsFile) -> DetectedArchitecture:
    """Detect what was trained from the tensors, and check that the network's name agrees."""
    if file.network not in STRATEGY_OF_NETWORK:
        raise ValueError(
            f"{path.name} names its network {file.network[:100]!r}, which is unknown; known are "
            f"{', '.join(STRATEGY_OF_NETWORK)}. Take a checkpoint of the published code."
        )
    try:
        found = detect_architecture(
            {name: tuple(each.shape) for name, each in file.tensors.items()}
        )
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error} Take another copy.") from None
    if found.strategy != STRATEGY_OF_NETWORK[file.network]:
        names = {strategy: network for network, strategy in STRATEGY_OF_NETWORK.items()}
        like = names.get(found.strategy)
        raise ValueError(
            f"{path.name} names its network {file.network}, but its tensors are those of "
            f"{like or 'a transfer layer alone'} ({some_names(sorted(file.tensors))}). Take "
            "another copy."
        )
    return found


def _check_channels(path: Path, found: DetectedArchitecture, modality: str) -> None:
    names = [channel.name for channel in MODALITIES[modality].channels]
    if found.channels == len(names):
        return
    fitting = [key for key, row in MODALITIES.items() if len(row.channels) == found.channels]
    advice = f"Name the right one with --modality: {', '.join(fitting)}."
    raise ValueError(
        f"{path.name} reads {pluralize(found.channels, 'channel')}, but modality {modality} has "
        f"{pluralize(len(names), 'channel')} ({', '.join(names)}). "
        f"{advice if fitting else 'No modality has so many.'}"
    )


def _load_base_job(path: Path, name: str) -> Job[AssembledModel]:
    """Load the base, which must be a registered model of SAM's shape."""
    entry = _entry_of_same_file(find_model(name))
    if entry is None:
        raise ValueError(
            f"{name} cannot be the base of {path.name}: it is not among your models, where the "
            "result would look for it. Import it first with `simmat models import`."
        )
    if entry.path is None:
        raise ValueError(
            f"{path.name} holds only what was trained on {entry.name}, which is not here. Get it "
            f"with `simmat models fetch {entry.name}` ({format_size(entry.size_bytes)}), or name "
            "another base that is here with --base."
        )
    if entry.spec is not None and not entry.is_base:
        raise ValueError(
            f"{entry.name} cannot be the base of {path.name}: it is a checkpoint itself. Give the "
            "name of the SAM weights that the file was trained on."
        )
    below = yield from assemble_job(entry.name)
    architecture = below.spec.base.architecture
    if architecture not in SAM_ARCHITECTURES:
        raise ValueError(
            f"{entry.name} cannot be the base of {path.name}: its architecture is {architecture}, "
            f"and the authors tuned SAM. Give {', '.join(SAM_ARCHITECTURES)} or weights of that "
            "shape."
        )
    return below


def _entry_of_same_file(entry: ModelEntry) -> ModelEntry | None:
    """The registered entry of the same file: checkpoints find their base only there."""
    if entry.path is None:
        return entry
    here = entry.path.resolve()
    return next((e for e in list_models() if e.path and e.path.resolve() == here), None)


def _check_encoder(path: Path, found: DetectedArchitecture, below: AssembledModel) -> None:
    """Refuse a base whose image encoder has another width or depth."""
    encoder = below.network.image_encoder
    width, depth = encoder.patch_embed.proj.out_channels, len(encoder.blocks)
    if (found.width or width, found.depth or depth) != (width, depth):
        raise ValueError(
            f"{path.name} was trained on an image encoder with {found.depth or depth} blocks of "
            f"width {found.width or width}, but {below.spec.base.name} has {depth} of width "
            f"{width}. Name the base it was trained on with --base."
        )


def _check_frozen(path: Path, tensors: Mapping[str, Tensor], below: AssembledModel) -> None:
    """Refuse a prompt encoder that differs from the base's: it is never trained."""
    import torch

    other = [
        name
        for name, tensor in tensors.items()
        if name.startswith(FROZEN_PREFIX)
        and name in below.tensors
        and not torch.equal(tensor.float(), below.tensors[name].float())
    ]
    if other:
        raise ValueError(
            f"{path.name} was not trained on {below.spec.base.name}: {some_names(other)} differ, "
            "and training leaves those as they are in the base. Name the right base with --base; "
            "what was trained from scratch cannot be imported."
        )


def _matching_tensors(
    path: Path, file: AuthorsFile, found: DetectedArchitecture, below: AssembledModel
) -> dict[str, Tensor]:
    """The file's trained tensors by our names; exactly those of its strategy."""
    from napari_simmat.models.tuning import build_network

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
        names = translate_names(file.tensors, found.transfer)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error} Take another copy.") from None
    surplus = [name for ours, name in names.items() if ours not in wanted]
    surplus += [n for n in file.tensors if n.startswith(FROZEN_PREFIX) and n not in below.tensors]
    if surplus:
        raise ValueError(
            f"{path.name} holds {some_names(sorted(surplus))}, which do not belong to "
            f"{file.network}. Take a checkpoint of the published code."
        )
    if missing := sorted(set(wanted) - set(names)):
        raise ValueError(
            f"{path.name} is incomplete: of what {file.network} trains, {len(missing)} of "
            f"{len(wanted)} tensors are missing (here called {some_names(missing)}). Take another "
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


STRATEGY_OF_NETWORK = {
    "sam_full_finetune": "full",
    "sam_linear_probing": "linear",
    "sam_lora": "lora",
    "sam_mlp_adapter": "adapter",
    "sam_prompt": "prompt",
    "sam_prefix": "prefix",
}
"""The authors' network names -> our strategies."""

FROZEN_PREFIX = "prompt_encoder."
"""Prefix of tensors that may be in a file although they are never trained."""

_PROJECTOR = "image_encoder.projector."
_SLOT = "image_encoder.patch_embed.proj."

# The tensor, and its axis, whose length is the size of a strategy.
_SIZES = {
    "lora": (r"\.lora_q_a\.weight", 0),
    "adapter": (r"\.Adapter_mlp\.down_proj\.weight", 0),
    "prompt": (r"\.deep_prompt_embeddings", 1),
    "prefix": (r"\.prefix_key_embeddings", 1),
}
# Tensors with an axis as long as the encoder's tokens are wide.
_WIDTHS = (
    (r"image_encoder\.blocks\.\d+\.attn\.lora_q_a\.weight", 1),
    (r"image_encoder\.blocks\.\d+\.Adapter_mlp\.down_proj\.weight", 1),
    (r"image_encoder\.blocks\.\d+\.attn\.(deep_prompt|prefix_key)_embeddings", 2),
    (r"image_encoder\.pos_embed", 3),
)
_RULES = (
    (re.escape(_PROJECTOR) + r"zip_proj\.([02])\.(weight|bias)", _SLOT + r"mat.\1.\2"),
    (re.escape(_PROJECTOR) + r"zip_rgbx\.(weight|bias)", _SLOT + r"squeeze.\1"),
    (re.escape(_PROJECTOR) + r"patch_embedding\.(weight|bias)", _SLOT + r"\1"),
    # The encoder projects queries, keys and values together, the decoder separately.
    (r"(image_encoder\..+)\.lora_([qv])_a\.weight", r"\1.qkv.down.\2"),
    (r"(image_encoder\..+)\.lora_([qv])_b\.weight", r"\1.qkv.up.\2"),
    (r"(mask_decoder\..+)\.lora_([qv])_a\.weight", r"\1.\2_proj.down.\2"),
    (r"(mask_decoder\..+)\.lora_([qv])_b\.weight", r"\1.\2_proj.up.\2"),
    (r"(.+)\.Adapter_mlp\.(down|up)_proj\.(weight|bias)", r"\1.adapter.\2.\3"),
    (r"(.+)\.deep_prompt_embeddings", r"\1.extra.tokens"),
    (r"(.+)\.prefix_(key|value)_embeddings", r"\1.extra.\2"),
)


@dataclass(frozen=True)
class DetectedArchitecture:
    """What the names and shapes of a file's tensors reveal.

    Parameters
    ----------
    transfer, strategy
        Our names.
    channels
        Of the first layer.
    size
        Rank, bottleneck width or number of tokens; 0 if the strategy has none.
    width, depth
        Of the image encoder; 0 if unknown.
    """

    transfer: str
    strategy: str
    channels: int
    size: int
    width: int
    depth: int


def detect_architecture(shapes: TensorShapes) -> DetectedArchitecture:
    """Detect what was trained from the shapes of tensors by the authors' names.

    Raises ValueError if the first layer has no channels.
    """
    transfer, first = _first_layer(shapes)
    if first is not None and len(first) != 4:
        raise ValueError(f"Its first layer has the shape {first} instead of four axes.")
    strategy = _strategy(shapes)
    pattern, axis = _SIZES.get(strategy, ("", 0))
    widths = (_axis(shapes, *each) for each in _WIDTHS)
    blocks = [re.match(r"image_encoder\.blocks\.(\d{1,4})\.", name) for name in shapes]
    return DetectedArchitecture(
        transfer,
        strategy,
        channels=3 if first is None else first[1],
        size=_axis(shapes, f".+{pattern}", axis) if pattern else 0,
        width=next((width for width in widths if width), 0),
        depth=max((int(block[1]) + 1 for block in blocks if block), default=0),
    )


def translate_names(names: Iterable[str], transfer: str) -> dict[str, str]:
    """Map our tensor names to the authors', without the frozen prompt encoder's.

    The baselines replace SAM's projection, but the authors' network, and files where it counts as
    trained, still hold the unused original: it is left out.

    Raises ValueError if two names map to one tensor.
    """
    idle = _SLOT if transfer in ("baseline_a", "baseline_b") else None
    result: dict[str, str] = {}
    for name in names:
        if name.startswith(FROZEN_PREFIX) or (idle and name.startswith(idle)):
            continue
        ours = _our_name(name)
        if ours in result:
            raise ValueError(f"Its tensors {result[ours]} and {name[:100]} are the same one.")
        result[ours] = name
    return result


def _our_name(name: str) -> str:
    for pattern, replacement in _RULES:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    return name


def _first_layer(shapes: TensorShapes) -> tuple[str, tuple[int, ...] | None]:
    """The transfer layer, and the shape (out, channels, height, width) of its first weight."""
    for transfer, layer in (
        ("simmat", "zip_proj.0"),
        ("baseline_b", "zip_rgbx"),
        ("baseline_a", "patch_embedding"),
    ):
        if (shape := shapes.get(f"{_PROJECTOR}{layer}.weight")) is not None:
            return transfer, shape
    return "zeroshot", None


def _strategy(shapes: TensorShapes) -> str:
    for strategy, (pattern, _) in _SIZES.items():
        if any(re.search(pattern, name) for name in shapes):
            return strategy
    if any(name.startswith(("image_encoder.blocks.", "mask_decoder.")) for name in shapes):
        return "full"
    return "linear" if "image_encoder.pos_embed" in shapes else "frozen"


def _axis(shapes: TensorShapes, pattern: str, axis: int) -> int:
    """Length of an axis of the first tensor whose name matches; 0 if there is none."""
    for name, shape in shapes.items():
        if re.fullmatch(pattern, name) and len(shape) > axis:
            return shape[axis]
    return 0


_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}
"""NumPy's type codes -> those of `struct`."""


@dataclass(frozen=True)
class AuthorsFile:
    """The content of a file of the authors' code.

    Parameters
    ----------
    network
        The authors' name of the tuned network, e.g. ``"sam_lora"``.
    tensors
        What was trained, by the authors' names; may include the frozen prompt encoder.
    epoch
        Epochs trained so far.
    best_iou
        Mean IoU on the test images, 0..1.
    """

    network: str
    tensors: Mapping[str, torch.Tensor]
    epoch: int | None = None
    best_iou: float | None = None


def read_authors_file(path: Path) -> AuthorsFile:
    """Read a file of the authors' code; nothing in it is executed.

    Raises ValueError if the file is damaged, foreign, or holds other objects or unusable numbers.
    """
    values = read_torch_file(path, _STAND_INS)
    if not _is_training_state(values):
        raise ValueError(
            f"{path.name} was not written by SimMAT's authors' code: it has no entries 'model' and "
            "'state_dict'. Weights of SAM are imported without a modality."
        )
    if not isinstance(values["model"], str):
        raise ValueError(f"{path.name} cannot be used: its entry 'model' is no name of a network.")
    tensors = named_tensors(path, values["state_dict"])
    check_numbers(path, tensors)
    epoch, best_iou = (_number(values.get(name)) for name in ("epoch", "best_iou"))
    return AuthorsFile(values["model"], tensors, None if epoch is None else int(epoch), best_iou)


def is_authors_file(path: Path) -> bool:
    """Whether a PyTorch file is one of the authors' code; False if it cannot be read at all."""
    try:
        return _is_training_state(read_torch_file(path, _STAND_INS))
    except ValueError:
        return False


def _is_training_state(values: Any) -> bool:
    return isinstance(values, Mapping) and {"model", "state_dict"} <= set(values)


def _number(value: Any) -> float | None:
    """A finite number, also from a tensor of one element; None for anything else."""
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
    if plain and value.numel() == 1 and not (value.is_meta or value.is_quantized):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


class _NumberType:
    """Stands in for ``numpy.dtype``: the type of a number in the file."""

    __module__ = "numpy"

    def __init__(self, name: str, *_: object) -> None:
        self.code = _CODES[name]
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}[state[1]]


_NumberType.__name__ = _NumberType.__qualname__ = "dtype"


def _stand_in_for_scalars(module: str) -> Callable[[_NumberType, bytes], float]:
    def scalar(kind: _NumberType, data: bytes) -> float:
        (number,) = struct.unpack(kind.order + kind.code, data)
        return float(number)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# `best_iou` is a NumPy scalar, which the weights-only loader refuses. NumPy's own constructors
# differ between its versions and would run on untrusted data, so these stand-ins read the number.
_STAND_INS: tuple[Callable[..., Any], ...] = (
    _NumberType,
    _stand_in_for_scalars("numpy.core.multiarray"),
    _stand_in_for_scalars("numpy._core.multiarray"),
)
