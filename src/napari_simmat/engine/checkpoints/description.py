"""A checkpoint's description: JSON from a file of unknown origin, checked before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from napari_simmat.model.spec import FORMAT_VERSION, ModelSpec

_MOST_CHARACTERS = 1 << 20
_MOST_IN_A_TEXT = 10_000
_MOST_CHANNELS = 1024
_MOST_PIXELS = 8192
_MOST_IN_A_STRATEGY = 4096
_MOST_DIGITS = 300


def read_description(text: str) -> ModelSpec:
    """Read what `ModelSpec.to_json` wrote, trusting nothing.

    Raises
    ------
    ValueError
        If a part is missing, unknown, of another type, not finite or absurdly large; the sentence
        says which part.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(
            f"The model's description has {len(text)} characters, more than {_MOST_CHARACTERS}."
        )
    values = _parse(text)
    if not isinstance(values, dict):
        raise ValueError("The model's description is not a table of names and values.")
    version = values.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError("The model's description has no format version.")
    if version <= FORMAT_VERSION:  # a newer one may hold more; `from_json` says so
        _check(values, ModelSpec, "The description")
        _check_sizes(values)
    return ModelSpec.from_json(text)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float)
    except RecursionError:
        raise ValueError("The model's description is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"The model's description is not JSON ({error}).") from None


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:  # beyond what a float holds
        raise ValueError("The model's description holds a number that is too large.")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(
            f"The model's description holds {digits[:20]} where a finite number belongs."
        )
    return number


def _check(value: Any, hint: Any, where: str) -> None:
    """Compare a JSON value with the type of the field it is for."""
    origin = get_origin(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        _check_table(value, hint, where)
    elif origin is tuple:
        _expect(isinstance(value, list), "a list", where)
        for index, item in enumerate(value):
            _check(item, get_args(hint)[0], f"{where}[{index}]")
    elif origin is Literal:
        _expect(value in get_args(hint), " or ".join(map(repr, get_args(hint))), where)
    elif origin is Mapping:
        _expect(isinstance(value, dict), "a table", where)
        _check_free(value, where)
    elif hint is float:
        _expect(type(value) in (int, float), "a number", where)
    elif hint is str:
        _expect(isinstance(value, str), "text", where)
        _check_free(value, where)
    else:  # int, bool; a bool is no number here
        _expect(type(value) is hint, {int: "a whole number", bool: "true or false"}[hint], where)


def _check_table(value: Any, kind: type, where: str) -> None:
    _expect(isinstance(value, dict), "a table", where)
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    if surplus := sorted(set(value) - set(known)):
        raise ValueError(f"{where} has an unknown entry {surplus[0][:80]!r}.")
    for name, item in known.items():
        if name in value:
            _check(value[name], hints[name], f"{where}: {name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{where} lacks {name!r}.")


def _check_free(value: Any, where: str) -> None:
    """Check the texts in plain JSON: of sensible length, without control characters."""
    if isinstance(value, str):
        short = len(value) <= _MOST_IN_A_TEXT
        _expect(short, f"text of at most {_MOST_IN_A_TEXT} characters", where)
        # A terminal obeys control characters, and these texts are printed.
        plain = all(character.isprintable() or character in "\n\t" for character in value)
        _expect(plain, "text without control characters", where)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_free(name, where)
            _check_free(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_free(item, where)


def _check_sizes(values: Mapping[str, Any]) -> None:
    """Refuse what would only serve to fill the memory."""
    channels = len(values["channels"])
    _expect(channels <= _MOST_CHANNELS, f"at most {_MOST_CHANNELS} entries", "channels")
    for name, number in values["input_size"].items():
        if name != "method":
            _expect(number <= _MOST_PIXELS, f"at most {_MOST_PIXELS}", f"input_size: {name}")
    size = values.get("strategy_size", 0)
    _expect(size <= _MOST_IN_A_STRATEGY, f"at most {_MOST_IN_A_STRATEGY}", "strategy_size")
    digest = values["base"]["sha256"]
    hexadecimal = len(digest) in (0, 64) and not set(digest) - set("0123456789abcdef")
    _expect(hexadecimal, "64 hexadecimal digits", "base: sha256")


def _expect(holds: bool, wanted: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where} must be {wanted}.")
