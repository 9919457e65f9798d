"""What becomes of drafts when objects are written."""

import numpy as np
import pytest

from napari_simmat.annotation.drafts import Draft, DraftEdit, DraftSet
from napari_simmat.annotation.history import NewObject
from napari_simmat.annotation.object_changes import objects_of_drafts, settled_by
from napari_simmat.engine.masks import ObjectMask


def square(y: int, x: int, side: int = 10) -> ObjectMask:
    return ObjectMask.of(np.ones((side, side), bool), (2, y, x))


A, B = Draft(square(0, 0), 0.9), Draft(square(0, 40), 0.7)


class Known:
    """A session that knows drafts alone."""

    def __init__(self) -> None:
        from napari_simmat.annotation.drafts import Drafts

        self.drafts = Drafts()
        self.drafts.propose(DraftSet((A, B)))


@pytest.fixture
def session():
    return Known()


def changed(draft: Draft, mask: ObjectMask) -> NewObject:
    """A draft that the user has corrected to another mask."""
    return NewObject(mask, draft.score, draft=draft)


def test_a_draft_written_as_it_is_is_accepted(session):
    assert settled_by(session, objects_of_drafts([A]), []) == DraftEdit(accepted=(A,))


@pytest.mark.parametrize("mask", [square(0, 0, 9), square(1, 0), square(20, 20)])
def test_a_changed_draft_is_replaced_and_not_accepted(session, mask):
    """Also where the new mask covers little or nothing of it."""
    assert settled_by(session, [changed(A, mask)], []) == DraftEdit(replaced=(A,))


def test_each_draft_is_settled_once_and_in_its_own_way(session):
    written = [*objects_of_drafts([B]), changed(A, square(0, 0, 12))]
    assert settled_by(session, written, []) == DraftEdit(accepted=(B,), replaced=(A,))


def test_a_hidden_draft_is_replaced(session):
    assert settled_by(session, [], objects_of_drafts([A])) == DraftEdit(replaced=(A,))


def test_an_object_over_a_draft_replaces_it(session):
    other = NewObject(square(0, 40, 12), 0.9)
    assert settled_by(session, [other], []) == DraftEdit(replaced=(B,))


def test_an_accepted_draft_covers_no_other(session):
    """An object over a draft that is written too leaves that one accepted."""
    other = NewObject(square(0, 0, 12), 0.9)
    edit = settled_by(session, [*objects_of_drafts([A]), other], [])
    assert edit == DraftEdit(accepted=(A,))


def test_a_draft_that_is_not_open_is_not_settled_again(session):
    session.drafts.apply(DraftEdit(rejected=(A,)))
    assert settled_by(session, objects_of_drafts([A]), []) == DraftEdit()
    assert settled_by(session, [changed(A, square(0, 0, 9))], []) == DraftEdit()
