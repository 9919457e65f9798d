"""What an outline drawn by hand is worth: as drawn, as the model sees it, and with its rim settled.

``python research/scripts/outlines.py --output outlines.csv`` takes some objects of the first images
of each source that ``finish.py`` does not finish, outlines them as a hand does (`strokes`), by
polygons of few vertices and by an ellipse, and writes for each the IoU of what is drawn, of the
model's mask for its box and pixels, and of `engine.scribbles.settle_rim` of both. It prints a
Markdown table: the mean over sources, and the share that is right (`DONE`).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from finish import COMPLETE
from learn import DATA, read

from napari_simmat import Prompt, load_model
from napari_simmat.engine.coordinates import corners_of_box
from napari_simmat.engine.masks import Mask
from napari_simmat.engine.outlines import box_and_mask
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.scribbles import settle_rim
from napari_simmat.evaluation.label_scores import DONE
from simmat_research.finishing import Setting, SimulatedUser
from simmat_research.strokes import Line, outline_of

IMAGES, OBJECTS, MIN_AREA = 2, 4, 60
"""Images of a source, and objects of each, of so many pixels."""
HANDS = {"a hand": 0.1, "a hand off by twice as much": 0.2, "by three times as much": 0.3}
VERTICES = 12, 8, 5
"""Of polygons along the first hand's line."""


class Outlined(NamedTuple):
    """The IoU of an object with what is drawn, with the model's mask, and with both."""

    source: str
    image: str
    object: int
    drawn_as: str
    drawn: float
    by_model: float
    settled: float


def main() -> None:
    """Outline, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--base", default="tiny")
    options = parser.parse_args()
    rows = list(outline_objects(options.base))
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Outlined._fields)
        writer.writerows(rows)
    print(table(rows))


def outline_objects(base: str) -> Iterator[Outlined]:
    """A row for each object and way to draw it."""
    model = load_model(base)
    for folder in sorted(path for path in (DATA / "real").iterdir() if path.is_dir()):
        if folder.name in COMPLETE:
            continue
        for path in sorted(folder.glob("*_labels.png"))[:IMAGES]:
            name = path.name.removesuffix("_labels.png")
            image = read(folder.name, name, Path())
            user = SimulatedUser(np.asarray(image.labels))
            labels = [label for label, true in user.objects.items() if true.area >= MIN_AREA]
            predictor = Setting(model, image, user).predictor()
            for label in np.random.default_rng(0).permutation(labels)[:OBJECTS].tolist():
                truth = user.labels == label
                for drawn_as, (kind, line) in drawings(user, label).items():
                    scores = compare(predictor, truth, kind, line)
                    yield Outlined(folder.name, name, label, drawn_as, *scores)


def drawings(user: SimulatedUser, label: int) -> dict[str, tuple[str, Line]]:
    """Kind and vertices (N, 2) of each way to outline an object."""
    truth = user.labels == label
    lines = {name: outline_of(truth, 1, off).line for name, off in HANDS.items()}
    found = {name: ("polygon", line) for name, line in lines.items()}
    exact = next(iter(lines.values()))
    for count in VERTICES:
        chosen = np.linspace(0, len(exact), count, endpoint=False).astype(int)
        found[f"a polygon of {count} vertices"] = "polygon", exact[chosen]
    return {**found, "an ellipse in its box": ("ellipse", corners_of_box(user.objects[label].box))}


def compare(predictor: Predictor, truth: Mask, kind: str, line: Line) -> list[float]:
    """The IoUs of an object (Y, X), as `Outlined` has them."""
    box, mask = box_and_mask(kind, line.tolist(), (truth.shape[0], truth.shape[1]))
    assert mask is not None
    [result] = predictor.predict_many([Prompt(box=box, mask=mask)])
    masks = mask, result.mask, settle_rim(mask, result.mask)
    return [round(float((truth & each).sum() / (truth | each).sum()), 4) for each in masks]


def table(rows: list[Outlined]) -> str:
    """Means over sources of the share that is right, and of the IoU."""
    lines = ["| drawn | as drawn | by the model | rim settled |", "| --- | ---: | ---: | ---: |"]
    sources = sorted({row.source for row in rows})
    for drawn_as in dict.fromkeys(row.drawn_as for row in rows):
        cells = []
        for name in ("drawn", "by_model", "settled"):
            of_sources = [
                [
                    getattr(row, name)
                    for row in rows
                    if (row.source, row.drawn_as) == (each, drawn_as)
                ]
                for each in sources
            ]
            right = np.mean([np.mean(np.array(ious) >= DONE) for ious in of_sources])
            cells.append(f"{right:.2f} ({np.mean([np.mean(ious) for ious in of_sources]):.2f})")
        lines.append(f"| {drawn_as} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
