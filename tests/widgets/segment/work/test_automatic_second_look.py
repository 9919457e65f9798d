"""The second look of *Everything*: the drafts of the first are there, and usable, meanwhile."""

import threading

import pytest

from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.work.automatic import LOOKING, STOP_LOOKING, STOPPED
from napari_simmat.widgets.segment.work.controller import HAS_DRAFTS, WAS_STOPPED
from napari_simmat.widgets.segment.work.plane_status import READY, ready_on
from tests.widgets.scenes import CENTERS, gray


@pytest.fixture
def second_look(ready, monkeypatch):
    """The window after the first look; setting the event lets the second go on."""
    gate, original = threading.Event(), InferenceService.look_again_job

    def held(*arguments):
        while not gate.wait(0.005):
            yield Progress(1, 4, "looking")
        return (yield from original(*arguments))

    monkeypatch.setattr(InferenceService, "look_again_job", held)
    tab = ready.tab
    tab.sections["everything"].set_open(True)
    tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6, second_look=True))
    ready.take(tab.automatic_panel.start)
    ready.qtbot.waitUntil(lambda: LOOKING in ready.status.text)
    yield gate
    gate.set()


def drafts(window):
    return window.workspace.session.drafts


def at_centers(labels):
    return [int(labels[int(y), int(x)]) for y, x in CENTERS]


def test_second_look_finds_drafts_of_the_first_in_place(ready, second_look):
    assert ready.status.way_out == STOP_LOOKING
    assert 0 not in at_centers(ready.preview), "the first drafts are there"
    assert not ready.tab.automatic_panel.start.isVisible()
    first = drafts(ready).open
    second_look.set()
    ready.idle()
    assert ready.status.text.startswith(f"{len(drafts(ready).open)} objects found.")
    assert len(drafts(ready).open) >= len(first)


@pytest.mark.slow
def test_second_look_leaves_what_was_settled_meanwhile(ready, second_look):
    session = ready.workspace.session
    rejected = drafts(ready).at(*CENTERS[0])
    review = ready.controller.review
    review._visited = session, rejected
    ready.controller.perform(review.reject)
    accepted = drafts(ready).at(*CENTERS[1])
    review._visited = session, accepted
    ready.controller.perform(review.accept)
    second_look.set()
    ready.idle()
    assert drafts(ready).at(*CENTERS[0]) is None
    assert drafts(ready).at(*CENTERS[1]) is None
    assert drafts(ready).at(*CENTERS[2]) is not None
    assert drafts(ready).rejected == (rejected,)
    objects = ready.objects.copy()
    assert objects[CENTERS[1]] == 1
    ready.undo()
    assert drafts(ready).at(*CENTERS[1]) is not None
    ready.undo()
    assert drafts(ready).at(*CENTERS[0]) is not None


def test_second_look_stopped_keeps_the_first(ready, second_look):
    before = drafts(ready).open
    ready.push(ready.tab.status.cancel)
    assert ready.status.text == STOPPED
    assert drafts(ready).open == before
    assert not ready.controller.automatic.proposing
    second_look.set()
    ready.idle()
    assert drafts(ready).open == before
    ready.push(ready.tab.automatic_panel.start)
    assert len(drafts(ready).open) >= len(before), "it begins anew"


def test_second_look_ends_with_the_drafts_that_are_discarded(ready, second_look):
    ready.push(ready.tab.buttons.clear)
    assert not ready.controller.automatic.proposing
    assert not drafts(ready).open
    assert not ready.preview.any()


@pytest.mark.slow
def test_everything_again_shows_both_looks_at_once(ready, second_look):
    second_look.set()
    ready.idle()
    both = {each.mask.digest for each in drafts(ready).open}
    second_look.clear()
    ready.push(ready.tab.automatic_panel.start)
    assert {each.mask.digest for each in drafts(ready).open} == both
    assert not ready.controller.automatic.proposing


@pytest.mark.slow
def test_second_look_beside_a_click_leaves_its_mask_alone(ready, second_look):
    ready.take(ready.tab.buttons.tools["point"])
    ready.press(*CENTERS[0])
    ready.qtbot.waitUntil(lambda: bool(ready.workspace.session.predictions))
    ((_, before),) = ready.workspace.session.predictions.values()
    second_look.set()
    ready.idle()
    ((_, after),) = ready.workspace.session.predictions.values()
    assert after is before
    mask = before.masks[0]
    assert (ready.preview[mask] == 1).all()
    assert ready.preview[~mask].any(), "outlines of the drafts beside it"
    assert not ready.preview[CENTERS[3]], "outlines alone"
    ready.commit()
    assert ready.objects[CENTERS[0]] == 1
    assert drafts(ready).at(*CENTERS[0]) is None
    assert drafts(ready).at(*CENTERS[3]) is not None


def test_going_over_says_what_is_left_behind(ready, second_look):
    """What the first look found waits; that the second was stopped is said with the new image."""
    other = ready.viewer.add_image(gray()[:, ::-1].copy(), name="other")
    images = ready.tab.channels.image
    ready.qtbot.waitUntil(lambda: images.findText("other") >= 0)
    images.setCurrentIndex(images.findText("other"))
    images.activated.emit(images.currentIndex())
    ready.idle()
    said = f"{HAS_DRAFTS.format(image='discs', drafts='4 drafts')} "
    said += WAS_STOPPED.format(image="discs")
    assert ready.status.text == f"{said} {ready_on(READY, 'other')}"
    assert not ready.controller.automatic.proposing
    ready.viewer.layers.remove(other)
    ready.idle()
    assert len(drafts(ready).open) == 4
