"""Record golden files anew: ``python -m research.tests.golden.record [scenes] [commands]``.

Both without a word. Only where results are meant to change: say in the commit which and why.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.golden.compare import run
from tests.golden.machine import machine

HERE = Path(__file__).parent


def scenes() -> None:
    """Hashes of drawn scenes."""
    run("research.tests.golden.scenes", HERE / "scenes.json")


def commands() -> None:
    """Outputs of a short pretraining."""
    shutil.rmtree(HERE / "outputs", ignore_errors=True)
    run("research.tests.golden.commands", HERE / "outputs")
    text = json.dumps(machine(), indent=1) + "\n"
    (HERE / "outputs_machine.json").write_text(text, "utf-8")


RECORDERS = {each.__name__: each for each in (scenes, commands)}

if __name__ == "__main__":
    for word in sys.argv[1:] or RECORDERS:
        RECORDERS[word]()
