"""Record golden files anew: ``python -m tests.golden.record [scenes] [commands]``.

All of them without a word. Only where results are meant to change: say in the commit which and why.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def scenes() -> None:
    """Hashes of drawn scenes."""
    from tests.golden.compare import run

    run("tests.golden.scenes", HERE / "scenes.json")


def commands() -> None:
    """Outputs of the command line."""
    from tests.golden.compare import run
    from tests.golden.machine import machine

    for name, words in (("outputs", ()), ("outputs_slow", ("slow",))):
        shutil.rmtree(HERE / name, ignore_errors=True)
        run("tests.golden.commands", HERE / name, *words)
    write("outputs_machine.json", machine())


def write(name: str, values: Any) -> None:
    """Write a golden file of JSON."""
    (HERE / name).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


RECORDERS = {each.__name__: each for each in (scenes, commands)}

if __name__ == "__main__":
    for word in sys.argv[1:] or RECORDERS:
        RECORDERS[word]()
