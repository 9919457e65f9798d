"""Which of the proposed masks become drafts, and what is said of the others; counted by hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_simmat.annotation.drafts import still_open
from napari_simmat.annotation.proposals import (
    BY_ITSELF,
    COMMIT_FOUND,
    HARDLY,
    KNOWN,
    LOOSEN,
    ChosenDrafts,
    KnownObjects,
    Proposals,
    choose_drafts_job,
)
from napari_simmat.engine.everything.candidates import MaskCandidate, MaskCandidates, PixelBox
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.progress import finish

SHAPE = (40, 60)
SETTINGS = AutomaticSettings(
    quality=0.3, stability=0, agreement=0, box_overlap=0.7, min_area=1, max_area=1, background=1
)
CORNERS = [(5, 5), (5, 25), (5, 45), (25, 5)]
"""Of the masks, squares of 10 pixels."""


def square(at: int, shift: int = 0) -> tuple[slice, slice]:
    y, x = CORNERS[at]
    return slice(y, y + 10), slice(x + shift, x + shift + 10)


def chosen(
    known: np.ndarray | None = None, settled: tuple = (), quality: float = 0.3, **more: Any
) -> ChosenDrafts:
    found = MaskCandidates(SHAPE, (quality, 0.0))
    for number, (y, x) in enumerate(CORNERS):
        box = PixelBox(y, x, y + 10, x + 10)
        mask = np.ones((10, 10), bool)
        found.add(MaskCandidate(box, 100, 0.9 - number / 10, 1.0, seed=number), mask)
    proposals = Proposals(None, SimpleNamespace(), None, (), (), candidates=found)
    proposals = replace(proposals, **{k: more.pop(k) for k in ("expected",) if k in more})
    settings = replace(SETTINGS, quality=quality)
    job = choose_drafts_job(proposals, settings, KnownObjects(known, settled), **more)
    return finish(job)


def painted(*regions: tuple[slice, slice]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for number, region in enumerate(regions, start=1):
        labels[region] = number
    return labels


def corners(result: ChosenDrafts) -> list[tuple[int, ...]]:
    return [draft.mask.corner for draft in result.drafts.drafts]


def test_masks_become_drafts_in_the_order_of_their_pixels():
    result = chosen()
    assert corners(result) == CORNERS
    assert [round(draft.score, 5) for draft in result.drafts.drafts] == [0.9, 0.8, 0.7, 0.6]
    assert result.text == f"4 objects found. {COMMIT_FOUND}"
    assert corners(chosen(quality=0.75)) == CORNERS[:2]


@pytest.mark.parametrize(
    ("regions", "gone"),
    [
        ([square(1)], [1]),
        ([square(1), square(3)], [1, 3]),
        ([square(1, shift=6)], []),  # shares four of ten columns
        ([square(1, shift=2)], [1]),
        ([(slice(5, 15), slice(25, 30)), (slice(5, 15), slice(30, 35))], [1]),  # two halves
        ([(slice(0, 40), slice(0, 20))], [0, 3]),  # around both
    ],
)
def test_what_is_committed_is_no_draft_and_is_counted(regions, gone):
    result = chosen(painted(*regions))
    assert corners(result) == [at for number, at in enumerate(CORNERS) if number not in gone]
    words = KNOWN.format(count=len(gone), were="was" if len(gone) == 1 else "were")
    assert (words in result.text) == bool(gone)
    assert ("before" in result.text) == bool(gone)


def test_what_was_rejected_is_not_open_and_is_counted():
    settled = tuple(chosen().drafts.drafts[2:])
    result = chosen(settled=settled)
    assert corners(result) == CORNERS, "undo opens it again"
    assert still_open(result.drafts.drafts, settled) == result.drafts.drafts[:2]
    assert (
        result.text == f"2 objects found. 2 more were committed or rejected before. {COMMIT_FOUND}"
    )


def test_nothing_left_says_how_to_get_more():
    result = chosen(painted(*map(square, range(4))))
    assert corners(result) == []
    assert result.text == f"0 objects found. 4 more were committed or rejected before. {LOOSEN}"
    assert chosen(quality=0.95, other_model="Take another.").text.endswith("Take another.")
    assert "Take another." not in chosen(other_model="Take another.").text


@pytest.mark.parametrize(("elsewhere", "met"), [(0, 2), (2, 2), (4, 2)])
def test_what_was_taught_is_told_with_how_many_are_found(elsewhere, met):
    away = [(slice(30, 34), slice(x, x + 4)) for x in range(30, 30 + 8 * elsewhere, 8)]
    text = chosen(painted(square(0), square(1), *away), expected="Expected: squares.").text
    told = BY_ITSELF.format(met=met, count=met + elsewhere)
    assert f"Expected: squares. {told}" in text
    assert (HARDLY in text) == (elsewhere > 2), "two of four are worth while, two of six are not"
