"""The checkpoint file: tensors and their description in one safetensors file.

A base holds all tensors of its network, a checkpoint those that were trained, a bundle both. The
header holds a `ModelSpec` as JSON, which can be read without torch. Files are untrusted: the
description is validated field by field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from napari_simmat.io.files import atomic_write
from napari_simmat.io.plain import expect, parse_json
from napari_simmat.models.spec import ModelSpec
from napari_simmat.models.taught_kind import TaughtPixels

if TYPE_CHECKING:
    import torch


# A single key per file: the library writes several in random order, and equal content must give
# equal files.
_KEY = "simmat"
_BUNDLE_KEY = "simmat-bundle"
FileKind = Literal["safetensors", "torch"]


@dataclass(frozen=True)
class ModelCard:
    """The content of a checkpoint's header.

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
        """Whether it can be the base of checkpoints; a base refers to no other file."""
        return not self.spec.base.sha256


def save_checkpoint(
    path: str | Path,
    spec: ModelSpec,
    tensors: Mapping[str, torch.Tensor],
    *,
    bundled: bool = False,
    pixels: TaughtPixels | None = None,
) -> None:
    """Write a checkpoint atomically, replacing an earlier file of that name.

    Parameters
    ----------
    path
        The file; its folder is created if needed.
    spec
        The description; that of a base has an empty ``spec.base.sha256``.
    tensors
        By state-dict name: all of the network for a base or a bundle, else the trained ones.
    bundled
        Whether the tensors of the base are among `tensors`.
    pixels
        That tell how the objects of ``spec.kind`` look.

    Raises
    ------
    ValueError
        If there is nothing to hold, or a tensor holds NaN or infinity.
    OSError
        If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    text = spec.to_json()
    read_description(text)  # refuse what could not be read again
    if not tensors and spec.kind is None:
        raise ValueError(f"{path.name} would hold no tensor; nothing was written.")
    if broken := non_finite_names(tensors):
        raise ValueError(
            f"{path.name} was not written: {some_names(broken)} hold NaN or infinity. "
            "The training diverged; lower its learning rate."
        )
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # The format knows neither strides nor shared storage, so every tensor is copied.
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    if pixels is not None:
        plain |= {name: torch.tensor(each) for name, each in pixels.arrays.items()}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, {_BUNDLE_KEY if bundled else _KEY: text})
        except SafetensorError as error:
            # The library gives the system's error number only as text.
            number = re.search(r"os error (\d+)", str(error))
            words = [int(number[1])] if number else []
            raise OSError(*words, str(error)) from error
        temporary.chmod(mode)  # the library's own mode lets only the owner read the file


def read_model_card(path: str | Path) -> ModelCard:
    """Read a checkpoint's header: no torch, no tensor.

    Raises ValueError if the file is damaged, foreign or of a newer format.
    """
    return card_of(Path(path), read_header(Path(path)))


def card_of(path: Path, header: Header) -> ModelCard:
    """The card in the header of the file `path`; ValueError if there is none, or none of ours."""
    texts = header.texts
    text = texts.get(_KEY) or texts.get(_BUNDLE_KEY)
    if text is None:
        raise ValueError(
            f"{path.name} is a safetensors file without a SimMAT description, so its channels and "
            "normalization are unknown. Choose a file that `simmat train` wrote, or SAM weights."
        )
    try:
        spec = read_description(text)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None
    return ModelCard(spec, holds_all=_KEY not in texts or not spec.base.sha256)


def read_spec(path: str | Path) -> ModelSpec:
    """Read a checkpoint's description: no torch, no tensor."""
    return read_model_card(path).spec


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors in their stored type, copied into memory.

    Raises ValueError if the file is damaged, or a tensor is not of floating point, or holds NaN or
    infinity.
    """
    path = Path(path)
    read_header(path)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Not memory-mapped: the file may be replaced or removed while its model is in use.
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
    except SafetensorError as error:
        raise damaged(path, error) from None
    check_numbers(path, tensors)
    return tensors


def check_numbers(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not of floating point, or hold NaN or infinity.

    The counters of batch norms, which nothing uses, are whole numbers.
    """
    other = [
        name
        for name, tensor in tensors.items()
        if not tensor.is_floating_point() and not name.endswith(".num_batches_tracked")
    ]
    if other:
        raise ValueError(
            f"{path.name} cannot be used: {some_names(other)} hold no floating-point numbers."
        )
    if broken := non_finite_names(tensors):
        raise ValueError(
            f"{path.name} cannot be used: {some_names(broken)} hold NaN or infinity. "
            "Take another copy or an earlier checkpoint."
        )


def non_finite_names(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    import torch

    # The sum is NaN or infinite if any element is, and needs no second tensor. It may also
    # overflow, so the elements decide.
    return [
        name
        for name, tensor in tensors.items()
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all()
    ]


def some_names(names: list[str]) -> str:
    """The first three names and the number of others, for messages."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name[:100] for name in names[:3]) + more


_MAX_HEADER_BYTES = 1 << 24
"""Largest header that is read; SAM's largest network needs 0.1 MB."""


def file_kind(path: Path) -> FileKind:
    """Tell a model file's kind from its first bytes, whatever its name.

    Raises ValueError if it is neither, or no file at all.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name} is a pipe or device, but a model is a file; name one.")
        with path.open("rb") as file:
            start = file.read(16)
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
    if not start:
        raise ValueError(f"{path.name} is empty (0 bytes). Copy or download it again.")
    # A safetensors file starts with the length of its JSON header in 8 bytes.
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= _MAX_HEADER_BYTES:
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


class Header(NamedTuple):
    """What stands in the header of a safetensors file.

    Attributes
    ----------
    texts
        By their keys.
    names
        Of the tensors.
    """

    texts: dict[str, str]
    names: list[str]

    @property
    def is_described(self) -> bool:
        """Whether it has a SimMAT description."""
        return not self.texts.keys().isdisjoint((_KEY, _BUNDLE_KEY))


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file; no tensor is read.

    The library checks the whole header (types, shapes, places, length of the file); how long the
    header may be is checked before.

    Raises ValueError if the file is cut off, damaged or of another kind.
    """
    if file_kind(path) != "safetensors":
        raise ValueError(
            f"{path.name} holds PyTorch weights, not a checkpoint (safetensors), whatever its "
            "name says. Choose a checkpoint, or rename the file to end in .pth."
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return Header(dict(file.metadata() or {}), list(file.keys()))
    except SafetensorError as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a safetensors file that the library refuses."""
    said = " ".join(str(error).split())[:200]  # the library repeats what it could not parse
    return ValueError(f"{path.name} is cut off or damaged ({said}). Copy or download it again.")


_MAX_CHARACTERS = 1 << 20
_MAX_TEXT_LENGTH = 10_000
_MAX_CHANNELS = 1024
_MAX_PIXELS = {
    # Every image is enlarged to these, however small it is.
    "longest": {"size": 1024, "minimum": 1024, "multiple": 1024},
    "stretch": {"size": 1024, "minimum": 1024, "multiple": 1024},
    # Here only large images reach the size, but all reach the minimum, and are padded.
    "native": {"size": 8192, "minimum": 512, "multiple": 256},
}
_SIDES_OF_TINY = 32
"""The sides of an image that the embedded networks encode are multiples of this."""
_MAX_STRATEGY_SIZE = 4096


def read_description(text: str) -> ModelSpec:
    """Read what `ModelSpec.to_json` wrote, from an untrusted source.

    Raises ValueError if an entry is missing, unknown, of the wrong type, not finite or implausibly
    large.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(
            f"The model's description has {len(text)} characters, more than {_MAX_CHARACTERS}."
        )
    values = parse_json(text, "The model's description")
    spec = ModelSpec.from_plain(values)
    _check_texts(values, "The model's description")
    _check_sizes(spec)
    return spec


def _check_texts(value: Any, where: str) -> None:
    """Check all texts in JSON values: limited length, no control characters."""
    if isinstance(value, str):
        short = len(value) <= _MAX_TEXT_LENGTH
        expect(short, f"text of at most {_MAX_TEXT_LENGTH} characters", where)
        # These texts are printed, and a terminal obeys control characters.
        plain = all(character.isprintable() or character in "\n\t" for character in value)
        expect(plain, "text without control characters", where)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name, where)
            _check_texts(item, f"{where}: {name[:80]}")
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, where)


def _check_sizes(spec: ModelSpec) -> None:
    """Refuse implausibly large sizes: an untrusted file could exhaust the memory."""
    expect(len(spec.channels) <= _MAX_CHANNELS, f"at most {_MAX_CHANNELS} entries", "channels")
    for name, most in _MAX_PIXELS[spec.input_size.method].items():
        number = getattr(spec.input_size, name)
        expect(number <= most, f"at most {most}", f"input_size: {name}")
    if spec.base.embedded:
        name = "multiple" if spec.input_size.method == "native" else "size"
        fits = getattr(spec.input_size, name) % _SIDES_OF_TINY == 0
        expect(fits, f"a multiple of {_SIDES_OF_TINY}", f"input_size: {name}")
    fits = spec.strategy_size <= _MAX_STRATEGY_SIZE
    expect(fits, f"at most {_MAX_STRATEGY_SIZE}", "strategy_size")
    digest = spec.base.sha256
    hexadecimal = len(digest) in (0, 64) and not set(digest) - set("0123456789abcdef")
    expect(hexadecimal, "64 hexadecimal digits", "base: sha256")
