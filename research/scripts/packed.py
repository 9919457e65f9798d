"""Packed rods, chains and grains that nobody trained on: what *Everything* finds of them.

``python research/scripts/packed.py --output packed.png`` draws four images of each by rules that no
training has (`simmat_research.object_scenes` has others): rods packed at random along a smooth
field of directions, in phase contrast; chains of round cells in pairs, fluorescent; grains of a
Laguerre tessellation, polished and etched. For each kind it prints what is found by the decoder, by
clicks with a second look, and the processor seconds, and draws the first image of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.draw import disk
from skimage.segmentation import find_boundaries

from napari_simmat import Predictor, load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou

SIDE = 512
IMAGES = 4
WAYS = {
    "by the decoder": AutomaticSettings(),
    "by clicks, second look": AutomaticSettings(by="clicks", second_look=True),
}
Scene = tuple[NDArray[np.uint8], NDArray[np.int32]]


def rods(rng: Generator) -> Scene:
    """Rods packed at random along a smooth field of directions: dark, with a halo around all."""
    width = rng.uniform(9, 15)
    length = width * rng.uniform(2.2, 4.5)
    y, x = np.indices((SIDE, SIDE))
    waves = rng.uniform(-1, 1, (3, 2)) * 2 * np.pi / SIDE
    phases = rng.uniform(0, 2 * np.pi, 3)
    field = sum(np.sin(a * y + b * x + c) for (a, b), c in zip(waves, phases, strict=True))
    radius = rng.uniform(0.25, 0.42) * SIDE
    labels = np.zeros((SIDE, SIDE), np.int32)
    depth = np.zeros((SIDE, SIDE))
    placed = 0
    for _ in range(6000):
        center = SIDE / 2 + radius * np.sqrt(rng.random()) * np.array(
            [np.sin(turn := rng.uniform(0, 2 * np.pi)), np.cos(turn)]
        )
        row, column = center.astype(int)
        angle = field[row, column] + rng.normal(0, 0.06)
        half = length * np.exp(rng.normal(0, 0.2)) / 2
        reach = int(half + width) + 2
        window = (
            slice(max(row - reach, 0), row + reach),
            slice(max(column - reach, 0), column + reach),
        )
        dy, dx = y[window] - center[0], x[window] - center[1]
        along = dy * np.sin(angle) + dx * np.cos(angle)
        across = dx * np.sin(angle) - dy * np.cos(angle)
        away = np.hypot(across, np.maximum(np.abs(along) - half + width / 2, 0)) / (width / 2)
        inside = away < 1
        if np.count_nonzero(labels[window][inside]) > 0.02 * np.count_nonzero(inside):
            continue
        placed += 1
        free = inside & (labels[window] == 0)
        labels[window][free] = placed
        depth[window][free] = (1 - away[free] ** 2) * rng.uniform(0.75, 1.1)
    outside = ndi.distance_transform_edt(labels == 0)
    image = 0.55 - 0.3 * depth + 0.22 * np.exp(-outside / (0.6 * width)) * (labels == 0)
    return _seen(image, rng, blur=1.2, noise=0.015), labels


def chains(rng: Generator) -> Scene:
    """Chains of round cells in pairs, which touch, bright on a dark ground."""
    radius = rng.uniform(6, 10)
    labels = np.zeros((SIDE, SIDE), np.int32)
    image = np.full((SIDE, SIDE), 0.08)
    count = 0
    for _ in range(rng.integers(8, 16)):
        spot, angle = rng.uniform(0.1, 0.9, 2) * SIDE, rng.uniform(0, 2 * np.pi)
        bend = rng.normal(0, 0.12)
        for cell in range(rng.integers(6, 26)):
            own = radius * np.exp(rng.normal(0, 0.08))
            rows, columns = disk(tuple(spot), own, shape=labels.shape)
            free = labels[rows, columns] == 0
            if np.count_nonzero(free) < 0.8 * np.pi * own**2:
                break
            count += 1
            labels[rows[free], columns[free]] = count
            away = np.hypot(rows - spot[0], columns - spot[1])[free] / own
            image[rows[free], columns[free]] = 0.2 + 0.5 * np.sqrt(1 - away**2) * rng.uniform(
                0.8, 1.2
            )
            angle += bend + rng.normal(0, 0.15)
            step = (1.75 if cell % 2 == 0 else 1.95) * radius
            spot = spot + step * np.array([np.sin(angle), np.cos(angle)])
    return _seen(image, rng, blur=1.5, noise=0.02), labels


def grains(rng: Generator) -> Scene:
    """A Laguerre tessellation: grains of many sizes without ground, their borders etched dark."""
    count = int(rng.integers(60, 140))
    seeds = rng.uniform(-0.05, 1.05, (count, 2)) * SIDE
    weights = rng.gamma(2, 0.15 * SIDE**2 / count, count)
    y, x = np.indices((SIDE, SIDE))
    power = (y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2 - weights
    grain = power.argmin(-1)
    border = find_boundaries(grain, mode="thick")
    tones = rng.normal(0.62, rng.uniform(0.01, 0.06), count)
    scratches = ndi.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), (0.5, 6)) * 0.05
    image = tones[grain] + scratches
    image[border] = 0.3 + 0.15 * rng.random(np.count_nonzero(border))
    labels = np.where(border, 0, grain + 1).astype(np.int32)
    return _seen(image, rng, blur=0.8, noise=0.02), labels


def _seen(
    image: NDArray[np.float64], rng: Generator, blur: float, noise: float
) -> NDArray[np.uint8]:
    """As a camera of 8 bits has it, under uneven light."""
    slope = np.linspace(rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1), SIDE)[:, None]
    seen = ndi.gaussian_filter(image, blur) * slope + rng.normal(0, noise, image.shape)
    values: NDArray[np.uint8] = (255 * np.clip(seen, 0, 1)).astype(np.uint8)
    return values


KINDS: dict[str, Callable[[Generator], Scene]] = {"rods": rods, "chains": chains, "grains": grains}


def main() -> None:
    """Print a row for each kind, and draw an image of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--output", type=Path, default=Path("packed.png"))
    options = parser.parse_args()
    model = load_model(options.model)
    mpl.use("agg")
    figure, axes = plt.subplots(1, len(KINDS), figsize=(12, 4.2), layout="constrained")
    print(
        "| kind | objects |", " | ".join(f"{way}: found at .75 / .5, wrong, CPU s" for way in WAYS)
    )
    for ax, (kind, draw) in zip(axes, KINDS.items(), strict=True):
        rows: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
        objects = 0
        for number in range(IMAGES):
            image, labels = draw(np.random.default_rng([7, list(KINDS).index(kind), number]))
            objects += len(np.unique(labels)) - 1
            for way, settings in WAYS.items():
                predictor = Predictor(model)
                predictor.set_image(image)
                began = time.process_time()
                found = segment_everything(predictor, settings).labels
                rows[way].append((*_judged(found, labels), time.process_time() - began))
                if number == 0 and way == "by the decoder":
                    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
                    edges = find_boundaries(found, mode="inner")
                    ax.imshow(np.ma.masked_equal(edges, 0), cmap="autumn", interpolation="none")
                    ax.set_title(kind)
                    ax.axis("off")
        cells = [_cell(np.mean(each, axis=0)) for each in rows.values()]
        print(f"| {kind} | {objects} |", " | ".join(cells), "|", flush=True)
    figure.savefig(options.output, dpi=110)


def _judged(found: NDArray[np.integer], truth: NDArray[np.int32]) -> tuple[float, float, float]:
    iou = pairwise_iou(found.astype(np.int32), truth)
    best, right = iou.max(0, initial=0), iou.max(1, initial=0)
    count = len(best)
    wrong = np.count_nonzero(right < 0.75) / count
    return float((best >= 0.75).mean()), float((best >= 0.5).mean()), wrong


def _cell(row: NDArray[np.float64]) -> str:
    return f"{row[0]:.2f} / {row[1]:.2f}, {row[2]:.2f}, {row[3]:.1f}"


if __name__ == "__main__":
    main()
