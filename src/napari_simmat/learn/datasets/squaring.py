"""Labelled planes whose pixels become square, as the predictor shows them to the network."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.frames import Frame, squared
from napari_simmat.model.spec import InputSize

Id = TypeVar("Id", bound=np.generic)


def square(
    values: NDArray[np.float32], labels: NDArray[Id], pixel_size: tuple[float, float] | None
) -> tuple[NDArray[np.float32], NDArray[Id]]:
    """Values (C, Y, X) and ids (Y, X) on square pixels; as they are where these are known to be.

    Parameters
    ----------
    values, labels
        The plane.
    pixel_size
        Height and width of a pixel, in any unit, if they are known.
    """
    size = squared(labels.shape, pixel_size)
    if size == labels.shape:
        return values, labels
    own = InputSize(method="native", minimum=1, size=max(size))
    frame = Frame.of(labels.shape, own, pixel_size)
    return frame.resize(values), nearest(labels, size)


def nearest(labels: NDArray[Id], size: tuple[int, int]) -> NDArray[Id]:
    """Ids or a mask (H, W) resized to `size`: of each new pixel the value at its centre."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return np.ascontiguousarray(labels[rows[:, None], columns])
