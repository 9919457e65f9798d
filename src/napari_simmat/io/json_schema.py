"""JSON Schema of what `io.plain` writes, made from the same dataclasses.

So the schemas in the documentation say what a reader of another program may rely on, and cannot
differ from what this one writes. JSON Schema, draft 2020-12.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from napari_simmat.io.plain import field_rules, split_notes

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {
    int: "integer", float: "number", bool: "boolean", str: "string", Path: "string",
    NoneType: "null", dict: "object", Mapping: "object",
}  # fmt: skip
_BOUNDS = {
    "min": "minimum", "max": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"
}  # fmt: skip


def schema_of(kind: Any, title: str, first: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of a dataclass as `to_plain` writes it.

    Parameters
    ----------
    kind
        The dataclass.
    title
        What the file is called.
    first
        Schemas of required entries that stand before its own.
    """
    table = table_of(kind)
    properties = {**(first or {}), **table["properties"]}
    required = [*(first or {}), *table["required"]]
    return {
        "$schema": DRAFT,
        "title": title,
        **table,
        "properties": properties,
        "required": required,
    }


def table_of(kind: Any) -> dict[str, Any]:
    """The schema of a dataclass or named tuple within another one.

    Entries of embedded ones are its own.
    """
    properties: dict[str, Any] = {}
    required: list[str] = []
    for rule in field_rules(kind):
        if "flat" in rule.notes:
            inner = table_of(rule.kind)
            properties |= inner["properties"]
            required += inner["required"]
            continue
        properties[rule.name] = _schema(rule.kind, rule.notes)
        if "omit_default" not in rule.notes:
            required.append(rule.name)
        elif rule.default is not MISSING and isinstance(rule.default, (str, int, float, bool)):
            properties[rule.name]["default"] = rule.default
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _schema(hint: Any, outer: Mapping[str, Any]) -> dict[str, Any]:
    """Any type of a field; `outer` are the notes of what it is a part of."""
    kind, own = split_notes(hint)
    notes = {**outer, **own}
    origin = get_origin(kind) or kind
    parts = get_args(kind)
    if kind is Any:
        return {}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(part, notes) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if is_dataclass(origin) or hasattr(origin, "_fields"):
        return table_of(origin)
    if origin in (dict, Mapping):
        items = _schema(parts[1], {}) if len(parts) > 1 else {}
        return {"type": "object", **({"additionalProperties": items} if items else {})}
    if origin in (tuple, list, Sequence):
        return _list(origin, parts, notes)
    bounds = {}
    if origin in (int, float):
        known = {name: notes[note] for note, name in _BOUNDS.items() if note in notes}
        bounds = {name: bound for name, bound in known.items() if math.isfinite(bound)}
    return {"type": _TYPES[origin], **bounds}


def _list(origin: Any, parts: tuple[Any, ...], notes: Mapping[str, Any]) -> dict[str, Any]:
    """A list of items of one type, or of fixed length."""
    kinds = parts or (Any,)
    if origin is tuple and len(kinds) > 1 and kinds[-1] is not Ellipsis:
        items = [_schema(each, notes) for each in kinds]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    return {"type": "array", "items": _schema(kinds[0], notes)}
