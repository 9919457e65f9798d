"""The gain from showing the model side views of stacks with their true aspect.

Run ``python scripts/long_pixels.py``. Drawn stacks, whose planes lie twice as far apart as their
pixels, are thinned out to every second and fourth plane. Each object is clicked on its innermost
pixel, and boxed, on the plane (z, x) through its middle. It prints the mean IoU with the labels on
that plane, with pixels taken as square and with their true shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from napari_simmat import Predictor, load_model
from napari_simmat.engine.masks import interior_point, iou
from napari_simmat.research.samples import VOXEL_SPACING, draw_volume

SEEDS = range(4)
THINNED = (1, 2, 4)
SMALLEST = 20
"""Pixels that an object needs on the plane."""


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    predictor = Predictor(load_model(parser.parse_args().model))
    print("height / width   objects   click   box   as they are: click   box")
    for every in THINNED:
        ratio = every * VOXEL_SPACING[0] / VOXEL_SPACING[2]
        rows = np.array(list(measured(every, ratio, predictor)))
        shown = "   ".join(f"{value:.3f}" for value in rows.mean(axis=0))
        print(f"{ratio:14g}   {len(rows):7d}   {shown}", flush=True)


def measured(every: int, ratio: float, predictor: Predictor) -> Iterator[list[float]]:
    """For each object the IoU of click and box, with square pixels and with long ones."""
    for seed in SEEDS:
        stack, labels = (array[every // 2 :: every] for array in draw_volume(seed))
        predictor.set_image(stack)
        statistics = predictor.statistics
        for label in np.unique(labels)[1:]:
            rows = np.flatnonzero((labels == label).any(axis=(0, 2)))
            y = int(rows[len(rows) // 2])
            truth = labels[:, y] == label
            if truth.sum() < SMALLEST:
                continue
            inside = np.argwhere(truth)
            box = (*inside.min(axis=0), *(inside.max(axis=0) + 1))
            found = []
            for size in ((1.0, 1.0), (ratio, 1.0)):
                predictor.set_image(stack[:, y], statistics=statistics, pixel_size=size)
                found.append(iou(predictor.predict(points=[interior_point(truth)]).mask, truth))
                found.append(iou(predictor.predict(box=box).mask, truth))
            yield found


if __name__ == "__main__":
    main()
