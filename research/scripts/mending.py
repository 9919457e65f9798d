"""What mends a mask in fewer actions: clicks, or scribbles along what is wrong.

``python research/scripts/mending.py --output mending.csv`` takes objects whose box does not give a
right mask (at most `OBJECTS` of the first images of each of `SOURCES`, where such objects are
common; none of these images is finished in the report) and lets a simulated user mend them, once by
clicks and once by scribbles. It writes a row for each object and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from learn import DATA, read

from napari_simmat import load_model
from simmat_research.finishing import Setting, SimulatedUser

SOURCES = (
    "leaf_microct", "bookshelves", "concrete_damage", "granular_ore", "gravel_sand_grains",
    "landslides", "chloroplast_em", "mushroom_shelf", "axon_sem", "plant_ovule_confocal",
    "powder_sem", "heart_mri_chd",
)  # fmt: skip
FINISHED = ("grid_00", "grid_01", "grid_02", "grid_10")
"""Images that ``finish.py`` finishes."""
IMAGES, TRIED, OBJECTS = 4, 40, 8
"""Images of a source, objects of each that are tried, and those of them that are mended."""
MIN_AREA = 60


class Mended(NamedTuple):
    """An object that a box alone does not give, and the actions that mend it, with the box."""

    source: str
    image: str
    object: int
    clicks: int
    done_by_clicks: bool
    scribbles: int
    done_by_scribbles: bool


def main() -> None:
    """Mend, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--base", default="tiny")
    options = parser.parse_args()
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Mended._fields)
        rows = []
        for row in mend(options.base):
            writer.writerow(row)
            file.flush()
            rows.append(row)
    print(table(rows))


def mend(base: str) -> Iterator[Mended]:
    """A row for each object."""
    model = load_model(base)
    for source in SOURCES:
        paths = sorted((DATA / "real" / source).glob("*_labels.png"))
        names = [path.name.removesuffix("_labels.png") for path in paths]
        for name in [each for each in names if each not in FINISHED][:IMAGES]:
            image = read(source, name, Path())
            user = SimulatedUser(np.asarray(image.labels))
            predictor = Setting(model, image, user).predictor()
            labels = [label for label, true in user.objects.items() if true.area >= MIN_AREA]
            tried = np.random.default_rng(0).permutation(labels)[:TRIED].tolist()
            missed = (n for n in tried if not user.is_done(n, user.boxed(predictor, n)))
            for label, _ in zip(missed, range(OBJECTS), strict=False):
                clicks, clicked = user.box(predictor, label)
                scribbles, scribbled = user.box_and_scribbles(predictor, label)
                yield Mended(
                    source,
                    name,
                    label,
                    clicks,
                    user.is_done(label, clicked),
                    scribbles,
                    user.is_done(label, scribbled),
                )


def table(rows: list[Mended]) -> str:
    """Means by source and over all objects; one that is given up costs `finishing.MAX_CLICKS`."""
    lines = [
        "| source | objects | box and clicks | given up | box and scribbles | given up |",
        "| --- |" + " ---: |" * 5,
    ]
    groups = {source: [row for row in rows if row.source == source] for source in SOURCES}
    for source, group in ({each: of for each, of in groups.items() if of} | {"all": rows}).items():
        clicks = np.mean([row.clicks for row in group])
        scribbles = np.mean([row.scribbles for row in group])
        left = sum(not row.done_by_clicks for row in group)
        left_by_scribbles = sum(not row.done_by_scribbles for row in group)
        lines.append(
            f"| {source.replace('_', ' ')} | {len(group)} | {clicks:.2f} | {left} "
            f"| {scribbles:.2f} | {left_by_scribbles} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
