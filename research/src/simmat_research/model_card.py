"""Tables of the embedded foundation's model card, as Markdown.

``python -m simmat_research.model_card scores --model tiny --development DEVELOPMENT --real
REAL --sources SOURCES --output scores.csv`` scores the images of the development set, validation
images of each trained source, and the sources that are held out whole (named in ``held_out.txt``),
on whole images, through `Predictor` and `Refiner`, as a user prompts. It appends a row for each
object; images that the file holds already are not scored again, so that a long run resumes.
``means --table scores.csv ...`` prints the means over objects, images and sources; ``resolution
--development DEVELOPMENT`` scores the same objects in the same images at other sizes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.datasets.folder import LabeledFile, find_labeled_files
from napari_simmat.engine.masks import label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.ground_truth import GroundTruthObject
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.progress import finish
from napari_simmat.training.batches import MIN_AREA
from simmat_research.real_scenes import read_sources

FACTORS = (0.5, 1.0, 2.0, 3.0)
LARGEST = 2048
THINNEST = 12
"""Objects whose bounding box is thinner than that many pixels at a scale are left out."""
CORRECTIONS = (1, 3, 5)
GOALS = (0.8, 0.85, 0.9)
MAX_CLICKS = 10
"""Clicks after which a goal counts as reached."""
HELD_OUT_FILE = "held_out.txt"
DEVELOPMENT, VALIDATION, HELD_OUT = "development", "validation", "held out"
IOU_COLUMNS = tuple(
    f"{prompt}{turn}"
    for prompt in ("click", "box", "both")
    for turn in ("", *(f" + {count}" for count in CORRECTIONS))
)
NEXT_COLUMN = "click, size of the last"
"""A click after the object before it in the image was committed (`Prompt.expected_area`)."""
BEST_COLUMNS = ("click, best candidate", "box, best candidate")
GOAL_COLUMNS = tuple(f"clicks to {goal:.2f}" for goal in GOALS)
COLUMNS = (*IOU_COLUMNS, NEXT_COLUMN, *BEST_COLUMNS, *GOAL_COLUMNS)
KEYS = ("set", "source", "image", "label")
Row = tuple[object, ...]


class LabeledSample(NamedTuple):
    """An image (Y, X) or (Y, X, C) and the labels (Y, X) to prompt, 0 for the background."""

    kind: str
    source: str
    name: str
    image: NDArray[Any]
    labels: NDArray[np.int32]
    channel_axis: int | None


def development_samples(folder: Path, objects: int) -> Iterator[LabeledSample]:
    """The images that ``research/scripts/development_set.py`` wrote; each is its own source."""
    for file in find_labeled_files(folder):
        yield _sample(DEVELOPMENT, file.name, file, objects, 1)


def source_samples(
    real: Path, table: Path | None, images: int, objects: int
) -> Iterator[LabeledSample]:
    """Validation images of the trained sources, then images of those that are held out.

    Of each source `images` at most, spread evenly over the names, and of each `objects`.
    """
    for source in read_sources(real, table):
        for file in _spread(source.validation, images):
            yield _sample(VALIDATION, source.name, file, objects, MIN_AREA)
    for name in (real / HELD_OUT_FILE).read_text(encoding="utf-8").split():
        for file in _spread(find_labeled_files(real / name), images):
            yield _sample(HELD_OUT, name, file, objects, MIN_AREA)


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return [values[int(place)] for place in places]


def _sample(
    kind: str, source: str, file: LabeledFile, objects: int, min_area: int
) -> LabeledSample:
    image = file.read()
    labels = image.labels
    large = [
        label
        for label, window in label_windows(labels)
        if np.count_nonzero(labels[window] == label) >= min_area
    ]
    kept = np.where(np.isin(labels, _spread(large, objects)), labels, 0).astype(np.int32)
    values = np.asarray(image.arrays)
    if image.is_rgb and image.channel_axis is not None:
        values = np.take(values, range(3), image.channel_axis)  # without alpha
    return LabeledSample(kind, source, file.name, values, kept, image.channel_axis)


def score_objects(predictor: Predictor, sample: LabeledSample) -> Iterator[tuple[int, list[float]]]:
    """For each object its label and the values of `COLUMNS`."""
    predictor.set_image(sample.image, channel_axis=sample.channel_axis)
    last: int | None = None
    for label, window in label_windows(sample.labels):
        truth = GroundTruthObject(sample.labels, label, window)
        click, box = Prompt(points=(truth.middle,), labels=(1,)), Prompt(box=truth.box)
        clicked, best_clicked = corrected(predictor, truth, click, MAX_CLICKS - 1)
        boxed, best_boxed = corrected(predictor, truth, box, max(CORRECTIONS))
        both, _ = corrected(predictor, truth, replace(click, box=truth.box), max(CORRECTIONS))
        [after_another], _ = corrected(predictor, truth, replace(click, expected_area=last), 0)
        last = int(np.count_nonzero(sample.labels[window] == label))
        reached = [run[turn] for run in (clicked, boxed, both) for turn in (0, *CORRECTIONS)]
        needed = [
            next((n for n, value in enumerate(clicked, 1) if value >= goal), MAX_CLICKS)
            for goal in GOALS
        ]
        best = best_clicked, best_boxed
        yield label, [*reached, after_another, *best, *map(float, needed)]


def corrected(
    predictor: Predictor, truth: GroundTruthObject, prompt: Prompt, clicks: int
) -> tuple[list[float], float]:
    """IoU with a prompt and after each correcting click, and of the prompt's best candidate.

    A correcting click is the pixel deepest inside the largest error. Once nothing is wrong, the
    mask stays.
    """
    refiner, reached, best = Refiner(), [], 0.0
    for turn in range(clicks + 1):
        [result] = finish(refiner.refine_job(predictor, [prompt], ()))
        reached.append(truth.agreement(result.mask)[0])
        if not turn:
            best = max(truth.agreement(result.alternative(n).mask)[0] for n in range(result.count))
        further = truth.correction(result.mask) if turn < clicks else None
        if further is None:
            break
        points, labels = (*prompt.points, further[0]), (*prompt.labels, further[1])
        prompt = replace(prompt, points=points, labels=labels)
    return reached + [reached[-1]] * (clicks + 1 - len(reached)), best


def scores(options: argparse.Namespace) -> Iterator[Row]:
    """Append a row for each object of the images that the output does not hold yet."""
    predictor, path = Predictor(load_model(options.model), device="cpu"), options.output
    samples: list[Iterator[LabeledSample]] = []
    if options.real:
        most = options.images, options.objects
        samples.append(source_samples(options.real, options.sources, *most))
    if options.development:
        samples.append(development_samples(options.development, options.objects))
    yield ("set", "source", "image", "objects")
    known = set()
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            known = {(row["set"], row["source"], row["image"]) for row in csv.DictReader(file)}
    else:
        header = ",".join(f'"{name}"' for name in (*KEYS, *COLUMNS))
        path.write_text(f"{header}\n", encoding="utf-8")
    for sample in chain(*samples):
        key = (sample.kind, sample.source, sample.name)
        if key in known or not sample.labels.any():
            continue
        rows = [
            (*key, label, *(f"{value:.4f}" for value in values))
            for label, values in score_objects(predictor, sample)
        ]
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        yield (*key, len(rows))


def _means(path: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Mean values of `COLUMNS` by set and source: over objects of an image, then over images."""
    images: dict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["set"], row["source"], row["image"])
            images[key].append([float(row[name]) for name in COLUMNS])
    sources: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for (kind, source, _), rows in images.items():
        sources[kind, source].append(np.mean(rows, axis=0))
    table: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for (kind, source), values in sources.items():
        table[kind][source] = np.mean(values, axis=0)
    return table


def means(options: argparse.Namespace) -> Iterator[Row]:
    """Means of files of scores, a row each; optionally a row for each source."""
    measured = {path.stem: _means(path) for path in options.files}
    yield ("", *COLUMNS)
    for kind in (DEVELOPMENT, VALIDATION, HELD_OUT):
        shared = [set(table[kind]) for table in measured.values()]
        sources = sorted(set.intersection(*shared))
        if not sources:
            continue
        yield (f"**{kind}, {len(sources)} sources**", *[""] * len(COLUMNS))
        for name, table in measured.items():
            rows = {name: np.mean([table[kind][source] for source in sources], axis=0)}
            if options.by_source:
                rows = {f"{name}, {source}": table[kind][source] for source in sources} | rows
            for title, values in rows.items():
                yield (title, *(f"{value:.3f}" for value in values))


def resolution(options: argparse.Namespace) -> Iterator[Row]:
    """Mean IoU of a click and of a box on the same objects in images of other sizes."""
    predictor = Predictor(load_model(options.model), device="cpu")
    yield ("image", "objects", *(f"{kind} x {f:g}" for kind in ("click", "box") for f in FACTORS))
    spreads = []
    for sample in development_samples(options.development, options.objects):
        factors = [f for f in FACTORS if max(sample.labels.shape) * f <= LARGEST]
        thin = [
            label
            for label, (rows, columns) in label_windows(sample.labels)
            if min(rows.stop - rows.start, columns.stop - columns.start) * factors[0] < THINNEST
        ]
        labels = np.where(np.isin(sample.labels, thin), 0, sample.labels).astype(np.int32)
        if not labels.any():
            continue
        means = [_click_and_box(predictor, _resized(sample, labels, factor)) for factor in factors]
        spreads.append(np.ptp(means, axis=0))
        cells = [f"{row[kind]:.3f}" for kind in (0, 1) for row in means]
        missing = [""] * (len(FACTORS) - len(factors))
        count = len(factors)
        yield (sample.name, len(np.unique(labels)) - 1, *cells[:count], *missing, *cells[count:])
    yield ("largest difference", "", *(f"{value:.3f}" for value in np.max(spreads, axis=0)))


def _resized(sample: LabeledSample, labels: Any, factor: float) -> LabeledSample:
    from skimage.transform import resize

    if factor == 1:
        return sample._replace(labels=labels)
    size = tuple(round(side * factor) for side in labels.shape)
    image, shape = sample.image.astype(np.float32), (*size, *sample.image.shape[2:])
    image = resize(image, shape, order=1, anti_aliasing=factor < 1, preserve_range=True)
    labels = resize(labels, size, order=0, anti_aliasing=False, preserve_range=True)
    return sample._replace(image=image.astype(np.float32), labels=labels.astype(np.int32))


def _click_and_box(predictor: Predictor, sample: LabeledSample) -> Any:
    """Mean IoU (2,) of a click and of a box."""
    predictor.set_image(sample.image, channel_axis=sample.channel_axis)
    scores = finish(UserProtocol(clicks=1).score_job(predictor, sample.labels))
    return np.mean([(score.iou["click"], score.iou["box"]) for score in scores], axis=0)


def main() -> None:
    """Print a table."""
    tables = {"scores": scores, "means": means, "resolution": resolution}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(tables))
    parser.add_argument("--model", default="tiny", help="a name or a file")
    parser.add_argument("--development", type=Path, help="folder of the development set")
    parser.add_argument("--real", type=Path, help="folder of real sources")
    parser.add_argument("--sources", type=Path, help="table of the trained ones")
    parser.add_argument("--images", type=int, default=10, help="of each source")
    parser.add_argument("--objects", type=int, default=10, help="of each image")
    parser.add_argument("--output", type=Path, default=Path("scores.csv"))
    parser.add_argument(
        "--table", dest="files", type=Path, nargs="+", default=[], help="files of scores"
    )
    parser.add_argument("--by-source", action="store_true")
    options = parser.parse_args()
    for number, row in enumerate(tables[options.table](options)):
        sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
        if not number:
            sys.stdout.write("| --- |" + " ---: |" * (len(row) - 1) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
