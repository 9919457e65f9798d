"""Going over the drafts by mouse and keys: accept, reject, mend, replace, the doubtful first."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.drafts import Draft, DraftSet
from napari_simmat.annotation.predictions import EDITING_DRAFT
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.widgets.layer_data import canvas_size
from napari_simmat.widgets.segment.work.object_actions import COMMIT_FIRST
from napari_simmat.widgets.segment.work.review import (
    ACCEPTED,
    ACCEPTED_MANY,
    ALL_DONE,
    DECIDE,
    LEFT,
    NO_DRAFT,
    NO_DRAFTS,
    NONE_ALONG,
    NONE_DOUBTFUL,
    REJECTED,
    REJECTED_MANY,
)
from napari_simmat.widgets.shortcuts import shortcut_text
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, discs, gray, iou

ACCEPT, REJECT, NEXT, EDIT = (Qt.Key.Key_W, Qt.Key.Key_H, Qt.Key.Key_J, Qt.Key.Key_E)
BESIDE = (100, 110)
"""On none of the discs."""
CHOICE = DECIDE.format(**{name: shortcut_text(name) for name in ("accept", "reject", "edit")})


@pytest.fixture
def drafted(ready: Any) -> Any:
    """The window with four discs, and a draft on each."""
    return propose(ready)


def propose(window: Any) -> Any:
    window.tab.sections["everything"].set_open(True)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    window.push(window.tab.automatic_panel.start)
    assert at_centers(window.preview) == [True] * 4
    return window


def at_centers(labels: np.ndarray) -> list[bool]:
    return [bool(labels[center]) for center in CENTERS]


def let_all_be_doubtful(window: Any) -> list[tuple[int, int]]:
    """Set the threshold above all scores; returns the centers, the least certain first."""
    session = window.workspace.session
    window.workspace.propose(session, session.drafts.found._replace(doubt=1.0))
    drafts = sorted(session.drafts.open, key=lambda each: each.score)
    return [next(at for at in CENTERS if covers(each, at)) for each in drafts]


def open_mask(window: Any) -> np.ndarray:
    """The mask of the open prompts."""
    ((_, prediction),) = window.workspace.session.predictions.values()
    return prediction.masks[0]


def covers(draft: Any, at: tuple[int, int]) -> bool:
    return bool(draft.mask.on_plane((), (200, 220))[at])


def current(window: Any) -> tuple[int, int]:
    """The center of the disc whose draft is the current."""
    draft = window.controller.review.current
    return next(at for at in CENTERS if covers(draft, at))


def in_sight(window: Any) -> bool:
    """Whether the whole of the current draft is in view."""
    camera = getattr(window.viewer, "scene", window.viewer).camera
    half = np.array(canvas_size(window.viewer)) / 2 / camera.zoom
    low, high = window.controller.review.current.mask.box
    middle = np.array(camera.center[-2:])
    return bool((low >= middle - half).all() and (high <= middle + half).all())


def test_accept_writes_the_draft_under_the_mouse(drafted):
    before = drafted.preview.copy()
    drafted.key_over(*CENTERS[1], ACCEPT)
    assert at_centers(drafted.objects) == [False, True, False, False]
    assert at_centers(drafted.preview) == [True, False, True, True]
    assert np.array_equal(drafted.objects > 0, before == before[CENTERS[1]]), "its pixels"
    left = NONE_DOUBTFUL.format(key="C", count=3)
    assert drafted.status.text == f"{ACCEPTED.format(label=1)} {left}"
    drafted.undo()
    assert not drafted.objects.any()
    assert np.array_equal(drafted.preview, before)
    drafted.redo()
    assert at_centers(drafted.objects) == [False, True, False, False]
    assert at_centers(drafted.preview) == [True, False, True, True]


@pytest.mark.slow
def test_reject_remembers_the_mask_in_step_with_undo(drafted):
    before, session = drafted.preview.copy(), drafted.workspace.session
    for number in (1, 0):
        drafted.key_over(*CENTERS[number], REJECT)
    assert drafted.status.text.startswith(REJECTED)
    assert "SimMAT objects" not in drafted.viewer.layers
    assert at_centers(drafted.preview) == [False, False, True, True]
    assert [covers(each, CENTERS[n]) for each, n in zip(session.rejected, (1, 0), strict=True)]
    assert np.array_equal(
        session.rejected[0].mask.on_plane((), (200, 220)), before == before[CENTERS[1]]
    )
    drafted.undo()
    assert len(session.rejected) == 1
    assert at_centers(drafted.preview) == [True, False, True, True]
    drafted.undo()
    assert session.rejected == ()
    assert np.array_equal(drafted.preview, before)
    drafted.redo(2)
    assert len(session.rejected) == 2
    assert at_centers(drafted.preview) == [False, False, True, True]


def test_commit_accepts_all_that_are_left(drafted):
    drafted.key_over(*CENTERS[0], REJECT)
    drafted.key_over(*CENTERS[1], ACCEPT)
    one = drafted.objects.copy()
    drafted.commit()
    assert at_centers(drafted.objects) == [False, True, True, True]
    assert not drafted.preview.any()
    assert not drafted.controller.can_commit
    assert not drafted.tab.review_panel.isVisible()
    drafted.undo()
    assert np.array_equal(drafted.objects, one)
    assert at_centers(drafted.preview) == [False, False, True, True]
    drafted.redo()
    assert at_centers(drafted.objects) == [False, True, True, True]
    assert not drafted.preview.any()


def test_keys_beside_all_drafts_say_what_to_do(ready):
    for key in (ACCEPT, REJECT, NEXT):
        ready.key_over(*BESIDE, key)
        assert ready.status.text == NO_DRAFTS
    propose(ready)
    for key in (ACCEPT, REJECT):
        ready.key_over(*BESIDE, key)
        assert ready.status.text == NO_DRAFT.format(key="J")
    ready.click(*CENTERS[0])
    for key in (ACCEPT, REJECT):
        ready.key_over(*CENTERS[1], key)
        assert ready.status.text == COMMIT_FIRST
    assert len(ready.workspace.session.drafts.open) == 4


@pytest.mark.slow
def test_edit_opens_a_draft_and_the_commit_replaces_it(drafted):
    before, session = drafted.preview.copy(), drafted.workspace.session
    draft = before == before[CENTERS[0]]
    drafted.key_over(*CENTERS[0], EDIT)
    assert drafted.status.text.startswith(EDITING_DRAFT)
    assert np.array_equal(open_mask(drafted), draft), "as it is, until a click corrects it"
    y, x = CENTERS[0]
    drafted.key(Qt.Key.Key_T)
    drafted.click(y, x + 22)
    mended = open_mask(drafted)
    assert 0 < (mended & draft).sum() < draft.sum()
    drafted.commit()
    assert np.array_equal(drafted.objects == 1, mended)
    assert at_centers(drafted.preview) == [False, True, True, True]
    assert [covers(each, CENTERS[0]) for each in session.history.last.drafts.replaced] == [True]
    drafted.undo()
    assert not drafted.objects.any()
    assert np.array_equal(open_mask(drafted), mended), "it is open again"
    drafted.undo(3)
    assert np.array_equal(drafted.preview, before)


@pytest.mark.slow
def test_edit_of_a_mended_draft_opens_its_clicks(drafted):
    drafted.key_over(*CENTERS[0], EDIT)
    drafted.key(Qt.Key.Key_T)
    drafted.click(CENTERS[0][0], CENTERS[0][1] + 22)
    drafted.commit()
    written = drafted.objects == 1
    drafted.key_over(*CENTERS[0], EDIT)
    assert np.array_equal(open_mask(drafted), written)
    assert len(drafted.viewer.layers["SimMAT points"].data) == 1
    drafted.commit()
    assert np.array_equal(drafted.objects == 1, written)
    assert drafted.objects.max() == 1


def test_edit_and_clear_leave_the_draft_as_it_was(drafted):
    before = drafted.preview.copy()
    drafted.double_click(*CENTERS[2])
    assert drafted.status.text.startswith(EDITING_DRAFT)
    assert (drafted.preview > 0).sum() < (before > 0).sum() / 2
    drafted.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert np.array_equal(drafted.preview, before)
    drafted.key_over(*CENTERS[2], EDIT)
    drafted.commit()
    assert np.array_equal(drafted.objects > 0, before == before[CENTERS[2]])
    settled = drafted.workspace.session.history.last.drafts
    assert (len(settled.accepted), len(settled.replaced)) == (1, 0), "it was changed by nothing"


@pytest.mark.parametrize("part", nightly_but(("most of it", "a piece of it"), "a piece of it"))
def test_an_object_replaces_the_draft_that_it_covers(drafted, part):
    """Both ways: it covers most of the draft, or the draft covers most of it."""
    before = drafted.preview.copy()
    if part == "most of it":
        drafted.click(*CENTERS[3])
    else:
        y, x = CENTERS[3]
        drafted.drag(y - 5, x - 5, y + 6, x + 6, mode="add_ellipse")
    drafted.commit()
    assert at_centers(drafted.preview) == [True, True, True, False]
    assert len(drafted.workspace.session.history.last.drafts.replaced) == 1
    drafted.undo(2)
    assert np.array_equal(drafted.preview, before)
    drafted.redo(2)
    assert at_centers(drafted.preview) == [True, True, True, False]
    drafted.commit()
    assert drafted.objects.max() == 4, "the three others"


@pytest.mark.slow
def test_an_object_beside_the_drafts_replaces_none(drafted):
    before = drafted.preview.copy()
    drafted.drag(95, 5, 110, 25)
    drafted.commit()
    assert drafted.objects.any()
    assert drafted.workspace.session.history.last.drafts is None
    assert np.array_equal(drafted.preview, before)


def test_next_goes_to_the_least_certain_draft_first(drafted):
    drafted.key(NEXT)
    assert drafted.status.text == NONE_DOUBTFUL.format(key="C", count=4)
    order = let_all_be_doubtful(drafted)
    drafted.hover(*BESIDE)
    text = LEFT.format(doubtful=4)
    camera = getattr(drafted.viewer, "scene", drafted.viewer).camera
    zoom = camera.zoom
    before = tuple(camera.center)
    for center in (*order, order[0]):
        drafted.key(NEXT)
        assert current(drafted) == center
        assert drafted.status.text == f"{text} {CHOICE}"
        assert (tuple(camera.center), camera.zoom) == (before, zoom), "it is in sight"
    outline = drafted.viewer.layers["SimMAT chosen"]
    assert outline.visible
    assert outline.contour
    camera.zoom = 0.1
    drafted.push(drafted.tab.review_panel.next)
    assert current(drafted) == order[1]
    assert camera.zoom > 0.5, "one could not see it"


@pytest.mark.slow
def test_drafts_at_the_edge_come_last(window):
    values = np.full((120, 160), 40, np.uint8)
    y, x = np.indices(values.shape)
    for row, column in ((0, 30), (60, 80), (60, 159)):
        values[np.hypot(y - row, x - column) < 20] = 190
    window.open(values, name="edges")
    drafts = [
        Draft(ObjectMask.of(np.ones((9, 9), bool), at), score)
        for at, score in (((0, 20), 0.2), ((60, 70), 0.5), ((100, 90), 0.4), ((70, 151), 0.1))
    ]
    window.workspace.propose(window.workspace.session, DraftSet(tuple(drafts), doubt=1.0))
    seen = []
    for _ in range(5):
        window.key(NEXT)
        seen.append(drafts.index(window.controller.review.current))
    assert seen == [2, 1, 3, 0, 2]


def test_keys_mean_the_current_draft_while_the_mouse_rests(drafted):
    order = let_all_be_doubtful(drafted)
    last = order[3]
    drafted.hover(*last)
    drafted.key(NEXT)
    drafted.key(REJECT)
    left = LEFT.format(doubtful=3)
    assert drafted.status.text == f"{REJECTED} {left} {CHOICE}"
    assert current(drafted) == order[1], "and goes on to the next"
    drafted.key(ACCEPT)
    assert drafted.objects[order[1]]
    assert current(drafted) == order[2]
    drafted.key_over(last[0], last[1] + 3, ACCEPT)
    assert drafted.objects[last], "the mouse has moved: that under it is meant"
    assert current(drafted) == order[2], "and nothing moves"
    drafted.push(drafted.tab.review_panel.reject)
    assert drafted.status.text == f"{REJECTED} {ALL_DONE}"
    assert drafted.controller.review.current is None
    assert not drafted.viewer.layers["SimMAT chosen"].visible
    drafted.undo(4)
    assert at_centers(drafted.preview) == [True] * 4


def test_view_moves_to_what_is_out_of_sight_and_comes_back(drafted):
    order = let_all_be_doubtful(drafted)
    camera = getattr(drafted.viewer, "scene", drafted.viewer).camera
    camera.zoom, camera.center = min(canvas_size(drafted.viewer)) / 110, (0, *CENTERS[0])
    before, seen = (tuple(camera.center), camera.zoom), []
    drafted.hover(*CENTERS[0])
    for center in order:
        drafted.push(drafted.tab.review_panel.next)
        assert current(drafted) == center
        seen.append(tuple(camera.center))
        assert in_sight(drafted), "it would be cut off"
    assert len(set(seen)) > 1
    for _ in order:
        drafted.push(drafted.tab.review_panel.accept)
    assert (tuple(camera.center), camera.zoom) == before
    drafted.undo(4)
    camera.center = (0, *CENTERS[0])
    for _ in order:
        drafted.push(drafted.tab.review_panel.next)
    camera.center = (0, 20, 20)
    drafted.commit()
    assert tuple(camera.center) == (0, 20, 20), "where the user looks since, the view stays"


def test_current_draft_stands_between_four_corners(drafted):
    order = let_all_be_doubtful(drafted)
    drafted.key(NEXT)
    mark = drafted.viewer.layers["SimMAT chosen"]
    draft = drafted.controller.review.current.mask
    low = np.round(mark.affine.translate).astype(int)
    outside = np.ones(mark.data.shape, bool)
    start = draft.corner - low
    inner = tuple(slice(a, a + n) for a, n in zip(start, draft.shape, strict=True))
    outside[inner] = False
    assert (start > 0).all()
    assert {1, 2} <= set(np.unique(mark.data[outside])), "a light line and a dark one"
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert mark.data[corner] == 2
    middle = mark.data.shape[0] // 2
    assert not mark.data[middle, 0], "corners, no box"
    assert np.array_equal(mark.data[inner] == 1, draft.mask)
    assert current(drafted) == order[0]


def sweep(window: Any, path: list[tuple[float, float]], modifiers: Any) -> None:
    """Draw a line with the pen while a key is held."""
    window.take(window.tab.buttons.tools["pen"])
    window.hold(modifiers)
    window.begin_stroke(path)
    window.release_mouse(*path[-1])
    window.hold(NONE)
    window.idle()


NONE = Qt.KeyboardModifier.NoModifier
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


def test_one_line_accepts_or_rejects_all_drafts_that_it_passes(drafted):
    steps = len(drafted.workspace.session.history)
    sweep(drafted, [CENTERS[0], CENTERS[1]], CTRL)
    assert at_centers(drafted.objects) == [True, True, False, False]
    assert at_centers(drafted.preview) == [False, False, True, True]
    assert drafted.status.text.startswith(ACCEPTED_MANY.format(drafts="2 drafts"))
    assert not drafted.workspace.session.prompt_state, "no line is left"
    sweep(drafted, [CENTERS[2], CENTERS[3]], SHIFT)
    assert drafted.objects.max() == 2
    assert not drafted.workspace.session.drafts.open
    assert len(drafted.workspace.session.rejected) == 2
    assert drafted.status.text.startswith(REJECTED_MANY.format(drafts="2 drafts"))
    assert len(drafted.workspace.session.history) == steps + 2, "each line is one step"
    drafted.undo(2)
    assert at_centers(drafted.preview) == [True] * 4
    assert not drafted.objects.any()


def test_line_around_drafts_means_all_within(drafted):
    y, side = CENTERS[0][0], 60
    camera = getattr(drafted.viewer, "scene", drafted.viewer).camera
    camera.zoom, camera.center = min(canvas_size(drafted.viewer)) / 240, (0, 100, 110)
    around = [(2, 2), (2, 215), (y + side - 18, 215), (y + side - 18, 2), (3, 2)]
    sweep(drafted, around, SHIFT)
    assert at_centers(drafted.preview) == [False, False, True, True]
    sweep(drafted, [BESIDE, (BESIDE[0], BESIDE[1] + 6)], CTRL)
    assert drafted.status.text == NONE_ALONG
    assert at_centers(drafted.preview) == [False, False, True, True]


def test_box_with_a_key_means_the_drafts_within(drafted):
    window = drafted
    y0, x0, y1, x1 = 2, 2, CENTERS[1][0] + 45, 200
    window.take(window.tab.buttons.tools["box"])
    for modifiers, left in ((SHIFT, [False, False, True, True]), (CTRL, [False] * 4)):
        window.hold(modifiers)
        window.begin_stroke([(y0, x0), (y1, x1)])
        window.release_mouse(y1, x1)
        window.hold(NONE)
        window.idle()
        assert at_centers(window.preview) == left
        y0, y1 = y1 - 20, 198
    assert at_centers(window.objects) == [False, False, True, True]
    assert not window.workspace.session.prompts.outlines, "it is no prompt"
    assert not len(window.workspace.prompt_layers.boxes.data)
    window.drag(CENTERS[0][0] - 20, CENTERS[0][1] - 20, CENTERS[0][0] + 20, CENTERS[0][1] + 20)
    assert len(window.workspace.session.prompts.outlines) == 1, "without a key it is one"


@pytest.mark.real_window
@pytest.mark.slow
@pytest.mark.parametrize("tool", ["pen", "box"])
def test_stroke_tells_how_many_drafts_it_means(drafted, tool):
    window, far = drafted, (198, 218)
    drafts = window.workspace.session.drafts.open
    path = [(1, 1), far] if tool == "box" else [CENTERS[0], CENTERS[1]]
    count = len(drafts) if tool == "box" else 2
    window.viewer.reset_view()
    window.take(window.tab.buttons.tools[tool])
    for modifiers, word in ((CTRL, f"accepts {count}"), (SHIFT, f"rejects {count}")):
        window.hold(modifiers)
        window.begin_stroke(path)
        window.qtbot.waitUntil(lambda word=word: nudged(window, path[-1]) and told(window) == word)
        assert len(window.workspace.session.drafts.open) == len(drafts), "before the release"
        window.release_mouse(*path[-1])
        window.hold(NONE)
        window.idle()
        assert len(window.workspace.session.drafts.open) == len(drafts) - count
        window.undo()


def told(window: Any) -> str:
    """The word at the cursor."""
    sheet = window.controller.pen._overlay._sheet
    return "" if sheet is None else sheet._word


def nudged(window: Any, at: tuple[float, float]) -> bool:
    """Move the mouse a little, since vispy takes no more than a hundred moves a second."""
    window.move_mouse(at[0] - 1, at[1])
    window.move_mouse(*at)
    return True


def test_line_without_a_key_outlines_an_object_beside_drafts(drafted):
    sweep(drafted, [(90, 105), (90, 118), (103, 118), (103, 105), (90, 105)], NONE)
    assert len(drafted.workspace.session.prompts.outlines) == 1
    sweep(drafted, [CENTERS[0], CENTERS[1]], CTRL)
    assert len(drafted.workspace.session.drafts.open) == 4, "while something is open, it is mended"


def test_edit_means_the_current_draft_while_the_mouse_rests(drafted):
    order = let_all_be_doubtful(drafted)
    drafted.hover(*order[3])
    drafted.key(NEXT)
    drafted.key(EDIT)
    assert drafted.mask[order[0]]
    assert not drafted.mask[order[3]]
    assert not drafted.viewer.layers["SimMAT chosen"].visible, "it hides no mask"


@pytest.mark.slow
def test_filters_change_only_drafts_that_are_untouched(drafted):
    options = drafted.tab.automatic_panel.options
    drafted.key_over(*CENTERS[0], REJECT)
    drafted.key_over(*CENTERS[1], ACCEPT)
    drafted.add_object(*CENTERS[2])
    objects = drafted.objects.copy()
    options["min_area"].setValue(100_000)
    drafted.idle()
    assert not drafted.preview.any()
    options["min_area"].setValue(20)
    drafted.idle()
    assert at_centers(drafted.preview) == [False, False, False, True]
    assert np.array_equal(drafted.objects, objects)
    drafted.undo(4)
    assert at_centers(drafted.preview) == [True] * 4, "undo opens them under the filter of now"


@pytest.mark.slow
def test_everything_again_leaves_out_what_was_rejected(drafted):
    drafted.key_over(*CENTERS[0], REJECT)
    drafted.key_over(*CENTERS[1], ACCEPT)
    drafted.push(drafted.tab.automatic_panel.start)
    assert at_centers(drafted.preview) == [False, False, True, True]
    drafted.viewer.layers.remove("SimMAT objects")
    drafted.push(drafted.tab.automatic_panel.start)
    assert at_centers(drafted.preview) == [False, True, True, True], "that object is gone"


def test_drafts_wait_for_their_image_and_their_plane(window):
    window.open(np.stack([gray(), gray()[::-1]]), name="stack")
    window.tab.sections["everything"].set_open(True)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    window.push(window.tab.automatic_panel.start)
    window.key_over(*CENTERS[0], REJECT)
    preview, found = window.viewer.layers["SimMAT preview"], window.preview.copy()
    assert preview.contour
    window.show_plane(1)
    assert not preview.contour
    window.key_over(*CENTERS[1], ACCEPT)
    assert window.status.text == NO_DRAFT.format(key="J")
    let = window.workspace.session
    window.workspace.propose(let, let.drafts.found._replace(doubt=1.0))
    window.key(NEXT)
    assert window.workspace.plane() == (0,)
    assert preview.contour
    window.viewer.dims.ndisplay = 3
    assert not preview.contour, "napari has none in 3D"
    window.viewer.dims.ndisplay = 2
    assert preview.contour
    window.viewer.add_image(gray()[::-1], name="other")
    window.idle()
    window.choose(window.tab.channels.image, "other")
    assert not window.controller.review.has_drafts
    window.choose(window.tab.channels.image, "stack")
    assert np.array_equal(window.preview, found)
    window.commit()
    assert at_centers(window.objects[0]) == [False, True, True, True]


def test_drafts_are_drawn_apart_from_objects(drafted):
    preview = drafted.viewer.layers["SimMAT preview"]
    assert preview.contour
    drafted.click(*CENTERS[0])
    assert not preview.contour, "an answer is an area"
    drafted.commit()
    assert preview.contour
    assert not drafted.viewer.layers["SimMAT objects"].contour
    _, labels = discs()
    assert iou(drafted.objects == 1, labels == 1) > 0.8


def test_outlines_of_other_drafts_are_seen_beside_a_mask(drafted):
    """Boxing one object after the other, one sees which of them are drafts already."""
    drafts = drafted.preview.copy()
    box = slice(90, 116), slice(5, 31)
    drafted.drag(95, 8, 110, 28)
    mask = open_mask(drafted)
    assert np.array_equal(drafted.preview[box] > 0, mask[box]), "the mask is an area"
    beside = np.where(mask, 0, drafted.preview)
    assert np.array_equal(beside[beside > 0], drafts[beside > 0])
    for y, x in CENTERS:
        assert not beside[y, x], "of a draft the outline alone"
        row = np.flatnonzero(drafts[y] == drafts[y, x])
        assert beside[y, row[[0, -1]]].all()


def test_outline_of_a_draft_that_a_mask_replaces_is_gone(drafted):
    drafted.click(*CENTERS[3])
    mask = open_mask(drafted)
    y, x = (slice(side - 25, side + 26) for side in CENTERS[3])
    assert np.array_equal(drafted.preview[y, x] > 0, mask[y, x])
    drafted.push(drafted.tab.buttons.clear)
    assert at_centers(drafted.preview) == [True] * 4


def test_drafts_that_are_left_are_drawn_as_they_are(drafted, monkeypatch):
    layer, drawn = drafted.viewer.layers["SimMAT preview"], []
    refresh = type(layer).refresh
    monkeypatch.setattr(
        type(layer), "refresh", lambda self, *more: (drawn.append(self.name), refresh(self, *more))
    )
    drafted.key_over(*CENTERS[0], REJECT)
    assert layer.name not in drawn, "the rest stays as it is"
    whole = layer._raw_to_displayed(layer._slice.image.raw)
    assert np.array_equal(layer._slice.image.view, whole)
    drafted.undo()
    assert np.array_equal(layer._slice.image.view, layer._raw_to_displayed(layer._slice.image.raw))
