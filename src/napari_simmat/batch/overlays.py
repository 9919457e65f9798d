"""Pictures of an image with its objects: the overlay, also of a slide, and a thumbnail of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.batch.loaded_image import LoadedImage
from napari_simmat.engine.drawing import (
    OVERVIEW_SIDE,
    fullest,
    fullest_plane,
    overview,
    sample_windows,
    with_samples,
)
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.masks import Window
from napari_simmat.io.pyramid import level_shapes

OVERLAY_SIDE = 4096
"""Longest side of the overlay of a plane that is not in memory."""
THUMBNAIL_SIDE = 128
"""Pixels along the longer side of a thumbnail."""
_AROUND = 256
"""Pixels that are shown around objects that were prompted."""


def overlay(
    loaded: LoadedImage,
    stack: ChannelStack,
    labels: Any,
    rows: Sequence[Mapping[str, object]] = (),
    *,
    in_parts: bool,
) -> NDArray[np.uint8]:
    """The image with its objects (Y, X, 3), of a stack the plane most covered by them.

    Of a plane that is not in memory, the part where objects were looked for is drawn, its longest
    side at most `OVERLAY_SIDE`. If that reduces it, four samples at full size stand below it, or
    right of a tall one: those with the most objects of its four quarters, framed in it.

    Parameters
    ----------
    loaded, stack, labels
        The image, as the model reads it, and its labels (..., Y, X).
    rows
        The table of its objects.
    in_parts
        Whether image or labels are not to be in memory as a whole.
    """
    if not in_parts:
        return fullest_plane(labels, stack.plane)[1]
    shown = _shown(loaded, rows)
    drawn = _read_at(loaded, stack, shown, OVERLAY_SIDE)
    picture = overview(labels, drawn.read, shown, coarser=drawn.coarser, side=OVERLAY_SIDE)
    centers = np.array([[row[f"centroid_{a}_px"] for a in "yx"] for row in rows], np.float64)
    samples = sample_windows(shown, picture.shape[:2], centers.reshape(-1, 2))
    return with_samples(picture, shown, labels, _values(stack), samples)


def overlay_plane(axes: str, labels: Any) -> str:
    """Which plane of a stack `overlay` shows, e.g. ``"T=0, Z=4"``; empty for a single plane.

    Parameters
    ----------
    axes
        A letter for each axis of the labels.
    labels
        (..., Y, X).
    """
    if all(size == 1 for size in labels.shape[:-2]):
        return ""
    return ", ".join(f"{letter}={n}" for letter, n in zip(axes, fullest(labels), strict=False))


def small_overlay(
    loaded: LoadedImage, stack: ChannelStack, labels: Any, *, in_parts: bool
) -> NDArray[np.uint8]:
    """The whole image with its objects, of a plane not in memory at `OVERVIEW_SIDE`."""
    if not in_parts:
        return fullest_plane(labels, stack.plane)[1]
    whole = _whole(loaded)
    drawn = _read_at(loaded, stack, whole, OVERVIEW_SIDE)
    return overview(labels, drawn.read, whole, coarser=drawn.coarser, side=OVERVIEW_SIDE)


def thumbnail(picture: NDArray[Any]) -> bytes:
    """A small PNG of a picture (Y, X, 3)."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _whole(loaded: LoadedImage) -> Window:
    height, width = loaded.shape[-2:]
    return slice(0, height), slice(0, width)


def _shown(loaded: LoadedImage, rows: Sequence[Mapping[str, object]]) -> Window:
    """Where objects were looked for: on tissue, around prompts, or everywhere."""
    low = high = None
    if loaded.tissue is not None:
        low, high = loaded.tissue.bounds()
    elif loaded.prompts is not None and rows:
        corners = np.array(
            [[[int(str(row[f"bbox_{a}{end}_px"])) for a in "yx"] for end in (0, 1)] for row in rows]
        )
        low, high = corners[:, 0].min(axis=0) - _AROUND, corners[:, 1].max(axis=0) + _AROUND
    if low is None or high is None:
        return _whole(loaded)
    first, last = np.maximum(low, 0), np.minimum(high, loaded.shape[-2:])
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


class _Drawn(NamedTuple):
    """Values to draw: a function that reads rows and columns of a level, and its reduction."""

    read: Callable[[slice, slice], NDArray[Any]]
    coarser: int


def _read_at(loaded: LoadedImage, stack: ChannelStack, shown: Window, side: int) -> _Drawn:
    """The coarsest level at which a window has half of `side`, so that little is read."""
    longest = max(span.stop - span.start for span in shown)
    shapes = level_shapes(loaded.image)
    factors = [max(1, round(shapes[0][0] / shape[0])) for shape in shapes]
    fine = [n for n in range(1, len(shapes)) if longest / factors[n] >= side // 2]
    if not fine:
        return _Drawn(_values(stack), 1)
    coarse = ChannelStack.build(
        loaded.image.levels[fine[-1] - 1],
        inputs=stack.inputs,
        channel_axis=loaded.axis,
        channels=loaded.config.selection.channels,
        channel_names=loaded.channel_names,
    )
    return _Drawn(_values(coarse), factors[fine[-1]])


def _values(stack: ChannelStack) -> Callable[[slice, slice], NDArray[Any]]:
    return lambda rows, columns: stack.part((), rows, columns).plane()
