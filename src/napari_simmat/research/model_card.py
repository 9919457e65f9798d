"""Tables of the embedded foundation's model card, as Markdown, beside those of `yardstick`.

``python -m napari_simmat.research.model_card resolution --development DEVELOPMENT`` scores the same
objects in the same images at other sizes; ``speed`` times encoding and prompting.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.masks import label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.prompting import UserProtocol
from napari_simmat.progress import finish
from napari_simmat.research.yardstick import LabeledSample, development_samples

FACTORS = (0.5, 1.0, 2.0, 3.0)
LARGEST = 2048
THINNEST = 12
"""Objects whose bounding box is thinner than that many pixels at a scale are left out."""
SIZES = (128, 256, 512, 1024, 2048)
Row = tuple[object, ...]


def resolution(options: argparse.Namespace) -> Iterator[Row]:
    """Mean IoU of a click and of a box on the same objects in images of other sizes."""
    predictor = Predictor(load_model(options.model), device="cpu")
    yield ("image", "objects", *(f"{kind} x {f:g}" for kind in ("click", "box") for f in FACTORS))
    spreads = []
    for sample in development_samples(options.development, options.objects):
        factors = [f for f in FACTORS if max(sample.labels.shape) * f <= LARGEST]
        thin = [
            label
            for label, (rows, columns) in label_windows(sample.labels)
            if min(rows.stop - rows.start, columns.stop - columns.start) * factors[0] < THINNEST
        ]
        labels = np.where(np.isin(sample.labels, thin), 0, sample.labels).astype(np.int32)
        if not labels.any():
            continue
        means = [_scores(predictor, _resized(sample, labels, factor)) for factor in factors]
        spreads.append(np.ptp(means, axis=0))
        cells = [f"{row[kind]:.3f}" for kind in (0, 1) for row in means]
        missing = [""] * (len(FACTORS) - len(factors))
        count = len(factors)
        yield (sample.name, len(np.unique(labels)) - 1, *cells[:count], *missing, *cells[count:])
    yield ("largest difference", "", *(f"{value:.3f}" for value in np.max(spreads, axis=0)))


def _resized(sample: LabeledSample, labels: Any, factor: float) -> LabeledSample:
    from skimage.transform import resize

    if factor == 1:
        return sample._replace(labels=labels)
    size = tuple(round(side * factor) for side in labels.shape)
    image = resize(
        sample.image.astype(np.float32),
        (*size, *sample.image.shape[2:]),
        order=1,
        anti_aliasing=factor < 1,
        preserve_range=True,
    )
    labels = resize(labels, size, order=0, anti_aliasing=False, preserve_range=True)
    return sample._replace(image=image.astype(np.float32), labels=labels.astype(np.int32))


def _scores(predictor: Predictor, sample: LabeledSample) -> Any:
    """Mean IoU (2,) of a click and of a box."""
    predictor.set_image(sample.image, channel_axis=sample.channel_axis)
    scores = finish(UserProtocol(clicks=1).score_job(predictor, sample.labels))
    return np.mean([(score.iou["click"], score.iou["box"]) for score in scores], axis=0)


def speed(options: argparse.Namespace) -> Iterator[Row]:
    """Median milliseconds of encoding and of prompts, and the peak of memory above rest."""
    from skimage.data import coins

    if options.threads:
        torch.set_num_threads(options.threads)
    model, rest = load_model(options.model), _memory()
    yield ("image", "encode", "click", "box", "correction", "peak above rest MB")
    for side in SIZES:
        image = np.tile(coins(), (8, 6))[:side, :side]
        predictor = Predictor(model, device="cpu", precision=options.precision)
        encode = [_seconds(predictor.set_image, np.roll(image, k)) for k in range(5)]
        predictor.set_image(image)
        y, x = 53, 49  # the middle of a coin, 48 pixels across
        first = predictor.predict(points=[(y, x)])
        prompts: tuple[dict[str, Any], ...] = (
            {"points": [(y, x)]},
            {"box": (y - 24, x - 24, y + 24, x + 24)},
            {"points": [(y, x), (y + 40, x)], "labels": [1, 0], "mask": first.logits},
        )
        times = [[_seconds(predictor.predict, **each) for _ in range(20)] for each in prompts]
        columns = (f"{1000 * median(values):.0f}" for values in (encode, *times))
        yield (f"{side} x {side}", *columns, f"{_memory() - rest:.0f}")


def _memory() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(call: Callable[..., object], *given: Any, **named: Any) -> float:
    started = time.perf_counter()
    call(*given, **named)
    return time.perf_counter() - started


def main() -> None:
    """Print a table."""
    tables = {"resolution": resolution, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(tables))
    parser.add_argument("--model", default="tiny", help="a name or a file")
    parser.add_argument("--development", type=Path, help="folder of the development set")
    parser.add_argument("--objects", type=int, default=10, help="of each image")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, help="of torch; all by default")
    options = parser.parse_args()
    for number, row in enumerate(tables[options.table](options)):
        sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
        if not number:
            sys.stdout.write("| --- |" + " ---: |" * (len(row) - 1) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
