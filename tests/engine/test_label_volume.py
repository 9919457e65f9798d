import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.label_volume import LabelVolume


def square(y: int, x: int, side: int, shape: tuple[int, int] = (8, 10)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_label_volume_gives_a_pixel_to_the_higher_score():
    masks = {1: (square(0, 0, 4), 0.9), 2: (square(2, 2, 4), 0.5)}
    for order in ([1, 2], [2, 1]):
        volume = LabelVolume((8, 10))
        for label in order:
            volume.add(label, *masks[label])
        assert volume.labels[3, 3] == 1
        assert volume.labels[4, 4] == 2
        assert (volume.labels == 1).sum() == 16
        assert (volume.labels == 2).sum() == 12


def test_label_volume_of_equal_scores_keeps_the_earlier():
    volume = LabelVolume((8, 10))
    for label in (3, 1, 2):
        volume.add(label, square(label, label, 4), 0.7)
    assert (volume.labels == 3).sum() == 16
    assert volume.labels[1, 1] == 1  # only mask 1 is there
    assert volume.labels[4, 2] == 1  # masks 1 and 2 are: 1 came before


def test_label_volume_adds_to_its_plane_alone():
    volume = LabelVolume((2, 3, 8, 10))
    volume.add(5, square(0, 0, 2), 1.0, plane=(1, 2))
    assert volume.labels[1, 2].sum() == 4 * 5
    volume.labels[1, 2] = 0
    assert not volume.labels.any()


def test_label_volume_places_objects_after_the_last_label():
    volume = LabelVolume((2, 8, 10))
    volume.add(3, square(0, 0, 2), 0.9, (0,))
    found = np.where(square(1, 1, 2), 1, np.where(square(4, 4, 3), 2, 0)).astype(np.uint32)
    volume.place(found, np.array([0.5, 0.6], np.float32), (1,))
    assert np.array_equal(volume.labels[1], np.where(found, found + 3, 0))
    assert [(one.label, one.plane) for one in volume.masks] == [(3, (0,)), (4, (1,)), (5, (1,))]


def test_label_volume_names_hidden_masks():
    volume = LabelVolume((8, 10))
    volume.add(1, square(2, 2, 2), 0.4)
    volume.add(2, square(0, 0, 6), 0.8)
    volume.add(3, np.zeros((8, 10), bool), 0.9)
    assert volume.hidden() == [1, 3]
