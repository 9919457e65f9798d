"""The benchmark's scenes: of families that no pretraining draws, exact, varied, seeded."""

import inspect
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from skimage.measure import label

from simmat_research import canvas, textures
from simmat_research.canvas import RegionCanvas
from simmat_research.generated import (
    ARRANGEMENTS,
    FIGURES,
    benchmark_scene,
    split_generator,
)
from simmat_research.layouts import LAYOUTS
from simmat_research.renderers import FAMILIES
from simmat_research.samples import draw_sample
from simmat_research.scene import MIN_AREA
from simmat_research.sensors import PSEUDO_SENSORS, SENSORS, draw_sensor_sample
from simmat_research.textures import PATTERNS

OUTLINES = {
    name
    for name, value in inspect.getmembers(canvas, inspect.isfunction)
    if value.__annotations__.get("return") == "OutlinePoints"
    and not name.startswith("_")
    and name != "random_outline"
}


class SceneFamilies(NamedTuple):
    """Names of all that one side draws: layouts, outlines and surfaces."""

    layouts: set[str]
    outlines: set[str]
    textures: set[str]


# fmt: off
PRETRAINING_FAMILIES = SceneFamilies(
    layouts={
        "leaves", "cells", "nucleated", "discs", "rods", "filaments", "large", "nested",
        "assembled", "tissue", "levels", "head", "organs", "folds", "layers", "cracks",
    },
    outlines={"blob", "polygon", "rectangle", "tube", "rod"},
    textures={
        "cloud", "band", "stripes", "speckle", "blotches", "spots", "grain", "astronaut", "brick",
        "camera", "cat", "coffee", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
        "moon", "retina", "rocket",
    },
)
BENCHMARK_FAMILIES = SceneFamilies(
    layouts={"strewn", "stacks", "lines", "parquet", "dial", "sunflower", "giants"},
    outlines={
        "polyomino", "gear", "letter", "spiral", "superformula", "crescent", "arc", "arrow",
    },
    textures={"worley", "weierstrass", "labyrinth", "truchet", "weave"},
)
# fmt: on


def leak(*_args, **_options):
    raise AssertionError("one side draws what is the other's")


def test_families_of_pretraining_and_benchmark_differ():
    for ours, theirs in zip(BENCHMARK_FAMILIES, PRETRAINING_FAMILIES, strict=True):
        assert ours
        assert theirs
        assert not ours & theirs
    assert not set(ARRANGEMENTS.values()) & set(LAYOUTS.values())


def test_tables_hold_what_is_declared():
    assert BENCHMARK_FAMILIES.layouts == set(ARRANGEMENTS)
    assert BENCHMARK_FAMILIES.outlines == set(FIGURES)
    assert BENCHMARK_FAMILIES.textures == set(PATTERNS)
    assert PRETRAINING_FAMILIES.layouts == set(LAYOUTS)
    assert PRETRAINING_FAMILIES.outlines == OUTLINES | {"rod"}
    assert PRETRAINING_FAMILIES.textures == {*textures.texture_bank(), *textures.PHOTOGRAPHS}
    assert {
        name for family in FAMILIES.values() for name in family.layouts
    } <= PRETRAINING_FAMILIES.layouts


def test_benchmark_scenes_use_nothing_of_pretraining(monkeypatch):
    for name in LAYOUTS:
        monkeypatch.setitem(LAYOUTS, name, leak)
    for name in (*OUTLINES, "random_outline"):
        monkeypatch.setattr(canvas, name, leak)
    for name in ("texture_bank", "_photographs"):
        monkeypatch.setattr(textures, name, leak)
    for name in ("claim_blob", "claim_rod"):
        monkeypatch.setattr(RegionCanvas, name, leak)
    with pytest.raises(AssertionError, match="the other's"):
        draw_sensor_sample("rgb", 0, 96)
    for number, sensor in enumerate(SENSORS):
        for layout in list(ARRANGEMENTS)[number % 2 :: 2]:
            draw_sensor_sample(sensor, number, 96, partial(benchmark_scene, layout=layout))


def test_pretraining_uses_nothing_of_the_benchmark(monkeypatch):
    monkeypatch.setattr(textures, "_pattern_tiles", leak)
    for table in (ARRANGEMENTS, FIGURES):
        for name in table:
            monkeypatch.setitem(table, name, leak)
    with pytest.raises(AssertionError, match="the other's"):
        draw_sensor_sample("rgb", 0, 96, benchmark_scene)
    for family in FAMILIES:
        draw_sample(0, 96, [family])


def test_split_generators_share_no_seed():
    states = {
        split_generator(split, number).bit_generator.state["state"]["state"]
        for split in ("train", "validation", "test")
        for number in range(300)
    }
    assert len(states) == 900


@pytest.mark.parametrize("layout", ARRANGEMENTS)
@pytest.mark.parametrize("size", [64, (96, 160), 192])
def test_benchmark_scene_labels_connected_objects(layout, size):
    for seed in range(3):
        scene = benchmark_scene(seed, size, layout)
        labels = scene.labels
        assert labels.shape == ((size, size) if isinstance(size, int) else size)
        area = np.bincount(labels.ravel())[1:]
        assert 1 <= len(area) <= 90
        assert (area >= MIN_AREA).all()
        assert label(labels, connectivity=1, background=0).max() == len(area)
        again, other = (benchmark_scene(s, size, layout) for s in (seed, seed + 10))
        np.testing.assert_array_equal(again.labels, labels)
        np.testing.assert_array_equal(again.depth, scene.depth)
        assert (other.regions != scene.regions).any()


@pytest.mark.parametrize("sensor", [*SENSORS, *PSEUDO_SENSORS])
def test_benchmark_sample_has_channels_and_exact_labels(sensor):
    (image, labels, scene), (again, *_) = (
        draw_sensor_sample(sensor, split_generator("test", 3), 96, benchmark_scene)
        for _ in range(2)
    )
    np.testing.assert_array_equal(image, again)
    channels = (SENSORS | PSEUDO_SENSORS)[sensor].channels
    assert len(set(channels)) == len(channels)
    assert image.shape == (len(channels), *scene.shape)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    for number in range(1, labels.max() + 1):
        owner = scene.labels[labels == number][0]
        np.testing.assert_array_equal(scene.labels == owner, labels == number)


def test_benchmark_scene_of_bad_settings_is_refused():
    with pytest.raises(ValueError, match="too small"):
        benchmark_scene(0, 32)
    with pytest.raises(ValueError, match=r"radar.*rgb\+depth"):
        draw_sensor_sample("radar", 0, 64, benchmark_scene)
