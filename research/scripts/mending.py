"""What mends a mask in fewer actions: clicks, scribbles along what is wrong, or lines around it.

``python research/scripts/mending.py --output mending.csv`` takes objects whose box does not give a
right mask (at most `OBJECTS` of the first images of each of `SOURCES`, where such objects are
common; none of these images is finished in the report) and lets a simulated user mend them by each
of the three. It writes a row for each object and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learn import DATA, read

from napari_simmat import load_model
from simmat_research.finishing import Setting, SimulatedUser
from simmat_research.strokes import outline_length

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
    """An object that a box alone does not give, and the actions that mend it, with the box.

    What is drawn is the length of all lines, in lengths of the object's outline.
    """

    source: str
    image: str
    object: int
    clicks: int
    done_by_clicks: bool
    scribbles: int
    done_by_scribbles: bool
    drawn_by_scribbles: float
    pen: int
    done_by_pen: bool
    drawn_by_pen: float


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
                outline = outline_length(user.labels == label)
                row: list[Any] = [source, name, label, clicks, user.is_done(label, clicked)]
                for mend_by in (user.box_and_scribbles, user.box_and_pen):
                    before = user.time.drawn
                    actions, mask = mend_by(predictor, label)
                    drawn = (user.time.drawn - before) / outline
                    row += [actions, user.is_done(label, mask), round(drawn, 2)]
                yield Mended(*row)


def table(rows: list[Mended]) -> str:
    """Means by source and over all objects; one that is given up costs `finishing.MAX_CLICKS`."""
    head = "| source | objects | box and clicks | given up "
    for way in ("scribbles", "pen"):
        head += f"| box and {way} | given up | drawn "
    lines = [head + "|", "| --- |" + " ---: |" * 9]
    groups = {source: [row for row in rows if row.source == source] for source in SOURCES}
    for source, group in ({each: of for each, of in groups.items() if of} | {"all": rows}).items():
        cells = [source.replace("_", " "), str(len(group))]
        cells += [f"{np.mean([row.clicks for row in group]):.2f}"]
        cells += [str(sum(not row.done_by_clicks for row in group))]
        for way in ("scribbles", "pen"):
            cells += [f"{np.mean([getattr(row, way) for row in group]):.2f}"]
            cells += [str(sum(not getattr(row, f"done_by_{way}") for row in group))]
            cells += [f"{np.mean([getattr(row, f'drawn_by_{way}') for row in group]):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
