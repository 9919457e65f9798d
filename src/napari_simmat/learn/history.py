"""A file of earlier evaluations, one JSON object on each line, so that a worse model is noticed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_simmat.engine.files import atomic_outputs, write_text

TOLERANCE = 0.02
"""By how much a mean IoU, average precision or panoptic quality may fall."""
BASELINES = ("filled_box", "disk")
"""Columns that no model can change."""
COUNTS = ("objects", "found")
COMPARABLE = {
    "most": None, "smallest": 0, "channels": None, "channel_axis": None, "pixel_ratio": 1.0,
}  # fmt: skip
"""Settings without which figures are of other objects or channels, and what they are where a line,
of an earlier version, does not say."""
Line = Mapping[str, Any]


def read_history(path: Path) -> list[Line]:
    """The lines of a history file, oldest first; none if there is no file.

    Raises
    ------
    ValueError
        If a line is no evaluation; the sentence says which.
    """
    if not path.exists():
        return []
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a history is a file, give another name.")
    lines: list[Line] = []
    for number, text in enumerate(_read(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not _is_line(line):
            raise ValueError(
                f"{path.name}, line {number}, is not an evaluation that was written here; remove "
                "the line, or give another file."
            )
        lines.append(line)
    return lines


def append_line(path: Path, line: Line) -> None:
    """Add an evaluation; the file is replaced as a whole or not at all."""
    before = _read(path) if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    with atomic_outputs(path) as (temporary,):
        write_text(temporary, before + json.dumps(line, allow_nan=False) + "\n")


def worse(line: Line, earlier: Sequence[Line]) -> list[str]:
    """Sentences about what is worse by more than `TOLERANCE` than in the best earlier evaluation.

    Only evaluations of the same set, objects and channels count. The best is the one with the
    highest mean over the figures that both have.
    """
    rivals = [other for other in earlier if _comparable(line, other)]
    if not rivals:
        return []
    best = max(rivals, key=lambda other: _level(other["mean"], line["mean"]))
    whom = f"with {best['model']} on {best['date'][:10]}"
    if best.get("steps") is not None:
        whom += f" ({best['steps']} steps)"
    cases = [("The mean over images", line["mean"], best["mean"])]
    cases += [
        (name, figures, best["images"][name])
        for name, figures in line["images"].items()
        if name in best["images"]
    ]
    return [
        f"{name} is worse, {column}: {now:.3f}, it was {before:.3f} {whom}."
        for name, figures, others in cases
        for column, now, before in _common(figures, others)
        if before - now > TOLERANCE
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not a text file; give another file.") from None


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("images"), dict):
        return False
    texts = all(isinstance(line.get(key), str) for key in ("set", "model", "date"))
    tables = [line.get("mean"), *line["images"].values()]
    return (
        texts
        and isinstance(line.get("settings"), dict)
        and all(isinstance(table, dict) for table in tables)
        and all(isinstance(value, int | float) for table in tables for value in table.values())
    )


def _comparable(line: Line, other: Line) -> bool:
    same = all(
        line["settings"].get(key, default) == other["settings"].get(key, default)
        for key, default in COMPARABLE.items()
    )
    return same and line["set"] == other["set"] and bool(list(_common(line["mean"], other["mean"])))


def _level(figures: Mapping[str, float], like: Mapping[str, float]) -> float:
    shared = [value for _, value, _ in _common(figures, like)]
    return math.fsum(shared) / len(shared)


def _common(
    figures: Mapping[str, float], others: Mapping[str, float]
) -> Iterator[tuple[str, float, float]]:
    """Columns that both have, without the baselines, and the value of each."""
    for column, value in figures.items():
        if column in others and column not in (*BASELINES, *COUNTS):
            yield column, value, others[column]
