"""Mean and spread of a data set's channels, for the standardisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_simmat.learn.datasets.dataset import Sample
from napari_simmat.model.spec import Channel
from napari_simmat.progress import Job, Progress

MOST_SAMPLES = 64
MOST_PIXELS = 2**22
"""Of more pixels in a plane, evenly spaced ones are measured."""


def measuring(
    samples: Sequence[Sample], names: Sequence[str], units: Sequence[str] = (), seed: int = 0
) -> Job[tuple[Channel, ...]]:
    """The channels with mean and standard deviation over the pixels of training samples.

    Of many samples `MOST_SAMPLES` are taken, which ones is fixed by `seed`. Every sample counts by
    its pixels.

    Parameters
    ----------
    samples
        Of the training side only.
    names, units
        Of the channels; units may be left out.
    seed
        The data set's.

    Raises
    ------
    ValueError
        If a channel is constant, or the units are not one for each channel.
    """
    if units and len(units) != len(names):
        raise ValueError(
            f"There are {len(names)} channels ({', '.join(names)}) but {len(units)} units; give "
            "one for each channel, an empty one where there is none, or leave them out."
        )
    chosen = np.random.default_rng(seed).permutation(len(samples))[:MOST_SAMPLES]
    count = 0
    mean, squares = np.zeros(len(names)), np.zeros(len(names))  # of the deviations from the mean
    for done, index in enumerate(sorted(chosen.tolist()), start=1):
        values = samples[index].load()[0].reshape(len(names), -1).astype(np.float64)
        values = values[:, :: -(-values.shape[1] // MOST_PIXELS)]
        size = values.shape[1]
        own = values.mean(axis=1)
        # Two sets are joined as by Chan, Golub and LeVeque: no large sums that cancel.
        squares += ((values - own[:, None]) ** 2).sum(axis=1)
        squares += (own - mean) ** 2 * (count * size / (count + size))
        mean += (own - mean) * (size / (count + size))
        count += size
        yield Progress(done, len(chosen), "measuring channels")
    spread = np.sqrt(squares / count)
    constant = [
        name
        for name, average, deviation in zip(names, mean, spread, strict=True)
        if deviation <= 1e-7 * max(1.0, abs(average))
    ]
    if constant:
        raise ValueError(
            f"Channel {', '.join(constant)} is constant in every training image, so it tells a "
            "model nothing; leave it out by choosing the other channels, or check its files."
        )
    return tuple(
        Channel(name=name, mean=float(average), std=float(deviation), unit=unit)
        for name, average, deviation, unit in zip(
            names, mean, spread, units or [""] * len(names), strict=True
        )
    )
