"""Where one looks while drafts are gone over: the view moves only to what is out of sight."""

from __future__ import annotations

import itertools

import numpy as np
from napari import Viewer

from napari_simmat.annotation.drafts import Draft
from napari_simmat.widgets.layer_data import canvas_size
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.work.export import show_plane

_SMALL = 24
"""Screen pixels of a draft's longer side below which its outline cannot be judged."""
_AROUND = 8
"""How many times longer the view is than a draft that it zooms in on."""
_INNER = 0.9
"""Share of the view, in each direction, in which a draft is in sight."""


class DraftView:
    """Moves sliders and camera to drafts, and gives the view back that there was before."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        self._before: tuple[tuple[float, ...], float] | None = None
        self._moved_to: tuple[tuple[float, ...], float] | None = None

    def look_at(self, geometry: ImageGeometry, draft: Draft) -> None:
        """Show the plane of a draft, with the draft in the middle if it is out of sight.

        The zoom stays, unless the draft is larger than the view or too small to be judged.
        """
        (low, high), plane = draft.mask.box, draft.plane
        ends = [low[-2:], tuple(end - 1 for end in high[-2:])]
        world, axes = show_plane(self._viewer, geometry, plane, np.mean(ends, axis=0).tolist())
        if len(axes) != 2:
            return
        corners = itertools.product(*zip(*ends, strict=True))
        places = np.array([geometry.to_world((*plane, *at))[axes] for at in corners])
        side = max(float(np.ptp(places, axis=0).max()), float(np.finfo(float).eps))
        camera, canvas = self._camera, np.array(canvas_size(self._viewer), dtype=float)
        is_readable = _SMALL <= camera.zoom * side <= canvas.min()
        away = np.abs(places - np.array(camera.center[-2:])).max(axis=0) * camera.zoom
        if is_readable and (away <= _INNER * canvas / 2).all():
            return
        if self._now != self._moved_to:  # what the user has chosen since is given back
            self._before = self._now
        if not is_readable:
            camera.zoom = canvas.min() / (_AROUND * side)
        camera.center = tuple(world[axes])
        self._moved_to = self._now

    def give_back(self) -> None:
        """Show what was seen before the first draft, unless the user has moved the view since."""
        if self._before is not None and self._now == self._moved_to:
            self._camera.center, self._camera.zoom = self._before
        self._before = self._moved_to = None

    @property
    def _now(self) -> tuple[tuple[float, ...], float]:
        return tuple(self._camera.center), float(self._camera.zoom)
