"""Drafts as values: which are open, which are doubtful, what covers them."""

import numpy as np
import pytest

from napari_simmat.annotation.drafts import (
    Draft,
    DraftEdit,
    Drafts,
    DraftSet,
    section,
    still_open,
)
from napari_simmat.engine.masks import ObjectMask


def square(y: int, x: int, side: int = 10, *, plane: int = 2, score: float = 0.9) -> Draft:
    return Draft(ObjectMask.of(np.ones((side, side), bool), (plane, y, x)), score)


A, B, C = square(0, 0, score=0.9), square(0, 20, score=0.7), square(20, 0, score=0.8)


@pytest.fixture
def drafts() -> Drafts:
    drafts = Drafts()
    drafts.propose(DraftSet((A, B, C), doubt=0.85))
    return drafts


def test_settled_drafts_are_open_again_when_taken_back(drafts):
    edits = [DraftEdit(accepted=(A,), replaced=(C,)), DraftEdit(rejected=(B,))]
    for edit in edits:
        drafts.apply(edit)
    assert drafts.open == ()
    assert drafts.rejected == (B,)
    drafts.apply(edits[1], back=True)
    assert drafts.open == (B,)
    assert drafts.rejected == ()
    drafts.apply(edits[0], back=True)
    assert drafts.open == (A, B, C)


def test_doubtful_are_below_the_threshold_least_certain_first(drafts):
    assert drafts.doubtful == [B, C]
    drafts.apply(DraftEdit(rejected=(B,)))
    assert drafts.doubtful == [C]


@pytest.mark.parametrize(("shift", "same"), [(3, True), (4, False)])
def test_proposal_like_a_settled_one_is_not_open(shift, same):
    """Shifted by 3 of 10 pixels two squares have an IoU of 0.54, by 4 of 0.43."""
    other = square(0, shift)
    assert (still_open([other, B], [A]) == (B,)) is same
    assert still_open([square(0, shift, plane=3)], [A]) != (), "another plane"


def test_proposal_again_keeps_what_was_settled(drafts):
    drafts.apply(DraftEdit(accepted=(A,), rejected=(B,)))
    drafts.propose(DraftSet((square(1, 0), square(0, 21), C)))
    assert drafts.open == (C,)
    drafts.propose(None)
    drafts.propose(DraftSet((A, B, C)))
    assert drafts.open == (A, C), "objects may be gone, what was rejected is not wanted again"


@pytest.mark.parametrize(
    ("y", "x", "side", "covered"),
    [
        (0, 0, 10, [A]),
        (0, 4, 10, [A]),  # 60 of 100 pixels
        (0, 5, 10, []),  # 50 of 100: not more than half
        (2, 2, 3, [A]),  # it lies in the draft
        (0, 0, 30, [A, B, C]),
        (40, 40, 10, []),
    ],
)
def test_object_covers_drafts_by_more_than_half(drafts, y, x, side, covered):
    assert drafts.covered_by([square(y, x, side).mask]) == tuple(covered)
    assert drafts.covered_by([square(y, x, side, plane=1).mask]) == ()
    drafts.apply(DraftEdit(rejected=(A,)))
    left = tuple(each for each in covered if each is not A)
    assert drafts.covered_by([square(y, x, side).mask]) == left


def test_object_covers_on_the_plane_and_in_the_view_of_drafts():
    """A column along z, seen from the side, where the drafts lie."""
    drafts, order = Drafts(), (1, 0, 2)
    seen = Draft(ObjectMask.of(np.ones((5, 4), bool), (7, 0, 3)), 0.9, order)  # y = 7
    drafts.propose(DraftSet((seen,)))
    column = ObjectMask.of(np.ones((9, 6, 4), bool), (0, 4, 3))
    assert drafts.covered_by([column]) == (seen,)
    assert drafts.covered_by([ObjectMask.of(np.ones((9, 2, 4), bool), (0, 4, 3))]) == ()


def test_draft_at_a_pixel_is_open(drafts):
    assert drafts.at(5, 25) == B
    assert drafts.at(15, 15) is None
    assert drafts.at(-1, 5) is None
    assert drafts.at(500, 500) is None
    drafts.apply(DraftEdit(rejected=(B,)))
    assert drafts.at(5, 25) is None
    labels = drafts.open_labels((40, 50))
    assert [labels[5, 5], labels[5, 25], labels[25, 5]] == [1, 0, 3], "numbers stay"


def test_section_is_the_part_on_a_plane():
    whole = np.zeros((3, 8, 8), bool)
    whole[1, 2:4, 5:7] = True
    whole[2, 0, 0] = True
    mask = ObjectMask.of(whole, (4, 10, 20))
    assert section(mask, (5,)) == ObjectMask.of(np.ones((2, 2), bool), (5, 12, 25))
    assert section(mask, (9,)) is None
