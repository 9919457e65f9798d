"""Standard streams that may break, as on a full disk, without ending the command that prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from typing import Any, TextIO, cast

LOST = "stdout could not be written ({}); the command goes on, but what it prints is lost."


class LastingStream:
    """A text stream that drops what it cannot write, and everything after it.

    Of a pipe that was closed it raises BrokenPipeError: its reader wants no more.

    Parameters
    ----------
    stream
        The stream; None if the program was started without it.
    tell
        Called once, with the error, when the stream breaks.
    """

    def __init__(self, stream: TextIO | None, tell: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._tell = tell
        self.is_lost = False

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if self._stream is not None:
            self._try(partial(self._stream.write, text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        if self._stream is not None:
            self._try(self._stream.flush)

    def discard(self) -> None:
        """Lead what is left in the buffer nowhere: the interpreter flushes at its end."""
        if self._stream is not None:
            with suppress(OSError):  # a stream without a file
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _try(self, act: Callable[[], object]) -> None:
        if self.is_lost:
            return
        try:
            act()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.is_lost = True
            self.discard()
            self._tell(error)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream has."""
        return getattr(self._stream, name)


@contextmanager
def lasting_streams(
    complain: Callable[[str], None],
) -> Iterator[tuple[LastingStream, LastingStream]]:
    """Make stdout and stderr last meanwhile; `complain` says that stdout is lost."""
    out = LastingStream(sys.stdout, lambda error: complain(LOST.format(error.strerror)))
    err = LastingStream(sys.stderr, lambda _: None)
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
        yield out, err
