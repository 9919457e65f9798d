"""Labels of any program against true objects, with figures counted by hand."""

import doctest

import numpy as np
import pytest

from napari_simmat.evaluation import label_scores
from napari_simmat.evaluation.label_scores import LabelScore, score_labels


def squares(count=3):
    """Truth (40, 20 * count): a square of 10 x 10 in each part."""
    truth = np.zeros((40, 20 * count), np.uint16)
    for number in range(count):
        truth[15:25, 20 * number + 5 : 20 * number + 15] = number + 1
    return truth


def labels_of_three():
    """The first square is met, the second at IoU 0.6, the third missed; one label is extra."""
    labels = np.where(squares() == 1, 7, 0)
    labels[15:21, 25:35] = 8
    labels[2:6, 50:54] = 9
    return labels


def score(labels, truth, ignored=None):
    return score_labels(labels, truth, np.zeros(truth.shape, bool) if ignored is None else ignored)


def test_docstring_examples_run():
    done = doctest.testmod(label_scores)
    assert done.attempted == 4
    assert done.failed == 0


def test_figures_of_three_squares_are_counted_by_hand():
    found = score(labels_of_three(), squares())
    assert (found.labels, found.missed, found.wrong, found.replaced) == (3, 2, 2, 1)
    assert found.actions == 3, "two objects to make, one label to delete"
    assert found.figures == pytest.approx(
        {
            "found@75": 1 / 3,
            "found@50": 2 / 3,
            "wrong": 2 / 3,
            "iou": (1 + 0.6 + 0) / 3,
            "ap@50": 2 / (2 + 1 + 1),
            "ap@75": 1 / (1 + 2 + 2),
            "actions": 1.0,
        }
    )
    assert found.row["objects"] == 3


def test_object_at_an_iou_of_exactly_075_is_found():
    truth = squares(1)
    labels = np.zeros_like(truth)
    labels[15:25, 5:12] = 3
    labels[15:20, 12] = 3  # 75 of 100 pixels
    assert score(labels, truth).figures["found@75"] == 1


@pytest.mark.parametrize(("rows", "replaced"), [(5, 0), (6, 1)])
def test_wrong_label_is_replaced_if_over_half_of_it_is_made(rows, replaced):
    """A label of 100 pixels, 50 or 60 of them on a missed object."""
    truth, labels = squares(1), np.zeros((40, 20), int)
    labels[15 : 15 + rows, 5:15] = 4
    labels[30 : 40 - rows, 5:15] = 4
    found = score(labels, truth)
    assert np.count_nonzero(labels) == 100
    assert (found.wrong, found.replaced, found.actions) == (1, replaced, 2 - replaced)


def test_label_over_several_missed_objects_is_replaced_by_all():
    truth, labels = squares(3), np.zeros((40, 60), int)
    labels[15:25, 5:55] = 1  # 500 pixels, 300 of them on three objects
    found = score(labels, truth)
    assert (found.missed, found.wrong, found.replaced, found.actions) == (3, 1, 1, 3)


def test_ignored_objects_and_labels_on_them_do_not_count():
    truth = squares()
    found = score(labels_of_three(), truth, ignored=truth == 1)
    assert (len(found.best), found.labels, found.missed) == (2, 2, 2)
    assert found.figures["found@75"] == 0


def test_nothing_found_costs_an_action_for_each_object():
    found = score(np.zeros((40, 60), np.int8), squares())
    assert found.figures == pytest.approx(
        {"found@75": 0, "found@50": 0, "wrong": 0, "iou": 0, "ap@50": 0, "ap@75": 0, "actions": 1}
    )


def test_pooled_figures_are_of_all_objects():
    first = score(labels_of_three(), squares())
    second = score(squares(1), squares(1))
    together = LabelScore.pooled([first, second])
    assert together["found@75"] == 2 / 4
    assert together["ap@75"] == 2 / (2 + 2 + 2)
    assert together["actions"] == 3 / 4
    assert LabelScore.counts([first, second]) == {"objects": 4, "labels": 4}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_labels_of_any_integer_type_give_the_same(dtype):
    assert score(labels_of_three().astype(dtype), squares()) == score(labels_of_three(), squares())
