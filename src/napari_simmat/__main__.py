"""The program `simmat`, also as `python -m napari_simmat`."""

from __future__ import annotations

import os
import signal
import sys

from napari_simmat._text import CANCELED, CANCELED_MESSAGE


def main() -> int:
    """Run the command line; Ctrl+C is one sentence from the first import on."""
    # An interrupted import can raise anything, and nothing is open yet, so Ctrl+C ends all.
    before = signal.signal(signal.SIGINT, _end)
    from napari_simmat.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def _end(*_: object) -> None:
    os.write(2, f"{CANCELED_MESSAGE}\n".encode())
    os._exit(CANCELED)


if __name__ == "__main__":
    sys.exit(main())
