"""The lines of a session file: what is in one, as JSON and back."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.masks import ObjectMask, VoxelBox
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.plain import Special, from_plain, to_plain
from napari_simmat.progress import Job, Progress

FORMAT = "napari-simmat session"
VERSION = 1
BEYOND_IMAGE = "a mask is larger than the image, or not whole"


class AdaptedModelFile(NamedTuple):
    """A model adapted to an image: a checkpoint beside its session file."""

    file: str
    """Name of the checkpoint."""
    sha256: str
    """SHA-256 of the file."""
    base: str
    """Name of the model that was adapted."""
    sentence: str
    """What it gained."""
    objects: Mapping[int, int]
    """Size of each object that it learned from by its number."""
    all_channels: bool
    """Whether it reads all channels of the image that show something."""


class SessionHeader(NamedTuple):
    """The first line."""

    image: str
    """Identifies the image by its content."""
    shape: tuple[int, ...]
    """(..., Y, X) without channels."""
    model: str
    channels: tuple[str, ...]
    """What was in use at first, for human readers."""

    def line(self) -> str:
        """As JSON."""
        values = {"format": FORMAT, "format_version": VERSION, **to_plain(self)}
        return json.dumps(values) + "\n"


def line_of(what: str, value: Any = None) -> str:
    """One line; `session_replay` says what there is, and of which type its value is."""
    return json.dumps({"what": what, "value": to_plain(value, _ENCODE)}) + "\n"


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    dtype, shape = array.dtype.name, list(array.shape)
    return {"dtype": dtype, "shape": shape, "zip": _packed(array.tobytes())}


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def _encode_number(value: float | np.generic) -> Any:
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and math.isnan(number) else number


def _decode_number(value: Any) -> float:
    if value is None:  # a score that there is not; JSON has no NaN
        return math.nan
    return from_plain(int if type(value) is int else float, value)


_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_ENCODE: Special = {
    Prompt: Prompt.to_plain,
    bytes: _packed,
    np.ndarray: _encode_array,
    np.generic: _encode_number,
    float: _encode_number,
}


class LineDecoder:
    """Decodes values of a file.

    A small value can unpack to any size, so none is unpacked beyond what fits the image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.voxels = math.prod(shape)
        self._plain: dict[type, Callable[[Any], Any]] = {
            bytes: self._unpacked, np.ndarray: self._array, float: _decode_number,
            Prompt: lambda values: Prompt.from_plain(values, self.voxels),
        }  # fmt: skip
        self.special: Special = {**self._plain, ObjectMask: self._mask}

    def _unpacked(self, text: str) -> bytes:
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(base64.b64decode(text), 8 * self.voxels + 1)
        except zlib.error as error:
            raise ValueError(f"Packed values are damaged ({error}).") from None
        if not unpacking.eof:
            raise ValueError("Packed values are larger than any mask.")
        return data

    def _array(self, values: dict[str, Any]) -> np.ndarray:
        if values["dtype"] not in _DTYPES:
            raise ValueError(f"An array of labels holds whole numbers, not {values['dtype']}.")
        flat = np.frombuffer(self._unpacked(values["zip"]), dtype=values["dtype"])
        return flat.reshape([int(size) for size in values["shape"]]).copy()

    def _mask(self, values: Any) -> ObjectMask:
        mask = from_plain(ObjectMask, values, "mask", self._plain)
        size = math.prod(mask.shape)
        whole = min(mask.shape, default=0) > 0 and min(mask.corner, default=0) >= 0
        if not whole or size > self.voxels or len(mask.bits) != -(-size // 8):
            raise ValueError(BEYOND_IMAGE)
        return mask


def begin_lines_job(key: str, labels: Any, region: VoxelBox) -> Job[list[str]]:
    """The lines with a layer's content, one for each plane that is not empty.

    The snapshot may race with edits logged after it. That is safe: an edit only changes pixels
    that still hold its "before" value, so replaying (or undoing) all logged edits gives the same
    labels whichever state the snapshot caught.

    Parameters
    ----------
    key
        The layer's.
    labels
        (..., Y, X), numpy or lazy.
    region
        Where it holds, or held before the first edit, anything but 0.
    """
    lines: list[str] = []
    low, high = region
    counts = [end - start for start, end in zip(low[:-2], high[:-2], strict=True)]
    rows = tuple(slice(*ends) for ends in zip(low[-2:], high[-2:], strict=True))
    for at in np.ndindex(*counts):
        yield Progress(len(lines), int(np.prod(counts)), "logging the layer's content")
        plane = tuple(start + index for start, index in zip(low[:-2], at, strict=True))
        values = np.array(labels[(*plane, *rows)])
        values = values.reshape((1,) * len(plane) + values.shape)
        patch = LabelEdit.between(np.zeros_like(values), values, (*plane, *low[-2:]))
        if patch is not None:
            lines.append(line_of("begin", (key, patch)))
    return lines
