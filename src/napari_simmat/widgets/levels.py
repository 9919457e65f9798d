"""Levels of multiscale images: which one is segmented, and where its pixels lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine

_LEVEL = "SimMAT level"
LARGEST_SIDE = 4096
"""Of a multiscale image the finest level is segmented whose planes have no longer side."""


def level_of(layer: Image) -> int:
    """The level of a layer that is segmented: the chosen one, or the finest not too large.

    A network looks at some thousand pixels across at most; a finer level would only cost memory.
    """
    if not layer.multiscale:
        return 0
    chosen = layer.metadata.get(_LEVEL)
    if chosen in range(len(layer.data)):
        return int(chosen)
    fits = [
        level
        for level in range(len(layer.data))
        if max(image_shape(layer, level)[-2:]) <= LARGEST_SIDE
    ]
    return fits[0] if fits else len(layer.data) - 1


def choose_level(layer: Image, level: int) -> None:
    """Have this level of a multiscale layer segmented from now on."""
    layer.metadata[_LEVEL] = level


def image_shape(layer: Image, level: int = 0) -> tuple[int, ...]:
    """Shape of an image layer, of a multiscale one at `level`, without an RGB layer's colours."""
    data = layer.data[level] if layer.multiscale else layer.data
    return tuple(int(size) for size in (data.shape[:-1] if layer.rgb else data.shape))


def coarser(factors: np.ndarray) -> np.ndarray:
    """Matrix (n + 1, n + 1) from the pixels of a coarser level to those of the finest.

    A coarse pixel covers `factors` fine ones, so that its centre lies between them.
    """
    matrix = np.eye(len(factors) + 1)
    matrix[:-1, :-1] = np.diag(factors)
    matrix[:-1, -1] = (factors - 1) / 2
    return matrix


def at_level(options: dict[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Keywords of a layer whose pixels are those of a coarser level."""
    if np.all(factors == 1):
        return options
    linear = {name: options[name] for name in ("scale", "rotate", "shear") if name in options}
    matrix = Affine(**linear, ndim=len(factors)).linear_matrix
    return {
        **options,
        "scale": np.asarray(options["scale"]) * factors,
        "translate": np.asarray(options["translate"]) + matrix @ ((factors - 1) / 2),
    }
