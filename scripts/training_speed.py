"""What ``simmat train --practical`` costs on a small image of many channels, and what it brings.

``python scripts/training_speed.py --before OLD_TREE`` trains with two working trees alternately, on
planes of 100 x 100 pixels, one to train on and one to validate; a click and a box are scored on the
objects of further planes. The planes are cut from drawn images of a sensor, or show kernels of corn
(``hyperspectral_corn.tif`` in the folder named by NAPARI_SIMMAT_DATA), turned, mirrored and dimmed,
each with two objects that differ by their spectrum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from napari_simmat import Predictor, load_model
from napari_simmat.cli.train import keep_freed_memory
from napari_simmat.datasets.dataset import DataConfig
from napari_simmat.datasets.split import LabeledArray, from_arrays
from napari_simmat.evaluation.prompting import UserProtocol
from napari_simmat.io.readers import read_image
from napari_simmat.progress import finish
from napari_simmat.research.sensors import draw_sensor_sample
from napari_simmat.training.config import practical_config
from napari_simmat.training.finetune import train_checkpoint_job
from napari_simmat.training.trainer import Devices

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
SIDE, BANDS, MIN_AREA, CORN = 100, 48, 40, "corn"
DRAWN = {"hyperspectral": 4, "multispectral": 3, "polarization": 10}
"""Sensor -> seed of its scene."""
Plane = tuple[NDArray[np.float32], NDArray[np.int32]]


def main() -> None:
    """Train alternately and print a table, or train once in this process (`--once`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another working tree")
    parser.add_argument("--sets", nargs="*", default=[CORN, *DRAWN])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--once", nargs=2, metavar=("SET", "SEED"))
    options = parser.parse_args()
    if options.once:
        print(json.dumps(trained(options.once[0], int(options.once[1]), options.steps)))
        return
    trees = [each for each in (options.before, Path(__file__).parents[1]) if each]
    print("| image | seed | click | box | processor s |")
    for name in options.sets:
        for seed in range(options.seeds):
            rows = [in_tree(tree, name, str(seed), options.steps) for tree in trees]
            cells = (" ".join(str(row[key]) for row in rows) for key in ("click", "box", "s"))
            print(f"| {name} | {seed} | {' | '.join(cells)} |", flush=True)


def in_tree(tree: Path, name: str, seed: str, steps: int) -> dict[str, float]:
    """A training with a working tree's sources, in a process with one thread."""
    own = {"PYTHONPATH": str(tree.resolve() / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--once", name, seed, "--steps", str(steps)]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, check=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def trained(name: str, seed: int, steps: int) -> dict[str, float]:
    """Mean IoU in percent on the planes left out, and processor seconds of the training."""
    keep_freed_memory()
    train, validation, *others = corn() if name == CORN else drawn(name, DRAWN[name])
    base = load_model("tiny")
    first, second = (LabeledArray("plane", *each, channel_axis=0) for each in (train, validation))
    data = from_arrays([first], DataConfig(seed=seed), name=name, validation=[second])
    config = practical_config(base.spec, steps=steps, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        output, began = Path(folder) / "net.safetensors", time.process_time()
        places = Devices(device="cpu")
        finish(train_checkpoint_job(base, data, config, output, Path(folder) / "run", places))
        seconds = time.process_time() - began
        predictor = Predictor(load_model(output), "cpu")
    ious: dict[str, list[float]] = {"click": [], "box": []}
    for values, labels in others:
        predictor.set_image(values, 0)
        objects = list(range(1, int(labels.max()) + 1))
        for score in finish(UserProtocol(clicks=1).score_job(predictor, labels, objects)):
            for kind, found in ious.items():
                found.append(score.iou[kind])
    means = {kind: round(100 * float(np.mean(found)), 1) for kind, found in ious.items()}
    return {**means, "s": round(seconds, 1)}


def drawn(sensor: str, seed: int) -> list[Plane]:
    """Nine parts of a drawn image, those with the most objects first."""
    image, labels, _ = draw_sensor_sample(sensor, seed, 3 * SIDE)
    cuts = [slice(start, start + SIDE) for start in range(0, 3 * SIDE, SIDE)]
    planes = [(image[:, y, x].copy(), numbered(labels[y, x])) for y in cuts for x in cuts]
    return sorted((each for each in planes if each[1].any()), key=lambda each: -each[1].max())


def corn() -> list[Plane]:
    """Six planes with kernels."""
    cube: NDArray[np.float32] = np.asarray(read_image(DATA / "hyperspectral_corn.tif").data)
    cube = cube[6:576:12][:BANDS].astype(np.float32)
    brightness = cube.mean(0)
    kernel = largest(brightness > 0.25 * np.percentile(brightness, 95))
    ratio = cube[8:16].mean(0) / (cube[30:40].mean(0) + 1)
    germ = largest(kernel & (ratio > np.percentile(ratio[kernel], 60)))
    return [tray(cube, kernel, germ, np.random.default_rng(seed)) for seed in range(6)]


def tray(
    cube: NDArray[np.float32], kernel: NDArray[Any], germ: NDArray[Any], rng: np.random.Generator
) -> Plane:
    """Kernels thrown on an empty plane where there is room, with noise."""
    ground = np.median(cube[:, ~kernel], axis=1)[:, None, None]
    image = ground * np.ones((1, SIDE, SIDE), np.float32)
    labels, count = np.zeros((SIDE, SIDE), np.int32), 0
    for _ in range(60):
        turns, mirror = int(rng.integers(4)), rng.random() < 0.5
        parts = [np.rot90(each, turns, (-2, -1)) for each in (kernel, germ, cube)]
        inside, core, values = (each[..., ::-1, :] if mirror else each for each in parts)
        places = [int(rng.integers(-4, SIDE - length + 4)) for length in inside.shape]
        target = tuple(
            slice(max(start, 0), min(start + length, SIDE))
            for start, length in zip(places, inside.shape, strict=True)
        )
        source = tuple(
            slice(part.start - start, part.stop - start)
            for part, start in zip(target, places, strict=True)
        )
        inside, core, values = inside[source], core[source], values[(slice(None), *source)]
        if labels[target][inside].any():
            continue
        image[(slice(None), *target)][:, inside] = rng.uniform(0.6, 1.2) * values[:, inside]
        labels[target][inside & ~core] = count + 1
        labels[target][inside & core] = count + 2
        count += 2
    noise = 0.03 * cube.std() * rng.standard_normal(image.shape).astype(np.float32)
    return image + noise, numbered(labels)


def largest(mask: NDArray[Any]) -> NDArray[Any]:
    """The largest connected part of a mask."""
    parts = label(mask)
    found: NDArray[Any] = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return found


def numbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Objects that are not cut off to a few pixels, numbered from 1."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    found = np.zeros(labels.shape, np.int32)
    for number, each in enumerate(ids[areas >= MIN_AREA], start=1):
        found[labels == each] = number
    return found


if __name__ == "__main__":
    main()
