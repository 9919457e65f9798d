"""Holding the worker in the middle of its work."""

import threading
from typing import Any

from napari_simmat.progress import Progress
from tests.widgets.conftest import SECONDS


class Gate:
    """A click whose prediction stops at a yield until it is released."""

    def __init__(self, window: Any, y: float, x: float) -> None:
        self.window, self.open = window, threading.Event()
        self.reached, self.ended = threading.Event(), threading.Event()
        service = window.controller.inference.service
        original = service.predict_job

        def answering(question: Any, **named: Any) -> Any:
            try:
                yield Progress(1, 4, "encoding block 1 of 4")
                self.reached.set()
                assert self.open.wait(SECONDS / 1000)
                yield Progress(2, 4, "encoding block 2 of 4")
                return (yield from original(question, **named))
            finally:
                self.ended.set()

        service.predict_job = answering
        click_without_waiting(window, y, x)
        assert self.reached.wait(SECONDS / 1000)

    def release(self) -> None:
        """Let the worker go on, and wait for what follows."""
        self.open.set()
        self.window.idle()


def click_without_waiting(window: Any, y: float, x: float) -> None:
    window.workspace.prompt_layers.draw("point")
    window.press(y, x)
    window.qtbot.waitUntil(lambda: not window.workspace.prompt_layers.pending)
