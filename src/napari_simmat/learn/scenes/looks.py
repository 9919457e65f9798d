"""Rendering families: how a scene looks through one kind of instrument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_simmat.learn.scenes import medical, microscopy, photographs
from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.scene import Scene

Look = Callable[[Scene, np.random.Generator], Floats]


@dataclass(frozen=True)
class Family:
    """A look, how often it is drawn, and the layouts that suit it (name -> weight)."""

    look: Look
    weight: float
    layouts: dict[str, float]


_THINGS = {
    "leaves": 4.0,
    "large": 2.0,
    "discs": 1.0,
    "nested": 1.0,
    "filaments": 0.5,
    "assembled": 2.5,
}

FAMILIES: dict[str, Family] = {
    "fluorescence": Family(
        microscopy.fluorescence,
        4,
        {"cells": 8, "nucleated": 0.6, "rods": 1, "discs": 0.7, "filaments": 0.3},
    ),
    "membranes": Family(microscopy.membranes, 0.7, {"tissue": 3, "cells": 1}),
    "phase_contrast": Family(microscopy.phase_contrast, 2.5, {"rods": 6, "cells": 2, "discs": 0.5}),
    "adherent_cells": Family(
        microscopy.adherent_cells, 1, {"cells": 3, "nucleated": 1.5, "rods": 1, "discs": 0.5}
    ),
    "relief": Family(microscopy.relief, 0.8, {"cells": 3, "rods": 1.5, "discs": 1}),
    "histology": Family(microscopy.histology, 1.2, {"cells": 4, "discs": 0.3}),
    "electron": Family(
        microscopy.electron, 0.8, {"tissue": 3, "cells": 1, "nucleated": 1, "nested": 1}
    ),
    "mri": Family(medical.mri, 1.8, {"head": 3, "organs": 2, "levels": 2}),
    "ct": Family(medical.ct, 1, {"organs": 3, "head": 0.5, "levels": 1}),
    "x_ray": Family(medical.x_ray, 0.5, {"organs": 1, "leaves": 1, "large": 1, "discs": 1}),
    "ultrasound": Family(medical.ultrasound, 0.6, {"large": 2, "levels": 1, "organs": 1}),
    "dark_field": Family(medical.dark_field, 0.5, {"filaments": 2, "cells": 1, "rods": 1}),
    "natural": Family(photographs.natural, 2.5, _THINGS),
    "struck": Family(photographs.struck, 1.8, {"discs": 4, "cells": 1, "leaves": 0.5}),
    "plain": Family(
        photographs.plain,
        2,
        {**_THINGS, "cells": 2.0, "nucleated": 1.5, "tissue": 1.0, "levels": 1.0, "rods": 0.7},
    ),
    "depth": Family(photographs.depth, 0.6, _THINGS),
    "thermal": Family(photographs.thermal, 0.6, _THINGS),
}
"""Name -> `Family`. A new look is a new row; a test walks all rows."""


def render(scene: Scene, family: str, rng: np.random.Generator) -> Floats:
    """Image (H, W) or (H, W, 3) of `scene` as `family` shows it, float32 in arbitrary units."""
    if family not in FAMILIES:
        raise ValueError(f"Family {family!r} is unknown; use one of {', '.join(FAMILIES)}.")
    return np.ascontiguousarray(FAMILIES[family].look(scene, rng), np.float32)
