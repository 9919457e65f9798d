"""Where a model is prompted to segment everything.

Seeds are points on a grid, local maxima or minima of a channel or of a stain, or one click for each
label of a coarse label image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation

from napari_simmat._text import pluralize
from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.everything.kind_learning import enlargement
from napari_simmat.engine.masks import interior_point, label_windows
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

NO_STAINS = (
    "Seeds by a stain need the colors of a picture, red, green and blue of 8 bits, and the model "
    "reads {} of {}; use --auto.seeds minima, or another image."
)
MIN_FOREGROUND = -4.5
"""Seeds with a lower logit of an object being there are left out: it is 1 in 90."""
SUFFICIENT_VOTES = 6
"""Seeds on an object that so many others found are left out."""
SMALL_OBJECT = 2.0
"""An object's size in steps of the grid up to which a single seed may be all that lies on it."""
SEEDS_APART = 0.5
"""Distance of the seeds of a grid, in sides of the objects that a model has learned."""
MOST_SEEDS_PER_SIDE = 96
"""Of a grid for small objects, however small they are."""


def point_grid(size: tuple[int, int], per_longer_side: int) -> list[Prompt]:
    """Clicks on a square grid over `size` (height, width), row by row.

    The shorter side gets its share of `per_longer_side`, at least one. On a square image this is
    the grid of SAM's generator.
    """
    longest = max(size)
    rows, columns = (max(1, round(per_longer_side * side / longest)) for side in size)
    height, width = size
    # SAM counts positions from the edge of the first pixel; ours are from its center.
    ys = (np.arange(rows) + 0.5) / rows * height - 0.5
    xs = (np.arange(columns) + 0.5) / columns * width - 0.5
    return prompts_at([(y, x) for y in ys for x in xs])


class SeedRounds:
    """Which seeds of a grid are prompted, in two rounds like the squares of a chessboard.

    A network that estimates seeds cheaply is not prompted where it sees no object. In the second
    round only those seeds are prompted that lie beside one that found something, or on an object so
    small that no other seed need be on it; but not those on an object that many seeds found.

    Parameters
    ----------
    positions
        The seeds (N, 2) as y, x, row by row.
    foreground, size
        Estimates (N,): logit of an object being there, and the square root of its area in pixels.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        foreground: NDArray[np.float32],
        size: NDArray[np.float32],
    ) -> None:
        rows, columns = (np.unique(positions[:, axis]) for axis in (0, 1))
        shape = len(rows), len(columns)
        step = max(float(np.diff(along).max(initial=0)) for along in (rows, columns))
        self._worth = (foreground >= MIN_FOREGROUND).reshape(shape)
        self._small = (size < SMALL_OBJECT * step).reshape(shape)
        self._dark = np.indices(shape).sum(0) % 2 == 0

    def first(self) -> list[int]:
        """Numbers of the seeds of the first round."""
        return np.flatnonzero(self._worth & self._dark).tolist()

    @property
    def total(self) -> int:
        """How many seeds both rounds may prompt."""
        return int(np.count_nonzero(self._worth))

    def second(self, found: Sequence[int], votes: NDArray[np.int_]) -> tuple[list[int], list[int]]:
        """Numbers of the seeds of the second round, and of those left out on known objects.

        Parameters
        ----------
        found
            Numbers of the seeds that found something.
        votes
            (N,) how many seeds found an object that a seed is on.
        """
        near = np.zeros(self._worth.shape, bool)
        near.flat[list(found)] = True
        near = binary_dilation(near) & ~self._small
        known = votes.reshape(near.shape) >= SUFFICIENT_VOTES
        left = self._worth & ~self._dark
        second = left & (self._small | (near & ~known))
        return np.flatnonzero(second).tolist(), np.flatnonzero(left & near & known).tolist()


def prompts_at(points: ArrayLike) -> list[Prompt]:
    """A click at each of `points` (N, 2) as y, x."""
    positions = np.asarray(points, np.float64).reshape(-1, 2)
    return [Prompt(points=((float(y), float(x)),)) for y, x in positions]


def local_maxima(
    channel: NDArray[Any], distance: int = 8, height: float = 0.2
) -> NDArray[np.float64]:
    """Maxima (N, 2) as y, x of a channel (Y, X), row by row: mostly one for each blob.

    The channel, normalized to 0..1, is first smoothed with a Gaussian of `distance` / 2, since
    noise has maxima too. Maxima are at least `distance` pixels apart and `height` high.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.feature import peak_local_max

    if not channel.size or channel.max() < height:  # most of a large image is empty
        return np.empty((0, 2))
    smooth = gaussian_filter(np.asarray(channel, np.float32), distance / 2)
    maxima = peak_local_max(
        smooth, min_distance=max(int(distance), 1), threshold_abs=height, exclude_border=False
    )
    order = np.lexsort((maxima[:, 1], maxima[:, 0]))
    return np.asarray(maxima[order], np.float64)


HEMATOXYLIN = (0.03, 0.16)
"""What counts as none and as full of scikit-image's hematoxylin: percentiles 1 and 99 of nuclei in
80 stained images of ``dsb2018``, of which 98 % of the rest lies below 0.09."""


def hematoxylin(colors: NDArray[Any]) -> NDArray[np.float64]:
    """How much hematoxylin, which stains nuclei, each pixel of (3, Y, X) uint8 has, about 0..1.

    By color deconvolution (Ruifrok and Johnston 2001) with scikit-image's absorptions.

    Raises ValueError unless there are three channels of bytes.
    """
    from skimage.color import rgb2hed

    if len(colors) != 3 or colors.dtype != np.uint8:
        kinds = pluralize(len(colors), "channel"), colors.dtype.name
        raise ValueError(NO_STAINS.format(*kinds))
    low, high = HEMATOXYLIN
    stain = rgb2hed(np.moveaxis(colors, 0, -1))[..., 0]
    return np.asarray((stain - low) / (high - low), np.float64)


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
    """First point or center of the box of each prompt, (N, 2) as y, x; NaN for a mask alone."""
    positions = np.full((len(prompts), 2), np.nan)
    for at, prompt in enumerate(prompts):
        if prompt.points:
            positions[at] = prompt.points[0]
        elif prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            positions[at] = (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
    return positions


def seed_prompts(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...],
    box: PixelBox,
    kind: ObjectKind | None = None,
) -> list[Prompt]:
    """Clicks on a part of a plane, in its own pixels: a grid, or extremes of a channel or a stain.

    The grid is close enough for small objects of a known kind.

    Raises ValueError if the model has no such channel, or no colors for a stain.
    """
    if settings.seeds == "grid":
        # SAM uses 32 for every image; small ones need fewer.
        usual = min(max(round(max(box.size) / 16), 16), 32)
        if kind is not None:
            side = kind.side / math.sqrt(enlargement(predictor, box))
            close = math.ceil(max(box.size) / (SEEDS_APART * side))
            usual = max(usual, min(close, MOST_SEEDS_PER_SIDE))
        return point_grid(box.size, settings.points_per_side or usual)
    if settings.seeds == "hematoxylin":
        part = predictor.stack.part(plane, *box.slices)
        unit = hematoxylin(part.plane())
        return prompts_at(local_maxima(unit, settings.maxima_distance, settings.maxima_height))
    stack, number = predictor.stack, settings.maxima_channel
    if number >= stack.n_channels:
        raise ValueError(
            f"There is no channel {number} to look for maxima in; {stack.inputs.reader} reads "
            f"{stack.n_channels}, counted from 0 to {stack.n_channels - 1}."
        )
    values = stack.part(plane, *box.slices).normalized()[number]
    unit = values / stack.inputs.normalization.scale
    if settings.seeds == "minima":
        unit = 1 - unit
    return prompts_at(local_maxima(unit, settings.maxima_distance, settings.maxima_height))
