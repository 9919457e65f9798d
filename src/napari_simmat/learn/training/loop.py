"""Training of a modality checkpoint: one loop, seeded, resumable, on Lightning Fabric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset, Sample
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.describing import Student
from napari_simmat.learn.training.devices import Devices
from napari_simmat.learn.training.run import Run
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Trained:
    """The best network of a training.

    Parameters
    ----------
    student
        The network with the best weights, in evaluation mode, and what its checkpoint holds.
    spec
        The description; its metrics are the best validation, mean IoU in percent, and its step.
    validation
        The samples that it was validated on: those with an object.
    fabric
        What it was trained with.
    """

    student: Student
    spec: ModelSpec
    validation: tuple[Sample, ...]
    fabric: Fabric


def training(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    name: str,
    folder: Path,
    devices: Devices | None = None,
) -> Job[Trained]:
    """Train a network for a data set's modality on `base`; returns it as it was best.

    Parameters
    ----------
    base
        A foundation.
    dataset
        To train and validate on.
    config
        How.
    name
        The model's.
    folder
        Holds the state, from which a training that was interrupted goes on with the same bits;
        the best checkpoint so far; ``log.csv``; TensorBoard's files. A file called ``stop`` in it
        ends the training early. All nodes have to see it.
    devices
        Where; by default on one device, a GPU where there is one.

    Raises
    ------
    ValueError
        If data, base and settings do not fit together, the folder holds another training, or the
        training diverges.
    OSError
        If the disk is full; what was saved before is kept.
    """
    run = Run(base, dataset, config, name, folder, devices or Devices())
    try:
        yield from run.reading()
        yield from run.starting()
        while not run.ended:
            yield run.advance()
            if run.is_due:
                yield from run.validating()
        return Trained(*run.best(), run.validation.samples, run.fabric)
    finally:
        run.close()
