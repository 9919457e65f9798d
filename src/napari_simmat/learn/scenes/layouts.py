"""Where objects are: a table of layouts, each a function of the image size.

Sizes run from about 8 px across to most of the field.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_simmat.learn.scenes import sections, things
from napari_simmat.learn.scenes.arrays import Shape
from napari_simmat.learn.scenes.canvas import Drawing

Layout = Callable[[np.random.Generator, Shape], Drawing]

LAYOUTS: dict[str, Layout] = {
    "leaves": things.leaves,
    "cells": things.cells,
    "nucleated": things.nucleated,
    "discs": things.discs,
    "rods": things.rods,
    "filaments": things.filaments,
    "large": things.large,
    "nested": things.nested,
    "assembled": things.assembled,
    "tissue": sections.tissue,
    "levels": sections.levels,
    "head": sections.head,
    "organs": sections.organs,
}
"""Name -> layout. A new layout is a new row; a test walks all rows."""
