"""The checkpoint file: trained tensors plus their description, one safetensors file.

A base holds all tensors of its network, a checkpoint those that were trained, a bundle both. Each
carries a `ModelSpec` as JSON in its header, which can be read without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.checkpoints.description import read_description
from napari_simmat.engine.checkpoints.header import damaged, read_metadata
from napari_simmat.engine.files import sha256_of, writing
from napari_simmat.model.spec import ModelSpec

if TYPE_CHECKING:
    import torch

__all__ = ["Card", "read_card", "read_spec", "read_tensors", "save_checkpoint", "sha256_of"]

# One key each: the library writes several in an order that changes from run to run, and equal
# content shall give an equal file.
_KEY = "simmat"
_BUNDLE_KEY = "simmat-bundle"


@dataclass(frozen=True)
class Card:
    """What the header of a checkpoint says.

    Parameters
    ----------
    spec
        The description.
    holds_all
        Whether all tensors of the network are in the file: a base or a bundle.
    """

    spec: ModelSpec
    holds_all: bool

    @property
    def is_base(self) -> bool:
        """Whether checkpoints can stand on this file; only a base names no hash of another."""
        return not self.spec.base.sha256


def save_checkpoint(
    path: str | Path,
    spec: ModelSpec,
    tensors: Mapping[str, torch.Tensor],
    *,
    bundled: bool = False,
) -> None:
    """Write a checkpoint, whole or not at all; an earlier file of that name is replaced.

    Parameters
    ----------
    path
        Where to; its folder is made if need be.
    spec
        The description. A base has an empty ``spec.base.sha256``, as no file can hold its own.
    tensors
        By state-dict name: all of the network for a base or a bundle, else the trained ones.
    bundled
        Whether the tensors of the base are among `tensors`.

    Raises
    ------
    ValueError
        If there is no tensor, or one holds NaN or infinity.
    OSError
        If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    text = spec.to_json()
    read_description(text)  # what could not be read again is not written
    if not tensors:
        raise ValueError(f"{path.name} would hold no tensor; nothing was written.")
    if broken := not_finite(tensors):
        raise ValueError(
            f"{path.name} was not written: {some_of(broken)} hold NaN or infinity. "
            "The training diverged; lower its learning rate."
        )
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Contiguous copies of their own: the format knows neither strides nor shared storage.
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    with writing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, {_BUNDLE_KEY if bundled else _KEY: text})
        except SafetensorError as error:
            raise _system_error(error) from error
        temporary.chmod(mode)  # the library's own lets nobody else read a model that is shared


def read_card(path: str | Path) -> Card:
    """Read a checkpoint's header: no torch, no tensor.

    Raises
    ------
    ValueError
        If the file is damaged, foreign or of a newer format; the sentence says which.
    """
    path = Path(path)
    metadata = read_metadata(path)
    text = metadata.get(_KEY) or metadata.get(_BUNDLE_KEY)
    if text is None:
        raise ValueError(
            f"{path.name} is a safetensors file without a SimMAT description, so its channels and "
            "normalisation are unknown. Choose a file that `simmat train` wrote, or SAM weights."
        )
    try:
        spec = read_description(text)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    return Card(spec, holds_all=_KEY not in metadata or not spec.base.sha256)


def read_spec(path: str | Path) -> ModelSpec:
    """Read a checkpoint's description: no torch, no tensor."""
    return read_card(path).spec


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors as they are stored, into memory of their own.

    Raises
    ------
    ValueError
        If the file is damaged, or a tensor is not of floating point, or holds NaN or infinity.
    """
    path = Path(path)
    read_metadata(path)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not mapped: the file can be replaced or removed while its model is in use.
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
    except SafetensorError as error:
        raise damaged(path, error) from None
    check_numbers(path, tensors)
    return tensors


def check_numbers(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not of floating point, or hold NaN or infinity, in words."""
    if other := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise ValueError(
            f"{path.name} cannot be used: {some_of(other)} hold no floating-point numbers."
        )
    if broken := not_finite(tensors):
        raise ValueError(
            f"{path.name} cannot be used: {some_of(broken)} hold NaN or infinity. "
            "Take another copy or an earlier checkpoint."
        )


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    import torch

    # A sum is NaN or infinite if an element is, and needs no second tensor; it may also overflow.
    return [
        name
        for name, tensor in tensors.items()
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all()
    ]


def some_of(names: list[str]) -> str:
    """A few of the names of tensors, for a sentence."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name[:100] for name in names[:3]) + more


def _system_error(error: Exception) -> OSError:
    """Give back the number of the system's error that the library put into its text."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), str(error)) if number else OSError(str(error))
