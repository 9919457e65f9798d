"""Files that SimMAT's authors' code wrote: what they hold, without what the tensors mean.

A ``torch.save`` of a table: ``model`` (the network's name), ``state_dict`` (what was trained),
``epoch``, ``best_iou``, and what only continues a training (``optimizer``, ``scheduler``,
``path_helper``), which is not looked at. Source: https://github.com/mt-cly/SimMAT, ``train.py``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.engine.checkpoints.checkpoint import check_numbers
from napari_simmat.engine.checkpoints.torch_file import named_tensors, read_torch_file

if TYPE_CHECKING:
    import torch

_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}
"""NumPy's names of number types -> those of `struct`."""


@dataclass(frozen=True)
class AuthorsFile:
    """What a file of the authors' code says.

    Parameters
    ----------
    network
        The authors' name of what was tuned, e.g. ``"sam_lora"``.
    tensors
        What was trained, under the authors' names; may hold the frozen prompt encoder too.
    epoch
        Epochs trained before this file was written.
    best_iou
        Mean IoU on the test images, 0..1.
    """

    network: str
    tensors: Mapping[str, torch.Tensor]
    epoch: int | None = None
    best_iou: float | None = None


def read_authors_file(path: Path) -> AuthorsFile:
    """Read a file of the authors' code; nothing in it is executed.

    Raises
    ------
    ValueError
        If the file is damaged or another program's, or holds other objects or unusable numbers;
        the sentence says which.
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
    """A finite number, also from a tensor that holds one; None for anything else."""
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
    if plain and value.numel() == 1 and not (value.is_meta or value.is_quantized):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


class _NumberType:
    """Stands for ``numpy.dtype``: the type of a number in the file."""

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


# `best_iou` is a NumPy scalar, which the weights-only loader does not know. Instead of NumPy's own
# constructors, whose names and classes differ between its versions and which would run on what the
# file says, these few lines read the number.
_STAND_INS: tuple[Callable[..., Any], ...] = (
    _NumberType,
    _stand_in_for_scalars("numpy.core.multiarray"),
    _stand_in_for_scalars("numpy._core.multiarray"),
)
