"""Shifts of channels against each other, measured and undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    pass


class ChannelShift(NamedTuple):
    """What brings a channel onto the reference.

    Attributes
    ----------
    down, right
        Pixels by which its content is to be moved.
    before, after
        Correlation of its edges with those of the reference, -1..1, without and with the shift.
    """

    down: float
    right: float
    before: float
    after: float


def register_channels_job(
    channels: Sequence[NDArray[Any]], reference: int = 0
) -> Job[list[ChannelShift]]:
    """Propose a shift for each channel (Y, X), to a tenth of a pixel, onto the `reference`.

    Sensors see the same edges, not the same values, so magnitudes of gradients are compared, by
    their cross-correlation (`skimage.registration.phase_cross_correlation`, without the
    normalization, which amplifies noise). A shift after which they agree no better is not proposed.
    """
    from skimage.registration import phase_cross_correlation

    fixed = _edges(channels[reference])
    shifts = []
    for done, channel in enumerate(channels):
        yield Progress(done, len(channels), "registering channels")
        edges = _edges(channel)
        before = _correlation(fixed, edges)
        best = ChannelShift(0.0, 0.0, before, before)
        if done != reference and fixed.any() and edges.any():
            (down, right), *_ = phase_cross_correlation(
                fixed, edges, upsample_factor=10, normalization=None
            )
            after = _correlation(fixed, _edges(shift_channel(channel, (down, right))))
            if after > before:
                best = ChannelShift(float(down), float(right), before, after)
        shifts.append(best)
    return shifts


def _edges(channel: NDArray[Any]) -> NDArray[np.float64]:
    """Magnitude of the gradient, zero on average, that fades out towards the border."""
    from scipy.ndimage import gaussian_gradient_magnitude
    from skimage.filters import window

    values = channel.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = values[finite].min(initial=0)
    edges = gaussian_gradient_magnitude(values, 1)
    return np.asarray((edges - edges.mean()) * window("hann", edges.shape))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    whole = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / whole if whole else 0.0


def shift_channel(channel: Any, shift: tuple[float, float]) -> Any:
    """Move the content of a channel (..., Y, X) down and right by so many pixels.

    Values are interpolated linearly and keep their type; border pixels are repeated. Dask stays
    lazy.
    """
    from scipy import ndimage as ndi

    if not isinstance(channel, np.ndarray):
        whole = channel.rechunk({-2: -1, -1: -1})
        return whole.map_blocks(shift_channel, shift, dtype=channel.dtype)
    steps = (*(0.0,) * (channel.ndim - 2), *shift)
    moved = ndi.shift(channel.astype(np.float64), steps, order=1, mode="nearest")
    return (np.rint(moved) if channel.dtype.kind in "iu" else moved).astype(channel.dtype)
