"""The files and outputs that other programs may read, as JSON Schemas.

`scripts/schemas.py` writes them into the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_simmat.batch.record import FORMAT, FORMAT_VERSION, Record
from napari_simmat.io.description import ImageDescription
from napari_simmat.io.json_schema import DRAFT, schema_of, table_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import JobEvent

_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_NONE = {"type": "null"}
_PATH_OR_NONE = {"anyOf": [_TEXT, _NONE]}
_SKIPPED = {
    "type": "object",
    "properties": {"image": _TEXT, "why": _TEXT, "failed": {"type": "boolean"}},
    "required": ["image", "why", "failed"],
}
"""An image that is left out."""


def record_schema() -> dict[str, Any]:
    """Of ``STEM.json``, the record of a result."""
    first = {
        "format": {"const": FORMAT},
        "format_version": {"type": "integer", "minimum": 1, "maximum": FORMAT_VERSION},
    }
    return schema_of(Record, "Record of a segmented image", first)


def model_schema() -> dict[str, Any]:
    """Of the description in the header of a checkpoint, the entry ``simmat``."""
    return schema_of(ModelSpec, "Description of a model")


def event_schema() -> dict[str, Any]:
    """Of a line of ``--events``: any of the fields, the others are left out."""
    schema = schema_of(JobEvent, "A line of --events")
    return {**schema, "required": []}


def segment_schema() -> dict[str, Any]:
    """Of what ``simmat segment --json`` prints at its end."""
    always = {
        "image": _TEXT,
        "prompts": _PATH_OR_NONE,
        "status": {"enum": ["written", "kept", "failed"]},
        "seconds": _NUMBER,
    }
    done = {
        "objects": _WHOLE,
        "hidden": {"type": "array", "items": _WHOLE},
        "labels_file": _TEXT,
        "objects_file": _TEXT,
        "record_file": _TEXT,
        "better_model": _TEXT,
        "note": _TEXT,
    }
    file = {
        "type": "object",
        "properties": {**always, **done, "error": _TEXT},
        "required": list(always),
        "if": {"properties": {"status": {"const": "failed"}}},
        "then": {"required": ["error"]},
        "else": {"required": list(done)},
        "patternProperties": {"_file$": _TEXT},
    }
    entries = {
        "files": {"type": "array", "items": file},
        "skipped": {"type": "array", "items": _SKIPPED},
    }
    nested = {"children": _object("", entries), "tables": {"type": "array", "items": _TEXT}}
    return _object("What simmat segment --json prints", entries, nested)


def plan_schema() -> dict[str, Any]:
    """Of what ``simmat segment --dry-run --json`` prints."""
    parts = {"image": _TEXT, "prompts": _PATH_OR_NONE, "labels_file": _TEXT}
    file = {"type": "object", "properties": parts, "required": list(parts)}
    sentences = {"type": "object", "additionalProperties": _TEXT}
    entries = {
        "output": _TEXT,
        "files": {"type": "array", "items": file},
        "skipped": {"type": "array", "items": _SKIPPED},
        "problems": sentences,
        "remarks": sentences,
        "images": {"type": "object", "additionalProperties": table_of(ImageDescription)},
    }
    nested = {"children": _object("", entries)}
    return _object("What simmat segment --dry-run --json prints", entries, nested)


def error_schema() -> dict[str, Any]:
    """Of what any command prints with ``--json`` when it fails."""
    return _object("What a command prints with --json when it fails", {"error": _TEXT})


def _object(
    title: str, entries: Mapping[str, Any], others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Of a table that has all these entries, may have `others`, and has none besides.

    A table within another one has no title.
    """
    head = {"$schema": DRAFT, "title": title} if title else {}
    return {
        **head,
        "type": "object",
        "properties": {**entries, **(others or {})},
        "required": list(entries),
        "additionalProperties": False,
    }


SCHEMAS = {
    "record": record_schema,
    "model": model_schema,
    "event": event_schema,
    "segment": segment_schema,
    "plan": plan_schema,
    "error": error_schema,
}
"""By the name of the file, ``NAME.schema.json``."""
