"""How much more *Everything* finds after five objects: `tiny`'s decoder as it is, and tuned.

``python research/scripts/teach_decoder.py --development development --seeds 0 1 2`` takes five
objects of each image of the report as they are labeled, and three discs of ground, tunes the
decoder on them, and prints what is found of the other objects, and wrong, before and after.
``--no-ground`` leaves the discs out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from finish import images_of
from learn import opened, read
from numpy.typing import NDArray

from napari_simmat import load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.kind_learning import learn_kind
from napari_simmat.evaluation.metrics import pairwise_iou, without_covered
from simmat_research.finishing import TAUGHT, SimulatedUser

GROUPS = {"16 of held-out sources": False, "5 of the development set": True}


def main() -> None:
    """Print a row for each image, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-ground", action="store_true")
    options = parser.parse_args()
    model = load_model(options.model)
    rows: dict[bool, list[NDArray[np.float64]]] = {False: [], True: []}
    sources = ["blood_smear", "leaf_microct", "mars_rocks", "nanoshapes", "development"]
    for source, name in images_of(sources):
        image = read(source, name, options.development)
        truth = np.asarray(image.labels)
        predictor = opened(model, image)
        before = segment_everything(predictor).labels
        draws = []
        for seed in options.seeds:
            user = SimulatedUser(truth, seed=seed)
            five = np.where(np.isin(truth, user.taught[:TAUGHT]), truth, 0)
            began = time.process_time()
            kind = learn_kind(predictor, five, None if options.no_ground else user.strokes())
            learned = time.process_time() - began
            after = segment_everything(predictor, kind=kind).labels
            draws.append([*_judged(before, five, truth), *_judged(after, five, truth), learned])
        row = np.nanmean(draws, axis=0)
        rows[source == "development"].append(row)
        print(_line(f"{source} {name}", row), flush=True)
    for group, is_development in GROUPS.items():
        print(_line(f"**mean, {group}**", np.nanmean(rows[is_development], axis=0)))
    print(_line("**mean, all**", np.nanmean(rows[False] + rows[True], axis=0)))


def _judged(
    found: NDArray[np.integer], five: NDArray[np.int32], truth: NDArray[np.int32]
) -> tuple[float, float, float]:
    """Shares of the other objects found at .75 and .5, and wrong ones for each; NaN if none."""
    others = np.where(five > 0, 0, truth)
    count = len(np.unique(others)) - 1
    if not count:
        return np.nan, np.nan, np.nan
    iou = pairwise_iou(without_covered(found.astype(np.int32), five > 0), others)
    best, right = iou.max(0, initial=0), iou.max(1, initial=0)
    return (best >= 0.75).sum() / count, (best >= 0.5).sum() / count, (right < 0.75).sum() / count


def _line(name: str, row: NDArray[np.float64]) -> str:
    before, after = (f"{x:.2f} / {y:.2f}, {wrong:.2f}" for x, y, wrong in (row[:3], row[3:6]))
    return f"| {name} | {before} | {after} | {row[6]:.1f} |"


if __name__ == "__main__":
    main()
