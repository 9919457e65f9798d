"""The files and outputs that other programs may read, as JSON Schemas.

`scripts/schemas.py` writes them into the documentation.
"""

from __future__ import annotations

from typing import Any

from napari_simmat.batch.record import FORMAT, FORMAT_VERSION, Record
from napari_simmat.io.json_schema import DRAFT, schema_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import JobEvent

_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_NONE = {"type": "null"}


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
        "prompts": {"anyOf": [_TEXT, _NONE]},
        "status": {"enum": ["written", "kept", "failed"]},
        "seconds": _NUMBER,
    }
    done = {
        "objects": _WHOLE,
        "hidden": {"type": "array", "items": _WHOLE},
        "labels_file": _TEXT,
        "objects_file": _TEXT,
        "record_file": _TEXT,
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
    skipped = {
        "type": "object",
        "properties": {"image": _TEXT, "why": _TEXT, "failed": {"type": "boolean"}},
        "required": ["image", "why", "failed"],
    }
    return {
        "$schema": DRAFT,
        "title": "What simmat segment --json prints",
        "type": "object",
        "properties": {
            "files": {"type": "array", "items": file},
            "skipped": {"type": "array", "items": skipped},
        },
        "required": ["files", "skipped"],
        "additionalProperties": False,
    }


def error_schema() -> dict[str, Any]:
    """Of what any command prints with ``--json`` when it fails."""
    return {
        "$schema": DRAFT,
        "title": "What a command prints with --json when it fails",
        "type": "object",
        "properties": {"error": _TEXT},
        "required": ["error"],
        "additionalProperties": False,
    }


SCHEMAS = {
    "record": record_schema,
    "model": model_schema,
    "event": event_schema,
    "segment": segment_schema,
    "error": error_schema,
}
"""By the name of the file, ``NAME.schema.json``."""
