"""Links and divisions found in drawn time series, whose cells move, grow and divide.

    python scripts/time_series.py
    python scripts/time_series.py --segment tiny --seeds 2

The objects are the true ones, numbered anew on each frame; or those that a model finds when it
segments everything.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple

import numpy as np

from napari_simmat.engine.linking import Lineage, link_objects_job
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.scores import LinkScores, score_links
from napari_simmat.progress import finish
from napari_simmat.research.samples import draw_series


def renumbered(labels: np.ndarray, seed: int, missing: float) -> np.ndarray:
    """The same objects with other ids on each frame, some left out at random."""
    rng, after = np.random.default_rng(seed), np.zeros_like(labels)
    for before, frame in zip(labels, after, strict=True):
        found = np.unique(before)[1:]
        for label, number in zip(found, 1 + rng.permutation(len(found)), strict=True):
            if rng.random() >= missing:
                frame[before == label] = number
    return after


def segmented(series: np.ndarray, model: str) -> np.ndarray:
    """Everything that a model finds on each frame."""
    from napari_simmat import Predictor, load_model, segment_everything

    predictor, labels = Predictor(load_model(model)), np.zeros(series.shape, np.int32)
    predictor.set_image(series)
    for frame in range(len(series)):
        found = segment_everything(predictor, AutomaticSettings(), (frame,))
        labels[frame] = found.labels
    return labels


def main() -> None:
    """Measure and print a line for each series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shape", type=int, nargs=3, default=(24, 256, 256))
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="use each so many-th frame")
    parser.add_argument("--missing", type=float, default=0.0, help="part of the objects left out")
    parser.add_argument("--segment", default="", help="model; the true objects by default")
    given = parser.parse_args()
    total = np.zeros(6, int)
    for seed in range(given.seeds):
        series, truth, parents = draw_series(seed, tuple(given.shape), given.count)
        series, truth = series[:: given.every], truth[:: given.every]
        labels = (
            segmented(series, given.segment)
            if given.segment
            else renumbered(truth, seed, given.missing)
        )
        lineage = finish(link_objects_job(labels))
        known = Lineage.of_labels(truth, parents=parents)
        scores = score_links(lineage, labels, known, truth)
        total += astuple(scores)
        print(f"seed {seed}: {described(scores)}", flush=True)
    print(f"all: {described(LinkScores(*total.tolist()))}")


def described(scores: LinkScores) -> str:
    """Precision and recall of the links, and divisions."""
    return (
        f"{scores.known} links, precision {scores.precision:.3f}, recall {scores.recall:.3f}; "
        f"{scores.divisions} divisions, {scores.divisions_found} found, "
        f"{scores.divisions_given - scores.divisions_found} others"
    )


if __name__ == "__main__":
    main()
