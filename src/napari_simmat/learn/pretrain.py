"""Pretraining of the embedded foundation, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from napari_simmat.learn.pretrain_step import PretrainConfig, Pretraining
from napari_simmat.learn.training.devices import Devices
from napari_simmat.learn.training.folder import RunFolder, read_state
from napari_simmat.learn.training.run import Trainer
from napari_simmat.model.tiny import TinyNetwork
from napari_simmat.progress import Job


class Pretrained(NamedTuple):
    """A trained foundation, its number of steps, and its IoU in percent on drawn scenes."""

    network: TinyNetwork
    step: int
    metrics: dict[str, float]


def pretraining(config: PretrainConfig, folder: Path, base: Path | None = None) -> Job[Pretrained]:
    """Train in `folder`, resuming what it holds; returns the averaged network.

    If it holds nothing, training continues from the file of a `base`, or starts new. The folder
    gets ``state.pt`` (to resume) and ``log.jsonl`` (losses, and IoU on scenes that training never
    draws). A file called ``stop`` in it ends the training early.

    Raises
    ------
    ValueError
        If the folder holds a training with other settings, another process trains in it, or
        `base` is no embedded foundation.
    """
    fabric = Devices(device="cpu").fabric("32-true")
    fabric.launch()
    run_folder = RunFolder(folder)
    try:
        task = Pretraining(config, folder)
        state = read_state(folder, config.identity)
        trainer = Trainer(task, fabric, run_folder, config.identity)
        if state is not None:
            trainer.restore(state)
        elif base is not None:
            task.begin(base)
            trainer.step = task.begun
        yield from trainer.run_job()
        return Pretrained(task.averaged, trainer.step, task.metrics)
    finally:
        run_folder.close()
