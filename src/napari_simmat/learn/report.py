"""An evaluation as data for programs: a line of the history, a summary, a table of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.engine.files import atomic_outputs, write_table, write_text
from napari_simmat.words import __version__

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.learn.score_config import ScoreConfig
    from napari_simmat.learn.scores import Scores

TABLE, SUMMARY = "results.csv", "summary.json"


def history_line(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str
) -> dict[str, Any]:
    """The evaluation as `learn.history` keeps it: of the figures, those that a table shows.

    Parameters
    ----------
    predictor, scores, config
        The model at work, what it reached and what it was asked.
    fingerprint
        Of the set (`labelled.fingerprint`).
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_what(predictor, config, fingerprint),
        "mean": _rounded(scores.headline),
        "images": {
            image.name: {**image.counts, **_rounded(image.headline)} for image in scores.images
        },
    }


def summary(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str, seconds: float
) -> dict[str, Any]:
    """Every figure of each image and both means; columns are called as in the table of objects.

    All but the block `run` follows from images, model and settings.

    Parameters
    ----------
    predictor, scores, config, fingerprint
        As `history_line`.
    seconds
        How long it took.
    """
    return {
        **_what(predictor, config, fingerprint),
        "mean_over_images": {"images": len(scores.images), **_rounded(scores.over_images)},
        "mean_over_objects": {**scores.counts, **_rounded(scores.over_objects)},
        "images": {
            image.name: {
                **image.counts,
                "too_small": image.too_small,
                **_rounded(image.figures),
            }
            for image in scores.images
        },
        "run": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "device": predictor.device.type,
        },
    }


def write_report(output: Path, scores: Scores, values: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write results.csv and summary.json: both or neither.

    The table has a row for each object, or for each plane that was segmented automatically.

    Parameters
    ----------
    output
        The folder; it is made if need be.
    values
        Of `summary`.
    """
    paths = output / TABLE, output / SUMMARY
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
    """To six digits, which is far below what can matter."""
    return {name: round(value, 6) for name, value in figures.items()}
