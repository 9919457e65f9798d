"""The codec between values and JSON, and the rules that field annotations state.

Dataclasses and named tuples become tables, tuples become lists. Annotations say what the types
cannot; the dictionaries among them are called notes:

* ``Annotated[int, {"min": 1, "max": 512}]``: bounds, which belong to the range;
* ``Annotated[float, {"above": 0, "below": 1}]``: bounds, which do not;
* ``Annotated[Inner, FLAT]``: the entries of `Inner` are entries of the table that holds it;
* ``Annotated[int, OMIT_DEFAULT]``: the entry is left out if it has its default.

A `Literal` lists the choices. `check_fields` checks bounds and choices of a value that is made in
the program, `from_plain` checks all entries of one that is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from napari_simmat._text import format_list

T = TypeVar("T")
Special = Mapping[type, Callable[[Any], Any]]
"""Converts the values of some types otherwise than the codec does, or that it does not know."""

FLAT = {"flat": True}
OMIT_DEFAULT = {"omit_default": True}
RULE_NOTES = ("above", "below", "flat", "noun", "omit_default")
"""Notes that only this module reads; ``min`` and ``max`` bound a control of a form as well."""
OUT_OF_RANGE = "{name} must be {range}, got {value}."
UNKNOWN_CHOICE = "{noun} {value!r} is unknown; use one of {choices}."
_MAX_DIGITS = 300
_NAMES = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path",
    dict: "a table", Mapping: "a table", tuple: "a list", list: "a list", Sequence: "a list",
    NoneType: "null",
}  # fmt: skip


class FieldRule(NamedTuple):
    """What is known about a field of a dataclass or named tuple."""

    name: str
    kind: Any
    """The type without its notes."""
    notes: Mapping[str, Any]
    default: Any
    """`dataclasses.MISSING` if there is none."""


@cache
def field_rules(kind: Any) -> tuple[FieldRule, ...]:
    """The fields of a dataclass or named tuple in order."""
    if is_dataclass(kind):
        defaults = {field.name: _default(field) for field in fields(kind) if field.init}
    else:
        named = kind._field_defaults
        defaults = {name: named.get(name, MISSING) for name in kind._fields}
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        FieldRule(name, *split_notes(hints[name]), default) for name, default in defaults.items()
    )


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def to_plain(value: Any, special: Special | None = None) -> Any:
    """A value as tables, lists, texts and numbers, for JSON; `from_plain` reads it.

    Parameters
    ----------
    value
        A dataclass, named tuple, mapping, tuple, list or path; anything else stays as it is.
    special
        For other types, or for some of these, what converts their values.
    """
    for kind, encode in (special or {}).items():
        if isinstance(value, kind):
            return encode(value)
    if isinstance(value, Mapping):
        return {name: to_plain(item, special) for name, item in value.items()}
    if _has_fields(type(value)):
        table: dict[str, Any] = {}
        for rule in field_rules(type(value)):  # type: ignore[arg-type]
            item = getattr(value, rule.name)
            if "flat" in rule.notes:
                table |= to_plain(item, special)
            elif "omit_default" not in rule.notes or item != rule.default:
                table[rule.name] = to_plain(item, special)
        return table
    if isinstance(value, (tuple, list)):
        return [to_plain(item, special) for item in value]
    return str(value) if isinstance(value, Path) else value


@overload
def from_plain(kind: type[T], value: Any, where: str = ..., special: Special | None = ...) -> T: ...
@overload
def from_plain(kind: Any, value: Any, where: str = ..., special: Special | None = ...) -> Any: ...
def from_plain(
    kind: Any, value: Any, where: str = "The value", special: Special | None = None
) -> Any:
    """Read what `to_plain` returned, after JSON or not.

    A whole number fits a float; true and false are no numbers. Keys of a table become whole
    numbers where the type says so.

    Parameters
    ----------
    kind
        The type to read: a dataclass, a named tuple, or any type that a field of one may have. Of
        the types in a union, at most one may be a table or a list.
    value
        Parsed JSON.
    where
        What messages call it.
    special
        By type, what converts their values; it raises ValueError for bad ones.

    Raises
    ------
    ValueError
        If an entry is missing, unknown, of the wrong type or out of its range; the message says
        where.
    """
    return _Reader(special or {}).read(kind, {}, value, where)


@dataclass(frozen=True)
class _Reader:
    """Reads values of any type, with one `special` for all of them."""

    special: Special

    def read(self, hint: Any, outer: Mapping[str, Any], value: Any, where: str) -> Any:
        """`value` as a type; `outer` are the notes of the tuple or union that it is part of."""
        kind, own = split_notes(hint)
        notes = {**outer, **own}
        origin = get_origin(kind) or kind
        parts = get_args(kind)
        if origin in (Union, UnionType):
            return self._union(parts, notes, value, where)
        if origin in self.special:
            return self.special[origin](value)
        if kind is Any:
            return value
        if _has_fields(origin):
            return self._table(origin, value, where)
        if origin is Literal:
            expect(value in parts, " or ".join(map(repr, parts)), where)
            return value
        expect(_is(value, origin), _NAMES[origin], where)
        if origin in (dict, Mapping):
            key_kind, item_kind = parts or (str, Any)
            return self._mapping(key_kind, item_kind, value, where)
        if origin in (tuple, list, Sequence):
            items = self._items(_kinds_of_items(origin, parts, value), notes, value, where)
            return items if origin is list else tuple(items)
        expect(_in_range(value, notes), _range_in_words(notes), where)
        return Path(value) if origin is Path else value

    def _mapping(self, key_kind: Any, item_kind: Any, value: Any, where: str) -> dict[Any, Any]:
        mapping = {}
        for key, item in value.items():
            name = int(key) if key_kind is int else key
            mapping[name] = self.read(item_kind, {}, item, f"{where}: {key}")
        return mapping

    def _items(
        self, kinds: Sequence[Any], notes: Mapping[str, Any], value: Any, where: str
    ) -> list[Any]:
        expect(len(value) == len(kinds), f"a list of {len(kinds)}", where)
        pairs = zip(kinds, value, strict=True)
        return [
            self.read(kind, notes, item, f"{where}[{n}]") for n, (kind, item) in enumerate(pairs)
        ]

    def _union(
        self, parts: tuple[Any, ...], notes: Mapping[str, Any], value: Any, where: str
    ) -> Any:
        if value is None and NoneType in parts:
            return None
        kinds = [part for part in parts if part is not NoneType]
        if len(kinds) > 1:
            simple = [kind for kind in kinds if kind in _NAMES and kind not in self.special]
            others = [kind for kind in kinds if kind not in simple]
            kinds = [kind for kind in simple if _is(value, kind)] or others
            expect(len(kinds) > 0, " or ".join(_NAMES[kind] for kind in simple), where)
        return self.read(kinds[0], notes, value, where)

    def _table(self, kind: Any, value: Any, where: str) -> Any:
        expect(isinstance(value, Mapping), "a table", where)
        rules = field_rules(kind)
        embedded = {
            rule.name: {inner.name for inner in field_rules(rule.kind)}
            for rule in rules
            if "flat" in rule.notes
        }
        names = {rule.name for rule in rules if rule.name not in embedded}
        unknown = sorted(set(value) - names.union(*embedded.values()))
        if unknown:
            raise ValueError(f"{where} has an unknown entry {unknown[0][:80]!r}.")
        entries = {}
        for rule in rules:
            if rule.name in embedded:
                inner = {name: value[name] for name in embedded[rule.name] if name in value}
                entries[rule.name] = self._table(rule.kind, inner, where)
            elif rule.name in value:
                item = value[rule.name]
                inside = f"{where}: {rule.name}"
                entries[rule.name] = self.read(rule.kind, rule.notes, item, inside)
            elif rule.default is MISSING:
                raise ValueError(f"{where} lacks {rule.name!r}.")
        return kind(**entries)


def _kinds_of_items(origin: Any, parts: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """The type of each item: one for all, or those of a tuple of fixed length."""
    kinds = parts or (Any,)
    is_fixed = origin is tuple and len(kinds) > 1 and kinds[-1] is not Ellipsis
    return kinds if is_fixed else (kinds[0],) * len(value)


def check_fields(value: Any, out_of_range: str = OUT_OF_RANGE) -> None:
    """Check bounds and choices of all fields; for the ``__post_init__`` of a dataclass.

    None is in every range. The rules of a tuple hold for each of its items. The note ``"noun"``
    says what a message calls the field instead of its name.

    Parameters
    ----------
    value
        The dataclass.
    out_of_range
        The message, with any of ``{name}``, ``{words}`` (the name with spaces), ``{range}`` and
        ``{value}``.

    Raises
    ------
    ValueError
        For the first field that breaks a rule.
    """
    for rule in field_rules(type(value)):  # type: ignore[arg-type]
        choices = _choices(rule.kind)
        current = getattr(value, rule.name)
        words = rule.name.replace("_", " ")
        for item in current if isinstance(current, tuple) else (current,):
            if choices and item not in choices:
                noun = rule.notes.get("noun", words.capitalize())
                listed = format_list(choice for choice in choices if choice is not None)
                raise ValueError(UNKNOWN_CHOICE.format(noun=noun, value=item, choices=listed))
            if item is not None and not _in_range(item, rule.notes):
                bounds = _range_in_words(rule.notes)
                raise ValueError(
                    out_of_range.format(name=rule.name, words=words, range=bounds, value=item)
                )


def parse_json(text: str, where: str) -> Any:
    """Parse JSON from an untrusted source: no NaN or infinity, no number of thousands of digits.

    Raises
    ------
    ValueError
        If it is not JSON; the message calls it `where`.
    """

    def whole(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:  # beyond what a float holds
            raise ValueError(f"{where} holds a number that is too large.")
        return int(digits)

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError(f"{where} holds {digits[:20]} where a finite number belongs.")
        return number

    try:
        return json.loads(text, parse_int=whole, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error}).") from None


def split_notes(hint: Any) -> tuple[Any, dict[str, Any]]:
    """A type and its notes."""
    notes: dict[str, Any] = {}
    if get_origin(hint) is Annotated:
        hint, *all_notes = get_args(hint)
        for note in all_notes:
            notes |= note if isinstance(note, Mapping) else {}
    return hint, notes


def _has_fields(kind: Any) -> bool:
    is_named = isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
    return is_named or (is_dataclass(kind) and isinstance(kind, type))


def _choices(kind: Any) -> tuple[Any, ...]:
    """The choices of a Literal, an optional one, or a tuple of them; else nothing."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) is tuple:
        return _choices(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        choices = [_choices(part) for part in get_args(kind) if part is not NoneType]
        return (*choices[0], None) if len(choices) == 1 and choices[0] else ()
    return ()


def _in_range(value: Any, notes: Mapping[str, Any]) -> bool:
    # So written, NaN is in no range.
    return (
        ("min" not in notes or value >= notes["min"])
        and ("max" not in notes or value <= notes["max"])
        and ("above" not in notes or value > notes["above"])
        and ("below" not in notes or value < notes["below"])
    )


def _range_in_words(notes: Mapping[str, Any]) -> str:
    if "min" in notes and "max" in notes:
        return f"between {notes['min']} and {notes['max']}"
    words = {"min": "at least", "above": "above", "max": "at most", "below": "below"}
    return " and ".join(
        f"{word} {notes[name]}" if math.isfinite(notes[name]) else "finite"
        for name, word in words.items()
        if name in notes
    )


def _is(value: Any, kind: Any) -> bool:
    if kind in (dict, Mapping):
        return isinstance(value, dict)
    if kind in (tuple, list, Sequence):
        return isinstance(value, (list, tuple))
    if kind is Path:
        return isinstance(value, str)
    return type(value) is kind or (kind is float and type(value) is int)


def expect(holds: bool, wanted: str, where: str) -> None:
    """Raise ValueError, which says what was `wanted` and `where`, unless it holds."""
    if not holds:
        raise ValueError(f"{where} must be {wanted}.")
