"""What learning from a few objects brings on other objects of images that the model never saw.

``python scripts/learn.py run --output learn --development development`` learns from five objects
of each image, then from three and ten, drawn by a seed. Of each run it keeps the IoUs of the
objects left out, before learning and by each choice of strength and size, and those of up to twelve
*other* objects by the model that learned from all. It trains whatever the rule says, so that the
rule can be changed without running again. Each run is a line of ``learn.jsonl``; runs that are
there are not repeated, so that it resumes. ``table --output learn`` applies the rule, prints the
report's tables, and writes ``learn.csv``.

The images were chosen before any result was seen. Those of the sources held out from all training
(``held_out.txt`` in the folder ``real`` of NAPARI_SIMMAT_DATA, by default ``../shared/data``): the
first four by name with at least eight objects of 30 pixels. Those of
``scripts/development_set.py`` with as many, one of each stack. Of many channels: drawn ones (seed
100), some channels of which are dead or hold noise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat import Predictor, load_model
from napari_simmat.datasets.dataset import label_areas
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.masks import interior_point, iou, label_windows
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.io.readers import read_image
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.research.sensors import draw_sensor_sample
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane, annotate
from napari_simmat.training.batches import as_rgb
from napari_simmat.training.few_shot import MORE_CLICKS, Learning

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
DRAWS = ((5, 0), (5, 1), (3, 0), (10, 0), (3, 1), (10, 1), (5, 2))
"""Numbers of objects and seeds, in the order of the runs."""
IMAGES_PER_SOURCE = 4
SCORED = 12
"""Other objects scored of each image."""
MIN_AREA = 30
LEAST_OTHERS = 3
LEAST_OBJECTS = 5 + LEAST_OTHERS
DEVELOPMENT = (
    "fluo2d_lowcontrast_nuclei", "hubble_deep_field", "fluo3d_cho_z0", "stereo_motorcycle",
    "shepp_logan_phantom", "phase2d_bacteria", "fluo2d_hela", "coins",
)  # fmt: skip
DRAWN = {
    "48 bands, 4 dead, 8 noise": ("hyperspectral", 100, (7, 20, 33, 47), range(0, 48, 6)),
    "6 bands, 1 dead, 1 noise": ("multispectral", 100, (0,), (3,)),
}
"""Sensor, seed, and the dead and the noisy channels."""


def main() -> None:
    """Run, or make the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--base", default="tiny")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "learn.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    run(options.base, options.development, path, rows)


def run(base_name: str, development: Path, path: Path, rows: list[dict[str, Any]]) -> None:
    """Add a line for each run that has none."""
    base = load_model(base_name)
    done = {(row["source"], row["image"], row["objects"], row["seed"]) for row in rows}
    images = [*held_out_images(), *(("development", name) for name in DEVELOPMENT)]
    images += [("drawn", name) for name in DRAWN]
    for (count, seed), (source, name) in product(DRAWS, images):
        if (source, name, count, seed) in done:
            continue
        content = read(source, name, development)
        chosen, others = divided(content.labels, count, seed)
        if len(chosen) < count or len(others) < LEAST_OTHERS:
            continue
        labels = np.where(np.isin(content.labels, chosen), content.labels, 0)
        [plane] = annotate(replace(content, labels=labels), base.spec)
        row = {"source": source, "image": name, "objects": count, "seed": seed}
        row |= learned(base, plane, content.labels, others, seed)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print({**row, "before": "", "after": "", "others": ""}, flush=True)


def held_out_images() -> list[tuple[str, str]]:
    """Source and name of the first images of each held-out source that have enough objects."""
    found = []
    for source in (DATA / "real" / "held_out.txt").read_text().split():
        enough = (
            path.name.removesuffix("_labels.png")
            for path in sorted((DATA / "real" / source).glob("*_labels.png"))
            if len(large(read_labels(path))) >= LEAST_OBJECTS
        )
        found += [(source, name) for name, _ in zip(enough, range(IMAGES_PER_SOURCE), strict=False)]
    return found


def read_labels(path: Path) -> NDArray[np.int32]:
    """Labels (Y, X)."""
    return np.asarray(read_image(path).data).squeeze().astype(np.int32)


def large(labels: NDArray[Any]) -> list[int]:
    """The objects that are large enough."""
    return [label for label, area in label_areas(labels).items() if area >= MIN_AREA]


def read(source: str, name: str, development: Path) -> LabeledImage:
    """Image and labels."""
    if source == "drawn":
        sensor, seed, dead, noisy = DRAWN[name]
        image, labels, _ = draw_sensor_sample(sensor, seed, 256)
        rng = np.random.default_rng(seed)
        for band in noisy:
            image[band] = rng.normal(image[band].mean(), image[band].std(), image[band].shape)
        for band, value in zip(dead, (0, 5, np.nan, 1), strict=False):
            image[band] = value
        return LabeledImage(name, list(image), labels.astype(np.int32))
    folder = development if source == "development" else DATA / "real" / source
    [labels_path] = folder.glob(f"{name}_labels.*")
    [path] = (each for each in folder.glob(f"{name}.*") if each != labels_path)
    file = read_image(path)
    names = ("red", "green", "blue", "alpha") if file.rgb else None
    axis = file.channel_axis
    channels = 1 if axis is None else file.data.shape[axis]
    kept = names and names[:channels]
    return LabeledImage(name, np.asarray(file.data), read_labels(labels_path), axis, kept)


def divided(labels: NDArray[Any], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Objects to learn from, and others: the same for every count that leaves so many."""
    ids = large(labels)
    drawn = np.random.default_rng(seed).permutation(ids)
    others = min(SCORED, len(ids) - count, len(ids) // 2)
    return drawn[others : others + count].tolist(), sorted(drawn[:others].tolist())


def learned(
    base: Model, plane: AnnotatedPlane, labels: NDArray[Any], others: Sequence[int], seed: int
) -> dict[str, Any]:
    """IoUs of the objects left out, and of others, before learning and by each choice."""
    began, wall = time.process_time(), time.monotonic()
    learning = Learning(base, [plane], FewShotConfig(seed=seed), None, "cpu", "learned")
    finish(learning.measure_before_job(None))
    finish(learning.measure_after_job(None))
    student, initial = finish(learning.teach_job(None))
    seconds = time.process_time() - began, time.monotonic() - wall
    evidence = learning.evidence
    reached = {"before": score(base, plane, labels, others)}
    for choice in evidence.choices:
        with learning.taking(student, initial, choice):
            model = Model(learning.spec, student.network, "taught")
            reached[str(tuple(choice))] = score(model, plane, labels, others)
    return {
        "CPU seconds": round(seconds[0], 1),
        "seconds": round(seconds[1], 1),
        "choices": [tuple(choice) for choice in evidence.choices],
        "folds": [list(fold) for fold in evidence.folds],
        "before": {number: rounded(found) for number, found in evidence.before.items()},
        "after": [[rounded(scores) for scores in fold] for fold in evidence.after],
        "others": {choice: rounded(found) for choice, found in reached.items()},
    }


def rounded(scores: Any) -> Any:
    """Four digits of IoUs, as lists."""
    return np.round(np.array(scores, float), 4).tolist()


def score(
    model: Model, plane: AnnotatedPlane, labels: NDArray[Any], objects: Sequence[int]
) -> list[list[float]]:
    """IoUs (N, 4) of masks as users get them: of the middle click, two anywhere, and the box."""
    given = replace(model.spec, normalization=Normalization(method="none"))
    predictor = Predictor(Model(given, model.network, "scored"), "cpu", cache=EmbeddingCache(0))
    values = plane.values
    if len(values) != len(model.spec.channels):
        values = values[as_rgb(len(values))]
    predictor.set_image(values, 0)
    found = []
    for label, (rows, columns) in label_windows(labels):
        if label not in objects:
            continue
        truth = labels == label
        inside = np.argwhere(truth[rows, columns])
        drawn = np.random.default_rng(len(inside)).choice(len(inside), MORE_CLICKS)
        places = [interior_point(truth[rows, columns], ties="median"), *inside[drawn].tolist()]
        prompts = [
            Prompt(points=((rows.start + y, columns.start + x),), labels=(1,)) for y, x in places
        ]
        prompts.append(Prompt(box=(rows.start, columns.start, rows.stop, columns.stop)))
        results = Refiner().refine(predictor, prompts)
        found.append([iou(result.mask, truth) for result in results])
    return found


if __name__ == "__main__":
    main()
