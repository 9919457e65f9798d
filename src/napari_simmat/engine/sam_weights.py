"""SAM's own weights: where they come from, what describes them, reading the official file.

Addresses, sizes and hashes are those of https://github.com/facebookresearch/segment-anything
(``Model Checkpoints``). Only `read_sam_weights` needs torch.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.engine.checkpoint import check_numbers
from napari_simmat.engine.header import kind_of
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
    if kind_of(path) != "torch":
        raise ValueError(
            f"{path.name} holds a checkpoint (safetensors), not PyTorch weights, whatever its "
            "name says. Rename it to end in .safetensors."
        )
    is_archive = _check_archive(path)
    import torch

    try:
        values = torch.load(path, map_location="cpu", mmap=is_archive or None, weights_only=True)
    except Exception as error:  # what a crafted or damaged file raises is up to its author
        raise _refusal(path, error) from None
    tensors = _named_tensors(path, values)
    check_numbers(path, tensors)
    return tensors


def _check_archive(path: Path) -> bool:
    """Whether it is a zip archive, as ``torch.save`` writes since 1.6; its sizes are checked."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _damaged(path) from None
    # torch stores its entries uncompressed; a compressed one could unpack to any size.
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError(
            f"{path.name} would unpack to more than its own size, which PyTorch weights never do, "
            "so it was not opened. Take a copy from a source you trust."
        )
    return True


def _named_tensors(path: Path, values: Any) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            f"{path.name} holds {'nothing' if not values else type(values).__name__}, not a table "
            "of named tensors. Choose weights of the original Segment Anything."
        )
    other = [str(name) for name, each in values.items() if not isinstance(each, torch.Tensor)]
    if other:
        raise ValueError(
            f"{path.name} is not plain weights: its entries {', '.join(other[:4])[:200]} are no "
            "tensors, as in a training checkpoint. Choose a file with the weights alone."
        )
    odd = [
        str(name)
        for name, each in values.items()
        if not isinstance(name, str)
        or each.layout != torch.strided
        or each.is_quantized
        or each.device.type != "cpu"
    ]
    if odd:
        raise ValueError(f"{path.name} cannot be used: {odd[0][:80]} is no plain named tensor.")
    # Strides of 0 make any shape of one number; whoever read it through would never end.
    if sum(each.numel() * each.element_size() for each in values.values()) > path.stat().st_size:
        raise ValueError(
            f"{path.name} is damaged: its tensors are larger than the file. Take another copy."
        )
    return dict(values)


def _refusal(path: Path, error: Exception) -> ValueError:
    """Say what the weights-only loader met: a foreign object, or damage."""
    found = re.search(r"(?:GLOBAL|class|function|global:?)\s+`?([\w.]+\.[\w.]+)", str(error))
    if "weights" in str(error).lower() and "unsupported" in str(error).lower():
        return ValueError(
            f"{path.name} holds objects other than tensors"
            f"{f' ({found[1]})' if found else ''}, which could run code, so it was not opened. "
            "Choose a file with the weights alone, from a source you trust."
        )
    return _damaged(path)


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path.name} is damaged or cut off: PyTorch cannot read it. Copy or download it again."
    )
