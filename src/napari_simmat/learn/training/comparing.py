"""What training brought: base and checkpoint on the validation images, prompted as by a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.learn.datasets.dataset import Dataset, Sample
from napari_simmat.learn.evaluation import UserProtocol
from napari_simmat.learn.training.planes import as_rgb
from napari_simmat.model.network import Network
from napari_simmat.model.spec import ModelSpec, Normalization
from napari_simmat.progress import Job, Progress

MOST_PLANES = 24
MOST_OBJECTS = 12
"""Planes that are looked at, and objects of each, spread evenly."""
MOST_PIXELS = 2**25
"""Of large planes so many pixels are looked at, so that this takes less time than the training."""


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
        Planes of its validation or test with an object each.
    device
        Where to compute.
    """
    given = Normalization(method="none")
    models = {
        "before": Model(replace(base.spec, normalization=given), base.network, "before"),
        "after": Model(replace(spec, normalization=given), network, "after"),
    }
    predictors = {name: Predictor(model, device) for name, model in models.items()}
    reached: dict[str, dict[str, list[float]]] = {
        name: {"click": [], "box": []} for name in predictors
    }
    values, labels = samples[0].load()
    count = min(len(samples), MOST_PLANES, max(2, MOST_PIXELS // labels.size))
    for done in range(count):
        sample = samples[done * len(samples) // count]
        if done:
            values, labels = sample.load()
        objects = dataset.regions(labels)
        objects = objects[:: -(-len(objects) // MOST_OBJECTS)]
        for name, predictor in predictors.items():
            rgb = models[name].spec.transfer == "zeroshot"
            given_values = values[as_rgb(len(values))] if rgb else values
            yield from predictor.encoding(given_values, 0)
            scores = yield from UserProtocol(clicks=1).score_job(predictor, labels, objects)
            for kind, ious in reached[name].items():
                ious += [score.answers[kind].iou for score in scores]
        yield Progress(done + 1, count, f"comparing on {sample.name}")
    return {
        name: {kind: round(100 * float(np.mean(ious)), 2) for kind, ious in kinds.items()}
        for name, kinds in reached.items()
    }
