"""The validation's protocol, on a network whose masks are known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_simmat.models.network import Encoded
from napari_simmat.progress import finish
from napari_simmat.training.labeled_planes import LabeledPlane
from napari_simmat.training.validation import ValidationScores, protocol_mask, validate_network_job


class Knowing(nn.Module):
    """Answers each click with the square of so many pixels around it, on a grid of stride 2."""

    mask_stride = 2

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(1, 1, 1)
        self.reach = reach
        self.clicks: list[list[float]] = []
        self.inputs: list[tuple[int, ...]] = []

    def encode(self, image):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.inputs.append(tuple(image.shape))
        return Encoded(image, tuple(image.shape[-2:]))

    def decode_batch(self, encoded, points, labels):
        assert labels.tolist() == [[1, -1]] * len(points)
        height, width = (side // 2 for side in encoded.input_size)
        logits = torch.full((len(points), 4, height, width), -1.0)
        logits[:, 1:] = 1  # the other masks are never looked at
        for own, (x, y) in zip(logits, points[:, 0].tolist(), strict=True):
            self.clicks.append([x, y])
            low_y, low_x = (max(0, int(c - self.reach) // 2) for c in (y, x))
            own[0, low_y : int(y + self.reach) // 2, low_x : int(x + self.reach) // 2] = 1
        return logits, torch.zeros(len(points), 4)


class Given(list):
    """Planes that are there already."""

    native, cell_pixel = True, None


def of_labels(labels: np.ndarray) -> LabeledPlane:
    """All objects are prompted; the image does not matter."""
    ids = tuple(np.unique(labels[labels > 0]).tolist())
    return LabeledPlane("p", torch.zeros(1, *labels.shape), labels, ids)


def validated(
    network: Knowing, *planes: LabeledPlane, side: int = 64, **options: int
) -> ValidationScores:
    return finish(validate_network_job(network, Given(planes), side, **options))


def plane(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (32, 64)) -> LabeledPlane:
    labels = np.zeros(shape, np.int32)
    for number, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = number
    return of_labels(labels)


def test_validation_iou_and_dice_are_as_by_hand():
    """8 x 8 pixels are 16 cells.

    Their middle pixel is the first of row 12, of which the square sees four columns of cells
    from one to the left: x 12 to 20, so half of the object and as much beside it.
    """
    network = Knowing(4).train()
    reached = validated(network, plane((8, 16, 16, 24)))
    assert network.clicks == [[16, 12]]
    assert network.training  # as it was
    assert reached.ious == [pytest.approx(8 / 24)]
    assert reached.dices == [pytest.approx(0.5)]
    assert reached.iou == pytest.approx(1 / 3)


@pytest.mark.parametrize(("reach", "expected"), [(4, 4 / 16), (0, 0)])
def test_validation_counts_a_thin_object_where_it_touches(reach, expected):
    """The cells look at odd rows; that they see nothing of row 12 does not make nothing right."""
    reached = validated(Knowing(reach), plane((12, 16, 13, 24)))
    assert reached.ious == [pytest.approx(expected)]


def test_validation_clicks_the_middle_pixel_of_all_rows():
    """Of an L of 5 + 4 pixels row by row, the fifth counted from 0 is the last of the stem."""
    labels = np.zeros((32, 64), np.int32)
    labels[4:9, 10] = 1
    labels[9, 10:14] = 1
    network = Knowing(2)
    validated(network, of_labels(labels))
    assert network.clicks == [[10, 8]]


def test_validation_ignores_padding():
    network = Knowing(100)  # everything
    reached = validated(network, plane((0, 0, 20, 20), shape=(20, 40)))
    assert network.inputs == [(1, 1, 32, 64)]
    assert reached.ious == [pytest.approx(0.5)]


def test_validation_halves_only_for_large_objects():
    large = plane((0, 0, 64, 64), (70, 70, 80, 80), shape=(96, 96))
    network = Knowing(4)
    validated(network, large)
    assert network.inputs == [(1, 1, 64, 64)] * 2  # of 48 x 48, and a part of 96 x 96
    assert sorted(network.clicks) == [[0, 16], [38, 43]]  # the part begins at 32


def test_validation_takes_parts_of_a_large_plane():
    """Parts have 64 x 64 pixels; an object has 8 around it, unless the plane ends."""
    boxes = [(0, 0, 8, 8), (100, 100, 108, 108), (140, 138, 148, 146), (150, 102, 160, 112)]
    large = plane(*boxes, (492, 484, 500, 492), shape=(500, 500))
    network = Knowing(4)
    reached = validated(network, large)
    assert network.inputs == [(1, 1, 64, 64)] * 4
    # The third lies in the part of the second, which begins at 92, 92; the fourth ends beyond it.
    assert network.clicks == [[0, 4], [8, 12], [46, 52], [8, 13], [48, 60]]
    assert len(reached.ious) == 5
    whole = validated(network, large, side=512)
    assert network.inputs[4:] == [(1, 1, 512, 512)]
    assert sorted(reached.ious) == pytest.approx(sorted(whole.ious))


def test_validation_takes_a_part_of_a_long_thin_object():
    """A dotted line from the upper right to the lower left, on odd rows."""
    labels = np.zeros((300, 300), np.int32)
    labels[range(1, 281, 2), range(298, 18, -2)] = 1
    network = Knowing(100)
    reached = validated(network, of_labels(labels))
    assert network.inputs == [(1, 1, 64, 64)]
    assert len(reached.ious) == 1


def test_validation_spreads_prompts_over_many_objects():
    many = plane(*[(4, 4 * n, 8, 4 * n + 4) for n in range(16)])
    network = Knowing(4)
    reached = validated(network, many, many, max_objects=8)
    assert len(reached.ious) == 8
    assert [x for x, _ in network.clicks[:4]] == [0, 16, 32, 48]


def test_protocol_mask_is_on_the_plane_itself():
    network: Any = Knowing(4).eval()
    mask, (y, x) = protocol_mask(network, plane((8, 16, 16, 24)), 1, 64, True)
    expected = np.zeros((32, 64), bool)
    expected[8:16, 12:20] = True
    assert np.array_equal(mask, expected)
    assert (y, x) == (12, 16)
