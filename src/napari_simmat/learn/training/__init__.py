"""Training of modality checkpoints: a data set and a foundation in, one small file out."""

from napari_simmat.learn.train_config import TrainConfig, practical_config
from napari_simmat.learn.training.devices import Devices, is_first_process
from napari_simmat.learn.training.loop import Trained, training
from napari_simmat.learn.training.making import making
from napari_simmat.learn.training.run import TrainProgress

__all__ = [
    "Devices",
    "TrainConfig",
    "TrainProgress",
    "Trained",
    "is_first_process",
    "making",
    "practical_config",
    "training",
]
