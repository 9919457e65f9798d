"""Put trained checkpoints into the package, with license and author, in half precision.

``python scripts/release_checkpoints.py thermal.safetensors depth.safetensors`` writes each into the
package's assets under its own name. The content is what `simmat train` wrote, in float16.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.io.files import ASSETS

DATA = "scenes drawn through a model of such a sensor"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    for path in options.files:
        spec = read_spec(path)
        names = ", ".join(spec.channel_names) if len(spec.channels) < 8 else "many bands"
        released = replace(
            spec,
            name=path.stem,
            description=f"{spec.modality.capitalize()} ({names}), trained on {DATA}.",
            license="BSD-3-Clause",
            author="The napari-simmat developers",
        )
        half = {name: each.to(torch.float16) for name, each in read_tensors(path).items()}
        target = ASSETS / f"{path.stem}.safetensors"
        save_checkpoint(target, released, half)
        Console().print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
