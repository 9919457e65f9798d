"""What learning from a few objects brings on other objects of images that the model never saw.

``python research/scripts/learn.py run --output learn --development development`` learns from five
objects of each image, then from ten and twenty, drawn by a seed. Of each run it keeps the IoUs of
the objects left out, before learning and by each choice of strength and size, and those of up to
twelve *other* objects by the model that learned from all. It trains whatever the rule says, so that
the rule can be changed without running again. Each run is a line of ``learn.jsonl``; runs that are
there are not repeated, so that it resumes.

With ``csv`` in place of ``run`` it writes them to ``docs/reports/data/learn.csv``; with ``table``
it applies the rule to those and prints the report's tables.

The images were chosen before any result was seen. Those of the sources held out from all training
(``held_out.txt`` in the folder ``real`` of NAPARI_SIMMAT_DATA, by default ``../shared/data``): the
first four by name with at least eight objects of 30 pixels. Those of
``development_set.py`` with as many, one of each stack. Of many channels: drawn ones (seed 100),
some channels of which are dead or hold noise.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, product
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
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane, annotate
from napari_simmat.training.evidence import (
    AdaptationChoice,
    Evidence,
    LeftOutScores,
    Verdict,
    nothing_to_gain,
)
from napari_simmat.training.few_shot import MORE_CLICKS, FewShotRun
from napari_simmat.training.labeled_planes import as_rgb
from simmat_research.sensors import draw_sensor_sample

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
KEPT = Path(__file__).parents[2] / "docs/reports/data/learn.csv"
DRAWS = ((5, 0), (10, 0), (20, 0))
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
    """Run, keep what was found, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "csv", "table"))
    parser.add_argument("--output", type=Path, help="folder of learn.jsonl", default=Path("learn"))
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--base", default="tiny")
    options = parser.parse_args()
    path = options.output / "learn.jsonl"
    if options.what == "table":
        print_tables(read_runs(KEPT))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if options.what == "csv":
        write_runs(rows, KEPT)
    else:
        run(options.base, options.development, path, rows)


def run(base_name: str, development: Path, path: Path, rows: list[dict[str, Any]]) -> None:
    """Add a line for each run that has none."""
    base = load_model(base_name)
    done = {(row["source"], row["image"], row["objects"], row["seed"]) for row in rows}
    images = [*held_out_images(), *(("development", name) for name in DEVELOPMENT)]
    images += [("drawn", name) for name in DRAWN]
    # Of each source the first image, then the second ones: what is done when it stops is mixed.
    sources = [source for source, _ in images]
    turn = {each: sources[:number].count(each[0]) for number, each in enumerate(images)}
    images.sort(key=lambda each: turn[each])
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


def opened(model: Model, image: LabeledImage) -> Predictor:
    """A predictor that holds an image; of many channels the first three."""
    predictor = Predictor(model, "cpu")
    job = predictor.open_image_job(
        image.arrays,
        channel_axis=image.channel_axis,
        channel_names=image.channel_names,
        channels=None if image.available <= 3 else [0, 1, 2],
    )
    finish(job)
    return predictor


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
    learning = FewShotRun(base, [plane], FewShotConfig(seed=seed), None, "cpu", "learned")
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


@dataclass(frozen=True)
class Run:
    """What one run found.

    Parameters
    ----------
    source, image, objects, seed
        Which it is.
    seconds
        Of one core, for everything: the scores before, the folds, and the last training.
    evidence
        Of the objects left out.
    others
        IoU (C, N, 3) of the other objects before learning and by each choice: of the middle click,
        the mean of three clicks, and of the box.
    """

    source: str
    image: str
    objects: int
    seed: int
    seconds: float
    evidence: Evidence
    others: NDArray[np.float64]

    @cached_property
    def verdict(self) -> Verdict:
        """Of the rule."""
        return self.evidence.verdict()

    @cached_property
    def is_offered(self) -> bool:
        """Whether the rule offers what was learned."""
        before = LeftOutScores.of(list(self.evidence.before.values()))
        new = len(self.evidence.before)
        nothing_left = nothing_to_gain("", before, new)
        return not (nothing_left or self.verdict.refusal(self.objects))

    @property
    def gains(self) -> NDArray[np.float64]:
        """Points (3,) that the other objects gain by the rule's choice."""
        number = 1 + self.evidence.choices.index(self.verdict.choice)
        points: NDArray[np.float64] = 100 * (self.others[number] - self.others[0]).mean(0)
        return points


RUN_COLUMNS = ("source", "image", "objects", "seed", "seconds")
KINDS = ("middle", "clicks", "box")
"""The middle click, the mean of three clicks, and the box; the first only of other objects."""


def name_of(choice: AdaptationChoice | None) -> str:
    """Of a choice in the table's columns; None is before learning."""
    return "before" if choice is None else f"{choice.strength:g}{' sized' * choice.sized}"


def write_runs(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for each object, left out or other, with its IoUs in percent."""
    known = [None, *(AdaptationChoice(*each) for each in product((1.0, 0.5, 0.0), (False, True)))]
    scored = [f"{kind} {name_of(choice)}" for choice in known for kind in KINDS]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*RUN_COLUMNS, "fold", "object", *scored])
        writer.writeheader()
        for row in rows:
            writer.writerows(lines_of(row))


def lines_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a run."""
    same = {name: row[name] for name in ("source", "image", "objects", "seed")}
    same["seconds"] = round(row["CPU seconds"])
    choices = [AdaptationChoice(*each) for each in row["choices"]]
    for fold, (numbers, found) in enumerate(zip(row["folds"], row["after"], strict=True)):
        for place, number in enumerate(numbers):
            reached = [row["before"][str(number)], *(each[place] for each in found)]
            cells = {
                f"{kind} {name_of(choice)}": f"{100 * value:.1f}"
                for choice, values in zip([None, *choices], reached, strict=True)
                for kind, value in zip(KINDS[1:], values, strict=True)
            }
            yield {**same, "fold": fold, "object": number, **cells}
    others = np.array(list(row["others"].values()))
    for number in range(others.shape[1]):
        cells = {}
        for choice, ious in zip([None, *choices], others[:, number], strict=True):
            values = (ious[0], ious[:3].mean(), ious[3])
            cells |= {
                f"{kind} {name_of(choice)}": f"{100 * value:.1f}"
                for kind, value in zip(KINDS, values, strict=True)
            }
        yield {**same, "fold": "other", "object": number, **cells}


def read_runs(path: Path) -> list[Run]:
    """What `write_runs` wrote."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    known = [AdaptationChoice(*each) for each in product((1.0, 0.5, 0.0), (False, True))]
    runs = []
    for _, of_run in groupby(lines, lambda line: [line[name] for name in RUN_COLUMNS]):
        some = list(of_run)
        first = some[0]
        choices = [choice for choice in known if first[f"box {name_of(choice)}"]]
        left_out = [line for line in some if line["fold"] != "other"]
        folds = [list(each) for _, each in groupby(left_out, lambda line: line["fold"])]
        after = [
            [[ious_of(line, choice)[1:] for line in fold] for choice in choices] for fold in folds
        ]
        evidence = Evidence(
            choices,
            [[int(line["object"]) for line in fold] for fold in folds],
            {int(line["object"]): ious_of(line, None)[1:] for line in left_out},
            after,
        )
        others = [line for line in some if line["fold"] == "other"]
        scores = [[ious_of(line, choice) for line in others] for choice in (None, *choices)]
        runs.append(
            Run(
                first["source"],
                first["image"],
                int(first["objects"]),
                int(first["seed"]),
                float(first["seconds"]),
                evidence,
                np.array(scores),
            )
        )
    return runs


def ious_of(line: dict[str, str], choice: AdaptationChoice | None) -> list[float]:
    """IoUs 0..1 of `KINDS`; NaN where there is none."""
    cells = (line[f"{kind} {name_of(choice)}"] for kind in KINDS)
    return [float(cell) / 100 if cell else float("nan") for cell in cells]


def print_tables(runs: Sequence[Run]) -> None:
    """For each number of objects a row for each source, what holds for all, and what is offered."""
    for count in sorted({run.objects for run in runs}):
        some = [run for run in runs if run.objects == count]
        print(f"\n{count} objects\n")
        print("| source | images | click, before | box, before | offered | click | box | CPU s |")
        print("| --- |" + " ---: |" * 7)
        for source in dict.fromkeys(run.source for run in runs):
            if of_source := [run for run in some if run.source == source]:
                print_row(source, of_source)
        real = [run for run in some if run.source != "drawn"]
        print_row("**all real images**", real)
        gains = [run.gains * run.is_offered for run in real]
        print(f"\nover all {len(real)} runs: {summary(gains)}")
        print(f"where offered: {summary([run.gains for run in real if run.is_offered])}")
        print(f"if all were taken: {summary([run.gains for run in real])}")
    print("\n| image | objects | click | box | told | on others | chance |")
    print("| --- |" + " ---: |" * 6)
    for run in runs:
        if run.is_offered:
            print_offered(run)


def print_row(name: str, runs: Sequence[Run]) -> None:
    """Means over runs; the gains are those of what is offered."""
    before = 100 * np.mean([run.others[0].mean(0) for run in runs], axis=0)
    offered = [run.gains for run in runs if run.is_offered]
    gains = [f"{each:+.1f}" for each in np.mean(offered, axis=0)[[0, 2]]] if offered else ["", ""]
    cells = [
        f"{len({(run.source, run.image) for run in runs})}",
        f"{before[0]:.1f}",
        f"{before[2]:.1f}",
        f"{len(offered)} of {len(runs)}",
        *gains,
        f"{np.mean([run.seconds for run in runs]):.0f}",
    ]
    print(f"| {name} | {' | '.join(cells)} |")


def print_offered(run: Run) -> None:
    """What was told of a run, and what its model reaches on other objects."""
    before = 100 * run.others[0].mean(0)
    after = before + run.gains
    cells = [
        f"{run.objects}",
        f"{before[0]:.1f} → {after[0]:.1f}",
        f"{before[2]:.1f} → {after[2]:.1f}",
        f"{run.verdict.gain:+.1f}",
        f"{run.gains[1:].mean():+.1f}",
        f"{100 * run.verdict.chance:.1f} %",
    ]
    print(f"| {run.source}, {run.image} | {' | '.join(cells)} |")


def summary(gains: Sequence[NDArray[np.float64]]) -> str:
    """Mean, median and losses of gains (3,) in points."""
    if not gains:
        return "nothing"
    parts = []
    for words, each in (("a click", np.array(gains)[:, 0]), ("a box", np.array(gains)[:, 2])):
        parts.append(
            f"{words} mean {each.mean():+.1f}, median {np.median(each):+z.1f}, least "
            f"{each.min():+.1f}, {np.sum(each < -0.5)} lose more than half a point"
        )
    return "; ".join(parts)


if __name__ == "__main__":
    main()
