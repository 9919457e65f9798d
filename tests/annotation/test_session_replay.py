"""Drafts in the lines of a session: which are replayed, and which are refused."""

import numpy as np
import pytest

from napari_simmat.annotation.drafts import Draft, DraftEdit, DraftSet
from napari_simmat.annotation.history import Command
from napari_simmat.annotation.prompt_state import Prompts, PromptState
from napari_simmat.annotation.session_lines import SessionHeader, line_of
from napari_simmat.annotation.session_replay import BAD_DRAFT, replayed
from napari_simmat.engine.masks import ObjectMask

SHAPE = (5, 60, 80)


def draft(corner: tuple[int, ...], size: tuple[int, ...], order: tuple[int, ...] = ()) -> Draft:
    return Draft(ObjectMask.of(np.ones(size, bool), corner), 0.8, order)


FLAT = draft((2, 0, 0), (1, 10, 10))
BAD = {
    "several planes": draft((1, 0, 0), (2, 10, 10)),
    "all planes": draft((0, 0, 0), (5, 10, 10)),
    "behind the last plane": draft((5, 0, 0), (1, 10, 10)),
    "beyond the rows": draft((2, 55, 0), (1, 10, 10)),
    "beyond the columns": draft((2, 0, 75), (1, 10, 10)),
    "fewer axes": draft((0, 0), (10, 10)),
    "a view that is none": draft((2, 0, 0), (1, 10, 10), (0, 1, 1)),
    "beyond the rows of a view": draft((2, 0, 0), (1, 10, 10), (1, 0, 2)),
}


def written(path, *lines: str):
    path.write_text("".join([SessionHeader("", SHAPE, "tiny", ()).line(), *lines]))
    return path


def proposed(*drafts: Draft) -> str:
    return line_of("drafts", DraftSet(drafts))


def settled(**how: tuple[Draft, ...]) -> str:
    return line_of("do", Command("drafts", PromptState(), PromptState(), None, DraftEdit(**how)))


@pytest.mark.parametrize("what", BAD)
def test_a_draft_off_one_plane_of_the_image_is_refused(tmp_path, what):
    file = written(tmp_path / "s.jsonl", proposed(FLAT, BAD[what]))
    with pytest.raises(ValueError, match=BAD_DRAFT):
        replayed(file, SHAPE)


@pytest.mark.parametrize("how", ["accepted", "replaced", "rejected", "ground"])
def test_a_settled_draft_of_several_planes_is_refused(tmp_path, how):
    file = written(tmp_path / "s.jsonl", proposed(FLAT), settled(**{how: (BAD["several planes"],)}))
    with pytest.raises(ValueError, match=BAD_DRAFT):
        replayed(file, SHAPE)


def test_drafts_at_the_edges_of_the_image_are_replayed(tmp_path):
    last = draft((4, 50, 70), (1, 10, 10))
    file = written(tmp_path / "s.jsonl", proposed(FLAT, last), settled(rejected=(FLAT,)))
    state = replayed(file, SHAPE)
    assert state.drafts.open == (last,)
    assert state.drafts.rejected == (FLAT,)


def test_a_draft_of_a_side_view_is_replayed(tmp_path):
    side = draft((20, 0, 0), (1, 5, 40), (1, 0, 2))
    state = replayed(written(tmp_path / "s.jsonl", proposed(side)), SHAPE)
    assert state.drafts.open == (side,)


@pytest.mark.parametrize("steps", [("undo",), ("undo", "redo"), ("undo", "redo", "undo")])
def test_undone_drafts_are_open_again(tmp_path, steps):
    lines = [line_of(step, None) for step in steps]
    file = written(tmp_path / "s.jsonl", proposed(FLAT), settled(rejected=(FLAT,)), *lines)
    state = replayed(file, SHAPE)
    assert state.drafts.open == (() if steps[-1] == "redo" else (FLAT,))


def test_a_dropped_command_leaves_the_prompts_before_it(tmp_path):
    clicked = PromptState(Prompts(points=((2.0, 5.0, 5.0),), labels=(1,)))
    command = line_of("do", Command("a click", PromptState(), clicked))
    file = written(tmp_path / "s.jsonl", command)
    assert replayed(file, SHAPE).views == {(): clicked}
    file = written(tmp_path / "s.jsonl", command, line_of("drop", None))
    assert replayed(file, SHAPE).views == {(): PromptState()}


def test_what_is_done_after_saving_is_not_saved(tmp_path):
    saved = line_of("saved", None)
    assert replayed(written(tmp_path / "s.jsonl", proposed(FLAT), saved), SHAPE).saved
    assert not replayed(written(tmp_path / "s.jsonl", saved, proposed(FLAT)), SHAPE).saved
