"""From a data set to a modality checkpoint's file, with the figures before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.comparing import comparing
from napari_simmat.learn.training.devices import Devices
from napari_simmat.learn.training.loop import training
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job


def making(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    output: Path,
    folder: Path,
    devices: Devices | None = None,
) -> Job[ModelSpec]:
    """Train a checkpoint (`training`) and write the best one to `output`; returns its description.

    Its metrics are mean IoU in percent on the validation planes: the best validation, and a click
    and a box, ``before`` with the base alone and ``after``.

    Raises
    ------
    ValueError, OSError
        See `training`. The best checkpoint so far stays in `folder`.
    """
    trained = yield from training(base, dataset, config, output.stem, folder, devices)
    spec, student, fabric = trained.spec, trained.student, trained.fabric
    if fabric.is_global_zero:
        compared = yield from comparing(
            base, spec, student.network, dataset, trained.validation, str(fabric.device)
        )
        spec = replace(spec, metrics={**spec.metrics, **compared})
        student.save(output, spec.metrics)
    fabric.barrier()
    return spec
