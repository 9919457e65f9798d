"""How small an object *Everything* finds: drawn discs, and a drawn field of stars.

``python research/scripts/smallest_objects.py`` prints what ``docs/reports/measurements.md`` says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat import Predictor, load_model, segment_everything
from napari_simmat.engine.everything.next_step import SeenPlane, middle
from napari_simmat.engine.settings import AutomaticSettings

WIDTHS = 3, 4, 5, 6, 8, 10, 16
SIDE, FINER = 256, 4
"""Pixels of an image of discs, and how much finer it is drawn."""


def discs(width: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """Discs 100 above a ground of noise 5, blurred by 0.7 pixels, and their labels."""
    step = max(16, 2 * width + 8)
    y, x = (np.mgrid[: SIDE * FINER, : SIDE * FINER] + 0.5) / FINER - 0.5
    drawn, labels = np.zeros(y.shape), np.zeros(y.shape, int)
    grid = np.arange(step / 2, SIDE - step / 2, step)
    for number, (top, left) in enumerate(((a, b) for a in grid for b in grid), start=1):
        top, left = np.add((top, left), rng.uniform(-2, 2, 2))
        inside = np.hypot(y - top, x - left) < width / 2
        drawn[inside], labels[inside] = 1, number
    mean = drawn.reshape(SIDE, FINER, SIDE, FINER).mean((1, 3))
    image = 50 + 100 * ndi.gaussian_filter(mean, 0.7) + rng.normal(0, 5, mean.shape)
    return image.astype(np.float32), labels[FINER // 2 :: FINER, FINER // 2 :: FINER]


def stars(rng: np.random.Generator, count: int = 280, side: int = 512) -> NDArray[np.float32]:
    """Sources with a Gaussian of 1 pixel and peaks of 5 to 30 times the noise."""
    image = np.zeros((side, side))
    y, x = np.mgrid[:side, :side]
    for _ in range(count):
        top, left = rng.uniform(4, side - 4, 2)
        peak = np.exp(rng.uniform(*np.log((50, 300))))
        image += peak * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 2)
    return (image + 1000 + rng.normal(0, 10, image.shape)).astype(np.float32)


def met(found: NDArray[np.uint32], labels: NDArray[np.int_]) -> int:
    """How many labels an object meets with an IoU of 0.5."""
    count = 0
    for number in range(1, labels.max() + 1):
        mask = labels == number
        ids = np.unique(found[mask])
        unions = {one: (mask | (found == one)).sum() for one in ids if one}
        count += any((mask & (found == one)).sum() >= 0.5 * union for one, union in unions.items())
    return count


def main() -> None:
    """Print both tables."""
    predictor, rng = Predictor(load_model("tiny")), np.random.default_rng(0)
    print("| width | discs | found | found with --auto.min-area 3 |\n| ---: | ---: | ---: | ---: |")
    for width in WIDTHS:
        image, labels = discs(width, rng)
        predictor.set_image(image)
        found = [
            met(segment_everything(predictor, AutomaticSettings(min_area=least)).labels, labels)
            for least in (20, 3)
        ]
        print(f"| {width} | {labels.max()} | {found[0]} | {found[1]} |", flush=True)
    image = stars(rng)
    smooth = ndi.gaussian_filter(image, 1) - np.median(image)
    regions, count = ndi.label(smooth > 5 * 1.4826 * np.median(np.abs(smooth)))
    centers = np.round(ndi.center_of_mass(smooth, regions, np.arange(1, count + 1))).astype(int)
    predictor.set_image(image)
    settings = AutomaticSettings()
    by_default = segment_everything(predictor, settings).labels
    step = SeenPlane(image[None], middle(image.shape)).next_step(by_default, settings)
    assert step is not None, "few are found"
    advised = segment_everything(predictor, AutomaticSettings(**step.settings)).labels
    hits = [int(np.count_nonzero(each[tuple(centers.T)])) for each in (by_default, advised)]
    print(f"{count} sources: {hits[0]} found, {hits[1]} as advised. {step.in_options}")


if __name__ == "__main__":
    main()
