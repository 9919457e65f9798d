"""`simmat train` in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qtpy.QtCore import Signal

from napari_simmat.widgets.child_process import ChildProcess
from napari_simmat.widgets.train.events import Metrics, read_event


@dataclass(frozen=True)
class Ending:
    """How a training's process ended.

    Parameters
    ----------
    kind
        ``"done"``: the checkpoint is written; ``"failed"``: the training said why it cannot go
        on; ``"crashed"``: it ended without a word.
    text
        The reason in one sentence.
    metrics
        Of a checkpoint that is done.
    """

    kind: Literal["done", "failed", "crashed"]
    text: str = ""
    metrics: Metrics | None = None


class TrainingProcess(ChildProcess):
    """Runs one training after the other."""

    told = Signal(object)
    """An `Event`."""
    ended = Signal(object)
    """An `Ending`."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics: Metrics | None = None

    def start(self, arguments: Sequence[str], messages: Path) -> None:
        """Start `simmat train`; what it says beside its events goes into the file `messages`."""
        self._metrics = None
        self.begin(arguments, messages)

    def read_line(self, line: str) -> bool:
        """Pass on an event."""
        event = read_event(line)
        if event is None:
            return False
        if event.metrics is not None:
            self._metrics = event.metrics
        else:
            self.told.emit(event)
        return True

    def finished(self, code: int | None) -> None:
        """Say how it ended."""
        if code == 0 and self._metrics is not None:
            self.ended.emit(Ending("done", metrics=self._metrics))
        elif code is not None and self.said:
            self.ended.emit(Ending("failed", self.said))
        else:
            self.ended.emit(Ending("crashed"))
