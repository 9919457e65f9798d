"""`ChannelStack`: an image of any size, read plane by plane as the channels of a model.

The statistics of a stack are measured once on all of it and then normalize every plane, tile and
training crop. They can be read (`ChannelStack.statistics`), saved and passed in again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.engine.channels.matching import GAP, match_channels
from napari_simmat.engine.channels.ranking import rank_channels_job
from napari_simmat.engine.coordinates import InputTransform, square_pixel_shape
from napari_simmat.engine.normalization import (
    MeasuredChannel,
    SampleBlock,
    ScalingMethod,
    Statistics,
    measure_range_job,
    stretch,
)
from napari_simmat.io.plain import to_plain
from napari_simmat.io.refusals import RefusedFileError, unreadable_part
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.models.spec import InputChannels

logger = logging.getLogger(__name__)

LOOKS_LIKE_CHANNELS = (
    "The image of shape %s was taken as a stack of planes of %d columns; if the last axis holds "
    "colors, give channel_axis=-1."
)
Index = tuple[int, ...]
_LOOKED_AT = 1024
"""Rows and columns of which it is seen which channel shows most."""
FULL_SLICE = slice(None)
STRIP = 2**22
"""Values of a plane that are normalized at once before they are resized."""


@dataclass(frozen=True)
class ArraySource:
    """An array (numpy, dask, zarr or similar) of one or several channels.

    Parameters
    ----------
    array
        Has ``shape`` and ``dtype`` and takes slices; read lazily, never changed.
    channel_axis
        The axis of the channels, counted from the front; None for a single channel.
    """

    array: Any
    channel_axis: int | None

    @classmethod
    def of(
        cls, array: Any, channel_axis: int | None = None, what: str = "The image"
    ) -> ArraySource:
        """Check the user's array; ValueError or TypeError if it cannot be an image.

        `channel_axis` may count from the end; `what` names the array in messages.
        """
        _check_array(array, what)
        if isinstance(array, np.ma.MaskedArray):
            # A masked pixel is a missing one, which only floats can represent.
            kept = array.dtype if array.dtype.kind in "fcbO" else np.dtype(np.float64)
            array = np.ma.filled(array.astype(kept), np.nan)
        _check_dtype(array, what)
        shape = array.shape
        n_dims = len(shape) - (channel_axis is not None)
        if n_dims < 2:
            of_channels = (
                "" if channel_axis is None else f" with channels along axis {channel_axis}"
            )
            raise ValueError(
                f"{what} has shape {format_shape(shape)}{of_channels}; an image needs at least a Y "
                "and an X axis."
            )
        if not all(isinstance(size, (int, np.integer)) for size in shape):
            raise ValueError(
                f"{what} has an axis of unknown length (shape {format_shape(shape)}); compute the "
                "sizes first, e.g. dask's compute_chunk_sizes()."
            )
        if 0 in shape:
            raise ValueError(
                f"{what} is empty (shape {format_shape(shape)}); give one with at least one pixel."
            )
        if channel_axis is not None:
            if not -len(shape) <= channel_axis < len(shape):
                raise ValueError(
                    f"{what} has {len(shape)} axes (shape {format_shape(shape)}), so channel axis "
                    f"{channel_axis} does not exist; give one from {-len(shape)} to "
                    f"{len(shape) - 1}."
                )
            channel_axis %= len(shape)
        return cls(array, channel_axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the machine's byte order."""
        stored: np.dtype[Any] = np.dtype(self.array.dtype)
        return stored.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the channel axis: (..., Y, X)."""
        return tuple(
            int(size) for axis, size in enumerate(self.array.shape) if axis != self.channel_axis
        )

    @property
    def n_channels(self) -> int:
        """Number of channels of the array."""
        return 1 if self.channel_axis is None else int(self.array.shape[self.channel_axis])

    @property
    def in_memory(self) -> bool:
        """Whether reading is free; memory-mapped files count as such."""
        return isinstance(self.array, np.ndarray)

    def read(
        self,
        channels: Sequence[int],
        index: tuple[int, ...],
        rows: slice = FULL_SLICE,
        columns: slice = FULL_SLICE,
    ) -> list[NDArray[Any]]:
        """Channels of one plane, each (Y, X) in the machine's byte order; may be views."""
        where: tuple[int | slice, ...] = (*index, rows, columns)
        axis = self.channel_axis
        if axis is None:
            return [self._at(where)] * len(channels)
        first = min(channels)
        end = max(channels) + 1
        if self.in_memory or end - first > 2 * len(set(channels)):
            return [self._at((*where[:axis], channel, *where[axis:])) for channel in channels]
        # The channels of a file usually share chunks, so one read serves all.
        together = self._at((*where[:axis], slice(first, end), *where[axis:]))
        left = sum(isinstance(part, slice) for part in where[:axis])  # integers drop their axis
        return list(np.moveaxis(together, left, 0)[[channel - first for channel in channels]])

    def _at(self, where: tuple[int | slice, ...]) -> NDArray[Any]:
        try:
            values = np.asarray(self.array[where])
        except (MemoryError, RefusedFileError):
            raise
        except Exception as error:  # files and task graphs may raise anything
            if self.in_memory:
                raise
            raise unreadable_part("the image", error) from error
        return values.astype(self.dtype, copy=False)


def _check_array(array: Any, what: str) -> None:
    if hasattr(array, "group_keys") or hasattr(array, "array_keys"):
        keys = sorted(array.array_keys()) if hasattr(array, "array_keys") else []
        inside = f" (it holds {', '.join(keys)})" if keys else ""
        raise TypeError(f"{what} is a zarr group, not an array; open an array of it{inside}.")
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"{what} is a {type(array).__name__}, not an array; give a numpy, dask or zarr array, "
            "or a list with one array for each channel."
        )
    stages = [
        *(getattr(array, "filters", None) or ()),
        *(getattr(array, "compressors", None) or ()),
        getattr(array, "serializer", None),
    ]
    if any("pickle" in repr(stage).lower() for stage in stages):
        raise ValueError(
            f"{what} is stored with a pickle codec, which can run code when it is read; have it "
            "saved again without."
        )


def _check_dtype(array: Any, what: str) -> None:
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:
        raise TypeError(
            f"{what} has values of type {array.dtype}; convert it to a numpy array first."
        ) from None
    advice = {
        "b": "convert it to numbers, e.g. astype('uint8'), or give it as mask prompt",
        "c": "give real numbers, e.g. its magnitude, numpy.abs(image)",
    }
    if dtype.kind not in "iuf":
        raise TypeError(
            f"{what} has values of type {dtype.name}; images are integers or floats: "
            f"{advice.get(dtype.kind, 'convert it to numbers first')}."
        )


class StackOptions(TypedDict, total=False):
    """What `ChannelStack.build` takes besides array and channels."""

    channel_names: Sequence[str] | None
    statistics: Statistics | None
    pixel_size: tuple[float, float] | None
    measured_on: Sequence[SampleBlock] | None


class ChannelStack:
    """An image of any size whose planes are read as a model's channels; made by `build`.

    Planes are read lazily, one at a time, and the user's arrays are never changed.

    Attributes
    ----------
    inputs
        The channels that the model reads, and their normalization.
    selection, names
        Index of the available channel for each of the model's, or `GAP`, and its name or index as
        text.
    pixel_size
        Height and width of a pixel of its planes, in any unit; None if pixels are square.
    """

    def __init__(
        self,
        sources: Sequence[ArraySource],
        selection: tuple[int, ...],
        names: tuple[str, ...],
        inputs: InputChannels,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
        measured_on: Sequence[SampleBlock] | None = None,
    ) -> None:
        self.inputs = inputs
        self._measured_on = measured_on
        self.pixel_size = pixel_size
        self.selection = selection
        self.names = names
        self._sources = tuple(sources)
        # A repeated channel is read once.
        self._distinct = tuple(n for n in dict.fromkeys(selection) if n != GAP)
        self._statistics = statistics
        self._last: tuple[Index, list[NDArray[Any]]] | None = None
        if statistics is not None and len(statistics.low) != len(selection):
            raise ValueError(
                f"The statistics are of {len(statistics.low)} channels, but {inputs.reader} reads "
                f"{len(selection)}; measure them on this image, or take those of another like it."
            )

    @classmethod
    def build(
        cls,
        array_or_arrays: Any,
        *,
        inputs: InputChannels,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        channel_names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
        measured_on: Sequence[SampleBlock] | None = None,
    ) -> ChannelStack:
        """Select the model's channels from one or several arrays.

        Parameters
        ----------
        array_or_arrays
            (..., Y, X), numpy, dask, zarr or similar; or a list with one such array for each
            channel, of equal shape but any type.
        inputs
            The channels that the model reads, and their normalization.
        channel_axis
            The axis of a single array that holds channels; without it the array is one channel.
        channels, channel_names
            The user's selection (see `match_channels`), and names of the available channels.
        statistics
            Used instead of measuring, e.g. those of the whole stack for a part of it.
        pixel_size
            Height and width of a pixel, in any unit: the network sees square pixels.
        measured_on
            Blocks whose values alone are measured, e.g. those of a slide with tissue.

        Raises
        ------
        ValueError, TypeError
            If this cannot be the model's input.
        """
        several = isinstance(array_or_arrays, (list, tuple))
        names = None if channel_names is None else tuple(map(str, channel_names))
        if several:
            sources = _sources(array_or_arrays, channel_axis, names)
        else:
            sources = [ArraySource.of(array_or_arrays, channel_axis)]
            shape = sources[0].shape
            if channel_axis is None and len(shape) > 2 and shape[-1] in (3, 4):
                logger.warning(LOOKS_LIKE_CHANNELS, format_shape(shape), shape[-1])
        available = len(sources) if several else sources[0].n_channels
        last = not several and channel_axis is not None
        last = last and sources[0].channel_axis == len(sources[0].shape)
        selection = match_channels(
            available,
            inputs,
            names=names,
            channels=channels,
            rgba=last,
            clearest=lambda: _clearest(sources),
        )
        chosen = tuple(
            inputs.names[n] if i == GAP else str(i) if names is None else names[i]
            for n, i in enumerate(selection)
        )
        square_pixel_shape(sources[0].shape[-2:], pixel_size)  # checks the pixel size
        return cls(sources, selection, chosen, inputs, statistics, pixel_size, measured_on)

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X), without channels."""
        return self._sources[0].shape

    @property
    def n_channels(self) -> int:
        """Number of channels that the model reads."""
        return len(self.selection)

    @property
    def statistics(self) -> Statistics:
        """The statistics of the normalization; measured on first use, then fixed."""
        return finish(self.measure_job())

    def measure_job(self) -> Job[Statistics]:
        """`statistics` as a job that can be canceled between two blocks."""
        if self._statistics is None:
            channels = [
                MeasuredChannel(self.names[self.selection.index(number)], dtype, way)
                for number, dtype, way in zip(
                    self._distinct, self._dtypes(), self._ways(), strict=True
                )
            ]
            rule = self.inputs.normalization
            blocks = self._measured_on
            ends = yield from measure_range_job(self._part, self.shape, channels, rule, blocks)
            of_channel = dict(zip(self._distinct, ends, strict=True)) | {GAP: (0.0, 0.0)}
            chosen = [of_channel[channel] for channel in self.selection]
            low, high = (tuple(each) for each in zip(*chosen, strict=True))
            self._statistics = Statistics(low, high)
        return self._statistics

    def plane(self, index: Index = ()) -> NDArray[Any]:
        """Raw values (C, Y, X) of one plane, in a type common to all channels."""
        read = self._by_channel(self._read(index))
        return np.stack([read[channel] for channel in self.selection])

    def _by_channel(self, planes: list[NDArray[Any]]) -> dict[int, NDArray[Any]]:
        """The distinct channels by number; zeros in place of one that lacks."""
        by_number = dict(zip(self._distinct, planes, strict=True))
        by_number[GAP] = np.zeros_like(planes[0])
        return by_number

    def normalized(self, index: Index = ()) -> NDArray[Any]:
        """One plane (C, Y, X) in 0..scale as float32, not yet standardized.

        If the rule keeps uint8, the values stay uint8. NaN and infinity become 0, the low end.
        """
        return self._normalized(self._read(index))

    def reduced(self, index: Index, transform: InputTransform) -> NDArray[Any]:
        """`normalized`, resized if that makes it smaller, as `network_input` takes it.

        Floats a few rows at a time, first along X, which gives the numbers of resizing the whole up
        to rounding: a large plane is never in memory as float.
        """
        planes = self._read(index)
        height, width = transform.image
        if math.prod(transform.resized) >= height * width:
            return self._normalized(planes)
        if self._keeps_bytes and not transform.half_pixel:
            # Pillow rounds bytes after either axis, and since version 13 not always X goes first.
            read = self._by_channel(planes)
            resized = {
                channel: transform.resize(read[channel][np.newaxis])[0]
                for channel in set(self.selection)
            }
            return np.stack([resized[channel] for channel in self.selection])
        rows = max(1, STRIP // (width * self.n_channels))
        strips = []
        for start in range(0, height, rows):
            strip = self._normalized([plane[start : start + rows] for plane in planes])
            size = len(strip[0]), width
            along_x = replace(transform, image=size, resized=(size[0], transform.resized[1]))
            strips.append(along_x.resize(strip))
        narrow = np.concatenate(strips, axis=1)
        return replace(transform, image=(height, transform.resized[1])).resize(narrow)

    def _normalized(self, planes: list[NDArray[Any]]) -> NDArray[Any]:
        statistics = self.statistics
        read = self._by_channel(planes)
        ways = dict(zip(self._distinct, self._ways(), strict=True))
        if self._keeps_bytes:
            return np.stack([read[channel] for channel in self.selection])
        scale = self.inputs.normalization.scale
        result = np.empty((self.n_channels, *planes[0].shape), dtype=np.float32)
        numbers = zip(self.selection, statistics.low, statistics.high, strict=True)
        for out, (channel, low, high) in zip(result, numbers, strict=True):
            if channel == GAP:
                out[...] = 0
            elif ways[channel] == "percentile":
                out[...] = stretch(read[channel], low, high, scale)
            else:
                with np.errstate(over="ignore"):  # values beyond float32 become infinite
                    out[...] = read[channel]
                out[~np.isfinite(out)] = 0
        return result

    def read_as(self, inputs: InputChannels) -> ChannelStack:
        """The same channels of the same image for another model that reads as many."""
        return ChannelStack(
            self._sources,
            self.selection,
            self.names,
            inputs,
            pixel_size=self.pixel_size,
            measured_on=self._measured_on,
        )

    def part(self, index: Index, rows: slice, columns: slice) -> ChannelStack:
        """A part of one plane as an image of its own, read now and normalized as the whole."""
        index = self._checked(index)
        if self._last is not None and self._last[0] == index:
            read = [plane[rows, columns] for plane in self._last[1]]
        else:
            read = self._part(index, rows, columns)
        sources = [ArraySource.of(each) for each in read]
        return ChannelStack(
            sources, self._pattern, self.names, self.inputs, self.statistics, self.pixel_size
        )

    def key(self, index: Index = ()) -> str:
        """Hash of what `normalized` returns and of the pixel shape: 32 hexadecimal digits."""
        import xxhash

        read = self._read(index)
        digest = xxhash.xxh3_128()
        types = [plane.dtype.str for plane in read]
        described = [self._pattern, types, self.shape[-2:], to_plain(self.statistics)]
        seen = square_pixel_shape(self.shape[-2:], self.pixel_size)
        if seen != tuple(self.shape[-2:]):
            described.append(seen)
        digest.update(json.dumps(described).encode())
        for plane in read:
            digest.update(np.ascontiguousarray(plane).data)
        return digest.hexdigest()

    @property
    def _pattern(self) -> tuple[int, ...]:
        """Index into the distinct channels for each of the model's."""
        return tuple(c if c == GAP else self._distinct.index(c) for c in self.selection)

    def _read(self, index: Index) -> list[NDArray[Any]]:
        """The distinct channels of one plane; the last plane read from a file is kept."""
        index = self._checked(index)
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        planes = self._part(index)
        if not all(source.in_memory for source in self._sources):
            self._last = (index, planes)
        return planes

    def _part(
        self, index: Index, rows: slice = FULL_SLICE, columns: slice = FULL_SLICE
    ) -> list[NDArray[Any]]:
        if len(self._sources) == 1:
            return self._sources[0].read(self._distinct, index, rows, columns)
        return [self._sources[n].read([0], index, rows, columns)[0] for n in self._distinct]

    def _checked(self, index: Index) -> Index:
        leading = self.shape[:-2]
        index = tuple(int(i) for i in index)
        if len(index) != len(leading):
            raise ValueError(
                f"The image has shape {format_shape(self.shape)} without channels, so a "
                f"plane is chosen by {len(leading)} numbers, not {len(index)}."
            )
        for i, size in zip(index, leading, strict=True):
            if not 0 <= i < size:
                raise ValueError(
                    f"There is no plane {i}; the image has {size} planes along that axis, counted "
                    f"from 0 to {size - 1}."
                )
        return index

    def _dtypes(self) -> list[np.dtype[Any]]:
        several = len(self._sources) > 1
        return [self._sources[n if several else 0].dtype for n in self._distinct]

    @property
    def _keeps_bytes(self) -> bool:
        """Whether all channels stay uint8."""
        return set(self._ways()) == {"bytes"}

    def _ways(self) -> list[ScalingMethod]:
        rule = self.inputs.normalization
        in_bytes = [rule.keep_uint8 and dtype == np.uint8 for dtype in self._dtypes()]
        if rule.joint:  # one method for all, so that ratios between channels survive
            in_bytes = [all(in_bytes)] * len(in_bytes)
        other: ScalingMethod = "values" if rule.method == "none" else "percentile"
        return ["bytes" if keep else other for keep in in_bytes]


def _sources(
    arrays: Sequence[Any], channel_axis: int | None, names: Sequence[str] | None
) -> list[ArraySource]:
    if not arrays:
        raise ValueError("There is no image; give an array, or a list with one for each channel.")
    if channel_axis is not None:
        raise ValueError(
            f"A list holds one array for each channel, so it has no channel axis {channel_axis}; "
            "leave it out, or split the array that has one."
        )
    called = [
        f"Channel {names[n] if names is not None and n < len(names) else n}"
        for n in range(len(arrays))
    ]
    sources = [
        ArraySource.of(array, None, what) for array, what in zip(arrays, called, strict=True)
    ]
    check_one_shape(called, [source.shape for source in sources])
    return sources


def _clearest(sources: Sequence[ArraySource]) -> int:
    """Which channel shows most, in the middle of the middle plane."""
    shape = sources[0].shape
    plane = tuple(size // 2 for size in shape[:-2])
    starts = [max(0, (size - _LOOKED_AT) // 2) for size in shape[-2:]]
    rows, columns = (slice(start, start + _LOOKED_AT) for start in starts)
    planes = [
        plane_of_channel
        for each in sources
        for plane_of_channel in each.read(range(each.n_channels), plane, rows, columns)
    ]
    return finish(rank_channels_job(np.stack(planes)))[0].number


def check_one_shape(called: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError unless the channels of an image, by what messages call them, are alike."""
    for what, shape in zip(called, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{what} has the shape {format_shape(shape)}, {called[0]} has "
                f"{format_shape(shapes[0])}; all channels of an image need one shape."
            )
