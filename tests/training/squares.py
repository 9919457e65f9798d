"""Small data sets of bright squares on noise, in arrays and in folders."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.datasets.split import from_arrays
from napari_simmat.engine.masks import interior_point, iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.training.config import TrainConfig

SIDE = 64
RAW = Normalization(method="none")


def picture(seed: int, channels: int = 2, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """An image (C, H, W) of uint8 and its labels (H, W): two squares that do not touch."""
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 90, (channels, side, side))
    labels = np.zeros((side, side), np.uint16)
    for number, (left, right) in enumerate(
        ((2, side // 2 - 2), (side // 2 + 2, side - 2)), start=1
    ):
        size = int(rng.integers(side // 5, side // 3))
        top = int(rng.integers(2, side - size - 2))
        start = int(rng.integers(left, right - size + 1))
        window = slice(top, top + size), slice(start, start + size)
        labels[window] = number
        image[:, *window] += rng.integers(40, 140, (channels, 1, 1))
    return image.astype(np.uint8), labels


def pictures(
    count: int = 6,
    channels: int = 2,
    side: int = SIDE,
    seed: int = 0,
    normalization: Normalization = RAW,
) -> Dataset:
    """Planes to train on and two to validate on."""
    arrays = [
        LabeledImage(f"image {n}", *picture(100 * seed + n, channels, side), channel_axis=0)
        for n in range(count + 2)
    ]
    config = DataConfig(normalization=normalization)
    return from_arrays(arrays[:count], config, name="squares", validation=arrays[count:])


def folder_of_pictures(folder: Path, count: int = 4, channels: int = 2) -> Path:
    """The same as files, without a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image, labels = picture(n, channels)
        axes = {"axes": "CYX"}
        tifffile.imwrite(folder / f"{n}.tif", image, photometric="minisblack", metadata=axes)
        tifffile.imwrite(folder / f"{n}_labels.tif", labels)
    return folder


FEW: dict[str, Any] = {
    "steps": 2, "epochs": 2, "validate_every": 2, "batch": 2, "learning_rate": 1e-3,
}  # fmt: skip
"""A training of two steps of two images, validated at its beginning and end."""


def short(**settings: Any) -> TrainConfig:
    """`FEW`, but for these settings."""
    return TrainConfig(**{**FEW, **settings})


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's table, without empty cells."""
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name and value}
            for row in csv.DictReader(file)
        ]


def by_hand(model: Model, dataset: Dataset, channels: list[int]) -> dict[str, float]:
    """A click in the middle and the bounding box of every object, as users get them, in percent."""
    given = replace(model.spec, normalization=Normalization(method="none"))
    predictor = Predictor(Model(given, model.network, "by hand"), "cpu")
    reached: dict[str, list[float]] = {"click": [], "box": []}
    for sample in dataset.validation:
        values, labels = sample.load()
        predictor.set_image(values[channels], channel_axis=0)
        for label in (1, 2):
            truth = labels == label
            y, x = np.nonzero(truth)
            box = (y.min(), x.min(), y.max() + 1, x.max() + 1)
            click = Prompt(points=[interior_point(truth, ties="median")])
            for kind, prompt in (("click", click), ("box", Prompt(box=box))):
                [result] = Refiner().refine(predictor, [prompt])
                reached[kind].append(iou(result.mask, truth))
    return {kind: round(100 * float(np.mean(values)), 2) for kind, values in reached.items()}
