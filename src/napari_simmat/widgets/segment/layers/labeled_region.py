"""The region of an image in which all objects are labeled, as the shapes of a layer draw it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.widgets.placement import ImageGeometry

WITHOUT_REGION = "{} has no shape on a plane with objects: draw one around what is labeled."


def within_shapes(
    layer: Shapes, geometry: ImageGeometry, planes: Sequence[Plane], point: Sequence[float]
) -> list[NDArray[np.bool_]]:
    """For each plane of an image in its usual view, a mask (Y, X) of the shapes of a layer on it.

    `point` is the viewer's; it gives the plane of a layer with fewer axes.

    Raises
    ------
    ValueError
        If none lies on any of the planes.
    """
    geometry = geometry.usual
    masks = [np.zeros(geometry.shape[-2:], bool) for _ in planes]
    for kind, vertices in zip(layer.shape_type, layer.data, strict=True):
        corners = geometry.from_layer(layer, vertices, point)
        plane = tuple(int(index) for index in np.round(corners[0, :-2]))
        if plane in planes:
            masks[planes.index(plane)] |= shape_mask(kind, corners[:, -2:], geometry.shape[-2:])
    if not any(mask.any() for mask in masks):
        raise ValueError(WITHOUT_REGION.format(layer.name))
    return masks
