"""Several images are open: which one is segmented, what the user is told, and what is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt

from napari_simmat.widgets.segment.controller import (
    NO_TOOL,
    READY,
    hidden,
    ready_on,
    show_text,
    still_open,
)
from tests.widgets.scenes import CENTERS, discs, gray, iou

OTHER = gray()[:, ::-1].copy()
"""An image of the same size."""
THERE = (CENTERS[3][0], 219 - CENTERS[3][1])
"""An object of it."""


def names(window: Any) -> list[str]:
    return [layer.name for layer in window.viewer.layers]


def mask(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT preview"].data > 0


def open_other(window: Any, **options: Any) -> Any:
    """Open a second image, as with napari's menu."""
    layer = window.viewer.add_image(OTHER, name="other", **options)
    window.idle()
    return layer


def press(window: Any, y: float, x: float) -> None:
    """Press on the image with whatever is in hand."""
    window.press(y, x)
    window.idle()


def test_a_click_goes_to_the_image_that_was_opened_last(ready: Any) -> None:
    ready.click(*CENTERS[0])
    open_other(ready)
    assert ready.tab.channels.image.currentText() == "other"
    assert ready.status.text == f"{still_open('discs')} {ready_on(READY, 'other')}"
    press(ready, *THERE)
    assert iou(mask(ready), discs()[1][:, ::-1] == 4) > 0.8
    order = names(ready)
    assert order[:2] == ["discs", "other"]
    assert order[2:] == ["SimMAT preview", "SimMAT boxes", "SimMAT points"], "all are seen"


def test_hiding_the_upper_image_leads_back_to_the_lower_one_and_its_prompts(ready: Any) -> None:
    ready.click(*CENTERS[0])
    left = mask(ready).copy()
    other = open_other(ready)
    press(ready, *THERE)
    there = mask(ready).copy()
    assert ready.tab.channels.image.currentText() == "other"
    other.visible = False
    ready.idle()
    assert ready.tab.channels.image.currentText() == "discs"
    assert np.array_equal(mask(ready), left), "what was open is open again"
    other.visible = True
    ready.idle()
    assert np.array_equal(mask(ready), there)


def test_objects_are_named_after_their_images_and_lie_on_them(ready: Any) -> None:
    ready.type_class("cell")
    ready.click(*CENTERS[0])
    ready.key(Qt.Key.Key_C)
    assert "SimMAT objects" in names(ready), "one image alone needs no name"
    other = open_other(ready)
    press(ready, *THERE)
    ready.key(Qt.Key.Key_C)
    ours = ["SimMAT preview", "SimMAT boxes", "SimMAT points"]
    first = ["SimMAT classes of discs", "SimMAT objects of discs"]
    second = ["SimMAT classes of other", "SimMAT objects of other"]
    assert names(ready) == ["discs", *first, "other", *second, *ours]
    other.visible = False
    ready.idle()
    assert names(ready) == [*second, "discs", "other", *first, *ours], "in place of the others"
    other.visible = True
    ready.idle()
    assert names(ready) == ["discs", *first, "other", *second, *ours]


def test_an_image_that_is_hidden_by_another_is_said_to_be_and_shown_on_a_word(ready: Any) -> None:
    open_other(ready)
    ready.choose(ready.tab.channels.image, "discs")
    assert ready.status.text == f"{ready_on(READY, 'discs')} {hidden('discs', 'other')}"
    ready.take(ready.tab.status.offer)
    ready.idle()
    assert names(ready)[:2] == ["other", "discs"]
    assert names(ready)[-1] == "SimMAT points"
    assert ready.status.text == ready_on(READY, "discs")
    ready.choose(ready.tab.channels.image, "other")
    press(ready, *THERE)
    assert hidden("other", "discs") in ready.status.text
    assert ready.status.offer == show_text("other"), "with a preview as well"
    ready.take(ready.tab.status.offer)
    ready.idle()
    assert names(ready)[:2] == ["discs", "other"]
    assert ready.status.kind == "done"
    assert hidden("other", "discs") not in ready.status.text


def test_an_image_that_hides_little_is_not_followed_but_lies_below_the_prompts(ready: Any) -> None:
    ready.viewer.add_image(np.ones((20, 20)), name="small")
    open_other(ready, blending="additive")
    assert ready.tab.channels.image.currentText() == "discs"
    assert names(ready)[:3] == ["discs", "small", "other"]
    ready.click(*CENTERS[0])
    assert iou(mask(ready), discs()[1] == 1) > 0.8
    assert "other" not in ready.status.text


def test_a_click_on_an_image_beside_the_chosen_one_offers_to_segment_that(ready: Any) -> None:
    open_other(ready, translate=(0, 230))
    assert ready.tab.channels.image.currentText() == "discs", "both are in sight"
    ready.viewer.reset_view()
    y, x = THERE[0], THERE[1] + 230
    ready.click(y, x)
    assert (ready.status.kind, ready.status.offer) == ("failed", "Segment other")
    ready.take(ready.tab.status.offer)
    ready.idle()
    assert ready.tab.channels.image.currentText() == "other"
    assert ready.status.text == ready_on(READY, "other"), "no prompt is left on the first"
    press(ready, y, x)
    assert iou(mask(ready), discs()[1][:, ::-1] == 4) > 0.8


def test_objects_found_on_an_image_keep_it_until_they_are_committed(ready: Any) -> None:
    ready.tab.act("segment everything")
    ready.idle()
    open_other(ready)
    assert ready.tab.channels.image.currentText() == "discs"
    ready.tab.automatic_panel.commit.click()
    ready.idle()
    assert ready.viewer.layers["SimMAT objects"].data.any()
    assert ready.tab.channels.image.currentText() == "other"


def test_the_point_tool_is_in_hand_when_the_tab_is_ready(window: Any) -> None:
    window.open_widget()
    image = window.viewer.add_image(gray(), name="discs")
    window.idle()
    assert window.status.text == READY
    assert window.tab.buttons.point.isChecked()
    window.viewer.layers.selection.active = image
    window.idle()
    assert window.status.text == NO_TOOL, "a click does nothing now"
    image.data = OTHER
    window.idle()
    assert window.viewer.layers.selection.active is image, "the user's choice stays"
    window.take(window.tab.buttons.point)
    assert window.status.text == READY
    press(window, *THERE)
    assert iou(mask(window), discs()[1][:, ::-1] == 4) > 0.8
    window.take(window.tab.buttons.box)
    open_other(window)
    assert window.tab.buttons.box.isChecked(), "the tool goes along to the next image"
