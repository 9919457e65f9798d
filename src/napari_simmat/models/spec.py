"""`Model` and its description `ModelSpec`: channels, normalization, input size, base, training.

Needs no torch. A checkpoint contains it as JSON in its header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from napari_simmat.io.plain import OMIT_DEFAULT, check_fields, from_plain, to_plain
from napari_simmat.models.expected_size import EXPECTED_SIZE
from napari_simmat.models.taught_kind import KindSpec
from napari_simmat.models.vocabulary import NO_VOCABULARY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from napari_simmat.models.instance_decoder import InstanceDecoder
    from napari_simmat.models.network import Network
    from napari_simmat.models.object_decoder import ObjectDecoder
    from napari_simmat.models.taught_kind import TaughtPixels
    from napari_simmat.progress import Job

FORMAT_VERSION = 1
MIN_IOU = 1e-3
"""Predicted IoUs are clipped to this distance from 0 and 1 before they are calibrated."""
EMBEDDED = ("tiny", "tiny_deep", "tiny_lite")
"""Architectures of the project's own small networks (`models.tiny`).

``"tiny"``: 4 attention blocks, without local contrast; ``"tiny_deep"``: 6, with it;
``"tiny_lite"``: behind the stages of EfficientNet-Lite0.
"""
SAM_LICENSE = "SAM License"
"""Meta's of SAM 3; its section 1.b: what is derived is distributed under it, too."""
TransferName = Literal[
    "zeroshot",
    "simmat",
    "baseline_a",
    "baseline_b",
    "simcmf",
    "simcmf_b",
    "simcmf_d",
    "preconv",
    "preattn",
]
"""Transfer layers; see `models.transfer`."""
_GRIDS = {"preconv": (3, 3, 64), "preattn": (16, 1, 64)}
"""Kernel or patch, number of layers, and width, where a name does not say them."""
StrategyName = Literal[
    "frozen",
    "decoder",
    "linear",
    "lora",
    "lora_conv",
    "adapter",
    "prompt",
    "prefix",
    "full",
    "scratch",
    "scratch_full",
]
"""What can be trained besides a transfer layer; see `models.tuning`."""
STRATEGY_TITLES: dict[StrategyName, str] = {
    "frozen": "the transfer layer alone",
    "decoder": "the mask decoder; fast where no transfer layer is trained",
    "linear": "first projection and positions (linear probing)",
    "lora": "small updates of what it attends to (LoRA)",
    "lora_conv": "small updates of what it attends to and of its filters (LoRA)",
    "adapter": "small layers beside each block",
    "prompt": "learned tokens for every attention",
    "prefix": "learned keys and values for every attention",
    "full": "everything but the prompt encoder",
    "scratch": "random weights, everything trained",
    "scratch_full": "random weights, everything but the prompt encoder trained",
}
"""What each strategy trains, for the window."""


def split_transfer(name: str) -> tuple[str, tuple[int, ...]]:
    """The transfer layer of a name, and its kernel or patch, number of layers, and width.

    ``preconvk5n3d32`` has two convolutions of 5 x 5 and width 32, and a third of 1 x 1;
    ``preattnp8n2d64`` two blocks of width 64 on patches of 8 pixels, as in SimCMF's code; others
    have no such numbers.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    grid = re.fullmatch(r"(preconv)k([1-9]\d?)n([1-9])d([1-9]\d{0,2})", name) or re.fullmatch(
        r"(preattn)p([1-9]\d?)n([0-9])d([1-9]\d{0,2})", name
    )
    if grid:
        return grid[1], tuple(int(each) for each in grid.groups()[1:])
    if name not in get_args(TransferName):
        known = ", ".join(get_args(TransferName))
        raise ValueError(f"Transfer layer {name!r} is unknown; use one of {known}.")
    return name, _GRIDS.get(name, ())


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One input channel of a model.

    Parameters
    ----------
    name
        What the channel measures, e.g. ``"DAPI"`` or ``"45 deg"``.
    mean, std
        Standardization of the normalized values: the network sees ``(value - mean) / std``.
    unit
        Physical unit of the raw values, empty if there is none.
    """

    name: str
    mean: float
    std: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("A channel needs a name.")
        if not self.std > 0:
            raise ValueError(
                f"Channel {self.name} has a standard deviation of {self.std}; "
                "it must be above 0. Leave out a constant channel."
            )


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How raw values are mapped to ``0..scale`` before they are standardized.

    Parameters
    ----------
    method
        ``"percentile"`` maps the percentiles `low` and `high` of the whole stack (never of a
        slice or tile) to 0 and `scale`, clipped, without rounding; ``"none"`` keeps the values.
    low, high
        Percentiles in percent.
    joint
        One pair of percentiles for all channels together, which preserves ratios between channels;
        otherwise each channel has its own pair.
    keep_uint8
        Keep the values of uint8 images (0..255), as SAM does.
    scale
        Upper end of the range.
    clip_glare
        Where a few very bright pixels alone take most of the range, clip them, so that the rest
        keeps its contrast (`engine.normalization.below_glare`).
    """

    method: Annotated[Literal["none", "percentile"], {"noun": "Normalization method"}] = (
        "percentile"
    )
    low: float = 0.5
    high: float = 99.5
    joint: bool = False
    keep_uint8: bool = False
    scale: Annotated[float, {"above": 0}] = 255.0
    clip_glare: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"Percentiles must satisfy 0 <= low < high <= 100, got {self.low} and {self.high}."
            )


@dataclass(frozen=True, kw_only=True)
class InputChannels:
    """The named channels that a model or a data set reads from an image.

    Parameters
    ----------
    names
        In the order of the network's input.
    normalization
        One rule for all of them.
    units
        Physical unit of each, empty where there is none; may be left out.
    is_rgb
        Whether one channel may be repeated for all three, as for an RGB foundation.
    reader
        Name of the model or data set, for messages.
    may_lack
        Whether an image may lack some of several channels: the model was trained for it.
    """

    names: tuple[str, ...]
    normalization: Normalization = field(default_factory=Normalization)
    units: tuple[str, ...] = ()
    is_rgb: bool = False
    reader: str = "the model"
    may_lack: bool = False


@dataclass(frozen=True, kw_only=True)
class InputSize:
    """How an image of any size is resized to the network's input.

    Parameters
    ----------
    method
        ``"longest"``: the longest side becomes `size`, padded to a square below and right (SAM).
        ``"stretch"``: both sides become `size`, whatever the aspect (the paper's protocol).
        ``"native"``: unchanged if the longest side lies within `minimum`..`size`, otherwise scaled
        to the nearer bound; padded below and right to a multiple of `multiple`.
    size, minimum, multiple
        Pixels.
    """

    method: Annotated[Literal["longest", "stretch", "native"], {"noun": "Resize rule"}] = "longest"
    size: int = 1024
    minimum: Annotated[int, {"min": 1}] = 64
    multiple: Annotated[int, {"min": 1}] = 32

    def __post_init__(self) -> None:
        check_fields(self)
        if self.minimum > self.size:
            raise ValueError(
                f"The minimum size of an input, {self.minimum}, must not exceed its size, "
                f"{self.size}."
            )


@dataclass(frozen=True, kw_only=True)
class Base:
    """The foundation of a checkpoint: name, version and content.

    Parameters
    ----------
    name
        Name with version, e.g. ``"tiny-1"`` or ``"vit_b"``.
    architecture
        The network: one of `EMBEDDED`, ``"vit_b"``, ``"vit_l"`` or ``"vit_h"`` (SAM), ``"vit_t"``
        (MobileSAM), or ``"hiera_tiny"``, ``"hiera_small"``, ``"hiera_base_plus"`` or
        ``"hiera_large"`` (SAM 2.1), ``"edgetam"``, or ``"sam3"``.
    sha256
        SHA-256 of the base's weights file, lower-case hexadecimal.
    """

    name: str
    architecture: str
    sha256: str

    @property
    def is_sam2(self) -> bool:
        """Whether its prompts and masks are those of SAM 2."""
        return self.architecture == "edgetam" or self.architecture.startswith("hiera_")

    @property
    def reads_words(self) -> bool:
        """Whether it finds all objects that words mean."""
        return self.architecture == "sam3"

    @property
    def binding_license(self) -> str:
        """License of its weights that all that is derived from them must have; empty if any."""
        return SAM_LICENSE if self.architecture == "sam3" else ""

    @property
    def embedded(self) -> bool:
        """Whether it is one of the project's own small networks."""
        return self.architecture in EMBEDDED


@dataclass(frozen=True, kw_only=True)
class IoUCalibration:
    """Turns the IoU that a network predicts into the one that its sensor's masks reach.

    It is ``sigmoid(slope * logit(iou) + offset)`` (Platt 1999), so the order of masks stays.
    """

    slope: Annotated[float, {"min": 0.05, "max": 20.0}] = 1.0
    offset: Annotated[float, {"min": -10.0, "max": 10.0}] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def apply(self, iou: ArrayLike) -> NDArray[np.float64]:
        """Calibrated from predicted IoUs; those below 0.001 or above 0.999 become equal."""
        import numpy as np

        clipped = np.clip(np.asarray(iou, float), MIN_IOU, 1 - MIN_IOU)
        odds = self.slope * np.log(clipped / (1 - clipped)) + self.offset
        return np.asarray(1 / (1 + np.exp(-odds)))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything about a model except its tensors.

    Parameters
    ----------
    name
        Shown to the user; the stem of its file.
    modality
        What the sensor measures, e.g. ``"RGB"`` or ``"polarization (4 angles)"``.
    channels
        The input channels in the network's order.
    normalization, input_size
        How an image becomes the network's input.
    base
        The foundation.
    transfer
        The transfer layer: ``"zeroshot"`` (none), ``"simmat"``, ...
    strategy
        What was trained besides the transfer layer; ``"frozen"`` for nothing.
    strategy_size
        Rank, bottleneck or number of tokens of the strategy; 0 if it has none.
    mask_choice
        The mask that is returned: ``"single"`` (the decoder's single-mask token) or ``"stock"``
        (the best of three for a single point, otherwise the single-mask token, as SAM does).
    training, metrics
        Settings and results of the training, plain JSON values.
    iou_calibration
        Of the predicted IoU, by the validation; None if it is not calibrated.
    kind
        The kind of objects that it looks for where it segments everything; None for any.
    instance_decoder
        Micro-sam's or `tiny`'s decoder, which finds all objects at once: here, beside the
        foundation's tensors; published, but elsewhere; or none.
    """

    name: str
    modality: str
    channels: tuple[Channel, ...]
    normalization: Normalization
    input_size: InputSize
    base: Base
    transfer: str = "zeroshot"
    strategy: str = "frozen"
    strategy_size: Annotated[int, {"min": 0}] = 0
    mask_choice: Literal["single", "stock"] = "single"
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    license: str = ""
    author: str = ""
    date: str = ""
    iou_calibration: Annotated[IoUCalibration | None, OMIT_DEFAULT] = None
    kind: Annotated[KindSpec | None, OMIT_DEFAULT] = None
    instance_decoder: Annotated[Literal["none", "elsewhere", "here"], OMIT_DEFAULT] = "none"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.channels:
            raise ValueError(f"Model {self.name} names no channel; it needs at least one.")
        names = [channel.name for channel in self.channels]
        if len(set(names)) < len(names):
            raise ValueError(f"Model {self.name} names a channel twice: {', '.join(names)}.")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels in the network's order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def is_rgb(self) -> bool:
        """Whether this is an RGB foundation: one channel may be repeated for all three."""
        return self.transfer == "zeroshot" and len(self.channels) == 3

    @property
    def expects_kind(self) -> bool:
        """Whether it knows at least the size of the objects to look for."""
        return self.kind is not None or EXPECTED_SIZE in self.training

    @property
    def finds_instances(self) -> bool:
        """Whether it has a decoder that finds all objects at once, which fits its encoder.

        Not if something else was taught what to look for. Micro-sam's decoder does not fit if
        something was trained on top of the foundation; that of `tiny` reads features that stay the
        same.
        """
        fits = self.is_foundation or self.base.embedded
        is_free = self.kind.decoder if self.kind is not None else not self.expects_kind
        return self.instance_decoder == "here" and fits and is_free

    @property
    def same_networks(self) -> tuple[str, ...]:
        """SHA-256 of earlier foundations whose network it is, with a decoder added."""
        earlier = self.training.get("continues", {})
        return tuple(str(each) for each in earlier.values()) if isinstance(earlier, dict) else ()

    @property
    def is_foundation(self) -> bool:
        """Whether nothing was trained on top of the foundation."""
        return self.transfer == "zeroshot" and self.strategy == "frozen"

    @property
    def inputs(self) -> InputChannels:
        """The channels it reads, and how they are normalized."""
        return InputChannels(
            names=self.channel_names,
            normalization=self.normalization,
            units=tuple(channel.unit for channel in self.channels),
            is_rgb=self.is_rgb,
            reader=self.name,
            may_lack=bool(self.training.get("drop_channels")),
        )

    def to_json(self) -> str:
        """The description as JSON with sorted keys, for `from_plain`."""
        return json.dumps(to_plain(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_plain(cls, values: Any) -> ModelSpec:
        """The description of `to_json`, parsed; ValueError if this version cannot read it."""
        if not isinstance(values, dict):
            raise ValueError("The model's description is not a table of names and values.")
        version = values.get("format_version")
        if type(version) is not int or version < 1:
            raise ValueError("The model's description has no format version.")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"The model's description has format {version}, this version reads up to "
                f"{FORMAT_VERSION}. Update napari-simmat."
            )
        return from_plain(cls, values, "The model's description")


@dataclass(frozen=True)
class Model:
    """A network and its description.

    Parameters
    ----------
    spec
        The description; ``spec.base.sha256`` is the hash of the base's file, also of a base itself.
    network
        In evaluation mode, float32, on the CPU.
    fingerprint
        Hash of the content and its base: equal fingerprints give equal masks.
    pixels
        That tell how the objects of ``spec.kind`` look; None if it does not know.
    vocabulary
        Where the file with the words that it reads belongs; None if it reads none.
    decoder
        Micro-sam's or `tiny`'s, which finds all objects at once, where ``spec.finds_instances``.
    finder
        Loads `tiny`, which finds objects for models that have no such decoder.
    """

    spec: ModelSpec
    network: Network
    fingerprint: str
    pixels: TaughtPixels | None = None
    vocabulary: Path | None = None
    decoder: InstanceDecoder | ObjectDecoder | None = None
    finder: Callable[[], Job[Model]] | None = None

    @property
    def vocabulary_file(self) -> Path:
        """The file with the words that it reads; ValueError if it is missing."""
        if self.vocabulary is None or not self.vocabulary.is_file():
            name, path = self.spec.name, self.vocabulary or "tokenizer.json beside it"
            raise ValueError(NO_VOCABULARY.format(name=name, path=path))
        return self.vocabulary
