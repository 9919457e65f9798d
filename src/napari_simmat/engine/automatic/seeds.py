"""Where a model is asked when everything is to be segmented; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_simmat.engine.mask_geometry import deepest
from napari_simmat.engine.objects import without_gaps
from napari_simmat.engine.prompts import Prompt


def grid(size: tuple[int, int], per_longer_side: int) -> list[Prompt]:
    """Clicks on a square grid over `size`, row by row; on a square those of SAM's generator.

    Parameters
    ----------
    size
        Height and width in pixels.
    per_longer_side
        Clicks along the longer side; the shorter one gets its share of them, at least one.
    """
    longest = max(size)
    rows, columns = (max(1, round(per_longer_side * side / longest)) for side in size)
    height, width = size
    # SAM's fractions of the image times its size, from pixel edges to pixel centres.
    ys = (np.arange(rows) + 0.5) / rows * height - 0.5
    xs = (np.arange(columns) + 0.5) / columns * width - 0.5
    return [Prompt(points=((float(y), float(x)),)) for y in ys for x in xs]


def at_points(points: ArrayLike) -> list[Prompt]:
    """A click at each of `points` (N, 2) as y, x."""
    positions = np.asarray(points, np.float64).reshape(-1, 2)
    return [Prompt(points=((float(y), float(x)),)) for y, x in positions]


def local_maxima(
    channel: NDArray[Any], distance: int = 8, height: float = 0.2
) -> NDArray[np.float64]:
    """Bright spots of a channel (Y, X), which are mostly one for each blob.

    The channel is smoothed with a Gaussian of `distance` / 2 first, so that grain makes no spots.

    Parameters
    ----------
    channel
        Values normalised to 0..1.
    distance
        Least distance between two spots in pixels.
    height
        Least value of a spot after smoothing.

    Returns
    -------
    (N, 2) as y, x, row by row.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.feature import peak_local_max

    if not channel.size or channel.max() < height:  # most of a large image is empty
        return np.empty((0, 2))
    smooth = gaussian_filter(np.asarray(channel, np.float32), distance / 2)
    found = peak_local_max(
        smooth, min_distance=max(int(distance), 1), threshold_abs=height, exclude_border=False
    )
    order = np.lexsort((found[:, 1], found[:, 0]))
    return np.asarray(found[order], np.float64)


def of_labels(labels: NDArray[Any]) -> list[Prompt]:
    """A box and a click for each label of a coarse label image (Y, X), in the order of the ids.

    The click is on the pixel that lies deepest within the label.

    Raises
    ------
    ValueError
        If there is no label.
    """
    from scipy.ndimage import find_objects

    prompts = []
    labels, numbers = without_gaps(labels)
    for number, found in enumerate(find_objects(labels), start=1):
        if found is None:
            continue
        inside = labels[found] == number
        y, x = deepest(inside)
        rows, columns = found
        prompts.append(
            Prompt(
                points=((rows.start + y, columns.start + x),),
                box=(rows.start, columns.start, rows.stop, columns.stop),
                object=numbers[number],
            )
        )
    if not prompts:
        raise ValueError(
            "The label image for the seeds holds no label, only background; paint some objects "
            "roughly, or use a grid."
        )
    return prompts


def positions_of(prompts: Sequence[Prompt]) -> NDArray[np.float64]:
    """Where each prompt asks: its first point, or the middle of its box; (N, 2) as y, x."""
    found = np.empty((len(prompts), 2))
    for at, prompt in enumerate(prompts):
        if prompt.points:
            found[at] = prompt.points[0]
        elif prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            found[at] = (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
        else:
            found[at] = math.nan
    return found
