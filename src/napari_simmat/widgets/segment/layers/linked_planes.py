"""Links the planes of a volume: rolled axes show the place of the cursor, or of the last click.

napari shows one plane at a time, and a roll of its axes leads to the middle of the volume, or to
where one was last: the sliders of the axes that are shown do not move. Here they follow the place
that is pointed at, so that a click in one plane is seen in the two others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari import Viewer

from napari_simmat.widgets.placement import ImageGeometry


class LinkedPlanes:
    """Moves sliders to the place that the user points at, when the axes are rolled.

    Parameters
    ----------
    viewer
        Whose axes.
    geometry
        Returns where the chosen image lies; None for no image.
    """

    def __init__(self, viewer: Viewer, geometry: Callable[[], ImageGeometry | None]) -> None:
        self._viewer, self._geometry = viewer, geometry
        self._order: tuple[int, ...] = tuple(viewer.dims.order)
        # napari's own position of the cursor has lost the place when it tells of the new order.
        self._moved: tuple[float, ...] = ()
        self._pressed: tuple[float, ...] = ()
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.mouse_drag_callbacks.append(self._on_press)
        viewer.dims.events.order.connect(self._on_order)

    def release(self) -> None:
        """Let napari leave the sliders where they are."""
        self._viewer.mouse_move_callbacks.remove(self._on_move)
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._viewer.dims.events.order.disconnect(self._on_order)

    def _on_move(self, _: Viewer, event: Any) -> None:
        self._moved = tuple(event.position)

    def _on_press(self, _: Viewer, event: Any) -> None:
        self._moved = self._pressed = tuple(event.position)

    def _on_order(self, *_: object) -> None:
        """Go to what is under the mouse; if that is on a button, to where it was last pressed."""
        viewer, geometry, dims = self._viewer, self._geometry(), self._viewer.dims
        before, self._order = self._order, tuple(dims.order)
        place = self._moved if viewer.mouse_over_canvas else self._pressed
        fits = len(place) == len(before) == dims.ndim
        if (
            geometry is None
            or not 3 <= geometry.ndim <= dims.ndim
            or dims.ndisplay != 2
            or not fits
        ):
            return
        shown = before[-2:]
        # The other axes have sliders, which may have moved since.
        place = tuple(at if axis in shown else dims.point[axis] for axis, at in enumerate(place))
        usual = geometry.usual
        at = usual.from_world(place)
        if ((at > -0.5) & (at < np.array(usual.shape) - 0.5)).all():
            first = dims.ndim - usual.ndim
            middle = usual.to_world(np.round(at))  # of the voxel, and so of its planes
            for axis in shown:
                dims.set_point(axis, middle[axis - first] if axis >= first else place[axis])
        self._moved = place
