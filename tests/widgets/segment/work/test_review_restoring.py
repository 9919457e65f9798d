"""Drafts are logged as they appear; a crash loses neither them nor what was done with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_simmat.annotation.drafts import Draft, DraftEdit, DraftSet
from napari_simmat.annotation.history import Command
from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.annotation.session_lines import SessionHeader, line_of
from napari_simmat.annotation.session_replay import BAD_DRAFT, replayed
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.io.files import user_folder
from napari_simmat.widgets.segment.work.automatic import NOT_KEPT
from napari_simmat.widgets.segment.work.autosave import COMMIT_OPEN, RESTORED
from tests.widgets.scenes import CENTERS, gray
from tests.widgets.segment import noted
from tests.widgets.segment.noted import crash, open_image, restore
from tests.widgets.segment.work.test_review import ACCEPT, REJECT, at_centers, propose


def work_on_drafts(window: Any) -> None:
    """One draft accepted, two rejected, one of these undone; one replaced, undone and redone."""
    propose(window)
    window.key_over(*CENTERS[0], ACCEPT)
    window.key_over(*CENTERS[1], REJECT)
    window.add_object(*CENTERS[2])
    window.undo()
    window.redo()
    window.key_over(*CENTERS[3], REJECT)
    window.undo()


def state(window: Any) -> tuple[Any, ...]:
    drafts = window.workspace.session.drafts
    return drafts.found, drafts.open, drafts.settled, drafts.rejected, drafts.doubtful


def test_recovery_restores_drafts_and_what_was_done(open_window):
    first = open_image(open_window(), gray())
    work_on_drafts(first)
    crash(first)
    second = open_image(open_window(), gray())
    assert second.status.offer == "Restore"
    restore(second)
    assert second.status.text == RESTORED.format("2 objects and 1 draft", COMMIT_OPEN)
    assert state(second) == state(first)
    assert len(second.workspace.session.rejected) == 1
    assert np.array_equal(second.objects, first.objects)
    assert np.array_equal(second.preview, first.preview)
    for each in (first, second):
        each.redo()
    assert state(second) == state(first)
    for _ in range(5):
        for each in (first, second):
            each.undo()
        assert state(second) == state(first)
        assert np.array_equal(second.preview, first.preview)
    assert at_centers(second.preview) == [True] * 4
    second.tab.automatic_panel.options["min_area"].setValue(100)
    second.idle()
    assert second.status.text == NOT_KEPT
    second.commit()
    assert at_centers(second.objects) == [True] * 4


@pytest.mark.slow
def test_drafts_alone_are_offered_until_they_are_discarded(open_window):
    first = propose(open_image(open_window(), gray()))
    found = first.preview.copy()
    first.close_widget()
    second = open_image(open_window(), gray())
    restore(second)
    assert np.array_equal(second.preview, found)
    assert len(second.workspace.session.drafts.found.drafts) == 4
    second.push(second.tab.buttons.clear)
    assert not second.preview.any()
    second.close_widget()
    assert open_image(open_window(), gray()).status.offer == ""


@pytest.mark.slow
def test_drafts_wait_for_a_tab_that_is_opened_again(ready):
    propose(ready)
    found = ready.preview.copy()
    ready.key_over(*CENTERS[1], REJECT)
    ready.close_widget()
    ready.start()
    assert at_centers(ready.preview) == [True, False, True, True]
    ready.undo()
    assert np.array_equal(ready.preview, found)


@pytest.mark.slow
def test_drafts_of_another_model_are_gone_after_a_crash_too(ready, other_foundation):
    propose(ready)
    ready.tab.models.set_value(other_foundation)
    ready.idle()
    assert not ready.preview.any()
    (path,) = user_folder("sessions").glob("*.jsonl")
    again = noted.replayed(path)
    assert again.drafts.open == ()
    assert again.saved, "there is nothing to restore"


def test_filtered_drafts_are_logged_as_the_slider_rests(ready):
    propose(ready)
    ready.tab.automatic_panel.options["min_area"].setValue(2500)
    ready.idle()
    left = ready.workspace.session.drafts.open
    assert 0 < len(left) < 4
    (path,) = user_folder("sessions").glob("*.jsonl")
    assert noted.replayed(path).drafts.open == left


@pytest.mark.parametrize(
    "draft",
    [
        Draft(ObjectMask.of(np.ones((2, 9, 9), bool))),  # on two planes
        Draft(ObjectMask.of(np.ones((9, 9), bool), (2, 55, 0))),  # beyond the edge
        Draft(ObjectMask.of(np.ones((9, 9), bool), (7, 0, 0))),  # no such plane
        Draft(ObjectMask.of(np.ones((9, 9), bool))),  # of a picture
        Draft(ObjectMask.of(np.ones((9, 9), bool), (2, 0, 0)), order=(0, 0, 1)),
        Draft(ObjectMask.of(np.ones((9, 9), bool), (50, 0, 0)), order=(2, 0, 1)),  # 5 rows there
    ],
)
@pytest.mark.parametrize("where", ["proposed", "rejected"])
def test_foreign_draft_beyond_the_image_is_refused(tmp_path: Path, draft, where):
    shape, path = (5, 60, 80), tmp_path / "some_session.jsonl"
    rejection = Command("a", PromptState(), PromptState(), None, DraftEdit(rejected=(draft,)))
    lines = {"proposed": ("drafts", DraftSet((draft,), 0.8)), "rejected": ("do", rejection)}
    path.write_text(SessionHeader("", shape, "tiny", ()).line() + line_of(*lines[where]))
    with pytest.raises(ValueError, match=f"line 2, cannot be read: {BAD_DRAFT}"):
        replayed(path, shape)
