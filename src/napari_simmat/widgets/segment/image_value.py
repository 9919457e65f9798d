"""An image as the worker gets it. No Qt, no napari."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_simmat.engine.coordinates import AxisOrder, transposed_view


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
        Equal for the same channels of the same layers with the same data, seen in the same view
        with pixels of the same shape.
    whole
        Of a side view the image as it is.
    pixel_size
        Height and width of a pixel as it is seen; None before that is known.
    """

    arrays: Any
    names: tuple[str, ...] | None
    token: tuple[object, ...]
    whole: ImageValue | None = None
    pixel_size: tuple[float, float] | None = None

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

    def seen(self, order: AxisOrder, spacing: Sequence[float]) -> ImageValue:
        """The image with its axes in the order of a view; nothing is read or copied.

        Parameters
        ----------
        order
            The view.
        spacing
            Size of a pixel along each of its axes.
        """
        whole = self.usual
        pixel_size = (float(spacing[-2]), float(spacing[-1]))
        ratio = float(f"{pixel_size[0] / pixel_size[1]:.6g}")  # in other units it is the same
        token = (*whole.token, order, ratio)
        if not order:
            return ImageValue(whole.arrays, whole.names, token, whole, pixel_size)
        seen = [transposed_view(array, order) for array in whole.all_arrays]
        arrays = seen if isinstance(whole.arrays, (list, tuple)) else seen[0]
        return ImageValue(arrays, whole.names, token, whole, pixel_size)


# Noticing that an image's data or place was replaced.


_PLACES = ("scale", "translate", "rotate", "shear", "affine")


class ImageWatch(QObject):
    """Follows image layers.

    Attributes
    ----------
    versions
        How often each layer's data was replaced, by its key.
    """

    changed = Signal()
    """The data or the transform of a layer was replaced."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.versions: dict[str, int] = {}
        self._followed: list[Image] = []

    def follow(self, images: Sequence[Image]) -> None:
        """Follow exactly these layers."""
        for layer in self._followed:
            layer.events.data.disconnect(self._on_data)
            for name in _PLACES:
                getattr(layer.events, name).disconnect(self._on_place)
        self._followed = list(images)
        for layer in images:
            layer.events.data.connect(self._on_data)
            for name in _PLACES:
                getattr(layer.events, name).connect(self._on_place)

    def _on_place(self) -> None:
        self.changed.emit()

    def _on_data(self, event: object) -> None:
        layer = getattr(event, "source", None)
        if isinstance(layer, Image):
            key = str(layer.unique_id)
            self.versions[key] = self.versions.get(key, 0) + 1
        self.changed.emit()
