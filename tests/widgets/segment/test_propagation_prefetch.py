"""Planes encoded before they are looked at, and tasks that give way to a click."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.segment.propagation import around
from napari_simmat.widgets.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()
    assert worker.join(10)


def test_around_orders_planes_by_distance() -> None:
    assert around((3,), (7,)) == [(3,), (4,), (2,), (5,), (1,), (6,), (0,)]
    assert around((3,), (7,), 2) == [(3,), (4,), (2,)]
    assert around((0,), (7,), 2) == [(0,), (1,), (2,)]
    assert around((500,), (100_000,), 2) == [(500,), (501,), (499,)]
    several = around((1, 1), (3, 3))
    assert several[0] == (1, 1)
    assert set(several[1:3]) == {(1, 2), (1, 0)}, "the axis before Y and X first"
    assert sorted(several) == sorted(np.ndindex(3, 3))


def test_a_click_preempts_encoding_ahead(worker: Worker, qtbot: Any) -> None:
    log: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def behind() -> Job[str]:
        for step in range(4):
            log.append(f"behind {step}")
            yield Progress(step, 4)
            begun.set()
            if step == 1:
                go_on.wait(10)
        return "behind"

    def click() -> Job[str]:
        log.append("click")
        yield Progress(0, 1)
        return "click"

    ended: list[str] = []
    worker.returned.connect(lambda _, result: ended.append(result))
    worker.submit("ahead", behind, 2)
    assert begun.wait(10)
    worker.submit("click", click)
    go_on.set()
    qtbot.waitUntil(lambda: len(ended) == 2)
    assert ended == ["click", "behind"]
    assert log.index("click") < log.index("behind 3")
    assert [each for each in log if each != "click"] == [f"behind {n}" for n in range(4)]


def test_prefetch_waits_for_what_the_user_started(worker: Worker, qtbot: Any) -> None:
    gate = threading.Event()
    ended: list[str] = []

    def job(name: str) -> Job[str]:
        yield Progress(0, 1)
        gate.wait(10)
        return name

    worker.returned.connect(lambda _, result: ended.append(result))
    for name, rank in (("first", 0), ("ahead", 2), ("stack", 1)):
        worker.submit(name, lambda name=name: job(name), rank)
    gate.set()
    qtbot.waitUntil(lambda: len(ended) == 3)
    assert ended == ["first", "stack", "ahead"]


def test_a_new_click_replaces_waiting_clicks_only(worker: Worker, qtbot: Any) -> None:
    closed: list[str] = []
    stopped: list[str] = []
    gate = threading.Event()

    def left() -> Job[None]:
        try:
            while True:
                yield Progress(0, 1)
        finally:
            closed.append("left")

    def click() -> Job[None]:
        yield Progress(0, 1)
        gate.wait(10)

    worker.stopped.connect(lambda task: stopped.append(task.name))
    ahead = worker.submit("ahead", left, 2)
    qtbot.waitUntil(lambda: worker.running is ahead)
    first = worker.submit("click", click)
    qtbot.waitUntil(lambda: worker.running is first)
    worker.cancel_all(most=0)
    assert not ahead.canceled
    ahead.cancel()
    gate.set()
    qtbot.waitUntil(lambda: "ahead" in stopped)
    assert closed == ["left"]


def test_prefetch_encodes_the_neighbors_of_the_shown_plane(window: Any, qtbot: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (4, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    panel, service = window.tab.stack_panel, window.controller.inference.service
    panel.ahead.setChecked(True)
    qtbot.waitUntil(lambda: len(service.cache) == 4)
    window.idle()
    assert panel.encoded.text().startswith("4 planes encoded")
    assert panel.bar.isHidden()
    encodes = service.encodes
    for plane in (3, 1, 2):
        window.viewer.dims.set_current_step(0, plane)
        window.click(24, 24)
    assert service.encodes == encodes

    panel.ahead.setChecked(False)
    QTest.mouseClick(panel.clear, Qt.MouseButton.LeftButton)
    assert panel.encoded.text().startswith("0 planes encoded")
    assert len(service.cache) == 0
    QTest.mouseClick(panel.whole, Qt.MouseButton.LeftButton)
    assert panel.whole.text() == "Cancel encoding"
    qtbot.waitUntil(lambda: len(service.cache) == 4)
    window.idle()
    assert panel.whole.text() == "Encode whole stack"


def test_embeddings_are_kept_on_disk_only_if_switched_on(window: Any, qtbot: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (2, 48, 48), dtype=np.uint8)
    window.viewer.add_image(stack, name="stack")
    window.open_widget()
    tab, cache = window.tab, window.controller.inference.service.cache
    window.idle()
    assert not cache.keeps_on_disk
    tab.stack_panel.disk.setChecked(True)
    QTest.mouseClick(tab.stack_panel.whole, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(cache) == 2)
    window.idle()
    assert len(cache.store) >= 1
    assert "on disk" in tab.stack_panel.encoded.text()
    QTest.mouseClick(tab.stack_panel.clear, Qt.MouseButton.LeftButton)
    assert len(cache.store) == 0
