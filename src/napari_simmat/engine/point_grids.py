"""Where automatic segmentation clicks: point grids, local maxima, one click per given label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_simmat.engine.masks import interior_point, label_windows
from napari_simmat.engine.prompts import Prompt


def point_grid(size: tuple[int, int], per_longer_side: int) -> list[Prompt]:
    """Clicks on a square grid over `size` (height, width), row by row.

    The shorter side gets its share of `per_longer_side`, at least one. On a square image this is
    the grid of SAM's generator.
    """
    longest = max(size)
    rows, columns = (max(1, round(per_longer_side * side / longest)) for side in size)
    height, width = size
    # SAM counts positions from the edge of the first pixel; ours are from its centre.
    ys = (np.arange(rows) + 0.5) / rows * height - 0.5
    xs = (np.arange(columns) + 0.5) / columns * width - 0.5
    return [Prompt(points=((float(y), float(x)),)) for y in ys for x in xs]


def prompts_at(points: ArrayLike) -> list[Prompt]:
    """A click at each of `points` (N, 2) as y, x."""
    positions = np.asarray(points, np.float64).reshape(-1, 2)
    return [Prompt(points=((float(y), float(x)),)) for y, x in positions]


def local_maxima(
    channel: NDArray[Any], distance: int = 8, height: float = 0.2
) -> NDArray[np.float64]:
    """Maxima (N, 2) as y, x of a channel (Y, X), row by row: mostly one for each blob.

    The channel, normalised to 0..1, is first smoothed with a Gaussian of `distance` / 2, since
    noise has maxima too. Maxima are at least `distance` pixels apart and `height` high.
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


def prompts_from_labels(labels: NDArray[Any]) -> list[Prompt]:
    """A box and a click for each label of a coarse label image (Y, X), in the order of the ids.

    The click is on the pixel deepest within the label. Raises ValueError if there is no label.
    """
    prompts = []
    for label, (rows, columns) in label_windows(labels):
        y, x = interior_point(labels[rows, columns] == label)
        point = rows.start + y, columns.start + x
        box = rows.start, columns.start, rows.stop, columns.stop
        prompts.append(Prompt(points=(point,), box=box, object=label))
    if not prompts:
        raise ValueError(
            "The label image for the seeds holds no label, only background; paint some objects "
            "roughly, or use a grid."
        )
    return prompts


def prompt_positions(prompts: Sequence[Prompt]) -> NDArray[np.float64]:
    """First point or centre of the box of each prompt, (N, 2) as y, x; NaN for a mask alone."""
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
