"""Every way to ask for an object, with the mouse: shapes, scribbles, masks, other candidates."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from scipy.ndimage import label
from skimage.data import coins

from napari_simmat.annotation.predictions import SMALL_PIECES, WITH_SMALL_PIECES
from napari_simmat.engine.masks import interior_point
from napari_simmat.widgets.segment.layers.prompt_adapters import BROAD, OUTLINE_WIDTH, unreadable
from tests.widgets.scenes import CENTERS, RADII, discs, iou, nucleus_in_cell

SHIFT = Qt.KeyboardModifier.ShiftModifier


def around(number: int, margin: float = 3.0) -> tuple[float, float, float, float]:
    (y, x), radius = CENTERS[number], RADII[number] + margin
    return y - radius, x - radius, y + radius, x + radius


def test_ellipse_drawn_becomes_the_object(ready):
    ready.drag(*around(1), mode="add_ellipse")
    assert ready.workspace.session.prompts.outlines[0].kind == "ellipse"
    [prompt] = ready.controller.inference.request.prompts
    assert prompt.box is not None
    assert iou(prompt.mask, discs()[1] == 2) > 0.75, "asked by its pixels too"
    assert iou(ready.preview > 0, discs()[1] == 2) > 0.8
    assert ready.tab.buttons.tools["box"].isChecked()


def test_box_keeps_main_pieces_and_crumbs_on_request(window):
    window.open(coins())
    window.drag(224, 9, 296, 83)  # a loose box around a coin
    main, said = window.preview > 0, window.status.text
    assert label(main, np.ones((3, 3)))[1] == 1
    assert main[260, 46]
    window.key(Qt.Key.Key_Q)
    everything = window.preview > 0
    pieces, count = label(everything, np.ones((3, 3)))
    assert count > 1
    assert SMALL_PIECES[SMALL_PIECES.index("}") + 1 :] in said
    assert f"{count - 1} small piece" in said
    assert WITH_SMALL_PIECES in window.status.text
    np.testing.assert_array_equal(pieces == pieces[260, 46], main)
    for _ in range(9):  # round to the beginning
        window.key(Qt.Key.Key_Q)
        if np.array_equal(window.preview > 0, main):
            break
    speck = interior_point(pieces == 1 + np.argsort(np.bincount(pieces.ravel())[1:])[-2])
    window.click(*speck)
    assert window.preview[int(speck[0]), int(speck[1])]
    window.undo()
    window.commit()
    np.testing.assert_array_equal(window.objects > 0, main)


@pytest.mark.slow
def test_box_outline_at_any_zoom_is_thin(window):
    window.open(np.eye(64, 3000, dtype=np.uint8))
    window.drag(10, 1400, 50, 1500)
    boxes, camera = window.viewer.layers["SimMAT boxes"], window.viewer.scene.camera
    for zoom in (camera.zoom, 4 * camera.zoom, 20.0):
        camera.zoom = zoom
        window.qtbot.waitUntil(
            lambda: boxes.edge_width[0] * camera.zoom == pytest.approx(OUTLINE_WIDTH)
        )
    window.drag(10, 1300, 50, 1390)
    assert boxes.edge_width[1] * camera.zoom == pytest.approx(OUTLINE_WIDTH)


@pytest.mark.slow
@pytest.mark.real_window
def test_polygon_clicked_becomes_the_object(ready):
    (y, x), radius = CENTERS[2], RADII[2]
    ready.workspace.prompt_layers.draw("box")
    ready.workspace.prompt_layers.boxes.mode = "add_polygon"
    for angle in np.linspace(0, 2 * np.pi, 7)[:-1]:
        ready.press(y + radius * np.sin(angle), x + radius * np.cos(angle))
        QApplication.processEvents()
        assert not ready.workspace.session.prompts, "nothing is asked while it is being drawn"
    ready.tap(Qt.Key.Key_Escape)
    ready.idle()
    assert ready.workspace.session.prompts.outlines[0].kind == "polygon"
    assert iou(ready.preview > 0, discs()[1] == 3) > 0.8
    ready.undo()
    assert not ready.preview.any()
    ready.redo()
    assert ready.viewer.layers["SimMAT boxes"].shape_type == ["polygon"]
    assert iou(ready.preview > 0, discs()[1] == 3) > 0.8


def test_scribble_gives_signed_points_along_it(ready):
    y0, x0, y1, x1 = 20, 30, 95, 195  # over two discs
    ready.drag(y0, x0, y1, x1)
    both = ready.preview > 0
    ready.key(Qt.Key.Key_T)
    assert not ready.workspace.prompt_layers.positive
    (y, x), radius = CENTERS[1], RADII[1]
    ready.take(ready.tab.buttons.tools["pen"])
    ready.stroke([(y, x - radius / 2), (y + 4, x), (y, x + radius / 2)])
    [box, scribble] = ready.workspace.session.prompts.outlines
    assert (box.kind, scribble.kind, scribble.label) == ("rectangle", "path", 0)
    [prompt] = ready.controller.inference.request.prompts
    assert set(prompt.labels) == {0}
    boxes, zoom = ready.viewer.layers["SimMAT boxes"], ready.viewer.scene.camera.zoom
    assert np.multiply(boxes.edge_width, zoom) == pytest.approx([OUTLINE_WIDTH] * 2)
    assert 9 - ready.precision <= len(prompt.points) <= 9, "32 pixels long, 4 apart"
    assert not ready.preview[CENTERS[1]]
    assert (ready.preview > 0).sum() < both.sum()
    assert ready.tab.buttons.tools["pen"].isChecked()
    assert not ready.tab.buttons.shapes.isChecked()
    ready.key(Qt.Key.Key_T)
    ready.key(Qt.Key.Key_C, SHIFT)
    ready.stroke([(CENTERS[0][0], CENTERS[0][1] - 9), (CENTERS[0][0], CENTERS[0][1] + 9)])
    assert iou(ready.preview > 0, discs()[1] == 1) > 0.8
    assert np.multiply(boxes.edge_width, zoom) == pytest.approx([OUTLINE_WIDTH * BROAD])
    ready.undo()
    ready.redo()
    assert np.multiply(boxes.edge_width, zoom) == pytest.approx([OUTLINE_WIDTH * BROAD])


@pytest.mark.slow
def test_scribble_mends_the_mask_of_a_box_along_its_line(ready):
    (y, x), radius = CENTERS[0], RADII[0]
    ready.drag(y - radius, x - radius, y + radius, x + radius)
    before = ready.preview > 0
    right = x + radius  # the outline
    assert before[y, right - 3], "or this is no test"
    ready.key(Qt.Key.Key_T)
    ready.take(ready.tab.buttons.tools["pen"])
    ready.stroke([(y - 8, right - 3), (y, right - 3), (y + 8, right - 3)])
    [prompt] = ready.controller.inference.request.prompts
    assert set(prompt.scribbles) == {1}
    after = ready.preview > 0
    assert not after[y - 6 : y + 7, right - 3].any(), "what the line passes is taken away"
    assert np.array_equal(after[:, : x + 1], before[:, : x + 1]), "the other half stays"
    ready.undo()
    assert np.array_equal(ready.preview > 0, before)
    ready.redo()
    assert np.array_equal(ready.preview > 0, after)


def test_box_drawn_slowly_is_one_step(ready):
    y0, x0, y1, x1 = around(0)
    ready.drag(y0, x0, y1, x1, slowly=True)
    assert len(ready.workspace.session.history) == 1
    assert iou(ready.preview > 0, discs()[1] == 1) > 0.8


def test_take_masks_of_another_layer_refines_them(ready):
    _, labels = discs()
    rough = np.zeros_like(labels)
    for number in (0, 2):
        (y, x), radius = CENTERS[number], RADII[number]
        reach = round(0.8 * radius)
        rough[y - reach : y + reach, x - reach : x + reach] = 5 + number
    layer = ready.viewer.add_labels(rough, name="rough")
    before = [iou(rough == n, labels == m) for n, m in ((5, 1), (7, 3))]
    ready.tab.masks.chosen.emit(layer)
    ready.idle()
    refined = ready.preview
    after = [iou(refined == n, labels == m) for n, m in ((1, 1), (2, 3))]
    assert min(after) > 0.8
    assert min(np.subtract(after, before)) > 0
    assert ready.tab.masks.currentText() == "none"
    ready.workspace.prompt_layers.draw("point")
    ready.commit()
    assert iou(ready.objects == 1, labels == 1) > 0.8
    assert iou(ready.objects == 2, labels == 3) > 0.8
    ready.undo(2)
    assert not ready.workspace.session.prompt_state
    layer.translate = (3, 0)
    ready.tab.masks.chosen.emit(layer)
    assert ready.status.text == (
        "rough does not lie on the image: choose labels of its size and place."
    )


@pytest.fixture
def nucleus(window):
    """A click on a nucleus in a cell: a part or the whole."""
    image = nucleus_in_cell()
    window.viewer.add_image(np.stack([image, image]), name="cells")
    window.open_widget()
    window.show_plane(0)
    assert not window.tab.candidates.isVisible(), "nothing to choose from"
    window.click(100, 90)
    return window


@pytest.mark.slow
def test_choose_mask_cycles_refines_and_commits_candidates(nucleus):
    ready = nucleus
    seen = [ready.preview.copy()]
    count = len(ready.workspace.session.predictions[(0,)][1].candidates)
    assert count > 1
    for _ in range(count - 1):
        ready.key(Qt.Key.Key_Q)
        seen.append(ready.preview.copy())
        assert f"Mask {len(seen)} of {count}" in ready.status.text
    ready.key(Qt.Key.Key_Q)
    assert np.array_equal(ready.preview, seen[0]), "round again"
    ready.undo()
    assert np.array_equal(ready.preview, seen[-1]), "a choice is undone like anything else"
    ready.commit()
    assert np.array_equal(ready.objects == 1, seen[-1] > 0)
    ready.key_over(100, 90, Qt.Key.Key_E)
    assert np.array_equal(ready.preview, seen[-1]), "it opens again with the choice"


def test_thumbnail_pressed_chooses_its_mask(nucleus):
    window, strip = nucleus, nucleus.tab.candidates

    def state():
        return [button.isChecked() for button in strip.buttons if button.isVisible()]

    prediction = window.workspace.session.predictions[(0,)][1]
    count, first = len(prediction.candidates), window.preview.copy()
    assert state() == [True, *[False] * (count - 1)]
    thumbnails = {candidate.thumbnail.tobytes() for candidate in prediction.candidates}
    assert len(thumbnails) == count > 1

    window.push(strip.buttons[1])
    assert state()[:2] == [False, True]
    assert f"Mask 2 of {count}" in window.status.text
    assert not np.array_equal(window.preview, first)
    window.key(Qt.Key.Key_Q)
    assert state().index(True) == 2 % count, "as Q goes through them"
    window.push(strip.buttons[0])
    assert np.array_equal(window.preview, first)
    assert window.controller.inference.service.encodes == 1

    window.show_plane(1)
    assert state() == [], "no prompt is on this plane"
    window.show_plane(0)
    assert state() == [True, *[False] * (count - 1)]
    window.commit()
    assert state() == [], "committed"


def test_refinement_uses_this_object_and_never_the_next(ready):
    asked: list[Any] = []
    predictor = ready.controller.inference.service.predictor
    original = predictor.predict_many_job

    def predicting(prompts):
        asked.extend(prompts)
        return (yield from original(prompts))

    predictor.predict_many_job = predicting
    ready.click(*CENTERS[1])
    alone = ready.preview.copy()
    ready.click(CENTERS[1][0] + 12, CENTERS[1][1])
    two = ready.preview.copy()
    assert [prompt.mask is not None for prompt in asked] == [False, True]
    assert asked[1].mask.dtype == np.float32
    ready.commit()
    ready.click(*CENTERS[2])
    assert asked[2].mask is None, "the next object begins from nothing"
    ready.key(Qt.Key.Key_C, SHIFT)
    ready.click(*CENTERS[1], SHIFT)  # it is committed: a plain click would select it
    assert np.array_equal(ready.preview, alone)
    ready.click(CENTERS[1][0] + 12, CENTERS[1][1])
    assert np.array_equal(ready.preview, two), "the same clicks, the same mask"


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_layer_of_the_user_is_the_source_of_prompts(ready, kind):
    if kind == "points":
        layer = ready.viewer.add_points(np.array([CENTERS[3]], dtype=float), name="mine")
    else:
        y0, x0, y1, x1 = around(3)
        layer = ready.viewer.add_shapes([[(y0, x0), (y1, x1)]], name="mine")
    ready.tab.sections["model"].set_open(True)
    ready.choose(getattr(ready.tab, kind), "mine")
    assert iou(ready.preview > 0, discs()[1] == 4) > 0.7
    ready.viewer.layers.selection.active = layer
    ready.commit()
    assert iou(ready.objects == 1, discs()[1] == 4) > 0.7
    assert len(layer.data) == 0


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_layer_with_words_as_labels_is_refused(ready, kind):
    features = {"label": ["cell"]}
    if kind == "points":
        layer = ready.viewer.add_points([CENTERS[3]], name="mine", features=features)
    else:
        layer = ready.viewer.add_shapes([[(9, 9), (30, 30)]], name="mine", features=features)
    before = getattr(ready.workspace.prompt_layers, kind)
    choice = getattr(ready.tab, kind)
    choice.chosen.emit(layer)
    ready.idle()
    assert ready.status.kind == "failed"
    assert ready.status.text == unreadable(layer)
    assert getattr(ready.workspace.prompt_layers, kind) is before
    assert choice.value() is before
    assert list(layer.features["label"]) == ["cell"]


def test_click_then_a_line_are_replayed_in_their_order(ready):
    ready.click(*CENTERS[0])
    before = ready.preview > 0
    ready.key(Qt.Key.Key_T)
    (y, x), radius = CENTERS[0], RADII[0]
    ready.take(ready.tab.buttons.tools["pen"])
    ready.stroke([(y, x + radius + 5), (y + radius + 5, x), (y, x), (y + 2, x + radius + 5)])
    [prompt] = ready.controller.inference.request.prompts
    [click] = prompt.marks[0].points
    assert np.abs(np.subtract(click, CENTERS[0])).max() <= ready.precision, "the click was first"
    assert len(prompt.marks) == 2
    assert (ready.preview > 0).sum() < before.sum()


def test_tool_in_hand_works_as_before_after_closing_the_tab(ready):
    ready.add_object(*CENTERS[0])
    ready.close_widget()
    ready.start()
    ready.click(*CENTERS[0])
    assert ready.tab.object_panel.table.value() == (1,), "a click on an object selects it"
    ready.take(ready.tab.buttons.tools["pen"])
    ready.close_widget()
    ready.start()
    steps = len(ready.workspace.session.history)
    (y, x), turn = CENTERS[1], np.linspace(0, 2 * np.pi, 12)
    ready.stroke(np.stack([y + 30 * np.sin(turn), x + 30 * np.cos(turn)], axis=1).tolist())
    assert len(ready.workspace.session.history) == steps + 1, "a line is one step"
