"""What the Train tab is to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from napari_simmat.training.config import EMBEDDED_SETTINGS, PRACTICAL_SETTINGS, TrainConfig

DEFAULT_STEPS = 500
"""Some minutes with the embedded foundation."""
DEFAULT_CONFIG = TrainConfig(steps=DEFAULT_STEPS, **PRACTICAL_SETTINGS, **EMBEDDED_SETTINGS)
"""What ``simmat train --practical`` does on an embedded base. It is written out option by option,
so that a resumed run keeps its settings even if defaults have changed."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training run of the window.

    Parameters
    ----------
    name
        Name of the new model in the list.
    base
        The foundation, by name or file.
    modality
        What the sensor measures; by default the model's name.
    folder
        Of labeled images; empty for open layers.
    channels
        Channels of the folder's images: names, or numbers from 0, separated by commas; empty for
        all.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    config
        How it is trained.
    """

    name: Annotated[str, {"label": "Name"}] = ""
    base: str = "tiny"
    modality: Annotated[str, {"label": "Modality"}] = ""
    folder: str = ""
    channels: Annotated[str, {"label": "Channels"}] = ""
    pixel_ratio: float = 1.0
    config: TrainConfig = DEFAULT_CONFIG
