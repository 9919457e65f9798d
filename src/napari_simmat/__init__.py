"""Segment images of any modality with a click.

The names below load on first use: importing this package loads no torch, napari or Qt.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_simmat.annotation.session import Session
    from napari_simmat.batch.evaluation import Evaluation, evaluate
    from napari_simmat.batch.learning import Learned, Trained, learn, train
    from napari_simmat.batch.segmentation import (
        FolderSegmentation,
        Segmentation,
        segment,
        segment_folder,
    )
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.everything.generator import segment_everything
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.engine.result import Result
    from napari_simmat.engine.settings import AutomaticSettings, Compute, PropagationSettings
    from napari_simmat.engine.table_settings import TableSettings
    from napari_simmat.io.part import ImagePart
    from napari_simmat.io.readers import read_image
    from napari_simmat.models.spec import ModelSpec
    from napari_simmat.training.few_shot import learn_objects

# OpenMP's threads wait busily for each other, which takes most of the time of cores that other
# programs use, too: there an image takes three times as long. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

__all__ = [
    "AutomaticSettings",
    "Compute",
    "Evaluation",
    "FolderSegmentation",
    "ImagePart",
    "Learned",
    "ModelSpec",
    "ObjectKind",
    "Predictor",
    "Prompt",
    "PropagationSettings",
    "Result",
    "Segmentation",
    "Session",
    "TableSettings",
    "Trained",
    "__version__",
    "evaluate",
    "learn",
    "learn_objects",
    "load_model",
    "read_image",
    "segment",
    "segment_everything",
    "segment_folder",
    "train",
]

_HOMES = {
    "AutomaticSettings": "napari_simmat.engine.settings",
    "Compute": "napari_simmat.engine.settings",
    "Evaluation": "napari_simmat.batch.evaluation",
    "FolderSegmentation": "napari_simmat.batch.segmentation",
    "ImagePart": "napari_simmat.io.part",
    "Learned": "napari_simmat.batch.learning",
    "ModelSpec": "napari_simmat.models.spec",
    "ObjectKind": "napari_simmat.engine.object_kind",
    "Predictor": "napari_simmat.engine.predictor",
    "Prompt": "napari_simmat.engine.prompts",
    "PropagationSettings": "napari_simmat.engine.settings",
    "Result": "napari_simmat.engine.result",
    "Segmentation": "napari_simmat.batch.segmentation",
    "Session": "napari_simmat.annotation.session",
    "TableSettings": "napari_simmat.engine.table_settings",
    "Trained": "napari_simmat.batch.learning",
    "evaluate": "napari_simmat.batch.evaluation",
    "learn": "napari_simmat.batch.learning",
    "learn_objects": "napari_simmat.training.few_shot",
    "load_model": "napari_simmat.checkpoints.loading",
    "read_image": "napari_simmat.io.readers",
    "segment": "napari_simmat.batch.segmentation",
    "segment_everything": "napari_simmat.engine.everything.generator",
    "segment_folder": "napari_simmat.batch.segmentation",
    "train": "napari_simmat.batch.learning",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_simmat' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
