"""Record golden files anew: ``python -m tests.golden.record [commands] [names]``.

Both without a word. Only where results are meant to change: say in the commit which and why.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def commands() -> None:
    """Outputs of the command line."""
    from tests.golden.compare import run
    from tests.golden.machine import machine

    shutil.rmtree(HERE / "outputs", ignore_errors=True)
    run("tests.golden.commands", HERE / "outputs")
    write("outputs_machine.json", machine())


def names() -> None:
    """Public names, where there is napari."""
    from tests.golden.names import keys, names

    write("names.json", {**names(), "keys": keys()})


def write(name: str, values: Any) -> None:
    """Write a golden file of JSON."""
    (HERE / name).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


RECORDERS = {each.__name__: each for each in (commands, names)}

if __name__ == "__main__":
    for word in sys.argv[1:] or RECORDERS:
        RECORDERS[word]()
