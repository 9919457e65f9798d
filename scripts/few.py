"""What learning from a few objects brings on the other objects of images that no model saw.

``python scripts/few.py run --output few --development development`` learns from 5, 10, 3, 20
objects of each image, drawn by a seed, and scores a click and a box on up to twelve of its other
objects, before and after. Each row is added to ``few.jsonl``; rows that are there are not repeated,
so that it resumes. ``table --output few`` writes ``few.csv`` and prints a table for each base.
``compare`` trains zero-shot, from scratch, baselines A and B and SimMAT, as ``simmat train
--practical``, on the same objects.

The images were chosen before any result was seen. Real ones, in the folder named by
NAPARI_SIMMAT_DATA (``../shared/data`` by default): of each source, the first by name that has at
least 32 objects of 30 pixels, else the one with most objects; of ``dsb2018``, whose looks differ in
size, the first of each size. Those of ``scripts/development_set.py`` with at least eight objects,
one of each stack. Of many channels: drawn ones (the first seed from 100 on with 32 objects), some
channels of which are dead or hold noise, and a tray of copies of the hyperspectral kernel.
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
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat import Predictor, load_model
from napari_simmat.datasets.dataset import label_areas
from napari_simmat.datasets.labeled_image import ImageContent
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.evaluation.prompting import UserProtocol
from napari_simmat.io.readers import read_image
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.research.sensors import draw_sensor_sample
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane, annotate
from napari_simmat.training.batches import as_rgb
from napari_simmat.training.few_shot import learn_objects_job

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
COUNTS = (5, 10, 3, 20)
SCORED = 12
"""Other objects scored of each image."""
MIN_AREA = 30
LEAST_OTHERS = 3
REAL = {
    "axons, SEM": "axon_sem/sub-rat1_sample-data1_SEM_0",
    "carbides in steel, SEM": "spheroidite_sem/train_800C-24H-Q-2_sizeRC_484_645",
    "metal powder, SEM": "powder_sem/Sc1Tile_001-001-000_0-000",
    "precipitates, SEM": "nasa_materials/Super1_test_spot2_0d_0",
    "stained tissue": "dsb2018/00ae65c1c6631ae6",
    "stained smear": "dsb2018/08275a5b1c2dfcd7",
    "nuclei, fluorescence (a)": "dsb2018/003cee89357d9fe1",
    "nuclei, fluorescence (b)": "dsb2018/28d33efef218392e",
    "nuclei, fluorescence (c)": "dsb2018/0402a81e75262469",
    "nuclei, fluorescence (d)": "dsb2018/07fb37aafa662660",
    "nuclei, fluorescence (e)": "dsb2018/5d21acedb3015c12",
    "embryo, fluorescence": "dsb2018/20b20ab049372d18",
    "solar cell, luminescence": "pv_el_cells/FSEC_3GC42_28",
    "leaf with spots": "coffee_leaf/1403",
    "road": "road_cracks_potholes/917400_RS_290_290RS294095_20451",
    "melt pools": "nasa_meltpools/Slice-2Bottom_3840_0_4352_512",
    "MRI lesions": "mri_ms_lesions/patient19_FLAIR_z101",
}
DEVELOPMENT = {
    "nuclei, dim": "fluo2d_lowcontrast_nuclei",
    "galaxies": "hubble_deep_field",
    "nuclei, 3D": "fluo3d_cho_z0",
    "motorcycle": "stereo_motorcycle",
    "phantom": "shepp_logan_phantom",
    "bacteria, phase contrast": "phase2d_bacteria",
    "nuclei, HeLa": "fluo2d_hela",
    "coins": "coins",
}
DRAWN = {
    "48 bands, 4 dead, 8 noise": ("hyperspectral", 100, (7, 20, 33, 47), range(0, 48, 6)),
    "6 bands, 1 dead, 1 noise": ("multispectral", 100, (0,), (3,)),
    "48 bands, 4 dead": ("hyperspectral", 5, (7, 20, 33, 47), ()),
}
"""Sensor, seed, and the dead and the noisy channels."""
TRAY = "kernels, 58 bands"
TUNED = ("bacteria, phase contrast", "nuclei, HeLa", "coins", "48 bands, 4 dead")
"""Images on which the settings of learning were chosen; the others are fresh."""
MANY_CHANNELS = (*DRAWN, TRAY)
IMAGES = (*REAL, *DEVELOPMENT, *MANY_CHANNELS)
COLUMNS = (
    "base", "image", "objects", "seed", "click before", "click after", "box before", "box after",
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
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100, help="of the trainings compared")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{'compared' if options.what == 'compare' else 'few'}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if options.what == "table":
        write_table(rows, options.output / "few.csv")
        return
    base = load_model(options.base)
    rows = [row for row in rows if row["base"] == base.spec.name]
    names = options.images or list(MANY_CHANNELS if options.what == "compare" else IMAGES)
    for count, seed, name in product(options.counts, options.seeds, names):
        same = [r for r in rows if (r["image"], r["seed"]) == (name, seed)]
        done = [r for r in same if r["objects"] == count]
        if options.what == "run" and done:
            continue
        content = read(name, options.development)
        chosen, others = divided(content.labels, count, seed)
        if len(chosen) < count or len(others) < LEAST_OTHERS:
            continue
        [plane] = annotate(with_objects(content, chosen), base.spec, name=name)
        if options.what == "run":
            made = learned_rows(base, plane, content.labels, others, seed, same)
        else:
            made = compared_rows(base, plane, content.labels, others, seed, done, options.steps)
        for found in made:
            row = {"base": base.spec.name, "image": name, "objects": count, "seed": seed, **found}
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def read(name: str, development: Path) -> ImageContent:
    """Image and labels."""
    if name == TRAY:
        return kernel_tray()
    if name in DRAWN:
        sensor, seed, dead, noisy = DRAWN[name]
        image, labels, _ = draw_sensor_sample(sensor, seed, 256)
        rng = np.random.default_rng(seed)
        for band in noisy:
            image[band] = rng.normal(image[band].mean(), image[band].std(), image[band].shape)
        for band, value in zip(dead, (0, 5, np.nan, 1), strict=False):
            image[band] = value
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


def kernel_tray() -> ImageContent:
    """Turned and shaded copies of the one kernel of ``hyperspectral_corn``, every tenth band.

    Each copy has noise of its own, as strong as on the ground. A kernel ends where the mean of its
    bands falls to half its highest value.
    """
    bands = np.asarray(read_image(DATA / "hyperspectral_corn.tif").data)[::10].astype(np.float32)
    rng = np.random.default_rng(0)
    scaled = (bands / bands.max((1, 2), keepdims=True)).mean(0)
    kernel = (scaled > (scaled.min() + scaled.max()) / 2).astype(np.int32)
    ground = bands[:, :3, :3].mean((1, 2), keepdims=True)
    noise = bands[:, :3, :3].std((1, 2), keepdims=True)
    side, shape = 48, (4, 5)
    image = np.zeros((len(bands), side * shape[0], side * shape[1]), np.float32) + ground
    image += noise * rng.standard_normal(image.shape)
    labels = np.zeros(image.shape[1:], np.int32)
    for number, (row, column) in enumerate(np.ndindex(*shape), start=1):
        turns, shade = int(rng.integers(4)), rng.uniform(0.6, 1)
        copy = np.rot90(shade * (bands - ground), turns, (1, 2))
        top, left = (
            start * side + int(rng.integers(side - length + 1))
            for start, length in zip((row, column), copy.shape[1:], strict=True)
        )
        at = slice(top, top + copy.shape[1]), slice(left, left + copy.shape[2])
        image[:, *at] += copy
        labels[at] = number * np.rot90(kernel, turns)
    return ImageContent(list(image), labels)


def divided(labels: NDArray[Any], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Objects to learn from, and others: the same for every count that leaves so many."""
    ids = [label for label, area in label_areas(labels).items() if area >= MIN_AREA]
    drawn = np.random.default_rng(seed).permutation(ids)
    others = min(SCORED, len(ids) - count, len(ids) // 2)
    return drawn[others : others + count].tolist(), sorted(drawn[:others].tolist())


def with_objects(content: ImageContent, labels: Sequence[int]) -> ImageContent:
    """The image with some of its labels."""
    return replace(content, labels=np.where(np.isin(content.labels, labels), content.labels, 0))


def learned_rows(
    base: Model,
    plane: AnnotatedPlane,
    labels: NDArray[Any],
    others: Sequence[int],
    seed: int,
    same: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """What learning from the plane's objects brings on others.

    `same` are rows of the image and seed, which may know the scores before.
    """
    result = finish(learn_objects_job(base, [plane], FewShotConfig(seed=seed), device="cpu"))
    known = [(r["click before"], r["box before"]) for r in same if r["others"] == len(others)]
    before = known[0] if known else score(base, plane, labels, others)
    after = before if result.model is None else score(result.model, plane, labels, others)
    yield {
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
    click, box = (float(np.mean([each.iou[kind] for each in scores])) for kind in ("click", "box"))
    return round(100 * click, 1), round(100 * box, 1)


def compared_rows(
    base: Model,
    plane: AnnotatedPlane,
    labels: NDArray[Any],
    others: Sequence[int],
    seed: int,
    done: Sequence[dict[str, Any]],
    steps: int,
) -> Iterator[dict[str, Any]]:
    """The paper's ways, each trained on the same objects by ``simmat train --practical``.

    Validation, on the same image, only reports.
    """
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.split import LabeledArray, from_arrays
    from napari_simmat.training.config import practical_config
    from napari_simmat.training.finetune import train_job
    from napari_simmat.training.trainer import Devices

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
            image = LabeledArray(plane.name, plane.values, plane.labels, channel_axis=0)
            raw = DataConfig(normalization=Normalization(method="none"))
            again = replace(image, name="the same image")
            dataset = from_arrays([image], raw, name=plane.name, validation=[again])
            said = {"steps": steps, "seed": seed, "validate_every": 51, **settings}
            config = practical_config(base.spec, **said)
            with tempfile.TemporaryDirectory() as folder:
                job = train_job(base, dataset, config, way, Path(folder), Devices(device="cpu"))
                trained = finish(job)
            model = Model(trained.spec, trained.student.network, way)
        seconds = time.process_time() - began
        click, box = score(model, plane, labels, others)
        row = {"way": way, "steps": steps, "click": click, "box": box}
        yield {**row, "CPU seconds": round(seconds)}


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write all rows as CSV; print a table of the means over the seeds for each base.

    Gains are those on the same objects; where an image has few, other counts have other ones.
    """
    rows.sort(key=lambda r: (r["base"], IMAGES.index(r["image"]), r["objects"], r["seed"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    counts = sorted({row["objects"] for row in rows})
    head = ["image", *(f"{kind}, {n}" for kind in ("click", "box") for n in ("before", *counts))]
    head += ["offered", "CPU s"]
    for base, of_base in groupby(rows, lambda row: str(row["base"])):
        print(f"\n{base}\n\n| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
        below: list[float] = []
        for name, same in groupby(of_base, lambda row: str(row["image"])):
            some = list(same)
            cells = [name + (" *" if name in TUNED else "")]
            for kind in ("click", "box"):
                cells.append(f"{np.mean([row[f'{kind} before'] for row in some]):.1f}")
                for count in counts:
                    gains = gains_of(some, kind, count)
                    cells.append(f"{np.mean(gains):+.1f}" if gains else "")
            cells.append(f"{sum(row['offered'] for row in some)} of {len(some)}")
            cells.append(f"{np.mean([row['CPU seconds'] for row in some]):.0f}")
            print(f"| {' | '.join(cells)} |")
            five = gains_of(some, "click", 5)
            if float(cells[1]) < 80 and name not in TUNED and five:
                below.append(float(np.mean(five)))
        if below:
            print(
                f"\n{len(below)} fresh images below 80, click, five objects: mean "
                f"{np.mean(below):+.1f}, median {np.median(below):+.1f}, least {min(below):+.1f}"
            )


def gains_of(rows: Sequence[dict[str, Any]], kind: str, count: int) -> list[float]:
    """What that many objects gain, in points."""
    return [r[f"{kind} after"] - r[f"{kind} before"] for r in rows if r["objects"] == count]


if __name__ == "__main__":
    main()
