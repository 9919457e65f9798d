"""Scenes of the benchmark on drawn data: what it is trained and tested on, and no pretraining was.

The base of the benchmark has seen drawn photographs only. For a fair test, objects and surfaces are
of families that no pretraining draws; both sides declare theirs here, and a test compares them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from napari_simmat.learn.scenes.arrangements import ARRANGEMENTS
from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.benchmark_scene import BenchmarkScene
from napari_simmat.learn.scenes.scene import parts_of
from napari_simmat.learn.scenes.sensors import shown

Split = Literal["train", "validation", "test"]
_SEED = 20_240_908
_SMALLEST_FIELD = 48


class Families(NamedTuple):
    """What one side draws, by name: how objects lie, their outlines, and their surfaces."""

    layouts: frozenset[str]
    outlines: frozenset[str]
    textures: frozenset[str]


# fmt: off
PRETRAINING = Families(
    layouts=frozenset([
        "leaves", "cells", "nucleated", "discs", "rods", "filaments", "large", "nested",
        "assembled", "tissue", "levels", "head", "organs",
    ]),
    outlines=frozenset(["blob", "polygon", "rectangle", "tube", "rod"]),
    textures=frozenset([
        "cloud", "band", "stripes", "speckle", "blotches", "spots", "grain", "astronaut", "brick",
        "camera", "cat", "coffee", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
        "moon", "retina", "rocket",
    ]),
)
"""What a foundation is pretrained on: `LAYOUTS`, `outlines`, `texture_bank`, `PHOTOGRAPHS`."""

BENCHMARK = Families(
    layouts=frozenset(["strewn", "stacks", "lines", "parquet", "dial", "sunflower", "giants"]),
    outlines=frozenset([
        "polyomino", "gear", "letter", "spiral", "superformula", "crescent", "arc", "arrow",
    ]),
    textures=frozenset(["worley", "weierstrass", "labyrinth", "truchet", "weave"]),
)
"""What the benchmark's scenes are made of: `ARRANGEMENTS`, `FIGURES`, `PATTERNS`."""
# fmt: on


def benchmark_scene(
    rng: np.random.Generator | int, size: int | tuple[int, int] = 192, layout: str | None = None
) -> BenchmarkScene:
    """Draw a scene of the benchmark's own layouts, outlines and surfaces.

    Parameters
    ----------
    rng
        Generator, which is advanced, or a seed.
    size
        Side, or height and width, in pixels.
    layout
        A name in `ARRANGEMENTS`; any by default.

    Raises
    ------
    ValueError
        If the layout is unknown or the size below 48 pixels.
    """
    rng = np.random.default_rng(rng)
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if min(height, width) < _SMALLEST_FIELD:
        raise ValueError(
            f"A scene of {height} x {width} pixels is too small; use {_SMALLEST_FIELD} or more."
        )
    if layout is None:
        layout = str(rng.choice(list(ARRANGEMENTS)))
    if layout not in ARRANGEMENTS:
        raise ValueError(f"Layout {layout!r} is unknown; use one of {', '.join(ARRANGEMENTS)}.")
    labels, regions, distance = parts_of(ARRANGEMENTS[layout](rng, (int(height), int(width))))
    return BenchmarkScene(labels, regions, distance, layout, seed=int(rng.integers(2**31)))


def benchmark_sample(
    sensor: str,
    rng: np.random.Generator | int,
    size: int | tuple[int, int] = 192,
    layout: str | None = None,
) -> tuple[Floats, Ids, BenchmarkScene]:
    """Draw a scene of the benchmark and look at it through `sensor`.

    Parameters
    ----------
    sensor
        A name in `SENSORS` or `PSEUDO_SENSORS`.
    rng, size, layout
        As for `benchmark_scene`; `split_generator` gives the generators of a split.

    Returns
    -------
    image
        (C, H, W) float32, raw units of each channel.
    labels
        Int32 (H, W): the scene's objects that this sensor can tell apart, ids 1..N (N >= 1).
    scene
        The scene itself, to be looked at through other sensors.
    """
    rng = np.random.default_rng(rng)
    return shown(sensor, rng, lambda: benchmark_scene(rng, size, layout))


def split_generator(split: Split, number: int) -> np.random.Generator:
    """Generator of the `number`-th scene (0, 1, ...) of a split; no two scenes share a seed.

    The same number gives the same scene whatever is drawn before it.

    Raises
    ------
    ValueError
        If the split is unknown or the number negative.
    """
    splits = get_args(Split)
    if split not in splits or number < 0:
        raise ValueError(
            f"There is no scene {number} of {split!r}; count from 0 in one of {', '.join(splits)}."
        )
    return np.random.default_rng([_SEED, splits.index(split), number])
