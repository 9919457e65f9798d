"""A labeled image: lazy pixels, channels, labels, and its planes as samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape, pluralize
from napari_simmat.datasets.dataset import LoadedSample
from napari_simmat.engine.channels.matching import RGB, channel_index, plain_name
from napari_simmat.engine.coordinates import InputTransform, square_pixel_shape
from napari_simmat.engine.image_stack import ArraySource, ChannelStack, check_one_shape
from napari_simmat.engine.normalization import Statistics
from napari_simmat.models.spec import InputChannels, InputSize, Normalization

ChannelNames = Sequence[int | str]
"""Names and indices."""
RGBA = (*RGB, "alpha")
LONE_CHANNEL = "intensity"
"""Name of a lone channel without a name."""
StackIndex = tuple[int, ...]
CACHE_BYTES = 2**30
"""Bytes of images kept in memory, so that a stack is not read again for each plane."""
Id = TypeVar("Id", bound=np.generic)


@dataclass(frozen=True, eq=False)
class LabeledImage:
    """An image and its labels, in memory or read on demand.

    Parameters
    ----------
    name
        Unique among the images of a data set, e.g. the label layer's name.
    arrays
        One array (numpy, dask, zarr or alike), or a list with one for each channel, each
        (..., Y, X) without a channel axis.
    labels
        True objects (..., Y, X), whole numbers, 0 for the background.
    channel_axis
        Of a single array.
    channel_names
        Names of the available channels, if known.
    pixel_size
        Height and width of a pixel, in any unit; None if unknown.
    """

    name: str
    arrays: Any
    labels: Any
    channel_axis: int | None = None
    channel_names: tuple[str, ...] | None = None
    pixel_size: tuple[float, float] | None = None

    @property
    def available(self) -> int:
        """Number of channels."""
        return len(self.arrays) if self._is_list else self._source.n_channels

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X) of the image without channels."""
        return ArraySource.of(self.arrays[0]).shape if self._is_list else self._source.shape

    @property
    def nbytes(self) -> int:
        """Memory it holds; arrays that are read from their file on demand count nothing."""
        arrays = self.arrays if self._is_list else [self.arrays]
        return sum(a.nbytes for a in (*arrays, self.labels) if type(a) is np.ndarray)

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green and blue, with or without alpha."""
        return self.channel_names in (RGB, RGBA)

    def read(self) -> LabeledImage:
        """The image with its labels in memory; other arrays are not copied.

        Raises
        ------
        ValueError, TypeError
            If the channels are no images of one shape, or the labels no whole numbers of it; the
            message names the image.
        """
        name, names = self.name, self.channel_names
        if self._is_list and self.channel_axis is not None:
            raise ValueError(
                f"{name}: a list holds one array for each channel, so it has no channel axis "
                f"{self.channel_axis}; leave it out."
            )
        if not hasattr(self.labels, "dtype"):
            raise TypeError(
                f"The labels of {name} are a {type(self.labels).__name__}, not an array; give "
                "a numpy, dask or zarr array of whole numbers."
            )
        if self._is_list and not self.arrays:
            raise ValueError(f"{name} has no channel; give at least one array.")
        if names is not None and len(names) != self.available:
            raise ValueError(
                f"{name} has {self.available} channels but {len(names)} names "
                f"({', '.join(names)}); give one for each channel, or none."
            )
        if self._is_list:
            channels = self.channel_names or range(self.available)
            whats = [f"Channel {channel} of {name}" for channel in channels]
            pairs = zip(self.arrays, whats, strict=True)
            check_one_shape(whats, [ArraySource.of(each, None, what).shape for each, what in pairs])
        dtype = np.dtype(self.labels.dtype)
        if dtype.kind not in "iub":
            raise ValueError(
                f"The labels of {name} are {dtype.name} values; labels are integers, 0 for the "
                "background and another one for each object. Convert them, e.g. astype('uint16')."
            )
        if tuple(self.labels.shape) != self.shape:
            raise ValueError(
                f"The labels of {name} have the shape {format_shape(self.labels.shape)}, the image "
                f"without channels {format_shape(self.shape)}; give labels of the image's size, or "
                "say which axis holds the channels."
            )
        return replace(self, labels=np.asarray(self.labels))

    @property
    def _is_list(self) -> bool:
        return isinstance(self.arrays, (list, tuple))

    @property
    def _source(self) -> ArraySource:
        return ArraySource.of(self.arrays, self.channel_axis, self.name)


class LabeledSource(Protocol):
    """Where a labeled image comes from: itself, or files; reading it twice gives the same."""

    @property
    def name(self) -> str:
        """Unique among the images of a data set."""

    def read(self) -> LabeledImage:
        """Image and labels; ValueError, TypeError or OSError with a message if that fails."""


class LabeledStack:
    """A labeled image of any number of planes, with the channels of its data set.

    Parameters
    ----------
    names, selected
        The data set's channels, and the user's selection, see `find_channels`.
    cache
        Shared by the images of a data set.
    group
        Shared by planes and images that belong together; by default the image's name.
    pixel_size
        Height and width of a pixel, if the image does not know them.
    """

    def __init__(
        self,
        image: LabeledSource,
        names: Sequence[str],
        selected: ChannelNames | None,
        normalization: Normalization,
        cache: ImageCache,
        group: str = "",
        pixel_size: tuple[float, float] | None = None,
    ) -> None:
        self.image, self.name, self.group = image, image.name, group or image.name
        self._inputs = InputChannels(
            names=tuple(names), normalization=normalization, reader="the data set"
        )
        self._wanted, self._cache, self._pixel_size = selected, cache, pixel_size
        self._statistics: Statistics | None = None

    def check(self) -> None:
        """Read the image.

        Raises
        ------
        ValueError, TypeError, OSError
            If a channel is missing, or this is no image with labels of its shape.
        """
        self._stack(self._cache.read(self.image))

    def planes(self) -> Iterator[tuple[StackIndex, NDArray[Any]]]:
        """Index and labels (Y, X), as given, of each plane that holds an object."""
        labels = self._cache.read(self.image).labels
        for plane in np.ndindex(*labels.shape[:-2]):
            if (labels[plane] > 0).any():
                yield plane, labels[plane]

    def load(self, plane: StackIndex = ()) -> LoadedSample:
        """Values (C, Y, X), normalized by the whole image, and ids (Y, X) of one plane.

        Resampled to square pixels, as by the predictor.
        """
        content = self._cache.read(self.image)
        stack = self._stack(content)
        try:
            values = stack.normalized(plane).astype(np.float32, copy=False)
        except ValueError as error:  # no finite value, or a damaged part of a file
            raise ValueError(f"{self.name}: {error}") from error
        self._statistics = stack.statistics  # measured once, even if the image is read again
        pixel_size = content.pixel_size or self._pixel_size
        return resample_isotropic(values, as_ids(content.labels[plane]), pixel_size)

    def _stack(self, image: LabeledImage) -> ChannelStack:
        names = self._inputs.names
        indices = find_channels(image, names, self._wanted)
        called = [f"#{index}" for index in range(image.available)]
        for index, name in zip(indices, names, strict=True):
            called[index] = name
        return ChannelStack.build(
            image.arrays,
            inputs=self._inputs,
            channel_axis=image.channel_axis,
            channels=indices,
            channel_names=called,
            statistics=self._statistics,
        )


class ImageCache:
    """Cache of the images read last; several threads may read at once.

    Parameters
    ----------
    max_bytes
        Of memory; the image in use is kept in any case.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held: dict[str, LabeledImage] = {}
        self._lock = Lock()

    def read(self, image: LabeledSource) -> LabeledImage:
        """The checked image, from the cache or its source."""
        with self._lock:
            held = self._held.get(image.name)
        content = held or image.read()
        with self._lock:
            self._held.pop(image.name, None)
            self._held[image.name] = content  # the newest stands last
            while len(self._held) > 1 and self._nbytes > self._max_bytes:
                del self._held[next(iter(self._held))]
        return content

    @property
    def _nbytes(self) -> int:
        return sum(content.nbytes for content in self._held.values())

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads its images itself."""
        return {"_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """An empty cache."""
        self.__init__(state["_max_bytes"])  # type: ignore[misc]


def choose_channels(image: LabeledImage, selected: ChannelNames | None) -> tuple[str, ...]:
    """Name the channels of a data set after its first image.

    They are the user's selection `selected`, or all channels but alpha.
    """
    names = _distinct(image.channel_names)
    chosen = range(image.available - (names == RGBA)) if selected is None else selected
    indices = [_index(image, channel, chosen) for channel in chosen]
    if names is not None:
        return tuple(names[index] for index in indices)
    return (LONE_CHANNEL,) if image.available == 1 else tuple(map(str, indices))


def find_channels(
    image: LabeledImage, names: Sequence[str], selected: ChannelNames | None
) -> tuple[int, ...]:
    """Indices of a data set's channels in one of its images.

    The user's selection decides; without one, channels are found by `names`, or by their order in
    an image without names.

    Raises
    ------
    ValueError
        If a channel is missing; the message names image and channel.
    """
    if selected is not None:
        indices = tuple(_index(image, channel, selected) for channel in selected)
        if len(set(indices)) < len(indices):
            raise ValueError(
                f"Of the channels {format_list(selected)} two are the same in {image.name}; choose "
                "each channel once."
            )
        return indices
    own = _distinct(image.channel_names)
    if own and len(names) > 1 and not all(name.isdecimal() for name in names):
        return tuple(_index(image, name, names) for name in names)
    if image.available - (own == RGBA) != len(names):
        raise ValueError(
            f"{image.name} has {pluralize(image.available, 'channel')}, but the first image has "
            f"{len(names)} ({format_list(names)}); every image needs the same channels. "
            "Choose the channels that all of them have, or take it out."
        )
    return tuple(range(len(names)))


def resample_isotropic(
    values: NDArray[np.float32], labels: NDArray[Id], pixel_size: tuple[float, float] | None
) -> tuple[NDArray[np.float32], NDArray[Id]]:
    """Values (C, Y, X) and ids (Y, X) on square pixels; unchanged if these are square or unknown.

    `pixel_size` is a pixel's height and width in any unit.
    """
    size = square_pixel_shape(labels.shape, pixel_size)
    if size == labels.shape:
        return values, labels
    own = InputSize(method="native", minimum=1, size=max(size))
    frame = InputTransform.of(labels.shape, own, pixel_size)
    return frame.resize(values), resize_nearest(labels, size)


def resize_nearest(labels: NDArray[Id], size: tuple[int, int]) -> NDArray[Id]:
    """Ids or a mask (H, W) resized to `size`: each new pixel takes the value at its center."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return np.ascontiguousarray(labels[rows[:, None], columns])


def as_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Ids as int32: negative ones become background; if one is too large, all are renumbered."""
    labels = np.where(labels > 0, labels, 0)
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        _, compact = np.unique(labels, return_inverse=True)
        # Without background in it, the lowest id would become 0.
        labels = compact.reshape(labels.shape) + bool(labels.all())
    return labels.astype(np.int32)


def _index(image: LabeledImage, channel: int | str, selected: ChannelNames) -> int:
    try:
        return channel_index(channel, image.available, image.channel_names)
    except ValueError as error:
        raise ValueError(
            f"{image.name}: {error} Every image needs the channels {format_list(selected)}: add "
            "the missing one, choose channels that all images have, say which axis holds the "
            "channels, or take the image out."
        ) from None


def _distinct(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names, unless they fail to tell the channels apart."""
    if names is None or len({plain_name(name) for name in names}) < len(names) or not all(names):
        return None
    return tuple(names)
