"""What a layer held before the first noted edit."""

from __future__ import annotations

import numpy as np

from napari_simmat.engine.census import Census
from napari_simmat.engine.footprints import Footprint, Patch
from napari_simmat.widgets.segment.journal import before_edit


def disc(y: int, x: int) -> Footprint:
    rows, columns = np.ogrid[:60, :80]
    return Footprint.of((rows - y) ** 2 + (columns - x) ** 2 < 50, (2, 0, 0))


def test_what_was_there_before_is_given_back_wherever_it_lay() -> None:
    labels = np.zeros((5, 60, 80), np.int32)
    Patch.write(labels, disc(20, 20), 1)
    Patch.write(labels, disc(40, 60), 2)
    before = labels.copy()
    patches = [Patch.write(labels, disc(24, 24), 3), Patch.write(labels, disc(40, 60), 0)]
    assert all(patches)
    first = before_edit(labels, Census.of(labels), [each for each in patches if each])
    assert first is not None
    restored = np.zeros_like(labels)
    first.apply(restored)
    assert np.array_equal(restored, before)


def test_an_empty_layer_held_nothing() -> None:
    labels = np.zeros((5, 60, 80), np.int32)
    patch = Patch.write(labels, disc(20, 20), 1)
    assert patch is not None
    assert before_edit(labels, Census.of(labels), [patch]) is None
    assert before_edit(np.zeros((5, 60, 80), np.int32), Census(), []) is None


def test_of_an_empty_layer_only_the_object_is_read() -> None:
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, index):
            part = super().__getitem__(index)
            Counting.read = max(Counting.read, np.size(part))
            return part

    labels = np.zeros((5, 60, 80), np.int32)
    patch = Patch.write(labels, disc(20, 20), 1)
    assert patch is not None
    assert before_edit(labels.view(Counting), Census.of(labels), [patch]) is None
    assert Counting.read <= 15 * 15
