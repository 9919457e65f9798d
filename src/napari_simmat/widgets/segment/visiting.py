"""Showing a finished object: its plane, in the middle of the view."""

from __future__ import annotations

import numpy as np
from napari import Viewer

from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.asked import Plane
from napari_simmat.widgets.segment.finished import Finished


def visit(viewer: Viewer, place: Place, finished: Finished, label: int) -> None:
    """Show an object; the brush paints it from now on.

    Parameters
    ----------
    viewer
        Its sliders and its camera are moved.
    place
        Where the image lies.
    finished, label
        The object.
    """
    if label not in finished.register.census:
        return
    try:
        shown = place.plane(viewer.dims)
    except ValueError:
        shown = None
    plane, middle = where(finished, label, shown)
    world = place.to_world((*plane, *middle))
    first = viewer.dims.ndim - place.ndim
    for axis, value in enumerate(world[:-2]):
        viewer.dims.set_point(first + axis, value)
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    camera.center = tuple(world[axis - first] for axis in viewer.dims.displayed[-2:])
    finished.layer.selected_label = label


def where(finished: Finished, label: int, shown: Plane | None) -> tuple[Plane, tuple[float, float]]:
    """Where to look at an object: the plane `shown` if it is there, else its largest; its middle.

    The middle is y, x of the mean of its pixels there.
    """
    footprint = finished.footprint(label)
    assert footprint is not None
    planes = footprint.planes()
    height, width = finished.layer.data.shape[-2:]
    best = shown if shown in planes else None
    if best is None:
        best = max(planes, key=lambda each: int(footprint.on_plane(each, (height, width)).sum()))
    rows, columns = np.nonzero(footprint.on_plane(best, (height, width)))
    return best, (float(rows.mean()), float(columns.mean()))
