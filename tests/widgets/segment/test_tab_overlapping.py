"""Work that overlaps: nobody waits between clicks, undo, resampling, other images and commits.

``SIMMAT_SESSIONS=200`` asks for that many random sessions, as the nightly run does.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_simmat.io.reference import ImageReference, World
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.placement import REFERENCE
from napari_simmat.widgets.segment.work import arrangement
from napari_simmat.widgets.segment.work.controller import NOTHING
from tests.widgets.gate import click_without_waiting
from tests.widgets.scenes import CENTERS, gray

SESSIONS = int(os.environ.get("SIMMAT_SESSIONS", "8"))
STEPS = 12
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


class Overlapping(RuleBasedStateMachine):
    """A person who waits for nothing; at the end everything comes to rest."""

    window: Any

    @initialize()
    def start(self) -> None:
        viewer = self.window.viewer
        viewer.add_image(gray()[::-1], name="other", visible=False)
        self.displace()
        viewer.add_image(gray(), name="t1", metadata=placed(0))
        self.window.start()
        service = self.window.controller.inference.service
        service.predict_job = slowly(service.predict_job)

    def displace(self) -> None:
        layers = self.window.viewer.layers
        if "t2" in layers:
            layers.remove("t2")
        self.window.viewer.add_image(gray(), name="t2", metadata=placed(2), visible=False)
        layers.move(len(layers) - 1, 0)
        self.moved = layers["t2"]

    @precondition(lambda self: self.moved in self.window.viewer.layers)
    @rule()
    def resample(self) -> None:
        layers = self.window.viewer.layers
        resample(self.window, layers["t1"], self.moved)

    @rule()
    def open_another_t2(self) -> None:
        self.displace()

    @rule(place=st.sampled_from(CENTERS))
    def click(self, place: tuple[int, int]) -> None:
        if self.window.workspace.plane_or_none() is not None:
            click_without_waiting(self.window, *place)
            QApplication.processEvents()

    @rule(key=st.sampled_from(["commit", "undo", "redo", "clear", "segment"]))
    def press(self, key: str) -> None:
        keys = {
            "commit": (Qt.Key.Key_C,),
            "undo": (Qt.Key.Key_Z, CTRL),
            "redo": (Qt.Key.Key_Z, CTRL | SHIFT),
            "clear": (Qt.Key.Key_C, SHIFT),
            "segment": (Qt.Key.Key_S,),
        }
        self.window.tap(*keys[key])

    @rule(name=st.sampled_from(["t1", "other"]))
    def choose_image(self, name: str) -> None:
        box = self.window.tab.channels.image
        if (index := box.findText(name)) >= 0:
            box.setCurrentIndex(index)
            box.activated.emit(index)

    @rule()
    def cancel(self) -> None:
        self.window.tab.status.canceled.emit()

    @rule()
    def roll_axes(self) -> None:
        self.window.viewer.dims.roll()

    @rule(turns=st.integers(1, 30))
    def look_on(self, turns: int) -> None:
        for _ in range(turns):
            QApplication.processEvents()

    @rule()
    def wait(self) -> None:
        self.window.idle()

    def teardown(self) -> None:
        window = self.window
        if window.widget is None:
            return
        window.idle()  # it fails where something stays busy
        controller = window.controller
        for part in (controller.inference, controller.arrangement, controller.propagation):
            assert not part.busy
        assert controller.waiting == NOTHING, "a commit waits for good"
        assert window.status.kind != "working", window.status
        window.close_widget()
        window.viewer.layers.clear()


def slowly(make: Callable[..., Job[Any]]) -> Callable[..., Job[Any]]:
    """A job that begins with many short steps, so that others meet it under way and waiting."""

    def job(*values: Any, **named: Any) -> Job[Any]:
        pause = threading.Event()
        for step in range(20):
            pause.wait(0.002)
            yield Progress(step, 20, "taking its time")
        return (yield from make(*values, **named))

    return job


def placed(x: float) -> dict[str, ImageReference]:
    affine = np.eye(4)
    affine[0, 3] = x
    return {REFERENCE: ImageReference(world=World(affine=affine, space="patient"))}


def resample(window: Any, first: Any, second: Any) -> None:
    window.controller.arrangement.resample(second, first)


def overlap(window: Any, sessions: int) -> None:
    machine = type("Machine", (Overlapping,), {"window": window})
    chosen = settings(
        max_examples=sessions,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=sessions < 50,  # the nightly run looks further
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrangement, "resample_job", slowly(arrangement.resample_job))
        run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.slow
def test_tab_overlapping_work_comes_to_rest(window):
    overlap(window, min(SESSIONS, 8))


@pytest.mark.slow
def test_tab_many_sessions_of_overlapping_work_come_to_rest(window):
    overlap(window, max(SESSIONS, 40))
