"""Which images the viewer shows, where, and how large: read from it, of whichever image."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from napari import Viewer
from napari.layers import Image

from napari_simmat.widgets.layer_data import canvas_size, image_in_front, world_bounds
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layers import outputs

_SHOWN_PERCENTS = (0.1, 99.9)
"""Percentiles that are shown black and white: single hot pixels are brighter."""
_SAMPLED = 1024
"""Rows and columns, about, of what is shown that are looked at."""
BLACK, DIM = 0.02, 0.3
"""Shares of the contrast below which the brightest that is shown is black for the eye, or dim."""
_SEEN = 25
"""Pixels brighter than that from which on something is to be seen: a few are hot."""
VIEWED = 4
"""How many times longer the view is than an object that the user has zoomed in on."""
COMPACT = 0.6
"""Area of such an object over the square of its longer side."""


def images_of(viewer: Viewer) -> list[Image]:
    """All open images, the lowest first; not what shows how a model sees one."""
    layers = [layer for layer in viewer.layers if isinstance(layer, Image)]
    return [layer for layer in layers if not layer.name.startswith(outputs.SEEN)]


def image_before(viewer: Viewer, layers: Collection[str]) -> Image | None:
    """The image that is seen in place of that with these layers, by their keys, if any."""
    dims = viewer.dims
    axes = [axis - dims.ndim for axis in dims.displayed[-2:]]
    return image_in_front(images_of(viewer), layers, axes) if layers else None


def image_under_mouse(viewer: Viewer) -> Image | None:
    """The topmost visible image under the mouse."""
    dims, position = viewer.dims, viewer.cursor.position
    shown = [axis - dims.ndim for axis in dims.displayed]
    for layer in reversed([each for each in images_of(viewer) if each.visible]):
        low, high = world_bounds(layer)
        axes = [axis for axis in shown if -axis <= layer.ndim]
        if all(low[axis] <= position[axis] <= high[axis] for axis in axes):
            return layer
    return None


def bring_to_front(viewer: Viewer, images: Sequence[Image]) -> None:
    """Move images above all other layers; the last one is shown if none is."""
    if images and not any(layer.visible for layer in images):
        images[-1].visible = True
    for layer in images:
        viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def center_of_view(viewer: Viewer, geometry: ImageGeometry) -> tuple[float, float]:
    """The pixel of the current plane, y and x, in the middle of what the viewer shows."""
    point = np.array(viewer.dims.point, dtype=float)
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    point[list(viewer.dims.displayed[-2:])] = camera.center[-2:]
    at = np.clip(geometry.from_world(point)[-2:], 0, np.array(geometry.shape[-2:]) - 1)
    return float(at[0]), float(at[1])


def area_in_view(viewer: Viewer, geometry: ImageGeometry) -> float | None:
    """Pixels of an object that the user has zoomed in on; None without zooming in.

    Whoever shows less than half of an image is about to click on something that takes about a
    quarter of the view's side.
    """
    if len(viewer.dims.displayed) != 2:
        return None
    canvas = np.array(canvas_size(viewer))
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    ends = np.array([viewer.dims.point] * 2, dtype=float)
    ends[1, viewer.dims.displayed[canvas.argmin()]] += canvas.min() / camera.zoom
    pixels = np.array([geometry.from_world(end)[-2:] for end in ends])
    side = float(np.linalg.norm(pixels[1] - pixels[0]))
    if side >= max(geometry.shape[-2:]) / 2:
        return None
    return COMPACT * (side / VIEWED) ** 2


def is_black(layer: Image, share: float = BLACK) -> bool:
    """Whether nothing is to be seen of an image in the plane that the viewer shows of it."""
    plane = _shown_plane(layer)
    if layer.rgb or plane is None:
        return False
    low, high = layer.contrast_limits
    return np.count_nonzero(plane > low + share * (high - low)) < _SEEN or is_even(layer)


def is_even(layer: Image) -> bool:
    """Whether all pixels of the plane that the viewer shows of an image have one value."""
    plane = _shown_plane(layer)
    return plane is not None and bool(plane.min() == plane.max())


def stretch(layer: Image) -> None:
    """Set the contrast of an image to the plane that the viewer shows of it."""
    values = _shown_values(layer)
    if values is None or values.min() == values.max():
        return
    low, high = map(float, np.percentile(values, _SHOWN_PERCENTS))
    if low >= high:
        low, high = float(values.min()), float(values.max())
    ends = layer.contrast_limits_range
    layer.contrast_limits_range = min(low, ends[0]), max(high, ends[1])
    layer.contrast_limits = low, high


def _shown_values(layer: Image) -> np.ndarray | None:
    """The finite values, of a large plane some of them, that the viewer shows of an image."""
    plane = _shown_plane(layer)
    if plane is None:
        return None
    rows, columns = (max(1, size // _SAMPLED) for size in plane.shape[:2])
    values = plane[::rows, ::columns]
    values = values[np.isfinite(values)]
    return values.astype(np.float64) if values.size else None


def _shown_plane(layer: Image) -> np.ndarray | None:
    plane = np.asarray(layer._slice.image.raw)
    return plane if plane.ndim > 1 and plane.size and plane.dtype.kind in "buif" else None
