"""The header of a safetensors file, read without torch and without trusting it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

_MOST_BYTES = 1 << 24  # SAM's largest network needs 0.1 MB
_MOST_ELEMENTS = 1 << 48
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself.

    Parameters
    ----------
    metadata
        Free text by key; a checkpoint has its description here.
    shapes
        Shape of each tensor.
    """

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def kind_of(path: Path) -> Literal["safetensors", "torch"]:
    """Tell a model file's kind from its first bytes; its name says nothing.

    Raises
    ------
    ValueError
        If it is neither, or no file at all; the sentence says what was found.
    """
    with open_model(path) as file:
        start = file.read(16)
    if not start:
        raise ValueError(f"{path.name} is empty (0 bytes). Copy or download it again.")
    if len(start) > 8 and start[8:9] == b"{" and _length(start) <= _MOST_BYTES:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return "torch"
    if start[0] == 0x80 and start[1:2] in (b"\x03", b"\x04", b"\x05"):
        raise ValueError(
            f"{path.name} is a Python pickle, which can run code when it is opened, so it was "
            "not. Choose a checkpoint (safetensors) or PyTorch weights (.pth)."
        )
    raise ValueError(
        f"{path.name} is neither a checkpoint (safetensors) nor PyTorch weights (.pth). "
        "Choose a file that `simmat train` wrote, or SAM weights."
    )


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; the tensors are not touched.

    Raises
    ------
    ValueError
        If the file is cut off, damaged or of another kind; the sentence says which.
    """
    if kind_of(path) != "safetensors":
        raise ValueError(
            f"{path.name} holds PyTorch weights, not a checkpoint (safetensors), whatever its "
            "name says. Choose a checkpoint, or rename the file to end in .pth."
        )
    with open_model(path) as file:
        size = path.stat().st_size
        length = _length(file.read(8))
        text = file.read(length)
    if len(text) < length:
        raise _cut_off(path, 8 + length, size)
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a table")
        metadata = _checked_metadata(values.pop("__metadata__", {}))
        shapes, end = _checked_tensors(values)
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ValueError(
            f"{path.name} is damaged: its header cannot be read ({error}). "
            "Copy or download it again."
        ) from None
    if size != 8 + length + end:
        raise _cut_off(path, 8 + length + end, size)
    return Header(metadata, shapes)


def open_model(path: Path) -> BinaryIO:
    """Open a file for reading; what cannot be opened is said in one sentence."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no file {path}. Check the name; `simmat models list` shows what is there."
        ) from None
    except OSError as error:
        if path.is_dir():
            raise ValueError(
                f"{path.name} is a folder, but a model is one file (.safetensors or .pth). "
                "Choose a file."
            ) from None
        raise OSError(
            f"{path} cannot be read ({error.strerror}). Check its permissions or copy it elsewhere."
        ) from None


def _length(start: bytes) -> int:
    if len(start) < 8:
        return 0
    (length,) = struct.unpack("<Q", start[:8])
    return int(length)


def _cut_off(path: Path, expected: int, size: int) -> ValueError:
    return ValueError(
        f"{path.name} is {'cut off' if size < expected else 'damaged'}: it has {size} bytes, its "
        f"header describes {expected}. Copy or download it again."
    )


def _checked_metadata(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
        raise ValueError("its metadata is not text")
    return values


def _checked_tensors(values: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Check that the tensors lie one after the other; return their shapes and the last byte."""
    shapes: dict[str, tuple[int, ...]] = {}
    spans = []
    for name, entry in values.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name[:80]!r} lacks its type, shape or place")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name[:80]!r} has no valid shape or place")
        bits = _BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if bits is None:
            raise ValueError(f"tensor {name[:80]!r} has an unknown type")
        elements = math.prod(shape)
        if elements > _MOST_ELEMENTS or elements * bits // 8 != offsets[1] - offsets[0]:
            raise ValueError(f"tensor {name[:80]!r} has another size than its shape")
        shapes[name] = tuple(shape)
        spans.append(tuple(offsets))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError("its tensors overlap or leave gaps")
        end = stop
    return shapes, end


def _is_counts(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 8
        and all(type(value) is int and 0 <= value <= _MOST_ELEMENTS for value in values)
    )
