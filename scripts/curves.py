"""Plot the curves of a pretraining: ``python scripts/curves.py LOG.jsonl PICTURE.png``.

LOG is the ``log.jsonl`` in the folder of `simmat pretrain`. Needs matplotlib (dependency group
``figures``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

SMOOTH = 5
PROMPTS = ("prior", "click", "box", "corrected", "mask")


def main() -> None:
    """Read the log, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    entries = [json.loads(line) for line in options.log.read_text().splitlines()]
    steps = [each for each in entries if "loss" in each]
    validations = [each for each in entries if "validation" in each]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    curve(axes[0], steps, "loss")
    axes[0].set(title="loss", xlabel="step")
    for name in PROMPTS:
        curve(axes[1], steps, name)
    axes[1].set(title="IoU on the crops trained on", xlabel="step")
    axes[1].legend(fontsize=8)
    for name in ("click", "box", "click+3"):
        x = [each["step"] for each in validations]
        axes[2].plot(x, [each["validation"][name] for each in validations], "o-", label=name, ms=3)
    axes[2].set(title="mean IoU % on other drawn scenes", xlabel="step")
    axes[2].legend(fontsize=8)
    for each in axes:
        each.grid(alpha=0.3)
    figure.savefig(options.picture, dpi=90)


def curve(axis: Any, steps: list[dict[str, float]], name: str) -> None:
    """A quantity over the steps, averaged over some entries of the log."""
    known = [(each["step"], each[name]) for each in steps if name in each]
    if len(known) < SMOOTH:
        return
    x, y = np.array(known).T
    smooth = np.convolve(y, np.ones(SMOOTH) / SMOOTH, mode="valid")
    axis.plot(x[SMOOTH - 1 :], smooth, label=name)


if __name__ == "__main__":
    main()
