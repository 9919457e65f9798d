"""A labelled image: lazy pixels, channels, labels, isotropic resampling.

Which channels a data set has, and where they are in each of its images.

An image with its labels as it was read from files or given as arrays.

Labelled planes whose pixels become square, as the predictor shows them to the network.

A labelled image as samples: its planes with objects, normalised as the model will see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape, pluralize
from napari_simmat.datasets.dataset import LoadedSample
from napari_simmat.engine.channels import RGB, channel_index, plain_name
from napari_simmat.engine.coordinates import InputTransform, square_pixel_shape
from napari_simmat.engine.image_stack import ArraySource, ChannelStack
from napari_simmat.engine.normalization import Statistics
from napari_simmat.io.image_file import ImageFile
from napari_simmat.models.spec import InputChannels, InputSize, Normalization

ChannelSelection = Sequence[int | str]
"""Names and indices."""
LONE_CHANNEL = "intensity"
"""Name of a lone channel without a name."""


def known_names(file: ImageFile, channel_axis: int | None) -> tuple[str, ...] | None:
    """What a file calls the channels along an axis, if that is its own channel axis."""
    if channel_axis is None or channel_axis % file.data.ndim != file.channel_axis:
        return None
    if file.rgb:
        return (*RGB, "alpha")[: file.data.shape[file.channel_axis]]
    return file.channel_names


def choose_channels(
    content: ImageContent, wanted: ChannelSelection | None, where: str
) -> tuple[str, ...]:
    """Names of the channels that a data set will have, from its first image.

    Parameters
    ----------
    content
        The image.
    wanted
        What the user chose; None for all channels but alpha.
    where
        The image's name for messages.
    """
    names = _distinct(content.names)
    if wanted is None:
        alpha = names is not None and names == (*RGB, "alpha")
        wanted = range(content.available - alpha)
    indices = [_index(content, channel, where, wanted) for channel in wanted]
    if names is not None:
        return tuple(names[index] for index in indices)
    if content.available == 1:
        return (LONE_CHANNEL,)
    return tuple(str(index) for index in indices)


def find_channels(
    content: ImageContent, names: Sequence[str], wanted: ChannelSelection | None, where: str
) -> tuple[int, ...]:
    """Indices of a data set's channels in one of its images.

    Channels that the user chose are those; otherwise they are known by `names`, or, where an
    image has no names, by their order.

    Raises
    ------
    ValueError
        If a channel is missing; the sentence names image and channel.
    """
    own = _distinct(content.names)
    if wanted is not None:
        indices = tuple(_index(content, channel, where, wanted) for channel in wanted)
        if len(set(indices)) < len(indices):
            raise ValueError(
                f"Of the channels {format_list(wanted)} two are the same in {where}; choose each "
                "channel once."
            )
        return indices
    named = len(names) > 1 and not all(name.isdecimal() for name in names)
    if own is not None and named:
        return tuple(_index(content, name, where, names) for name in names)
    alpha = own is not None and own == (*RGB, "alpha")
    if content.available - alpha != len(names):
        raise ValueError(
            f"{where} has {pluralize(content.available, 'channel')}, but the first image has "
            f"{len(names)} ({format_list(names)}); every image needs the same channels. "
            "Choose the channels that all of them have, or take it out."
        )
    return tuple(range(len(names)))


def _index(content: ImageContent, channel: int | str, where: str, wanted: ChannelSelection) -> int:
    try:
        return channel_index(channel, content.available, content.names)
    except ValueError as error:
        raise ValueError(
            f"{where}: {error} Every image needs the channels {format_list(wanted)}: add the "
            "missing one, choose channels that all images have, say which axis holds the channels, "
            "or take the image out."
        ) from None


def _distinct(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names, unless they do not tell the channels apart."""
    if names is None or len({plain_name(name) for name in names}) < len(names) or not all(names):
        return None
    return tuple(names)


@dataclass(frozen=True, eq=False)
class ImageContent:
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
        return ArraySource.of(self.arrays, self.channel_axis).n_channels

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X) of the image without channels."""
        if isinstance(self.arrays, (list, tuple)):
            return ArraySource.of(self.arrays[0]).shape
        return ArraySource.of(self.arrays, self.channel_axis).shape

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

    def read(self) -> ImageContent:
        """Image and labels; ValueError, TypeError or OSError in one sentence if that fails."""


def check_content(content: ImageContent, name: str) -> None:
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
        ArraySource.of(content.arrays, content.channel_axis, name)
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


def _check_channels(content: ImageContent, name: str) -> None:
    called = content.names or range(content.available)
    whats = [f"Channel {channel} of {name}" for channel in called]
    pairs = zip(content.arrays, whats, strict=True)
    shapes = [ArraySource.of(array, None, what).shape for array, what in pairs]
    for shape, what in zip(shapes, whats, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{what} has the shape {format_shape(shape)}, {whats[0]} has "
                f"{format_shape(shapes[0])}; all channels of an image need one shape."
            )


Id = TypeVar("Id", bound=np.generic)


def resample_isotropic(
    values: NDArray[np.float32], labels: NDArray[Id], pixel_size: tuple[float, float] | None
) -> tuple[NDArray[np.float32], NDArray[Id]]:
    """Values (C, Y, X) and ids (Y, X) on square pixels; as they are where these are known to be.

    Parameters
    ----------
    values, labels
        The plane.
    pixel_size
        Height and width of a pixel, in any unit, if they are known.
    """
    size = square_pixel_shape(labels.shape, pixel_size)
    if size == labels.shape:
        return values, labels
    own = InputSize(method="native", minimum=1, size=max(size))
    frame = InputTransform.of(labels.shape, own, pixel_size)
    return frame.resize(values), resize_nearest(labels, size)


def resize_nearest(labels: NDArray[Id], size: tuple[int, int]) -> NDArray[Id]:
    """Ids or a mask (H, W) resized to `size`: of each new pixel the value at its centre."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return np.ascontiguousarray(labels[rows[:, None], columns])


StackIndex = tuple[int, ...]
CACHE_BYTES = 2**30
"""Bytes of images that are kept in memory, so that a stack is not read anew for each plane."""


class ImageCache:
    """The images that were read last, as far as they fit.

    Parameters
    ----------
    most
        Bytes; the image that is in use is kept in any case.
    """

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most = most
        self._held: dict[str, ImageContent] = {}

    def read(self, image: LabelledImage) -> ImageContent:
        """The image, from memory or anew; then it is checked (see `check_content`)."""
        content = self._held.pop(image.name, None)
        if content is None:
            content = image.read()
            check_content(content, image.name)
        self._held[image.name] = content  # the newest stands last
        while len(self._held) > 1 and sum(c.nbytes for c in self._held.values()) > self._most:
            del self._held[next(iter(self._held))]
        return content

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads its images itself."""
        return {"_most": self._most, "_held": {}}


class LabelledStack:
    """A labelled image of any number of planes, with the channels of its data set.

    Parameters
    ----------
    image
        Where it comes from.
    names
        The data set's channels.
    wanted
        What the user chose, see `find_channels`.
    normalization
        The data set's.
    shelf
        Shared by the images of a data set.
    pixel_size
        Height and width of a pixel, where the image does not know.

    Attributes
    ----------
    group
        Planes and images that belong together share it.
    """

    def __init__(
        self,
        image: LabelledImage,
        names: Sequence[str],
        wanted: ChannelSelection | None,
        normalization: Normalization,
        shelf: ImageCache,
        group: str = "",
        pixel_size: tuple[float, float] | None = None,
    ) -> None:
        self.image = image
        self.group = group or image.name
        self._names = tuple(names)
        self._wanted = wanted
        self._inputs = InputChannels(
            names=self._names, normalization=normalization, reader="the data set"
        )
        self._shelf = shelf
        self._pixel_size = pixel_size
        self._statistics: Statistics | None = None

    @property
    def name(self) -> str:
        """The image's."""
        return self.image.name

    def labels(self) -> NDArray[Any]:
        """The whole label image (..., Y, X), as it was given."""
        return self._shelf.read(self.image).labels

    def check(self) -> None:
        """Read the image and say in one sentence what is wrong with it.

        Raises
        ------
        ValueError, TypeError, OSError
            If a channel is missing, or this is no image with labels of its shape.
        """
        self._stack(self._shelf.read(self.image))

    def planes(self) -> Iterator[tuple[StackIndex, NDArray[Any]]]:
        """Index and labels (Y, X) of each plane that holds an object."""
        labels = self.labels()
        for plane in np.ndindex(*labels.shape[:-2]):
            if (labels[plane] > 0).any():
                yield plane, labels[plane]

    def load(self, plane: StackIndex = ()) -> LoadedSample:
        """Values (C, Y, X), normalised by the whole image, and ids (Y, X) of one plane.

        Pixels that are not square become so, as the predictor has them.
        """
        content = self._shelf.read(self.image)
        stack = self._stack(content)
        try:
            values = stack.normalized(plane).astype(np.float32, copy=False)
        except ValueError as error:  # no finite value, or a part of a file that is damaged
            raise ValueError(f"{self.name}: {error}") from error
        self._statistics = stack.statistics  # measured once, even if the image is read again
        pixel_size = content.pixel_size or self._pixel_size
        return resample_isotropic(values, as_ids(content.labels[plane]), pixel_size)

    def _stack(self, content: ImageContent) -> ChannelStack:
        indices = find_channels(content, self._names, self._wanted, self.name)
        called = [f"#{index}" for index in range(content.available)]
        for index, name in zip(indices, self._names, strict=True):
            called[index] = name
        return ChannelStack.build(
            content.arrays,
            inputs=self._inputs,
            channel_axis=content.channel_axis,
            channels=indices,
            names=called,
            statistics=self._statistics,
        )


def as_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Ids as int32: what is negative becomes background, what is too large is numbered anew."""
    labels = np.where(labels > 0, labels, 0)
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        _, compact = np.unique(labels, return_inverse=True)
        # Without background in it, the lowest id would become 0.
        labels = compact.reshape(labels.shape) + bool(labels.all())
    return labels.astype(np.int32)
