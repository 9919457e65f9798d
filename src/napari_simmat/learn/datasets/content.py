"""An image with its labels as it was read from files or given as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.sources import Source
from napari_simmat.words import format_shape


@dataclass(frozen=True, eq=False)
class Content:
    """What is in a labelled image.

    Parameters
    ----------
    arrays
        One array (numpy, dask, zarr or alike), or a list with one for each channel, each
        (..., Y, X) without a channel axis.
    labels
        True objects (..., Y, X), 0 for the background.
    channel_axis
        Of a single array.
    names
        Names of the available channels, where they are known.
    pixel_size
        Height and width of a pixel, in any unit; None where nothing is known.
    """

    arrays: Any
    labels: NDArray[Any]
    channel_axis: int | None = None
    names: tuple[str, ...] | None = None
    pixel_size: tuple[float, float] | None = None

    @property
    def available(self) -> int:
        """How many channels there are."""
        if isinstance(self.arrays, (list, tuple)):
            return len(self.arrays)
        return Source.of(self.arrays, self.channel_axis).n_channels

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X) of the image without channels."""
        if isinstance(self.arrays, (list, tuple)):
            return Source.of(self.arrays[0]).shape
        return Source.of(self.arrays, self.channel_axis).shape

    @property
    def nbytes(self) -> int:
        """Memory that holding it takes; what is read from its file when needed counts nothing."""
        arrays = self.arrays if isinstance(self.arrays, (list, tuple)) else [self.arrays]
        held = [array for array in (*arrays, self.labels) if type(array) is np.ndarray]
        return sum(array.nbytes for array in held)


class LabelledImage(Protocol):
    """Where an image and its labels come from; reading it twice gives the same."""

    @property
    def name(self) -> str:
        """Unique among the images of a data set."""

    def read(self) -> Content:
        """Image and labels; ValueError, TypeError or OSError in one sentence if that fails."""


def check_content(content: Content, name: str) -> None:
    """Refuse what is no image with labels.

    Raises
    ------
    ValueError, TypeError
        If the channels are no images of one shape, or the labels no whole numbers of it; the
        sentence names the image.
    """
    several = isinstance(content.arrays, (list, tuple))
    if several and not content.arrays:
        raise ValueError(f"{name} has no channel; give at least one array.")
    if not several:
        Source.of(content.arrays, content.channel_axis, name)
    if content.names is not None and len(content.names) != content.available:
        raise ValueError(
            f"{name} has {content.available} channels but {len(content.names)} names "
            f"({', '.join(content.names)}); give one for each channel, or none."
        )
    if several:
        _check_channels(content, name)
    dtype = np.dtype(content.labels.dtype)
    if dtype.kind not in "iub":
        raise ValueError(
            f"The labels of {name} are {dtype.name} values; labels are integers, 0 for the "
            "background and another one for each object. Convert them, e.g. astype('uint16')."
        )
    if tuple(content.labels.shape) != content.shape:
        raise ValueError(
            f"The labels of {name} have the shape {format_shape(content.labels.shape)}, the image "
            f"without channels {format_shape(content.shape)}; give labels of the image's size, or "
            "say which axis holds the channels."
        )


def _check_channels(content: Content, name: str) -> None:
    called = content.names or range(content.available)
    whats = [f"Channel {channel} of {name}" for channel in called]
    pairs = zip(content.arrays, whats, strict=True)
    shapes = [Source.of(array, None, what).shape for array, what in pairs]
    for shape, what in zip(shapes, whats, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{what} has the shape {format_shape(shape)}, {whats[0]} has "
                f"{format_shape(shapes[0])}; all channels of an image need one shape."
            )
