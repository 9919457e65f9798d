"""Convert files of SimMAT's and SimCMF's authors to checkpoints, with the modalities of AIMS.

``train.py`` of https://github.com/mt-cly/SimMAT and https://github.com/mt-cly/SimCMF saves a dict:
``model`` (the network's name), ``state_dict`` (what was trained), ``epoch``, ``best_iou``, and what
resumes a training, which is ignored. It names neither its base nor its sensor: the base must be
here, and the user names the modality, by a key of the AIMS benchmark (arXiv 2409.08083).

SAM's modules keep their names, and additions have new ones. B = ``image_encoder.blocks.{i}``, L =
``mask_decoder.transformer.layers.{j}``, A = ``B.attn`` or any attention of the mask decoder:

=============  ===================================================================
transfer       ``image_encoder.projector``, see `_LAYERS`
LoRA           ``A.lora_{q,v}_{a,b}.weight``, (r, d) and (d, r)
adapter        ``{B,L}.Adapter_mlp.{down,up}_proj``
prompt tuning  ``A.deep_prompt_embeddings``, (1, l, d)
prefix tuning  ``A.prefix_{key,value}_embeddings``, (1, l, d)
=============  ===================================================================
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_simmat.checkpoints.catalog import SAM_ARCHITECTURES, sam_spec
from napari_simmat.checkpoints.checkpoint import (
    check_numbers,
    file_kind,
    save_checkpoint,
    some_names,
)
from napari_simmat.checkpoints.library import check_name_free
from napari_simmat.checkpoints.loading import AssembledModel, assemble_job
from napari_simmat.checkpoints.registry import ModelEntry, find_model
from napari_simmat.checkpoints.sam_weights import named_tensors, read_torch_file
from napari_simmat.io.files import user_folder
from napari_simmat.models.spec import Channel, InputSize, ModelSpec, Normalization, split_transfer
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
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


NOT_CONVERTED = (
    "{name} cannot be converted: {fault}. What train.py of SimMAT or SimCMF saved can be, with its "
    "--modality and the SAM weights that it was trained on (--base, vit_b by default)."
)
PAPER_BASE = "vit_b"
"""The base of the paper's checkpoints."""
PAPER_INPUT_SIZE = InputSize(method="stretch", size=1024)
STRATEGY_OF_NETWORK = {
    "sam_full_finetune": "full",
    "sam_linear_probing": "linear",
    "sam_lora": "lora",
    "sam_mlp_adapter": "adapter",
    "sam_prompt": "prompt",
    "sam_prefix": "prefix",
}
"""The authors' network names -> our strategies."""
_PROJECTOR = "image_encoder.projector."
_SLOT = "image_encoder.patch_embed.proj."
_LAYERS = {
    "moe.0.weight": "simcmf",
    "zip_proj.0.weight": "simmat",
    "zip_rgbx.0.weight": "simcmf_b",
    "zip_rgbx.weight": "simcmf_d",
    "patch_embedding.weight": "baseline_a",
}
"""The first tensor of a transfer layer, (d, channels, k, k), -> our name of the layer."""
# The tensor, and its axis, whose length is the size of a strategy.
_SIZES = {
    "lora": (".lora_q_a.weight", 0),
    "adapter": (".Adapter_mlp.down_proj.weight", 0),
    "prompt": (".deep_prompt_embeddings", 1),
    "prefix": (".prefix_key_embeddings", 1),
}
_RULES = (
    (re.escape(_PROJECTOR) + r"moe\.(.+)", _SLOT + r"gate.\1"),
    (re.escape(_PROJECTOR) + r"zip_(?:rgbx|proj)\.(.+)", _SLOT + r"squeeze.\1"),
    (re.escape(_PROJECTOR) + r"group_patch_embedding\.(.+)", _SLOT + r"own.\1"),
    (re.escape(_PROJECTOR) + r"fc\.weight", _SLOT + r"mix.weight"),
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
"""Their names of tensors -> ours."""


DESCRIBES_ITSELF = (
    "{} is a checkpoint that describes itself; simmat models import takes it as it is."
)


def convert_job(path: Path, name: str, modality: str, base: str | None = None) -> Job[ModelEntry]:
    """Convert a file of the authors' code to a checkpoint among the user's models.

    Parameters
    ----------
    path, modality, base
        As of `convert_authors_file_job`.
    name
        The model's.

    Raises
    ------
    ValueError
        As `convert_authors_file_job`, or if the name is taken or not allowed.
    OSError
        If the file cannot be read or the folder cannot be written.
    """
    if file_kind(path) != "torch":
        raise ValueError(DESCRIBES_ITSELF.format(path.name))
    check_name_free(name)
    spec, tensors = yield from convert_authors_file_job(path, modality, base)
    yield Progress(95, 100, f"Writing {name}")
    target = user_folder("models") / f"{name}.safetensors"
    save_checkpoint(target, replace(spec, name=name), tensors)
    yield Progress(100, 100, f"{name} is ready")
    return find_model(name)


def convert_authors_file_job(
    path: Path, modality: str, base: str | None = None
) -> Job[tuple[ModelSpec, dict[str, Tensor]]]:
    """Convert a file of the authors' code in memory, step by step; nothing in it is executed.

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
    content = _read_content(path)
    below = yield from as_part(assemble_job(base or PAPER_BASE), 0.05, 0.8)
    is_sam = below.spec.base.architecture in SAM_ARCHITECTURES
    if not is_sam or below.spec.transfer != "zeroshot":
        raise _MisfitError(
            path, f"{below.spec.name} is not weights of SAM, which the authors tuned"
        )
    yield Progress(90, 100, f"Checking {path.name}")
    transfer, channels = _transfer_of(path, content.tensors)
    if channels != len(sensor.channels):
        names = ", ".join(channel.name for channel in sensor.channels)
        raise _MisfitError(
            path, f"it reads {channels} channels, and modality {modality} has {names}"
        )
    strategy = STRATEGY_OF_NETWORK[content.network]
    figures = content.figures
    spec = ModelSpec(
        name=path.stem,
        modality=sensor.words,
        channels=sensor.channels,
        normalization=sensor.normalization,
        input_size=PAPER_INPUT_SIZE,
        base=below.spec.base,
        transfer=transfer,
        strategy=strategy,
        strategy_size=_size_of(strategy, content.tensors),
        mask_choice="single",
        description=(
            f"Imported from a checkpoint of SimMAT's authors' code ({content.network}, modality "
            f"{modality})."
        ),
        training={"network": content.network, "modality": modality, **figures},
        metrics={name: figures[name] for name in ("best_iou",) if name in figures},
    )
    return spec, _our_tensors(path, content.tensors, spec, below)


class _FileContent(NamedTuple):
    """What a file of the authors' code holds."""

    network: str
    """One of `STRATEGY_OF_NETWORK`."""
    tensors: dict[str, Tensor]
    figures: dict[str, float]
    """Of the training: ``epoch`` and ``best_iou``, if they are there."""


def _read_content(path: Path) -> _FileContent:
    content = read_torch_file(path, _STAND_INS)
    if not isinstance(content, Mapping) or not {"model", "state_dict"} <= set(content):
        raise _MisfitError(path, "it has no entries 'model' and 'state_dict'")
    network = str(content["model"])
    if network not in STRATEGY_OF_NETWORK:
        raise _MisfitError(path, f"its network {network[:100]!r} is unknown")
    tensors = named_tensors(path, content["state_dict"])
    check_numbers(path, tensors)
    figures = {}
    for name in ("epoch", "best_iou"):
        figure = _number(content.get(name))
        if figure is not None:
            figures[name] = figure
    return _FileContent(network, tensors, figures)


def _size_of(strategy: str, tensors: Mapping[str, Tensor]) -> int:
    """The size of a strategy, from its first tensor; 0 if it has none."""
    if strategy not in _SIZES:
        return 0
    ending, axis = _SIZES[strategy]
    sized = next((tensor for name, tensor in tensors.items() if name.endswith(ending)), None)
    if sized is None or sized.ndim <= axis:
        return 0
    return int(sized.shape[axis])


def _transfer_of(path: Path, tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Our name of the transfer layer, and the number of channels that it reads."""
    own = {n.removeprefix(_PROJECTOR): t for n, t in tensors.items() if n.startswith(_PROJECTOR)}
    if not own:
        return "zeroshot", 3
    name = next((tensor for tensor in _LAYERS if tensor in own), "")
    if not name or own[name].ndim != 4:
        raise _MisfitError(path, f"its transfer layer ({name or next(iter(own))}) is unknown here")
    transfer = _LAYERS[name]
    width, channels, side, _ = own[name].shape
    numbers = {int(tensor.split(".")[1]) for tensor in own if tensor.startswith("zip_proj.")}
    if transfer == "simcmf_d" and "patch_embedding.weight" in own:
        transfer = "baseline_b"  # SimCMF's baseline C
    elif transfer == "simmat" and own.get(f"zip_proj.{max(numbers)}.weight", own[name]).ndim == 2:
        transfer = f"preattnp{side}n{max(numbers) - 1}d{width}"
    elif transfer == "simmat" and numbers != {0, 2}:
        # One convolution, or two, and for each further one a pair with its ReLU.
        transfer = f"preconvk{side}n{1 + (max(numbers) + 1) // 2}d{width}"
    try:
        split_transfer(transfer)
    except ValueError as error:
        raise _MisfitError(path, str(error).rstrip(".")) from None
    return transfer, channels


def _our_tensors(
    path: Path, tensors: Mapping[str, Tensor], spec: ModelSpec, below: AssembledModel
) -> dict[str, Tensor]:
    """The trained tensors by our names, which must be exactly those of transfer and strategy."""
    from napari_simmat.models.tuning import network_of

    network = network_of(spec)
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    # Their files may hold the prompt encoder, which is never trained, and beside the baselines'
    # projection SAM's own, which they do not use.
    idle = ["prompt_encoder."]
    if f"{_PROJECTOR}patch_embedding.weight" in tensors:
        idle.append(_SLOT)
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(tuple(idle)):
            continue
        rules = ((re.fullmatch(pattern, name), new) for pattern, new in _RULES)
        renamed = next((match.expand(new) for match, new in rules if match), name)
        if spec.transfer == "simmat":
            renamed = renamed.replace(f"{_SLOT}squeeze.", f"{_SLOT}mat.")
        if name.startswith(f"{_PROJECTOR}moe.1."):  # a norm, (1, C, 1, 1)
            tensor = tensor.flatten()
        if renamed not in trained or renamed in ours:
            raise _MisfitError(path, f"{name[:100]} does not belong to {spec.training['network']}")
        if tensor.shape != trained[renamed].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(trained[renamed].shape)}"
            raise _MisfitError(path, f"on {below.spec.base.name}, {name} has the shape {shapes}")
        ours[renamed] = tensor
    missing = sorted(trained.keys() - ours.keys())
    if missing:
        raise _MisfitError(path, f"it lacks {some_names(missing)}")
    return ours


class _MisfitError(ValueError):
    """A file that cannot be converted."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(NOT_CONVERTED.format(name=path.name, fault=fault))


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


class _NumberType:
    """Stands in for ``numpy.dtype``: the type of a number in the file."""

    __module__ = "numpy"

    def __init__(self, name: str, *_: object) -> None:
        self.code = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}[name]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.code = {"<": "<", ">": ">"}[state[1]] + self.code


_NumberType.__name__ = _NumberType.__qualname__ = "dtype"


def _stand_in_for_scalars(module: str) -> Callable[[_NumberType, bytes], float]:
    def scalar(kind: _NumberType, data: bytes) -> float:
        return float(struct.unpack(kind.code, data)[0])

    scalar.__module__ = module
    scalar.__qualname__ = "scalar"
    return scalar


# `best_iou` is a NumPy scalar, which the weights-only loader refuses. NumPy's own constructors
# differ between its versions and would run on untrusted data, so these stand-ins read the number.
_STAND_INS: tuple[Callable[..., Any], ...] = (
    _NumberType,
    _stand_in_for_scalars("numpy.core.multiarray"),
    _stand_in_for_scalars("numpy._core.multiarray"),
)
