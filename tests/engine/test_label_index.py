import numpy as np

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex


def test_label_index_follows_every_edit():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (3, 12, 14)).astype(np.int32)
    index = LabelIndex.of(labels)
    assert index.sizes() == {n: int((labels == n).sum()) for n in range(1, 5)}
    patches = []
    for number in range(30):
        corner = tuple(int(n) for n in rng.integers(0, 8, 3) % (3, 8, 8))
        region = tuple(slice(n, n + 4) for n in corner)
        block = labels[region].copy()
        after = np.where(rng.random(block.shape) < 0.5, rng.integers(0, 9), block)
        patch = LabelEdit.replace(labels, corner, block, after.astype(block.dtype))
        if patch is not None:
            index.note(patch)
            patches.append(patch)
        assert index == LabelIndex.of(labels), number
    for label in index:
        voxels = index.mask(labels, label)
        assert voxels.size == index.size(label), "the box holds all of it"
    for patch in reversed(patches):
        undone = patch.revert(labels)
        index.note(undone)
    assert index == LabelIndex.of(labels)
    assert index.highest == 4


def test_label_index_of_nothing_is_empty():
    index = LabelIndex.of(np.zeros((5, 6), dtype=np.uint8))
    assert len(index) == 0
    assert index.highest == 0
    assert index.mask(np.zeros((5, 6)), 1) is None
