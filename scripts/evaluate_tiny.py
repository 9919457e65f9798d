"""Measure a model on the three real images of its card, and draw what it found.

``python scripts/evaluate_tiny.py --output results`` prints the mean IoU with one click in the
middle, with three corrections and with a box, and writes an overlay of each image. The images lie
in the folder that NAPARI_SIMMAT_DATA names (``../shared/data`` by default); they are not part of
the package.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.data import coins

from napari_simmat import Predictor, Prompt, load_model
from napari_simmat.learn.evaluation import evaluating, middle
from napari_simmat.learn.overlay import overlay, side_by_side
from napari_simmat.progress import finish

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))


def main() -> None:
    """Evaluate, print the table, write the overlays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a name or a file")
    parser.add_argument("--output", type=Path, help="folder of the overlays; none by default")
    options = parser.parse_args()
    predictor = Predictor(load_model(options.model), device="auto", precision="auto")
    print(f"{'image':24} {'objects':>7} {'click':>6} {'+3':>6} {'box':>6}")
    means: list[list[float]] = []
    for name, image, labels in images():
        predictor.set_image(image)
        scores = finish(evaluating(predictor, labels))
        columns = zip(*((each.click, each.corrected[-1], each.box) for each in scores), strict=True)
        row = [float(np.mean(column)) for column in columns]
        means.append(row)
        print(f"{name:24} {len(scores):7d} " + " ".join(f"{value:6.3f}" for value in row))
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            draw(predictor, image, labels).save(options.output / f"{name}.png")
    print(f"{'mean':32} " + " ".join(f"{value:6.3f}" for value in np.mean(means, axis=0)))


def images() -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name, image (Y, X) and labels (Y, X)."""
    yield "coins", coins(), tifffile.imread(DATA / "coins_labels.tif")
    for name, ending in (("phase2d_bacteria", "labels"), ("fluo2d_hela", "autolabels")):
        image, labels = (
            tifffile.imread(DATA / f"{stem}.tif") for stem in (name, f"{name}_{ending}")
        )
        yield name, image, labels


def draw(predictor: Predictor, image: NDArray[Any], labels: NDArray[Any]) -> Any:
    """Answers to a click and to a box for each object, side by side; truth in white."""
    low, high = np.percentile(image, [0.5, 99.8])
    grey = np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
    boxes = ndimage.find_objects(labels)
    pictures = []
    for kind in ("click", "box"):
        prompts = []
        for label, box in enumerate(boxes, start=1):
            if box is None:
                continue
            rows, columns = box
            corners = (rows.start, columns.start, rows.stop, columns.stop)
            prompts.append(
                Prompt(points=(middle(labels == label),), labels=(1,), object=label)
                if kind == "click"
                else Prompt(box=corners, object=label)
            )
        found = np.zeros(labels.shape, np.int32)
        for prompt, result in zip(prompts, predictor.predict_many(prompts), strict=True):
            found[result.mask & (found == 0)] = prompt.object or 0
        pictures.append(overlay(np.repeat(grey[..., None], 3, -1), found, prompts, labels, kind))
    return side_by_side(pictures)


if __name__ == "__main__":
    main()
