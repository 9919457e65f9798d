"""SAM's own weights: where they come from, what describes them, reading the official file.

Addresses, sizes and hashes are those of https://github.com/facebookresearch/segment-anything
(``Model Checkpoints``). Only `read_sam_weights` needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.checkpoints.checkpoint import check_numbers
from napari_simmat.engine.checkpoints.torch_file import named_tensors, read_torch_file
from napari_simmat.model.spec import Base, Channel, InputSize, ModelSpec, Normalization

if TYPE_CHECKING:
    import torch

ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True)
class Official:
    """One of the published files.

    Parameters
    ----------
    name
        The model's name, which is that of its architecture, too.
    file
        The file's name at `ADDRESS`.
    size
        Bytes; of ``vit_l`` only about.
    sha256
        Of the content.
    """

    name: str
    file: str
    size: int
    sha256: str


OFFICIAL = {
    row.name: row
    for row in (
        Official(
            "vit_b",
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        Official(
            "vit_l",
            "sam_vit_l_0b3195.pth",
            1_250_000_000,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        Official(
            "vit_h",
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
    )
}
"""The published files by the name of their model."""

# Mean and standard deviation of SAM's training images, in 0..255 (segment_anything.build_sam).
_RGB = (("red", 123.675, 58.395), ("green", 116.28, 57.12), ("blue", 103.53, 57.375))


def sam_spec(name: str, architecture: str, sha256: str) -> ModelSpec:
    """What describes a network of SAM's shape with SAM's preprocessing.

    Parameters
    ----------
    name
        The model's name: an official one, or the stem of a file.
    architecture
        ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
    sha256
        Of the weights file.
    """
    official = name in OFFICIAL
    return ModelSpec(
        name=name,
        modality="RGB",
        channels=tuple(Channel(name=color, mean=mean, std=std) for color, mean, std in _RGB),
        normalization=Normalization(method="percentile", keep_uint8=True, scale=255.0),
        input_size=InputSize(method="longest", size=1024),
        base=Base(name=name, architecture=architecture, sha256=sha256),
        transfer="zeroshot",
        mask_choice="stock",
        description=(
            f"Segment Anything (ViT-{architecture[-1].upper()}), trained on "
            "photographs. Any layer can feed any of its three channels."
            if official
            else f"Weights of Segment Anything's shape ({architecture}) from a file of your own."
        ),
        license="Apache-2.0" if official else "",
        author="Meta AI" if official else "",
        date="2023-04-05" if official else "",
    )


def likely_architecture(size: int) -> str:
    """The architecture whose file is nearest to so many bytes: a guess for a card."""
    return min(OFFICIAL.values(), key=lambda row: abs(row.size - size)).name


def read_sam_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch file of plain weights, as SAM is published; nothing in it is executed.

    Large files are mapped, not copied, where their format allows.

    Raises
    ------
    ValueError
        If the file is damaged, holds anything but named tensors of floating point, or NaN or
        infinity; the sentence says which.
    """
    path = Path(path)
    tensors = named_tensors(path, read_torch_file(path))
    check_numbers(path, tensors)
    return tensors
