"""What learning from a few objects brings on the other objects of images that no model saw.

``python scripts/few.py run --output few --development development`` learns from 5, 10, 3, 20
objects of each image, drawn by a seed, and scores a click and a box on up to twelve of its other
objects, before and after. Each row is added to ``few.jsonl``; rows that are there are not repeated,
so that it resumes. ``table --output few`` writes ``few.csv`` and prints a table. ``compare`` trains
zero-shot, from scratch, baselines A and B and SimMAT, as ``simmat train --practical``, on the same
objects.

The images are those of ``scripts/development_set.py``, of the folder named by NAPARI_SIMMAT_DATA
(``../shared/data`` by default) and drawn ones of many channels, some of them dead.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat import Predictor, load_model
from napari_simmat.datasets.dataset import label_areas
from napari_simmat.datasets.labelled_image import ImageContent
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.io.readers import read_image
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.scenes.sensors import draw_sensor_sample
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane, annotate
from napari_simmat.training.batches import as_rgb
from napari_simmat.training.few_shot import learn_objects_job

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
COUNTS = (5, 10, 3, 20)
SCORED = 12
"""Other objects scored of each image."""
MIN_AREA = 30
REAL = {
    "carbides, SEM": "spheroidite_sem/train_800C-8H-Q-4_sizeRC_484_645",
    "powder, SEM": "powder_sem/Sc1Tile_001-001-000_0-000",
    "axons, SEM": "axon_sem/sub-rat4_sample-data12_SEM_0",
    "stained nuclei": "dsb2018/2246874c8b5ba218",
    "precipitates, SEM": "nasa_materials/EBC1_test_040617#2_S127(2)0015",
}
DEVELOPMENT = {
    "bacteria, phase contrast": "phase2d_bacteria",
    "nuclei, fluorescence": "fluo2d_hela",
    "coins": "coins",
    "galaxies": "hubble_deep_field",
}
DRAWN = {"48 bands, 4 dead (a)": 4, "48 bands, 4 dead (b)": 5}
COLUMNS = (
    "image", "objects", "seed", "click before", "click after", "box before", "box after",
    "offered", "gain left out", "noise", "CPU seconds", "seconds", "others",
)  # fmt: skip


def main() -> None:
    """Run, compare, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "compare", "table"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--images", nargs="*", help="names of some of them")
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of the trainings compared")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{'compared' if options.what == 'compare' else 'few'}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if options.what == "table":
        write_table(rows, options.output / "few.csv")
        return
    base = load_model(options.base)
    names = options.images or [*REAL, *DEVELOPMENT, *DRAWN]
    make = compared_rows if options.what == "compare" else learned_rows
    for seed, count, name in product(range(options.seeds), options.counts, names):
        done = [r for r in rows if (r["image"], r["objects"], r["seed"]) == (name, count, seed)]
        content = read(name, options.development)
        for row in make(base, content, name, count, seed, done, options.steps):
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def read(name: str, development: Path) -> ImageContent:
    """Image and labels."""
    if name in DRAWN:
        image, labels, _ = draw_sensor_sample("hyperspectral", DRAWN[name], 256)
        image[[7, 20, 33, 47]] = np.array([0, 5, np.nan, 1])[:, None, None]
        return ImageContent(list(image), labels.astype(np.int32))
    if name in DEVELOPMENT:
        stem = development / DEVELOPMENT[name]
        paths = stem.with_suffix(".tif"), Path(f"{stem}_labels.tif")
    else:
        folder, stem_name = (DATA / "real" / REAL[name]).parent, Path(REAL[name]).name
        paths = folder / f"{stem_name}.png", folder / f"{stem_name}_labels.png"
    file = read_image(paths[0])
    ids = np.asarray(read_image(paths[1]).data).squeeze().astype(np.int32)
    names = ("red", "green", "blue", "alpha") if file.rgb else None
    axis = file.channel_axis
    count = 1 if axis is None else file.data.shape[axis]
    return ImageContent(np.asarray(file.data), ids, axis, names and names[:count])


def divided(labels: NDArray[Any], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Objects to learn from, and others to score; the others are the same for every count."""
    ids = [label for label, area in label_areas(labels).items() if area >= MIN_AREA]
    drawn = np.random.default_rng(seed).permutation(ids)
    others = min(SCORED, len(ids) - min(count, max(COUNTS)), len(ids) // 2)
    return drawn[others : others + count].tolist(), sorted(drawn[:others].tolist())


def with_objects(content: ImageContent, labels: Sequence[int]) -> ImageContent:
    """The image with some of its labels."""
    return replace(content, labels=np.where(np.isin(content.labels, labels), content.labels, 0))


def learned_rows(
    base: Model,
    content: ImageContent,
    name: str,
    count: int,
    seed: int,
    done: list[Any],
    steps: int,
) -> Iterator[dict[str, Any]]:
    """The row of one image, number of objects and seed, unless it is there."""
    del steps
    chosen, others = divided(content.labels, count, seed)
    if done or len(chosen) < count or len(others) < 3:
        return
    planes = annotate(with_objects(content, chosen), base.spec, name=name)
    result = finish(learn_objects_job(base, planes, FewShotConfig(seed=seed), device="cpu"))
    before = score(base, planes[0], content.labels, others)
    after = (
        before if result.model is None else score(result.model, planes[0], content.labels, others)
    )
    yield {
        "image": name,
        "objects": count,
        "seed": seed,
        "click before": before[0],
        "click after": after[0],
        "box before": before[1],
        "box after": after[1],
        "offered": result.model is not None,
        "gain left out": round(result.gain, 1),
        "noise": round(result.noise, 1),
        "CPU seconds": round(result.cpu_seconds),
        "seconds": round(result.seconds),
        "others": len(others),
    }


def score(
    model: Model, plane: AnnotatedPlane, labels: NDArray[Any], objects: Sequence[int]
) -> tuple[float, float]:
    """Mean IoU in percent of a click and a box."""
    given = replace(model.spec, normalization=Normalization(method="none"))
    predictor = Predictor(Model(given, model.network, "scored"), "cpu", cache=EmbeddingCache(0))
    values = plane.values
    if len(values) != len(model.spec.channels):
        values = values[as_rgb(len(values))]
    predictor.set_image(values, 0)
    scores = finish(UserProtocol(clicks=1).score_job(predictor, labels, objects))
    click, box = (
        float(np.mean([each.answers[kind].iou for each in scores])) for kind in ("click", "box")
    )
    return round(100 * click, 1), round(100 * box, 1)


def compared_rows(
    base: Model,
    content: ImageContent,
    name: str,
    count: int,
    seed: int,
    done: list[Any],
    steps: int,
) -> Iterator[dict[str, Any]]:
    """The paper's ways, each trained on the same objects by ``simmat train --practical``.

    Half of the image that holds the objects trains; validation, on the same half, only reports.
    """
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.split import LabelledArray, from_arrays
    from napari_simmat.training.config import practical_config
    from napari_simmat.training.devices import Devices
    from napari_simmat.training.finetune import train_job

    chosen, others = divided(content.labels, count, seed)
    if len(chosen) < count or len(others) < 3:
        return
    [plane] = annotate(with_objects(content, chosen), base.spec, name=name)
    kept = [row["way"] for row in done]
    ways: dict[str, dict[str, Any]] = {
        "zero-shot": {},
        "scratch": {"strategy": "scratch"},
        "baseline A": {"transfer": "baseline_a"},
        "baseline B": {"transfer": "baseline_b"},
        "SimMAT": {},
    }
    for way, settings in ways.items():
        if way in kept:
            continue
        began, model = time.process_time(), base
        if way != "zero-shot":
            image = LabelledArray(name, plane.values, plane.labels, channel_axis=0)
            raw = DataConfig(normalization=Normalization(method="none"))
            dataset = from_arrays([image], raw, name=name, validation=[image])
            said = {"steps": steps, "seed": seed, "validate_every": 51, **settings}
            config = practical_config(base.spec, **said)
            with tempfile.TemporaryDirectory() as folder:
                job = train_job(base, dataset, config, way, Path(folder), Devices(device="cpu"))
                trained = finish(job)
            model = Model(trained.spec, trained.student.network, way)
        seconds = time.process_time() - began
        click, box = score(model, plane, content.labels, others)
        row = {"image": name, "objects": count, "seed": seed, "way": way, "steps": steps}
        yield {**row, "click": click, "box": box, "CPU seconds": round(seconds)}


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write all rows as CSV, and print the means over the seeds."""
    order = [*REAL, *DEVELOPMENT, *DRAWN]
    rows.sort(key=lambda row: (order.index(row["image"]), row["objects"], row["seed"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print("| image | objects | click before | after | box before | after | offered | CPU s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, count in dict.fromkeys((row["image"], row["objects"]) for row in rows):
        some = [r for r in rows if (r["image"], r["objects"]) == (name, count)]
        mean = {c: np.mean([row[c] for row in some]) for c in (*COLUMNS[3:7], "CPU seconds")}
        offered = f"{sum(row['offered'] for row in some)} of {len(some)}"
        figures = " | ".join(f"{mean[column]:.1f}" for column in COLUMNS[3:7])
        print(f"| {name} | {count} | {figures} | {offered} | {mean['CPU seconds']:.0f} |")


if __name__ == "__main__":
    main()
