"""The catalog of published foundations: SAM, SAM 2, MobileSAM, micro-sam's, MedSAM.

Addresses and checksums are those of the publishers:

- SAM: https://github.com/facebookresearch/segment-anything (``Model Checkpoints``);
- SAM 2.1: ``checkpoints/download_ckpts.sh`` of https://github.com/facebookresearch/sam2; the
  checksums are those that micro-sam downloads by (``micro_sam/v2/util.py``);
- MobileSAM: ``weights/`` of https://github.com/ChaoningZhang/MobileSAM;
- SAM 3 has no address here, its publisher asks for consent (`ON_REQUEST`);
- micro-sam, PathoSAM, MedicoSAM: ``models`` of ``micro_sam/v1/util.py`` in
  https://github.com/computational-cell-analytics/micro-sam;
- MedSAM: https://zenodo.org/records/10689643, which publishes an MD5.

Licenses were read in ``scripts/model_export`` and ``bioimageio/model_export.py`` of micro-sam
(``LicenseId("CC-BY-4.0")``) and on https://huggingface.co/wanglab/medsam-vit-base in November 2026.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from napari_simmat.io.files import hash_job
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


def _of_meta(architecture: str, file: str, sha256: str) -> PublishedWeights:
    return PublishedWeights(
        name=architecture,
        architecture=architecture,
        url=f"https://dl.fbaipublicfiles.com/segment_anything/{file}",
        file=file,
        checksum=f"sha256:{sha256}",
        size=SIZES[architecture],
        purpose="Trained on photographs. Any layer can feed any of its three channels.",
        license="Apache-2.0",
        author="Meta AI",
        date="2023-04-05",
        citation="Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643",
        homepage="https://github.com/facebookresearch/segment-anything",
    )


_META = (
    (
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    (
        "vit_l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    (
        "vit_h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
)
_SAM2 = {
    "tiny": "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    "small": "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    "base_plus": "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    "large": "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
}
"""SHA-256 by size."""


def _of_sam2(size: str, sha256: str) -> PublishedWeights:
    name = f"sam2.1_hiera_{size}"
    return PublishedWeights(
        name=name,
        architecture=f"hiera_{size}",
        url=f"https://dl.fbaipublicfiles.com/segment_anything_2/092824/{name}.pt",
        file=f"{name}.pt",
        checksum=f"sha256:{sha256}",
        size=SIZES[f"hiera_{size}"],
        purpose="Trained on photographs and films; it follows objects through stacks and time.",
        preprocessing="sam2",
        license="Apache-2.0",
        author="Meta AI",
        date="2024-09-29",
        citation="Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714",
        homepage="https://github.com/facebookresearch/sam2",
    )


class _Place(NamedTuple):
    """Where a file is at an address, and its XXH128."""

    place: str
    xxh128: str


_ZOO = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/{}/files/{}.pt"
_SHARE = "https://owncloud.gwdg.de/index.php/s/{}/download"


def _of_micro_sam(
    name: str, address: str, weights: _Place, decoder: _Place, words: Mapping[str, str]
) -> PublishedWeights:
    architecture = name[:5]
    beside = f"{architecture}_decoder"
    return PublishedWeights(
        name=name,
        architecture=architecture,
        url=address.format(weights.place, architecture),
        file=f"{name}.pt",
        checksum=f"xxh128:{weights.xxh128}",
        size=SIZES[architecture],
        size_is_published=False,
        preprocessing="micro_sam",
        decoder=PublishedDecoder(
            url=address.format(decoder.place, beside),
            file=f"{name}_decoder.pt",
            checksum=f"xxh128:{decoder.xxh128}",
        ),
        **words,
    )


_MICROSCOPY = {
    "license": "CC-BY-4.0",
    "author": "Archit et al., University of Göttingen",
    "citation": "Archit et al., Segment Anything for Microscopy, Nature Methods 2025, "
    "doi:10.1038/s41592-024-02580-4",
    "homepage": "https://github.com/computational-cell-analytics/micro-sam",
}
_LIGHT = {
    **_MICROSCOPY,
    "modality": "light microscopy",
    "purpose": "Cells and nuclei in fluorescence, phase contrast and other light microscopy.",
}
_ELECTRON = {
    **_MICROSCOPY,
    "modality": "electron microscopy",
    "purpose": "Mitochondria, nuclei and other roundish organelles in electron microscopy.",
}
_PATHOLOGY = {
    # Of the authors' export of these models to BioImage.IO; the shared files name none.
    "license": "CC-BY-4.0",
    "author": "Griebel et al., University of Göttingen",
    "citation": "Griebel et al., Segment Anything for Histopathology, arXiv:2502.00408",
    "homepage": "https://github.com/computational-cell-analytics/patho-sam",
    "modality": "histopathology",
    "purpose": "Nuclei in stained tissue (H&E).",
}
_MEDICAL = {
    "license": "not stated",
    "author": "Archit et al., University of Göttingen",
    "citation": "Archit et al., MedicoSAM, IEEE Transactions on Medical Imaging 2025, "
    "doi:10.1109/TMI.2025.3644811",
    "homepage": "https://github.com/computational-cell-analytics/medico-sam",
    "modality": "medical images",
    "purpose": "Organs and lesions in medical images, by clicks and boxes (MedicoSAM).",
}

_MICRO_SAM: tuple[
    tuple[str, dict[str, str], tuple[tuple[str, tuple[str, str], tuple[str, str]], ...]], ...
] = (
    (
        _ZOO,
        _LIGHT,
        (
            (
                "vit_t_lm",
                ("faithful-chicken/1.1", "72ec5074774761a6e5c05a08942f981e"),
                ("faithful-chicken/1.1", "3e914a5f397b0312cdd36813031f8823"),
            ),
            (
                "vit_b_lm",
                ("diplomatic-bug/1.2", "fe9252a29f3f4ea53c15a06de471e186"),
                ("diplomatic-bug/1.2", "708b15ac620e235f90bb38612c4929ba"),
            ),
            (
                "vit_l_lm",
                ("idealistic-rat/1.2", "017f20677997d628426dec80a8018f9d"),
                ("idealistic-rat/1.2", "2faeafa03819dfe03e7c46a44aaac64a"),
            ),
        ),
    ),
    (
        _ZOO,
        _ELECTRON,
        (
            (
                "vit_t_em_organelles",
                ("greedy-whale/1", "253474720c497cce605e57c9b1d18fd9"),
                ("greedy-whale/1", "8f897c7bb93174a4d1638827c4dd6f44"),
            ),
            (
                "vit_b_em_organelles",
                ("noisy-ox/1.2", "f3bf2ed83d691456bae2c3f9a05fb438"),
                ("noisy-ox/1.2", "bb6398956a6b0132c26b631c14f95ce2"),
            ),
            (
                "vit_l_em_organelles",
                ("humorous-crab/1.2", "810b084b6e51acdbf760a993d8619f2d"),
                ("humorous-crab/1.2", "334877640bfdaaabce533e3252a17294"),
            ),
        ),
    ),
    (
        _SHARE,
        _PATHOLOGY,
        (
            (
                "vit_b_histopathology",
                ("sBB4H8CTmIoBZsQ", "ffd1a2cd84570458b257bd95fdd8f974"),
                ("KO9AWqynI7SFOBj", "6a66194dcb6e36199cbee2214ecf7213"),
            ),
            (
                "vit_l_histopathology",
                ("IZgnn1cpBq2PHod", "b591833c89754271023e901281dee3f2"),
                ("oIs6VSmkOp7XrKF", "46aab7765d4400e039772d5a50b55c04"),
            ),
            (
                "vit_h_histopathology",
                ("L7AcvVz7DoWJ2RZ", "bd1856dafc156a43fb3aa705f1a6e92e"),
                ("1qAKxy5H0jgwZvM", "3ed9f87e46ad5e16935bd8d722c8dc47"),
            ),
        ),
    ),
    (
        _SHARE,
        _MEDICAL,
        (
            (
                "vit_b_medical_imaging",
                ("f5Ol4FrjPQWfjUF", "40169f1e3c03a4b67bff58249c176d92"),
                ("ahd3ZhZl2e0RIwz", "9e498b12f526f119b96c88be76e3b2ed"),
            ),
        ),
    ),
)
"""Address and words, and of each model its name, and the `_Place` of its two files."""

PUBLISHED_WEIGHTS: dict[str, PublishedWeights] = {
    row.name: row
    for row in (
        *(_of_meta(*row) for row in _META),
        PublishedWeights(
            name="vit_t",
            architecture="vit_t",
            url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
            "f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt",
            file="mobile_sam.pt",
            checksum="sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            size=SIZES["vit_t"],
            purpose="MobileSAM: SAM with a small image encoder, for computers without a GPU.",
            license="Apache-2.0",
            author="Zhang et al.",
            citation="Zhang et al., Faster Segment Anything, arXiv:2306.14289",
            homepage="https://github.com/ChaoningZhang/MobileSAM",
        ),
        *(_of_sam2(*row) for row in _SAM2.items()),
        *(
            _of_micro_sam(name, address, _Place(*weights), _Place(*decoder), words)
            for address, words, files in _MICRO_SAM
            for name, weights, decoder in files
        ),
        PublishedWeights(
            name="medsam_vit_b",
            architecture="vit_b",
            url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth?download=1",
            file="medsam_vit_b.pth",
            checksum="md5:3bb6db55bd0c9ca30b61248bca72f8d6",
            size=SIZES["vit_b"],
            size_is_published=False,
            modality="medical images",
            purpose="Organs and lesions in medical images, by boxes: MedSAM never saw a click.",
            preprocessing="medsam",
            license="Apache-2.0",  # of the authors' copy on Hugging Face
            author="Ma et al., University of Toronto",
            citation="Ma et al., Segment Anything in Medical Images, Nature Communications 2024, "
            "doi:10.1038/s41467-024-44824-z",
            homepage="https://github.com/bowang-lab/MedSAM",
        ),
    )
}
"""The published files by model name."""


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
