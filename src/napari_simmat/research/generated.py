"""Drawn scenes as data sets, for `generated:SENSOR` and the benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from napari_simmat.datasets.dataset import Dataset, LoadedSample, Sample, measure_channels_job
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.models.spec import Channel, Normalization
from napari_simmat.progress import Job
from napari_simmat.research.benchmark_scenes import (
    BenchmarkSplit,
    benchmark_sample,
    split_generator,
)
from napari_simmat.research.canvas import Floats
from napari_simmat.research.sensors import PSEUDO_SENSORS, draw_sensor_sample, sensor_named

SceneKind = Literal["everyday", "benchmark"]
_SEED = 20_261_125


@dataclass(frozen=True, kw_only=True)
class GeneratedConfig:
    """Which scenes to draw.

    Parameters
    ----------
    sensor
        A name in `SENSORS`, or rgb+NAME for a pseudo modality.
    kind
        ``"everyday"``: objects and surfaces like those of the foundations' pretraining, for
        checkpoints in use. ``"benchmark"``: families that no pretraining drew.
    side
        Width and height of each plane in pixels.
    train, validation, test
        Planes of each side; the first planes are the same whatever the numbers.
    """

    sensor: str
    kind: SceneKind = "everyday"
    side: int = 256
    train: int = 200
    validation: int = 16
    test: int = 0

    def __post_init__(self) -> None:
        sensor_named(self.sensor)
        if self.kind not in get_args(SceneKind):
            raise ValueError(f"Scenes {self.kind!r} are unknown; use everyday or benchmark.")
        if self.side < 64:
            raise ValueError(f"Scenes of {self.side} pixels are too small; draw at least 64.")
        if min(self.train, self.validation) < 1 or self.test < 0:
            raise ValueError(
                f"Draw at least one scene to train on and one to validate on, not {self.train} and "
                f"{self.validation}."
            )


def generate_job(config: GeneratedConfig) -> Job[Dataset]:
    """A data set of drawn scenes: each plane is drawn when it is loaded, and always the same.

    Values are normalized per plane by percentiles 0.5 and 99.9: over all channels together if
    they share a unit, because the sensor's information lies in their ratios; per channel for a
    pseudo modality.
    """
    rule = Normalization(
        method="percentile", low=0.5, high=99.9, joint=config.sensor not in PSEUDO_SENSORS
    )

    def samples(split: BenchmarkSplit, count: int) -> tuple[Sample, ...]:
        return tuple(
            Sample(f"{split} {n}", f"{split} {n}", partial(_load, config, rule, split, n))
            for n in range(count)
        )

    dataset = Dataset(
        name=f"{'generated' if config.kind == 'everyday' else 'benchmark'}:{config.sensor}",
        modality=config.sensor,
        channels=tuple(
            Channel(name=name, mean=0.0, std=1.0) for name in sensor_named(config.sensor).channels
        ),
        normalization=rule,
        train=samples("train", config.train),
        validation=samples("validation", config.validation),
        test=samples("test", config.test),
    )
    channels = yield from measure_channels_job(dataset.train, dataset.channel_names)
    rounded = (replace(c, mean=round(c.mean, 3), std=round(c.std, 3)) for c in channels)
    return replace(dataset, channels=tuple(rounded))


def _load(
    config: GeneratedConfig, rule: Normalization, split: BenchmarkSplit, number: int
) -> LoadedSample:
    if config.kind == "benchmark":
        rng = split_generator(split, number)
        image, labels, _ = benchmark_sample(config.sensor, rng, config.side)
    else:
        rng = np.random.default_rng([_SEED, get_args(BenchmarkSplit).index(split), number])
        image, labels = draw_sensor_sample(config.sensor, rng, config.side)[:2]
    return normalized(image, rule), labels.astype(np.int32)


def normalized(image: Floats, rule: Normalization) -> Floats:
    """An image (C, H, W) in 0..scale by its own percentiles."""
    axes = None if rule.joint else (1, 2)
    stretched = stretch_percentiles(
        image, rule.low, rule.high, axes=axes, scale=rule.scale, minimum=1e-6
    )
    return np.asarray(stretched, np.float32)
