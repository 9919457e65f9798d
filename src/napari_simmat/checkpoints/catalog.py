"""The catalog of published foundations: SAM, SAM 2, MobileSAM, micro-sam's, MedSAM.

The published ones are data, ``catalog.toml`` beside this file. SAM 3 has no address there, its
publisher asks for consent (`ON_REQUEST`).

Needs no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from napari_simmat.io.files import hash_job
from napari_simmat.io.plain import from_plain
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import Job

SAM_ARCHITECTURES = ("vit_b", "vit_l", "vit_h")
"""SAM's own; ``"vit_t"`` is MobileSAM's."""
SIZES = {
    "vit_t": 40_728_226,
    "vit_b": 375_042_383,
    "vit_l": 1_250_000_000,
    "vit_h": 2_564_550_879,
    "hiera_tiny": 156_008_466,
    "hiera_small": 184_416_285,
    "hiera_base_plus": 323_606_802,
    "hiera_large": 898_083_611,
    "edgetam": 56_200_000,
    "sam3": 3_440_000_000,
}
"""Bytes of a file with the tensors of an architecture; approximate for ``vit_l``, ``edgetam`` and
``sam3``."""
ON_REQUEST = {
    "sam3": "SAM 3 is given on request, so it cannot be downloaded here: accept its terms (SAM "
    "License) on https://huggingface.co/facebook/sam3, save model.safetensors and tokenizer.json "
    "into one folder, and run `simmat models import FOLDER/model.safetensors --name sam3`.",
}
"""How to get foundations whose publishers ask who uses them, by name."""


IMAGE_KINDS = {
    "RGB or gray": "Any image",
    "light microscopy": "Microscopy",
    "electron microscopy": "Electron microscopy",
    "histopathology": "Histology",
    "medical images": "Medical images",
    "RGB": "Photographs",
}
"""By `ModelSpec.modality`, in the order of the list of models."""
OTHER_SENSORS = "Other sensors"
DECODER_SIZE = 44_200_000
"""Bytes of a file with micro-sam's decoder: those of the larger of its two kinds."""
SIZE_NOT_PUBLISHED = "not published; the figure is that of SAM's file of this architecture"


class PublishedDecoder(NamedTuple):
    """Micro-sam's decoder for automatic segmentation, a file beside the model's own.

    Attributes
    ----------
    url, file, checksum
        As of `PublishedWeights`.
    """

    url: str
    file: str
    checksum: str


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published file.

    Parameters
    ----------
    file
        Its name among the user's files.
    checksum
        Of the content, as the publisher gives it: ``"sha256:..."``, ``"xxh128:..."`` or
        ``"md5:..."``.
    size
        Bytes; if the publisher says nothing, those of SAM's file with the same tensors.
    modality, purpose
        What kind of images it is for, and what it segments in them.
    preprocessing
        A name in `PREPROCESSING`.
    license, author, date, citation, homepage
        Of the weights.
    decoder
        Finds all objects at once, on these weights' image embedding.
    """

    name: str
    architecture: str
    url: str
    file: str
    checksum: str
    size: int
    size_is_published: bool = True
    modality: str = "RGB"
    purpose: str
    preprocessing: str = "sam"
    license: str
    author: str
    date: str = ""
    citation: str
    homepage: str
    decoder: PublishedDecoder | None = None

    @property
    def sha256(self) -> str:
        """The published SHA-256; empty if the publisher gives another checksum."""
        algorithm, _, digest = self.checksum.partition(":")
        return digest if algorithm == "sha256" else ""


def _published() -> dict[str, PublishedWeights]:
    """The published files by model name, as ``catalog.toml`` lists them."""
    text = Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8")
    rows = [
        from_plain(PublishedWeights, {**shared, **model}, "catalog.toml")
        for shared in tomllib.loads(text)["family"]
        for model in shared.pop("models")
    ]
    return {row.name: row for row in rows}


PUBLISHED_WEIGHTS = _published()


class Preprocessing(NamedTuple):
    """How images become the input of a published network, and which mask is its answer."""

    channels: tuple[Channel, ...]
    normalization: Normalization
    input_size: InputSize
    mask_choice: Literal["single", "stock"]


# Mean and standard deviation of SAM's training images, in 0..255 (segment_anything.build_sam).
_RGB = tuple(
    Channel(name=color, mean=mean, std=std)
    for color, mean, std in (
        ("red", 123.675, 58.395),
        ("green", 116.28, 57.12),
        ("blue", 103.53, 57.375),
    )
)
BY_MICRO_SAM = "It holds micro-sam's decoder, so images are preprocessed as micro-sam does."
_LONGEST = InputSize(method="longest", size=1024)
PREPROCESSING = {
    "sam": Preprocessing(_RGB, Normalization(keep_uint8=True), _LONGEST, "stock"),
    # The same colors, square (SAM2Transforms).
    "sam2": Preprocessing(
        _RGB, Normalization(keep_uint8=True), InputSize(method="stretch", size=1024), "stock"
    ),
    # To -1..1, square (Sam3Processor).
    "sam3": Preprocessing(
        tuple(Channel(name=each.name, mean=127.5, std=127.5) for each in _RGB),
        Normalization(keep_uint8=True),
        InputSize(method="stretch", size=1008),
        "stock",
    ),
    # From the minimum to the maximum, also of 8-bit images (micro_sam.util._to_image).
    "micro_sam": Preprocessing(_RGB, Normalization(low=0, high=100), _LONGEST, "stock"),
    # Clipped at percentiles, then 0..1 without a mean, and square (MedSAM_Inference.py).
    "medsam": Preprocessing(
        tuple(Channel(name=each.name, mean=0.0, std=1.0) for each in _RGB),
        Normalization(joint=True, scale=1.0),
        InputSize(method="stretch", size=1024),
        "single",
    ),
}
"""By publisher."""
OF_SAM = ("sam", "micro_sam", "medsam")
"""Those in which networks of SAM's own architecture are trained."""


def published_spec(
    row: PublishedWeights, sha256: str = "", *, with_decoder: bool = False
) -> ModelSpec:
    """Describe published weights; their SHA-256 is known from the file or from the publisher.

    `with_decoder` says whether the publisher's decoder is here, too, if there is one.
    """
    decoder = "none" if row.decoder is None else "here" if with_decoder else "elsewhere"
    return _spec(
        row.name,
        Base(name=row.name, architecture=row.architecture, sha256=sha256 or row.sha256),
        row.preprocessing,
        modality=row.modality,
        description=f"{foundation_title(row.architecture)}. {row.purpose}",
        license=row.license,
        author=row.author,
        date=row.date,
        instance_decoder=decoder,
    )


def sam_spec(
    name: str,
    architecture: str,
    sha256: str,
    *,
    with_decoder: bool = False,
    preprocessing: str = "",
) -> ModelSpec:
    """Describe a file of the user's own with the tensors of SAM, SAM 2 or 3.

    Parameters
    ----------
    name
        The stem of the file.
    architecture
        Of `models.spec.Base`, but no embedded one.
    sha256
        Of the file.
    with_decoder
        Whether it holds micro-sam's decoder, too; then micro-sam has trained it, on images as it
        preprocesses them.
    preprocessing
        A name in `PREPROCESSING`; by default that of the architecture, or micro-sam's.
    """
    base = Base(name=name, architecture=architecture, sha256=sha256)
    description = f"Your own weights of the shape of {foundation_title(architecture)}."
    usual = "sam2" if base.is_sam2 else "sam"
    words = {"modality": "RGB", "description": description}
    if architecture == "sam3":
        usual, words["license"] = "sam3", base.binding_license
    elif with_decoder and usual == "sam":
        usual = "micro_sam"
        words["description"] = f"{description} {BY_MICRO_SAM}"
    decoder = "here" if with_decoder else "none"
    preprocessing = preprocessing or usual
    return _spec(name, base, preprocessing, instance_decoder=decoder, **words)


def foundation_title(architecture: str) -> str:
    """What an architecture is called: ``Segment Anything (ViT-B)``."""
    if architecture == "sam3":
        return "Segment Anything 3"
    if architecture == "edgetam":
        return "EdgeTAM"
    family, _, size = architecture.partition("_")
    if family == "hiera":
        return f"Segment Anything 2.1 (Hiera {size.replace('_', ' ')})"
    return f"Segment Anything (ViT-{size.upper()})"


def _spec(name: str, base: Base, preprocessing: str, **words: str) -> ModelSpec:
    channels, normalization, input_size, mask_choice = PREPROCESSING[preprocessing]
    return ModelSpec(
        name=name,
        channels=channels,
        normalization=normalization,
        input_size=input_size,
        base=base,
        transfer="zeroshot",
        mask_choice=mask_choice,
        **words,  # type: ignore[arg-type]
    )


def likely_architecture(size: int) -> str:
    """Guess the architecture from the size of a file in bytes."""
    return min(SIZES, key=lambda name: abs(SIZES[name] - size))


def identify_job(path: Path, sha256: str) -> Job[PublishedWeights | None]:
    """The published file that `path` is, by its content, whose SHA-256 is known."""
    digests = {"sha256": sha256}
    likely = likely_architecture(path.stat().st_size)
    for row in PUBLISHED_WEIGHTS.values():
        algorithm, _, digest = row.checksum.partition(":")
        if algorithm not in digests:
            if row.architecture != likely:
                continue
            digests[algorithm] = yield from hash_job(path, algorithm)
        if digests[algorithm] == digest:
            return row
    return None


def image_kind(modality: str) -> str:
    """What a model of this modality is for, in words of the user."""
    return IMAGE_KINDS.get(modality, OTHER_SENSORS)


def catalog_words(name: str) -> Mapping[str, str]:
    """Source, citation and checksum of a published model for its card; empty for others."""
    row = PUBLISHED_WEIGHTS.get(name)
    if row is None:
        return {}
    return {
        "citation": row.citation,
        "homepage": row.homepage,
        "download": row.url,
        "checksum": row.checksum,
        "decoder": "" if row.decoder is None else f"{row.decoder.url} ({row.decoder.checksum})",
        "size": "" if row.size_is_published else SIZE_NOT_PUBLISHED,
    }
