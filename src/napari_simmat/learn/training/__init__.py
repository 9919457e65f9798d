"""Training of modality checkpoints: a data set and a foundation in, one small file out."""

from napari_simmat.learn.train_config import TrainConfig, practical_config
from napari_simmat.learn.training.devices import Devices
from napari_simmat.learn.training.loop import Trained, TrainProgress, training
from napari_simmat.learn.training.making import making

__all__ = [
    "Devices",
    "TrainConfig",
    "TrainProgress",
    "Trained",
    "making",
    "practical_config",
    "training",
]
