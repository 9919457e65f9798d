"""Training of the embedded foundation on drawn scenes: one loop, seeded, resumable."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_simmat.learn.pretrain_step import PretrainConfig, Pretraining
from napari_simmat.learn.validation import validate
from napari_simmat.model.tiny import TinyNetwork
from napari_simmat.progress import Job, Progress


class Pretrained(NamedTuple):
    """A trained foundation, how long it was trained, and its IoU in percent on drawn scenes."""

    network: TinyNetwork
    step: int
    metrics: dict[str, float]


def pretraining(config: PretrainConfig, folder: Path, base: Path | None = None) -> Job[Pretrained]:
    """Train in `folder`, resuming what is there; returns the averaged network.

    Where nothing is there, the training goes on from the file of a `base`, or begins. The folder
    gets ``state.pt`` (to resume) and ``log.jsonl`` (losses, and IoU on scenes that training never
    draws).

    Raises
    ------
    ValueError
        If the folder holds a training with other settings, or `base` is no embedded foundation.
    """
    training, state = Pretraining(config), folder / "state.pt"
    if state.exists():
        training.restore(state)
    elif base is not None:
        training.begin(base)
    folder.mkdir(parents=True, exist_ok=True)
    sums: dict[str, list[float]] = {}
    started, begun = time.monotonic(), training.step
    while training.step < config.steps:
        figures = training.advance()
        for name, figure in figures.items():
            sums.setdefault(name, []).append(figure)
        step = training.step
        if step % 50 == 0:
            means = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
            rate = (step - begun) / (time.monotonic() - started)
            _log(folder, {"step": step, "steps_per_second": round(rate, 2), **means})
            sums.clear()
        if step % config.save_every == 0 or step == config.steps:
            training.save(state)
        if step % config.validate_every == 0 and step < config.steps:
            yield Progress(step, config.steps, "measuring on scenes that training never draws")
            _log(folder, {"step": step, "validation": validate(training.averaged, config.families)})
        yield Progress(step, config.steps, f"training, loss {figures['loss']:.2f}")
    yield Progress(training.step, training.step, "measuring on scenes that training never draws")
    metrics = validate(training.averaged, config.families)
    _log(folder, {"step": training.step, "validation": metrics})
    return Pretrained(training.averaged, training.step, metrics)


def _log(folder: Path, entry: dict[str, Any]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
