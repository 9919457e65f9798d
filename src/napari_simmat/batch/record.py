"""The record of a result: everything needed to reproduce it.

All but its `run` block follows from input, model, prompts and settings. Of the image it holds only
shape, axes and type: patient names and dates never enter it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from napari_simmat.engine.settings import (
    AutomaticSettings,
    ChannelSelection,
    Compute,
    LinkSettings,
    PropagationSettings,
)
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.files import check_size
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.plain import (
    FLAT,
    OMIT_DEFAULT,
    field_rules,
    from_plain,
    parse_json,
    to_plain,
)

FORMAT = "napari-simmat record"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RecordedInput:
    """The image file, identified by its content."""

    file: str
    """Its name without the folder."""
    sha256: str
    """Hash of its bytes, and of those of the channel files."""
    shape: tuple[int, ...]
    axes: str
    dtype: str
    """As read, with the channel axis."""
    plane: Annotated[str, OMIT_DEFAULT] = ""
    """How radiologists call its planes, e.g. "axial plane, R on the left, A at the top"; empty,
    and left out of the file, for other images."""
    read_by: Annotated[str, OMIT_DEFAULT] = ""
    """The package and its version that read it; empty, and left out of the file, if that is this
    one."""
    channel_files: Annotated[tuple[str, ...], OMIT_DEFAULT] = ()
    """Names of the files whose channels were added; left out of the file if there are none."""


@dataclass(frozen=True, kw_only=True)
class UsedModel:
    """The model, identified by its content."""

    name: str
    fingerprint: str
    base: str
    finder: Annotated[str, OMIT_DEFAULT] = ""
    """Fingerprint of `tiny` where that found the objects for it; else empty, and left out of the
    file."""

    @property
    def contents(self) -> tuple[str, str]:
        """What tells models apart, whatever their names."""
        return self.fingerprint, self.finder


@dataclass(frozen=True, kw_only=True)
class RecordedSettings:
    """The user's settings, with "auto" resolved."""

    selection: Annotated[ChannelSelection, FLAT] = field(default_factory=ChannelSelection)
    """Channels and pixel ratio as given."""
    compute: Annotated[Compute, FLAT] = field(default_factory=Compute)
    """Kind of device, e.g. ``"cpu"``, on which results are reproducible; precision and quality."""
    automatic: AutomaticSettings | None = None
    """Settings of automatic segmentation; None if there were prompts."""
    propagation: PropagationSettings | None = None
    """Settings of the propagation through the stack; None if there was none."""
    link: Annotated[LinkSettings | None, OMIT_DEFAULT] = None
    """How objects were linked over time; None, and left out of the file, if they were not."""
    table: Annotated[TableSettings, OMIT_DEFAULT] = field(default_factory=TableSettings)
    """What was measured of the objects; left out of the file if that is what usually is."""
    part: Annotated[ImagePart, OMIT_DEFAULT] = WHOLE
    """What was read of the image; left out of the file if that was the whole of level 0."""
    tissue: Annotated[str, OMIT_DEFAULT] = ""
    """Where alone objects were looked for: ``"auto"``, or the name of a file; left out of the
    file, as the next, if that was everywhere."""
    tissue_sha256: Annotated[str, OMIT_DEFAULT] = ""
    """Hash of the mask of tissue."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that the result depends on."""

    input: RecordedInput
    model: UsedModel
    prompts: tuple[dict[str, Any], ...]
    """From `Prompt.to_plain`: a thousand masks of the image's size would not fit into memory."""
    settings: RecordedSettings

    def differences(self, other: Request) -> list[str]:
        """What differs in `other`, for the user, then and now; file names are ignored."""
        models = f"the model ({self.model.name} then, {other.model.name} now)"
        if self.model.name == other.model.name:
            models = f"the model ({self.model.name}, with other weights)"
        return [
            words
            for words, mine, theirs in (
                ("the input", self.input.sha256, other.input.sha256),
                (models, self.model.contents, other.model.contents),
                ("the prompts", self.prompts, other.prompts),
            )
            if mine != theirs
        ] + list(_changes("", self.settings, other.settings))


def _changes(name: str, mine: Any, theirs: Any) -> Iterator[str]:
    """The settings that differ, each with its values; named as in the record."""
    if mine == theirs:
        return
    if not (is_dataclass(mine) and type(mine) is type(theirs)):
        yield f"{name} ({_shown(mine)} then, {_shown(theirs)} now)"
        return
    for rule in field_rules(type(mine)):  # type: ignore[arg-type]
        inner = name if "flat" in rule.notes else f"{name}.{rule.name}".lstrip(".")
        yield from _changes(inner, getattr(mine, rule.name), getattr(theirs, rule.name))


def _shown(value: Any) -> str:
    """A setting as it stands in a sentence."""
    if value is None:
        return "unset"
    if is_dataclass(value):
        return "set"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value) or "unset"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A request, its result, and when and where it ran."""

    request: Annotated[Request, FLAT]
    """What the result depends on."""
    normalization: Mapping[str, Any]
    """The statistics that the image was normalized with."""
    objects: tuple[Mapping[str, Any], ...]
    """For each prompt: label, plane, score and number of pixels."""
    tracks: Annotated[tuple[Mapping[str, Any], ...], OMIT_DEFAULT] = ()
    """For each object that was linked over time: label, first and last frame, and parent. Left out
    of the file if there are none."""
    outputs: Mapping[str, Mapping[str, str]]
    """For each kind of output its file name and SHA-256."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Time, host, duration, version: all that may differ between two equal runs."""

    def to_json(self) -> str:
        """The record as JSON; `from_json` reads it back."""
        values = {"format": FORMAT, "format_version": FORMAT_VERSION, **to_plain(self)}
        return "{\n" + ",\n".join(_lines(key, value) for key, value in values.items()) + "\n}\n"

    def provenance(self) -> dict[str, Any]:
        """What made the result, in short; no date."""
        return {
            "program": f"napari-simmat {self.run.get('version', '')}".strip(),
            "models": [self.request.model.name],
            "image": self.request.input.file,
            "prompts": len(self.request.prompts),
        }

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what `to_json` wrote.

        Raises ValueError if the text is not a record that this version can read.
        """
        values = parse_json(text, "It")
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("It is not a record of napari-simmat.")
        version = values.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(
                f"It has format {version}, this version reads up to {FORMAT_VERSION}. "
                "Update napari-simmat."
            )
        del values["format"], values["format_version"]
        return from_plain(cls, values, "The record")


def read_record(path: Path) -> Record:
    """Read a record's file.

    Raises ValueError if it is not a record that this version can read.
    """
    check_size(path)
    try:
        return Record.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        reason = str(error).removesuffix(".")
        raise ValueError(f"{path.name} cannot be read as a record. {reason}.") from None


def is_record(path: Path) -> bool:
    """Whether a JSON file is a record, by its beginning."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return FORMAT in file.read(200)


def outputs_recorded_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that were written by earlier runs, from its records."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            if is_record(path):
                record = read_record(path)
                names |= {path.name, *(output["file"] for output in record.outputs.values())}
        except (OSError, ValueError, KeyError):
            continue  # not a readable record
    return frozenset(names)


def _lines(key: str, value: Any) -> str:
    """One entry of the record: one line, or one line per element of a list."""
    compact = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    name = f" {json.dumps(key)}: "
    if isinstance(value, list) and value:
        return f"{name}[\n  " + ",\n  ".join(map(compact, value)) + "\n ]"
    return name + compact(value)
