"""How often objects get the right class, by a few of each class that are known.

``python research/scripts/naming.py drawn`` draws scenes of two kinds of objects that differ in one
respect, and overlap in it. ``python research/scripts/naming.py coco FOLDER`` takes images with
classes by people: a folder with ``_annotations.coco.json``, such as ``Dataset/valid`` of
https://github.com/WesselJonge/DLforSegregation (coke, pellets and sinter, CC BY 4.0).

Of each image, 2, 3, 5 and 10 objects of each class are drawn by a seed, five times, and the others
are named by them. A class needs five more objects, or it is left out. Each line is a mean over all
draws: what the most frequent class alone would give, how many are right of all, how many names are
given (the others are doubtful), how many of these are right, and what is said of the known objects
that were left out one by one. ``--model NAME`` adds what a model sees.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.draw import ellipse, polygon

from napari_simmat import Predictor, load_model
from napari_simmat.engine import naming
from napari_simmat.engine.measuring.object_properties import ObjectFeatures, measure_features_job
from napari_simmat.engine.naming import name_by_features_job
from napari_simmat.progress import Job, finish

KNOWN = 2, 3, 5, 10
DRAWS, MORE, MIN_AREA = 5, 5, 30
SCENES, SIDE = 10, 420
KINDS = "size", "shape", "brightness", "texture"


class Sample(NamedTuple):
    """An image (C, Y, X), its objects (Y, X), and the class of each."""

    channels: NDArray[np.float64]
    labels: NDArray[np.int32]
    classes: dict[int, str]


def drawn(kind: str) -> Iterator[Sample]:
    """Scenes of some 120 objects, one in three of another kind."""
    for seed in range(SCENES):
        rng = np.random.default_rng(seed)
        image = np.zeros((SIDE, SIDE))
        labels, classes = np.zeros((SIDE, SIDE), np.int32), {}
        for number, at in enumerate(np.ndindex(11, 11), start=1):
            other = rng.random() < 1 / 3
            differs = {each: other and each == kind for each in KINDS}
            radius = rng.normal(9 if differs["size"] else 12, 1.5)
            ratio = rng.normal(1.6 if differs["shape"] else 1.2, 0.15)
            bright = rng.normal(0.75 if differs["brightness"] else 1.0, 0.12)
            grain = rng.normal(0.16 if differs["texture"] else 0.08, 0.03)
            center = 20 + 38 * np.array(at) + rng.uniform(-3, 3, 2)
            radii = max(radius, 4) * ratio**0.5, max(radius, 4) / ratio**0.5
            row, column = center.tolist()
            turned = rng.uniform(0, np.pi)
            inside = ellipse(row, column, *radii, shape=(SIDE, SIDE), rotation=turned)
            labels[inside], classes[number] = number, "other" if other else "usual"
            image[inside] = bright + rng.normal(0, abs(grain), len(inside[0]))
        image = gaussian_filter(image, 0.8) + rng.normal(0, 0.03, image.shape)
        yield Sample(image[None], labels, classes)


def annotated(folder: Path) -> Iterator[Sample]:
    """The images of a folder; of objects that overlap, the smaller one is on top."""
    known = json.loads((folder / "_annotations.coco.json").read_text("utf-8"))
    names = {each["id"]: each["name"] for each in known["categories"]}
    for each in known["images"]:
        colors = Image.open(folder / each["file_name"]).convert("RGB")
        channels = np.asarray(colors, np.float64).transpose(2, 0, 1)
        labels, classes = np.zeros(channels.shape[1:], np.int32), {}
        objects = [one for one in known["annotations"] if one["image_id"] == each["id"]]
        for number, one in enumerate(sorted(objects, key=lambda one: -one["area"]), start=1):
            for outline in one["segmentation"]:
                labels[polygon(outline[1::2], outline[0::2], labels.shape)] = number
            classes[number] = names[one["category_id"]]
        small = np.flatnonzero(np.bincount(labels.ravel()) < MIN_AREA)
        labels[np.isin(labels, small)] = 0
        left = set(np.unique(labels).tolist()) - {0}
        if left:
            yield Sample(channels, labels, {n: name for n, name in classes.items() if n in left})


def measure(sample: Sample, predictor: Predictor | None) -> ObjectFeatures:
    """The features of all objects of an image."""
    if predictor is not None:
        predictor.set_image(
            sample.channels.squeeze(), channel_axis=0 if len(sample.channels) > 1 else None
        )

    def encode_job(at: tuple[int, ...]) -> Job[NDArray[np.float32]]:
        assert predictor is not None
        yield from predictor.set_plane_job(at)
        return predictor.embedding

    channels = sample.channels
    job = measure_features_job(
        sample.labels, lambda _: channels, len(channels), encode_job if predictor else None
    )
    return finish(job)


def score(measured: list[tuple[ObjectFeatures, dict[int, str]]], count: int) -> list[float]:
    """The columns of the table for so many known objects of each class."""
    rows = []
    for features, classes in measured:
        counts = Counter(classes.values())
        kinds = sorted(kind for kind in counts if counts[kind] >= count + MORE)
        if len(kinds) < 2:
            continue
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            known = {
                int(label): kind
                for kind in kinds
                for label in rng.permutation([n for n in classes if classes[n] == kind])[:count]
            }
            named = finish(name_by_features_job(features, known))
            others = [n for n in named.names if classes[n] in kinds]
            right = {n: named.names[n] == classes[n] for n in others}
            given = [right[n] for n in others if n in named.sure]
            most = Counter(classes[n] for n in others).most_common(1)[0][1]
            rows.append(
                (
                    most / len(others),
                    np.mean(list(right.values())),
                    len(given) / len(others),
                    np.mean(given) if given else np.nan,
                    named.right / named.tested,
                )
            )
    return [len(rows), *(100 * np.nanmean(np.array(rows, float), axis=0))] if rows else []


def main() -> None:
    """Print a table for each source."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", choices=("drawn", "coco"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model")
    options = parser.parse_args()
    naming.MIN_EACH = KNOWN[0]  # fewer than the program takes, to see why
    predictor = Predictor(load_model(options.model), "cpu") if options.model else None
    sources = {kind: drawn(kind) for kind in KINDS}
    if options.source == "coco":
        sources = {options.folder.name: annotated(options.folder)}
    print(
        "| source | of each | draws | most frequent | right | given | right of these | left out |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for source, samples in sources.items():
        measured = [(measure(each, predictor), each.classes) for each in samples]
        for count in KNOWN:
            if columns := score(measured, count):
                cells = " | ".join(f"{each:.0f}" for each in columns)
                print(f"| {source} | {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
