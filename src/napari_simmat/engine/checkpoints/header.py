"""Tell model files apart by their first bytes, and read a safetensors header without torch."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

_MOST_BYTES = 1 << 24
"""Largest header that is read; SAM's largest network needs 0.1 MB."""


def kind_of(path: Path) -> Literal["safetensors", "torch"]:
    """Tell a model file's kind from its first bytes, whatever its name.

    Raises
    ------
    ValueError
        If it is neither, or no file at all; the message says what was found.
    """
    with open_model(path) as file:
        start = file.read(16)
    if not start:
        raise ValueError(f"{path.name} is empty (0 bytes). Copy or download it again.")
    # A safetensors file starts with the length of its JSON header in 8 bytes.
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= _MOST_BYTES:
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


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a safetensors file; no tensor is read.

    The library checks the whole header (types, shapes, places, length of the file); how long the
    header may be is checked before.

    Raises
    ------
    ValueError
        If the file is cut off, damaged or of another kind; the message says which.
    """
    if kind_of(path) != "safetensors":
        raise ValueError(
            f"{path.name} holds PyTorch weights, not a checkpoint (safetensors), whatever its "
            "name says. Choose a checkpoint, or rename the file to end in .pth."
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a safetensors file that the library refuses."""
    return ValueError(f"{path.name} is cut off or damaged ({error}). Copy or download it again.")


def open_model(path: Path) -> BinaryIO:
    """Open a model file for reading; raises a one-sentence message if that fails."""
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
