"""How often drafts are right of which `tiny`'s decoder says so, on images that it never saw.

``python research/scripts/chances.py --development development`` finds all objects of each image of
the report down to a chance of .3, and prints for each tenth of the chance the share of the drafts
that meet an object at an IoU of .75 and of .5. The chance is the mean of those of both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from finish import images_of
from learn import opened, read

from napari_simmat import load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.settings import MIN_PREDICTED_IOU, AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou

SOURCES = ["blood_smear", "leaf_microct", "mars_rocks", "nanoshapes", "development"]
EVERY = AutomaticSettings(quality=MIN_PREDICTED_IOU)


def main() -> None:
    """Print a row for each tenth, of all images, and of those without leaf and rocks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--development", type=Path, default=Path("development"))
    options = parser.parse_args()
    model = load_model(options.model)
    rows = []
    for source, name in images_of(SOURCES):
        image = read(source, name, options.development)
        found = segment_everything(opened(model, image), EVERY)
        best = pairwise_iou(found.labels.astype(np.int32), np.asarray(image.labels)).max(
            1, initial=0
        )
        is_odd = source in ("leaf_microct", "mars_rocks")
        rows += [(chance, iou, is_odd) for chance, iou in zip(found.scores, best, strict=True)]
    chances, ious, odd = np.array(rows).T
    for title, kept in (("all", odd >= 0), ("without leaf and rocks", odd == 0)):
        print(f"| chance said, {title} | drafts | right at .75 | at .5 |")
        for low in np.arange(3, 10) / 10:
            chosen = kept & (chances >= low) & (chances < low + 0.1)
            if chosen.any():
                at = [(ious[chosen] >= level).mean() for level in (0.75, 0.5)]
                said = chances[chosen].mean()
                print(f"| {said:.2f} | {chosen.sum()} | {at[0]:.2f} | {at[1]:.2f} |")


if __name__ == "__main__":
    main()
