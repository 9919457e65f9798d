"""Evaluate a model on a folder of labeled images: figures, pictures, table, summary, history.

The history is a file of JSON lines, against which later evaluations are checked for regressions.
Needs no torch until an image is evaluated.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import __version__
from napari_simmat.datasets.folder import LabeledFile
from napari_simmat.engine.drawing import to_rgb
from napari_simmat.engine.masks import label_windows
from napari_simmat.evaluation.figures import Gallery, PlaneFigure, draw_matches
from napari_simmat.evaluation.prompting import PaperProtocol, PromptProtocol, UserProtocol
from napari_simmat.evaluation.scores import (
    ImageMatches,
    ImageScores,
    Matches,
    ObjectScore,
    PlaneNumber,
    ScoreConfig,
    Scores,
    plane_matches,
)
from napari_simmat.io.files import atomic_outputs, write_table, write_text
from napari_simmat.progress import Job, Progress, map_progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.io.image_file import ImageFile


logger = logging.getLogger(__name__)

T = TypeVar("T")
SUBSAMPLE_SEED = 0
RESULTS_FILE, SUMMARY_FILE, OVERLAY_SHEET = "results.csv", "summary.json", "overlays.png"
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


def evaluate_job(
    predictor: Predictor,
    files: Sequence[LabeledFile],
    config: ScoreConfig,
    output: Path | None = None,
) -> Job[Scores]:
    """Evaluate a model on labeled images; a stack's planes with objects are samples.

    Parameters
    ----------
    predictor
        Holds the model.
    files
        The images.
    config
        Prompts and objects.
    output
        Folder for pictures: STEM_overlay.png for each image and, for prompted objects,
        overlays.png with the worst and best of all. None for none.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used; the message names it.
    """
    images: list[Any] = []
    overlays = []
    gallery = None if output is None or config.prompt == "auto" else Gallery(len(files))
    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: reading")
        if config.prompt == "auto":
            job = _match_image_job(predictor, file, config, drawn=output is not None)
        else:
            job = _score_image_job(predictor, file, config, gallery)
        try:
            scores, picture = yield from _as_part_of(job, done, len(files), file.name)
        except (ValueError, TypeError) as error:
            words = str(error)
            is_named = file.image.name in words or file.labels.name in words
            raise ValueError(words if is_named else f"{file.image.name}: {words}") from error
        if not scores.counts["objects"]:
            logger.warning("%s has no object to evaluate and is left out.", file.labels.name)
            continue
        images.append(scores)
        if output is not None and picture is not None:
            overlays.append(_save(picture, output / f"{file.name}_overlay.png"))
    if not images:
        raise ValueError(f"The label images hold no object of {config.needed}; label some objects.")
    sheet = None if gallery is None else gallery.sheet()
    if output is not None and sheet is not None:
        overlays.append(_save(sheet, output / OVERLAY_SHEET))
    return Scores(tuple(images), tuple(overlays))


def _score_image_job(
    predictor: Predictor, file: LabeledFile, config: ScoreConfig, gallery: Gallery | None
) -> Job[tuple[ImageScores | ImageMatches, Image | None]]:
    """Prompt the objects of one image; with a gallery, draw the plane with the most objects."""
    image, labels = file.read(config.channel_axis, config.pixel_ratio)
    protocol = _protocol(config)
    objects, too_small = _objects(labels, protocol)
    planes, shown = _by_plane(_subsample(objects, config.most))
    axis, names = _channels(image, config)
    scores: list[tuple[PlaneNumber, ObjectScore]] = []
    picture = None
    for number, (plane, chosen) in enumerate(planes.items()):
        if number == 0:
            yield from predictor.set_image_job(
                image.data, axis, config.channels, plane, names, pixel_size=image.pixel_size
            )
        else:
            yield from predictor.set_plane_job(plane)
        view = None
        if gallery is not None:
            under = to_rgb(predictor.stack.normalized(plane))
            view = PlaneFigure(under, labels[plane], gallery, file.name, plane)
        found = yield from protocol.score_job(predictor, labels[plane], frozenset(chosen), view)
        scores += [(plane, score) for score in found]
        if view is not None and plane == shown:
            picture = view.picture(chosen)
    return ImageScores(file.name, tuple(scores), too_small), picture


def _match_image_job(
    predictor: Predictor, file: LabeledFile, config: ScoreConfig, drawn: bool
) -> Job[tuple[ImageScores | ImageMatches, Image | None]]:
    """Segment everything on the planes with objects, match; draw the plane with the most."""
    from napari_simmat.engine.automatic_generator import segment_everything_job

    image, labels = file.read(config.channel_axis, config.pixel_ratio)
    objects, too_small = _objects(labels, _protocol(config))
    planes, shown = _by_plane(objects)
    axis, names = _channels(image, config)
    if planes:
        yield from predictor.open_image_job(
            image.data, axis, config.channels, names, pixel_size=image.pixel_size
        )
    matched: list[tuple[PlaneNumber, Matches]] = []
    picture = None
    for plane, chosen in planes.items():
        instances = yield from segment_everything_job(predictor, config.automatic, plane)
        truth = labels[plane]
        ignored = (truth != 0) & ~np.isin(truth, chosen)
        matched.append((plane, plane_matches(instances.labels, truth, ignored)))
        if drawn and plane == shown:
            under = to_rgb(predictor.stack.normalized(plane))
            picture = draw_matches(under, instances.labels, truth, matched[-1][1])
    return ImageMatches(file.name, tuple(matched), too_small), picture


def _protocol(config: ScoreConfig) -> PromptProtocol:
    if config.prompt == "paper":
        return PaperProtocol(config.smallest)
    prompts = "all" if config.prompt == "auto" else config.prompt
    return UserProtocol(prompts, config.clicks, config.smallest)


def _objects(
    labels: NDArray[Any], protocol: PromptProtocol
) -> tuple[list[tuple[PlaneNumber, int]], int]:
    """Planes and labels of the objects that count, in order, and the number of the others."""
    planes = list(np.ndindex(*labels.shape[:-2]))
    objects = [(plane, label) for plane in planes for label in protocol.objects(labels[plane])]
    everything = sum(len(label_windows(labels[plane])) for plane in planes)
    return objects, everything - len(objects)


def _by_plane(
    objects: list[tuple[PlaneNumber, int]],
) -> tuple[dict[PlaneNumber, list[int]], PlaneNumber]:
    """The objects of each plane, and the plane that has most."""
    planes: dict[PlaneNumber, list[int]] = {}
    for plane, label in objects:
        planes.setdefault(plane, []).append(label)
    return planes, max(planes, key=lambda plane: len(planes[plane]), default=())


def _channels(image: ImageFile, config: ScoreConfig) -> tuple[int | None, tuple[str, ...] | None]:
    """Axis and names of an image's channels."""
    axis = image.channel_axis if config.channel_axis is None else config.channel_axis
    own = axis is not None and axis % image.data.ndim == image.channel_axis  # or from the end
    return axis, image.channel_names if own else None


def _save(picture: Image, path: Path) -> Path:
    with atomic_outputs(path) as (temporary,):
        picture.save(temporary, format="png")
    return path


def _subsample(
    objects: list[tuple[PlaneNumber, int]], most: int | None
) -> list[tuple[PlaneNumber, int]]:
    """At most so many objects: one at random from each of as many equal parts of the list."""
    if most is None or len(objects) <= most:
        return objects
    offsets = np.random.default_rng(SUBSAMPLE_SEED).random(most)
    places = (np.arange(most) + offsets) * len(objects) / most
    return [objects[int(place)] for place in places]


def _as_part_of(job: Job[T], done: int, total: int, name: str) -> Job[T]:
    """One image's progress as part of the whole, in hundredths of an image."""

    def within(part: Progress) -> Progress:
        share = part.done / part.total if part.total else 0.0
        return Progress(round(100 * (done + share)), 100 * total, f"{name}: {part.message}")

    return map_progress(job, within)


# ----------------------------------------------------------------------- the report as data


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
    for number, text in enumerate(_read_history_text(path).splitlines(), start=1):
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
    before = _read_history_text(path) if path.exists() else ""
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


def _read_history_text(path: Path) -> str:
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


def history_line(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str
) -> dict[str, Any]:
    """An evaluation as a line of the history, with the figures that a table shows.

    `fingerprint` identifies the data (see `datasets.folder.fingerprint`).
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_run_identity(predictor, config, fingerprint),
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
        **_run_identity(predictor, config, fingerprint),
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


def _run_identity(predictor: Predictor, config: ScoreConfig, fingerprint: str) -> dict[str, Any]:
    spec = predictor.model.spec
    return {
        "set": fingerprint,
        "model": spec.name,
        "base": spec.base.name,
        "fingerprint": predictor.model.fingerprint,
        "steps": spec.training.get("steps"),
        "version": __version__,
        "settings": {
            **config.to_dict(),
            "precision": predictor.precision,
            "quality": predictor.quality,
        },
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """To six digits, far below any relevant difference."""
    return {name: round(value, 6) for name, value in figures.items()}
