"""Drawn scenes by group, and what is kept of each: short hashes and rounded statistics.

A group is a family, a sensor, a layout, ...; scene ``i`` of a group has a generator of its own, so
the first ten are the same ones whether ten or fifty are drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simmat_research.generated import (
    ARRANGEMENTS,
    benchmark_scene,
    split_generator,
)
from simmat_research.layouts import LAYOUTS
from simmat_research.renderers import FAMILIES
from simmat_research.samples import draw_sample
from simmat_research.scene import draw_scene
from simmat_research.sensors import PSEUDO_SENSORS, SENSORS, draw_sensor_sample
from tests.drawn_volume import draw_volume
from tests.golden.compare import digest
from tests.golden.machine import machine

COUNT = 50
SIDE = 64
SPLITS = ("train", "validation", "test")
Drawn = tuple[np.ndarray, np.ndarray]
"""Image and labels; of a bare scene its regions and labels."""


class Golden(NamedTuple):
    """What is kept of one scene."""

    labels: str
    image: str
    mean: float
    deviation: float

    @classmethod
    def of(cls, drawn: Drawn) -> Golden:
        """Hashes of labels and image, mean and standard deviation of the image."""
        image, labels = drawn
        values = image[np.isfinite(image)].astype(np.float64)
        mean, deviation = (float(f"{value:.6g}") for value in (values.mean(), values.std()))
        return cls(digest(labels), digest(image), mean, deviation)

    def to_text(self) -> str:
        """One line of a golden file."""
        return f"{self.labels} {self.image} {self.mean:g} {self.deviation:g}"

    @classmethod
    def from_text(cls, text: str) -> Golden:
        """Read what `to_text` wrote."""
        labels, image, mean, deviation = text.split()
        return cls(labels, image, float(mean), float(deviation))


def groups() -> dict[str, Callable[[int], Drawn]]:
    """Name of each group -> draws its ``i``-th scene."""
    every: dict[str, Callable[[int], Drawn]] = {}
    sensors = [*SENSORS, *PSEUDO_SENSORS]
    every |= {f"family {name}": _family(name) for name in FAMILIES}
    every |= {f"sensor {name}": _sensor(name) for name in sensors}
    every |= {f"benchmark {name}": _benchmark(name) for name in sensors}
    every |= {f"layout {name}": _layout(name) for name in LAYOUTS}
    every |= {f"arrangement {name}": _arrangement(name) for name in ARRANGEMENTS}
    every["any family"] = lambda i: draw_sample(_generator(i), SIDE)
    every["wide"] = lambda i: draw_sample(_generator(i), (48, 96))
    every["volume"] = lambda i: draw_volume(i, (8, 48, 48), 4)
    return every


def _generator(number: int) -> np.random.Generator:
    return np.random.default_rng([20_261_127, number])


def _family(name: str) -> Callable[[int], Drawn]:
    return lambda i: draw_sample(_generator(i), SIDE, [name])


def _sensor(name: str) -> Callable[[int], Drawn]:
    return lambda i: draw_sensor_sample(name, _generator(i), SIDE)[:2]


def _benchmark(name: str) -> Callable[[int], Drawn]:
    def draw(i: int) -> Drawn:
        split: Any = SPLITS[i % len(SPLITS)]
        return draw_sensor_sample(name, split_generator(split, i), SIDE, benchmark_scene)[:2]

    return draw


def _layout(name: str) -> Callable[[int], Drawn]:
    def draw(i: int) -> Drawn:
        scene = draw_scene(_generator(i), SIDE, name)
        return scene.regions, scene.labels

    return draw


def _arrangement(name: str) -> Callable[[int], Drawn]:
    def draw(i: int) -> Drawn:
        scene = benchmark_scene(_generator(i), SIDE, name)
        return scene.regions, scene.labels

    return draw


def golden(group: str, count: int = COUNT) -> list[Golden]:
    """What is kept of the first scenes of a group."""
    draw = groups()[group]
    return [Golden.of(draw(number)) for number in range(count)]


def write(path: Path) -> None:
    """Draw all scenes and write what is kept of them."""
    lines = {group: [each.to_text() for each in golden(group)] for group in groups()}
    values = {"machine": machine(), "groups": lines}
    path.write_text(json.dumps(values, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
