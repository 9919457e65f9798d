"""A drawn stack: equal for equal seeds, exact labels, bodies that vary between planes."""

import numpy as np

from napari_simmat.research.samples import draw_volume

SHAPE = (16, 64, 80)


def test_draw_volume_depends_on_its_seed_alone():
    stack, labels = draw_volume(3, SHAPE, count=4)
    again, _ = draw_volume(3, SHAPE, count=4)
    other, _ = draw_volume(4, SHAPE, count=4)
    assert (stack.shape, labels.shape) == (SHAPE, SHAPE)
    assert (stack.dtype, labels.dtype) == (np.uint16, np.int32)
    assert np.array_equal(stack, again)
    assert not np.array_equal(stack, other)


def test_volume_bodies_are_bright_and_change_between_planes():
    stack, labels = draw_volume(0, SHAPE, count=4)
    ground = stack[labels == 0].mean()
    for label in np.unique(labels[labels > 0]):
        areas = np.count_nonzero(labels == label, axis=(1, 2))
        assert stack[labels == label].mean() > 1.5 * ground
        assert areas[SHAPE[0] // 2] > 0, "all go through the middle plane"
        assert len(set(areas[areas > 0])) > 2
