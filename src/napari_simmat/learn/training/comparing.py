"""What training brought: base and checkpoint on the validation images, prompted as by a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_simmat.engine.loading import Model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.learn.datasets.dataset import Dataset, Sample
from napari_simmat.learn.evaluation import evaluating
from napari_simmat.learn.training.planes import as_rgb
from napari_simmat.model.network import Network
from napari_simmat.model.spec import ModelSpec, Normalization
from napari_simmat.progress import Job, Progress

MOST_PLANES = 24
MOST_OBJECTS = 12
"""Planes that are looked at, and objects of each, spread evenly."""


def comparing(
    base: Model,
    spec: ModelSpec,
    network: Network,
    dataset: Dataset,
    samples: Sequence[Sample],
    device: str,
) -> Job[dict[str, dict[str, float]]]:
    """Mean IoU in percent of a click and of a box, before and after.

    Both networks get the data set's normalised values as the window would hand them on, at all
    scales; the base without its transfer layer gets three channels (`as_rgb`).

    Parameters
    ----------
    base
        The foundation.
    spec, network
        The checkpoint.
    dataset, samples
        Planes of its validation or test.
    device
        Where to compute.
    """
    given = Normalization(method="none")
    before = Model(replace(base.spec, normalization=given), base.network, "before")
    after = Model(replace(spec, normalization=given), network, "after")
    chosen = _with_objects(dataset, samples)
    figures: dict[str, dict[str, float]] = {}
    for number, (name, model) in enumerate((("before", before), ("after", after))):
        predictor = Predictor(model, device)
        reached: dict[str, list[float]] = {"click": [], "box": []}
        for done, sample in enumerate(chosen):
            values, labels = sample.load()
            objects = dataset.regions(labels)
            if model.spec.transfer == "zeroshot":
                values = values[as_rgb(len(values))]
            step = -(-len(objects) // MOST_OBJECTS)
            yield from predictor.encoding(values, 0)
            scores = yield from evaluating(predictor, labels, 1, only=objects[::step])
            for kind, ious in reached.items():
                ious += [score.answers[kind].iou for score in scores]
            yield Progress(
                number * len(chosen) + done + 1, 2 * len(chosen), f"comparing on {sample.name}"
            )
        figures[name] = {
            kind: round(100 * float(np.mean(values)), 2) for kind, values in reached.items()
        }
    return figures


def _with_objects(dataset: Dataset, samples: Sequence[Sample]) -> list[Sample]:
    """At most `MOST_PLANES` samples that have an object, spread evenly."""
    found = [sample for sample in samples if dataset.regions(sample.load()[1])]
    count = min(len(found), MOST_PLANES)
    return [found[i * len(found) // count] for i in range(count)]
