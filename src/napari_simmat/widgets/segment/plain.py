"""What the user did as plain JSON values and back. No Qt, no napari; no class but those listed."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from napari_simmat.engine.footprints import Footprint, Patch
from napari_simmat.engine.jobs.record import prompt_from_dict, prompt_to_dict
from napari_simmat.engine.prompts import Prompt
from napari_simmat.widgets.segment.asked import Asked, Followed, Opened, Outline, Prompts
from napari_simmat.widgets.segment.operations import Edit, Entry, Made, Operation

_CLASSES: dict[str, type[Any]] = {
    each.__name__: each
    for each in (
        *(Asked, Followed, Opened, Outline, Prompts),
        *(Edit, Entry, Made, Operation, Footprint, Patch),
    )
}
_KIND = "is"
_MOST_BYTES = 1 << 30
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def to_plain(value: Any) -> Any:
    """A value of the list of operations as JSON can hold it."""
    if isinstance(value, Prompt):
        return {_KIND: "Prompt", **prompt_to_dict(value)}
    if is_dataclass(value):
        values = {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
        return {_KIND: type(value).__name__, **values}
    if isinstance(value, Mapping):
        return {_KIND: "map", "items": [[to_plain(k), to_plain(v)] for k, v in value.items()]}
    if isinstance(value, (tuple, list)):
        return [to_plain(each) for each in value]
    if isinstance(value, bytes):
        return {_KIND: "bytes", "zip": _packed(value)}
    if isinstance(value, np.ndarray):
        dtype, shape = value.dtype.name, list(value.shape)
        return {_KIND: "array", "dtype": dtype, "shape": shape, "zip": _packed(value.tobytes())}
    if isinstance(value, np.generic):
        return value.item()
    return {_KIND: "nan"} if isinstance(value, float) and math.isnan(value) else value


def from_plain(value: Any) -> Any:
    """Read what `to_plain` gave.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    if isinstance(value, list):
        return tuple(from_plain(each) for each in value)
    if not isinstance(value, dict):
        return value
    values = dict(value)
    kind = values.pop(_KIND)
    if kind == "nan":
        return math.nan
    if kind == "map":
        return {from_plain(k): from_plain(v) for k, v in values["items"]}
    if kind == "bytes":
        return _unpacked(values["zip"])
    if kind == "array":
        return _array(values)
    if kind == "Prompt":
        return prompt_from_dict(values)
    return _CLASSES[kind](**{name: from_plain(each) for name, each in values.items()})


def _array(values: dict[str, Any]) -> np.ndarray:
    if values["dtype"] not in _DTYPES:
        raise ValueError(f"An array of labels holds whole numbers, not {values['dtype']}.")
    flat = np.frombuffer(_unpacked(values["zip"]), dtype=values["dtype"])
    return flat.reshape([int(size) for size in values["shape"]]).copy()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def _unpacked(text: str) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(base64.b64decode(text), _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"Packed values are damaged ({error}).") from None
    if not unpacking.eof:
        raise ValueError("Packed values are larger than any mask.")
    return data
