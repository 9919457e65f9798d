"""An evaluation as data: a table of objects, a summary, and a line of a history.

The history is a file of JSON lines, against which later evaluations are checked for regressions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat._text import __version__
from napari_simmat.io.files import atomic_outputs, write_table, write_text

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.evaluation.scores import ScoreConfig, Scores


TOLERANCE = 0.02
"""Tolerated decrease of a mean IoU, average precision or panoptic quality."""
BASELINES = ("filled_box", "disk")
"""Columns that do not depend on the model."""
COUNTS = ("objects", "found")
COMPARABLE = {
    "most": None, "smallest": 0, "channels": None, "channel_axis": None, "pixel_ratio": 1.0,
}  # fmt: skip
"""Settings that determine objects and channels, with their values where an older line has none."""
HistoryEntry = Mapping[str, Any]


def read_history(path: Path) -> list[HistoryEntry]:
    """The lines of a history file, oldest first; none if there is no file.

    Raises
    ------
    ValueError
        If a line is no evaluation; the message says which.
    """
    if not path.exists():
        return []
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a history is a file, give another name.")
    lines: list[HistoryEntry] = []
    for number, text in enumerate(_read(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not _is_entry(line):
            raise ValueError(
                f"{path.name}, line {number}, is not an evaluation that was written here; remove "
                "the line, or give another file."
            )
        lines.append(line)
    return lines


def append_entry(path: Path, line: HistoryEntry) -> None:
    """Add an evaluation; the file is replaced completely or not at all."""
    before = _read(path) if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    with atomic_outputs(path) as (temporary,):
        write_text(temporary, before + json.dumps(line, allow_nan=False) + "\n")


def regressions(line: HistoryEntry, earlier: Sequence[HistoryEntry]) -> list[str]:
    """Sentences about figures that are worse by more than `TOLERANCE` than in the best evaluation.

    Earlier evaluations of the same set, objects and channels count; the best has the highest mean
    over the figures that both have.
    """
    rivals = [other for other in earlier if _is_comparable(line, other)]
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
        for column, now, before in _common_figures(figures, others)
        if before - now > TOLERANCE
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not a text file; give another file.") from None


def _is_entry(line: Any) -> bool:
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


def _is_comparable(line: HistoryEntry, other: HistoryEntry) -> bool:
    same = all(
        line["settings"].get(key, default) == other["settings"].get(key, default)
        for key, default in COMPARABLE.items()
    )
    return (
        same
        and line["set"] == other["set"]
        and bool(list(_common_figures(line["mean"], other["mean"])))
    )


def _level(figures: Mapping[str, float], like: Mapping[str, float]) -> float:
    shared = [value for _, value, _ in _common_figures(figures, like)]
    return math.fsum(shared) / len(shared)


def _common_figures(
    figures: Mapping[str, float], others: Mapping[str, float]
) -> Iterator[tuple[str, float, float]]:
    """Columns that both have, without the baselines, and both values."""
    for column, value in figures.items():
        if column in others and column not in (*BASELINES, *COUNTS):
            yield column, value, others[column]


RESULTS_FILE, SUMMARY_FILE = "results.csv", "summary.json"


def history_line(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str
) -> dict[str, Any]:
    """An evaluation as a line of the history, with the figures that a table shows.

    `fingerprint` identifies the data (see `datasets.folder.fingerprint`).
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_what(predictor, config, fingerprint),
        "mean": _rounded(scores.headline),
        "images": {
            image.name: {**image.counts, **_rounded(image.headline)} for image in scores.images
        },
    }


def summary_values(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str, seconds: float
) -> dict[str, Any]:
    """Every figure of each image and both means, with the columns of the table of objects.

    All but the block `run`, which holds the duration in `seconds`, follows from images, model and
    settings.
    """
    return {
        **_what(predictor, config, fingerprint),
        "mean_over_images": {"images": len(scores.images), **_rounded(scores.over_images)},
        "mean_over_objects": {**scores.counts, **_rounded(scores.over_objects)},
        "images": {
            image.name: {**image.counts, "too_small": image.too_small, **_rounded(image.figures)}
            for image in scores.images
        },
        "run": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "device": predictor.device.type,
        },
    }


def write_report(output: Path, scores: Scores, values: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write results.csv and summary.json (`summary_values`): both or neither.

    The table has a row for each object, or for each plane that was segmented automatically.
    """
    paths = output / RESULTS_FILE, output / SUMMARY_FILE
    rows = [row for image in scores.images for row in image.rows()]
    with atomic_outputs(*paths) as (table, text):
        write_table(table, list(rows[0]), rows)
        write_text(text, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return paths


def _what(predictor: Predictor, config: ScoreConfig, fingerprint: str) -> dict[str, Any]:
    spec = predictor.model.spec
    return {
        "set": fingerprint,
        "model": spec.name,
        "base": spec.base.name,
        "fingerprint": predictor.model.fingerprint,
        "steps": spec.training.get("steps"),
        "version": __version__,
        "settings": {**config.to_dict(), "precision": predictor.precision},
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """To six digits, far below any relevant difference."""
    return {name: round(value, 6) for name, value in figures.items()}
