"""Segment images of any modality with a click.

The names below load on first use: importing this package loads no torch, napari or Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_simmat.engine.automatic.everything import segment_everything
    from napari_simmat.engine.automatic.settings import AutomaticSettings
    from napari_simmat.engine.checkpoints.zoo import load_model
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.engine.results import Result
    from napari_simmat.model.spec import ModelSpec
    from napari_simmat.words import __version__

__all__ = [
    "AutomaticSettings",
    "ModelSpec",
    "Predictor",
    "Prompt",
    "Result",
    "__version__",
    "load_model",
    "segment_everything",
]

_HOMES = {
    "AutomaticSettings": "napari_simmat.engine.automatic.settings",
    "ModelSpec": "napari_simmat.model.spec",
    "Predictor": "napari_simmat.engine.predictor",
    "Prompt": "napari_simmat.engine.prompts",
    "Result": "napari_simmat.engine.results",
    "__version__": "napari_simmat.words",
    "load_model": "napari_simmat.engine.checkpoints.zoo",
    "segment_everything": "napari_simmat.engine.automatic.everything",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_simmat' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
