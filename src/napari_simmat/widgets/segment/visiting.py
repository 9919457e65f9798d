"""Showing a finished object: its plane, in the middle of the view."""

from __future__ import annotations

import numpy as np
from napari import Viewer

from napari_simmat.engine.views import Order
from napari_simmat.widgets.place import Place, shown_axes
from napari_simmat.widgets.segment.asked import Plane
from napari_simmat.widgets.segment.finished import Finished


def visit(viewer: Viewer, place: Place, finished: Finished, label: int) -> None:
    """Show an object; the brush paints it from now on.

    Parameters
    ----------
    viewer
        Its sliders and its camera are moved.
    place
        Where the image lies, as it is seen.
    finished, label
        The object.
    """
    if label not in finished.register.census:
        return
    try:
        shown = place.plane(viewer.dims)
    except ValueError:
        shown = None
    plane, middle = where(finished, label, shown, place.order)
    world = place.to_world((*plane, *middle))
    first = viewer.dims.ndim - place.ndim
    axes = shown_axes(viewer.dims, place.ndim)
    for axis in set(range(place.ndim)) - set(axes):
        viewer.dims.set_point(first + axis, world[axis])
    if len(axes) == 2:
        camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        camera.center = tuple(world[axes])
    finished.layer.selected_label = label


def where(
    finished: Finished, label: int, shown: Plane | None, order: Order = ()
) -> tuple[Plane, tuple[float, float]]:
    """Where to look at an object: the plane `shown` if it is there, else its largest; its middle.

    Plane and middle are of the view `order`; the middle is y, x of the mean of its pixels there.
    """
    footprint = finished.footprint(label)
    assert footprint is not None
    seen = footprint.transposed(order)
    mask, planes = seen.mask, seen.planes()
    best = shown if shown in planes else None
    if best is None:
        sizes = mask.sum(axis=(-2, -1))
        largest = np.unravel_index(int(sizes.argmax()), sizes.shape)
        best = tuple(int(at) + first for at, first in zip(largest, seen.corner[:-2], strict=True))
    within = tuple(at - first for at, first in zip(best, seen.corner[:-2], strict=True))
    rows, columns = np.nonzero(mask[within])
    top, left = seen.corner[-2:]
    return best, (float(top + rows.mean()), float(left + columns.mean()))
