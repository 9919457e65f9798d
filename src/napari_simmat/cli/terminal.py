"""Output of a command: results on stdout; notes, progress and errors on stderr.

With `RemoteControl` another program, such as the window, watches and controls a command.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from napari_simmat._text import pluralize
from napari_simmat.batch.options import FLAG, ChannelOptions
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import GO, PAUSE, STOP, Job, JobEvent, Progress, finish, map_progress

T = TypeVar("T")

_POLL = 0.05
"""Seconds between two checks while the job is paused."""
LOG_INTERVAL = 30.0
"""Seconds between two lines of progress where stderr is a file."""


class RemoteControl:
    """Reads words from stdin while a job runs.

    When stdin closes after at least one word, the other program is gone and the job stops.
    """

    def __init__(self) -> None:
        self._paused = self._stopped = False
        # A daemon: nothing can wake a thread that reads stdin.
        threading.Thread(target=self._listen, name="simmat-remote", daemon=True).start()

    def steer_job(self, job: Job[T], describe: Callable[[Progress], Mapping[str, Any]]) -> Job[T]:
        """`job`, printed on stdout step by step, paused and stopped by words on stdin.

        Parameters
        ----------
        job
            The job; closed in any case.
        describe
            The fields of a `JobEvent` for a step.

        Raises
        ------
        KeyboardInterrupt
            When it was stopped.
        """

        def report(progress: Progress) -> Progress:
            print_event(**describe(progress))
            while self._paused and not self._stopped:
                time.sleep(_POLL)
            if self._stopped:
                raise KeyboardInterrupt
            return progress

        return map_progress(job, report)

    def _listen(self) -> None:
        heard = False
        for line in sys.stdin:
            word = line.strip()
            heard = heard or word in (PAUSE, GO, STOP)
            self._paused = word == PAUSE or (self._paused and word != GO)
            self._stopped = self._stopped or word == STOP
        self._stopped = self._stopped or heard


def print_event(**values: Any) -> None:
    """Print the given fields of a `JobEvent` as a line of JSON on stdout, and flush it."""
    JobEvent(**values)  # checks that the window can read it
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
    sys.stdout.flush()


def step_values(progress: Progress) -> dict[str, Any]:
    """The fields of a `JobEvent` that each step has."""
    return {"done": progress.done, "total": progress.total, "message": progress.message}


MODEL, OUTPUT = Parameter(alias="-m"), Parameter(alias="-o")
"""Options with a short name."""


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Format of a command's output.

    Parameters
    ----------
    json
        For programs: print one JSON object on stdout instead of text.
    verbose
        Print what the program does in detail, not only warnings.
    debug
        Print the traceback of an error.
    config
        TOML file with options, in a table for each command: [segment], [measure], [train],
        [evaluate]. What is given here as well takes precedence.
    """

    json: Annotated[bool, FLAG] = False
    verbose: Annotated[bool, FLAG] = False
    debug: Annotated[bool, FLAG] = False
    config: Path | None = None

    def terminal(self) -> Terminal:
        """A terminal with these options."""
        return Terminal(as_json=self.json)


ComputeOptions = Annotated[Compute, Parameter(name="*", group="Computing")]


DEFAULT_OUTPUT = OutputOptions()
DEFAULT_COMPUTE = Compute()
DEFAULT_CHANNELS = ChannelOptions()


class Terminal:
    """The two output streams of a command.

    Parameters
    ----------
    as_json
        Print one JSON object on stdout instead of text.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)

    def say(self, what: RenderableType, style: str = "") -> None:
        """Print text or a table on stdout; nothing with ``--json``."""
        if self.as_json:
            return
        if isinstance(what, str):
            self.out.print(Text(what, style=style), soft_wrap=True)
        else:
            self.out.print(what)

    def result(self, values: Any) -> None:
        """Print the result as JSON; nothing without ``--json``."""
        if self.as_json:
            text = json.dumps(values, indent=1, ensure_ascii=True, allow_nan=False)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def note(self, sentence: str) -> None:
        """Print a remark on stderr."""
        self.err.print(Text(f"Note: {sentence}", style="yellow"), soft_wrap=True)

    def complain(self, sentence: str) -> None:
        """Print an error on stderr."""
        self.err.print(Text(sentence, style="red"), soft_wrap=True)

    def fail(self, sentence: str) -> None:
        """Print why the command fails: on stderr, and with ``--json`` on stdout as well."""
        self.complain(sentence)
        self.result({"error": sentence})

    def watch(self, job: Job[T], *, logs: bool = True) -> T:
        """Run a job with a progress bar; Ctrl+C closes the job, which cancels it.

        Where stderr is no terminal, `logs` prints a line now and then instead.
        """
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        bar = Bar(*columns, console=self.err, transient=True)
        logged = time.monotonic()
        shown = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            nonlocal logged
            part = progress.fraction
            now = time.monotonic()
            bar.update(
                shown,
                completed=part or 0.0,
                total=None if part is None else 1.0,
                description=progress.message,
            )
            if logs and not self.err.is_terminal and now >= logged + LOG_INTERVAL:
                logged = now
                percent = "" if part is None else f"{part:.0%}, "
                self.err.print(Text(f"{percent}{progress.message}"), soft_wrap=True)

        try:
            # Entered only on a terminal: rich before 15 prints a line even if disabled.
            with bar if self.err.is_terminal else nullcontext():
                return finish(job, show)
        finally:
            job.close()


def in_pixels(images: int) -> str:
    """What is said of so many images whose tables lack a pixel size."""
    tables = "its table is" if images == 1 else "their tables are"
    return (
        f"{pluralize(images, 'image')} without a pixel size, so {tables} in pixels; --pixel-size "
        "and --unit give it."
    )
