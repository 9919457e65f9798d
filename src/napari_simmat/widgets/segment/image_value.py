"""An image as the worker gets it. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_simmat.engine.views import Order, turned


@dataclass(frozen=True, eq=False)
class ImageValue:
    """An image as the model takes it, cut loose from its layers.

    Parameters
    ----------
    arrays
        One array (..., Y, X), or one for each of the model's channels in its order.
    names
        The model's channel names, where `arrays` is a list.
    token
        Equal for the same channels of the same layers with the same data, seen in the same view.
    whole
        Of a side view the image as it is.
    """

    arrays: Any
    names: tuple[str, ...] | None
    token: tuple[object, ...]
    whole: ImageValue | None = None

    @property
    def usual(self) -> ImageValue:
        """The image as it is; of its values the normalisation is measured."""
        return self if self.whole is None else self.whole

    @property
    def all_arrays(self) -> list[Any]:
        """Its arrays, however many they are."""
        several = isinstance(self.arrays, (list, tuple))
        return list(self.arrays) if several else [self.arrays]

    @property
    def in_memory(self) -> bool:
        """Whether reading a plane costs nothing, in whatever view."""
        return all(isinstance(array, np.ndarray) for array in self.all_arrays)

    def seen(self, order: Order) -> ImageValue:
        """The image with its axes in the order of a view; nothing is read or copied."""
        whole = self.usual
        if not order:
            return whole
        seen = [turned(array, order) for array in whole.all_arrays]
        arrays = seen if isinstance(whole.arrays, (list, tuple)) else seen[0]
        return ImageValue(arrays, whole.names, (*whole.token, order), whole)
