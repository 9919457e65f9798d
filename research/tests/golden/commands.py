"""Run `simmat pretrain`, whose outputs are golden.

``python -m research.tests.golden.commands FOLDER`` writes them into an empty folder. What differs
from run to run is taken out afterwards, as of the product's commands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.golden.commands import settle

PRETRAIN = "pretrain --families plain struck --steps 3 --output pretrain/net.safetensors"


def run(folder: Path) -> None:
    """Train for three steps in an empty folder, and keep the outputs."""
    from napari_simmat.cli import main

    output = folder / "pretrain"
    output.mkdir(parents=True)
    os.chdir(folder)
    if status := main(PRETRAIN.split()):
        raise RuntimeError(f"simmat {PRETRAIN} ended with status {status}")
    for path in [each for each in output.rglob("*") if each.is_file()]:
        settle(path)


if __name__ == "__main__":
    run(Path(sys.argv[1]).absolute())
