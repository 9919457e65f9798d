"""A command that another program, such as the window, watches and controls."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from napari_simmat.progress import Job, Progress, relayed

T = TypeVar("T")

PAUSE, GO, STOP = "pause", "go", "stop"
"""Words on stdin, one a line."""
_POLL = 0.05
"""Seconds between two checks while the job is paused."""


class Remote:
    """Reads words from stdin while a job runs.

    When stdin closes after at least one word, the other program is gone and the job stops.
    """

    def __init__(self) -> None:
        self._paused = self._stopped = False
        # A daemon: nothing can wake a thread that reads stdin.
        threading.Thread(target=self._listen, name="simmat-remote", daemon=True).start()

    def steering(self, job: Job[T], describe: Callable[[Progress], Mapping[str, Any]]) -> Job[T]:
        """`job`, printed on stdout step by step, paused and stopped by words on stdin.

        Parameters
        ----------
        job
            The job; closed in any case.
        describe
            A step as a JSON object.

        Raises
        ------
        KeyboardInterrupt
            When it was stopped.
        """

        def report(progress: Progress) -> Progress:
            tell(describe(progress))
            while self._paused and not self._stopped:
                time.sleep(_POLL)
            if self._stopped:
                raise KeyboardInterrupt
            return progress

        return relayed(job, report)

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
