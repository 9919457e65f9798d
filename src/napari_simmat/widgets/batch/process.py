"""`simmat segment` in a process of its own: paused, stopped and read line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qtpy.QtCore import Signal

from napari_simmat.widgets.batch.look import Planned
from napari_simmat.widgets.child_process import ChildProcess

# Words of `cli.remote`, which the window does not import.
PAUSE, GO, STOP = "pause", "go", "stop"
_CANCELLED = 130


@dataclass(frozen=True)
class Step:
    """One line of ``simmat segment --events``.

    Parameters
    ----------
    done, total, message
        Of files, where there are several, and in words.
    number, state
        Which task it is about, and what that is at; None for work before the first.
    file
        What became of it, once that is known.
    """

    done: int
    total: int
    message: str
    number: int | None = None
    state: str = ""
    file: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ending:
    """How a run's process ended.

    Parameters
    ----------
    kind
        ``"done"``, whatever became of each file; ``"cancelled"``; ``"failed"``: it said why it
        cannot run; ``"crashed"``: it ended without a word.
    text
        The reason in one sentence.
    """

    kind: Literal["done", "cancelled", "failed", "crashed"]
    text: str = ""


class BatchProcess(ChildProcess):
    """Runs one `simmat segment` after the other."""

    planned = Signal(object)
    """A `Planned`, before it begins: files may have come or gone since they were looked at."""
    told = Signal(object)
    """A `Step`."""
    ended = Signal(object)
    """An `Ending`."""

    def __init__(self) -> None:
        super().__init__()
        self._complete = False

    def start(self, arguments: Sequence[str]) -> None:
        """Start `simmat segment`."""
        self._complete = False
        self.begin(arguments)
        self.write(GO)  # from now on it stops by itself when the window is gone

    def read_line(self, line: str) -> bool:
        """Pass on a step."""
        try:
            values = json.loads(line)
            if "plan" in values:
                self.planned.emit(Planned.told(values["plan"]))
                return True
            if "finished" in values:
                self._complete = True
                return True
            step = Step(
                int(values["done"]),
                int(values["total"]),
                str(values["message"]),
                values.get("number"),
                str(values.get("state", "")),
                values.get("file"),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return False
        self.told.emit(step)
        return True

    def finished(self, code: int | None) -> None:
        """Say how it ended."""
        if self._complete:
            self.ended.emit(Ending("done"))
        elif code == _CANCELLED:
            self.ended.emit(Ending("cancelled"))
        elif code is not None and self.said:
            self.ended.emit(Ending("failed", self.said))
        else:
            self.ended.emit(Ending("crashed"))
