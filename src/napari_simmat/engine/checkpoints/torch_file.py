"""PyTorch files: opened by the weights-only loader alone, so that nothing in them is executed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.engine.checkpoints.header import kind_of

if TYPE_CHECKING:
    import torch


def read_torch_file(path: Path, stand_ins: Sequence[Callable[..., Any]] = ()) -> Any:
    """Read what ``torch.save`` wrote: tensors, numbers, text, and tables and lists of them.

    Large files are mapped, not copied, where their format allows.

    Parameters
    ----------
    path
        The file.
    stand_ins
        Harmless callables for objects of other packages, each under the module and name that the
        file gives its object; allowed while this file is read, and no longer.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind, or holds other objects; the sentence says which.
    """
    if kind_of(path) != "torch":
        raise ValueError(
            f"{path.name} holds a checkpoint (safetensors), not PyTorch weights, whatever its "
            "name says. Rename it to end in .safetensors."
        )
    is_archive = _check_archive(path)
    import torch

    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", mmap=is_archive or None, weights_only=True)
    except Exception as error:  # what a crafted or damaged file raises is up to its author
        raise _refusal(path, error) from None


def named_tensors(path: Path, values: Any) -> dict[str, torch.Tensor]:
    """Check that what was read is a table of plain tensors by name, and no larger than the file.

    Raises
    ------
    ValueError
        If it is something else; the sentence says what was met.
    """
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
