"""Build dataclasses from parsed JSON, checking every field against its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NAMES = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text",
    dict: "a table", Mapping: "a table", tuple: "a list", NoneType: "null",
}  # fmt: skip


def from_plain(kind: type[T], values: Any, where: str = "The value") -> T:
    """Build a dataclass from parsed JSON.

    Dataclasses in fields are built as well, lists become tuples. A whole number fits a float; true
    and false are no numbers.

    Parameters
    ----------
    kind
        The dataclass. Its fields are numbers, texts, bools, tables, Literals, dataclasses, tuples
        of these and optional ones.
    values
        A parsed JSON object.
    where
        What messages call it.

    Raises
    ------
    ValueError
        If an entry is missing, unknown or of the wrong type; the message says where.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a table.")
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{where} has an unknown entry {unknown[0][:80]!r}.")
    made = {}
    for name, each in known.items():
        if name in values:
            made[name] = _convert(values[name], hints[name], f"{where}: {name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where} lacks {name!r}.")
    return kind(**made)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, kinds = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(item, kinds[0], f"{where}[{n}]") for n, item in enumerate(value))
    if origin in (Union, UnionType):
        kinds = tuple(kind for kind in kinds if kind is not NoneType or value is None)
        if value is None and NoneType in kinds:
            return None
        if len(kinds) == 1:
            return _convert(value, kinds[0], where)
    if origin is Literal:
        wanted, fits = " or ".join(map(repr, kinds)), value in kinds
    else:
        if origin not in (Union, UnionType):
            kinds = (origin or hint,)
        wanted = " or ".join(_NAMES[kind] for kind in kinds)
        fits = any(_is(value, kind) for kind in kinds)
    if not fits:
        raise ValueError(f"{where} must be {wanted}.")
    return value


def _is(value: Any, kind: Any) -> bool:
    if kind in (dict, Mapping):
        return isinstance(value, dict)
    return type(value) is kind or (kind is float and type(value) is int)
