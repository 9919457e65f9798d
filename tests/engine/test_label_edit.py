import numpy as np
import pytest

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.masks import ObjectMask


@pytest.mark.parametrize("corner", [(0, 0), (2, 0, 0), (1, 2, 0, 0)])
def test_label_edit_writes_reverts_and_writes_again(corner):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (*(3,) * (len(corner) - 2), 20, 30)).astype(np.int32)
    before = labels.copy()
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:20] = rng.random((4, 10)) > 0.3
    patch = LabelEdit.write(labels, ObjectMask.of(mask, corner), 9)
    after = labels.copy()
    plane = corner[:-2]
    assert (labels[plane][mask] == 9).all()
    assert np.array_equal(labels[plane][~mask], before[plane][~mask])
    patch.revert(labels)
    assert np.array_equal(labels, before)
    patch.apply(labels)
    assert np.array_equal(labels, after)


def test_label_edit_of_equal_values_is_one_number_or_none():
    labels = np.zeros((40, 40), dtype=np.uint16)
    whole = ObjectMask.of(np.ones((40, 40), dtype=bool))
    patch = LabelEdit.write(labels, whole, 3)
    assert (patch.before, patch.after) == (0, 3)
    assert LabelEdit.write(labels, whole, 3) is None, "nothing changes"


@pytest.mark.parametrize("back", [True, False])
def test_label_edit_leaves_what_was_painted_since(back):
    labels = np.zeros((6, 6), dtype=np.uint8)
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:5, 1:5] = True
    patch = LabelEdit.write(labels, ObjectMask.of(mask), 3)
    if not back:
        patch.revert(labels)
    labels[2, 2] = 7
    changed = (patch.revert if back else patch.apply)(labels)
    assert changed.mask.size == 15, "it says what was really changed"
    expected = np.where(mask, 0 if back else 3, 0)
    expected[2, 2] = 7
    assert np.array_equal(labels, expected)
