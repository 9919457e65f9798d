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
MEASURED = ("click", "box", "click+3")
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
    measured = {"other drawn scenes": [(each["step"], each["validation"]) for each in validations]}
    if real := [(each["step"], each["by_source"]) for each in entries if "by_source" in each]:
        measured["real sources"] = [
            (step, {kind: np.mean([row[kind] for row in rows.values()]) for kind in MEASURED})
            for step, rows in real
        ]
    count = 2 + len(measured)
    figure, axes = plt.subplots(1, count, figsize=(4 * count, 3.4), constrained_layout=True)
    curve(axes[0], steps, "loss")
    axes[0].set(title="loss", xlabel="step")
    for name in PROMPTS:
        curve(axes[1], steps, name)
    axes[1].set(title="IoU on the crops trained on", xlabel="step")
    axes[1].legend(fontsize=8)
    for axis, (title, rows) in zip(axes[2:], measured.items(), strict=True):
        for kind in MEASURED:
            steps_there = [step for step, _ in rows]
            axis.plot(steps_there, [row[kind] for _, row in rows], "o-", label=kind, ms=3)
        axis.set(title=f"mean IoU %: {title}", xlabel="step")
        axis.legend(fontsize=8)
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
