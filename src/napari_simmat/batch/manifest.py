"""A manifest: a CSV file that lists images, each with its own prompts and channels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("image", "prompts", "channels", "channel_axis")
MOST_BYTES = 2**26
"""A file larger than this is no list of images."""


@dataclass(frozen=True)
class Row:
    """One image of a manifest.

    Parameters
    ----------
    image
        Its file.
    folder
        Where it lies below the manifest's folder; empty if outside.
    prompts
        A file, ``"auto"``, ``"same-stem"`` or None.
    channels, channel_axis
        As `SegmentConfig` has them, or None.
    """

    image: Path
    folder: Path
    prompts: str | None = None
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None


def read_manifest(path: Path, *, outside: bool = False) -> list[Row]:
    """Read a manifest.

    Its first line names the columns: ``image``, and where wanted ``prompts`` (a file, ``auto`` or
    ``same-stem``), ``channels`` (names or numbers from 0, with commas or semicolons between) and
    ``channel_axis``. Paths are relative to the manifest's folder. An empty cell means what the run
    says.

    Parameters
    ----------
    path
        The CSV file, UTF-8.
    outside
        Whether its paths may lead out of its folder.

    Raises
    ------
    ValueError, OSError
        If it is no manifest, or a row cannot be meant; one sentence says which.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{path.name} is larger than {MOST_BYTES // 2**20} MB; that is no list of images."
        )
    rows = []
    base = Path(os.path.normpath(path.absolute().parent))  # as the paths of its rows will be
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            _check_columns(path, [str(name) for name in reader.fieldnames or ()])
            for values in reader:
                where = f"{path.name}, line {reader.line_num}"
                if None in values or None in values.values():
                    raise ValueError(
                        f"{where}: there are more or fewer values than columns; give one for each, "
                        "and put what holds commas into quotes."
                    )
                rows.append(_row(where, base, values, outside))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is no text in UTF-8 ({error.reason}); save it as CSV."
        ) from None
    except csv.Error as error:
        raise ValueError(f"{path.name} is no CSV ({error}); save it anew.") from None
    if not rows:
        raise ValueError(f"{path.name} lists no image; add a line for each.")
    return rows


def channels_in(text: str, separators: str = ",;") -> tuple[int | str, ...]:
    """Parse ``0,2,DAPI`` into numbers and names.

    Raises
    ------
    ValueError
        If an entry is empty.
    """
    parts = [part.strip() for part in re.split(f"[{separators}]", text)]
    if not all(parts):
        raise ValueError(
            f"{text!r} has an empty entry; write names or numbers with commas between, e.g. "
            "0,2,DAPI."
        )
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _check_columns(path: Path, names: list[str]) -> None:
    known = ", ".join(COLUMNS)
    if "axis-0" in names:
        raise ValueError(
            f"{path.name} holds prompts, not a list of images; give it with --prompts."
        )
    if "image" not in names or len(set(names)) < len(names):
        raise ValueError(
            f"{path.name} has the columns {', '.join(names) or '(none)'}; a manifest has image, "
            f"others of {known} where wanted, and each once."
        )
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise ValueError(
            f"{path.name} has the column {unknown[0]!r}; those of a manifest are {known}. Rename "
            "or remove it."
        )


def _row(where: str, base: Path, values: Mapping[str, str], outside: bool) -> Row:
    cells = {name: text.strip() for name, text in values.items()}
    if not cells["image"]:
        raise ValueError(f"{where}: the image is missing; give its file.")
    image = _inside(where, base, cells["image"], outside)
    if not image.exists():
        raise FileNotFoundError(
            f"{where}: there is no file {image}; paths are relative to the manifest's folder."
        )
    prompts = cells.get("prompts") or None
    if prompts not in (None, "auto", "same-stem"):
        file = _inside(where, base, prompts, outside)
        if not file.is_file():
            raise FileNotFoundError(
                f"{where}: there is no prompt file {file}; give a file, auto or same-stem."
            )
        prompts = str(file)
    axis = cells.get("channel_axis", "")
    if axis and not re.fullmatch(r"-?\d+", axis):
        raise ValueError(
            f"{where}: the channel_axis is {axis!r}; it is a whole number, counted from 0."
        )
    try:
        channels = channels_in(cells["channels"]) if cells.get("channels") else None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Row(
        image,
        image.parent.relative_to(base) if image.is_relative_to(base) else Path(),
        prompts,
        channels,
        int(axis) if axis else None,
    )


def _inside(where: str, base: Path, name: str, outside: bool) -> Path:
    """The file that a cell names, links and ``..`` resolved to see where it lies."""
    path = Path(os.path.normpath(base / os.path.expanduser(name)))
    if not outside and not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(
            f"{where}: {name} lies outside the manifest's folder; move it there, or allow it with "
            "--outside."
        )
    return path
