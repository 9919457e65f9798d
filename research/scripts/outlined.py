"""What outlines by prompts do for the masks of `tiny`'s decoder, on the images of the report.

``python research/scripts/outlined.py --development development`` finds all objects of each image by
the decoder, then once more with the network of `tiny` as a foundation that outlines them
(`--auto.by tiny`), and prints what is found and wrong, and the best IoU of an object in the mean.
``--model`` names another foundation.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from finish import images_of
from learn import opened, read
from numpy.typing import NDArray

from napari_simmat import Predictor, load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou

SOURCES = ["blood_smear", "leaf_microct", "mars_rocks", "nanoshapes", "development"]


def main() -> None:
    """Print a row for each image, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--development", type=Path, default=Path("development"))
    options = parser.parse_args()
    given = load_model(options.model)
    foundation = replace(given, spec=replace(given.spec, instance_decoder="none"), decoder=None)
    rows = []
    for source, name in images_of(SOURCES):
        image = read(source, name, options.development)
        row = []
        ways = (load_model("tiny"), AutomaticSettings()), (foundation, AutomaticSettings(by="tiny"))
        for model, settings in ways:
            row.append(_judged(opened(model, image), settings, np.asarray(image.labels)))
        rows.append(row)
        print(_line(f"{source} {name}", np.array(row)), flush=True)
    print(_line("**mean**", np.mean(rows, axis=0)))


def _judged(
    predictor: Predictor, settings: AutomaticSettings, truth: NDArray[np.int32]
) -> tuple[float, ...]:
    """Shares found at .75 and .5, wrong for each object, mean of the best IoU, CPU seconds."""
    began = time.process_time()
    found = segment_everything(predictor, settings).labels
    seconds = time.process_time() - began
    iou = pairwise_iou(found.astype(np.int32), truth)
    best, right = iou.max(0, initial=0), iou.max(1, initial=0)
    count = len(best)
    wrong = (right < 0.75).sum() / count
    return (best >= 0.75).mean(), (best >= 0.5).mean(), wrong, best.mean(), seconds


def _line(name: str, row: NDArray[np.float64]) -> str:
    cells = (f"{x:.3f} / {y:.3f}, {w:.2f}, {iou:.3f}, {s:.1f}" for x, y, w, iou, s in row)
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
