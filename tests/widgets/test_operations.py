from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.widgets.operations import (
    Commit,
    Operations,
    Painting,
    Patch,
    PromptChange,
    Prompts,
    plane_of,
)


def a_change(number: int) -> PromptChange:
    return PromptChange(Prompts(), Prompts(points=((0.0, float(number)),), labels=(1,)))


def test_a_hundred_steps_and_more_are_undone_and_redone_in_order() -> None:
    operations = Operations()
    changes = [a_change(number) for number in range(150)]
    for change in changes:
        operations.add(change)
    undone = [operations.undo() for _ in range(150)]
    assert undone == changes[::-1]
    assert operations.undo() is None
    assert [operations.redo() for _ in range(150)] == changes
    assert operations.redo() is None


def test_a_new_operation_forgets_what_was_undone() -> None:
    operations = Operations()
    operations.add(a_change(1))
    operations.undo()
    assert operations.can_redo
    operations.add(a_change(2))
    assert not operations.can_redo
    assert operations.undo() == a_change(2)


def test_the_list_is_bounded() -> None:
    operations = Operations(limit=3)
    for number in range(5):
        operations.add(a_change(number))
    assert len(operations) == 3
    assert operations.undo() == a_change(4)


def test_a_layer_that_is_gone_takes_its_operations_along() -> None:
    operations = Operations()
    operations.add(a_change(1))
    operations.add(Commit("layer", (), Prompts(), Prompts()))
    operations.add(Painting("layer"))
    operations.add(Painting("other"))
    operations.forget_layer("layer")
    assert [operations.undo(), operations.undo()] == [Painting("other"), a_change(1)]


@pytest.mark.parametrize("plane", [(), (2,), (1, 2)])
def test_a_patch_writes_reverts_and_writes_again(plane: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (*(3,) * len(plane), 20, 30)).astype(np.int32)
    before = labels.copy()
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:20] = rng.random((4, 10)) > 0.3
    patch = Patch.write(labels, plane, mask, 9)
    after = labels.copy()
    assert (labels[plane][mask] == 9).all()
    assert np.array_equal(labels[plane][~mask], before[plane][~mask])
    assert patch.before.size == mask.sum(), "only what was covered is kept"
    assert patch.mask.shape == (4, 10), "only the bounding box is kept"
    patch.revert(labels)
    assert np.array_equal(labels, before)
    patch.apply(labels)
    assert np.array_equal(labels, after)


def test_reverting_leaves_what_was_painted_since() -> None:
    labels = np.zeros((6, 6), dtype=np.uint8)
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:5, 1:5] = True
    patch = Patch.write(labels, (), mask, 3)
    labels[2, 2] = 7
    patch.revert(labels)
    expected = np.zeros((6, 6), dtype=np.uint8)
    expected[2, 2] = 7
    assert np.array_equal(labels, expected)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="mask is empty"):
        Patch.write(np.zeros((4, 4), int), (), np.zeros((4, 4), dtype=bool), 1)


def test_prompts_live_on_their_plane() -> None:
    prompts = Prompts(
        points=((0.0, 1.0, 1.0), (2.4, 3.0, 3.0), (1.6, 4.0, 4.0)),
        labels=(1, 0, 1),
        boxes=(((2.0, 0.0, 0.0), (2.0, 5.0, 5.0)), ((0.0, 0.0, 0.0), (0.0, 5.0, 5.0))),
    )
    here = prompts.on((2,))
    assert here.points == ((2.4, 3.0, 3.0), (1.6, 4.0, 4.0))
    assert here.labels == (0, 1)
    assert here.boxes == prompts.boxes[:1]
    rest = prompts.off((2,))
    assert rest.points == ((0.0, 1.0, 1.0),)
    assert rest.boxes == prompts.boxes[1:]
    assert plane_of((1.5, -0.5, 7, 7)) == (2, 0)
