"""Several images are open: which one is segmented, what the user is told, and what is seen."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.widgets.segment.tab import KEPT
from napari_simmat.widgets.segment.work.controller import STILL_OPEN
from napari_simmat.widgets.segment.work.plane_status import (
    HIDDEN,
    NO_TOOL,
    READY,
    SHOW_IMAGE,
    ready_on,
)
from tests.widgets.scenes import CENTERS, discs, gray, iou

OTHER = gray()[:, ::-1].copy()
"""An image of the same size."""
THERE = (CENTERS[3][0], 219 - CENTERS[3][1])
"""An object of it."""


def names(window: Any) -> list[str]:
    return [layer.name for layer in window.viewer.layers]


def open_other(window: Any, **options: Any) -> Any:
    """Open a second image, as with napari's menu."""
    layer = window.viewer.add_image(OTHER, name="other", **options)
    window.idle()
    return layer


def press(window: Any, y: float, x: float) -> None:
    """Press on the image with whatever is in hand."""
    window.press(y, x)
    window.idle()


def test_click_goes_to_the_image_opened_last(ready):
    ready.click(*CENTERS[0])
    open_other(ready)
    assert ready.tab.channels.image.currentText() == "other"
    assert ready.status.text == f"{STILL_OPEN.format(image='discs')} {ready_on(READY, 'other')}"
    press(ready, *THERE)
    assert iou(ready.mask, discs()[1][:, ::-1] == 4) > 0.8
    order = names(ready)
    assert order[:2] == ["discs", "other"]
    assert order[2:] == ["SimMAT preview", "SimMAT boxes", "SimMAT points"], "all are seen"


def test_image_hidden_leads_back_to_the_lower_one(ready):
    ready.click(*CENTERS[0])
    left = ready.mask.copy()
    other = open_other(ready)
    press(ready, *THERE)
    there = ready.mask.copy()
    assert ready.tab.channels.image.currentText() == "other"
    other.visible = False
    ready.idle()
    assert ready.tab.channels.image.currentText() == "discs"
    assert np.array_equal(ready.mask, left), "what was open is open again"
    other.visible = True
    ready.idle()
    assert np.array_equal(ready.mask, there)


def test_objects_of_several_images_are_named_and_lie_on_them(ready):
    ready.type_class("cell")
    ready.add_object(*CENTERS[0])
    assert "SimMAT objects" in names(ready), "one image alone needs no name"
    other = open_other(ready)
    press(ready, *THERE)
    ready.commit()
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


def test_chosen_image_comes_to_the_front(ready):
    other = open_other(ready)
    for name, truth in (("discs", discs()[1]), ("other", discs()[1][:, ::-1])):
        ready.choose(ready.tab.channels.image, name)
        assert names(ready)[1] == name
        assert names(ready)[-1] == "SimMAT points"
        assert ready.status.text == ready_on(READY, name)
        place = THERE if name == "other" else CENTERS[3]
        press(ready, *place)
        assert iou(ready.mask, truth == 4) > 0.8, "of the image that is seen"
        ready.key(Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    ready.choose(ready.tab.channels.image, "discs")
    other.visible = ready.viewer.layers["discs"].visible = False
    ready.idle()
    ready.choose(ready.tab.channels.image, "other")
    assert other.visible


def test_image_that_is_held_and_hidden_is_offered_to_be_shown(ready):
    ready.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=4))
    ready.tab.act("segment everything")
    ready.idle()
    open_other(ready)
    assert ready.tab.channels.image.currentText() == "discs"
    press(ready, *CENTERS[3])
    assert HIDDEN.format(image="discs", front="other") in ready.status.text
    assert ready.status.offer == SHOW_IMAGE.format(image="discs"), "with a preview as well"
    ready.push(ready.tab.status.offer)
    assert names(ready)[:2] == ["other", "discs"]
    assert HIDDEN.format(image="discs", front="other") not in ready.status.text


def test_image_that_hides_little_is_not_followed(ready):
    ready.viewer.add_image(np.ones((20, 20)), name="small")
    open_other(ready, blending="additive")
    assert ready.tab.channels.image.currentText() == "discs"
    assert names(ready)[:3] == ["discs", "small", "other"]
    ready.click(*CENTERS[0])
    assert iou(ready.mask, discs()[1] == 1) > 0.8
    assert "other" not in ready.status.text


def test_click_beside_the_image_offers_to_segment_the_other(ready):
    open_other(ready, translate=(0, 230))
    assert ready.tab.channels.image.currentText() == "discs", "both are in sight"
    ready.viewer.reset_view()
    y, x = THERE[0], THERE[1] + 230
    ready.click(y, x)
    assert (ready.status.kind, ready.status.offer) == ("failed", "Segment other")
    ready.push(ready.tab.status.offer)
    assert ready.tab.channels.image.currentText() == "other"
    assert ready.status.text == ready_on(READY, "other"), "no prompt is left on the first"
    press(ready, y, x)
    assert iou(ready.mask, discs()[1][:, ::-1] == 4) > 0.8


@pytest.mark.slow
def test_everything_found_holds_its_image_until_committed(ready):
    ready.tab.act("segment everything")
    ready.idle()
    open_other(ready)
    assert ready.tab.channels.image.currentText() == "discs"
    ready.tab.buttons.commit.click()
    ready.idle()
    assert ready.objects.any()
    assert ready.tab.channels.image.currentText() == "other"


def test_tab_ready_activates_the_point_tool(window):
    window.open_widget()
    image = window.viewer.add_image(gray(), name="discs")
    window.idle()
    assert window.status.text == READY
    assert window.tab.buttons.tools["point"].isChecked()
    window.viewer.layers.selection.active = image
    window.idle()
    assert window.status.text == NO_TOOL, "a click does nothing now"
    image.data = OTHER
    window.idle()
    assert window.viewer.layers.selection.active is image, "the user's choice stays"
    window.take(window.tab.buttons.tools["point"])
    assert window.status.text == READY
    press(window, *THERE)
    assert iou(window.mask, discs()[1][:, ::-1] == 4) > 0.8
    window.take(window.tab.buttons.tools["box"])
    open_other(window)
    assert window.tab.buttons.tools["box"].isChecked(), "the tool goes along to the next image"


def test_objects_follow_the_name_of_their_image(window):
    window.viewer.add_image(gray(), name="a")
    window.viewer.add_image(gray()[::-1].copy(), name="b")
    window.start()
    window.add_object(*CENTERS[0])
    window.choose(window.tab.channels.image, "a")
    window.add_object(*CENTERS[0])
    assert "SimMAT objects of a" in window.viewer.layers
    window.viewer.layers["a"].name = "c"
    window.idle()
    assert "SimMAT objects of c" in window.viewer.layers
    assert "SimMAT objects of b" in window.viewer.layers


def test_image_closed_with_unsaved_objects_says_so(ready):
    ready.add_object(*CENTERS[0])
    ready.viewer.layers.clear()
    ready.idle()
    assert KEPT.format(objects="1 object", image="discs") in ready.status.text
    ready.viewer.add_image(gray(), name="discs")
    ready.idle()
    assert ready.status.offer == "Restore"
