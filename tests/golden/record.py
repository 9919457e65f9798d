"""Record the outputs of the command line anew: ``python -m tests.golden.record``.

Only where results are meant to change: say in the commit which and why.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.golden.compare import run
from tests.golden.machine import machine

HERE = Path(__file__).parent


def record() -> None:
    """Write the golden files, and what machine they are of."""
    shutil.rmtree(HERE / "outputs", ignore_errors=True)
    run("tests.golden.commands", HERE / "outputs")
    text = json.dumps(machine(), indent=1)
    (HERE / "outputs_machine.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    record()
