"""How many seconds and actions finish an image: a simulated user, in several ways.

``python research/scripts/finish.py run --output finish --development development`` finishes each
image in each way of `simmat_research.finishing.WAYS`, a line of ``finish.jsonl`` for each; those
that are there are not repeated, so that it resumes. ``table --output finish`` prints the report's
tables and writes ``finish.csv``. Both take some of the images and ways only:
``--sources blood_smear drawn``, ``--images smear_00``, ``--ways "by hand" clicks``.

The images are those of ``learn.py`` on which all objects are labeled: the built-in foundation has
seen none of these sources, except that settings were chosen on some of the development set.

``folder --output finish --source nanoshapes`` finishes the first images of a source one after the
other (`finish_folder`): what one teaches, the next begins with. It prints a line for each, and
writes ``folder_nanoshapes.csv``. With ``--each "second look"`` each image is finished by itself in
that way (``folder_nanoshapes_second-look.csv``).

``picture --output docs/reports/images --development development`` draws where it does not help:
the drafts of the kind, and what boxes give of the same objects.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from learn import DATA, DRAWN, LEAST_OBJECTS, held_out_images, large, read, read_labels
from numpy.typing import NDArray
from PIL import Image

from napari_simmat import Prompt, load_model
from napari_simmat.engine.drawing import draw_overlay, to_rgb
from napari_simmat.engine.refinement import Refiner
from simmat_research.finishing import (
    WAYS,
    Finished,
    Setting,
    SimulatedUser,
    by_kind,
    finish_folder,
    finish_image,
    table,
)

COMPLETE = ("blood_smear", "leaf_microct", "mars_rocks", "nanoshapes")
"""Held-out sources on which all objects are labeled, or nearly all."""
DEVELOPMENT = (
    "fluo2d_lowcontrast_nuclei", "fluo3d_cho_z0", "phase2d_bacteria", "fluo2d_hela", "coins",
)  # fmt: skip
IN_A_FOLDER = 12
"""Images of a folder: two that teach, and ten."""
MISSED_ON = ("leaf_microct", "grid_00"), ("mars_rocks", "img_538")
"""Images on which nothing but a box for each object, and its correction, leads to the end."""
WEBP_QUALITY = 70
GROUPS = {"held out": COMPLETE, "development": ("development",), "drawn": ("drawn",)}
SOURCES: tuple[str, ...] = sum(GROUPS.values(), ())


def main() -> None:
    """Run, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table", "folder", "picture"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--source", default="nanoshapes")
    parser.add_argument("--each", choices=list(WAYS))
    parser.add_argument("--hand", type=float, default=1.0, help="times as unsteady as usual")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--images", nargs="+", help="names; by default all of the sources")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "finish.jsonl"
    if options.what == "run":
        images = images_of(options.sources, options.images)
        run(options.base, options.development, path, images, options.ways, options.hand)
    elif options.what == "folder":
        run_folder(options.base, options.source, options.output, options.each)
    elif options.what == "picture":
        draw(options.base, options.development, options.output / "finishing-misses.webp")
    else:
        show(path, options.sources, options.images, options.ways)


def images_of(sources: list[str], names: list[str] | None = None) -> list[tuple[str, str]]:
    """Source and name of the report's images, of some sources and of some names or of all."""
    images = held_out_images() if set(sources) & set(COMPLETE) else []
    images += [("development", name) for name in DEVELOPMENT]
    images += [("drawn", name) for name in DRAWN]
    images = [each for each in images if each[0] in sources]
    there = [name for _, name in images]
    if missing := sorted(set(names or ()) - set(there)):
        raise SystemExit(f"No image is named {', '.join(missing)}; there are {', '.join(there)}.")
    return [each for each in images if names is None or each[1] in names]


def run(
    base_name: str,
    development: Path,
    path: Path,
    images: list[tuple[str, str]],
    ways: list[str],
    hand: float,
) -> None:
    """Add a line for each image and way that has none."""
    base = load_model(base_name)
    rows, by = rows_of(path), {"model": base.spec.name, "hand": hand}
    if others := {f"{row['model']} and hand {row['hand']:g}" for row in rows if row | by != row}:
        raise SystemExit(f"{path} is of {', '.join(others)}; give another --output.")
    done = {(row["source"], row["image"], row["way"]) for row in rows}
    for source, name in images:
        for way in ways:
            if (source, name, way) in done:
                continue
            image = read(source, name, development)
            user = SimulatedUser(np.asarray(image.labels), hand=hand)
            finished = finish_image(way, Setting(base, image, user))
            row = {"source": source, "image": name, "way": way, **by, **finished._asdict()}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def run_folder(base_name: str, source: str, output: Path, each: str | None) -> None:
    """Finish the first `IN_A_FOLDER` images of a source with enough objects, in their order.

    With `each` by themselves in that way, otherwise with what the one before has taught.
    """
    paths = sorted((DATA / "real" / source).glob("*_labels.png"))
    enough = (path for path in paths if len(large(read_labels(path))) >= LEAST_OBJECTS)
    names = [path.name.removesuffix("_labels.png") for path in islice(enough, IN_A_FOLDER)]
    base, images = load_model(base_name), (read(source, name, Path()) for name in names)
    if each is None:
        finished, stem = finish_folder(base, images), f"folder_{source}"
    else:
        settings = (Setting(base, one, SimulatedUser(np.asarray(one.labels))) for one in images)
        finished = (finish_image(each, one) for one in settings)
        stem = f"folder_{source}_{each.replace(' ', '-')}"
    with (output / f"{stem}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", *Finished._fields])
        writer.writeheader()
        for name, done in zip(names, finished, strict=True):
            writer.writerow({"image": name, **done._asdict()})
            seconds, actions = done.seconds / done.objects, done.actions / done.objects
            print(f"{name}: {seconds:.2f} s, {actions:.2f} actions per object", done, flush=True)


def draw(base_name: str, development: Path, target: Path) -> None:
    """A row for each of `MISSED_ON`: all drafts of the kind, and the masks of all boxes."""
    base = load_model(base_name)
    rows = []
    for source, name in MISSED_ON:
        image = read(source, name, development)
        setting = Setting(base, image, SimulatedUser(np.asarray(image.labels)))
        values = np.moveaxis(setting.planes(), -1, 0)
        under = to_rgb((values - values.min()) / np.ptp(values))
        drafts, boxed = by_kind(setting).labels, boxed_masks(setting)
        truth = setting.user.labels
        titles = f"{name}: drafts of the kind", "one box for each object"
        rows.append(
            [
                draw_overlay(under, labels, (), truth, said, scale=1)
                for labels, said in zip((drafts, boxed), titles, strict=True)
            ]
        )
    width = max(tile.size[0] for row in rows for tile in row) + 4
    heights = [max(tile.size[1] for tile in row) + 4 for row in rows]
    sheet = Image.new("RGB", (2 * width, sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * width, sum(heights[:number])))
    sheet.save(target, quality=WEBP_QUALITY, method=6)


def boxed_masks(setting: Setting) -> NDArray[np.int32]:
    """The mask (Y, X) that a box alone gives of each object, by its id."""
    user, predictor = setting.user, setting.predictor()
    found = np.zeros_like(user.labels)
    for label, truth in user.objects.items():
        [result] = Refiner().refine(predictor, [Prompt(box=truth.box, object=label)])
        found[result.mask & (found == 0)] = label
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if any("processor" not in row for row in rows):
        raise SystemExit(f"{path} is from before seconds were counted; give another --output.")
    return rows


def show(path: Path, chosen: list[str], names: list[str] | None, ways: list[str]) -> None:
    """Print a table for each group of images, and write the rows as CSV.

    Images that are not finished in all of the ways yet are left out.
    """
    rows = [
        row
        for row in rows_of(path)
        if row["source"] in chosen
        and row["way"] in ways
        and row["image"] in (names or [row["image"]])
    ]
    ways_of = Counter((row["source"], row["image"]) for row in rows)
    rows = [row for row in rows if ways_of[row["source"], row["image"]] == len(ways)]
    if not rows:
        raise SystemExit(
            f"No image in {path} is finished in all of these ways; name them by --ways."
        )
    rows.sort(key=lambda row: list(WAYS).index(row["way"]))
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for title, sources in {**GROUPS, "all": SOURCES}.items():
        mine = [row for row in rows if row["source"] in sources]
        if not mine:
            continue
        results = [
            (str(row["way"]), Finished(**{name: row[name] for name in Finished._fields}))
            for row in mine
        ]
        images = len({(row["source"], row["image"]) for row in mine})
        print(f"\n{title}: {images} images\n\n{table(results)}")


if __name__ == "__main__":
    main()
