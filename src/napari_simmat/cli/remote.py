"""A command that another program, such as the window, follows and steers."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from napari_simmat.progress import Job, Progress

T = TypeVar("T")

PAUSE, GO, STOP = "pause", "go", "stop"
"""What may be said on stdin, a word a line."""
_POLL = 0.05
"""Seconds between two looks while the work is paused."""


class Remote:
    """Reads words from stdin while a job runs.

    When the other end is gone after it has once said something, the job stops: nobody else would
    end it.
    """

    def __init__(self) -> None:
        self._paused = self._stopped = False
        # A daemon: nothing can wake a thread that reads stdin.
        threading.Thread(target=self._listen, name="simmat-remote", daemon=True).start()

    def steering(self, job: Job[T], describe: Callable[[Progress], Mapping[str, Any]]) -> Job[T]:
        """The same job, told on stdout step by step, paused and stopped as is said on stdin.

        Parameters
        ----------
        job
            What is done; closed in any case.
        describe
            A step as a JSON object.

        Raises
        ------
        KeyboardInterrupt
            When it was stopped.
        """
        try:
            while True:
                while self._paused and not self._stopped:
                    time.sleep(_POLL)
                if self._stopped:
                    raise KeyboardInterrupt
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
                tell(describe(progress))
                yield progress
        finally:
            job.close()

    def _listen(self) -> None:
        heard = False
        for line in sys.stdin:
            word = line.strip()
            heard = heard or word in (PAUSE, GO, STOP)
            self._paused = word == PAUSE or (self._paused and word != GO)
            self._stopped = self._stopped or word == STOP
        self._stopped = self._stopped or heard


def tell(event: Mapping[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(json.dumps(event, allow_nan=False) + "\n")
    sys.stdout.flush()
