"""Channels that lie apart: how each moves onto a reference, measured and undone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import pairwise, product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import import_problem
from napari_simmat.progress import Job, Progress

Motion = Literal["shift", "rigid", "affine"]
"""What may lie between two channels: a shift; also a turn; also scales and shear."""
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""(2, 3), from a pixel (y, x, 1) of the reference to the place (y, x) of its content in a channel.
"""
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
NEEDS_SIMPLEITK = (
    "Turns and scales of channels are measured by SimpleITK; install it (pip install SimpleITK), "
    "or allow only shifts."
)
_WINDOWS = 5
"""Windows along each side in which a residual is measured."""
_LEAST_WINDOW = 48
"""Pixels along the side of a window at least."""
LEAST_SHARE = 0.25
"""Share of the windows that must show the same for a motion to mean something."""
LEAST_AGREEMENT = 0.2
"""Correlation of edges that a motion must reach to mean something."""
_SAME_CONTENT = 0.5
"""Correlation of the edges in a window from which its residual counts."""
_LOOKED_AT = 512
"""Pixels along each side that `farthest_shift` compares."""
_NEAR_MISSING = 4
"""Pixels around missing ones whose edges do not count."""


class ChannelMotion(NamedTuple):
    """What brings a channel onto the reference.

    Attributes
    ----------
    matrix
        From a pixel of the reference to the place in the channel.
    before, after
        Correlation of its edges with those of the reference, -1..1, without and with the motion;
        None if it was not measured.
    distance
        Pixels by which the motion moves content, in the median over windows of the image.
    residual
        Pixels by which the two lie apart then, in the median over the windows in which both show
        the same; None if there is none.
    share
        The share of these windows; None if it was not measured.
    """

    matrix: Matrix
    before: float | None = None
    after: float | None = None
    distance: float | None = None
    residual: float | None = None
    share: float | None = None

    @property
    def is_sure(self) -> bool:
        """Whether the channel shows what the reference shows, so that the motion means something.

        One that was given instead of measured is.
        """
        return self.share is None or (
            self.share >= LEAST_SHARE and (self.after or 0.0) >= LEAST_AGREEMENT
        )

    def shift(self, shape: Sequence[int]) -> tuple[float, float]:
        """Pixels down and right by which content moves in the middle of an image (Y, X)."""
        middle = np.array([(size - 1) / 2 for size in shape])
        matrix = np.array(self.matrix)
        down, right = (middle - matrix[:, :2] @ middle - matrix[:, 2]).tolist()
        return down, right

    @property
    def turn(self) -> float:
        """Degrees by which content turns, counterclockwise as the image is shown."""
        (a, b, _), (c, d, _) = self.matrix
        return math.degrees(math.atan2(b - c, a + d))

    @property
    def scale(self) -> float:
        """How many times larger content becomes, over both axes."""
        (a, b, _), (c, d, _) = self.matrix
        return 1 / math.sqrt(abs(a * d - b * c))


def matrix_of_shift(down: float, right: float) -> Matrix:
    """The matrix that moves the content of a channel down and right."""
    return (1.0, 0.0, 0.0 - down), (0.0, 1.0, 0.0 - right)


def register_channels_job(
    channels: Sequence[NDArray[Any]], reference: int = 0, motion: Motion = "shift"
) -> Job[list[ChannelMotion]]:
    """Propose a motion for each channel (Y, X) onto the `reference`.

    Sensors see the same edges, not the same values, so magnitudes of gradients are compared: for a
    shift by their cross-correlation (`skimage.registration.phase_cross_correlation`, without the
    normalization, which amplifies noise), from which SimpleITK goes on to a turn and to scales. A
    motion after which they agree no better is not proposed.

    Raises ValueError if SimpleITK is needed and not installed.
    """
    fixed = _edges(channels[reference])
    motions = []
    for done, channel in enumerate(channels):
        yield Progress(done, len(channels), "registering channels")
        if done == reference:
            whole = _correlation(fixed, fixed)
            motions.append(ChannelMotion(IDENTITY, whole, whole))
            continue
        found, moved = _motion(fixed, channel, motion)
        yield Progress(done, len(channels), "measuring what is left")
        left, share = _residual(fixed, moved)
        distance = _distance(found.matrix, fixed.shape)
        motions.append(found._replace(distance=distance, residual=left, share=share))
    return motions


def _motion(
    fixed: NDArray[np.float64], channel: NDArray[Any], motion: Motion
) -> tuple[ChannelMotion, NDArray[np.float64]]:
    """What brings a channel onto the edges of the reference, and its own edges then."""
    moving = _edges(channel)
    before = _correlation(fixed, moving)
    if not (fixed.any() and moving.any()):
        return ChannelMotion(IDENTITY, before, before), moving
    matrix = _matrix(fixed, moving, motion)
    moved = _edges(move_channel(channel, matrix))
    after = _correlation(fixed, moved)
    if after <= before:
        return ChannelMotion(IDENTITY, before, before), moving
    return ChannelMotion(matrix, before, after), moved


def farthest_shift(channels: Sequence[NDArray[Any]]) -> tuple[int, float]:
    """Which channel (Y, X) lies farthest from the first by a shift, and by how many pixels.

    A quick look at the middle of large images; (0, 0.0) where none would agree better if moved.
    """
    window = tuple(
        slice(max(0, (size - _LOOKED_AT) // 2), (size + _LOOKED_AT) // 2)
        for size in channels[0].shape
    )
    fixed = _edges(channels[0][window])
    farthest = (0, 0.0)
    for number, channel in enumerate(channels[1:], start=1):
        motion, _ = _motion(fixed, channel[window], "shift")
        gain = (motion.after or 0.0) - (motion.before or 0.0)
        distance = float(np.hypot(*motion.shift(fixed.shape)))
        if gain >= LEAST_AGREEMENT and distance > farthest[1]:
            farthest = (number, distance)
    return farthest


def move_channel(channel: Any, matrix: Matrix) -> Any:
    """The content of a channel (..., Y, X) on the pixels of the reference.

    Values are interpolated linearly, and are NaN where the channel has none: as float32 where that
    holds them exactly, else float64. A channel that stays is returned as it is. Dask stays lazy.
    """
    from scipy.ndimage import affine_transform

    if matrix == IDENTITY:
        return channel
    exact = np.dtype(np.float32 if channel.dtype.itemsize <= 2 else np.float64)
    dtype = channel.dtype if channel.dtype.kind == "f" else exact
    if not isinstance(channel, np.ndarray):
        whole = channel.rechunk({-2: -1, -1: -1})
        return whole.map_blocks(move_channel, matrix, dtype=dtype)
    turn = [row[:2] for row in matrix]
    offset = [row[2] for row in matrix]
    moved = np.empty(channel.shape, dtype)
    for at in np.ndindex(channel.shape[:-2]):
        plane = channel[at].astype(np.float64)
        moved[at] = affine_transform(
            plane, turn, offset, order=1, mode="constant", cval=float("nan")
        )
    return moved


def _matrix(fixed: NDArray[np.float64], moving: NDArray[np.float64], motion: Motion) -> Matrix:
    """The motion between the edges of two channels."""
    from skimage.registration import phase_cross_correlation

    (down, right), *_ = phase_cross_correlation(
        _faded(fixed), _faded(moving), upsample_factor=10, normalization=None
    )
    if motion == "shift":
        return matrix_of_shift(float(down), float(right))
    try:
        sitk = import_module("SimpleITK")
    except ImportError as error:
        raise ValueError(import_problem(error, "SimpleITK", NEEDS_SIMPLEITK)) from error
    transform = sitk.Euler2DTransform() if motion == "rigid" else sitk.AffineTransform(2)
    transform.SetCenter([(size - 1) / 2 for size in fixed.shape[::-1]])
    transform.SetTranslation([-float(right), -float(down)])
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    coarser = [
        factor for factor in (4, 2, 1) if min(fixed.shape) >= _LEAST_WINDOW * factor or factor == 1
    ]
    method.SetShrinkFactorsPerLevel(coarser)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0 for factor in coarser])
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 300, relaxationFactor=0.7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    images = [sitk.GetImageFromArray(edges.astype(np.float32)) for edges in (fixed, moving)]
    method.Execute(*images)
    # Where three pixels go, (x, y) there and (y, x) here.
    origin, down_one, right_one = (
        np.array(transform.TransformPoint(point)[::-1]) for point in ((0, 0), (0, 1), (1, 0))
    )
    columns = np.stack([down_one - origin, right_one - origin, origin], axis=1)
    first, second = columns.tolist()
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _edges(channel: NDArray[Any]) -> NDArray[np.float64]:
    """Magnitude of the gradient, zero on average, and zero near missing pixels."""
    from scipy.ndimage import binary_dilation, gaussian_gradient_magnitude

    values = channel.astype(np.float64)
    missing = ~np.isfinite(values)
    values[missing] = np.median(values[~missing]) if not missing.all() else 0.0
    edges = gaussian_gradient_magnitude(values, 1)
    known = ~binary_dilation(missing, iterations=_NEAR_MISSING) if missing.any() else ~missing
    mean = edges[known].mean() if known.any() else 0.0
    return np.asarray(np.where(known, edges - mean, 0.0))


def _faded(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, fading out towards the border: a Fourier transform takes it as periodic."""
    from skimage.filters import window

    return np.asarray(edges * window("hann", edges.shape))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of edges (Y, X); the center of the image counts more than its border."""
    one, other = _faded(one), _faded(other)
    whole = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / whole if whole else 0.0


def agreement(fixed: NDArray[Any], moved: NDArray[Any]) -> float:
    """Correlation of the edges of two channels (Y, X), -1..1."""
    return _correlation(_edges(fixed), _edges(moved))


def _distance(matrix: Matrix, shape: tuple[int, ...]) -> float:
    """Pixels by which a motion moves content, in the median over windows."""
    moves = np.array(matrix) - np.array(IDENTITY)
    middles = [[(side.start + side.stop - 1) / 2 for side in window] for window in _windows(shape)]
    return float(np.median(np.hypot(*(moves[:, :2] @ np.array(middles).T + moves[:, 2:]))))


def _residual(
    fixed: NDArray[np.float64], moving: NDArray[np.float64]
) -> tuple[float | None, float]:
    """Pixels between the edges of two channels, in the median over windows of the same content.

    And the share of these among the windows with edges.
    """
    from scipy.ndimage import shift as shifted
    from skimage.registration import phase_cross_correlation

    distances = []
    seen = 0
    for window in _windows(fixed.shape):
        one, other = _faded(fixed[window]), _faded(moving[window])
        if not (one.any() and other.any()):
            continue
        seen += 1
        found, *_ = phase_cross_correlation(one, other, upsample_factor=20, normalization=None)
        there = shifted(moving[window], found, order=1, mode="nearest")
        if _correlation(fixed[window], there) >= _SAME_CONTENT:
            distances.append(float(np.hypot(*found)))
    share = len(distances) / max(seen, 1)
    return (float(np.median(distances)) if distances else None), share


def _windows(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an image, side by side."""
    sides = []
    for size in shape:
        count = int(np.clip(size // _LEAST_WINDOW, 1, _WINDOWS))
        ends = np.linspace(0, size, count + 1).astype(int).tolist()
        sides.append([slice(*pair) for pair in pairwise(ends)])
    yield from product(*sides)
